// Plugins of every kind against the host: right ones, old and new ones, and broken ones, which plugin-check must find.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "certify/certify.hpp"
#include "hal/backends.hpp"
#include "hal/device.hpp"
#include "ops/op.hpp"
#include "runtime/deployment.hpp"

namespace ai_vmm {
namespace {

std::string file(const std::string& name) { return PLUGINS + name + ".so"; }

// y = Relu(x) over [N].
std::shared_ptr<Graph> relu() {
  auto g = std::make_shared<Graph>();
  ValueId x = g->add_value("x", Type::tensor(DType::f32, {Dim::symbol("N")})), y = g->add_value("y");
  g->inputs = {x};
  g->outputs = {y};
  g->add_node("Relu", {x}, {y}).def = find_op("", "Relu");
  EXPECT_TRUE(infer_types(*g).ok());
  return g;
}

Status run_relu(const std::string& device_name) {
  auto device = AI_VMM_TAKE(Device::open(device_name));
  auto verdicts = AI_VMM_TAKE(device->query(*relu()));
  if (verdicts[0].reason != AI_VMM_SUPPORTED) return Status(Code::internal, "Relu is refused.");
  auto executable = AI_VMM_TAKE(device->compile(relu(), {}));
  Tensor x = Tensor::vector<float>({-1, 2, -3, 4});
  const Tensor* in[] = {&x};
  Tensor y, *out[] = {&y};
  AI_VMM_TRY(executable->run(in, out, {}));
  if (!identical(y, Tensor::vector<float>({0, 2, 0, 4}))) return Status(Code::internal, "The result is wrong.");
  return {};
}

std::string why(const Status& s) { return s.ok() ? "" : s.message(); }

// ---------------------------------------------------------------- plugin-check
// First: a child process that checks a backend of the build must be the first to connect it.

std::string failures(const Certificate& c) {
  std::string s;
  for (const CheckResult& r : c.checks)
    if (r.outcome == CheckResult::Outcome::failed) s += r.name + ": " + r.detail + "\n";
  return s;
}

TEST(PluginCheck, PassesRightPlugins) {
  for (const std::string& subject :
       {file("three"), file("NEWER_MINOR"), file("OLDER_TABLE"), file("LEVEL_ONE"), std::string("null"),
        std::string("reference"), std::string("sim"), std::string("cpu")}) {
    auto c = check_plugin(subject, {});
    ASSERT_TRUE(c.ok()) << subject << ": " << c.status().message();
    EXPECT_TRUE(c->passed()) << subject << "\n" << failures(*c);
    EXPECT_EQ(c->checks.size(), check_list().size());
  }
}

TEST(PluginCheck, HasNoCertificateForWhatIsNoPlugin) {
  for (const char* name : {"NEXT_MAJOR", "BLIND_MAJOR", "SHORT_TABLE", "NO_ENTRY", "missing"})
    EXPECT_FALSE(check_plugin(file(name), {}).ok()) << name;
  EXPECT_EQ(check_plugin("null", {.only = {"leeks"}}).status().code(), Code::invalid_argument);
}

struct Defect {
  const char* plugin;
  const char* check;   // that finds it
  const char* detail;  // what it says, in part
};

class PluginCheckFinds : public ::testing::TestWithParam<Defect> {};

TEST_P(PluginCheckFinds, TheDefect) {
  auto [plugin, check, detail] = GetParam();
  auto c = check_plugin(file(plugin), {.timeout_seconds = std::string(plugin) == "HANGS" ? 3 : 60, .only = {check}});
  ASSERT_TRUE(c.ok()) << c.status().message();
  ASSERT_EQ(c->checks.size(), 1u);
  EXPECT_FALSE(c->passed());
  EXPECT_NE(c->checks[0].detail.find(detail), std::string::npos) << c->checks[0].detail;
  // The same check passes without the defect.
  auto right = check_plugin(file("three"), {.only = {check}});
  ASSERT_TRUE(right.ok());
  EXPECT_TRUE(right->passed()) << failures(*right);
}

INSTANTIATE_TEST_SUITE_P(
    All, PluginCheckFinds,
    ::testing::Values(
        Defect{"LEAKS_RUN", "leaks", "each run leaks"}, Defect{"LEAKS_COMPILE", "leaks", "each compilation"},
        Defect{"LEAKS_DEVICE", "leaks", "each opened device leaks"},
        Defect{"WRONG_RESULT", "operators", "Relu: element"}, Defect{"WRONG_TAIL", "operators", "f32[1025]"},
        Defect{"IGNORES_CANCEL", "cancel", "gave code 0 and not 1"},
        Defect{"CRASHES", "operators", "Segmentation fault; it was running"},
        Defect{"HANGS", "operators", "longer than 3 s and was killed; it was running"},
        Defect{"OVERRUNS", "outputs", "it wrote 0 bytes past output 0"},
        Defect{"CHANGES_INPUT", "operators", "it changed input 0"},
        Defect{"LIES_IN_QUERY", "query", "query takes f32[3,5] f32[3,5] = Sub, but compile refuses it"},
        Defect{"SHARES_SCRATCH", "threads", "during running on four threads"}, Defect{"KEEPS_GRAPH", "operators", ""},
        Defect{"TRUSTS_ARGUMENTS", "arguments", ""}, Defect{"TRUSTS_ALLOCATE", "failures", "Segmentation fault"},
        Defect{"FILLS_BEYOND", "struct_sizes", "device_info wrote beyond"},
        Defect{"NO_SENTENCE", "arguments", "no sentence"}, Defect{"NO_SENTENCE", "devices", "no sentence"},
        Defect{"NO_NEGOTIATION", "other_major", "it accepted a host of the next major version"},
        Defect{"NO_NEGOTIATION", "too_new_minimum", "it accepted"}),
    [](const auto& i) { return std::string(i.param.plugin) + "_" + i.param.check; });

// ---------------------------------------------------------------- versions

TEST(Plugins, TheFrozenOneOfVersion10Runs) {
  EXPECT_EQ(why(run_relu("file:" + file("frozen"))), "");
  auto found = find_backend("file:" + file("frozen"));
  ASSERT_TRUE(found.ok());
  EXPECT_EQ((*found)->api->abi_minor, 0u);
  EXPECT_EQ((*found)->api->device_state, nullptr);  // what it lacks is absent, not garbage
  auto device = Device::open("file:" + file("frozen"));
  ASSERT_TRUE(device.ok());
  EXPECT_TRUE((*device)->state().ok());
}

TEST(Plugins, OlderAndNewerOnesRun) {
  for (const char* name : {"three", "NEWER_MINOR", "OLDER_TABLE", "LEVEL_ONE"})
    EXPECT_EQ(why(run_relu("file:" + file(name))), "") << name;
  auto older = find_backend("file:" + file("OLDER_TABLE"));
  ASSERT_TRUE(older.ok());
  EXPECT_EQ((*older)->api->extension, nullptr);
}

TEST(Plugins, OthersAreRefusedWithASentence) {
  const std::pair<const char*, const char*> kRefused[] = {{"NEXT_MAJOR", "another major version"},
                                                          {"BLIND_MAJOR", "speaks version 2."},
                                                          {"BLIND_MINOR", "speaks version 1.9"},
                                                          {"SHORT_TABLE", "lacks required entries"},
                                                          {"NO_ENTRY", "exports no ai_vmm_backend_entry"}};
  for (auto [name, sentence] : kRefused) {
    auto device = Device::open("file:" + file(name));
    ASSERT_FALSE(device.ok()) << name;
    EXPECT_NE(device.status().message().find(sentence), std::string::npos) << name << ": " << device.status().message();
  }
  auto missing = Device::open("file:/nowhere/chip.so");
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.status().message().find("cannot be loaded"), std::string::npos) << missing.status().message();
}

TEST(Plugins, AreFoundByTheSetting) {
  EXPECT_FALSE(Device::open("three").ok());
  setenv("AI_VMM_PLUGINS", (file("three") + ":" + file("NO_ENTRY")).c_str(), 1);
  EXPECT_EQ(why(run_relu("three")), "");
  EXPECT_EQ(why(run_relu("three:0")), "");
  auto second = Device::open("three:1");
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), Code::not_found);
  bool told = false;
  for (const DeviceDescription& d : list_devices()) told |= d.problem.find("exports no") != std::string::npos;
  EXPECT_TRUE(told);  // the broken one is in the list, with the reason
  unsetenv("AI_VMM_PLUGINS");
}

