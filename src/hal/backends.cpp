#include "hal/backends.hpp"

namespace ai_vmm {

namespace cpu {
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);
}
namespace reference {
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);
}

std::span<const InTreeBackend> in_tree_backends() {
  static constexpr InTreeBackend kBackends[] = {
      {"cpu", cpu::entry},
      {"reference", reference::entry},
  };
  return kBackends;
}

}  // namespace ai_vmm
