// Intel: Level Zero, declared after its specification 1.x. GPUs and NPUs have a driver each behind the one loader.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/library.hpp"
#include "hal/discovery/runtimes.hpp"

namespace ai_vmm {

namespace {
struct Head {
  uint32_t type = 0;
  void* next = nullptr;
};
struct DriverProperties : Head {
  unsigned char uuid[16];
  uint32_t version;
};
struct DeviceProperties : Head {
  uint32_t kind, vendor, device, flags, subdevice, core_clock;
  uint64_t most_bytes_at_once;
  uint32_t contexts, priorities, threads_per_eu, simd_width, eus_per_subslice, subslices_per_slice, slices;
  uint64_t timer_resolution;
  uint32_t timestamp_bits, kernel_timestamp_bits;
  unsigned char uuid[16];
  char name[256];
};
struct MemoryProperties : Head {
  uint32_t flags, clock, bus_width;
  uint64_t bytes;
  char name[256];
};
struct PciProperties : Head {
  uint32_t domain, bus, device, function;
  int32_t generation, width;
  int64_t bandwidth;
};
static_assert(sizeof(DriverProperties) == 40 && sizeof(DeviceProperties) == 368 && sizeof(MemoryProperties) == 296 &&
                  sizeof(PciProperties) == 48,
              "as the specification lays them out on 64-bit machines");
enum : uint32_t { kDriver = 0x1, kDevice = 0x3, kMemory = 0x7, kPci = 0x10008 };
enum : uint32_t { kGpu = 1, kCpu = 2, kVpu = 5 };
constexpr unsigned kUninitialized = 0x78000001;

struct LevelZero : Library {
  Symbol<unsigned(uint32_t flags)> zeInit{this, "zeInit"};
  Symbol<unsigned(uint32_t* count, void** drivers)> zeDriverGet{this, "zeDriverGet"};
  Symbol<unsigned(void*, DriverProperties*)> zeDriverGetProperties{this, "zeDriverGetProperties"};
  Symbol<unsigned(void*, uint32_t*, void**)> zeDeviceGet{this, "zeDeviceGet"};
  Symbol<unsigned(void*, DeviceProperties*)> zeDeviceGetProperties{this, "zeDeviceGetProperties"};
  Symbol<unsigned(void*, uint32_t*, MemoryProperties*)> zeDeviceGetMemoryProperties{this,
                                                                                    "zeDeviceGetMemoryProperties"};
  Symbol<unsigned(void*, PciProperties*)> zeDevicePciGetPropertiesExt{this, "zeDevicePciGetPropertiesExt", optional};
};

template <class Properties>
Properties blank(uint32_t type) {
  Properties p = {};
  p.type = type;
  return p;
}
}  // namespace

Status ask_level_zero(const std::string& folder, RuntimeReport& report) {
  LevelZero ze;
  Status loaded = ze.load({"libze_loader.so.1"}, folder);
  report.library = ze.path();
  AI_VMM_TRY(std::move(loaded));
  auto failed = [&](const char* call, unsigned error) {
    char text[64];
    std::snprintf(text, sizeof text, " failed with error 0x%08x", error);
    report.error = int64_t(error);
    return Status(Code::unavailable,
                  call + std::string(text) + (error == kUninitialized ? ": the loader has no driver behind it." : "."));
  };
  uint32_t count = 0;
  if (unsigned e = ze.zeInit(0)) return failed("zeInit", e);
  if (unsigned e = ze.zeDriverGet(&count, nullptr)) return failed("zeDriverGet", e);
  std::vector<void*> drivers(std::min<uint32_t>(count, 256));
  count = uint32_t(drivers.size());
  if (unsigned e = ze.zeDriverGet(&count, drivers.data())) return failed("zeDriverGet", e);
  for (size_t k = 0; k < drivers.size(); ++k) {
    auto driver = blank<DriverProperties>(kDriver);
    std::string version;
    if (ze.zeDriverGetProperties(drivers[k], &driver) == 0) version = std::to_string(driver.version);
    count = 0;
    if (ze.zeDeviceGet(drivers[k], &count, nullptr) != 0) continue;
    std::vector<void*> devices(std::min<uint32_t>(count, 4096));
    count = uint32_t(devices.size());
    if (ze.zeDeviceGet(drivers[k], &count, devices.data()) != 0) continue;
    for (size_t i = 0; i < devices.size(); ++i) {
      RuntimeDevice d;
      d.index = std::to_string(k) + "." + std::to_string(i);
      d.driver = version;
      auto p = blank<DeviceProperties>(kDevice);
      if (ze.zeDeviceGetProperties(devices[i], &p) == 0) {
        d.name.assign(p.name, strnlen(p.name, sizeof p.name));
        d.uuid = uuid_text(p.uuid);
        d.kind = p.kind == kGpu   ? DeviceKind::gpu
                 : p.kind == kVpu ? DeviceKind::npu
                 : p.kind == kCpu ? DeviceKind::processor
                                  : DeviceKind::accelerator;
      }
      auto pci = blank<PciProperties>(kPci);
      if (ze.zeDevicePciGetPropertiesExt && ze.zeDevicePciGetPropertiesExt(devices[i], &pci) == 0)
        d.pci = PciAddress::of(pci.domain, pci.bus, pci.device, pci.function);
      count = 0;
      if (ze.zeDeviceGetMemoryProperties(devices[i], &count, nullptr) == 0 && count > 0 && count <= 64) {
        std::vector<MemoryProperties> memories(count, blank<MemoryProperties>(kMemory));
        int64_t bytes = 0;
        if (ze.zeDeviceGetMemoryProperties(devices[i], &count, memories.data()) == 0)
          for (const auto& m : memories) bytes += int64_t(m.bytes);
        if (bytes > 0) d.memory_bytes = bytes;
      }
      report.devices.push_back(d);
    }
  }
  return {};
}

}  // namespace ai_vmm
