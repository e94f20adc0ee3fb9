// Every kernel against the reference semantics of its operator: in both kinds on the first OpenCL device, and on what
// other programs put in its place (gpu/testing/kernel_device.hpp).
#include <gtest/gtest.h>

#include <cmath>

#include "base/numbers.hpp"
#include "gpu/program.hpp"
#include "gpu/testing/kernel_device.hpp"
#include "ops/op.hpp"

namespace ai_vmm::opencl {
namespace {

// Normal numbers; integers below `n`.
Tensor floats(Shape shape, uint64_t seed = 1, DType dtype = DType::f32) {
  Random random{seed};
  Tensor t = *Tensor::make(dtype, std::move(shape));
  for (int64_t i = 0; i < t.count(); ++i) write_double(dtype, t.mutable_data(), i, random.normal());
  return t;
}
Tensor below(int64_t n, Shape shape, DType dtype = DType::i64) {
  Random random{5};
  Tensor t = *Tensor::make(dtype, std::move(shape));
  for (int64_t i = 0; i < t.count(); ++i) write_int64(dtype, t.mutable_data(), i, int64_t(random.next() % uint64_t(n)));
  return t;
}
Tensor ints(std::vector<int64_t> values) { return Tensor::vector(values); }

struct Case {
  const char* op;
  std::vector<Tensor> inputs;
  std::vector<Attribute> attributes = {};
  uint32_t constants = 0;  // inputs (bit k) that are constants of the graph
  int outputs = 1;
  const char* domain = "";
};

Status compare(const Tensor& y, const Tensor& r) {
  auto bad = [](std::string what) { return Status(Code::data_loss, std::move(what)); };
  if (y.dtype() != r.dtype() || y.shape() != r.shape())
    return bad("got " + std::string(name(y.dtype())) + to_string(y.shape()) + " for " + name(r.dtype()) +
               to_string(r.shape()));
  double most = 0;
  for (int64_t i = 0; i < r.count(); ++i) {
    double v = is_float(r.dtype()) ? read_double(r.dtype(), r.data(), i) : 0;
    if (std::isfinite(v)) most = std::max(most, std::fabs(v));
  }
  const double unit = r.dtype() == DType::f32 || r.dtype() == DType::f64 ? 1e-4 : r.dtype() == DType::f16 ? 2e-3 : 2e-2;
  for (int64_t i = 0; i < r.count(); ++i) {
    if (!is_float(r.dtype())) {
      if (read_int64(r.dtype(), y.data(), i) != read_int64(r.dtype(), r.data(), i))
        return bad("element " + std::to_string(i) + " is " + std::to_string(read_int64(r.dtype(), y.data(), i)) +
                   ", not " + std::to_string(read_int64(r.dtype(), r.data(), i)));
      continue;
    }
    double a = read_double(r.dtype(), y.data(), i), b = read_double(r.dtype(), r.data(), i);
    if (std::isnan(a) && std::isnan(b)) continue;
    if (!(a == b || std::fabs(a - b) <= unit * most + unit * std::fabs(b)))
      return bad("element " + std::to_string(i) + " is " + std::to_string(a) + ", not " + std::to_string(b));
  }
  return {};
}

// `way`: of gpu::Options; `program_made`: the program after its runs.
Status run(const Case& c, bool wide, const std::string& way = "",
           std::shared_ptr<const gpu::Program>* program_made = nullptr) {
  Graph g;
  std::vector<ValueId> in, out;
  std::vector<Data> data;
  std::vector<Tensor> given;
  for (size_t k = 0; k < c.inputs.size(); ++k) {
    if (!c.inputs[k]) {
      in.push_back(kAbsent);
      data.emplace_back();
      continue;
    }
    ValueId v = g.add_value("in" + std::to_string(k), Type::tensor(c.inputs[k].dtype(), to_dims(c.inputs[k].shape())));
    in.push_back(v);
    data.emplace_back(c.inputs[k]);
    if (c.constants >> k & 1) {
      g.value(v).constant = c.inputs[k];
    } else {
      g.inputs.push_back(v);
      given.push_back(c.inputs[k]);
    }
  }
  for (int k = 0; k < c.outputs; ++k) out.push_back(g.add_value("out" + std::to_string(k)));
  g.outputs = out;
  Node& n = g.add_node(c.op, in, out, c.domain);
  n.def = find_op(c.domain, c.op);
  n.attributes = c.attributes;
  AI_VMM_TRY(infer_types(g));
  Random random;
  auto expected = AI_VMM_TAKE(evaluate(g.nodes[0], data, random));
  for (const auto& verdict : gpu::query(g, kernel_device(wide)->traits()))
    if (verdict.reason != AI_VMM_SUPPORTED)
      return Status(Code::unimplemented, std::string("refused: ") + (verdict.detail ? verdict.detail : ""));
  auto program =
      AI_VMM_TAKE(gpu::Program::compile(std::move(g), kernel_device(wide), {.deterministic = true, .way = way}));
  auto context = AI_VMM_TAKE(gpu::Context::make(program));
  for (int turn = 0; turn < 2; ++turn) {  // the second run reuses everything
    std::vector<Tensor> results(out.size());
    std::vector<gpu::OutputSlot> slots(out.size());
    for (size_t k = 0; k < slots.size(); ++k)
      slots[k].allocate = [&results, k](DType dtype, const Shape& shape) -> Result<void*> {
        results[k] = AI_VMM_TAKE(Tensor::make(dtype, shape));
        return results[k].mutable_data();
      };
    AI_VMM_TRY(context->run(given, slots, nullptr));
    for (size_t k = 0; k < results.size(); ++k) AI_VMM_TRY(compare(results[k], expected[k].tensor()));
  }
  if (program_made) *program_made = program;
  return {};
}

class Kernels : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(kernel_device(GetParam())) << "There is no device; scripts/setup.sh installs PoCL, which makes one.";
  }
  void check(const std::vector<Case>& cases) {
    for (size_t i = 0; i < cases.size(); ++i) {
      Status s = run(cases[i], GetParam());
      EXPECT_TRUE(s.ok()) << cases[i].op << " " << i << ": " << s.message();
    }
  }
};
INSTANTIATE_TEST_SUITE_P(, Kernels, testing::ValuesIn(kernel_kinds()),
                         [](const auto& info) { return info.param ? "Wide" : "Lanes"; });

