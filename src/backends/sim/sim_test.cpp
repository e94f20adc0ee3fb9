#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "ai_vmm/compute_backend.hpp"
#include "backends/sim/extensions.hpp"
#include "kit/view.hpp"
#include "ops/op.hpp"

namespace ai_vmm::sim {

const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);

namespace {

std::string problem(const char* text) {
  auto chips = parse_chips(text);
  return chips.ok() ? "" : chips.status().message();
}

TEST(Chip, ReadsUnitsAndSaysWhatIsWrong) {
  auto chips = parse_chips(
      "chip = A  # first\npeak.f32 = 2 Tflop/s\npeak.i8=16 Top/s\nbandwidth = 100 GB/s\nmemory = 4 GiB\n"
      "launch = 5 us\nlink.bandwidth = 16 GB/s\nlink.latency = 2 us\noperators = MatMul Add\n"
      "fail = busy every 10 for 5 ms\nchip = B\npeak.other = 1k\n");
  ASSERT_TRUE(chips.ok()) << chips.status().message();
  ASSERT_EQ(chips->size(), 2u);
  const Chip& a = (*chips)[0];
  EXPECT_EQ(a.rate(DType::f32), 2e12);
  EXPECT_EQ(a.rate(DType::f64), 0);
  EXPECT_EQ((*chips)[1].rate(DType::f64), 1000);
  EXPECT_EQ(a.memory, int64_t(4) << 30);
  EXPECT_EQ(a.launch_ns, 5000);
  EXPECT_EQ(a.operators.size(), 2u);
  EXPECT_EQ(a.failures[0].for_ns, 5'000'000);

  EXPECT_EQ(problem(""), "There is no line chip = NAME.");
  EXPECT_EQ(problem("chip = A\npeek.f32 = 1"), "Line 2: there is no \"peek.f32\"; did you mean peak.f32?.");
  EXPECT_NE(problem("chip = A\npeak.f32 = fast").find("Line 2: \"fast\" is no quantity"), std::string::npos);
  EXPECT_NE(problem("chip = A\npeak.f32 = 1\noperators = Matmul").find("is no operator"), std::string::npos);
  EXPECT_NE(problem("chip = A\nmemory = 4 GiB").find("computes nothing"), std::string::npos);
  EXPECT_NE(problem("chip = A\npeak.f32 = 1\nfail = broken at 3").find("no kind of failure"), std::string::npos);
  EXPECT_NE(problem("chip = A\npeak.f32 = 1\nfail = busy").find("never happens"), std::string::npos);
}

TEST(Chip, FailuresStrikeByTheirSchedule) {
  auto chips = parse_chips(
      "chip = A\npeak.f32 = 1\nfail = busy at 3\nfail = lost from 2 to 4\nfail = hang every 5\nfail = busy chance "
      "0.25\n");
  ASSERT_TRUE(chips.ok()) << chips.status().message();
  const auto& f = (*chips)[0].failures;
  auto struck = [](const Failure& x) {
    std::vector<int> runs;
    for (int n = 1; n <= 10; ++n)
      if (x.strikes(n)) runs.push_back(n);
    return runs;
  };
  EXPECT_EQ(struck(f[0]), (std::vector<int>{3}));
  EXPECT_EQ(struck(f[1]), (std::vector<int>{2, 3, 4}));
  EXPECT_EQ(struck(f[2]), (std::vector<int>{5, 10}));
  int often = 0;
  for (int n = 1; n <= 10000; ++n) often += f[3].strikes(n);
  EXPECT_NEAR(often, 2500, 150);
}

// The whole backend, with chips described in a file that the setting names.
class Sim : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string file = ::testing::TempDir() + "chips.txt";
    std::ofstream(file) << "chip = Plain\npeak.f32 = 1 Gflop/s\nbandwidth = 1 GB/s\nmemory = 1 MiB\nlaunch = 10 us\n"
                           "link.bandwidth = 1 GB/s\nlink.latency = 1 us\npower.idle = 1 W\npower.peak = 11 W\n"
                           "chip = Failing\npeak.f32 = 1\nlaunch = 0 ns\nfail = busy at 1 for 7 ms\n"
                           "fail = out_of_memory at 2\nfail = wrong_result at 3\nfail = hang at 4\nfail = lost at 5\n"
                           "chip = Slow\npeak.f32 = 1 Gflop/s\nlaunch = 20 ms\npace = 1\n";
    setenv("AI_VMM_SIM_CHIPS", file.c_str(), 1);
    static AiVmmHost host = backend::make<AiVmmHost>();
    host.abi_major = AI_VMM_ABI_MAJOR;
    host.abi_minor_max = AI_VMM_ABI_MINOR;
    api = entry(&host, &status);
    ASSERT_NE(api, nullptr) << std::string_view(status.text, status.text_size);
  }
  void open(int index) { ASSERT_EQ(api->open_device(api->self, index, &device, &status), 0); }
  void TearDown() override {
    if (context) api->release_context(context);
    if (executable) api->release_executable(executable);
    if (device) api->close_device(device);
  }
  // y[2,3] = a[2,4] x b[4,3]
  void compile() {
    Graph g;
    ValueId a = g.add_value("a", Type::tensor(DType::f32, {2, 4})),
            b = g.add_value("b", Type::tensor(DType::f32, {4, 3}));
    ValueId y = g.add_value("y");
    g.inputs = {a, b};
    g.outputs = {y};
    g.add_node("MatMul", {a, b}, {y}).def = find_op("", "MatMul");
    ASSERT_TRUE(infer_types(g).ok());
    auto verdict = backend::make<AiVmmVerdict>();
    AiVmmVerdict* verdicts[] = {&verdict};
    ASSERT_EQ(api->query(device, GraphView(g).get(), verdicts, &status), 0);
    estimate = verdict.est_ns;
    auto options = backend::make<AiVmmCompileOptions>();
    ASSERT_EQ(api->compile(device, GraphView(g).get(), &options, &executable, &status), 0);
    ASSERT_EQ(api->create_context(executable, &context, &status), 0);
  }
  int32_t run(const volatile int32_t* cancel = nullptr) {
    auto tensor = [](float* data, const int64_t* shape) {
      auto t = backend::make<AiVmmTensor>();
      t.data = data;
      t.dtype = 1;
      t.rank = 2;
      t.shape = shape;
      t.device_type = 1;
      return t;
    };
    static const int64_t sa[] = {2, 4}, sb[] = {4, 3}, sy[] = {2, 3};
    AiVmmTensor a = tensor(this->a, sa), b = tensor(this->b, sb), out = tensor(y, sy);
    const AiVmmTensor *in[] = {&a, &b}, *outs[] = {&out};
    auto r = backend::make<AiVmmRun>();
    r.cancel = cancel;
    info = backend::make<AiVmmRunInfo>();
    r.info = &info;
    status = backend::make<AiVmmStatus>();
    return api->execute(context, in, 2, outs, 1, &r, &status);
  }

  static inline const AiVmmBackend* api = nullptr;
  static inline AiVmmStatus status = backend::make<AiVmmStatus>();
  AiVmmDevice* device = nullptr;
  AiVmmExecutable* executable = nullptr;
  AiVmmContext* context = nullptr;
  AiVmmRunInfo info{};
  double estimate = 0;
  float a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[12] = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}, y[6] = {};
};

