// The passes of the CPU backend, in order.
#include "backends/cpu/program_impl.hpp"

namespace ai_vmm::cpu {

Status run_passes(Lowering& l) {
  l.layouts.assign(l.graph.values.size(), Layout{});
  return {};
}

}  // namespace ai_vmm::cpu
