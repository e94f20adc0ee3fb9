// Small networks through all passes, against the reference semantics.
#include "backends/cpu/testing.hpp"

namespace ai_vmm::cpu::testing {
namespace {

using Ints = std::vector<int64_t>;

ValueId conv(Net& n, ValueId x, int64_t ic, int64_t oc, int64_t k, int64_t stride, int64_t groups, bool bias,
             uint32_t seed) {
  std::vector<ValueId> in{x, n.constant(random_tensor({oc, ic / groups, k, k}, seed))};
  if (bias) in.push_back(n.constant(random_tensor({oc}, seed + 1)));
  Ints pads(4, k / 2);
  return n.op("Conv", in,
              {{"pads", pads}, {"strides", Ints{stride, stride}}, {"group", groups}, {"kernel_shape", Ints{k, k}}})[0];
}

TEST(Network, ResidualBlocksWithSqueezeAndExcite) {
  Net n;
  ValueId x = n.input(DType::f32, {Dim::symbol("n"), 3, Dim::symbol("h"), 24});
  ValueId a = n.op("Relu", {conv(n, x, 3, 20, 3, 2, 1, true, 1)})[0];
  ValueId b = n.op("HardSwish", {conv(n, a, 20, 20, 3, 1, 20, true, 3)})[0];
  ValueId p = n.op("GlobalAveragePool", {b})[0];
  ValueId s = n.op("HardSigmoid",
                   {conv(n, n.op("Relu", {conv(n, p, 20, 8, 1, 1, 1, true, 5)})[0], 8, 20, 1, 1, 1, true, 7)})[0];
  ValueId e = n.op("Mul", {b, s})[0];
  ValueId c = n.op("Add", {conv(n, e, 20, 20, 1, 1, 1, false, 9), a})[0];
  ValueId d = n.op("Relu", {n.op("Add", {conv(n, c, 20, 20, 3, 1, 1, true, 11), c})[0]})[0];
  ValueId m =
      n.op("MaxPool", {d}, {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}})[0];
  ValueId v = n.op("AveragePool", {m}, {{"kernel_shape", Ints{2, 2}}})[0];
  n.g.outputs = {n.op("Sigmoid", {v})[0], m, n.op("Flatten", {n.op("GlobalMaxPool", {d})[0]})[0]};
  compare(n,
          {{random_tensor({1, 3, 24, 24}, 1)}, {random_tensor({2, 3, 30, 24}, 2)}, {random_tensor({1, 3, 24, 24}, 3)}});
}

TEST(Network, ConcatSplitGroupsAndTransposedConvolutions) {
  Net n;
  ValueId x = n.input(DType::f32, {1, 32, 10, 9});
  ValueId a = conv(n, x, 32, 32, 3, 1, 2, false, 1), b = conv(n, x, 32, 16, 1, 1, 1, true, 2),
          k = conv(n, x, 32, 24, 3, 1, 4, true, 8);
  ValueId c = n.op("Concat", {a, b}, {{"axis", int64_t(1)}})[0], d = n.op("Concat", {b, k}, {{"axis", int64_t(1)}})[0];
  auto parts = n.op("Split", {c, n.constant(Tensor::vector<int64_t>({16, 32}))}, {{"axis", int64_t(1)}}, 2);
  ValueId w = n.constant(random_tensor({32, 10, 2, 2}, 4));
  ValueId up = n.op("ConvTranspose", {parts[1], w, n.constant(random_tensor({10}, 5))}, {{"strides", Ints{2, 2}}})[0];
  ValueId scale = n.constant(random_tensor({10}, 6, 0.5, 2)), shift = n.constant(random_tensor({10}, 7));
  ValueId norm = n.op("BatchNormalization", {up, scale, shift, shift, scale})[0];
  n.g.outputs = {n.op("Relu", {norm})[0], n.op("Tanh", {parts[0]})[0], n.op("Neg", {d})[0]};
  compare(n, {{random_tensor({1, 32, 10, 9}, 1)}});
}

TEST(Network, AttentionBlockWithGrowingSequence) {
  Net n;
  Dim s = Dim::symbol("s");
  ValueId x = n.input(DType::f32, {2, s, 48});
  auto linear = [&](ValueId v, int64_t in, int64_t out, uint32_t seed) {
    ValueId y = n.op("MatMul", {v, n.constant(random_tensor({in, out}, seed))})[0];
    return n.op("Add", {n.constant(random_tensor({out}, seed + 1)), y})[0];
  };
  ValueId heads = n.constant(Tensor::vector<int64_t>({0, 0, 4, 12}));
  auto split = [&](ValueId v, Ints perm) {
    return n.op("Transpose", {n.op("Reshape", {v, heads})[0]}, {{"perm", perm}})[0];
  };
  ValueId h =
      n.op("LayerNormalization", {x, n.constant(random_tensor({48}, 20)), n.constant(random_tensor({48}, 21))})[0];
  ValueId q = split(linear(h, 48, 48, 1), {0, 2, 1, 3}), k = split(linear(h, 48, 48, 3), {0, 2, 3, 1}),
          v = split(linear(h, 48, 48, 5), {0, 2, 1, 3});
  ValueId scores = n.op("Div", {n.op("MatMul", {q, k})[0], n.constant(Tensor::scalar<float>(3.5f))})[0];
  ValueId o =
      n.op("Transpose", {n.op("MatMul", {n.op("Softmax", {scores})[0], v})[0]}, {{"perm", Ints{0, 2, 1, 3}}})[0];
  ValueId flat = n.op("Reshape", {o, n.constant(Tensor::vector<int64_t>({0, 0, 48}))})[0];
  ValueId r = n.op("Add", {linear(flat, 48, 48, 7), x})[0];
  ValueId m = linear(n.op("Gelu", {linear(r, 48, 600, 9)})[0], 600, 48, 11);  // deep: several blocks of the sum
  n.g.outputs = {n.op("Add", {m, r})[0]};
  std::vector<std::vector<Tensor>> runs;
  for (int64_t length : {1, 5, 33, 2, 70}) runs.push_back({random_tensor({2, length, 48}, uint32_t(length))});
  compare(n, runs);
}

TEST(Network, GemmThroughReshapes) {
  Net n;
  Dim b = Dim::symbol("b"), s = Dim::symbol("s");
  ValueId x = n.input(DType::f32, {b, s, 40});
  ValueId flat = n.op("Reshape", {x, n.constant(Tensor::vector<int64_t>({-1, 40}))})[0];
  ValueId y = n.op("Gemm", {flat, n.constant(random_tensor({40, 40}, 1)), n.constant(random_tensor({40}, 2))})[0];
  ValueId shape = n.op("Shape", {x})[0];
  ValueId back = n.op("Reshape", {y, shape})[0];
  ValueId z = n.op("Gemm",
                   {n.op("Reshape", {n.op("Add", {back, x})[0], n.constant(Tensor::vector<int64_t>({-1, 40}))})[0],
                    n.constant(random_tensor({30, 40}, 3)), n.constant(random_tensor({1, 30}, 4))},
                   {{"transB", int64_t(1)}})[0];
  n.g.outputs = {n.op("Relu", {z})[0]};
  compare(n, {{random_tensor({1, 1, 40}, 1)}, {random_tensor({3, 7, 40}, 2)}, {random_tensor({2, 100, 40}, 2)}});
}

TEST(Network, ProductsOfAllShapes) {
  struct Case {
    Shape a, b;
    bool constant;
  };
  uint32_t seed = 1;
  for (const Case& c : std::vector<Case>{{{1, 300}, {300, 70}, true},
                                         {{5, 33}, {33, 1}, true},
                                         {{3, 4, 7, 9}, {4, 9, 11}, false},
                                         {{2, 1, 3, 8}, {5, 8, 40}, true},
                                         {{9}, {9, 4}, false},
                                         {{4, 9}, {9}, false},
                                         {{9}, {9}, false},
                                         {{1, 600}, {600, 40}, false},
                                         {{130, 520}, {520, 65}, true},
                                         {{2, 17, 300}, {2, 300, 33}, false}}) {
    Net n;
    ValueId a = n.input(DType::f32, to_dims(c.a));
    std::vector<Tensor> in{random_tensor(c.a, ++seed)};
    Tensor bt = random_tensor(c.b, ++seed);
    ValueId b = c.constant ? n.constant(bt) : n.input(DType::f32, to_dims(c.b));
    if (!c.constant) in.push_back(bt);
    n.g.outputs = {n.op("MatMul", {a, b})[0]};
    compare(n, {in});
  }
}

TEST(Network, DataDependentSizes) {
  Net n;
  ValueId x = n.input(DType::f32, {Dim::symbol("n")});
  ValueId where = n.op("NonZero", {n.op("Relu", {x})[0]})[0];
  ValueId picked = n.op("Gather", {x, where})[0];
  ValueId twice = n.op("Add", {picked, picked})[0];
  n.g.outputs = {n.op("Reshape", {twice, n.constant(Tensor::vector<int64_t>({-1}))})[0], where};
  compare(n, {{Tensor::vector<float>({1, -2, 3})},
              {Tensor::vector<float>({-1, 2, -3})},
              {Tensor::vector<float>({1, 2, 3, 4, -5})}});
}

}  // namespace
}  // namespace ai_vmm::cpu::testing
