// Values between unlike memories: what is copied, what is shared, what comes ahead, counted to the byte on simulated
// chips whose links and memories a text describes.
#include "hal/memory.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/memory_budget.hpp"
#include "ops/op.hpp"
#include "runtime/deployment.hpp"
#include "runtime/test_chips.hpp"

namespace ai_vmm {
namespace {

class Memories : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { use_test_chips(); }
};

using Chain = std::vector<const char*>;

// x[N] through one operator after another; every value in `also` leaves the graph as well as the last one.
std::shared_ptr<const Graph> chain(const Chain& ops, const std::vector<size_t>& also = {}) {
  auto g = std::make_shared<Graph>();
  ValueId v = g->add_value("x", Type::tensor(DType::f32, {Dim::symbol("N")}));
  g->inputs = {v};
  for (size_t i = 0; i < ops.size(); ++i) {
    ValueId next = g->add_value("v" + std::to_string(i));
    std::vector<ValueId> in{v};
    if (std::string(ops[i]) == "Add") in.push_back(g->inputs[0]);
    g->add_node(ops[i], in, {next}).def = find_op("", ops[i]);
    v = next;
    if (std::find(also.begin(), also.end(), i) != also.end()) g->outputs.push_back(v);
  }
  g->outputs.push_back(v);
  EXPECT_TRUE(infer_types(*g).ok());
  return g;
}

Result<Deployment> deploy(std::shared_ptr<const Graph> graph, const std::vector<std::string>& names,
                          int64_t limit = 1 << 30) {
  std::vector<std::shared_ptr<Device>> devices;
  for (const std::string& n : names) devices.push_back(AI_VMM_TAKE(Device::open(n)));
  auto impl = std::make_shared<Deployment::Impl>();
  impl->set_interface(*graph);
  impl->memory_limit = limit;
  impl->threads = 1;
  impl->simulated = true;
  PlanFacts facts;
  impl->plan = AI_VMM_TAKE(make_plan(graph, devices, {}, facts));
  return Deployment(impl);
}

std::vector<float> values(size_t n) {
  std::vector<float> v(n);
  for (size_t i = 0; i < n; ++i) v[i] = float(int(i * 7 % 23) - 11);
  return v;
}
Result<Outputs> run(const Deployment& d, size_t n) { return d.run({{"x", Tensor::vector(values(n))}}); }

// "sim:10 > host, output: 40 copied" lines, sorted.
std::string moved(const Deployment& d) {
  std::vector<std::string> lines;
  for (const auto& t : d.report().transfers)
    lines.push_back(t.from + " > " + t.to + ", " + t.why + ":" +
                    (t.copied ? " " + std::to_string(t.copied) + " copied" : "") +
                    (t.shared ? " " + std::to_string(t.shared) + " shared" : "") +
                    (t.ahead ? " " + std::to_string(t.ahead) + " ahead" : "") + "\n");
  std::sort(lines.begin(), lines.end());
  std::string all;
  for (const auto& l : lines) all += l;
  return all;
}

TEST_F(Memories, RegionsOfUnlikeChipsAreFedByCopies) {
  auto d = deploy(chain({"Relu", "Neg", "Relu"}), {"sim:10", "sim:11"});
  ASSERT_TRUE(d.ok()) << d.status().message();
  auto out = run(*d, 10);
  ASSERT_TRUE(out.ok()) << out.status().message();
  EXPECT_EQ(out->at("v2").tensor().as<float>()[0], 0);
  EXPECT_EQ(moved(*d),
            "host > sim:10, input: 40 copied\n"
            "sim:10 > host, output: 40 copied\n"
            "sim:10 > sim:11, between regions: 40 copied\n"
            "sim:11 > sim:10, between regions: 40 copied\n");
  // Link: 1 us + 40 ns for each side of a copy on chip 0, 40 ns on chip 1. The chips: launch (10 us, 5 us) + 0.8 ns.
  EXPECT_NEAR(d->report().simulated_us, 4 * 1.04 + 2 * 0.04 + 2 * 10 + 5, 0.01);
  ASSERT_TRUE(run(*d, 10).ok());
  EXPECT_NE(moved(*d).find("sim:10 > sim:11, between regions: 80 copied"), std::string::npos) << moved(*d);
}

TEST_F(Memories, WhatStaysOnADeviceIsNotCopied) {
  // Two regions of chip 0 that a host step separates read the same input, which crosses once; v0 waits on the chip.
  auto g = std::make_shared<Graph>();
  ValueId x = g->add_value("x", Type::tensor(DType::f32, {Dim::symbol("N")})), a = g->add_value("a"),
          b = g->add_value("b"), c = g->add_value("c"), e = g->add_value("e"), f = g->add_value("f");
  g->inputs = {x};
  g->outputs = {f};
  auto node = [&](const char* op, std::vector<ValueId> in, ValueId to) {
    g->add_node(op, in, {to}).def = find_op("", op);
  };
  node("Relu", {x}, a);
  node("Neg", {a}, b);
  node("Add", {a, b}, c);  // chip 5, after Neg on chip 1: `a` comes from chip 0
  node("Relu", {c}, e);
  node("Add", {e, x}, f);
  ASSERT_TRUE(infer_types(*g).ok());
  auto d = deploy(g, {"sim:11", "sim:15"});  // Neg on chip 1; Relu and Add on chip 5
  ASSERT_TRUE(d.ok()) << d.status().message();
  auto out = run(*d, 8);
  ASSERT_TRUE(out.ok()) << out.status().message();
  // Chip 5 makes `a`, sends it to chip 1, and keeps it for its second region; `x` is still there as well.
  EXPECT_EQ(moved(*d),
            "host > sim:15, input: 32 copied\n"
            "sim:11 > sim:15, between regions: 32 copied\n"
            "sim:15 > host, output: 32 copied\n"
            "sim:15 > sim:11, between regions: 32 copied\n");
}

TEST_F(Memories, PeersAndTheHostsOwnMemoryAreShared) {
  auto peers = deploy(chain({"Relu", "Neg"}), {"sim:13", "sim:14"});
  ASSERT_TRUE(peers.ok()) << peers.status().message();
  ASSERT_TRUE(run(*peers, 1000).ok());
  EXPECT_EQ(moved(*peers),
            "host > sim:13, input: 4000 copied\n"
            "sim:13 > sim:14, between regions: 4000 shared\n"
            "sim:14 > host, output: 4000 copied\n");
  auto beside = deploy(chain({"Abs", "Relu", "Abs"}), {"sim:12", "cpu"});
  ASSERT_TRUE(beside.ok()) << beside.status().message();
  ASSERT_TRUE(run(*beside, 1000).ok());
  EXPECT_EQ(moved(*beside),
            "host > sim:12, between regions: 4000 shared\n"
            "host > sim:12, input: 4000 shared\n"
            "sim:12 > host, between regions: 4000 shared\n"
            "sim:12 > host, output: 4000 shared\n");
}

TEST_F(Memories, WhatTheNextRegionNeedsComesAhead) {
  auto d = deploy(chain({"Relu", "Neg", "Add"}), {"sim:10", "sim:11", "sim:15"});  // Add reads x, long known
  ASSERT_TRUE(d.ok()) << d.status().message();
  auto out = run(*d, 100);
  ASSERT_TRUE(out.ok()) << out.status().message();
  const auto x = values(100);
  for (size_t i = 0; i < 100; ++i) EXPECT_EQ(out->at("v2").tensor().as<float>()[i], x[i] - std::max(x[i], 0.0f));
  EXPECT_NE(moved(*d).find("host > sim:15, input: 400 copied 400 ahead\n"), std::string::npos) << moved(*d);
}

TEST_F(Memories, LargeValuesGoThroughBothPieces) {
  auto d = deploy(chain({"Relu", "Neg"}), {"sim:10", "sim:11"});
  ASSERT_TRUE(d.ok()) << d.status().message();
  const size_t n = 2'700'001;  // 10.3 MiB: three pieces of 4 MiB, the last one in part
  auto out = run(*d, n);
  ASSERT_TRUE(out.ok()) << out.status().message();
  const auto x = values(n);
  auto y = out->at("v1").tensor().as<float>();
  for (size_t i = 0; i < n; ++i) ASSERT_EQ(y[i], -std::max(x[i], 0.0f)) << i;
  EXPECT_NE(moved(*d).find("sim:10 > sim:11, between regions: 10800004 copied"), std::string::npos) << moved(*d);
}

TEST_F(Memories, HostStepsAndCallersBuffersGetWhatTheyRead) {
  // Relu on the chip, a branch on the host, and both values given out.
  auto body = std::make_shared<Graph>();
  ValueId captured = body->add_value("v0", Type::tensor(DType::f32, {Dim::symbol("N")})), twice = body->add_value("t");
  body->captures = {captured};
  body->outputs = {twice};
  body->add_node("Abs", {captured}, {twice}).def = find_op("", "Abs");
  auto g = std::make_shared<Graph>();
  ValueId x = g->add_value("x", Type::tensor(DType::f32, {Dim::symbol("N")})),
          c = g->add_value("c", Type::tensor(DType::boolean, {})), v = g->add_value("v"), y = g->add_value("y");
  g->inputs = {x, c};
  g->outputs = {v, y};
  g->add_node("Relu", {x}, {v}).def = find_op("", "Relu");
  Node& branch = g->add_node("If", {c}, {y});
  branch.def = find_op("", "If");
  branch.bodies.push_back({"then_branch", body, {v}});
  branch.bodies.push_back({"else_branch", body, {v}});
  ASSERT_TRUE(infer_types(*g).ok());
  auto d = deploy(g, {"sim:10", "cpu"});
  ASSERT_TRUE(d.ok()) << d.status().message();
  std::vector<float> buffer(10);
  Outputs wanted{{"v", Tensor::view(DType::f32, {10}, buffer.data())}};
  auto out = d->run({{"x", Tensor::vector(values(10))}, {"c", Tensor::scalar<bool>(true)}}, {.outputs = wanted});
  ASSERT_TRUE(out.ok()) << out.status().message();
  EXPECT_EQ(buffer[3], 10);
  EXPECT_EQ(out->at("v").tensor().data(), buffer.data());
  EXPECT_EQ(out->at("y").tensor().as<float>()[3], 10);
  EXPECT_EQ(moved(*d), "host > sim:10, input: 40 copied\nsim:10 > host, host step: 40 copied\n");
  std::vector<float> small(9);
  Outputs misfit{{"v", Tensor::view(DType::f32, {9}, small.data())}};
  auto bad = d->run({{"x", Tensor::vector(values(10))}, {"c", Tensor::scalar<bool>(true)}}, {.outputs = misfit});
  EXPECT_EQ(bad.status().code(), Code::invalid_argument);
}

TEST_F(Memories, BlocksAreReusedAndIdleOnesMakeRoom) {
  auto device = Device::open("sim:15");
  ASSERT_TRUE(device.ok());
  DeviceMemory& m = *(*device)->memory();
  const void* first = nullptr;
  {
    auto a = m.take(1000);
    ASSERT_TRUE(a.ok());
    first = a->address();
  }
  auto again = m.take(900);  // of the same class
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->address(), first);
  { auto big = m.take(8 << 10); }
  auto bigger = m.take(16 << 10);  // fits once the idle block is gone
  ASSERT_TRUE(bigger.ok()) << bigger.status().message();
  auto none = m.take(16 << 10);
  EXPECT_EQ(none.status().code(), Code::resource_exhausted);
  EXPECT_EQ(none.status().device_state(), DeviceState::out_of_memory);
  EXPECT_EQ(m.take(INT64_MAX).status().code(), Code::resource_exhausted);
}

