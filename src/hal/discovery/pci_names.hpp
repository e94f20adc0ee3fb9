// Names for PCI numbers: the machine's own list (pci.ids) where it has one, else a small table of accelerators.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/tree.hpp"
#include "hal/discovery/accelerator.hpp"

namespace ai_vmm {

std::string vendor_name(uint16_t vendor);  // "NVIDIA"; "PCI vendor 1234" for one that is not in the table
// "" where neither list knows it.
std::string device_name(const Tree& tree, uint16_t vendor, uint16_t device);

// Whether a PCI function with these numbers and class code (24 bits) is an accelerator, and of what kind. Graphics that
// cannot compute (management controllers, emulated and virtual displays) are none.
std::optional<DeviceKind> accelerator_kind(uint16_t vendor, uint16_t device, uint32_t class_code);

}  // namespace ai_vmm
