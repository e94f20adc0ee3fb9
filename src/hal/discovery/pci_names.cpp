#include "hal/discovery/pci_names.hpp"

#include <algorithm>
#include <cstdio>

#include "base/text.hpp"

namespace ai_vmm {

namespace {
using enum DeviceKind;

struct VendorRow {
  uint16_t id;
  const char* name;
};
constexpr VendorRow kVendors[] = {
    {0x1002, "AMD"},         {0x1022, "AMD"},         {0x10de, "NVIDIA"}, {0x10ee, "AMD Xilinx"}, {0x17cb, "Qualcomm"},
    {0x19e5, "Huawei"},      {0x1ac1, "Google"},      {0x1ae0, "Google"}, {0x1d0f, "Amazon"},     {0x1d95, "Graphcore"},
    {0x1da3, "Habana Labs"}, {0x1e52, "Tenstorrent"}, {0x1e60, "Hailo"},  {0x8086, "Intel"},
};

// Names as in the PCI ID repository and the vendors' documents. A device that is in this table is an accelerator
// whatever its class says: several call themselves "system peripheral" or leave the class undefined.
struct DeviceRow {
  uint16_t vendor, device;
  DeviceKind kind;
  const char* name;
};
constexpr DeviceRow kDevices[] = {
    {0x1002, 0x738c, gpu, "Instinct MI100"},
    {0x1002, 0x7408, gpu, "Instinct MI250X"},
    {0x1002, 0x740c, gpu, "Instinct MI250"},
    {0x1002, 0x740f, gpu, "Instinct MI210"},
    {0x1002, 0x744c, gpu, "Radeon RX 7900 XT or XTX"},
    {0x1002, 0x74a0, gpu, "Instinct MI300A"},
    {0x1002, 0x74a1, gpu, "Instinct MI300X"},
    {0x1002, 0x74a5, gpu, "Instinct MI325X"},
    {0x1022, 0x1502, npu, "Ryzen AI NPU (Phoenix, Hawk Point)"},
    {0x1022, 0x17f0, npu, "Ryzen AI NPU (Strix)"},
    {0x10de, 0x1db1, gpu, "Tesla V100 SXM2 16GB"},
    {0x10de, 0x1db5, gpu, "Tesla V100 SXM2 32GB"},
    {0x10de, 0x1eb8, gpu, "Tesla T4"},
    {0x10de, 0x20b0, gpu, "A100 SXM4 40GB"},
    {0x10de, 0x20b2, gpu, "A100 SXM4 80GB"},
    {0x10de, 0x20b5, gpu, "A100 PCIe 80GB"},
    {0x10de, 0x20b7, gpu, "A30 PCIe"},
    {0x10de, 0x2235, gpu, "A40"},
    {0x10de, 0x2236, gpu, "A10"},
    {0x10de, 0x2330, gpu, "H100 SXM5 80GB"},
    {0x10de, 0x2331, gpu, "H100 PCIe"},
    {0x10de, 0x2335, gpu, "H200 SXM 141GB"},
    {0x10de, 0x2342, gpu, "GH200"},
    {0x10de, 0x2684, gpu, "GeForce RTX 4090"},
    {0x10de, 0x26b5, gpu, "L40"},
    {0x10de, 0x26b9, gpu, "L40S"},
    {0x10de, 0x27b8, gpu, "L4"},
    {0x10de, 0x2901, gpu, "B200"},
    {0x17cb, 0xa100, accelerator, "Cloud AI 100"},
    {0x17cb, 0xa080, accelerator, "Cloud AI 80"},
    {0x19e5, 0xd100, accelerator, "Ascend 310"},
    {0x19e5, 0xd801, accelerator, "Ascend 910"},
    {0x19e5, 0xd802, accelerator, "Ascend 910B"},
    {0x1ac1, 0x089a, accelerator, "Coral Edge TPU"},
    {0x1d0f, 0x7064, accelerator, "Inferentia"},
    {0x1d0f, 0x7164, accelerator, "Trainium"},
    {0x1d0f, 0x7264, accelerator, "Inferentia2"},
    {0x1d0f, 0x7364, accelerator, "Trainium2"},
    {0x1da3, 0x0001, accelerator, "Goya"},
    {0x1da3, 0x1000, accelerator, "Gaudi"},
    {0x1da3, 0x1020, accelerator, "Gaudi2"},
    {0x1da3, 0x1060, accelerator, "Gaudi3"},
    {0x1e52, 0x401e, accelerator, "Wormhole"},
    {0x1e52, 0xb140, accelerator, "Blackhole"},
    {0x1e52, 0xfaca, accelerator, "Grayskull"},
    {0x1e60, 0x2864, accelerator, "Hailo-8"},
    {0x8086, 0x0bd5, gpu, "Data Center GPU Max 1550"},
    {0x8086, 0x0bda, gpu, "Data Center GPU Max 1100"},
    {0x8086, 0x56a0, gpu, "Arc A770"},
    {0x8086, 0x56a1, gpu, "Arc A750"},
    {0x8086, 0x56c0, gpu, "Data Center GPU Flex 170"},
    {0x8086, 0x643e, npu, "NPU (Lunar Lake)"},
    {0x8086, 0x7d1d, npu, "NPU (Meteor Lake)"},
    {0x8086, 0xad1d, npu, "NPU (Arrow Lake)"},
    {0x8086, 0xb03e, npu, "NPU (Panther Lake)"},
    {0x8086, 0xe20b, gpu, "Arc B580"},
};

const DeviceRow* find(uint16_t vendor, uint16_t device) {
  auto row = std::find_if(std::begin(kDevices), std::end(kDevices),
                          [&](const DeviceRow& r) { return r.vendor == vendor && r.device == device; });
  return row == std::end(kDevices) ? nullptr : row;
}

std::string four_digits(uint16_t number) {
  char text[8];
  std::snprintf(text, sizeof text, "%04x", number);
  return text;
}

// From a pci.ids file: lines "VVVV  vendor", below it "\tDDDD  device". "" if it is not listed.
std::string listed_name(const std::string& list, uint16_t vendor, uint16_t device) {
  size_t at = list.find("\n" + four_digits(vendor) + "  ");
  if (at == list.npos) return "";
  const std::string wanted = "\t" + four_digits(device) + "  ";
  for (at = list.find('\n', at + 1); at != list.npos && at + 1 < list.size(); at = list.find('\n', at + 1)) {
    char first = list[at + 1];
    if (first != '\t' && first != '#' && first != '\n') return "";  // the next vendor
    if (list.compare(at + 1, wanted.size(), wanted) != 0) continue;
    size_t begin = at + 1 + wanted.size();
    return std::string(trim(std::string_view(list).substr(begin, list.find('\n', begin) - begin)));
  }
  return "";
}
}  // namespace

std::string vendor_name(uint16_t vendor) {
  for (const VendorRow& row : kVendors)
    if (row.id == vendor) return row.name;
  return "PCI vendor " + four_digits(vendor);
}

std::string device_name(const Tree& tree, uint16_t vendor, uint16_t device) {
  for (const char* path : {"/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"})
    if (auto list = tree.text(path))
      if (std::string name = listed_name("\n" + *list, vendor, device); !name.empty()) return name;
  const DeviceRow* row = find(vendor, device);
  return row ? row->name : "";
}

std::optional<DeviceKind> accelerator_kind(uint16_t vendor, uint16_t device, uint32_t class_code) {
  if (const DeviceRow* row = find(vendor, device)) return row->kind;
  const uint32_t base = class_code >> 16;
  const bool makes_gpus = vendor == 0x10de || vendor == 0x1002 || vendor == 0x8086;
  if (base == 0x03 && makes_gpus) return gpu;  // displays of others are management controllers and emulations
  if (base != 0x12) return std::nullopt;
  if (class_code >> 8 == 0x1201) return std::nullopt;  // moves data, does not compute (SDXI)
  if (vendor == 0x10de || vendor == 0x1002) return gpu;
  return vendor == 0x8086 || vendor == 0x1022 ? npu : accelerator;
}

}  // namespace ai_vmm