TEST_F(Memories, TheCallersLimitHoldsOnDevicesToo) {
  auto d = deploy(chain({"Relu"}), {"sim:10"}, 7000);
  ASSERT_TRUE(d.ok());
  EXPECT_TRUE(run(*d, 500).ok());
  auto out = run(*d, 2000);
  EXPECT_EQ(out.status().code(), Code::resource_exhausted);
  EXPECT_EQ(out.status().device_state(), DeviceState::ok);  // it is no failure of the device
}

// Random chains over all chips at random sizes, from several threads: each gives what the reference gives, or says that
// a chip is full or lost; and what was counted is what the plan's edges add up to.
TEST_F(Memories, AnyChainIsRightOrSaysWhatFailed) {
  const char* ops[] = {"Relu", "Neg", "Abs", "Add"};
  Random random{7};
  int right = 0, full = 0;
  for (int round = 0; round < 40; ++round) {
    Chain names;
    std::vector<size_t> also;
    for (size_t i = 0, n = 2 + random.next() % 8; i < n; ++i) {
      names.push_back(ops[random.next() % 4]);
      if (random.next() % 4 == 0 && i + 1 < n) also.push_back(i);
    }
    auto g = chain(names, also);
    std::vector<std::string> devices;
    for (int k = 0; k < 4; ++k) devices.push_back("sim:" + std::to_string(10 + random.next() % 6));
    devices.emplace_back("cpu");
    auto d = deploy(g, devices), reference = deploy(g, {"reference"});
    ASSERT_TRUE(d.ok()) << d.status().message();
    ASSERT_TRUE(reference.ok());
    for (size_t n : {size_t(0), size_t(3), size_t(700), size_t(2000)}) {
      std::vector<std::thread> threads;
      std::atomic<int> fine{0}, refused{0};
      for (int t = 0; t < 2; ++t)
        threads.emplace_back([&] {
          auto out = run(*d, n), expected = run(*reference, n);
          if (!out.ok()) {
            refused += out.status().device_state() == DeviceState::out_of_memory;
            return;
          }
          bool same = expected.ok();
          for (const auto& [name, value] : *expected) same = same && identical(out->at(name).tensor(), value.tensor());
          fine += same;
        });
      for (auto& t : threads) t.join();
      EXPECT_EQ(fine + refused, 2) << d->plan_text();
      right += fine;
      full += refused;
    }
    int64_t in = 0, out = 0;
    for (const auto& t : d->report().transfers) {
      EXPECT_LE(t.ahead, t.copied);
      EXPECT_TRUE(t.from != t.to);
      (t.to == "host" ? out : in) += t.times;
    }
    EXPECT_TRUE(d->report().transfers.empty() || in > 0);
  }
  EXPECT_GT(right, 200);
  EXPECT_GT(full, 0);  // chip 5 is small
}

