#include "passes/pass.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/text.hpp"
#include "ops/op.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {
namespace {

using Ints = std::vector<int64_t>;

// Builds a graph a node at a time and compares it with what the passes make of it.
struct Builder {
  Graph g;
  ValueId input(const char* name, std::vector<Dim> dims, DType dtype = DType::f32) {
    ValueId v = g.add_value(name, Type::tensor(dtype, std::move(dims)));
    g.inputs.push_back(v);
    return v;
  }
  ValueId ints(const Ints& values) { return g.add_constant("ints", Tensor::vector(values)); }
  ValueId scalar(float value) { return g.add_constant("scalar", Tensor::scalar(value)); }
  // A constant with values that differ from element to element.
  ValueId weights(Shape shape, float from = -0.5f) {
    std::vector<float> v(static_cast<size_t>(*element_count(shape)));
    for (size_t k = 0; k < v.size(); ++k) v[k] = from + float((k * 7919) % 101) / 101;
    return g.add_constant("w", Tensor::of<float>(std::move(shape), v));
  }
  ValueId node(std::string_view op, std::vector<ValueId> in, std::vector<Attribute> attributes = {}) {
    ValueId out = g.add_value("y");
    Node& n = g.add_node(op, std::move(in), {out});
    n.attributes = std::move(attributes);
    n.def = find_op("", op);
    return out;
  }
  void output(ValueId v) { g.outputs.push_back(v); }
};

std::string ops_of(const Graph& g) {
  std::vector<std::string> ops;
  for (const Node& n : g.nodes) ops.push_back(n.op);
  return join(ops, " ");
}

// The graph's outputs for inputs made from their shapes; symbols are 2.
std::vector<Tensor> run(const Graph& g) {
  std::vector<Data> slots(g.values.size());
  for (size_t v = 0; v < g.values.size(); ++v)
    if (g.values[v].constant) slots[v] = Data(g.values[v].constant);
  for (ValueId v : g.inputs) {
    Shape shape;
    for (const Dim& d : g.value(v).type.dims) shape.push_back(*d.evaluate([](std::string_view) { return 2; }));
    std::vector<float> values(static_cast<size_t>(*element_count(shape)));
    for (size_t k = 0; k < values.size(); ++k) values[k] = float((k * 7907) % 211) / 50 - 2;
    slots[static_cast<size_t>(v)] = Data(Tensor::of<float>(shape, values));
  }
  Random random;
  for (const Node& node : g.nodes) {
    std::vector<Data> in;
    for (ValueId v : node.inputs) in.push_back(v == kAbsent ? Data() : slots[static_cast<size_t>(v)]);
    auto out = evaluate(node, in, random);
    EXPECT_TRUE(out.ok()) << out.status().message();
    if (!out.ok()) return {};
    for (size_t k = 0; k < node.outputs.size(); ++k)
      if (node.outputs[k] != kAbsent) slots[static_cast<size_t>(node.outputs[k])] = (*out)[k];
  }
  std::vector<Tensor> outputs;
  for (ValueId v : g.outputs) outputs.push_back(slots[static_cast<size_t>(v)].tensor());
  return outputs;
}

// What is left of the graph after all passes (but `disabled`), having checked that it computes the same.
std::string after(Graph& g, std::vector<std::string> disabled = {}) {
  Status s = infer_types(g);
  if (!s.ok()) return s.message();
  std::vector<std::string> names;
  for (ValueId v : g.outputs) names.push_back(g.value(v).name);
  auto before = run(g);
  auto reports = run_passes(g, disabled);
  if (!reports.ok()) return reports.status().message();
  for (size_t k = 0; k < names.size(); ++k) EXPECT_EQ(g.value(g.outputs[k]).name, names[k]);
  auto now = run(g);
  EXPECT_EQ(before.size(), now.size());
  for (size_t k = 0; k < before.size() && k < now.size(); ++k) {
    EXPECT_EQ(before[k].dtype(), now[k].dtype());
    EXPECT_EQ(before[k].shape(), now[k].shape());
    auto a = ref::load<double>(before[k]), b = ref::load<double>(now[k]);
    double scale = 1e-30;
    for (double v : a) scale = std::max(scale, std::fabs(v));
    for (size_t i = 0; i < a.size() && i < b.size(); ++i)
      EXPECT_NEAR(a[i], b[i], 1e-5 * scale) << ops_of(g) << " element " << i;
  }
  return ops_of(g);
}

TEST(Passes, UnknownNamesAreErrors) {
  Graph g;
  std::vector<std::string> names = {"simplfy"};
  auto r = run_passes(g, names);
  ASSERT_FALSE(r.ok());
  EXPECT_NE(r.status().message().find("\"simplify\""), std::string::npos);
  names = {"simplify"};
  r = run_passes(g, names);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ((*r).size(), all_passes().size() - 1);
}

TEST(Passes, ConstantsAndSizesFold) {
  Builder b;
  ValueId x = b.input("x", {Dim::symbol("N"), 6, 4});
  ValueId shape = b.node("Shape", {x});
  ValueId n = b.node("Gather", {shape, b.g.add_constant("i", Tensor::scalar<int64_t>(0))});
  ValueId rest = b.node("Mul", {b.node("Gather", {shape, b.g.add_constant("i", Tensor::scalar<int64_t>(1))}),
                                b.g.add_constant("c", Tensor::scalar<int64_t>(4))});
  ValueId target = b.node("Concat", {b.node("Unsqueeze", {n, b.ints({0})}), b.node("Unsqueeze", {rest, b.ints({0})})},
                          {{"axis", int64_t{0}}});
  ValueId y = b.node("Reshape", {x, target});
  ValueId w = b.node("Transpose", {b.weights({3, 24})}, {{"perm", Ints{1, 0}}});
  b.output(b.node("MatMul", {y, w}));
  std::string left = after(b.g);
  EXPECT_EQ(left.find("Transpose"), std::string::npos) << left;
  EXPECT_EQ(left.find("Mul "), std::string::npos) << left;
}

TEST(Passes, GraphOutputsKeepTheirNames) {
  Builder b;
  ValueId x = b.input("x", {2, 3});
  ValueId r = b.node("Relu", {x});
  ValueId other = b.node("Neg", {r});
  b.output(b.node("Identity", {r}));  // takes the place of r
  b.output(other);
  b.output(b.node("Identity", {x}));       // an input cannot be renamed
  b.output(b.node("Neg", {b.scalar(3)}));  // becomes a constant
  EXPECT_EQ(after(b.g), "Relu Neg Identity");
}

TEST(Passes, NoOps) {
  Builder b;
  ValueId x = b.input("x", {Dim::symbol("N"), 3, 4});
  ValueId v = b.node("Dropout", {x});
  v = b.node("Cast", {v}, {{"to", int64_t(DType::f32)}});
  v = b.node("Transpose", {b.node("Transpose", {v}, {{"perm", Ints{1, 2, 0}}})}, {{"perm", Ints{2, 0, 1}}});
  v = b.node("Squeeze", {b.node("Unsqueeze", {v, b.ints({0})}), b.ints({0})});
  v = b.node("Slice", {v, b.ints({0}), b.ints({INT64_MAX}), b.ints({1})});
  v = b.node("Add", {v, b.scalar(0)});
  v = b.node("Mul", {b.scalar(1), v});
  v = b.node("Reshape", {v, b.node("Shape", {x})});
  b.output(b.node("Sum", {b.node("Relu", {v}), x}));
  EXPECT_EQ(after(b.g), "Relu Add");
}

TEST(Passes, NotNoOps) {
  Builder b;
  ValueId x = b.input("x", {1, 3});
  ValueId v = b.node("Slice", {x, b.ints({-1}), b.ints({INT64_MIN}), b.ints({1}), b.ints({-1})});  // a reversal
  v = b.node("Pad", {v, b.ints({0, 1, 0, -1})});                                                   // a shift
  v = b.node("Add", {v, b.g.add_constant("zeros", Tensor::of<float>({2, 1}, {0, 0}))});            // a broadcast
  v = b.node("Sub", {b.scalar(0), v});
  b.output(v);
  EXPECT_EQ(after(b.g), "Slice Pad Add Sub");
}

TEST(Passes, DuplicatesMergeButRandomOnesDoNot) {
  Builder b;
  ValueId x = b.input("x", {2, 3});
  ValueId a = b.node("Softmax", {x}, {{"axis", int64_t{1}}});
  ValueId c = b.node("Softmax", {x}, {{"axis", int64_t{1}}});
  ValueId d = b.node("Softmax", {x}, {{"axis", int64_t{0}}});
  b.output(b.node("Sub", {b.node("Sub", {a, c}), d}));
  EXPECT_EQ(after(b.g), "Softmax Softmax Sub Sub");

  Builder r;
  ValueId like = r.input("x", {2, 3});
  r.output(r.node("Sub", {r.node("RandomNormalLike", {like}), r.node("RandomNormalLike", {like})}));
  ASSERT_TRUE(infer_types(r.g).ok());
  ASSERT_TRUE(run_passes(r.g).ok());
  EXPECT_EQ(ops_of(r.g), "RandomNormalLike RandomNormalLike Sub");
}

TEST(Passes, BodiesAreWorkedOnAndCapturesPruned) {
  Graph g;
  ValueId c = g.add_value("c", Type::tensor(DType::boolean, std::vector<Dim>{}));
  ValueId x = g.add_value("x", Type::tensor(DType::f32, {2})), k = g.add_constant("k", Tensor::scalar(2.f)),
          y = g.add_value("y");
  ValueId dead = g.add_value("dead");
  g.inputs = {c, x};
  g.outputs = {y};
  g.add_node("Neg", {x}, {dead}).def = find_op("", "Neg");
  Node& node = g.add_node("If", {c}, {y});
  node.def = find_op("", "If");
  for (const char* branch : {"then_branch", "else_branch"}) {
    auto body = std::make_shared<Graph>();
    ValueId in = body->add_value("x"), two = body->add_value("k"), unread = body->add_value("dead");
    ValueId four = body->add_value("four"), nobody = body->add_value("nobody"), out = body->add_value("out");
    body->captures = {in, two, unread};
    body->outputs = {out};
    body->add_node("Mul", {two, two}, {four}).def = find_op("", "Mul");
    body->add_node("Abs", {unread}, {nobody}).def = find_op("", "Abs");
    body->add_node("Mul", {in, four}, {out}).def = find_op("", "Mul");
    node.bodies.push_back({branch, body, {x, k, dead}});
  }
  ASSERT_TRUE(infer_types(g).ok());
  auto reports = run_passes(g);
  ASSERT_TRUE(reports.ok()) << reports.status().message();
  EXPECT_EQ(ops_of(g), "If");
  for (const Body& b : g.nodes[0].bodies) {
    EXPECT_EQ(ops_of(*b.graph), "Mul");
    EXPECT_EQ(b.captures, std::vector<ValueId>{g.find("x")});
  }
}

TEST(Passes, ReshapeTargetsBecomeConstants) {
  auto target_of = [](const Graph& g) {
    for (const Node& n : g.nodes)
      if (n.op == "Reshape" && g.is_constant(n.inputs[1])) return ref::ints(g.value(n.inputs[1]).constant);
    return Ints{-999};
  };
  auto build = [](std::vector<Dim> dims,
                  std::vector<std::pair<int, int64_t>> parts) {  // (axis of x, or -1 for the number)
    Builder b;
    ValueId x = b.node("Neg", {b.input("x", std::move(dims))}), shape = b.node("Shape", {x});
    std::vector<ValueId> elements;
    for (auto [axis, number] : parts)
      elements.push_back(axis < 0 ? b.ints({number})
                                  : b.node("Mul", {b.node("Gather", {shape, b.ints({axis})}), b.ints({number})}));
    b.output(b.node("Reshape", {x, b.node("Concat", elements, {{"axis", int64_t{0}}})}));
    return b;
  };
  const Dim n = Dim::symbol("N"), s = Dim::symbol("S");
  Builder heads = build({n, s, 12}, {{0, 1}, {1, 1}, {-1, 3}, {-1, 4}});
  EXPECT_EQ(after(heads.g), "Neg Reshape");
  EXPECT_EQ(target_of(heads.g), Ints({0, 0, 3, 4}));
  Builder flat = build({n, s, 12}, {{-1, -1}, {-1, 12}});
  EXPECT_EQ(after(flat.g), "Neg Reshape");
  EXPECT_EQ(target_of(flat.g), Ints({-1, 12}));
  Builder scaled = build({n, 4, 6}, {{0, 2}, {-1, 12}});
  EXPECT_EQ(after(scaled.g), "Neg Reshape");
  EXPECT_EQ(target_of(scaled.g), Ints({-1, 12}));
  Builder beside = build({n, s, 6}, {{0, 1}, {1, 2}, {-1, 3}});  // -1 beside N, which may be 0
  EXPECT_NE(after(beside.g), "Neg Reshape");
  Builder swapped = build({n, s}, {{1, 1}, {0, 1}});
  EXPECT_NE(after(swapped.g), "Neg Reshape");
}

TEST(Passes, OldSoftmaxComesBack) {
  Builder b;
  ValueId x = b.input("x", {Dim::symbol("N"), 3, 5});
  ValueId s = b.node("Softmax", {b.node("Flatten", {x}, {{"axis", int64_t{2}}})}, {{"axis", int64_t{-1}}});
  b.output(b.node("Reshape", {s, b.node("Shape", {x})}));
  ValueId z = b.input("z", {Dim::symbol("N"), 3, 1, 1});
  s = b.node("LogSoftmax", {b.node("Flatten", {z}, {{"axis", int64_t{1}}})}, {{"axis", int64_t{-1}}});
  b.output(b.node("Reshape", {s, b.node("Shape", {z})}));
  ValueId w = b.input("w", {Dim::symbol("N"), 3, 2});
  s = b.node("Softmax", {b.node("Flatten", {w}, {{"axis", int64_t{1}}})}, {{"axis", int64_t{-1}}});
  b.output(b.node("Reshape", {s, b.node("Shape", {w})}));
  std::string left = after(b.g);
  EXPECT_EQ(left.rfind("Softmax LogSoftmax ", 0), 0u) << left;
  EXPECT_NE(left.find("Flatten"), std::string::npos) << "two wide dimensions stay a matrix: " << left;
}

TEST(Passes, ArithmeticGoesIntoWeights) {
  Builder b;
  ValueId x = b.input("x", {Dim::symbol("N"), 3, 6, 6});
  ValueId v = b.node("Pad", {x, b.ints({0, 0, 1, 1, 0, 0, 1, 1})});
  v = b.node("Conv", {v, b.weights({4, 3, 3, 3})});
  v = b.node("BatchNormalization", {v, b.weights({4}), b.weights({4}), b.weights({4}), b.weights({4}, 0.5f)});
  v = b.node("Mul", {b.weights({4, 1, 1}), v});
  v = b.node("Sub", {v, b.weights({1, 4, 1, 1})});
  v = b.node("Div", {v, b.scalar(3)});
  v = b.node("Relu", {v});
  v = b.node("ConvTranspose", {v, b.weights({4, 5, 2, 2}), b.weights({5})});
  v = b.node("Add", {v, b.weights({5, 1, 1})});
  b.output(v);
  EXPECT_EQ(after(b.g), "Conv Relu ConvTranspose");
  EXPECT_EQ(b.g.nodes[0].ints("pads"), Ints({1, 1, 1, 1}));
}

TEST(Passes, MatrixProducts) {
  Builder b;
  ValueId x = b.input("x", {Dim::symbol("N"), 3});
  ValueId v = b.node("Gemm", {x, b.weights({4, 3})}, {{"transB", int64_t{1}}});
  v = b.node("BatchNormalization", {v, b.weights({4}), b.weights({4}), b.weights({4}), b.weights({4}, 0.5f)});
  v = b.node("MatMul", {v, b.weights({4, 2})});
  v = b.node("Mul", {v, b.weights({2})});
  b.output(v);
  EXPECT_EQ(after(b.g), "Gemm MatMul");
}

TEST(Passes, BatchNormalizationTakesWhatFollows) {
  Builder b;
  ValueId x = b.input("x", {Dim::symbol("N"), 4, 3, 3});
  ValueId v = b.node("BatchNormalization", {x, b.weights({4}), b.weights({4}), b.weights({4}), b.weights({4}, 0.5f)});
  v = b.node("Add", {b.node("Mul", {v, b.weights({4, 1, 1})}), b.weights({4, 1, 1})});
  b.output(b.node("BatchNormalization", {v, b.weights({4}), b.weights({4}), b.weights({4}), b.weights({4}, 0.5f)}));
  EXPECT_EQ(after(b.g), "BatchNormalization");
}

TEST(Passes, WhatMustNotGoIntoWeights) {
  Builder b;
  ValueId x = b.input("x", {2, 3, 4, 4});
  ValueId conv = b.node("Conv", {x, b.weights({4, 3, 1, 1})});
  b.output(b.node("Mul", {conv, b.weights({4})}));  // along the last axis, not the channels
  b.output(b.node("Add", {conv, b.scalar(1)}));     // conv has two readers
  ValueId small = b.node("Conv", {b.input("z", {1, 3, 1, 1}), b.weights({4, 3, 1, 1})});
  b.output(b.node("Add", {small, b.weights({4, 1, 2})}));  // a broadcast that grows the output
  ValueId div = b.node("Conv", {b.input("u", {1, 3, 2, 2}), b.weights({4, 3, 1, 1}, 1)});
  b.output(b.node("Div", {b.scalar(1), div}));  // not linear
  EXPECT_EQ(after(b.g), "Conv Mul Add Conv Add Conv Div");
}

ValueId layer_norm(Builder& b, ValueId x, bool twice) {
  ValueId mean = b.node("ReduceMean", {x, b.ints({-1})});
  ValueId d = b.node("Sub", {x, mean});
  ValueId e = twice ? b.node("Sub", {x, mean}) : d;
  ValueId variance = b.node("ReduceMean", {b.node("Pow", {e, b.scalar(2)}), b.ints({-1})});
  return b.node("Div", {d, b.node("Sqrt", {b.node("Add", {variance, b.scalar(1e-5f)})})});
}

TEST(Passes, LayerNormalizationIsRecognised) {
  for (bool twice : {false, true}) {
    Builder b;
    ValueId x = b.input("x", {Dim::symbol("N"), 3, 8});
    ValueId n = layer_norm(b, x, twice);
    b.output(b.node("Add", {b.weights({8}), b.node("Mul", {n, b.weights({8})})}));
    EXPECT_EQ(after(b.g), "LayerNormalization");
    EXPECT_EQ(b.g.nodes[0].i("axis"), 2);
  }
  Builder b;  // scale over another axis
  ValueId x = b.input("x", {2, 8, 8});
  b.output(b.node("Add", {b.weights({8, 1}), b.node("Mul", {layer_norm(b, x, false), b.weights({8, 1})})}));
  EXPECT_EQ(after(b.g).find("LayerNormalization"), std::string::npos);
}

TEST(Passes, RmsNormalizationIsRecognised) {
  Builder b;
  ValueId x = b.input("x", {Dim::symbol("N"), 8});
  ValueId mean = b.node("ReduceMean", {b.node("Mul", {x, x}), b.ints({-1})});
  ValueId inverse = b.node("Reciprocal", {b.node("Sqrt", {b.node("Add", {mean, b.scalar(1e-6f)})})});
  b.output(b.node("Mul", {b.weights({8}), b.node("Mul", {x, inverse})}));
  EXPECT_EQ(after(b.g), "RMSNormalization");
}

TEST(Passes, GatesAreRecognised) {
  auto check = [](const char* expected, auto build) {
    Builder b;
    ValueId x = b.node("Neg", {b.input("x", {Dim::symbol("N"), 50})});
    b.output(build(b, x));
    EXPECT_EQ(after(b.g), std::string("Neg ") + expected);
  };
  auto erf = [](Builder& b, ValueId x) {
    return b.node("Add", {b.node("Erf", {b.node("Div", {x, b.scalar(1.41421356f)})}), b.scalar(1)});
  };
  check("Gelu", [&](Builder& b, ValueId x) { return b.node("Mul", {b.node("Mul", {x, erf(b, x)}), b.scalar(0.5f)}); });
  check("Gelu", [&](Builder& b, ValueId x) { return b.node("Mul", {b.node("Mul", {x, b.scalar(0.5f)}), erf(b, x)}); });
  check("Gelu", [](Builder& b, ValueId x) {
    ValueId cubic = b.node("Mul", {b.node("Pow", {x, b.scalar(3)}), b.scalar(0.044715f)});
    ValueId t = b.node("Tanh", {b.node("Mul", {b.node("Add", {x, cubic}), b.scalar(0.79788456f)})});
    return b.node("Mul", {b.node("Mul", {x, b.scalar(0.5f)}), b.node("Add", {t, b.scalar(1)})});
  });
  check("Gelu", [](Builder& b, ValueId x) {
    ValueId inner = b.node("Add", {b.node("Mul", {b.node("Mul", {x, x}), b.scalar(0.044715f)}), b.scalar(1)});
    ValueId t = b.node("Tanh", {b.node("Mul", {b.node("Mul", {x, b.scalar(0.79788456f)}), inner})});
    return b.node("Mul", {b.node("Mul", {b.scalar(0.5f), x}), b.node("Add", {b.scalar(1), t})});
  });
  check("Swish", [](Builder& b, ValueId x) { return b.node("Mul", {x, b.node("Sigmoid", {x})}); });
  check("Swish", [](Builder& b, ValueId x) {
    return b.node("Mul", {b.node("Sigmoid", {b.node("Mul", {x, b.scalar(1.702f)})}), x});
  });
  check("HardSwish", [](Builder& b, ValueId x) {
    return b.node("Mul", {x, b.node("HardSigmoid", {x}, {{"alpha", 1.f / 6}})});
  });
  check("HardSwish", [](Builder& b, ValueId x) {
    ValueId clip = b.node("Clip", {b.node("Add", {x, b.scalar(3)}), b.scalar(0), b.scalar(6)});
    return b.node("Div", {b.node("Mul", {x, clip}), b.scalar(6)});
  });
  check("Mish", [](Builder& b, ValueId x) { return b.node("Mul", {x, b.node("Tanh", {b.node("Softplus", {x})})}); });
  check("Erf Add Mul Mul", [&](Builder& b, ValueId x) {  // another constant under erf
    ValueId e = b.node("Add", {b.node("Erf", {x}), b.scalar(1)});
    return b.node("Mul", {b.node("Mul", {x, e}), b.scalar(0.5f)});
  });
}

TEST(Passes, AConstantBranchIsInlined) {
  for (bool condition : {true, false}) {
    Graph g;
    ValueId c = g.add_constant("c", Tensor::of<bool>({}, {condition}));
    ValueId x = g.add_value("x", Type::tensor(DType::f32, {2, 3})), y = g.add_value("y"), z = g.add_value("z");
    g.inputs = {x};
    g.outputs = {y, z};
    Node& node = g.add_node("If", {c}, {y, z});
    node.def = find_op("", "If");
    for (const char* op : {"Neg", "Abs"}) {
      auto body = std::make_shared<Graph>();
      ValueId in = body->add_value("x", Type::tensor(DType::f32, {2, 3})), out = body->add_value("y");
      body->captures = {in};
      body->outputs = {out, in};
      body->add_node(op, {in}, {out}).def = find_op("", op);
      node.bodies.push_back({node.bodies.empty() ? "then_branch" : "else_branch", body, {x}});
    }
    ASSERT_TRUE(infer_types(g).ok());
    ASSERT_TRUE(run_passes(g).ok());
    EXPECT_EQ(ops_of(g), condition ? "Neg Identity" : "Abs Identity");
  }
}

TEST(Passes, HugeConstantsAreNotMade) {
  Builder b;
  ValueId x = b.input("x", {1});
  ValueId big = b.node("Expand", {b.scalar(1), b.ints({1024, 1024, 64})});
  b.output(b.node("ReduceSum",
                  {b.node("Add", {x, b.node("Gather", {big, b.g.add_constant("i", Tensor::scalar<int64_t>(0))})})}));
  ASSERT_TRUE(infer_types(b.g).ok());
  ASSERT_TRUE(run_passes(b.g).ok());
  EXPECT_EQ(b.g.nodes[0].op, "Expand");
}

TEST(Passes, ManySmallConstantsDoNotAddUp) {
  Builder b;
  ValueId sum = b.input("x", {1});
  for (int k = 0; k < 64; ++k) {  // 15 MiB each
    ValueId big = b.node("ConstantOfShape", {b.ints({15 << 18})}, {{"value", Tensor::vector<float>({float(k)})}});
    sum = b.node("Add", {sum, b.node("Gather", {big, b.ints({k})})});
  }
  b.output(sum);
  ASSERT_TRUE(infer_types(b.g).ok());
  std::vector<std::string> disabled = {"merge_duplicates", "dead_code"};
  ASSERT_TRUE(run_passes(b.g, disabled).ok());
  int64_t bytes = 0;
  for (const Value& v : b.g.values) bytes += v.constant ? v.constant.bytes() : 0;
  EXPECT_LT(bytes, int64_t{600} << 20);
}

TEST(Passes, EveryPassCanBeDisabled) {
  for (const Pass& pass : all_passes()) {
    Builder b;
    ValueId x = b.input("x", {Dim::symbol("N"), 3, 6, 8});
    ValueId v = b.node("Conv", {x, b.weights({4, 3, 1, 1})});
    v = b.node("BatchNormalization", {v, b.weights({4}), b.weights({4}), b.weights({4}), b.weights({4}, 0.5f)});
    v = b.node("Mul", {b.node("Identity", {v}), b.node("Sigmoid", {v})});
    v = b.node("Reshape", {v, b.node("Mul", {b.node("Shape", {v}), b.ints({1, 1, 1, 1})})});
    b.output(v);
    std::string all = after(b.g, {pass.name});
    EXPECT_EQ(all.rfind("Conv", 0), 0u) << pass.name << ": " << all;
  }
}

// Random graphs of the operators that passes touch, with several outputs, compute what they computed before.
TEST(Passes, RandomGraphsKeepTheirMeaning) {
  uint64_t changed = 0;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    Random random;
    random.state = seed * 0x9e3779b97f4a7c15ull;
    auto pick = [&](size_t n) { return static_cast<size_t>(random.next() % n); };
    Builder b;
    std::vector<ValueId> values = {b.input("x", {Dim::symbol("N"), 3, 4}), b.input("y", {Dim::symbol("N"), 3, 4}),
                                   b.weights({3, 4})};
    for (int step = 0; step < 14; ++step) {
      // Types of what there is, to choose what fits.
      if (!infer_types(b.g).ok()) FAIL() << "seed " << seed;
      ValueId x = values[values.size() - 1 - pick(std::min<size_t>(values.size(), 4))];
      const Type t = b.g.value(x).type;
      auto rank = static_cast<int64_t>(t.dims.size());
      auto shape = t.shape();
      ValueId y = kAbsent;
      switch (pick(20)) {
        case 0: y = b.node("Neg", {x}); break;
        case 1: y = b.node("Identity", {x}); break;
        case 2: y = b.node("Sigmoid", {x}); break;
        case 3: y = b.node("Mul", {x, b.node("Sigmoid", {x})}); break;
        case 4: y = b.node(pick(2) ? "Add" : "Mul", {x, b.scalar(float(pick(3)))}); break;
        case 5: y = b.node(pick(2) ? "Sub" : "Div", {x, b.scalar(float(1 + pick(2)))}); break;
        case 6: y = b.node("Add", {b.scalar(0), x}); break;
        case 7:
          for (ValueId other : values)
            if (b.g.value(other).type.dims == t.dims && (other != x || pick(2)))
              y = b.node(pick(2) ? "Add" : "Sum", {x, other});
          break;
        case 8:
          if (rank >= 2) {
            Ints perm;
            for (int64_t k = 0; k < rank; ++k)
              perm.insert(perm.begin() + static_cast<std::ptrdiff_t>(pick(perm.size() + 1)), k);
            y = b.node("Transpose", {x}, {{"perm", perm}});
          }
          break;
        case 9: y = b.node("Reshape", {x, b.node("Shape", {x})}); break;
        case 10: y = b.node("Reshape", {b.node("Reshape", {x, b.ints({-1})}), b.node("Shape", {x})}); break;
        case 11:
          y = b.node("Unsqueeze", {x, b.ints({static_cast<int64_t>(pick(static_cast<size_t>(rank) + 1))})});
          break;
        case 12:
          if (rank && t.dims[0].is(1)) y = b.node("Squeeze", {x, b.ints({0})});
          break;
        case 13:
          if (rank) y = b.node("Softmax", {x}, {{"axis", int64_t{-1}}});
          break;
        case 14:
          if (rank) y = b.node("ReduceMean", {x, b.ints({-1})});
          break;
        case 15:
          if (rank)
            y = b.node("Slice", {x, b.ints({0}), b.ints({pick(2) ? INT64_MAX : int64_t{2}}), b.ints({rank - 1})});
          break;
        case 16:
          y = b.node("Pad", {x, b.ints(Ints(static_cast<size_t>(2 * rank), static_cast<int64_t>(pick(2))))});
          break;
        case 17:
          if (rank) y = b.node("Expand", {x, b.node("Shape", {x})});
          break;
        case 18:
          if (rank >= 2 && t.dims[1].is_constant() && *t.dims[1].constant() > 0) {
            int64_t c = *t.dims[1].constant();
            y = b.node("BatchNormalization", {x, b.weights({c}), b.weights({c}), b.weights({c}), b.weights({c}, 1)});
          }
          break;
        default:
          if (rank == 3 && t.dims[1].is(3)) y = b.node("Conv", {x, b.weights({3, 3, 1}), b.weights({3})});
      }
      if (y != kAbsent && rank < 6) values.push_back(y);
    }
    for (size_t k = 0; k < 1 + pick(3); ++k)
      b.output(values[values.size() - 1 - pick(std::min<size_t>(values.size(), 5))]);
    std::sort(b.g.outputs.begin(), b.g.outputs.end());
    b.g.outputs.erase(std::unique(b.g.outputs.begin(), b.g.outputs.end()), b.g.outputs.end());
    std::string before = ops_of(b.g), left = after(b.g);
    changed += before != left;
    if (HasFailure()) FAIL() << "seed " << seed << ": " << before << "\n  became " << left;
  }
  EXPECT_GT(changed, 300u);
}

}  // namespace
}  // namespace ai_vmm