// ---------------------------------------------------------------- in a process of their own

// Another spelling of the path is another plugin to the registry.
std::string isolated(const std::string& name) { return "file:" + std::string(PLUGINS) + "./" + name + ".so"; }

class Isolated : public ::testing::Test {
 protected:
  void SetUp() override {
    setenv("AI_VMM_ISOLATE", "plugins", 1);
    setenv("AI_VMM_ISOLATE_LIMIT_MS", "500", 1);
  }
  void TearDown() override {
    unsetenv("AI_VMM_ISOLATE");
    unsetenv("AI_VMM_ISOLATE_LIMIT_MS");
  }
};

TEST_F(Isolated, RunsAsInside) {
  EXPECT_EQ(why(run_relu(isolated("three"))), "");
  EXPECT_EQ(why(run_relu(isolated("frozen"))), "");
  EXPECT_EQ(why(run_relu(isolated("LEVEL_ONE"))), "");
  auto device = Device::open(isolated("three"));
  ASSERT_TRUE(device.ok());
  EXPECT_EQ((*device)->name(), "chip of three functions");
  auto executable = (*device)->compile(relu(), {});
  ASSERT_TRUE(executable.ok());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 1; i < 40; ++i) {
        std::vector<float> v(size_t(i * 50), float(t + 1));  // the region grows
        Tensor x = Tensor::vector(v);
        const Tensor* in[] = {&x};
        Tensor y, *out[] = {&y};
        if (i % 2) y = *Tensor::make(DType::f32, {i * 50});  // in place, or from allocate
        if (!(*executable)->run(in, out, {}).ok() || !identical(y, x)) ++wrong;
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
  volatile int32_t given_up = 1;
  Tensor x = Tensor::vector<float>({1});
  const Tensor* in[] = {&x};
  Tensor y, *out[] = {&y};
  EXPECT_EQ((*executable)->run(in, out, {.cancel = &given_up}).code(), Code::cancelled);
}

