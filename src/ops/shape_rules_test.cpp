// Shape rules against reference semantics: with every size a symbol, the inferred sizes must evaluate to those of the
// tensors that the operator makes.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "ops/op.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {
namespace {

std::mt19937 rng(20240611);
int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); }
Shape random_shape(int64_t rank, int64_t low = 0) {
  Shape s;
  for (int64_t i = 0; i < rank; ++i) s.push_back(pick(low, 5));
  return s;
}
Tensor iota_tensor(const Shape& shape) {
  std::vector<float> v(size_t(*element_count(shape)));
  for (size_t i = 0; i < v.size(); ++i) v[i] = float(i);
  return Tensor::of<float>(shape, v);
}
Tensor ints(const std::vector<int64_t>& v) { return Tensor::vector<int64_t>(v); }

enum class Known { constant, symbolic, no };  // what inference is told of an integer vector

struct Case {
  Node node;
  std::vector<Tensor> inputs;
  int outputs = 1;
  Case(const char* op, std::vector<Tensor> in) : inputs(std::move(in)) {
    node.op = op;
    node.def = find_op("", op);
  }
};

// Runs the case and checks every output size that inference states. Returns how many it stated.
int check(const Case& c, Known known) {
  Graph g;
  std::map<std::string, int64_t, std::less<>> bound;
  std::vector<Data> args;
  Node node = c.node;
  for (size_t k = 0; k < c.inputs.size(); ++k) {
    const Tensor& t = c.inputs[k];
    std::vector<Dim> dims;
    bool vector = t.dtype() == DType::i64;
    for (int64_t a = 0; a < t.rank(); ++a) {
      std::string name = "s" + std::to_string(k) + "_" + std::to_string(a);
      bound[name] = t.dim(a);
      dims.push_back(vector ? Dim(t.dim(a)) : Dim::symbol(name));
    }
    ValueId v = g.add_value("x" + std::to_string(k), Type::tensor(t.dtype(), dims));
    if (vector && known == Known::constant) g.value(v).constant = t;
    if (vector && known == Known::symbolic) {
      std::vector<Dim> elements;
      for (int64_t i = 0; i < t.count(); ++i) {
        int64_t e = t.as<int64_t>()[size_t(i)];
        std::string name = "e" + std::to_string(k) + "_" + std::to_string(i);
        bound[name] = e < 0 ? -e : e;
        elements.push_back(e < 0 ? Dim(0) - Dim::symbol(name) : Dim::symbol(name));
      }
      g.value(v).ints = elements;
    }
    g.inputs.push_back(v);
    node.inputs.push_back(v);
    args.emplace_back(t);
  }
  for (int k = 0; k < c.outputs; ++k) node.outputs.push_back(g.add_value("y" + std::to_string(k)));
  g.nodes.push_back(node);
  Status inferred = infer_types(g);
  Random random;
  auto made = evaluate(node, args, random);
  if (!made.ok()) return 0;  // refused at run time; whether inference foresaw it does not matter
  EXPECT_TRUE(inferred.ok()) << inferred.message();
  if (!inferred.ok()) return 0;
  int stated = 0;
  for (int k = 0; k < c.outputs; ++k) {
    const Type& type = g.value(node.outputs[size_t(k)]).type;
    const Tensor& y = (*made)[size_t(k)].tensor();
    EXPECT_EQ(type.dtype, y.dtype());
    if (!type.ranked) continue;
    EXPECT_EQ(type.rank(), y.rank()) << c.node.op << " " << type.to_string() << " made " << to_string(y.shape());
    if (type.rank() != y.rank()) continue;
    auto lookup = [&](std::string_view s) -> std::optional<int64_t> {
      auto it = bound.find(s);
      return it == bound.end() ? std::nullopt : std::optional(it->second);
    };
    for (size_t a = 0; a < type.dims.size(); ++a)
      if (auto n = type.dims[a].evaluate(lookup)) {
        ++stated;
        EXPECT_EQ(*n, y.shape()[a]) << c.node.op << " axis " << a << " of " << type.to_string();
      }
    if (const auto& known_ints = g.value(node.outputs[size_t(k)]).ints) {
      auto v = ref::ints(y);
      EXPECT_EQ(known_ints->size(), v.size()) << c.node.op;
      for (size_t i = 0; i < v.size() && i < known_ints->size(); ++i)
        EXPECT_EQ((*known_ints)[i].evaluate(lookup).value_or(v[i]), v[i]) << c.node.op;
    }
  }
  return stated;
}
int check_all(const Case& c) { return check(c, Known::constant) + check(c, Known::symbolic) + check(c, Known::no); }

