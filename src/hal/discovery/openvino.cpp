// OpenVINO's C interface, declared after openvino/c/openvino.h. Properties are asked for by name and come as text.
#include <cstdio>

#include "base/config.hpp"
#include "base/library.hpp"
#include "base/python_packages.hpp"
#include "base/text.hpp"
#include "base/tree.hpp"
#include "hal/discovery/runtimes.hpp"

namespace ai_vmm {

namespace {
struct OpenVino : Library {
  struct Version {
    const char *build, *description;
  };
  struct Devices {
    char** names;
    size_t count;
  };
  Symbol<int(Version*)> ov_get_openvino_version{this, "ov_get_openvino_version"};
  Symbol<void(Version*)> ov_version_free{this, "ov_version_free"};
  Symbol<int(void**)> ov_core_create{this, "ov_core_create"};
  Symbol<void(void*)> ov_core_free{this, "ov_core_free"};
  Symbol<int(const void*, Devices*)> ov_core_get_available_devices{this, "ov_core_get_available_devices"};
  Symbol<void(Devices*)> ov_available_devices_free{this, "ov_available_devices_free"};
  Symbol<int(const void*, const char* device, const char* key, char** value)> ov_core_get_property{
      this, "ov_core_get_property"};
  Symbol<void(const char*)> ov_free{this, "ov_free"};
};
}  // namespace

Status ask_openvino(const std::string& folder, RuntimeReport& report) {
  OpenVino ov;
  auto config = Config::load();
  const std::string chosen = config.ok() ? config->text("openvino_library") : "";
  std::vector<std::string> files = library_candidates(chosen, "libopenvino_c.so", "openvino/libs");
  if (!folder.empty()) files.resize(1);
  Status loaded = ov.load(files, folder);
  report.library = ov.path();
  AI_VMM_TRY(std::move(loaded));
  OpenVino::Version version = {};
  if (ov.ov_get_openvino_version(&version) == 0) {
    report.version = version.build ? version.build : "";
    ov.ov_version_free(&version);
  }
  void* core = nullptr;
  if (int e = ov.ov_core_create(&core)) {
    report.error = e;
    return Status(Code::unavailable, "ov_core_create failed with error " + std::to_string(e) + ".");
  }
  auto property = [&](const std::string& device, const char* key) {
    char* value = nullptr;
    if (ov.ov_core_get_property(core, device.c_str(), key, &value) != 0 || !value) return std::string();
    std::string text(trim(value));
    ov.ov_free(value);
    return text;
  };
  OpenVino::Devices devices = {};
  if (ov.ov_core_get_available_devices(core, &devices) == 0) {
    for (size_t i = 0; i < devices.count; ++i) {
      RuntimeDevice d;
      d.index = devices.names[i];
      d.name = property(d.index, "FULL_DEVICE_NAME");
      d.architecture = property(d.index, "DEVICE_ARCHITECTURE");
      d.uuid = property(d.index, "DEVICE_UUID");
      const std::string family = d.index.substr(0, d.index.find('.'));
      d.kind = family == "CPU"   ? DeviceKind::processor
               : family == "GPU" ? DeviceKind::gpu
               : family == "NPU" ? DeviceKind::npu
                                 : DeviceKind::accelerator;
      // "{domain: 0 bus: 3 device: 0x0 function: 0}"
      unsigned domain = 0, bus = 0, device = 0, function = 0;
      if (std::sscanf(property(d.index, "DEVICE_PCI_INFO").c_str(), "{domain: %u bus: %u device: %x function: %u",
                      &domain, &bus, &device, &function) == 4)
        d.pci = PciAddress::of(domain, bus, device, function);
      for (const char* key : {"GPU_DEVICE_TOTAL_MEM_SIZE", "NPU_DEVICE_TOTAL_MEM_SIZE"})
        if (auto bytes = parse_number(property(d.index, key)); bytes && *bytes > 0) d.memory_bytes = bytes;
      report.devices.push_back(d);
    }
    ov.ov_available_devices_free(&devices);
  }
  ov.ov_core_free(core);
  return {};
}

}  // namespace ai_vmm
