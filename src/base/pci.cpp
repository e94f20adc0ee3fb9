#include "base/pci.hpp"

#include <charconv>
#include <cstdio>
#include <filesystem>

namespace ai_vmm {

namespace {
// All of `text` as a hexadecimal number of at most `digits` digits.
std::optional<uint32_t> hex(std::string_view text, size_t digits) {
  uint32_t value = 0;
  if (text.empty() || text.size() > digits) return std::nullopt;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}
}  // namespace

std::optional<PciAddress> PciAddress::of(int64_t domain, int64_t bus, int64_t device, int64_t function) {
  if (domain < 0 || domain > UINT32_MAX || bus < 0 || bus > 0xff || device < 0 || device > 0x1f || function < 0 ||
      function > 7)
    return std::nullopt;
  return PciAddress{uint32_t(domain), uint8_t(bus), uint8_t(device), uint8_t(function)};
}

std::optional<PciAddress> PciAddress::parse(std::string_view text) {
  size_t dot = text.rfind('.');
  if (dot == text.npos) return std::nullopt;
  size_t second = text.rfind(':', dot);
  if (second == text.npos || second == 0) return std::nullopt;
  size_t first = text.rfind(':', second - 1);
  std::string_view domain = first == text.npos ? "0" : text.substr(0, first);
  size_t bus_at = first == text.npos ? 0 : first + 1;
  auto d = hex(domain, 8), b = hex(text.substr(bus_at, second - bus_at), 2),
       v = hex(text.substr(second + 1, dot - second - 1), 2), f = hex(text.substr(dot + 1), 1);
  if (!d || !b || !v || !f) return std::nullopt;
  return of(*d, *b, *v, *f);
}

std::string PciAddress::text() const {
  char text[32];
  std::snprintf(text, sizeof text, "%04x:%02x:%02x.%x", domain, bus, device, function);
  return text;
}

std::string resource_name(const PciAddress& address, const std::string& root) {
  std::error_code none;
  auto physical = std::filesystem::read_symlink(root + "/sys/bus/pci/devices/" + address.text() + "/physfn", none);
  auto owner = none ? std::nullopt : PciAddress::parse(physical.filename().string());
  return "pci:" + owner.value_or(address).text();
}

std::optional<PciAddress> opencl_pci_address(const std::function<bool(uint32_t, void*, size_t)>& ask) {
  enum : uint32_t {
    kPciBusNv = 0x4008,     // cl_nv_device_attribute_query
    kPciSlotNv = 0x4009,    // device << 3 | function
    kPciDomainNv = 0x400a,  // only newer drivers
    kTopologyAmd = 0x4037,  // cl_amd_device_attribute_query
    kPciBusInfo = 0x410f,   // cl_khr_pci_bus_info
  };
  struct {
    uint32_t domain, bus, device, function;
  } khronos = {};
  if (ask(kPciBusInfo, &khronos, sizeof khronos))
    return PciAddress::of(khronos.domain, khronos.bus, khronos.device, khronos.function);
  uint32_t bus = 0, slot = 0, domain = 0;
  if (ask(kPciBusNv, &bus, sizeof bus) && ask(kPciSlotNv, &slot, sizeof slot)) {
    if (!ask(kPciDomainNv, &domain, sizeof domain)) domain = 0;
    return PciAddress::of(domain, bus, slot >> 3, slot & 7);
  }
  struct {
    uint32_t type;  // 1: PCI Express
    uint8_t unused[17], bus, device, function;
  } amd = {};
  static_assert(sizeof amd == 24);
  if (ask(kTopologyAmd, &amd, sizeof amd) && amd.type == 1) return PciAddress::of(0, amd.bus, amd.device, amd.function);
  return std::nullopt;
}

}  // namespace ai_vmm