using I = int64_t;
using L = std::vector<int64_t>;

TEST_P(Kernels, Elementwise) {
  check({{"Relu", {floats({3, 50})}},
         {"Add", {floats({2, 3, 40}), floats({3, 1}, 2)}},
         {"Mul", {floats({5, 7}), floats({7}, 2)}},
         {"Gelu", {floats({100})}},
         {"Div", {below(9, {40}, DType::i32), below(3, {40}, DType::i32)}},
         {"Less", {floats({4, 20}), floats({20}, 2)}},
         {"Where", {below(2, {6, 20}, DType::boolean), floats({6, 20}), floats({1}, 2)}},
         {"Cast", {floats({37})}, {{"to", I(DType::i8)}}},
         {"Exp", {floats({33}, 1, DType::f16)}},
         {"Pow", {floats({20}), Tensor::scalar(2.0f)}, {}, 2},
         {"Pow", {below(9, {20}, DType::f32), floats({20}, 2)}},
         {"Mod", {floats({40}), floats({40}, 2)}, {{"fmod", I(1)}}},
         {"Mod", {floats({40}), floats({40}, 2)}},
         {"Max", {floats({20}), floats({3, 20}, 2), floats({1, 1}, 3)}}});
}

TEST_P(Kernels, Products) {
  check({{"MatMul", {floats({30, 17}), floats({17, 40}, 2)}},
         {"MatMul", {floats({1, 64}), floats({64, 100}, 2)}, {}, 2},
         {"MatMul", {floats({2, 3, 5, 20}), floats({3, 20, 33}, 2)}},
         {"MatMul", {floats({4, 9, 20}), floats({20}, 2)}},
         {"MatMul", {floats({20}), floats({20, 7}, 2)}},
         {"MatMul", {floats({2, 7, 50}), floats({50, 70}, 2)}, {}, 2},
         {"MatMul", {floats({13, 20}, 1, DType::f16), floats({20, 18}, 2, DType::f16)}},
         {"Gemm", {floats({20, 15}), floats({20, 37}, 2), floats({37}, 3)}, {{"transA", I(1)}, {"alpha", 0.5f}}},
         {"Gemm", {floats({15, 20}), floats({37, 20}, 2), floats({15, 1}, 3)}, {{"transB", I(1)}, {"beta", 2.0f}}, 2}});
}

