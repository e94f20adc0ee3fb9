#include "interposer/pattern_of_life.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "interposer/allocation_trace.hpp"

namespace AIRamp::Interposer {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr uint64_t kEverything = ~uint64_t(0);

class Program {
 public:
  std::unique_ptr<PatternOfLife> engine = std::make_unique<PatternOfLife>();
  int64_t now = 1;

  void step(const std::vector<uint64_t>& sizes, bool boundary = true) {
    for (uint64_t s : sizes) engine->observe({now += kMs, s, ObsKind::allocate});
    for (uint64_t s : sizes) engine->observe({now += kMs, s, ObsKind::release});
    if (boundary) engine->observe({now, 0, ObsKind::boundary});
  }
  uint32_t predicted(uint64_t bytes, uint64_t budget = kEverything) const {
    Need needs[64];
    int n = engine->predict(budget, needs, 64);
    uint32_t sum = 0;
    for (int i = 0; i < n; ++i) sum += needs[i].bytes == bytes ? needs[i].count : 0;
    return sum;
  }
  uint64_t predicted_bytes(uint64_t budget = kEverything) const {
    Need needs[64];
    int n = engine->predict(budget, needs, 64);
    uint64_t sum = 0;
    for (int i = 0; i < n; ++i) sum += needs[i].bytes * needs[i].count;
    return sum;
  }
};

TEST(Bins, ABlockServesItsBinWithAtMostANinthOver) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200000; ++i) {
    uint64_t bytes = 1 + (random() >> (random() % 50 + 14));
    int bin = PatternOfLife::bin_of(bytes);
    uint64_t block = PatternOfLife::bin_block(bin);
    ASSERT_GE(block, bytes);
    ASSERT_LE(double(block), double(bytes) * std::exp2(0.125) + 1) << bytes;
    if (bin) {
      ASSERT_LE(PatternOfLife::bin_block(bin - 1), bytes) << "at most rounded up to it";
    }
  }
  for (int p = 4; p < 50; ++p)
    EXPECT_EQ(PatternOfLife::bin_block(PatternOfLife::bin_of(uint64_t(1) << p)), uint64_t(1) << p);
  EXPECT_EQ(PatternOfLife::bin_of(0), 0);
  EXPECT_EQ(PatternOfLife::bin_of(~uint64_t(0)), PatternOfLife::kBins - 1);
}

TEST(Blocks, ServeRequestsThatAreAtMostANinthSmaller) {
  EXPECT_TRUE(block_fits(1000, 1000));
  EXPECT_TRUE(block_fits(1125, 1000));
  EXPECT_FALSE(block_fits(1126, 1000));
  EXPECT_FALSE(block_fits(999, 1000));
}

TEST(Engine, ABlockThatServedALargerRequestServesASmallerOne) {
  Program p;
  for (int i = 0; i < 10; ++i) {
    for (uint64_t bytes : {1100000, 1000000}) {
      p.engine->observe({p.now++, bytes, ObsKind::allocate});
      p.engine->observe({p.now++, bytes, ObsKind::release});
    }
    p.engine->observe({p.now++, 0, ObsKind::boundary});
  }
  EXPECT_EQ(p.predicted(1100000), 1u);
  EXPECT_EQ(p.predicted(1000000), 0u);
}

TEST(Engine, IsBounded) { EXPECT_LE(sizeof(PatternOfLife), 32u << 10); }

TEST(Engine, RepeatedSizesAreForeseenExactly) {
  Program p;
  std::vector<uint64_t> step = {1 << 20, 1 << 20, 1 << 20, 12345678, 999};
  for (int i = 0; i < 5; ++i) p.step(step);
  EXPECT_EQ(p.engine->in_use(), Predictor::exact);
  EXPECT_EQ(p.predicted(1 << 20), 3u);
  EXPECT_EQ(p.predicted(12345678), 1u);
  EXPECT_EQ(p.predicted_bytes(), 3u * (1 << 20) + 12345678 + 999);
  // In the middle of a step, what it has had is no longer needed.
  p.engine->observe({p.now, 1 << 20, ObsKind::allocate});
  EXPECT_EQ(p.predicted(1 << 20), 2u);
  for (int i = 0; i < 60; ++i) p.step(step);
  EXPECT_GT(p.engine->hit_rate(Predictor::exact), 0.99);
  EXPECT_LT(p.engine->waste_rate(Predictor::exact), 0.01);
}