TEST_F(Isolated, WhatCannotBeLoadedSaysWhy) {
  auto device = Device::open(isolated("NEXT_MAJOR"));
  ASSERT_FALSE(device.ok());
  EXPECT_NE(device.status().message().find("another major version"), std::string::npos) << device.status().message();
}

// Runs until the device is lost; the failure of that run.
Status until_lost(const std::string& name) {
  auto device = AI_VMM_TAKE(Device::open(name));
  auto executable = AI_VMM_TAKE(device->compile(relu(), {}));
  Tensor x = Tensor::vector<float>({1});
  const Tensor* in[] = {&x};
  for (int i = 0; i < 20; ++i) {
    Tensor y, *out[] = {&y};
    Status s = executable->run(in, out, {});
    if (s.ok()) continue;
    EXPECT_EQ(s.device_state(), DeviceState::lost);
    EXPECT_EQ(device->state().device_state(), DeviceState::lost);
    return s;
  }
  return {};
}

TEST_F(Isolated, ACrashCostsTheDeviceAlone) {
  Status s = until_lost(isolated("CRASHES"));
  EXPECT_NE(s.message().find("was ended by signal Segmentation fault"), std::string::npos) << s.message();
  EXPECT_EQ(why(run_relu(isolated("CRASHES"))), "");  // opened anew, in a new process
}

TEST_F(Isolated, AHangIsKilled) {
  Status s = until_lost(isolated("HANGS"));
  EXPECT_NE(s.message().find("did not answer for 500 ms and was killed"), std::string::npos) << s.message();
  EXPECT_EQ(why(run_relu(isolated("HANGS"))), "");
}

TEST_F(Isolated, ADeploymentOutlivesTheCrashesOfItsDevice) {
  auto impl = std::make_shared<Deployment::Impl>();
  auto g = relu();
  impl->set_interface(*g);
  impl->memory_limit = 1 << 30;
  impl->threads = 1;
  FailoverChain::Maker make = [g](const std::string& name) -> Result<FailoverChain::Made> {
    std::shared_ptr<Device> device[] = {AI_VMM_TAKE(Device::open(name))};
    PlanFacts facts;
    return FailoverChain::Made{AI_VMM_TAKE(make_plan(g, device, {}, facts)), device[0]->name()};
  };
  auto first = make(isolated("CRASHES"));
  ASSERT_TRUE(first.ok()) << first.status().message();
  impl->plan = first->plan;
  impl->failover = std::make_unique<FailoverChain>(std::vector<std::string>{isolated("CRASHES"), "cpu"},
                                                   *std::move(first), make, std::chrono::milliseconds(1));
  Deployment d(impl);
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 60; ++i) {
        auto out = d.run({{"x", Tensor::vector<float>({-1, float(t * 100 + i)})}});
        if (!out.ok() || !identical(out->at("y").tensor(), Tensor::vector<float>({0, float(t * 100 + i)}))) ++failed;
        std::this_thread::sleep_for(std::chrono::microseconds(500));
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(failed, 0);
  int64_t moved = 0;
  for (const auto& f : d.report().failovers) moved += f.requests;
  EXPECT_GE(moved, 2);  // it came back, and crashed again
}

}  // namespace
}  // namespace ai_vmm
