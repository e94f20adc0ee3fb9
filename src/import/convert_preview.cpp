// Operators of ai.onnx.preview, written as the standard operators that they stand for.

#include "import/convert_rules.hpp"

namespace ai_vmm {

namespace {

using Attributes = Rewrite::Attributes;

// The body `name` of the node applied to `x`, or x itself when the node has no such body. A branch that is always taken
// stands for the call; folding of constant conditions makes it straight code.
Result<ValueId> apply_body(Rewrite& r, std::string_view name, ValueId x) {
  const Body* given = r.node.body(name);
  if (!given) return x;
  if (given->graph->inputs.size() != 1 || given->graph->outputs.size() != 1)
    return r.error(Code::invalid_argument,
                   "the graph \"" + std::string(name) + "\" must have one input and one output.");
  ValueId y = r.emit("If", {r.constant(Tensor::scalar(true))});
  for (const char* branch : {"then_branch", "else_branch"}) {
    Body body{branch, std::make_shared<Graph>(given->graph->clone()), given->captures};
    body.graph->captures.push_back(body.graph->inputs[0]);
    body.graph->inputs.clear();
    body.captures.push_back(x);
    r.before.back().bodies.push_back(std::move(body));
  }
  return y;
}

}  // namespace

// Y = prob_mod(softmax(score_mod(scale * Q K^T))) V in the softmax precision. Query heads that share a key head are
// rows of one product: [batch, heads, length, size] is read as [batch, key heads, group * length, size].
Status expand_flex_attention(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(3));
  DType type = r.type(r.input(0)).dtype;
  int64_t precision = AI_VMM_TAKE(r.i("softmax_precision", 0));
  if (precision == 0) precision = int64_t(type == DType::f64 ? DType::f64 : DType::f32);
  auto cast = [&](ValueId v) { return r.emit("Cast", {v}, {{"to", precision}}); };
  ValueId q = cast(r.input(0)), k = cast(r.input(1)), v = cast(r.input(2));
  auto sizes = [&](ValueId of, int64_t start, int64_t end) {
    return r.emit("Shape", {of}, {{"start", start}, {"end", end}});
  };
  auto reshape = [&](ValueId x, std::vector<ValueId> shape) {
    return r.emit("Reshape", {x, r.emit("Concat", std::move(shape), {{"axis", int64_t(0)}})});
  };
  ValueId rest = r.constant(std::vector<int64_t>{-1}), shared = sizes(k, 0, 2), separate = sizes(q, 0, 3),
          keys = sizes(k, 2, 3);

  ValueId scale;
  if (r.node.has("scale")) {
    float given = AI_VMM_TAKE(r.f("scale", 1));
    scale = cast(r.constant(Tensor::scalar(given)));
  } else {
    scale = r.emit("Reciprocal", {r.emit("Sqrt", {cast(sizes(q, 3, 4))})});
  }
  ValueId rows = reshape(r.emit("Mul", {q, scale}), {shared, rest, sizes(q, 3, 4)});
  ValueId transposed = r.emit("Transpose", {k}, {{"perm", std::vector<int64_t>{0, 1, 3, 2}}});
  ValueId scores = reshape(r.emit("MatMul", {rows, transposed}), {separate, keys});
  scores = AI_VMM_TAKE(apply_body(r, "score_mod", scores));
  ValueId probabilities = r.emit("Softmax", {scores}, {{"axis", int64_t(-1)}});
  probabilities = AI_VMM_TAKE(apply_body(r, "prob_mod", probabilities));
  ValueId y = reshape(r.emit("MatMul", {reshape(probabilities, {shared, rest, keys}), v}), {separate, sizes(v, 3, 4)});
  ValueId like = r.input(0);
  r.node.domain.clear();
  r.node.bodies.clear();
  r.become("CastLike", {y, like});
  return {};
}

}  // namespace ai_vmm