TEST(Engine, BlocksThatStayAreNoNeed) {
  Program p;
  for (int i = 0; i < 20; ++i) p.engine->observe({p.now++, 4096, ObsKind::allocate});  // weights
  p.engine->observe({p.now, 0, ObsKind::boundary});
  for (int i = 0; i < 10; ++i) p.step({4096, 4096});
  EXPECT_EQ(p.predicted(4096), 2u);
}

TEST(Engine, BlocksReusedWithinAStepAreNeededOnce) {
  Program p;
  for (int i = 0; i < 10; ++i) {
    for (int layer = 0; layer < 12; ++layer) {
      p.engine->observe({p.now++, 1 << 16, ObsKind::allocate});
      p.engine->observe({p.now++, 1 << 16, ObsKind::release});
    }
    p.engine->observe({p.now++, 0, ObsKind::boundary});
  }
  EXPECT_EQ(p.predicted(1 << 16), 1u);
}

TEST(Engine, SizesThatNeverRepeatAreLeftToTheDensityOrToNobody) {
  // Many draws from a narrow distribution: single sizes never repeat, bins do.
  Program continuous;
  std::mt19937_64 random(3);
  std::lognormal_distribution<double> sizes(std::log(4e6), 0.3);
  for (int i = 0; i < 100; ++i) {
    std::vector<uint64_t> step;
    for (int k = 0; k < 100; ++k) step.push_back(uint64_t(sizes(random)));
    continuous.step(step);
  }
  EXPECT_EQ(continuous.engine->in_use(), Predictor::density);
  EXPECT_GT(continuous.engine->hit_rate(Predictor::density), 0.6);
  EXPECT_LT(continuous.engine->hit_rate(Predictor::exact), 0.05);
  // A few draws over many doublings: nothing can be foreseen, and nothing is.
  Program wild;
  std::uniform_real_distribution<double> doublings(12, 40);
  for (int i = 0; i < 100; ++i)
    wild.step({uint64_t(std::exp2(doublings(random))), uint64_t(std::exp2(doublings(random)))});
  EXPECT_EQ(wild.engine->in_use(), Predictor::none);
  EXPECT_EQ(wild.predicted_bytes(), 0u);
  char text[400];
  wild.engine->explain(text, sizeof text);
  EXPECT_NE(std::string(text).find("nothing is predicted"), std::string::npos) << text;
}

TEST(Engine, StepsAreFoundWithoutBeingTold) {
  Program p;
  std::vector<uint64_t> step;
  for (int layer = 0; layer < 6; ++layer)
    for (uint64_t s : {1000000, 4000000, 250000}) step.push_back(s);
  step.push_back(77777777);  // once a step: what the program ends with
  for (int i = 0; i < 12; ++i) p.step(step, false);
  uint64_t steps = p.engine->steps();
  for (int i = 0; i < 10; ++i) p.step(step, false);
  EXPECT_EQ(p.engine->steps() - steps, 10u);
  EXPECT_NEAR(double(p.engine->period_ns()), 38e6, 1e6) << "19 sizes, taken and given back, a millisecond each";
  EXPECT_EQ(p.engine->in_use(), Predictor::exact);
}

TEST(Engine, AnotherProgramPhaseIsLearntAnew) {
  Program p;
  for (int i = 0; i < 30; ++i) p.step({1 << 20, 2 << 20, 3 << 20, 77, 78});
  for (int i = 0; i < 30; ++i) p.step({5 << 20, 6 << 20, 79, 80, 81});
  EXPECT_EQ(p.predicted(1 << 20), 0u);
  EXPECT_EQ(p.predicted(5 << 20), 1u);
}

TEST(Engine, TheBudgetIsKept) {
  Program p;
  for (int i = 0; i < 10; ++i) p.step({1 << 20, 1 << 20, 1 << 20, 1 << 10});
  EXPECT_EQ(p.predicted_bytes(), 3145728u + 1024);
  EXPECT_EQ(p.predicted_bytes(2 << 20), 2097152u);
  EXPECT_EQ(p.predicted_bytes(100), 0u);
}

TEST(Engine, TheNextStepIsForeseenLessWhatTheProgramHolds) {
  Program p;
  for (int i = 0; i < 10; ++i) p.step({1 << 20, 1 << 20, 3 << 20});
  Need needs[8];
  ASSERT_EQ(p.engine->predict_next(kEverything, needs, 8), 2);
  EXPECT_EQ(needs[0].bytes * needs[0].count + needs[1].bytes * needs[1].count, 5u << 20);
  EXPECT_EQ(p.engine->predict_next(3 << 20, needs, 8), 1) << "within the budget";
  p.engine->observe({p.now, 1 << 20, ObsKind::allocate});
  p.engine->observe({p.now, 3 << 20, ObsKind::allocate});
  ASSERT_EQ(p.engine->predict_next(kEverything, needs, 8), 1);
  EXPECT_EQ(needs[0].bytes, 1u << 20);
  EXPECT_EQ(needs[0].count, 1u);
}

