#include "model.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace AIRamp::Trace {
namespace {

enum { kExact, kHistogram, kSilverman, kNarrow, kOurs };

Events made(const std::string& name, unsigned seed = 1) {
  for (const auto& w : workloads())
    if (name == w.name) return w.make(seed);
  ADD_FAILURE() << name;
  return {};
}

// Two steps of known needs: a first with everything new, then the same again.
TEST(Compare, CountsNeedsAndNotReuse) {
  Events e;
  for (int step = 0; step < 40; ++step) {
    int64_t t = step * 1000;
    e.push_back({t + 1, 1 << 20, ObsKind::allocate});
    e.push_back({t + 2, 1 << 20, ObsKind::release});
    e.push_back({t + 3, 1 << 20, ObsKind::allocate});  // served by what the step itself freed
    e.push_back({t + 4, 1 << 20, ObsKind::release});
    e.push_back({t + 5, 0, ObsKind::boundary});
  }
  EXPECT_EQ(count_steps(e), 40u);
  for (const Accuracy& a : compare(e)) {
    EXPECT_DOUBLE_EQ(a.hit_rate, 1);
    EXPECT_DOUBLE_EQ(a.waste_rate, 0);
  }
}

TEST(Compare, AgreesWithTheKnownWeaknesses) {
  auto repeated = compare(made("repeated sizes"));
  EXPECT_DOUBLE_EQ(repeated[kExact].hit_rate, 1);
  EXPECT_DOUBLE_EQ(repeated[kOurs].hit_rate, 1);
  EXPECT_DOUBLE_EQ(repeated[kOurs].waste_rate, 0);
  EXPECT_LT(repeated[kSilverman].hit_rate, 0.6) << "sizes are atoms, no density";
  auto variable = compare(made("variable lengths"));
  EXPECT_GT(variable[kExact].waste_rate, 0.5);
  EXPECT_LT(variable[kOurs].waste_rate, 0.5) << "the brake";
  auto continuous = compare(made("log-normal"));
  EXPECT_LT(continuous[kExact].hit_rate, 0.2);
  EXPECT_GT(continuous[kOurs].hit_rate, 0.4);
}

TEST(Pool, TheCacheServesAllButTheFirstStepAndTrims) {
  Events e = made("repeated sizes");
  PoolResult never = simulate(e, {"cache"}, 10'000'000'000, 0);
  EXPECT_EQ(never.requests, 200u * 85);
  EXPECT_EQ(never.driver_calls, 85u) << "the first step alone";
  PoolResult trimmed = simulate(e, {"cache"}, 10'000'000'000, 20);
  EXPECT_EQ(trimmed.driver_calls, 85u * 10) << "the first, and one after each trim but the last";
  PoolResult warmed = simulate(e, {"pre-warmed", false, true}, 10'000'000'000, 20);
  EXPECT_EQ(warmed.driver_calls, 85u) << "what follows a trim was foreseen";
  EXPECT_EQ(warmed.unused_bytes, warmed.prewarmed_bytes / 10) << "the trim after the last step serves nobody";
}

TEST(Pool, PausesLongerThanTheTimeToLiveAreLearnt) {
  Events e = made("pauses");
  PoolResult alone = simulate(e, {"cache"}, 10'000'000'000, 0);
  EXPECT_EQ(alone.driver_calls, alone.requests) << "every block expires in every pause";
  PoolResult longer = simulate(e, {"kept longer", true, false}, 10'000'000'000, 0);
  EXPECT_LT(longer.driver_calls, alone.driver_calls / 20);
}

TEST(File, BadLinesAreNamed) {
  char name[] = "/tmp/trace_XXXXXX";
  close(mkstemp(name));
  std::ofstream(name) << "1 a 5\n2 r 5\n3 b\n";
  auto good = read_trace(name);
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(good->size(), 3u);
  std::ofstream(name) << "1 a 5\nnonsense\n";
  EXPECT_NE(read_trace(name).status().message().find("Line 2"), std::string::npos);
  unlink(name);
  EXPECT_FALSE(read_trace("/nonexistent").ok());
}

// A real program under the recorder: cat copies through a buffer of at least 128 KiB.
TEST(Recorder, WritesDownWhatAProgramAllocates) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the recorder is not built under a sanitizer";
#endif
  char name[] = "/tmp/trace_XXXXXX";
  close(mkstemp(name));
  std::string command =
      std::string(AIRAMP_TRACE) + " record --least 100000 " + name + " -- cat /proc/self/status > /dev/null";
  ASSERT_EQ(std::system(command.c_str()), 0);
  auto events = read_trace(name);
  unlink(name);
  ASSERT_TRUE(events.ok()) << events.status().message();
  EXPECT_TRUE(std::any_of(events->begin(), events->end(),
                          [](const Obs& o) { return o.kind == ObsKind::allocate && o.bytes >= 131072; }));
}

}  // namespace
}  // namespace AIRamp::Trace
