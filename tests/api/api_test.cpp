// Deployments through the C++ interface: what a run allocates, overriding initialisers, files that change.
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "ai_vmm/vmm.hpp"
#include "import/test_models.hpp"

// Every allocation of the process is counted while `counting`, whoever makes it: the C library's names are defined
// here. A sanitizer has definitions of its own; then only those of C++ are counted.
namespace {
std::atomic<bool> counting{false};
std::atomic<int64_t> allocations{0};
void note() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
void* operator new(size_t n) {
  note();
  if (void* p = std::malloc(n ? n : 1)) return p;
  std::abort();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
#else
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void* malloc(size_t n) { return note(), __libc_malloc(n); }
void* calloc(size_t n, size_t size) { return note(), __libc_calloc(n, size); }
void* realloc(void* p, size_t n) { return note(), __libc_realloc(p, n); }
void* memalign(size_t alignment, size_t n) { return note(), __libc_memalign(alignment, n); }
void* aligned_alloc(size_t alignment, size_t n) { return note(), __libc_memalign(alignment, n); }
int posix_memalign(void** p, size_t alignment, size_t n) {
  note();
  *p = __libc_memalign(alignment, n);
  return *p ? 0 : ENOMEM;
}
}
#endif

namespace ai_vmm {
namespace {

using namespace test;
namespace fs = std::filesystem;

Deployment deploy(const ModelText& m, DeployOptions options = {}) {
  std::string bytes = m.message();
  auto d = VMM().deploy(std::as_bytes(std::span(bytes)), options);
  EXPECT_TRUE(d.ok()) << d.status().message();
  if (!d.ok()) std::abort();
  return *std::move(d);
}

Tensor ramp(Shape shape) {
  Tensor t = *Tensor::make(DType::f32, shape);
  auto to = t.as_mutable<float>();
  for (size_t i = 0; i < to.size(); ++i) to[i] = float(i % 13) / 13 - 0.4f;
  return t;
}

// y = x w + b, with w and b inputs that have defaults.
ModelText linear(int64_t ir_version = 8) {
  ModelText m;
  m.ir_version = ir_version;
  m.graph.nodes = {{"MatMul", {"x", "w"}, {"p"}}, {"Add", {"p", "b"}, {"y"}}};
  m.graph.inputs = {f32("x", {{-1, "N"}, {2}}), f32("w", {{2}, {2}}), f32("b", {{2}})};
  m.graph.outputs = {value("y")};
  m.graph.initialisers = {write_onnx_tensor(Tensor::of<float>({2, 2}, {1, 0, 0, 1}), "w"),
                          write_onnx_tensor(Tensor::vector<float>({10, 20}), "b")};
  return m;
}

std::vector<float> floats(const Result<Outputs>& out, const char* name = "y") {
  EXPECT_TRUE(out.ok()) << out.status().message();
  if (!out.ok()) return {};
  auto v = out->at(name).tensor().as<float>();
  return {v.begin(), v.end()};
}

// ---------------------------------------------------------------- allocations

int64_t allocations_of_a_run(const ModelText& m, std::vector<Data> inputs, std::vector<Data> buffers,
                             DeployOptions options) {
  Deployment d = deploy(m, options);
  Status first = d.run(inputs, buffers);
  EXPECT_TRUE(first.ok()) << first.message();
  EXPECT_EQ(d.report().regions, 1);
  allocations = 0;
  counting = true;
  Status second = d.run(inputs, buffers);
  counting = false;
  EXPECT_TRUE(second.ok()) << second.message();
  return allocations;
}

TEST(Allocations, AreCounted) {
  counting = true;
  auto* p = new std::vector<float>(100);
  counting = false;
  delete p;
  EXPECT_GE(allocations.exchange(0), 2);
}

// oneDNN's primitives are left out: its own code makes six small allocations in each call of a convolution.
TEST(Allocations, NoneInARunWithBuffersAndKnownShapes) {
  ModelText mlp;
  mlp.graph.nodes = {{"MatMul", {"x", "w"}, {"a"}},
                     {"Add", {"a", "b"}, {"c"}},
                     {"Relu", {"c"}, {"d"}},
                     {"Softmax", {"d"}, {"y"}},
                     {"ReduceMean", {"d"}, {"z"}, "", {int_attribute("keepdims", 1)}}};
  mlp.graph.inputs = {f32("x", {{-1, "N"}, {48}})};
  mlp.graph.outputs = {value("y"), value("z")};
  mlp.graph.initialisers = {write_onnx_tensor(ramp({48, 64}), "w"), write_onnx_tensor(ramp({64}), "b")};
  ModelText vision;
  vision.graph.nodes = {
      {"GlobalAveragePool", {"x"}, {"a"}}, {"Sigmoid", {"a"}, {"b"}},
      {"Mul", {"x", "b"}, {"c"}},          {"Concat", {"x", "c"}, {"d"}, "", {int_attribute("axis", 1)}},
      {"Transpose", {"d"}, {"e"}},         {"LayerNormalization", {"e", "w"}, {"y"}}};
  vision.graph.inputs = {f32("x", {{2}, {8}, {6}, {6}})};
  vision.graph.outputs = {value("y")};
  vision.graph.initialisers = {write_onnx_tensor(ramp({2}), "w")};
  for (int threads : {1, 2}) {
    DeployOptions options{.backend = "cpu", .threads = threads};
    EXPECT_EQ(allocations_of_a_run(mlp, {ramp({5, 48})}, {ramp({5, 64}), ramp({1, 1})}, options), 0) << threads;
    EXPECT_EQ(allocations_of_a_run(vision, {ramp({2, 8, 6, 6})}, {ramp({6, 6, 16, 2})}, options), 0) << threads;
  }
}

// ---------------------------------------------------------------- initialisers that are inputs too

TEST(Overriding, GivesOthersInPlaceOfDefaults) {
  Deployment d = deploy(linear(), {.backend = "cpu"});
  ASSERT_EQ(d.inputs().size(), 1u);
  ASSERT_EQ(d.overridable().size(), 2u);
  EXPECT_EQ(d.overridable()[1].type, "f32[2]");
  Tensor x = Tensor::of<float>({1, 2}, {1, 2});
  EXPECT_EQ(floats(d.run({{"x", x}})), (std::vector<float>{11, 22}));
  EXPECT_EQ(floats(d.run({{"x", x}, {"b", Tensor::vector<float>({0, 1})}})), (std::vector<float>{1, 3}));
  EXPECT_EQ(floats(d.run({{"x", x}, {"w", Tensor::of<float>({2, 2}, {0, 1, 1, 0})}})), (std::vector<float>{12, 21}));
  EXPECT_EQ(floats(d.run({{"x", x}, {"b", Tensor::vector<float>({5, 5})}})), (std::vector<float>{6, 7}));
  EXPECT_EQ(floats(d.run({{"x", x}})), (std::vector<float>{11, 22}));
  auto misfit = d.run({{"x", x}, {"b", Tensor::vector<float>({1, 2, 3})}});
  ASSERT_FALSE(misfit.ok());
  EXPECT_NE(misfit.status().message().find("\"b\" has shape [3]"), std::string::npos) << misfit.status().message();
}

// More choices than are kept at once: those that were dropped are compiled again.
TEST(Overriding, EveryChoiceOfInitialisers) {
  ModelText m;
  m.graph.nodes = {{"Sum", {"x", "a", "b", "c"}, {"y"}}};
  m.graph.inputs = {f32("x", {{1}}), f32("a", {{1}}), f32("b", {{1}}), f32("c", {{1}})};
  m.graph.outputs = {value("y")};
  const char* names[] = {"a", "b", "c"};
  for (const char* name : names) m.graph.initialisers.push_back(write_onnx_tensor(Tensor::vector<float>({1}), name));
  Deployment d = deploy(m, {.backend = "cpu", .threads = 1});
  for (int round = 0; round < 2; ++round)
    for (int set = 0; set < 8; ++set) {
      Inputs in{{"x", Tensor::vector<float>({0.5f})}};
      float sum = 3.5f;
      for (int k = 0; k < 3; ++k)
        if (set >> k & 1) in[names[k]] = Tensor::vector<float>({float(10 << k)}), sum += float(10 << k) - 1;
      EXPECT_EQ(floats(d.run(in)), std::vector<float>{sum}) << set;
    }
}

TEST(Overriding, WorksFromManyThreads) {
  Deployment d = deploy(linear(), {.backend = "cpu", .threads = 1});
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        auto out = d.run({{"x", Tensor::of<float>({1, 2}, {0, 0})}, {"b", Tensor::vector<float>({float(t), 0})}});
        if (!out.ok() || out->at("y").tensor().as<float>()[0] != float(t)) ++wrong;
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

// Before IR version 4 every initialiser is listed as an input and none can be overridden, as in ONNX Runtime.
TEST(Overriding, IsRefusedWhereTheModelDoesNotAllowIt) {
  Deployment d = deploy(linear(3), {.backend = "cpu"});
  EXPECT_TRUE(d.overridable().empty());
  auto out = d.run({{"x", Tensor::of<float>({1, 2}, {1, 2})}, {"bias", Tensor::vector<float>({0, 1})}});
  ASSERT_FALSE(out.ok());
  EXPECT_NE(out.status().message().find("no input \"bias\""), std::string::npos) << out.status().message();
}

// ---------------------------------------------------------------- files that change under a deployment

class ChangingFiles : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/ai_vmm_api_XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ / "m.onnx";
    write(linear());
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const ModelText& m) {
    std::string bytes = m.message();
    std::ofstream(path_, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
  }
  fs::path folder_, path_;
  const Inputs plain_{{"x", Tensor::of<float>({1, 2}, {1, 2})}};
  const Inputs longer_{{"x", Tensor::of<float>({2, 2}, {1, 2, 3, 4})}};
  const Inputs overriding_{{"x", Tensor::of<float>({1, 2}, {1, 2})}, {"b", Tensor::vector<float>({0, 1})}};
};

TEST_F(ChangingFiles, AnotherModelOfTheSameNameIsNotMixedIn) {
  auto d = VMM().deploy(path_, {.backend = "cpu"});
  ASSERT_TRUE(d.ok()) << d.status().message();
  EXPECT_EQ(floats(d->run(plain_)), (std::vector<float>{11, 22}));
  fs::remove(path_);  // the old file lives on in the mapping
  ModelText other = linear();
  other.graph.initialisers[0] = write_onnx_tensor(Tensor::of<float>({2, 2}, {7, 7, 7, 7}), "w");
  write(other);
  EXPECT_EQ(floats(d->run(longer_)), (std::vector<float>{11, 22, 13, 24}));
  auto again = d->run(overriding_);
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.status().code(), Code::data_loss);
  EXPECT_NE(again.status().message().find("deploy it again"), std::string::npos) << again.status().message();
}

TEST_F(ChangingFiles, WeightsAreNotReadAgainFromAFileThatWasCutShort) {
  auto mapped = VMM().deploy(path_, {.backend = "cpu"});
  auto copied = VMM().deploy(path_, {.backend = "cpu", .copy_weights = true});
  ASSERT_TRUE(mapped.ok() && copied.ok());
  EXPECT_EQ(floats(mapped->run(plain_)), (std::vector<float>{11, 22}));
  fs::resize_file(path_, 0);
  EXPECT_EQ(mapped->run(longer_).status().code(), Code::data_loss);
  EXPECT_EQ(floats(copied->run(longer_)), (std::vector<float>{11, 22, 13, 24}));
}

TEST_F(ChangingFiles, NeitherForAnotherShapeOfAnInputWithoutRank) {
  ModelText m = linear();
  ProtoWriter tensor, type;
  tensor.varint(1, uint64_t(DType::f32));
  type.bytes(1, tensor.take());
  m.graph.inputs = {value("x", type.take())};
  write(m);
  auto d = VMM().deploy(path_, {.backend = "cpu"});
  ASSERT_TRUE(d.ok()) << d.status().message();
  EXPECT_EQ(floats(d->run(plain_)), (std::vector<float>{11, 22}));
  fs::resize_file(path_, 0);
  EXPECT_EQ(d->run(longer_).status().code(), Code::data_loss);
}

}  // namespace
}  // namespace ai_vmm