// Exact, whatever the order of sums: long inner axes of the largest numbers.
TEST_P(Kernels, Quantised) {
  auto u8 = [](Shape shape, uint64_t seed) {
    Random random{seed};
    Tensor t = *Tensor::make(DType::u8, std::move(shape));
    for (int64_t i = 0; i < t.count(); ++i) write_int64(DType::u8, t.mutable_data(), i, int64_t(random.next() % 256));
    return t;
  };
  auto number = [](float x) { return Tensor::scalar(x); };
  auto zero = [](uint8_t x) { return Tensor::scalar(x); };
  Tensor a = u8({13, 700}, 1), b = u8({700, 40}, 2), x = u8({2, 40, 9, 11}, 3), w = u8({20, 40, 3, 3}, 4);
  Tensor rows = u8({13}, 5), columns = u8({40}, 6), scales = Tensor::vector<float>(std::vector<float>(20, 0.01f));
  check({{"MatMulInteger", {a, b}},
         {"MatMulInteger", {a, b, zero(255), zero(0)}, {}, 14},
         {"MatMulInteger", {a, b, rows, columns}},
         {"QLinearMatMul", {a, number(0.02f), zero(120), b, number(0.03f), zero(130), number(1.5f), zero(100)}},
         {"ConvInteger", {x, w, zero(7)}, {{"pads", L{1, 1, 1, 1}}}, 6},
         {"ConvInteger", {x, u8({40, 1, 3, 3}, 2), zero(7), zero(9)}, {{"group", I(40)}, {"strides", L{2, 2}}}},
         {"QLinearConv",
          {x, number(0.02f), zero(120), w, scales, zero(130), number(1.5f), zero(100), below(900, {20}, DType::i32)},
          {{"pads", L{0, 1, 0, 1}}}},
         {"QuantizeLinear", {floats({3, 70}), number(0.02f), zero(100)}},
         {"QuantizeLinear", {floats({3, 20, 5}), scales, below(99, {20}, DType::i8)}},
         {"DequantizeLinear", {x, number(0.5f), zero(128)}},
         {"DequantizeLinear", {below(1000, {4, 20}, DType::i32), scales}},
         {"DynamicQuantizeLinear", {floats({7, 33})}, {}, 0, 3}});
}

TEST_P(Kernels, Convolutions) {
  Tensor x = floats({2, 6, 15, 18});
  check(
      {{"Conv", {x, floats({20, 6, 3, 3}, 2), floats({20}, 3)}, {{"pads", L{1, 1, 1, 1}}}, 6},
       {"Conv", {x, floats({9, 6, 1, 1}, 2)}},
       {"Conv", {floats({1, 8, 8, 8}), floats({16, 8, 1, 1}, 2)}},
       {"Conv", {x, floats({10, 6, 3, 3}, 2)}, {{"strides", L{2, 2}}, {"pads", L{1, 1, 1, 1}}}},
       {"Conv", {x, floats({10, 6, 3, 2}, 2)}, {{"strides", L{3, 2}}, {"pads", L{0, 1, 2, 1}}, {"dilations", L{2, 3}}}},
       {"Conv", {x, floats({6, 1, 5, 5}, 2)}, {{"group", I(6)}, {"auto_pad", std::string("SAME_UPPER")}}},
       {"Conv", {x, floats({8, 3, 3, 3}, 2)}, {{"group", I(2)}}},
       {"Conv", {floats({2, 4, 50}), floats({7, 4, 5}, 2), floats({7}, 3)}, {{"strides", L{2}}}},
       {"Conv",
        {floats({2, 4, 7, 8, 9}), floats({6, 2, 3, 2, 3}, 2), floats({6}, 3)},
        {{"group", I(2)}, {"strides", L{1, 2, 2}}, {"pads", L{1, 0, 2, 1, 1, 0}}, {"dilations", L{2, 1, 1}}}},
       {"Conv", {floats({1, 2, 5, 6, 7}), floats({3, 2, 2, 3, 2}, 2)}, {{"auto_pad", std::string("SAME_LOWER")}}},
       {"ConvTranspose", {x, floats({6, 4, 2, 2}, 2), floats({4}, 3)}, {{"strides", L{2, 2}}}},
       {"ConvTranspose",
        {x, floats({6, 4, 3, 3}, 2)},
        {{"strides", L{2, 1}}, {"pads", L{1, 0, 1, 1}}, {"dilations", L{1, 2}}}},
       {"ConvTranspose",
        {x, floats({6, 2, 3, 3}, 2)},
        {{"group", I(3)}, {"output_padding", L{1, 1}}, {"strides", L{2, 2}}}}});
}

