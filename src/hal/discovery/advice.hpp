// What stands between an accelerator and the runtime made for it, and what to do: drivers, firmware, permissions,
// packages.
#pragma once

#include "base/tree.hpp"
#include "hal/discovery/accelerator.hpp"

namespace ai_vmm {

// Fills Accelerator::advice. Nothing is said of runtimes that were not asked.
void advise(Machine& machine, const Tree& tree);

}  // namespace ai_vmm
