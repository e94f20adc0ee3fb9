#include "hal/discovery/system.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <tuple>

#include "base/amd_topology.hpp"
#include "base/text.hpp"
#include "hal/discovery/pci_names.hpp"

namespace ai_vmm {

namespace {
const std::string kPci = "/sys/bus/pci/devices/";

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// The value after "key:" of a file of such lines.
std::string field(const std::string& text, const std::string& key) {
  for (std::string_view line : split(text, '\n')) {
    size_t colon = line.find(':');
    if (colon != line.npos && trim(line.substr(0, colon)) == key) return std::string(trim(line.substr(colon + 1)));
  }
  return "";
}

template <class T>
std::optional<T> in_range(std::optional<int64_t> value, int64_t least, int64_t most) {
  return value && *value >= least && *value <= most ? std::optional<T>(T(*value)) : std::nullopt;
}

// "root:x:0:" lines of /etc/group.
std::string group_name(const Tree& tree, gid_t id) {
  const std::string groups = tree.text("/etc/group").value_or("");
  for (std::string_view line : split(groups, '\n')) {
    auto fields = split(line, ':');
    if (fields.size() >= 3 && parse_number(fields[2]) == int64_t(id)) return std::string(fields[0]);
  }
  return std::to_string(id);
}

DeviceNode node_at(const Tree& tree, const std::string& path) {
  DeviceNode node{path, false, false, ""};
  struct stat status;
  if (stat(tree.file(path).c_str(), &status) != 0) return node;
  node.exists = true;
  node.usable = faccessat(AT_FDCWD, tree.file(path).c_str(), R_OK | W_OK, AT_EACCESS) == 0;
  if ((status.st_mode & 0060) == 0060) node.group = group_name(tree, status.st_gid);
  return node;
}

// "16.0 GT/s PCIe" and "16" → "16.0 GT/s x16"; emulated ports say "Unknown" or widths of 0 and 255.
std::string link_text(const Tree& tree, const std::string& at, const std::string& which) {
  std::string speed = tree.text(at + "/" + which + "_link_speed").value_or("");
  auto width = in_range<int>(tree.number(at + "/" + which + "_link_width"), 1, 64);
  if (size_t end = speed.find(" PCIe"); end != speed.npos) speed.resize(end);
  if (!width || speed.empty() || speed[0] < '0' || speed[0] > '9') return "";
  return speed + " x" + std::to_string(*width);
}

// NVIDIA's driver tells about its devices in procfs, to everyone.
void read_nvidia(const Tree& tree, Accelerator& a) {
  auto information = tree.text("/proc/driver/nvidia/gpus/" + a.pci->text() + "/information");
  if (a.driver != "nvidia" || !information) return;
  if (std::string model = field(*information, "Model"); !model.empty() && model != "Unknown") a.name = model;
  std::string uuid = field(*information, "GPU UUID");
  if (uuid.find('?') == uuid.npos) a.serial = uuid;  // question marks until the device is first opened
  for (auto [key, shown] : {std::pair("Video BIOS", "VBIOS"), std::pair("GPU Firmware", "GSP")})
    if (std::string v = field(*information, key); !v.empty() && v.find('?') == v.npos && v != "N/A")
      a.firmware[shown] = v;
  if (auto minor = in_range<int>(parse_number(field(*information, "Device Minor")), 0, 1 << 20))
    a.nodes.push_back(node_at(tree, "/dev/nvidia" + std::to_string(*minor)));
  a.nodes.push_back(node_at(tree, "/dev/nvidiactl"));
  a.nodes.push_back(node_at(tree, "/dev/nvidia-uvm"));
}

// A PCI function as the kernel shows it to everyone.
Accelerator read_pci_function(const Tree& tree, const PciAddress& pci, DeviceKind kind) {
  const std::string at = kPci + pci.text();
  Accelerator a;
  a.kind = kind;
  a.pci = pci;
  a.resource = resource_name(pci, tree.root());
  a.vendor_id = in_range<uint16_t>(tree.number(at + "/vendor"), 0, 0xffff);
  a.device_id = in_range<uint16_t>(tree.number(at + "/device"), 0, 0xffff);
  a.numa_node = in_range<int>(tree.number(at + "/numa_node"), 0, 1 << 20);  // -1: the firmware does not say
  if (auto group = tree.resolve(at + "/iommu_group"))
    a.iommu_group = in_range<int>(parse_number(file_name(*group)), 0, 1 << 30);
  std::string now = link_text(tree, at, "current"), most = link_text(tree, at, "max");
  a.link = now.empty() || most.empty() || now == most ? now : now + " of " + most;
  if (auto driver = tree.resolve(at + "/driver")) a.driver = file_name(*driver);
  a.memory_bytes = in_range<int64_t>(tree.number(at + "/mem_info_vram_total"), 1, INT64_MAX);   // amdgpu
  a.serial = tree.text(at + "/unique_id").value_or("");                                         // amdgpu
  if (auto model = tree.text(at + "/product_name"); model && !model->empty()) a.name = *model;  // amdgpu
  if (auto bios = tree.text(at + "/vbios_version"); bios && !bios->empty()) a.firmware["VBIOS"] = *bios;
  for (const std::string& f : tree.names(at + "/fw_version"))
    if (auto version = tree.text(at + "/fw_version/" + f)) a.firmware[f.substr(0, f.find("_fw_version"))] = *version;
  read_nvidia(tree, a);
  return a;
}

// Intel's Gaudi: files of the accel device. They can be unreadable while the device resets.
void read_habana(const Tree& tree, const std::string& at, Accelerator& a) {
  if (a.driver != "habanalabs") return;
  for (auto [file, shown] :
       {std::pair("fw_os_ver", "OS"), std::pair("cpucp_ver", "CPU-CP"), std::pair("preboot_btl_ver", "preboot")})
    if (auto version = tree.text(at + "/" + file); version && !version->empty()) a.firmware[shown] = *version;
}

void read_kfd(const Tree& tree, std::vector<Accelerator>& accelerators) {
  for (const AmdNode& n : amd_nodes(tree))
    for (Accelerator& a : accelerators) {
      if (a.pci != n.pci) continue;
      a.architecture = n.architecture;
      a.nodes.push_back(node_at(tree, "/dev/kfd"));
    }
}

// The entries of a device class: /sys/class/accel/accel0 belongs to /dev/accel/accel0 and to the device that it links
// to, which gets the node. A device that is not on PCI is new here.
void read_class(const Tree& tree, const std::string& device_class, const std::string& prefix, const std::string& dev,
                DeviceKind kind, std::vector<Accelerator>& accelerators) {
  for (const std::string& entry : tree.names("/sys/class/" + device_class)) {
    if (!entry.starts_with(prefix) || !parse_number(entry.substr(prefix.size()))) continue;  // accel_controlD0
    const std::string at = "/sys/class/" + device_class + "/" + entry + "/device";
    auto device = tree.resolve(at);
    if (!device) continue;
    auto driver_link = tree.resolve(at + "/driver");
    std::string driver = driver_link ? file_name(*driver_link) : "";
    if (driver == "vgem" || driver == "vkms" || driver == "simple-framebuffer") continue;  // memory and screens only
    auto pci = PciAddress::parse(file_name(*device));
    auto a = std::find_if(accelerators.begin(), accelerators.end(), [&](const Accelerator& other) {
      return pci ? other.pci == pci : other.resource == "platform:" + file_name(*device);
    });
    if (a == accelerators.end()) {
      if (pci && device_class == "drm") continue;  // graphics that accelerator_kind() has refused
      if (!pci && (driver.empty() || !device->starts_with("/sys/devices/"))) continue;  // not a device
      Accelerator found;
      if (pci) found = read_pci_function(tree, *pci, kind);
      found.kind = kind;
      found.driver = driver;
      if (!pci) found.resource = "platform:" + file_name(*device);
      a = accelerators.insert(accelerators.end(), found);
    }
    a->nodes.push_back(node_at(tree, dev + entry));
    if (device_class == "accel") read_habana(tree, at, *a);
  }
}
}  // namespace

Machine read_system(const Tree& tree) {
  Machine machine;
  machine.kernel = tree.text("/proc/sys/kernel/osrelease").value_or("");
  std::vector<Accelerator> found;
  for (const std::string& entry : tree.names(kPci)) {
    auto pci = PciAddress::parse(entry);
    if (!pci || pci->text() != entry) continue;
    auto vendor = in_range<uint16_t>(tree.number(kPci + entry + "/vendor"), 0, 0xffff);
    auto device = in_range<uint16_t>(tree.number(kPci + entry + "/device"), 0, 0xffff);
    auto code = in_range<uint32_t>(tree.number(kPci + entry + "/class"), 0, 0xffffff);
    if (!vendor || !device || !code) continue;
    auto kind = accelerator_kind(*vendor, *device, *code);
    if (!kind) continue;
    found.push_back(read_pci_function(tree, *pci, *kind));
  }
  read_class(tree, "accel", "accel", "/dev/accel/", DeviceKind::npu, found);
  read_class(tree, "drm", "renderD", "/dev/dri/", DeviceKind::gpu, found);
  read_kfd(tree, found);
  for (Accelerator& a : found) {
    std::string module = a.driver;
    std::replace(module.begin(), module.end(), '-', '_');
    if (!module.empty()) a.driver_version = tree.text("/sys/module/" + module + "/version").value_or("");
    if (a.vendor_id) a.vendor = vendor_name(*a.vendor_id);
    if (a.name.empty() && a.vendor_id && a.device_id) a.name = device_name(tree, *a.vendor_id, *a.device_id);
  }
  std::sort(found.begin(), found.end(), [](const Accelerator& a, const Accelerator& b) {
    return std::tie(a.pci, a.resource) < std::tie(b.pci, b.resource);
  });

  machine.processor = processor_facts(tree.root());
  Accelerator processor;
  processor.kind = DeviceKind::processor;
  processor.id = processor.resource = "cpu:0";
  processor.name = machine.processor.model;
  if (machine.processor.memory_bytes > 0) processor.memory_bytes = machine.processor.memory_bytes;
  machine.accelerators.push_back(std::move(processor));
  std::move(found.begin(), found.end(), std::back_inserter(machine.accelerators));
  return machine;
}

}  // namespace ai_vmm
