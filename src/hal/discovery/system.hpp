// What the kernel says of the machine's accelerators: PCI, DRM render nodes, the accel class, AMD's compute topology.
// Reads files only: some milliseconds, no driver is woken.
#pragma once

#include "base/tree.hpp"
#include "hal/discovery/accelerator.hpp"

namespace ai_vmm {

// Kernel, processor and accelerators; names and advice are not yet complete, nothing is seen by runtimes.
Machine read_system(const Tree& tree);

}  // namespace ai_vmm
