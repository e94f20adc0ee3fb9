// The passes of the CPU backend, in order.
#include "backends/cpu/rewrite.hpp"
#include "base/numbers.hpp"

namespace ai_vmm::cpu {

std::optional<float> scalar_constant(const Graph& g, ValueId v) {
  if (v == kAbsent || !g.is_constant(v) || g.value(v).constant.count() != 1 || !is_float(g.value(v).constant.dtype()))
    return std::nullopt;
  return float(read_double(g.value(v).constant.dtype(), g.value(v).constant.data(), 0));
}

bool is_reshape(const Node& n) {
  return n.domain.empty() &&
         (n.op == "Reshape" || n.op == "Flatten" || n.op == "Squeeze" || n.op == "Unsqueeze" || n.op == "Identity");
}

Status run_passes(Lowering& l) {
  AI_VMM_TRY(expand_batch_norm(l));
  AI_VMM_TRY(fuse_convolutions(l));
  AI_VMM_TRY(fuse_products(l));
  AI_VMM_TRY(fuse_elementwise(l));
  return assign_layouts(l);
}

}  // namespace ai_vmm::cpu