TEST(Engine, RealWasteBrakesUntilItFades) {
  Program p;
  for (int i = 0; i < 10; ++i) p.step({1 << 20});
  p.engine->prewarm_used(40);
  p.engine->prewarm_unused(60);
  EXPECT_TRUE(p.engine->braked());
  EXPECT_EQ(p.predicted_bytes(), 0u);
  p.engine->set_waste_permille(700);
  EXPECT_FALSE(p.engine->braked());
  p.engine->set_waste_permille(500);
  p.engine->prewarm_used(30);
  EXPECT_FALSE(p.engine->braked());
  EXPECT_EQ(p.predicted_bytes(), 1u << 20);
}

TEST(Keep, IsExtendedToTheProgramsOwnPauses) {
  Program p;
  constexpr int64_t kSecond = 1000 * kMs;
  EXPECT_EQ(p.engine->keep_ns(1 << 20, 10 * kSecond), 10 * kSecond) << "nothing is known";
  for (int i = 0; i < 10; ++i) {
    p.step({1 << 20});
    p.now += 30 * kSecond;  // a pause longer than the pool's time to live
  }
  int64_t keep = p.engine->keep_ns(1 << 20, 10 * kSecond);
  EXPECT_GE(keep, 30 * kSecond);
  EXPECT_LE(keep, 70 * kSecond);
  EXPECT_EQ(p.engine->keep_ns(1 << 20, 100 * kSecond), 100 * kSecond) << "never shorter";
  EXPECT_EQ(p.engine->keep_ns(4242, 10 * kSecond), 10 * kSecond) << "an unknown size";
  for (int i = 0; i < 10; ++i) {
    p.step({2 << 20});
    p.now += 3600 * kSecond;
  }
  EXPECT_EQ(p.engine->keep_ns(2 << 20, 10 * kSecond), 10 * kSecond) << "an hour is not worth holding memory for";
}

TEST(Engine, SurvivesNonsense) {
  auto e = std::make_unique<PatternOfLife>();
  std::mt19937_64 random(5);
  Need needs[8];
  for (int i = 0; i < 200000; ++i) {
    uint64_t bytes = random() >> (random() % 64);
    e->observe({int64_t(random()), bytes, ObsKind(random() % 200 == 0 ? 2 : random() % 2)});
    if (i % 1000 == 0) e->predict(random(), needs, 8);
    EXPECT_GE(e->keep_ns(bytes, 5), 5);
  }
  e->observe({0, 0, ObsKind::allocate});
  e->observe({0, 0, ObsKind::release});
  char tiny[4];
  e->explain(tiny, sizeof tiny);
}

TEST(Trace, WhatIsWrittenReadsBack) {
  char name[] = "/tmp/trace_XXXXXX";
  int fd = mkstemp(name);
  TraceWriter w(fd);
  std::vector<Obs> all;
  for (int i = 0; i < 3000; ++i) all.push_back({i * 7919L, i % 3 == 2 ? 0u : uint64_t(i) << 30, ObsKind(i % 3)});
  for (const Obs& o : all) w.record(o);
  w.flush();
  close(fd);
  std::ifstream in(name);
  std::string line;
  size_t n = 0;
  for (Obs o; std::getline(in, line); ++n) {
    ASSERT_TRUE(parse_trace_line(line.data(), line.size(), &o)) << line;
    ASSERT_LT(n, all.size());
    EXPECT_TRUE(o.time_ns == all[n].time_ns && o.bytes == all[n].bytes && o.kind == all[n].kind) << line;
  }
  EXPECT_EQ(n, all.size());
  unlink(name);
  Obs o;
  for (std::string bad :
       {"", " ", "1", "1 ", "1 x", "1 a", "1 a ", "1 a 5 ", "-1 b", "1 b 3", "99999999999999999999 b", "x b"})
    EXPECT_FALSE(parse_trace_line(bad.data(), bad.size(), &o)) << bad;
}

TEST(Trace, AClosedDescriptorHarmsNobody) {
  TraceWriter nowhere(-1);
  for (int i = 0; i < 10000; ++i) nowhere.record({i, 5, ObsKind::allocate});
  TraceWriter closed(1000);
  errno = EDOM;
  for (int i = 0; i < 10000; ++i) closed.record({i, 5, ObsKind::allocate});
  EXPECT_EQ(errno, EDOM);
}

}  // namespace
}  // namespace AIRamp::Interposer
