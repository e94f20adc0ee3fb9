#include "backends/cpu/kernels/isa.hpp"

#include <string>

#include "backends/cpu/kernels/kernels.hpp"
#include "base/config.hpp"

namespace ai_vmm::cpu {

const Kernels* table_generic();
#if defined(__x86_64__)
const Kernels* table_avx2();
const Kernels* table_avx512();
#endif

namespace {

bool machine_has(Isa isa) {
  switch (isa) {
    case Isa::generic: return true;
#if defined(__x86_64__)
    case Isa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
    default: return false;
#endif
  }
  return false;
}

}  // namespace

const char* name(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "generic"; }

Isa isa() {
  static const Isa chosen = [] {
    auto config = Config::load();
    std::string wanted = config.ok() ? config->text("cpu_isa") : "auto";
    for (Isa i : {Isa::avx512, Isa::avx2})
      if (machine_has(i) && wanted != "generic" && !(wanted == "avx2" && i == Isa::avx512)) return i;
    return Isa::generic;
  }();
  return chosen;
}

int block_size() { return isa() == Isa::avx512 ? 16 : 8; }

const Kernels* kernels(Isa isa) {
  if (!machine_has(isa)) return nullptr;
#if defined(__x86_64__)
  if (isa == Isa::avx512) return table_avx512();
  if (isa == Isa::avx2) return table_avx2();
#endif
  return table_generic();
}

const Kernels& kernels() {
  static const Kernels& chosen = *kernels(isa());
  return chosen;
}

}  // namespace ai_vmm::cpu
