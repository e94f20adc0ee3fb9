// A BatchNormalization that no convolution's weights could take becomes a product and a sum per channel, which fuse
// with what stands around them and keep blocked layouts.
#include <cmath>

#include "backends/cpu/rewrite.hpp"
#include "ops/op.hpp"
#include "ops/ref.hpp"

namespace ai_vmm::cpu {

namespace {

// y = x * scale + shift, a channel each; empty when the node is not of constant parameters.
struct Affine {
  std::vector<double> scale, shift;
};
std::optional<Affine> affine_of(const Graph& g, const Node& n) {
  if (n.op != "BatchNormalization" || !n.domain.empty() || n.inputs.size() != 5 || n.i("training_mode", 0))
    return std::nullopt;
  for (size_t k = 1; k < n.outputs.size(); ++k)
    if (n.has_output(k)) return std::nullopt;
  const Type& x = g.value(n.inputs[0]).type;
  if (x.rank() < 2 || !is_float(x.dtype)) return std::nullopt;
  std::vector<double> p[4];
  for (size_t k = 0; k < 4; ++k) {
    if (!g.is_constant(n.inputs[k + 1])) return std::nullopt;
    const Tensor& t = g.value(n.inputs[k + 1]).constant;
    if (t.rank() != 1 || t.dtype() != x.dtype || (k && t.count() != int64_t(p[0].size()))) return std::nullopt;
    p[k] = ref::load<double>(t);
  }
  double epsilon = n.f("epsilon", 1e-5f);
  Affine a;
  for (size_t c = 0; c < p[0].size(); ++c) {
    a.scale.push_back(p[0][c] / std::sqrt(p[3][c] + epsilon));
    a.shift.push_back(p[1][c] - p[2][c] * a.scale.back());
    if (!std::isfinite(a.scale.back()) || !std::isfinite(a.shift.back())) return std::nullopt;
  }
  return a;
}

}  // namespace

Status expand_batch_norm(Lowering& l) {
  Graph& g = l.graph;
  std::vector<Node> nodes;
  for (Node& n : g.nodes) {
    auto a = affine_of(g, n);
    if (!a) {
      nodes.push_back(std::move(n));
      continue;
    }
    const Type x = g.value(n.inputs[0]).type;
    Shape shape(size_t(x.rank() - 1), 1);
    shape[0] = int64_t(a->scale.size());
    auto constant = [&](const char* what, const std::vector<double>& values) -> Result<ValueId> {
      Tensor t = AI_VMM_TAKE(Tensor::make(x.dtype, shape));
      ref::store<double>(t, values);
      return g.add_constant(g.value(n.outputs[0]).name + what, std::move(t));
    };
    ValueId scale = AI_VMM_TAKE(constant("/scale", a->scale)), shift = AI_VMM_TAKE(constant("/shift", a->shift));
    ValueId scaled = g.add_value(g.value(n.outputs[0]).name + "/scaled", x);
    auto add = [&](const char* op, ValueId in, ValueId by, ValueId out) {
      Node made;
      made.name = n.name;
      made.op = op;
      made.def = find_op("", op);
      made.inputs = {in, by};
      made.outputs = {out};
      nodes.push_back(std::move(made));
    };
    add("Mul", n.inputs[0], scale, scaled);
    add("Add", scaled, shift, n.outputs[0]);
  }
  g.nodes = std::move(nodes);
  return {};
}

}  // namespace ai_vmm::cpu
