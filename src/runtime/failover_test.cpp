#include "runtime/failover.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "ops/op.hpp"
#include "runtime/deployment.hpp"
#include "runtime/test_chips.hpp"

namespace ai_vmm {
namespace {

class Failover : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { use_test_chips(); }

  // y = x + x over [N], on a chain of devices; no reference behind them.
  static Deployment deploy(std::vector<std::string> devices, std::chrono::milliseconds pause = std::chrono::hours(1)) {
    auto g = std::make_shared<Graph>();
    ValueId x = g->add_value("x", Type::tensor(DType::f32, {Dim::symbol("N")})), y = g->add_value("y");
    g->inputs = {x};
    g->outputs = {y};
    g->add_node("Add", {x, x}, {y}).def = find_op("", "Add");
    EXPECT_TRUE(infer_types(*g).ok());
    auto impl = std::make_shared<Deployment::Impl>();
    impl->set_interface(*g);
    impl->memory_limit = 1 << 30;
    impl->threads = 1;
    FailoverChain::Maker make = [g](const std::string& name) -> Result<FailoverChain::Made> {
      std::shared_ptr<Device> device[] = {AI_VMM_TAKE(Device::open(name))};
      PlanFacts facts;
      return FailoverChain::Made{AI_VMM_TAKE(make_plan(g, device, {}, facts)), device[0]->name()};
    };
    auto first = make(devices[0]);
    EXPECT_TRUE(first.ok()) << first.status().message();
    impl->plan = first->plan;
    impl->simulated = true;
    impl->failover = std::make_unique<FailoverChain>(std::move(devices), *std::move(first), make, pause);
    return Deployment(impl);
  }
  static Status run(const Deployment& d, float value) {
    std::vector<float> v(7, value), right(7, value + value);
    auto out = AI_VMM_TAKE(d.run({{"x", Tensor::vector(v)}}));
    return identical(out.at("y").tensor(), Tensor::vector(right)) ? Status() : Status(Code::data_loss, "Wrong result.");
  }
  static int64_t moved(const Report& r, const std::string& from, const std::string& to, const std::string& state) {
    for (const auto& f : r.failovers)
      if (f.from == from && f.to == to && f.state == state) return f.requests;
    return 0;
  }
};

TEST_F(Failover, LosesNoRequestUnderConcurrentLoadAndReportsTheMove) {
  Deployment d = deploy({"sim:0", "cpu"});
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i)
        if (!run(d, float(t * 100 + i)).ok()) ++failed;
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(failed, 0);
  Report r = d.report();
  // 19 runs went well on the chip; those that were on it when it was lost moved, the rest began on the cpu.
  EXPECT_GE(moved(r, "sim:0", "cpu", "lost"), 1);
  EXPECT_LE(moved(r, "sim:0", "cpu", "lost"), 8);
  EXPECT_EQ(r.simulated_runs, 19);
  EXPECT_EQ(r.backend, "cpu");
  auto j = nlohmann::json::parse(r.to_json());
  EXPECT_EQ(j["failovers"][0]["state"], "lost");
  EXPECT_EQ(j["simulated"]["runs"], 19);
}

TEST_F(Failover, ALostDeviceComesBackUnlessItIsGone) {
  Deployment back = deploy({"sim:9", "cpu"}, std::chrono::milliseconds(1));
  Deployment gone = deploy({"sim:1", "cpu"}, std::chrono::milliseconds(1));
  for (int i = 0; i < 30; ++i) {
    EXPECT_TRUE(run(back, 1).ok());
    EXPECT_TRUE(run(gone, 1).ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(moved(back.report(), "sim:9", "cpu", "lost"), 1);
  EXPECT_GT(back.report().simulated_runs, 1);  // more than the one before it was lost
  EXPECT_EQ(gone.report().simulated_runs, 2);
  EXPECT_EQ(gone.report().backend, "cpu");
}

TEST_F(Failover, ReopensFlakyDevicesBesideTheTraffic) {
  Deployment d = deploy({"sim:8", "cpu"}, std::chrono::milliseconds(1));
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 150; ++i) {
        if (!run(d, float(i)).ok()) ++failed;
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(failed, 0);
  Report r = d.report();
  EXPECT_GE(moved(r, "sim:8", "cpu", "lost"), 2) << r.to_json();  // lost again after it had come back
  EXPECT_GE(moved(r, "sim:8", "cpu", "out of memory"), 1) << r.to_json();
}

TEST_F(Failover, BusyIsTriedAgainAndOutOfMemoryMovesTheRequestAlone) {
  Deployment busy = deploy({"sim:2", "cpu"});
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(run(busy, 2).ok());
  EXPECT_TRUE(busy.report().failovers.empty());
  EXPECT_EQ(busy.report().simulated_runs, 10);

  Deployment full = deploy({"sim:3", "cpu"});
  for (int i = 0; i < 9; ++i) EXPECT_TRUE(run(full, 2).ok());
  EXPECT_EQ(moved(full.report(), "sim:3", "cpu", "out of memory"), 3);
  EXPECT_EQ(full.report().simulated_runs, 6);

  Deployment always = deploy({"sim:7", "cpu"});
  EXPECT_TRUE(run(always, 2).ok());
  EXPECT_EQ(moved(always.report(), "sim:7", "cpu", "busy"), 1);
}

TEST_F(Failover, NeverMovesToTheSameResource) {
  Deployment d = deploy({"sim:5", "sim:6", "sim:4"});
  EXPECT_TRUE(run(d, 3).ok());
  EXPECT_EQ(moved(d.report(), "sim:5", "sim:4", "lost"), 1);
  EXPECT_EQ(moved(d.report(), "sim:5", "sim:6", "lost"), 0);

  Deployment alone = deploy({"sim:7", "sim:7"});
  Status s = run(alone, 3);
  EXPECT_EQ(s.code(), Code::unavailable);
  EXPECT_NE(s.message().find("No other device is left"), std::string::npos) << s.message();
}

TEST_F(Failover, WhatTheCallerGotWrongIsNotRepeated) {
  Deployment d = deploy({"sim:4", "cpu"});
  auto out = d.run({{"x", Tensor::vector<int64_t>({1})}});
  EXPECT_EQ(out.status().code(), Code::invalid_argument);
  volatile int32_t cancel = 1;
  RunOptions options;
  options.cancel = &cancel;
  EXPECT_EQ(d.run({{"x", Tensor::vector<float>({1})}}, options).status().code(), Code::cancelled);
  EXPECT_TRUE(d.report().failovers.empty());
}

}  // namespace
}  // namespace ai_vmm
