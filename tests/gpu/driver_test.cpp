// The driver of CUDA's and HIP's devices on the emulator: graphs, memory, failures, several devices. The dialect is
// AI_VMM_EMULATED's.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include "ai_vmm/compute_backend.hpp"
#include "gpu/module/driver.hpp"
#include "gpu/program.hpp"
#include "ops/op.hpp"

namespace ai_vmm {
namespace {

constexpr bool kCuda = gpu::Dialect::AI_VMM_EMULATED == gpu::Dialect::cuda;

template <class F>
F* emulator(const char* name) {
  void* library = dlopen(kCuda ? "libcuda.so.1" : "libamdhip64.so.7", RTLD_NOW | RTLD_NOLOAD);
  return reinterpret_cast<F*>(dlsym(library, name));
}
long calls(const char* cuda, const char* hip) {
  return emulator<long(const char*)>("emulator_calls")(kCuda ? cuda : hip);
}
size_t used() { return emulator<size_t()>("emulator_used")(); }
// The function's call number `turn` from now on fails so.
void fail(const char* cuda, const char* hip, int turn, int error) {
  std::string order = std::string(kCuda ? cuda : hip) + ":" + std::to_string(turn) + ":" + std::to_string(error);
  emulator<void(const char*)>("emulator_fail")(order.c_str());
}

class Emulated : public testing::Test {
 protected:
  void SetUp() override {
    auto devices = gpu::find_module_devices(gpu::Dialect::AI_VMM_EMULATED);
    ASSERT_TRUE(devices.ok()) << devices.status().message();
    devices_ = *devices;
    emulator<void(const char*)>("emulator_fail")("");
  }
  void TearDown() override { emulator<void(const char*)>("emulator_fail")(""); }

