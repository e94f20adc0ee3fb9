// PCI addresses, and the name of the silicon behind one.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ai_vmm {

struct PciAddress {
  uint32_t domain = 0;
  uint8_t bus = 0, device = 0, function = 0;
  auto operator<=>(const PciAddress&) const = default;

  // "0000:3b:00.0", "00000000:3B:00.0" or "3b:00.0"; nullopt for anything else.
  static std::optional<PciAddress> parse(std::string_view text);
  // nullopt where a part is out of range: runtimes report -1 for what they do not know.
  static std::optional<PciAddress> of(int64_t domain, int64_t bus, int64_t device, int64_t function);
  std::string text() const;  // "0000:3b:00.0"
};

// The resource of a device at that address, as AiVmmDeviceInfo::resource wants it: "pci:0000:3b:00.0". A virtual
// function is the same silicon as its physical function, where the machine shows that one under `root`.
std::string resource_name(const PciAddress& address, const std::string& root = "");

}  // namespace ai_vmm
