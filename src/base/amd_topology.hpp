// AMD's devices as the kernel's compute driver (kfd) lists them: what HIP does not tell in a stable way.
#pragma once

#include <string>
#include <vector>

#include "base/pci.hpp"
#include "base/tree.hpp"

namespace ai_vmm {

struct AmdNode {
  PciAddress pci;
  std::string architecture;  // "gfx90a"; "" not told
};
// From /sys/class/kfd; processors are left out.
std::vector<AmdNode> amd_nodes(const Tree& tree);

}  // namespace ai_vmm