// Every part of a tile may lie outside: odd sizes, uneven padding, several images in one vector, channels that fill no
// tile of registers, more panels than one pass takes.
TEST_P(Kernels, WinogradConvolutions) {
  if (!GetParam()) GTEST_SKIP() << "Kernels of lanes have no Winograd convolution.";
  struct Size {
    I n, c, o, h, w;
    L pads;
  };
  std::vector<Size> sizes{{1, 16, 16, 9, 9, {0, 0, 0, 0}},   {2, 33, 21, 15, 18, {1, 1, 1, 1}},
                          {2, 17, 40, 7, 7, {1, 1, 1, 1}},   {1, 20, 24, 31, 70, {0, 2, 1, 0}},
                          {3, 16, 19, 5, 9, {2, 0, 0, 1}},   {1, 64, 50, 121, 130, {1, 1, 1, 1}},
                          {1, 600, 16, 14, 14, {1, 1, 1, 1}}};
  Random random{11};
  auto below = [&](I n) { return I(random.next() % uint64_t(n)); };
  for (int turn = 0; turn < 6; ++turn)
    sizes.push_back({1 + below(3),
                     16 + below(40),
                     16 + below(40),
                     3 + below(40),
                     3 + below(40),
                     {below(3), below(3), below(3), below(3)}});
  for (const Size& s : sizes)
    for (I points : {36, 16}) {
      const Case c{
          "Conv", {floats({s.n, s.c, s.h, s.w}), floats({s.o, s.c, 3, 3}, 2), floats({s.o}, 3)}, {{"pads", s.pads}}, 6};
      std::shared_ptr<const gpu::Program> program;
      Status status = run(c, GetParam(), points == 36 ? "winograd 4x4" : "winograd 2x2", &program);
      EXPECT_TRUE(status.ok()) << to_string(c.inputs[0].shape()) << to_string(c.inputs[1].shape()) << " " << points
                               << ": " << status.message();
      // Transformed filters are larger than any others: the way was taken.
      if (program) {
        EXPECT_GE(program->weight_bytes(), points * s.c * s.o * 4);
      }
    }
}

TEST_P(Kernels, Pools) {
  Tensor x = floats({2, 3, 15, 18});
  std::vector<Attribute> window = {{"kernel_shape", L{3, 2}}, {"strides", L{2, 2}}, {"pads", L{1, 0, 1, 1}}};
  auto counted = window;
  counted.push_back({"count_include_pad", I(1)});
  check({{"MaxPool", {x}, window},
         {"AveragePool", {x}, window},
         {"AveragePool", {x}, counted},
         {"AveragePool", {floats({2, 3, 5, 6, 7})}, {{"kernel_shape", L{2, 3, 2}}, {"strides", L{2, 1, 2}}}},
         {"MaxPool", {floats({2, 3, 5, 6, 7})}, {{"kernel_shape", L{2, 3, 2}}, {"pads", L{1, 1, 0, 0, 1, 1}}}},
         {"MaxPool",
          {floats({1, 2, 20, 70})},
          {{"kernel_shape", L{3, 3}}, {"strides", L{2, 2}}, {"pads", L{1, 1, 1, 1}}}},
         {"AveragePool", {floats({1, 2, 9, 50})}, {{"kernel_shape", L{3, 3}}, {"pads", L{1, 1, 1, 1}}}},
         {"AveragePool",
          {floats({1, 2, 9, 50})},
          {{"kernel_shape", L{2, 3}}, {"pads", L{1, 1, 0, 1}}, {"count_include_pad", I(1)}}},
         {"GlobalAveragePool", {x}},
         {"GlobalMaxPool", {floats({2, 3, 5})}}});
}

TEST_P(Kernels, Rows) {
  check({{"Softmax", {floats({7, 100})}},
         {"Softmax", {floats({3, 9, 5})}, {{"axis", I(1)}}},
         {"Softmax", {floats({3, 9, 37})}, {{"axis", I(1)}}},
         {"LogSoftmax", {floats({7, 33})}},
         {"LayerNormalization", {floats({5, 70}), floats({70}, 2), floats({70}, 3)}, {}, 0, 3},
         {"RMSNormalization", {floats({5, 70}), floats({70}, 2)}},
         {"InstanceNormalization", {floats({2, 3, 50}), floats({3}, 2), floats({3}, 3)}},
         {"GroupNormalization", {floats({2, 6, 20}), floats({6}, 2), floats({6}, 3)}, {{"num_groups", I(3)}}},
         {"BatchNormalization",
          {floats({2, 6, 20}), floats({6}, 2), floats({6}, 3), floats({6}, 4), below(5, {6}, DType::f32)},
          {{"epsilon", 0.1f}}},
         {"LRN", {floats({2, 9, 12})}, {{"size", I(3)}}}});
}