TEST_F(Sim, IsExactAndKeepsItsOwnTime) {
  open(0);
  compile();
  ASSERT_EQ(run(), 0);
  const float expected[] = {5, 6, 7, 13, 14, 15};
  EXPECT_TRUE(std::equal(y, y + 6, expected));
  // 48 operations at 1 Gop/s = 48 ns; 32 + 48 + 24 bytes at 1 GB/s = 104 ns, which is more. Link: 80 in, 24 out.
  EXPECT_DOUBLE_EQ(estimate, 10'000 + 104);
  EXPECT_DOUBLE_EQ(info.device_ns, 10'104 + 1000 + 80 + 1000 + 24);
  EXPECT_DOUBLE_EQ(info.joules, (1.0 * info.device_ns + 10.0 * 104) * 1e-9);
  EXPECT_EQ(info.bytes_to_device, 80u);
  EXPECT_EQ(info.bytes_from_device, 24u);
}

TEST_F(Sim, FailsAsDescribed) {
  open(1);
  compile();
  EXPECT_EQ(run(), 14);
  EXPECT_EQ(status.device_state, AI_VMM_DEVICE_BUSY);
  EXPECT_EQ(status.retry_after_ms, 7u);
  EXPECT_EQ(run(), 8);
  EXPECT_EQ(status.device_state, AI_VMM_DEVICE_OUT_OF_MEMORY);
  EXPECT_EQ(run(), 0);
  EXPECT_NE(y[0], 5);  // the wrong result
  int32_t cancel = 0;
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    __atomic_store_n(&cancel, 1, __ATOMIC_RELAXED);
  });
  EXPECT_EQ(run(&cancel), 1);  // hung until then
  later.join();
  EXPECT_EQ(run(), 14);
  EXPECT_EQ(status.device_state, AI_VMM_DEVICE_LOST);
  EXPECT_EQ(run(), 14);  // and stays lost for this handle
  EXPECT_NE(api->device_state(device, &status), 0);
  AiVmmDevice* again = nullptr;
  ASSERT_EQ(api->open_device(api->self, 1, &again, &status), 0);
  EXPECT_EQ(api->device_state(again, &status), 0);
  api->close_device(again);
}