TEST(ShapeRules, Slice) {
  int stated = 0;
  for (int i = 0; i < 4000; ++i) {
    int64_t rank = pick(1, 3), n = pick(1, rank);
    auto bound = [] {
      int64_t far[] = {INT64_MAX, INT64_MIN, INT32_MAX, INT32_MIN, -INT32_MAX};
      return pick(0, 5) == 0 ? far[pick(0, 4)] : pick(-7, 7);
    };
    std::vector<int64_t> starts, ends, axes, steps;
    for (int64_t a = 0; a < n; ++a) {
      starts.push_back(bound());
      ends.push_back(bound());
      axes.push_back(pick(0, 1) ? a : a - rank);
      int64_t s = pick(-3, 3);
      steps.push_back(s ? s : 1);
    }
    Case c("Slice", {iota_tensor(random_shape(rank)), ints(starts), ints(ends), ints(axes), ints(steps)});
    // INT64_MIN has no symbol of opposite sign.
    bool symbols = std::find(starts.begin(), starts.end(), INT64_MIN) == starts.end() &&
                   std::find(ends.begin(), ends.end(), INT64_MIN) == ends.end();
    stated += check(c, Known::constant) + check(c, Known::no) + (symbols ? check(c, Known::symbolic) : 0);
  }
  EXPECT_GT(stated, 4000);
}

TEST(ShapeRules, SliceWithSymbolicBoundsAndConstantAxes) {
  for (int i = 0; i < 2000; ++i) {
    int64_t d = pick(0, 6), s = pick(-8, 8), f = pick(-8, 8), step = pick(0, 1) ? pick(1, 3) : -pick(1, 3);
    Graph g;
    ValueId x = g.add_value("x", Type::tensor(DType::f32, {Dim::symbol("N")})),
            a = g.add_value("a", Type::tensor(DType::i64, {Dim(1)})),
            b = g.add_value("b", Type::tensor(DType::i64, {Dim(1)})), axes = g.add_constant("axes", ints({0})),
            steps = g.add_constant("steps", ints({step})), y = g.add_value("y");
    // The sign of N + p is not known to the rule.
    g.value(a).ints = std::vector<Dim>{Dim::symbol("N") + Dim(s - d)};
    g.value(b).ints = std::vector<Dim>{Dim::symbol("N") + Dim(f - d)};
    g.inputs = {x, a, b};
    g.add_node("Slice", {x, a, b, axes, steps}, {y}).def = find_op("", "Slice");
    ASSERT_TRUE(infer_types(g).ok());
    Random random;
    std::vector<Data> args{iota_tensor({d}), ints({s}), ints({f}), ints({0}), ints({step})};
    auto made = evaluate(g.nodes[0], args, random);
    ASSERT_TRUE(made.ok());
    auto n = g.value(y).type.dims[0].evaluate([&](std::string_view) { return std::optional(d); });
    ASSERT_TRUE(n.has_value());
    EXPECT_EQ(*n, (*made)[0].tensor().dim(0))
        << "N=" << d << " start " << s << " end " << f << " step " << step << ": " << g.value(y).type.to_string();
  }
}

TEST(ShapeRules, ReshapeAndItsKin) {
  int stated = 0;
  for (int i = 0; i < 1500; ++i) {
    int64_t rank = pick(0, 4);
    Shape shape = random_shape(rank, pick(0, 3) ? 1 : 0);
    // A target that fits: the sizes in another grouping, one of them -1 or 0 at times.
    std::vector<int64_t> target;
    for (int64_t d : shape)
      if (!target.empty() && pick(0, 2) == 0)
        target.back() *= d;
      else
        target.push_back(d);
    if (!target.empty() && pick(0, 1)) target[size_t(pick(0, int64_t(target.size()) - 1))] = -1;
    Case reshape("Reshape", {iota_tensor(shape), ints(target)});
    stated += check(reshape, Known::constant) + check(reshape, Known::no);
    reshape.node.set("allowzero", int64_t(1));
    stated += check(reshape, Known::constant);

    Case flatten("Flatten", {iota_tensor(shape)});
    flatten.node.set("axis", pick(-rank, rank));
    stated += check_all(flatten);
    Case transpose("Transpose", {iota_tensor(shape)});
    stated += check_all(transpose);
    std::vector<int64_t> axes;
    for (int64_t a = 0; a < rank; ++a)
      if (shape[size_t(a)] == 1 && pick(0, 1)) axes.push_back(pick(0, 1) ? a : a - rank);
    stated +=
        check_all(Case("Squeeze", {iota_tensor(shape), ints(axes)})) + check_all(Case("Squeeze", {iota_tensor(shape)}));
    stated += check_all(Case("Unsqueeze", {iota_tensor(shape), ints({pick(0, rank)})}));
    std::vector<int64_t> wide = random_shape(pick(0, 4), 1), repeats;
    for (int64_t a = 0; a < rank; ++a) repeats.push_back(pick(0, 3));
    stated += check_all(Case("Expand", {iota_tensor(shape), ints(wide)})) +
              check_all(Case("Tile", {iota_tensor(shape), ints(repeats)}));
    stated += check_all(Case("Shape", {iota_tensor(shape)})) + check_all(Case("Size", {iota_tensor(shape)}));
  }
  EXPECT_GT(stated, 10000);
}

