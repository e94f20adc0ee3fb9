#include "ops/common.hpp"

namespace ai_vmm {

Type infer_output_type(const Infer& c, size_t k) { return c.output_type(k); }

Status infer_same(Infer& c) {
  c.set(0, c.type(0));
  if (auto v = c.ints(0)) c.set_ints(0, *v);
  return {};
}

namespace {
std::optional<Dim> fold(std::string_view op, const Dim& a, const Dim& b) {
  if (op == "Add") return a + b;
  if (op == "Sub") return a - b;
  if (op == "Mul") return a * b;
  if (op == "Max") return max(a, b);
  if (op == "Min") return min(a, b);
  // ONNX truncates toward zero; sizes are not negative, so floor is the same unless a constant says otherwise.
  if (op == "Div" && !b.is(0) && !(a.constant() && *a.constant() < 0) && !(b.constant() && *b.constant() < 0)) return floor_div(a, b);
  if (op == "Mod" && !b.is(0)) return mod(a, b);
  return std::nullopt;
}
}  // namespace

Status infer_elementwise(Infer& c) {
  std::vector<std::vector<Dim>> shapes;
  DType dtype = DType::undefined;
  bool ranked = true;
  for (size_t k = 0; k < c.inputs(); ++k) {
    if (!c.has(k)) continue;
    if (dtype == DType::undefined) dtype = c.dtype(k);
    if (!c.ranked(k)) {
      ranked = false;
      continue;
    }
    shapes.push_back(c.dims(k));
  }
  if (!ranked) {
    c.set_unranked(0, dtype);
    return {};
  }
  auto shape = AI_VMM_TAKE(c.broadcast(shapes));
  size_t rank = shape.size();
  c.set(0, dtype, std::move(shape));
  if (c.inputs() == 2 && rank <= 1 && is_integer(dtype)) {
    auto a = c.ints(0), b = c.ints(1);
    if (a && b && (a->size() == b->size() || a->size() == 1 || b->size() == 1)) {
      std::vector<Dim> out;
      for (size_t i = 0; i < std::max(a->size(), b->size()); ++i) {
        auto v = fold(c.node.op, (*a)[a->size() == 1 ? 0 : i], (*b)[b->size() == 1 ? 0 : i]);
        if (!v) return {};
        out.push_back(*v);
      }
      if (!a->empty() && !b->empty()) c.set_ints(0, std::move(out));
    }
  }
  return {};
}

}  // namespace ai_vmm
