// Convolutions take over the addition of a residual and the activation that follow them. BatchNormalization with
// constant parameters becomes a product and a sum.
#include <cmath>

#include "backends/cpu/act.hpp"
#include "backends/cpu/elementwise.hpp"
#include "backends/cpu/rewrite.hpp"

namespace ai_vmm::cpu {

namespace {

bool is_conv(const Node& n) {
  return (n.op == "Conv" && (n.domain.empty() || n.domain == "cpu")) ||
         (n.op == "FusedConv" && n.domain == "com.microsoft");
}

void lower_batch_norm(Graph& g, Node& n) {
  if (n.op != "BatchNormalization" || !n.domain.empty() || n.outputs.size() != 1) return;
  const Type& t = g.value(n.inputs[0]).type;
  if (t.dtype != DType::f32 || !t.ranked || t.rank() < 2) return;
  for (size_t k = 1; k < 5; ++k)
    if (!n.has_input(k) || !g.is_constant(n.inputs[k]) || g.value(n.inputs[k]).constant.dtype() != DType::f32) return;
  auto data = [&](size_t k) { return g.value(n.inputs[k]).constant.as<float>(); };
  auto scale = data(1), shift = data(2), mean = data(3), variance = data(4);
  float epsilon = n.f("epsilon", 1e-5f);
  std::vector<float> a(scale.size()), b(scale.size());
  for (size_t c = 0; c < a.size(); ++c) {
    a[c] = float(scale[c] / std::sqrt(double(variance[c]) + epsilon));
    b[c] = float(shift[c] - double(mean[c]) * a[c]);
  }
  Shape shape(size_t(t.rank()) - 1, 1);
  shape[0] = int64_t(a.size());
  BlockProgram p;
  p.inputs = {n.inputs[0], g.add_constant("", Tensor::of<float>(shape, a)),
              g.add_constant("", Tensor::of<float>(shape, b))};
  p.code = {{find_block_function("Mul", DType::f32), 0, 1}, {find_block_function("Add", DType::f32), 3, 2}};
  p.results = {1};
  std::string name = n.name;
  n = program_node(p, n.outputs);
  n.name = name;
}

}  // namespace

Status fuse_convolutions(Lowering& l) {
  Graph& g = l.graph;
  for (Node& n : g.nodes) lower_batch_norm(g, n);
  Rewriter r(g);
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    if (!is_conv(g.nodes[i]) || !r.is_f32(g.nodes[i].inputs[0]) || r.type(g.nodes[i].inputs[0]).rank() > 5) continue;
    auto act = activation_of(g.nodes[i]);
    if (!act) continue;
    size_t at = i;
    bool residual = g.nodes[i].has_input(3), changed = false;
    Node conv = g.nodes[i];
    while (act->act == Act::none) {
      int next = r.sole_user(conv.outputs[0]);
      if (next < 0) break;
      Node& user = g.nodes[size_t(next)];
      if (auto a = as_activation(g, user)) {
        act = a;
      } else if (!residual && user.domain.empty() && (user.op == "Add" || user.op == "Sum") &&
                 user.inputs.size() == 2) {
        ValueId other = user.inputs[0] == conv.outputs[0] ? user.inputs[1] : user.inputs[0];
        if (other == conv.outputs[0] || !r.is_f32(other) || g.is_constant(other) ||
            !r.same_dims(other, conv.outputs[0]))
          break;
        while (conv.inputs.size() < 3) conv.inputs.push_back(kAbsent);
        conv.inputs.resize(3);
        conv.inputs.push_back(other);
        residual = true;
      } else {
        break;
      }
      conv.outputs = user.outputs;
      Rewriter::kill(g.nodes[at]);
      at = size_t(next);
      changed = true;
      r.refresh();
      if (act->act != Act::none) break;
    }
    if (!changed) continue;
    conv.op = "Conv";
    conv.domain = "cpu";
    conv.def = nullptr;
    set_activation(conv, *act);
    g.nodes[at] = std::move(conv);
    r.refresh();
  }
  r.sweep();
  return {};
}

}  // namespace ai_vmm::cpu