// On a real OpenCL device (PoCL in the tests): in the host's memory, or, with AI_VMM_OPENCL_MEMORY=own, in its own.
class OpenClMemory : public Memories {
 protected:
  void SetUp() override {
    auto device = Device::open("opencl:0");
    if (!device.ok()) GTEST_SKIP() << "There is no OpenCL device: " << device.status().message();
    ASSERT_NE((*device)->memory(), nullptr);
    own = !(*device)->memory()->shares_host();
    const char* asked = std::getenv("AI_VMM_OPENCL_MEMORY");
    EXPECT_TRUE(own || !asked || asked != std::string("own"));
  }
  std::string bytes(int64_t n) const { return std::to_string(n) + (own ? " copied\n" : " shared\n"); }
  bool own = false;
};

TEST_F(OpenClMemory, RegionsTakeTurnsWithTheProcessor) {
  // Sizes that follow from data are the processor's: Relu | NonZero | Cast, Neg.
  auto g = std::make_shared<Graph>();
  ValueId x = g->add_value("x", Type::tensor(DType::f32, {Dim::symbol("N")})), a = g->add_value("a"),
          b = g->add_value("b"), c = g->add_value("c"), y = g->add_value("y");
  g->inputs = {x};
  g->outputs = {y};
  g->add_node("Relu", {x}, {a}).def = find_op("", "Relu");
  g->add_node("NonZero", {a}, {b}).def = find_op("", "NonZero");
  Node& cast = g->add_node("Cast", {b}, {c});
  cast.def = find_op("", "Cast");
  cast.set("to", int64_t(DType::f32));
  g->add_node("Neg", {c}, {y}).def = find_op("", "Neg");
  ASSERT_TRUE(infer_types(*g).ok());
  auto d = deploy(g, {"opencl:0", "cpu"}), reference = deploy(g, {"reference"});
  ASSERT_TRUE(d.ok()) << d.status().message();
  auto out = run(*d, 1000), right = run(*reference, 1000);
  ASSERT_TRUE(out.ok()) << out.status().message();
  EXPECT_TRUE(identical(out->at("y").tensor(), right->at("y").tensor()));
  const int64_t found = right->at("y").tensor().count();
  EXPECT_EQ(moved(*d),
            "host > opencl:0, between regions: " + bytes(8 * found) + "host > opencl:0, input: " + bytes(4000) +
                "opencl:0 > host, between regions: " + bytes(4000) + "opencl:0 > host, output: " + bytes(4 * found));
}

