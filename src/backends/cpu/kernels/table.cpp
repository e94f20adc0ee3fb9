// The functions of one instruction set.
#include "backends/cpu/kernels/kernels.hpp"

#define AI_VMM_JOIN_(a, b) a##b
#define AI_VMM_JOIN(a, b) AI_VMM_JOIN_(a, b)

namespace ai_vmm::cpu {

const Kernels* AI_VMM_JOIN(table_, AI_VMM_ISA)() {
  static const Kernels table = {
#define K(type, name, args) AI_VMM_ISA::name,
      AI_VMM_CPU_KERNELS(K)
#undef K
  };
  return &table;
}

}  // namespace ai_vmm::cpu
