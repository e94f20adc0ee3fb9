// The driver of CUDA's and HIP's devices on the emulator: graphs, memory, failures, several devices. The dialect is
// AI_VMM_EMULATED's.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "ai_vmm/compute_backend.hpp"
#include "base/numbers.hpp"
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

// Numbers of [-1, 1] in eighths, exact in every type.
Tensor eighths(DType dtype, Shape shape, int seed) {
  Tensor t = *Tensor::make(dtype, std::move(shape));
  for (int64_t i = 0; i < t.count(); ++i) write_double(dtype, t.mutable_data(), i, double((i * 5 + seed) % 17 - 8) / 8);
  return t;
}
void expect_near(const Tensor& y, const Tensor& wanted, double tolerance, const std::string& what) {
  ASSERT_EQ(y.count(), wanted.count()) << what;
  for (int64_t i = 0; i < y.count(); ++i) {
    const double a = read_double(y.dtype(), y.data(), i), b = read_double(wanted.dtype(), wanted.data(), i);
    ASSERT_LE(std::fabs(a - b), tolerance * (1 + std::fabs(b))) << what << ", element " << i;
  }
}

// One operator against the reference, with what its factors may be rounded to; also where ways are measured.
class Rounded : public Emulated {
 protected:
  void check(const char* op, DType type, const std::vector<Shape>& shapes, std::vector<Attribute> attributes,
             double tolerance) {
    for (const char* products : {"f32", "tf32", "bf16", "f16"})
      for (bool deterministic : {true, false}) {
        setenv("AI_VMM_GPU_PRODUCTS", products, 1);
        auto driver = open(0);
        unsetenv("AI_VMM_GPU_PRODUCTS");
        ASSERT_TRUE(driver.ok()) << driver.status().message();
        const std::string what = std::string(op) + " of " + name(type) + " in " + products;
        Graph g;
        std::vector<ValueId> in;
        std::vector<Tensor> given;
        std::vector<Data> data;
        for (size_t k = 0; k < shapes.size(); ++k) {
          given.push_back(eighths(type, shapes[k], int(k) * 3));
          data.emplace_back(given.back());
          in.push_back(g.add_value("in" + std::to_string(k), Type::tensor(type, to_dims(shapes[k]))));
        }
        ValueId p = g.add_value("p"), y = g.add_value("y");
        g.inputs = in;
        g.outputs = {y};
        Node& n = g.add_node(op, in, {p});
        n.def = find_op("", op);
        n.attributes = attributes;
        g.add_node("Neg", {p}, {y}).def = find_op("", "Neg");
        ASSERT_TRUE(infer_types(g).ok());
        Random random;
        auto expected = evaluate(g.nodes[0], data, random);
        ASSERT_TRUE(expected.ok());
        const std::vector<Data> product{Data((*expected)[0].tensor())};
        expected = evaluate(g.nodes[1], product, random);
        ASSERT_TRUE(expected.ok());
        auto program = gpu::Program::compile(std::move(g), *driver, {.deterministic = deterministic});
        ASSERT_TRUE(program.ok()) << what << ": " << program.status().message();
        auto context = gpu::Context::make(*program);
        ASSERT_TRUE(context.ok());
        Tensor result;
        std::vector<gpu::OutputSlot> slots(1);
        slots[0].allocate = [&](DType dtype, const Shape& shape) -> Result<void*> {
          result = AI_VMM_TAKE(Tensor::make(dtype, shape));
          return result.mutable_data();
        };
        Status s = (*context)->run(given, slots, nullptr);
        ASSERT_TRUE(s.ok()) << what << ": " << s.message();
        expect_near(result, (*expected)[0].tensor(), tolerance, what);
      }
  }
};
TEST_F(Rounded, ProductsAndConvolutionsOfEveryKind) {
  for (DType type : {DType::f32, DType::f16, DType::bf16}) {
    const double tolerance = type == DType::f32 ? 1e-5 : type == DType::f16 ? 2e-3 : 1.6e-2;
    check("MatMul", type, {{70, 37}, {37, 150}}, {}, tolerance);
    check("MatMul", type, {{2, 5, 40}, {2, 40, 9}}, {}, tolerance);
    check("Gemm", type, {{33, 20}, {24, 33}}, {{"transA", int64_t(1)}, {"transB", int64_t(1)}, {"alpha", 0.5f}},
          tolerance);
    check("Conv", type, {{2, 5, 9, 8}, {18, 5, 3, 3}},
          {{"pads", std::vector<int64_t>{1, 1, 1, 1}}, {"strides", std::vector<int64_t>{2, 1}}}, tolerance);
  }
}