TEST_P(Kernels, Attention) {
  auto heads = [](I h, I rows, I columns, uint64_t seed, DType t = DType::f32) {
    return floats({2, h, rows, columns}, seed, t);
  };
  check({{"Attention", {heads(3, 13, 32, 1), heads(3, 70, 32, 2), heads(3, 70, 48, 3)}},
         {"Attention", {heads(4, 20, 20, 1), heads(2, 20, 20, 2), heads(2, 20, 16, 3)}, {{"is_causal", I(1)}}},
         {"Attention", {heads(2, 1, 64, 1), heads(2, 50, 64, 2), heads(2, 50, 64, 3)}, {{"scale", 0.3f}}},
         {"Attention",
          {heads(2, 9, 16, 1), heads(2, 60, 16, 2), heads(2, 60, 16, 3), below(2, {9, 57}, DType::boolean)},
          {{"softcap", 2.0f}}},
         {"Attention", {heads(2, 9, 16, 1), heads(2, 60, 16, 2), heads(2, 60, 16, 3), floats({2, 1, 1, 60}, 4)}},
         {"Attention",
          {heads(2, 6, 16, 1, DType::f16), heads(2, 6, 16, 2, DType::f16), heads(2, 6, 16, 3, DType::f16), Tensor(),
           heads(2, 11, 16, 4, DType::f16), heads(2, 11, 16, 5, DType::f16)},
          {{"is_causal", I(1)}},
          0,
          3},
         {"Attention",
          {floats({2, 10, 64}), floats({2, 30, 32}, 2), floats({2, 30, 32}, 3), Tensor(), Tensor(), Tensor(),
           ints({30, 12})},
          {{"q_num_heads", I(4)}, {"kv_num_heads", I(2)}}}});
}

TEST_P(Kernels, Reductions) {
  Tensor x = floats({4, 5, 60});
  check({{"ReduceSum", {x, ints({2})}, {}, 2},
         {"ReduceMean", {x, ints({0, 2})}, {{"keepdims", I(0)}}, 2},
         {"ReduceMax", {x, ints({1})}, {}, 2},
         {"ReduceL2", {x, ints({-1})}, {}, 2},
         {"ReduceLogSumExp", {x, ints({1})}, {}, 2},
         {"ReduceMin", {below(99, {30, 4}, DType::i32)}},
         {"ReduceProd", {floats({3, 4}), ints({1})}, {}, 2},
         {"ArgMax", {x}, {{"axis", I(1)}}},
         {"ArgMin", {below(4, {3, 50}, DType::i32)}, {{"axis", I(1)}, {"select_last_index", I(1)}}},
         {"TopK", {x, ints({7})}, {{"axis", I(2)}}, 2, 2},
         {"TopK", {below(5, {3, 20}), ints({4})}, {{"largest", I(0)}}, 2, 2},
         {"CumSum", {x, Tensor::scalar(I(1))}, {{"exclusive", I(1)}, {"reverse", I(1)}}, 2}});
}

TEST_P(Kernels, Movement) {
  Tensor x = floats({4, 6, 20});
  check({{"Transpose", {x}, {{"perm", L{2, 0, 1}}}},
         {"Transpose", {x}, {{"perm", L{1, 0, 2}}}},
         {"Concat", {x, floats({4, 2, 20}, 2)}, {{"axis", I(1)}}},
         {"Slice", {x, ints({1, 18}), ints({4, 2}), ints({1, 2}), ints({1, -3})}, {}, 30},
         {"Expand", {floats({6, 1}), ints({3, 6, 5})}, {}, 2},
         {"Tile", {x, ints({1, 2, 3})}, {}, 2},
         {"Pad", {x, ints({0, 1, 2, 0, 3, 1}), Tensor::scalar(7.0f)}, {}, 2},
         {"Pad", {x, ints({0, 1, 2, 0, 3, 1})}, {{"mode", std::string("reflect")}}, 2},
         {"Pad", {x, ints({0, 1, 2, 0, 3, 1})}, {{"mode", std::string("edge")}}, 2},
         {"DepthToSpace", {floats({1, 8, 3, 4})}, {{"blocksize", I(2)}}},
         {"SpaceToDepth", {floats({1, 2, 6, 4})}, {{"blocksize", I(2)}}},
         {"Trilu", {floats({2, 5, 6}), Tensor::scalar(I(1))}},
         {"CumSum", {x, Tensor::scalar(int32_t(-2))}},
         {"Resize", {floats({1, 2, 5, 7}), Tensor(), Tensor::vector<float>({1, 1, 2, 3})}, {}, 4},
         {"Resize",
          {floats({1, 2, 5, 7}), Tensor(), Tensor::vector<float>({1, 1, 2, 0.6f})},
          {{"mode", std::string("linear")}},
          4}});
}

