#include "ops/common.hpp"

namespace ai_vmm {

Type infer_output_type(const Infer& c, size_t k) { return c.output_type(k); }

Status infer_same(Infer& c) {
  c.set(0, c.type(0));
  if (auto v = c.ints(0)) c.set_ints(0, *v);
  return {};
}

namespace {
std::optional<Dim> fold(const Node& node, const Dim& a, const Dim& b) {
  const std::string& op = node.op;
  if (op == "Add") return a + b;
  if (op == "Sub") return a - b;
  if (op == "Mul") return a * b;
  if (op == "Max") return max(a, b);
  if (op == "Min") return min(a, b);
  if (b.is(0)) return std::nullopt;
  // A truncated quotient, or the remainder that goes with it, is the floored one where nothing is negative.
  bool plain = known_non_negative(a) && known_non_negative(b);
  if (op == "Div" && plain) return floor_div(a, b);
  if (op == "Mod" && (plain || node.i("fmod") == 0)) return mod(a, b);
  return std::nullopt;
}
}  // namespace

Status infer_broadcast(Infer& c, DType dtype) {
  std::vector<std::vector<Dim>> shapes;
  for (size_t k = 0; k < c.inputs(); ++k) {
    if (!c.has(k)) continue;
    if (!c.ranked(k)) {
      c.set_unranked(0, dtype);
      return {};
    }
    shapes.push_back(c.dims(k));
  }
  c.set(0, dtype, AI_VMM_TAKE(c.broadcast(shapes)));
  return {};
}

Status infer_elementwise(Infer& c) {
  DType dtype = DType::undefined;
  for (size_t k = 0; k < c.inputs() && dtype == DType::undefined; ++k) dtype = c.dtype(k);
  AI_VMM_TRY(infer_broadcast(c, dtype));
  int64_t rank = c.output_type(0).rank();
  if (c.inputs() == 2 && rank >= 0 && rank <= 1 && is_integer(dtype)) {
    auto a = c.ints(0), b = c.ints(1);
    if (a && b && !a->empty() && !b->empty() && (a->size() == b->size() || a->size() == 1 || b->size() == 1)) {
      std::vector<Dim> out;
      for (size_t i = 0; i < std::max(a->size(), b->size()); ++i) {
        auto v = fold(c.node, (*a)[a->size() == 1 ? 0 : i], (*b)[b->size() == 1 ? 0 : i]);
        // An overflow wraps in the tensor; a size does not.
        int64_t limit = dtype == DType::i32 ? INT32_MAX : INT64_MAX;
        if (!v || (v->constant() && (*v->constant() >= limit || *v->constant() <= -limit))) return {};
        out.push_back(*v);
      }
      c.set_ints(0, std::move(out));
    }
  }
  return {};
}

}  // namespace ai_vmm