// 1 + 2⁻¹² times the identity: what is left of it says what the factors were rounded to.
TEST_F(Emulated, FactorsAreRoundedOnlyAsFarAsAllowed) {
  for (auto [products, wanted] :
       {std::pair("f32", 1 + 0x1p-12f), {"tf32", kCuda ? 1.0f : 1 + 0x1p-12f}, {"bf16", 1.0f}, {"f16", 1.0f}}) {
    setenv("AI_VMM_GPU_PRODUCTS", products, 1);
    auto driver = open(0);
    unsetenv("AI_VMM_GPU_PRODUCTS");
    Graph g;
    ValueId x = g.add_value("x", Type::tensor(DType::f32, to_dims({16, 16}))),
            w = g.add_value("w", Type::tensor(DType::f32, to_dims({16, 16}))), y = g.add_value("y");
    std::vector<float> identity(256), number(256, 1 + 0x1p-12f);
    for (size_t i = 0; i < 16; ++i) identity[17 * i] = 1;
    g.value(w).constant = Tensor::of<float>({16, 16}, identity);
    g.inputs = {x};
    g.outputs = {y};
    g.add_node("MatMul", {x, w}, {y}).def = find_op("", "MatMul");
    ASSERT_TRUE(infer_types(g).ok());
    auto program = gpu::Program::compile(std::move(g), *driver, {.deterministic = true});
    ASSERT_TRUE(program.ok());
    auto context = gpu::Context::make(*program);
    std::vector<float> out(256);
    const int64_t shape[] = {16, 16};
    std::vector<gpu::OutputSlot> slots(1);
    slots[0].data = out.data();
    slots[0].shape = shape;
    std::vector<Tensor> in{Tensor::of<float>({16, 16}, number)};
    ASSERT_TRUE((*context)->run(in, slots, nullptr).ok());
    for (float v : out) ASSERT_EQ(v, wanted) << products;
  }
}

TEST_F(Emulated, LibrariesMultiplyEveryLayout) {
  auto driver = *open(0);
  auto queue = *driver->queue();
  for (DType type : {DType::f32, DType::bf16})
    for (int layout = 0; layout < 4; ++layout) {
      const int64_t m = 7, n = 5, k = 9, batches = 3;
      const bool ta = layout & 1, tb = layout & 2;
      gpu::LibraryProduct p{type,       gpu::Arithmetic::f32, 2,          m,       n,     k,    ta ? 1 : k,
                            ta ? m : 1, tb ? 1 : n,           tb ? k : 1, batches, m * k, k * n};
      auto call = driver->library_call(p);
      if (!kCuda) {  // there is no hipBLAS in the emulator's folder
        EXPECT_EQ(call.status().code(), Code::unimplemented);
        continue;
      }
      ASSERT_TRUE(call.ok()) << call.status().message();
      Tensor a = eighths(type, {batches, m * k}, 1), b = eighths(type, {batches, k * n}, 2),
             c = *Tensor::make(type, {batches, m * n}), wanted = *Tensor::make(type, {batches, m * n});
      for (int64_t z = 0; z < batches; ++z)
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < n; ++j) {
            double sum = 0;
            for (int64_t q = 0; q < k; ++q)
              sum += read_double(type, a.data(), z * m * k + i * p.am + q * p.ak) *
                     read_double(type, b.data(), z * k * n + q * p.bk + j * p.bn);
            write_double(type, wanted.mutable_data(), (z * m + i) * n + j, 2 * sum);
          }
      std::vector<gpu::MemoryRef> at;
      for (int64_t bytes : {a.bytes(), b.bytes(), c.bytes(), gpu::kLibraryWorkspace})
        at.push_back(*driver->allocate(bytes));
      ASSERT_TRUE(queue->write(*at[0], a.data(), a.bytes()).ok() && queue->write(*at[1], b.data(), b.bytes()).ok());
      for (size_t i = 0; i < 4; ++i) ASSERT_TRUE((*call)->set(i, *at[i]).ok());
      ASSERT_TRUE(queue->launch(**call, {1, 1, 1}, {1, 1, 1}).ok());
      ASSERT_TRUE(queue->read(*at[2], c.mutable_data(), c.bytes()).ok());
      expect_near(c, wanted, 1e-6, "layout " + std::to_string(layout));
    }
}

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

TEST_F(Emulated, ADeviceWithoutStreamOrderedMemoryAllocatesPlainly) {
  const size_t before = used();
  fail("cuMemAllocAsync", "hipMallocAsync", 1, 801);
  auto context = layer(*open(0));
  ASSERT_TRUE(context.ok());
  const long plain = calls("cuMemAlloc_v2", "hipMalloc");
  Status s = run(**context, 6);
  EXPECT_TRUE(s.ok()) << s.message();
  EXPECT_GT(calls("cuMemAlloc_v2", "hipMalloc"), plain);
  context->reset();
  EXPECT_EQ(used(), before);
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
                           {"cuEventSynchronize", "hipEventSynchronize"},
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