TEST(ShapeRules, CuttingAndJoining) {
  int stated = 0;
  for (int i = 0; i < 1500; ++i) {
    int64_t rank = pick(1, 3), axis = pick(0, rank - 1);
    Shape shape = random_shape(rank, 1), other = shape;
    other[size_t(axis)] = pick(0, 4);
    Case concat("Concat", {iota_tensor(shape), iota_tensor(other)});
    concat.node.set("axis", pick(0, 1) ? axis : axis - rank);
    stated += check_all(concat);
    int64_t first = pick(0, shape[size_t(axis)]);
    Case split("Split", {iota_tensor(shape), ints({first, shape[size_t(axis)] - first})});
    split.outputs = 2;
    split.node.set("axis", axis);
    stated += check_all(split);
    Case parts("Split", {iota_tensor(shape)});
    parts.outputs = int(pick(1, 4));
    parts.node.set("axis", axis);
    parts.node.set("num_outputs", int64_t(parts.outputs));
    stated += check_all(parts);
    std::vector<int64_t> pads, target;
    for (int64_t k = 0; k < 2 * rank; ++k) pads.push_back(pick(-1, 3));
    for (int64_t k = 0; k < rank; ++k) target.push_back(pick(0, 7));
    static constexpr const char* kModes[] = {"constant", "edge", "reflect", "wrap"};
    Case pad("Pad", {iota_tensor(shape), ints(pads)});
    pad.node.set("mode", std::string(kModes[pick(0, 3)]));
    stated += check_all(pad);
    stated += check_all(Case("CenterCropPad", {iota_tensor(shape), ints(target)}));
    Case gather("Gather", {iota_tensor(shape), ints({0, -1, 0})});
    gather.node.set("axis", axis);
    stated += check_all(gather);
    Case one_hot("OneHot", {ints({0, 2, -1}), ints({pick(1, 4)}), iota_tensor({2})});
    one_hot.node.set("axis", pick(-2, 1));
    stated += check_all(one_hot);
    Case depth("DepthToSpace", {iota_tensor({pick(1, 2), 4 * pick(1, 3), pick(1, 3), pick(1, 3)})});
    depth.node.set("blocksize", int64_t(2));
    stated += check(depth, Known::no);
  }
  EXPECT_GT(stated, 10000);
}

// ---------------------------------------------------------------- chains and bodies

struct Built {
  Graph g;
  ValueId input(const char* name, DType dtype, std::vector<Dim> dims) {
    ValueId v = g.add_value(name, Type::tensor(dtype, std::move(dims)));
    g.inputs.push_back(v);
    return v;
  }
  ValueId constant(const std::vector<int64_t>& v) { return g.add_constant("c", ints(v)); }
  ValueId scalar(int64_t v) { return g.add_constant("c", Tensor::scalar<int64_t>(v)); }
  ValueId op(const char* name, std::vector<ValueId> in,
             std::vector<std::pair<const char*, AttrValue>> attributes = {}) {
    ValueId y = g.add_value(name);
    Node& n = g.add_node(name, std::move(in), {y});
    n.def = find_op("", name);
    for (auto& [k, v] : attributes) n.set(k, v);
    return y;
  }
  std::string type(ValueId v) { return g.value(v).type.to_string(); }
};