TEST_F(Sim, PacedRunsTakeTheirTimeOneAfterTheOther) {
  open(2);
  compile();
  auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(run(), 0);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(20));  // never sooner; later is allowed
}

TEST_F(Sim, StatesForkWithoutCopyingAndComeBackFromSnapshots) {
  open(0);
  const auto& t = *static_cast<const AiVmmStates*>(api->extension(api->self, AI_VMM_EXTENSION_STATES));
  const int64_t dims[] = {2, 100, 3};
  auto shape = backend::make<AiVmmStateShape>();
  shape.dtype = 1;
  shape.rank = 3;
  shape.dims = dims;
  shape.axis = 1;
  AiVmmState *state = nullptr, *fork = nullptr, *back = nullptr;
  ASSERT_EQ(t.create(device, &shape, &state, &status), 0);
  auto append = [&](AiVmmState* to, int64_t rows, float first) {
    std::vector<float> v(size_t(6 * rows));
    for (size_t i = 0; i < v.size(); ++i) v[i] = first + float(i);
    const int64_t s[] = {2, rows, 3};
    auto x = backend::make<AiVmmTensor>();
    x.data = v.data();
    x.dtype = 1;
    x.rank = 3;
    x.shape = s;
    return t.append(to, &x, &status);
  };
  auto content = [&](AiVmmState* of, int64_t rows) {
    std::vector<float> v(size_t(6 * rows));
    const int64_t s[] = {2, rows, 3};
    auto x = backend::make<AiVmmTensor>();
    x.data = v.data();
    x.dtype = 1;
    x.rank = 3;
    x.shape = s;
    EXPECT_EQ(t.read(of, 0, &x, &status), 0);
    return v;
  };
  ASSERT_EQ(append(state, 20, 0), 0);
  auto before = content(state, 20);
  EXPECT_EQ(before[0], 0);
  EXPECT_EQ(before[60], 60);  // the second outer run
  ASSERT_EQ(t.fork(state, &fork, &status), 0);
  auto i = backend::make<AiVmmStateInfo>();
  t.info(state, &i, &status);
  EXPECT_EQ(i.bytes, 0u);  // everything is shared
  ASSERT_EQ(append(fork, 1, 1000), 0);
  EXPECT_EQ(content(state, 20), before);
  EXPECT_EQ(content(fork, 21)[60], 1000);
  EXPECT_EQ(append(state, 81, 0), 8);
  std::string bytes;
  auto write = [](void* user, const void* p, uint64_t n) -> int32_t {
    static_cast<std::string*>(user)->append(static_cast<const char*>(p), n);
    return 0;
  };
  ASSERT_EQ(t.snapshot(state, write, &bytes, &status), 0);
  ASSERT_EQ(t.restore(device, bytes.data(), bytes.size(), &back, &status), 0);
  EXPECT_EQ(content(back, 20), before);
  AiVmmState* none = nullptr;
  EXPECT_EQ(t.restore(device, bytes.data(), bytes.size() - 1, &none, &status), 15);
  for (AiVmmState* s : {state, fork, back}) t.free(s);
  auto m = backend::make<AiVmmMemory>();
  static_cast<const AiVmmBuffers*>(api->extension(api->self, AI_VMM_EXTENSION_BUFFERS))->memory(device, &m, &status);
  EXPECT_EQ(m.free_bytes, m.total_bytes);
}

}  // namespace
}  // namespace ai_vmm::sim
