// PCI addresses, and the name of the silicon behind one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

namespace ai_vmm {

struct PciAddress {
  uint32_t domain = 0;
  uint8_t bus = 0, device = 0, function = 0;
  bool operator==(const PciAddress&) const = default;
  bool operator<(const PciAddress& o) const {
    return std::tie(domain, bus, device, function) < std::tie(o.domain, o.bus, o.device, o.function);
  }

  // "0000:3b:00.0", "00000000:3B:00.0" or "3b:00.0"; nullopt for anything else.
  static std::optional<PciAddress> parse(std::string_view text);
  // nullopt where a part is out of range: runtimes report -1 for what they do not know.
  static std::optional<PciAddress> of(int64_t domain, int64_t bus, int64_t device, int64_t function);
  std::string text() const;  // "0000:3b:00.0"
};

// The resource of a device at that address, as AiVmmDeviceInfo::resource wants it: "pci:0000:3b:00.0". A virtual
// function is the same silicon as its physical function, where the machine shows that one under `root`.
std::string resource_name(const PciAddress& address, const std::string& root = "");

// The address of an OpenCL device, by whichever extension its driver has: Khronos', NVIDIA's or AMD's. `ask` is
// clGetDeviceInfo for exactly that many bytes; false where it fails or gives another number of bytes.
std::optional<PciAddress> opencl_pci_address(const std::function<bool(uint32_t what, void* value, size_t bytes)>& ask);

}  // namespace ai_vmm