  Result<std::shared_ptr<gpu::Driver>> open(size_t k) {
    static const AiVmmHost host = backend::make<AiVmmHost>();
    return devices_[k].open(&host);
  }
  // y = relu(x · w) + 1, for any number of rows.
  Result<std::unique_ptr<gpu::Context>> layer(std::shared_ptr<gpu::Driver> driver) {
    Graph g;
    ValueId x = g.add_value("x", Type::tensor(DType::f32, {Dim::symbol("n"), Dim(8)})),
            w = g.add_value("w", Type::tensor(DType::f32, {Dim(8), Dim(8)})),
            one = g.add_value("one", Type::tensor(DType::f32, {Dim(1)})), p = g.add_value("p"), r = g.add_value("r"),
            y = g.add_value("y");
    std::vector<float> identity(64);
    for (size_t i = 0; i < 8; ++i) identity[9 * i] = 1;
    g.value(w).constant = Tensor::of<float>({8, 8}, identity);
    g.value(one).constant = Tensor::of<float>({1}, {1});
    g.inputs = {x};
    g.outputs = {y};
    g.add_node("MatMul", {x, w}, {p}).def = find_op("", "MatMul");
    g.add_node("Relu", {p}, {r}).def = find_op("", "Relu");
    g.add_node("Add", {r, one}, {y}).def = find_op("", "Add");
    AI_VMM_TRY(infer_types(g));
    auto program = AI_VMM_TAKE(gpu::Program::compile(std::move(g), std::move(driver), {.deterministic = true}));
    return gpu::Context::make(program);
  }
  static Status run(gpu::Context& context, int64_t rows) {
    std::vector<float> x(size_t(rows) * 8), y(x.size());
    static int turn = 0;
    ++turn;
    for (size_t i = 0; i < x.size(); ++i) x[i] = float((int(i) * 7 + turn) % 11 - 5);
    std::vector<Tensor> in{Tensor::of<float>({rows, 8}, x)};
    std::vector<gpu::OutputSlot> out(1);
    const int64_t shape[] = {rows, 8};
    out[0].data = y.data();
    out[0].shape = shape;
    AI_VMM_TRY(context.run(in, out, nullptr));
    for (size_t i = 0; i < x.size(); ++i)
      if (y[i] != std::max(x[i], 0.0f) + 1)
        return Status(Code::data_loss, "Element " + std::to_string(i) + " is wrong.");
    return {};
  }
  std::vector<gpu::FoundDevice> devices_;
};

TEST_F(Emulated, EveryDeviceHasASiliconOfItsOwnAndRuns) {
  ASSERT_EQ(devices_.size(), 2u);
  EXPECT_EQ(devices_[0].resource, "pci:0000:01:00.0");
  EXPECT_EQ(devices_[1].resource, "pci:0000:02:00.0");
  for (size_t k = 0; k < 2; ++k) {
    auto context = layer(*open(k));
    ASSERT_TRUE(context.ok()) << context.status().message();
    Status s = run(**context, 5);
    EXPECT_TRUE(s.ok()) << s.message();
  }
}

TEST_F(Emulated, EqualSizesAreReplayedAsAGraph) {
  auto context = layer(*open(0));
  ASSERT_TRUE(context.ok());
  auto launches = [] { return calls("cuLaunchKernel", "hipModuleLaunchKernel"); };
  auto graphs = [] { return calls("cuGraphLaunch", "hipGraphLaunch"); };
  const long g = graphs();
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(run(**context, 6).ok());  // plain, then recorded
  const long l = launches();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(run(**context, 6).ok());
  EXPECT_EQ(launches(), l);
  EXPECT_EQ(graphs(), g + 6);
  for (int64_t rows : {7, 6, 300, 6, 6, 6}) {  // other sizes are launched, and the recording is made anew
    Status s = run(**context, rows);
    EXPECT_TRUE(s.ok()) << s.message();
  }
  EXPECT_EQ(graphs(), g + 8);
}

TEST_F(Emulated, ADeviceThatRecordsNothingLaunches) {
  auto context = layer(*open(0));
  ASSERT_TRUE(context.ok());
  fail("cuStreamEndCapture", "hipStreamEndCapture", 1, 901);
  for (int i = 0; i < 4; ++i) {
    Status s = run(**context, 6);
    EXPECT_TRUE(s.ok()) << s.message();
  }
}

TEST_F(Emulated, FullMemoryIsSaidAndPasses) {
  auto context = layer(*open(0));
  ASSERT_TRUE(context.ok());
  fail("cuMemAllocAsync", "hipMallocAsync", 1, 2);
  Status s = run(**context, 6);
  EXPECT_EQ(s.code(), Code::resource_exhausted);
  EXPECT_EQ(s.device_state(), DeviceState::out_of_memory) << s.message();
  s = run(**context, 6);
  EXPECT_TRUE(s.ok()) << s.message();
}

TEST_F(Emulated, ALostDeviceIsLostFromThereOn) {
  for (auto [cuda, hip] : {std::pair("cuLaunchKernel", "hipModuleLaunchKernel"),
                           {"cuStreamSynchronize", "hipStreamSynchronize"},
                           {"cuMemcpyHtoDAsync_v2", "hipMemcpyHtoDAsync"},
                           {"cuGraphLaunch", "hipGraphLaunch"}}) {
    auto context = layer(*open(0));
    ASSERT_TRUE(context.ok());
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(run(**context, 6).ok());
    fail(cuda, hip, 1, 700);
    const int64_t rows = std::string(cuda) == "cuLaunchKernel" ? 7 : 6;  // of new sizes, which are launched
    Status s = run(**context, rows);
    EXPECT_EQ(s.code(), Code::unavailable) << cuda;
    EXPECT_EQ(s.device_state(), DeviceState::lost) << s.message();
    EXPECT_FALSE(run(**context, rows).ok());
    emulator<void(const char*)>("emulator_fail")("");
  }
}

TEST_F(Emulated, NothingIsKeptOfWhatIsReleased) {
  auto driver = *open(0);
  const size_t before = used();
  for (int i = 0; i < 3; ++i) {
    auto context = layer(driver);
    ASSERT_TRUE(context.ok());
    ASSERT_TRUE(run(**context, 100).ok());
    EXPECT_GT(used(), before);
    context->reset();
    EXPECT_EQ(used(), before) << i;
  }
}

}  // namespace
}  // namespace ai_vmm