TEST_P(Kernels, Indexed) {
  Tensor x = floats({10, 4, 12});
  check({{"Gather", {x, below(10, {3, 2})}},
         {"Gather", {x, below(12, {5}, DType::i32)}, {{"axis", I(2)}}},
         {"GatherElements", {x, below(4, {10, 3, 12})}, {{"axis", I(1)}}},
         {"GatherND", {x, below(4, {5, 2})}},
         {"ScatterElements", {x, below(10, {7, 4, 12}), floats({7, 4, 12}, 2)}, {{"reduction", std::string("add")}}},
         {"ScatterND", {x, below(4, {5, 2}), floats({5, 12}, 2)}},
         {"OneHot", {below(9, {6}), Tensor::scalar(I(7)), Tensor::vector<float>({-1, 1})}, {}, 2}});
}

TEST_P(Kernels, Recurrent) {
  Tensor x = floats({6, 3, 20}), lengths = Tensor::vector<int32_t>({6, 2, 4});
  check({{"LSTM",
          {x, floats({2, 72, 20}, 2), floats({2, 72, 18}, 3), floats({2, 144}, 4), lengths, floats({2, 3, 18}, 5),
           floats({2, 3, 18}, 6), floats({2, 54}, 7)},
          {{"direction", std::string("bidirectional")}, {"hidden_size", I(18)}},
          0,
          3},
         {"LSTM",
          {floats({3, 6, 20}), floats({1, 72, 20}, 2), floats({1, 72, 18}, 3)},
          {{"hidden_size", I(18)}, {"layout", I(1)}, {"clip", 0.7f}},
          6,
          3},
         {"GRU",
          {x, floats({1, 54, 20}, 2), floats({1, 54, 18}, 3), floats({1, 108}, 4)},
          {{"direction", std::string("reverse")}, {"hidden_size", I(18)}},
          0,
          2},
         {"GRU",
          {x, floats({1, 54, 20}, 2), floats({1, 54, 18}, 3), floats({1, 108}, 4)},
          {{"linear_before_reset", I(1)}, {"hidden_size", I(18)}},
          0,
          2},
         {"RNN", {x, floats({1, 18, 20}, 2), floats({1, 18, 18}, 3)}, {{"hidden_size", I(18)}}, 0, 2}});
}

TEST_P(Kernels, AnIndexOutsideItsAxisFailsTheRun) {
  Graph g;
  ValueId data = g.add_value("data", Type::tensor(DType::f32, {Dim(4)})),
          index = g.add_value("index", Type::tensor(DType::i64, {Dim(2)})), y = g.add_value("y");
  g.inputs = {data, index};
  g.outputs = {y};
  g.add_node("Gather", {data, index}, {y}).def = find_op("", "Gather");
  ASSERT_TRUE(infer_types(g).ok());
  auto program = gpu::Program::compile(std::move(g), kernel_device(GetParam()), {});
  ASSERT_TRUE(program.ok());
  auto context = gpu::Context::make(*program);
  ASSERT_TRUE(context.ok());
  float out[2];
  const int64_t shape[] = {2};
  for (int64_t wrong : {int64_t(4), int64_t(1), int64_t(-5)}) {
    std::vector<gpu::OutputSlot> slots(1);
    slots[0].data = out;
    slots[0].shape = shape;
    std::vector<Tensor> in{floats({4}), ints({0, wrong})};
    EXPECT_EQ((*context)->run(in, slots, nullptr).code(), wrong == 1 ? Code::ok : Code::out_of_range) << wrong;
  }
}

}  // namespace
}  // namespace ai_vmm::opencl
