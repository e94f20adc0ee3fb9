// Subgraphs of small operators that are one operator of ONNX: LayerNormalization, RMSNormalization, Gelu, Swish,
// HardSwish, Mish. Exporters of older opsets could only write them out.
#include <algorithm>
#include <cmath>

#include "ops/ref.hpp"
#include "passes/edit.hpp"
#include "passes/list.hpp"

namespace ai_vmm {

namespace {

bool near(double a, double b) { return std::fabs(a - b) <= 2e-4 * std::fabs(b); }
bool about(std::optional<double> a, double b) { return a && near(*a, b); }

// A product, taken apart through Mul, Div by a constant and Pow with a small whole exponent.
struct Product {
  double factor = 1;
  std::vector<ValueId> terms;  // sorted
};

void collect(Edit& edit, ValueId v, bool root, Product& p, int depth = 0) {
  if (auto c = edit.scalar(v)) {
    p.factor *= *c;
    return;
  }
  // Only what nobody else reads is taken apart, so that no work is done twice.
  if (depth < 6 && (root || edit.uses(v) == 1)) {
    if (Node* mul = edit.maker(v, "Mul")) {
      collect(edit, mul->inputs[0], false, p, depth + 1);
      collect(edit, mul->inputs[1], false, p, depth + 1);
      return;
    }
    if (Node* div = edit.maker(v, "Div"))
      if (auto c = edit.scalar(div->inputs[1]); c && *c != 0) {
        p.factor /= *c;
        collect(edit, div->inputs[0], false, p, depth + 1);
        return;
      }
    if (Node* pow = edit.maker(v, "Pow"))
      if (auto c = edit.scalar(pow->inputs[1]); c && (*c == 2 || *c == 3)) {
        for (int k = 0; k < int(*c); ++k) p.terms.push_back(pow->inputs[0]);
        return;
      }
  }
  p.terms.push_back(v);
}
Product product(Edit& edit, ValueId v, bool root = false) {
  Product p;
  collect(edit, v, root, p);
  std::sort(p.terms.begin(), p.terms.end());
  return p;
}
bool is_power(const Product& p, double factor, ValueId x, size_t exponent) {
  return near(p.factor, factor) && p.terms.size() == exponent &&
         std::count(p.terms.begin(), p.terms.end(), x) == std::ptrdiff_t(exponent);
}

// v = c + w for a constant c; w.
ValueId less_constant(Edit& edit, ValueId v, double c) {
  Node* add = edit.maker(v, "Add");
  if (!add || edit.uses(v) != 1) return kAbsent;
  for (size_t k : {0, 1})
    if (about(edit.scalar(add->inputs[k]), c)) return add->inputs[1 - k];
  return kAbsent;
}

constexpr double kSqrtHalf = 0.70710678118654752, kSqrt2OverPi = 0.79788456080286536, kCubic = 0.044715;

// inner = sqrt(2 / pi) * (x + 0.044715 x^3), in the two ways it is written.
bool is_tanh_argument(Edit& edit, ValueId inner, ValueId x) {
  Product p = product(edit, inner);
  if (!near(p.factor, kSqrt2OverPi)) return false;
  if (p.terms.size() == 1) {
    Node* add = edit.maker(p.terms[0], "Add");
    if (!add) return false;
    for (size_t k : {0, 1})
      if (add->inputs[k] == x && is_power(product(edit, add->inputs[1 - k]), kCubic, x, 3)) return true;
    return false;
  }
  if (p.terms.size() != 2) return false;
  for (size_t k : {0, 1})
    if (p.terms[k] == x)
      if (ValueId square = less_constant(edit, p.terms[1 - k], 1);
          square != kAbsent && is_power(product(edit, square), kCubic, x, 2))
        return true;
  return false;
}

// A Mul that is a gated copy of x: x * f(x).
void recognise_gate(Edit& edit, Node& node) {
  Product p = product(edit, node.outputs[0], true);
  if (p.terms.size() != 2 || p.terms[0] == p.terms[1]) return;
  for (size_t k : {0, 1}) {
    ValueId x = p.terms[k], gate = p.terms[1 - k];
    if (!edit.same_shape(x, node.outputs[0]) || edit.uses(gate) != 1 || !is_float(edit.type(x).dtype)) continue;
    if (near(p.factor, 0.5)) {
      ValueId w = less_constant(edit, gate, 1);
      if (w == kAbsent || edit.uses(w) != 1) continue;
      if (Node* erf = edit.maker(w, "Erf"); erf && is_power(product(edit, erf->inputs[0]), kSqrtHalf, x, 1))
        return edit.become(node, "Gelu", {x});
      if (Node* tanh = edit.maker(w, "Tanh"); tanh && is_tanh_argument(edit, tanh->inputs[0], x))
        return edit.become(node, "Gelu", {x}, {{"approximate", std::string("tanh")}});
      continue;
    }
    if (near(p.factor, 1)) {
      if (Node* sigmoid = edit.maker(gate, "Sigmoid")) {
        if (sigmoid->inputs[0] == x) return edit.become(node, "Swish", {x});
        // x * sigmoid(1.702 x), the quick form of Gelu.
        Product inner = product(edit, sigmoid->inputs[0]);
        if (is_power(inner, inner.factor, x, 1))
          return edit.become(node, "Swish", {x}, {{"alpha", static_cast<float>(inner.factor)}});
      }
      if (Node* hard = edit.maker(gate, "HardSigmoid");
          hard && hard->inputs[0] == x && near(hard->f("alpha", 0.2f), 1.0 / 6) && hard->f("beta", 0.5f) == 0.5f)
        return edit.become(node, "HardSwish", {x});
      if (Node* tanh = edit.maker(gate, "Tanh"); tanh && edit.uses(tanh->inputs[0]) == 1)
        if (Node* softplus = edit.maker(tanh->inputs[0], "Softplus"); softplus && softplus->inputs[0] == x)
          return edit.become(node, "Mish", {x});
    }
    if (near(p.factor, 1.0 / 6)) {
      // x * clip(x + 3, 0, 6) / 6
      Node* clip = edit.maker(gate, "Clip");
      if (clip && clip->inputs.size() == 3 && about(edit.scalar(clip->inputs[2]), 6) &&
          edit.scalar(clip->inputs[1]) == 0.0 && less_constant(edit, clip->inputs[0], 3) == x)
        return edit.become(node, "HardSwish", {x});
    }
  }
}

// ---------------------------------------------------------------- normalisation

// The first of the trailing axes that a ReduceMean with kept dimensions takes, or -1.
int64_t trailing_axis(Edit& edit, const Node& reduce, int64_t rank) {
  if (rank < 1 || reduce.i("keepdims", 1) != 1 || !reduce.has_input(1)) return -1;
  auto axes = edit.ints(reduce.inputs[1]);
  if (!axes || axes->empty()) return -1;
  for (int64_t& a : *axes)
    if (a < 0) a += rank;
  std::sort(axes->begin(), axes->end());
  for (size_t k = 0; k < axes->size(); ++k)
    if ((*axes)[k] != rank - int64_t(axes->size()) + int64_t(k)) return -1;
  return (*axes)[0];
}

struct Normal {
  ValueId x = kAbsent;
  int64_t axis = -1;
  double epsilon = 0;
};

// deviation = sqrt(mean(d^2) + epsilon) over trailing axes; false when it is not that.
bool is_deviation(Edit& edit, ValueId deviation, ValueId d, Normal& out) {
  Node* sqrt = edit.maker(deviation, "Sqrt");
  if (!sqrt || edit.uses(deviation) != 1) return false;
  Node* add = edit.maker(sqrt->inputs[0], "Add");
  if (!add || edit.uses(sqrt->inputs[0]) != 1) return false;
  for (size_t k : {0, 1}) {
    auto epsilon = edit.scalar(add->inputs[k]);
    ValueId variance = add->inputs[1 - k];
    if (!epsilon || *epsilon < 0 || edit.uses(variance) != 1) continue;
    Node* mean = edit.maker(variance, "ReduceMean");
    if (!mean) continue;
    Product square = product(edit, mean->inputs[0]);
    out.axis = trailing_axis(edit, *mean, edit.type(d).rank());
    out.epsilon = *epsilon;
    return out.axis >= 0 && is_power(square, 1, d, 2);
  }
  return false;
}

// y = d / deviation, as a quotient or as a product with the reciprocal; d, with `out` filled, or kAbsent.
ValueId normalised(Edit& edit, ValueId y, Normal& out) {
  if (Node* div = edit.maker(y, "Div"))
    return is_deviation(edit, div->inputs[1], div->inputs[0], out) ? div->inputs[0] : kAbsent;
  Node* mul = edit.maker(y, "Mul");
  if (!mul) return kAbsent;
  for (size_t k : {0, 1}) {
    ValueId inverse = mul->inputs[1 - k];
    if (edit.uses(inverse) != 1) continue;
    if (Node* r = edit.maker(inverse, "Reciprocal"); r && is_deviation(edit, r->inputs[0], mul->inputs[k], out))
      return mul->inputs[k];
    if (Node* one = edit.maker(inverse, "Div");
        one && edit.scalar(one->inputs[0]) == 1.0 && is_deviation(edit, one->inputs[1], mul->inputs[k], out))
      return mul->inputs[k];
  }
  return kAbsent;
}

// d = x - mean(x) over the same axes; x.
ValueId centred(Edit& edit, ValueId d, int64_t axis) {
  Node* sub = edit.maker(d, "Sub");
  if (!sub) return kAbsent;
  Node* mean = edit.maker(sub->inputs[1], "ReduceMean");
  return mean && mean->inputs[0] == sub->inputs[0] && trailing_axis(edit, *mean, edit.type(d).rank()) == axis
             ? sub->inputs[0]
             : kAbsent;
}

// Whether v has exactly the shape of the normalised dimensions of x, as scale and bias must.
bool fits(Edit& edit, ValueId v, ValueId x, int64_t axis) {
  const Type &t = edit.type(v), &s = edit.type(x);
  return t.ranked && s.ranked && t.dtype == s.dtype && t.dtype != DType::undefined &&
         std::vector<Dim>(s.dims.begin() + axis, s.dims.end()) == t.dims;
}

// Add(Mul(normal, scale), bias), Mul(normal, scale).
void recognise_normalisation(Edit& edit, Node& node) {
  for (size_t side : {0, 1}) {
    ValueId scaled = node.inputs[side], bias = kAbsent, scale = kAbsent, normal = kAbsent;
    if (node.op == "Add") {
      Node* mul = edit.maker(scaled, "Mul");
      bias = node.inputs[1 - side];
      if (!mul || edit.uses(scaled) != 1) continue;
      for (size_t k : {0, 1}) {
        Normal n;
        if (edit.uses(mul->inputs[k]) != 1) continue;
        ValueId d = normalised(edit, mul->inputs[k], n);
        if (d == kAbsent) continue;
        normal = mul->inputs[k];
        scale = mul->inputs[1 - k];
      }
    } else {
      normal = scaled;
      scale = node.inputs[1 - side];
      if (edit.uses(normal) != 1) continue;
    }
    if (normal == kAbsent) continue;
    Normal n;
    ValueId d = normalised(edit, normal, n);
    if (d == kAbsent) continue;
    ValueId x = centred(edit, d, n.axis);
    std::vector<Attribute> attributes = {{"axis", n.axis}, {"epsilon", static_cast<float>(n.epsilon)}};
    if (x != kAbsent && node.op == "Add") {
      if (!fits(edit, scale, x, n.axis) || !fits(edit, bias, x, n.axis) || !edit.same_shape(x, node.outputs[0]))
        continue;
      return edit.become(node, "LayerNormalization", {x, scale, bias}, std::move(attributes));
    }
    if (x == kAbsent && node.op == "Mul") {
      if (!fits(edit, scale, d, n.axis) || !edit.same_shape(d, node.outputs[0])) continue;
      return edit.become(node, "RMSNormalization", {d, scale}, std::move(attributes));
    }
  }
}

Result<int64_t> composites_here(Graph& graph) {
  Edit edit(graph);
  for (size_t n = 0; n < edit.size(); ++n) {
    Node& node = edit.visit(n);
    if (edit.removed(n) || !node.domain.empty() || !node.has_output(0) || node.inputs.size() != 2) continue;
    if (node.op == "Add" || node.op == "Mul") recognise_normalisation(edit, node);
    if (node.op == "Mul" || node.op == "Div") recognise_gate(edit, node);
  }
  return edit.finish();
}

}  // namespace

Result<int64_t> recognise_composites(Graph& graph) { return over_bodies(graph, composites_here); }

}  // namespace ai_vmm
