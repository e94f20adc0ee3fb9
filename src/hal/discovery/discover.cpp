#include "hal/discovery/discover.hpp"

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "hal/discovery/advice.hpp"
#include "hal/discovery/pci_names.hpp"
#include "hal/discovery/system.hpp"

namespace ai_vmm {

const char* name(DeviceKind kind) {
  constexpr const char* kNames[] = {"processor", "gpu", "npu", "accelerator"};
  return kNames[int(kind)];
}

bool Accelerator::computes() const {
  return std::any_of(seen.begin(), seen.end(), [](const Sight& s) { return s.runtime != Runtime::nvml; });
}

namespace {
// Whose devices a runtime reports: a vendor's number, or nullopt where it serves several.
std::optional<uint16_t> vendor_of(Runtime runtime, const RuntimeDevice& d) {
  switch (runtime) {
    case Runtime::cuda:
    case Runtime::nvml: return 0x10de;
    case Runtime::hip: return 0x1002;
    case Runtime::level_zero:
    case Runtime::openvino: return 0x8086;
    case Runtime::opencl: break;
  }
  for (auto [word, vendor] : {std::pair("NVIDIA", 0x10de), std::pair("AMD", 0x1002), std::pair("Intel", 0x8086)})
    if (d.platform.starts_with(word) || d.name.starts_with(word)) return uint16_t(vendor);
  return std::nullopt;
}

// NVIDIA's tools write "GPU-" before the number that OpenCL gives alone.
std::string_view bare(std::string_view uuid) { return uuid.starts_with("GPU-") ? uuid.substr(4) : uuid; }

bool has_uuid(const Accelerator& a, const std::string& uuid) {
  if (uuid.empty()) return false;
  return bare(a.serial) == bare(uuid) ||
         std::any_of(a.seen.begin(), a.seen.end(), [&](const auto& s) { return bare(s.device.uuid) == bare(uuid); });
}

Accelerator* place(Machine& machine, Runtime runtime, const RuntimeDevice& d) {
  auto& all = machine.accelerators;
  auto first = [&](auto&& fits) -> Accelerator* {
    auto a = std::find_if(all.begin(), all.end(), fits);
    return a == all.end() ? nullptr : &*a;
  };
  if (d.kind == DeviceKind::processor) return first([](const auto& a) { return a.kind == DeviceKind::processor; });
  if (d.pci) return first([&](const auto& a) { return a.pci == d.pci; });
  if (Accelerator* a = first([&](const auto& a) { return has_uuid(a, d.uuid); })) return a;
  // No address: the one device that it can be, if there is exactly one.
  auto vendor = vendor_of(runtime, d);
  auto fits = [&](const Accelerator& a) {
    return d.kind && a.kind == *d.kind && a.vendor_id && vendor && *a.vendor_id == *vendor;
  };
  return std::count_if(all.begin(), all.end(), fits) == 1 ? first(fits) : nullptr;
}

// What only runtimes know of: in virtual machines and containers that hide PCI.
Accelerator unknown_to_kernel(Runtime runtime, const RuntimeDevice& d) {
  Accelerator a;
  a.by_system = false;
  a.kind = d.kind.value_or(DeviceKind::accelerator);
  a.pci = d.pci;
  a.vendor_id = vendor_of(runtime, d);
  a.resource = d.pci ? resource_name(*d.pci)
               : !d.uuid.empty()
                   ? "uuid:" + d.uuid
                   : std::string(identifier(runtime)) + ":" + (d.platform.empty() ? "" : d.platform + "/") +
                         (d.name.empty() ? d.index : d.name);
  return a;
}
}  // namespace

void join(Machine& machine, std::vector<RuntimeReport> reports) {
  machine.runtimes = std::move(reports);
  for (const RuntimeReport& report : machine.runtimes) {
    for (const RuntimeDevice& d : report.devices) {
      Accelerator* a = place(machine, report.runtime, d);
      if (!a) {
        machine.accelerators.push_back(unknown_to_kernel(report.runtime, d));
        a = &machine.accelerators.back();
      }
      a->seen.push_back({report.runtime, d});
    }
  }
}

namespace {
// Fills what the kernel left open from what runtimes told, and gives each its identity.
void complete(Accelerator& a) {
  for (const auto& [runtime, d] : a.seen) {
    if (a.kind == DeviceKind::processor) break;
    if (a.name.empty() || (runtime == Runtime::nvml && !d.name.empty())) a.name = d.name;
    if (a.serial.empty()) a.serial = d.uuid;
    if (a.architecture.empty()) a.architecture = d.architecture;
    if (a.driver_version.empty() && runtime == Runtime::nvml) a.driver_version = d.driver;
    if (!a.memory_bytes) a.memory_bytes = d.memory_bytes;
    if (runtime == Runtime::nvml && !d.firmware.empty()) a.firmware["VBIOS"] = d.firmware;
  }
  if (a.vendor.empty() && a.vendor_id) a.vendor = vendor_name(*a.vendor_id);
  if (a.name.empty() && a.vendor_id && a.device_id) {
    char text[16];
    std::snprintf(text, sizeof text, "%04x:%04x", *a.vendor_id, *a.device_id);
    a.name = std::string(name(a.kind)) + " " + text;
  }
  if (a.name.empty()) a.name = a.driver.empty() ? name(a.kind) : a.driver + " " + name(a.kind);
  if (!a.vendor.empty() && !a.name.starts_with(a.vendor)) a.name = a.vendor + " " + a.name;
  if (a.id.empty()) a.id = (a.pci ? "pci:" + a.pci->text() : a.resource) + (a.serial.empty() ? "" : "#" + a.serial);
}
}  // namespace

Machine discover(const DiscoverOptions& options) {
  Tree tree(options.root);
  Machine machine = read_system(tree);
  if (options.ask_runtimes) join(machine, ask(kRuntimes, options.runtimes));
  for (Accelerator& a : machine.accelerators) complete(a);
  advise(machine, tree);
  return machine;
}

const Machine& this_machine() {
  static const Machine machine = discover({});
  return machine;
}

}  // namespace ai_vmm
