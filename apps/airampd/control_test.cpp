#include "control.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "models.hpp"

namespace AIRamp::Daemon {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr double kGiB = 1024.0 * 1024 * 1024;

// A machine with one device, as the controller sees it.
struct Machine {
  double busy = 0.5, bytes_per_second = 0, total = 80 * kGiB, used = 20 * kGiB, bus = 10e9;
  double host_total = 256 * kGiB, host_available = 200 * kGiB, stalled = 0;
  int64_t now_ns = 0;

  Observation look() {
    now_ns += 2 * kSecond;
    Observation o;
    o.now_ns = now_ns;
    ai_vmm::telemetry::DeviceSample d;
    d.id = "0000:c1:00.0";
    d.busy = busy;
    d.memory_total = total, d.memory_used = used;
    d.link_received = bytes_per_second, d.link_sent = 0.0;
    d.link_capacity = bus;
    o.devices.push_back(d);
    o.memory = {host_total, host_available};
    o.pressure.memory_some = stalled;
    return o;
  }
};

struct Loop {
  Machine machine;
  std::vector<std::string> log;
  Controller controller;
  int changes = 0;

  explicit Loop(Policy policy, Settings initial = {})
      : controller(policy, initial, [this](const std::string& s) { log.push_back(s); }) {}
  void run(
      int looks, const std::function<void()>& plant = [] {}) {
    for (int i = 0; i < looks; ++i) {
      plant();
      changes += controller.step(machine.look());
    }
  }
  int64_t value(Key key) const { return controller.settings()[key]; }
  int logged(const std::string& part) const {
    int n = 0;
    for (const auto& l : log) n += l.find(part) != l.npos;
    return n;
  }
};

Policy policy(Mode mode) {
  Policy p;
  p.mode = mode;
  return p;
}
Settings hold_all_but(Key key) {
  Settings s;
  s.held.fill(true);
  s.held[size_t(key)] = false;
  return s;
}

TEST(Models, ClosedForms) {
  EXPECT_DOUBLE_EQ(bandwidth_delay_bytes(1.25e9, 100e-6), 125000);
  // total 64 MB, 10 GB/s, 10 us: sqrt(64e6 * 1e-5 * 1e10) = 2.53 MB; the time there is T + 2 sqrt(total * o / r).
  double c = best_chunk(64e6, 10e9, 10e-6);
  EXPECT_NEAR(c, 2529822, 1);
  EXPECT_NEAR(chunked_seconds(64e6, 10e9, 10e-6, c), 6.4e-3 + 2 * std::sqrt(64e6 * 10e-6 / 10e9), 1e-12);
  for (double f : {0.5, 0.9, 1.1, 2.0})
    EXPECT_GT(chunked_seconds(64e6, 10e9, 10e-6, c * f), chunked_seconds(64e6, 10e9, 10e-6, c));
  // Two ranks, 125 MB/s, packing at 10 GB/s, 100 us: 0.5 / 125e6 - 1e-10 = 3.9e-9 s a byte.
  BreakEven b = break_even(125e6, 10e9, 100e-6, 2);
  ASSERT_TRUE(b.ever);
  EXPECT_NEAR(b.bytes, 100e-6 / 3.9e-9, 1);
  EXPECT_NEAR(compressed_gain_seconds(b.bytes, 125e6, 10e9, 100e-6, 2), 0, 1e-12);
  EXPECT_FALSE(break_even(50e9, 10e9, 0, 2).ever) << "packing at 10 GB/s cannot win against a link of 50";
  EXPECT_EQ(power_of_two_near(2529822), 2 << 20);
  EXPECT_EQ(power_of_two_above(1025), 2048);
  EXPECT_EQ(power_of_two_above(1024), 1024);
  EXPECT_EQ(two_digits(1234567), 1200000);
  EXPECT_EQ(two_digits(0.3), 0);
  EXPECT_EQ(two_digits(7), 7);
}

TEST(Adviser, SaysNothingOfWhatIsUnknown) {
  Adviser adviser;
  Observation nothing;
  EXPECT_TRUE(adviser.advise(nothing, Settings()).empty());
  EXPECT_FALSE(score(Judge::throughput, nothing));
  EXPECT_FALSE(score(Judge::device_memory, nothing));
  EXPECT_FALSE(score(Judge::host_memory, nothing));
}

TEST(Adviser, LinkAndPackingMakeTheWireKeys) {
  Adviser adviser;
  Observation o;
  o.now_ns = kSecond;
  ai_vmm::telemetry::NetworkSample eth;
  eth.name = "eth0", eth.up = true, eth.capacity = 125e6;
  o.links.push_back(eth);
  o.tcp.min_rtt = 200e-6;
  o.pack_rate = 10e9;
  std::map<Key, int64_t> targets;
  for (const Target& t : adviser.advise(o, Settings())) targets[t.key] = t.value;
  EXPECT_EQ(targets[Key::WIRE_COMPRESS], 1);
  EXPECT_EQ(targets[Key::WIRE_LINK_BYTES_PER_S], 130'000'000) << "two digits";
  EXPECT_EQ(targets[Key::WIRE_PACK_BYTES_PER_S], 10'000'000'000);
  EXPECT_EQ(targets[Key::WIRE_LATENCY_NS], 100'000);
  EXPECT_EQ(targets[Key::WIRE_MIN_BYTES], 1 << 20) << "never below the default";
  o.tcp.min_rtt = 10e-3;
  o.now_ns += 700 * kSecond;
  for (const Target& t : adviser.advise(o, Settings())) targets[t.key] = t.value;
  EXPECT_EQ(targets[Key::WIRE_MIN_BYTES], 4 << 20) << "1.25 MB are under way at once, from each of two ranks";
  o.pack_rate = 0.2e9;
  targets.clear();
  for (const Target& t : adviser.advise(o, Settings())) targets[t.key] = t.value;
  EXPECT_EQ(targets[Key::WIRE_COMPRESS], 0) << "packing at 0.2 GB/s costs more than half of 125 MB/s saves";
}

TEST(Adviser, TheBandwidthDelayProductTakesTheBestOfItsWindows) {
  WindowExtreme most(10 * kSecond, true), least(10 * kSecond, false);
  for (auto [t, v] : {std::pair{1, 5.0}, {2, 9.0}, {3, 2.0}, {4, 4.0}}) {
    most.push(t * kSecond, v);
    least.push(t * kSecond, v);
  }
  EXPECT_DOUBLE_EQ(most.value().value(), 9);
  EXPECT_DOUBLE_EQ(least.value().value(), 2);
  most.push(13 * kSecond, Reading::unknown("gone"));
  least.push(14 * kSecond, Reading::unknown("gone"));
  EXPECT_DOUBLE_EQ(most.value().value(), 4) << "9 is too old";
  EXPECT_DOUBLE_EQ(least.value().value(), 4);
  most.push(30 * kSecond, Reading::unknown("gone"));
  EXPECT_FALSE(most.value().known());
}

// A plant whose best piece is known: throughput = total / chunked_seconds(c), with noise.
TEST(Search, FindsTheClosedFormOptimumAndThenRests) {
  for (int64_t start : {65536, 4194304, 268435456}) {
    for (unsigned seed : {1u, 2u, 3u}) {
      Policy p = policy(Mode::automatic);
      p.least_gain = 0.01;
      Settings initial = hold_all_but(Key::OCL_CHUNK_BYTES);
      initial.values[Key::OCL_CHUNK_BYTES] = start;
      Loop loop(p, initial);
      loop.machine.bus = 10e9;
      std::mt19937 random(seed);
      std::normal_distribution<double> noise(1, 0.001);
      constexpr double kTotal = 64 << 20, kOverhead = 100e-6;
      double best = best_chunk(kTotal, 10e9, kOverhead);
      auto plant = [&] {
        double c = double(loop.value(Key::OCL_CHUNK_BYTES));
        loop.machine.bytes_per_second = kTotal / chunked_seconds(kTotal, 10e9, kOverhead, c) * noise(random);
      };
      loop.run(1500, plant);
      double reached = chunked_seconds(kTotal, 10e9, kOverhead, double(loop.value(Key::OCL_CHUNK_BYTES)));
      double optimum = chunked_seconds(kTotal, 10e9, kOverhead, best);
      EXPECT_LT(reached, optimum * 1.04) << "from " << start << " to " << loop.value(Key::OCL_CHUNK_BYTES);
      int before = loop.changes;
      loop.run(1500, plant);  // 50 minutes: the back-off has grown to hours
      EXPECT_LE(loop.changes - before, 12) << "the search rests";
      EXPECT_GT(loop.controller.count(Change::Stage::rolled_back), 0u) << "steps past the optimum are taken back";
    }
  }
}

TEST(Search, AFlatPlantKeepsWhatItHas) {
  Loop loop(policy(Mode::automatic), hold_all_but(Key::OCL_CHUNK_BYTES));
  loop.machine.bytes_per_second = 5e9;
  loop.machine.bus = 33.5e9;  // the model's own best is the default, 4 MiB
  loop.run(400);
  EXPECT_EQ(loop.value(Key::OCL_CHUNK_BYTES), 4194304);
  EXPECT_EQ(loop.controller.count(Change::Stage::kept), 0u) << "nothing helped, so that nothing stayed";
}

TEST(Search, WithoutLoadNothingIsTried) {
  Loop loop(policy(Mode::automatic), hold_all_but(Key::OCL_CHUNK_BYTES));
  loop.machine.bytes_per_second = 0, loop.machine.busy = 0, loop.machine.bus = 33.5e9;
  loop.run(200);
  EXPECT_EQ(loop.changes, 0);
}

// The pool holds as much as it may; the rest of the device belongs to the program.
TEST(DeviceMemory, AFullDeviceShrinksThePoolAndARoomyOneGivesItBack) {
  Settings initial = hold_all_but(Key::POOL_MAX_BYTES);
  initial.values[Key::POOL_MAX_BYTES] = int64_t(16 * kGiB);
  Loop loop(policy(Mode::automatic), initial);
  double program = 60 * kGiB;
  auto plant = [&] { loop.machine.used = program + double(loop.value(Key::POOL_MAX_BYTES)); };
  // 76 of 80 GiB is above 92 %; 8 GiB less leaves 68 of 80, which is below; more than 75 % keeps it from growing.
  loop.run(200, plant);
  EXPECT_EQ(loop.value(Key::POOL_MAX_BYTES), int64_t(8 * kGiB));
  program = 10 * kGiB;
  loop.run(400, plant);
  EXPECT_EQ(loop.value(Key::POOL_MAX_BYTES), int64_t(16 * kGiB)) << "a quarter of 80 GiB as a power of two";
  EXPECT_EQ(loop.controller.count(Change::Stage::rolled_back), 0u);
}

TEST(DeviceMemory, AShrunkPoolThatFreesNothingIsTakenBackAndLeftAloneLongerEachTime) {
  Loop loop(policy(Mode::automatic), hold_all_but(Key::POOL_MAX_BYTES));
  loop.machine.used = 78 * kGiB;  // somebody else's
  loop.run(60);
  EXPECT_EQ(loop.value(Key::POOL_MAX_BYTES), row(Key::POOL_MAX_BYTES).fallback);
  EXPECT_EQ(loop.controller.count(Change::Stage::rolled_back), 1u);
  EXPECT_EQ(loop.logged("rolled back"), 1);
  // Two hours: at first after 5 minutes, then 10, 20, 40 …
  loop.run(3600);
  EXPECT_LE(loop.controller.count(Change::Stage::rolled_back), 6u);
  EXPECT_GE(loop.controller.count(Change::Stage::rolled_back), 4u);
  EXPECT_EQ(loop.value(Key::POOL_MAX_BYTES), row(Key::POOL_MAX_BYTES).fallback);
}

TEST(Hysteresis, AReadingThatSwingsAroundTheMarkChangesLittle) {
  Loop loop(policy(Mode::automatic), hold_all_but(Key::PREWARM_PERMILLE));
  int i = 0;
  loop.run(2000, [&] { loop.machine.used = loop.machine.total * (++i % 2 ? 0.93 : 0.91); });
  EXPECT_LE(loop.changes, 12) << "in over an hour";
}

TEST(Hysteresis, OneStrayLookChangesNothing) {
  Loop loop(policy(Mode::automatic), hold_all_but(Key::PREWARM_PERMILLE));
  for (int round = 0; round < 50; ++round) {
    loop.machine.used = 0.95 * loop.machine.total;
    loop.run(1);
    loop.machine.used = 0.2 * loop.machine.total;
    loop.run(5);
  }
  EXPECT_EQ(loop.changes, 0);
}

TEST(HostMemory, PressureTakesPinnedMemoryFirst) {
  Loop loop(policy(Mode::automatic), hold_all_but(Key::PIN_MAX_BYTES));
  auto plant = [&] { loop.machine.host_available = 12 * kGiB - double(loop.value(Key::PIN_MAX_BYTES)); };
  loop.machine.host_total = 256 * kGiB;
  loop.run(1, plant);
  EXPECT_EQ(loop.value(Key::PIN_MAX_BYTES), 64 << 20);
  loop.machine.stalled = 0.2;
  loop.run(20, plant);
  EXPECT_EQ(loop.value(Key::PIN_MAX_BYTES), 256 << 20) << "a quarter of the 1 GiB that a calm host of this size gets";
}

TEST(Modes, AdviseChangesNothingUntilAPersonApproves) {
  Loop loop(policy(Mode::advise), hold_all_but(Key::PIN_MAX_BYTES));
  loop.run(50);
  EXPECT_EQ(loop.changes, 0);
  ASSERT_EQ(loop.controller.open().size(), 1u);
  EXPECT_EQ(loop.logged("--approve PIN_MAX_BYTES"), 1) << "said once";
  EXPECT_EQ(loop.controller.approve("PIN_TTL_MS", loop.machine.now_ns).status().code(), Code::not_found);
  EXPECT_EQ(loop.controller.approve("PIN_MAX", loop.machine.now_ns).status().code(), Code::invalid_argument);
  auto changed = loop.controller.approve("all", loop.machine.now_ns);
  ASSERT_TRUE(changed.ok());
  EXPECT_TRUE(*changed);
  EXPECT_EQ(loop.value(Key::PIN_MAX_BYTES), 1 << 30);
  loop.run(20);
  EXPECT_EQ(loop.controller.count(Change::Stage::kept), 1u) << "what was approved is judged too";
}

TEST(Modes, SupervisedWaitsForItsWindowAndHeedsAVeto) {
  Policy p = policy(Mode::supervised);
  p.veto_window_ns = 60 * kSecond;
  Loop loop(p, hold_all_but(Key::PIN_MAX_BYTES));
  loop.run(3);  // the third look in a row announces it, at 6 s
  ASSERT_EQ(loop.controller.open().size(), 1u);
  EXPECT_EQ(loop.controller.open()[0].due_ns, 66 * kSecond);
  loop.run(29);
  EXPECT_EQ(loop.changes, 0) << "64 s";
  loop.run(1);
  EXPECT_EQ(loop.changes, 1) << "66 s";

  Loop vetoed(p, hold_all_but(Key::PIN_MAX_BYTES));
  vetoed.run(3);
  auto changed = vetoed.controller.veto("PIN_MAX_BYTES", vetoed.machine.now_ns);
  ASSERT_TRUE(changed.ok());
  EXPECT_FALSE(*changed);
  vetoed.run(100);
  EXPECT_EQ(vetoed.changes, 0) << "it is not proposed again at once";
  EXPECT_EQ(vetoed.controller.count(Change::Stage::vetoed), 1u);
}

TEST(Modes, AVetoAfterTheFactTakesTheChangeBack) {
  Loop loop(policy(Mode::automatic), hold_all_but(Key::PIN_MAX_BYTES));
  loop.run(6);
  ASSERT_EQ(loop.value(Key::PIN_MAX_BYTES), 1 << 30);
  auto changed = loop.controller.veto("all", loop.machine.now_ns);
  ASSERT_TRUE(changed.ok());
  EXPECT_TRUE(*changed);
  EXPECT_EQ(loop.value(Key::PIN_MAX_BYTES), 64 << 20);
}

TEST(Modes, OffMeansTheDefaultsAndWhatPeopleHold) {
  Settings initial;
  initial.values[Key::PIN_TTL_MS] = 1, initial.values[Key::POOL_TTL_MS] = 1;
  initial.held[size_t(Key::PIN_TTL_MS)] = true;
  Loop loop(policy(Mode::off), initial);
  loop.run(50);
  EXPECT_EQ(loop.value(Key::PIN_TTL_MS), 1);
  EXPECT_EQ(loop.value(Key::POOL_TTL_MS), row(Key::POOL_TTL_MS).fallback);
  EXPECT_EQ(loop.value(Key::PIN_MAX_BYTES), row(Key::PIN_MAX_BYTES).fallback);
  EXPECT_FALSE(loop.controller.set_mode(Mode::automatic, loop.machine.now_ns));
  loop.run(50);
  EXPECT_NE(loop.value(Key::PIN_MAX_BYTES), row(Key::PIN_MAX_BYTES).fallback);
  EXPECT_TRUE(loop.controller.set_mode(Mode::off, loop.machine.now_ns));
  EXPECT_EQ(loop.value(Key::PIN_MAX_BYTES), row(Key::PIN_MAX_BYTES).fallback);
  EXPECT_EQ(loop.value(Key::PIN_TTL_MS), 1);
}

TEST(Modes, ADryRunSaysAndDoesNot) {
  Policy p = policy(Mode::automatic);
  p.dry_run = true;
  Loop loop(p);
  loop.run(100);
  EXPECT_EQ(loop.changes, 0);
  EXPECT_GT(loop.logged("dry run"), 0);
}

TEST(Held, KeysAreLeftAlone) {
  Settings all;
  all.held.fill(true);
  Loop loop(policy(Mode::automatic), all);
  loop.machine.bytes_per_second = 1e9;
  loop.run(300);
  EXPECT_EQ(loop.changes, 0);
  EXPECT_TRUE(loop.controller.open().empty());
}

TEST(Log, EachChangeNamesValuesReasonAndEffect) {
  Loop loop(policy(Mode::automatic), hold_all_but(Key::PIN_MAX_BYTES));
  loop.run(20);
  ASSERT_EQ(loop.controller.history().size(), 1u);
  std::string s = sentence(loop.controller.history()[0]);
  EXPECT_EQ(s,
            "PIN_MAX_BYTES: 64 MiB to 1 GiB, because 78 % of the host's memory is available, and tasks wait for memory "
            "0.0 % of "
            "the time; kept: free share of host memory went from 78.12 % to 78.12 %.");
}

TEST(Withdrawal, AWishThatEndsIsWithdrawn) {
  Loop loop(policy(Mode::advise), hold_all_but(Key::PREWARM_PERMILLE));
  loop.machine.used = 0.95 * loop.machine.total;
  loop.run(5);
  ASSERT_EQ(loop.controller.open().size(), 1u);
  loop.machine.used = 0.1 * loop.machine.total;
  loop.run(1);
  EXPECT_TRUE(loop.controller.open().empty());
  EXPECT_EQ(loop.controller.count(Change::Stage::withdrawn), 1u);
}

}  // namespace
}  // namespace AIRamp::Daemon