TEST_F(OpenClMemory, ExchangesValuesWithUnlikeChips) {
  auto g = chain({"Relu", "Neg", "Add"});
  auto d = deploy(g, {"sim:11", "opencl:0"}), reference = deploy(g, {"reference"});
  ASSERT_TRUE(d.ok()) << d.status().message();
  for (size_t n : {size_t(0), size_t(5), size_t(3'000'000)}) {
    auto out = run(*d, n), right = run(*reference, n);
    ASSERT_TRUE(out.ok()) << out.status().message();
    EXPECT_TRUE(identical(out->at("v2").tensor(), right->at("v2").tensor())) << n;
  }
  const int64_t all = 3'000'005 * 4;
  if (own)  // x crosses once, though two regions read it
    EXPECT_EQ(moved(*d), "host > opencl:0, input: " + bytes(all) + "opencl:0 > host, output: " + bytes(all) +
                             "opencl:0 > sim:11, between regions: " + bytes(all) +
                             "sim:11 > opencl:0, between regions: " + bytes(all));
}

TEST_F(OpenClMemory, BuffersAreReadWhereTheyWereWritten) {
  auto device = Device::open("opencl:0");
  ASSERT_TRUE(device.ok());
  DeviceMemory& m = *(*device)->memory();
  const auto from = values(2'500'000);
  std::vector<float> to(from.size());
  const auto size = int64_t(from.size() * 4);
  auto a = m.take(size), b = m.take(size);
  ASSERT_TRUE(a.ok() && b.ok());
  auto ahead = m.write_ahead(*a, from.data(), size);
  ASSERT_TRUE(ahead.ok());
  EXPECT_TRUE(*ahead);
  ASSERT_TRUE(m.settle(*a).ok());
  ASSERT_TRUE(m.copy(*a, *b, size).ok());
  ASSERT_TRUE(m.read(*b, to.data(), size).ok());
  EXPECT_EQ(from, to);
}

TEST_F(Memories, ALostChipTakesItsMemoryWithIt) {
  auto d = deploy(chain({"Relu"}), {"sim:16"});
  ASSERT_TRUE(d.ok());
  EXPECT_TRUE(run(*d, 10).ok());
  auto out = run(*d, 10);
  EXPECT_EQ(out.status().device_state(), DeviceState::lost);
  auto anew = deploy(chain({"Relu"}), {"sim:16"});
  ASSERT_TRUE(anew.ok());
  EXPECT_TRUE(run(*anew, 10).ok());
}

TEST_F(Memories, CountersAreInTheReport) {
  auto d = deploy(chain({"Relu"}), {"sim:10"});
  ASSERT_TRUE(d.ok());
  ASSERT_TRUE(run(*d, 10).ok());
  auto j = nlohmann::json::parse(d->report().to_json());
  ASSERT_EQ(j["transfers"].size(), 2u);
  EXPECT_EQ(j["transfers"][0]["why"], "input");
  EXPECT_EQ(j["transfers"][0]["copied_bytes"], 40);
}

}  // namespace
}  // namespace ai_vmm