// What exporters write for x.view(batch, seq, heads, width / heads).
TEST(ShapeRules, AttentionReshapeStaysSymbolic) {
  Built b;
  ValueId x = b.input("x", DType::f32, {Dim::symbol("B"), Dim::symbol("S"), Dim(64)});
  ValueId shape = b.op("Shape", {x});
  ValueId batch = b.op("Unsqueeze", {b.op("Gather", {shape, b.scalar(0)}), b.constant({0})});
  ValueId length = b.op("Slice", {shape, b.constant({1}), b.constant({2})});
  ValueId target = b.op("Concat", {batch, length, b.constant({4}), b.constant({-1})}, {{"axis", int64_t(0)}});
  ValueId y = b.op("Reshape", {x, target});
  ValueId t = b.op("Transpose", {y}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
  ValueId flat = b.op("Reshape", {b.op("Transpose", {t}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}}}),
                                  b.op("Concat", {batch, length, b.constant({64})}, {{"axis", int64_t(0)}})});
  ASSERT_TRUE(infer_types(b.g).ok());
  EXPECT_EQ(b.type(y), "f32[B,S,4,16]");
  EXPECT_EQ(b.type(t), "f32[B,4,S,16]");
  EXPECT_EQ(b.type(flat), "f32[B,S,64]");
}

std::shared_ptr<Graph> body(Built& b, std::vector<ValueId> outputs) {
  b.g.outputs = std::move(outputs);
  return std::make_shared<Graph>(std::move(b.g));
}

TEST(ShapeRules, LoopThatGrowsAndLoopThatDoesNot) {
  Built inner;
  inner.input("i", DType::i64, {});
  ValueId go = inner.input("go", DType::boolean, {});
  for (const char* n : {"grows", "stays"}) {
    inner.g.inputs.push_back(inner.g.add_value(n));
  }
  ValueId grows = inner.g.inputs[2], stays = inner.g.inputs[3];
  ValueId longer = inner.op("Concat", {grows, stays}, {{"axis", int64_t(0)}});
  ValueId same = inner.op("Relu", {stays});
  ValueId on = inner.op("Identity", {go});
  Built b;
  ValueId a = b.input("a", DType::f32, {Dim(1), Dim(3)}), s = b.input("s", DType::f32, {Dim::symbol("N"), Dim(3)});
  ValueId final_a = b.g.add_value("final_a"), final_s = b.g.add_value("final_s"), scan = b.g.add_value("scan");
  Node& loop = b.g.add_node("Loop", {b.scalar(7), kAbsent, a, s}, {final_a, final_s, scan});
  loop.def = find_op("", "Loop");
  loop.bodies.push_back({"body", body(inner, {on, longer, same, same}), {}});
  Status st = infer_types(b.g);
  ASSERT_TRUE(st.ok()) << st.message();
  const Type& t = b.g.value(final_a).type;
  ASSERT_EQ(t.rank(), 2);
  EXPECT_TRUE(t.dims[0].is_symbol());
  EXPECT_TRUE(t.dims[1].is(3));
  EXPECT_EQ(b.type(final_s), "f32[N,3]");
  EXPECT_EQ(b.type(scan), "f32[7,N,3]");
}

TEST(ShapeRules, BranchesThatDiffer) {
  Built b;
  ValueId c = b.input("c", DType::boolean, {}), x = b.input("x", DType::f32, {Dim::symbol("N"), Dim(3)});
  std::vector<Body> bodies;
  for (const char* branch : {"then_branch", "else_branch"}) {
    Built inner;
    ValueId v = inner.g.add_value("x");
    inner.g.captures.push_back(v);
    bool then = std::string(branch) == "then_branch";
    ValueId y = then ? inner.op("Relu", {v})
                     : inner.op("Slice", {v, inner.constant({0}), inner.constant({2}), inner.constant({1})});
    ValueId z = then ? inner.op("Relu", {v}) : inner.op("Flatten", {v});
    bodies.push_back({branch, body(inner, {y, z}), {x}});
  }
  ValueId y = b.g.add_value("y"), z = b.g.add_value("z");
  Node& n = b.g.add_node("If", {c}, {y, z});
  n.def = find_op("", "If");
  n.bodies = std::move(bodies);
  Status st = infer_types(b.g);
  ASSERT_TRUE(st.ok()) << st.message();
  const Type& t = b.g.value(y).type;
  ASSERT_EQ(t.rank(), 2);
  EXPECT_EQ(t.dims[0].to_string(), "N");
  EXPECT_TRUE(t.dims[1].is_symbol());
  EXPECT_EQ(b.type(z), "f32[N,3]");
}

}  // namespace
}  // namespace ai_vmm
