// OpenCL, declared after the Khronos specification; the loader (ICD) and every implementation behind it.
#include <cstring>

#include "base/library.hpp"
#include "base/text.hpp"
#include "hal/discovery/runtimes.hpp"

namespace ai_vmm {

namespace {
struct OpenCl : Library {
  using Get = int32_t(void* object, uint32_t what, size_t size, void* value, size_t* needed);
  Symbol<int32_t(uint32_t, void**, uint32_t*)> clGetPlatformIDs{this, "clGetPlatformIDs"};
  Symbol<Get> clGetPlatformInfo{this, "clGetPlatformInfo"};
  Symbol<int32_t(void*, uint64_t, uint32_t, void**, uint32_t*)> clGetDeviceIDs{this, "clGetDeviceIDs"};
  Symbol<Get> clGetDeviceInfo{this, "clGetDeviceInfo"};
};

enum : uint32_t {
  kPlatformVersion = 0x0901,
  kPlatformName = 0x0902,
  kDeviceType = 0x1000,
  kGlobalMemory = 0x101f,
  kDeviceName = 0x102b,
  kDriverVersion = 0x102d,
  kUuid = 0x106a,     // cl_khr_device_uuid
  kMajorNv = 0x4000,  // cl_nv_device_attribute_query; the next is the minor version
};
constexpr uint64_t kAllTypes = 0xffffffff, kCpu = 2, kGpu = 4, kAccelerator = 8;
constexpr int32_t kNoPlatforms = -1001, kNoDevices = -1;

std::string text_of(OpenCl::Get* get, void* object, uint32_t what) {
  size_t needed = 0;
  if (get(object, what, 0, nullptr, &needed) != 0 || needed == 0 || needed > (1 << 20)) return "";
  std::string text(needed, '\0');
  if (get(object, what, needed, text.data(), nullptr) != 0) return "";
  return std::string(trim(text.c_str()));
}

template <class T>
std::optional<T> value_of(OpenCl::Get* get, void* object, uint32_t what) {
  T value = {};
  size_t needed = 0;
  if (get(object, what, sizeof value, &value, &needed) != 0 || needed != sizeof value) return std::nullopt;
  return value;
}

}  // namespace

Status ask_opencl(const std::string& folder, RuntimeReport& report) {
  OpenCl cl;
  Status loaded = cl.load({"libOpenCL.so.1"}, folder);
  report.library = cl.path();
  AI_VMM_TRY(std::move(loaded));
  uint32_t count = 0;
  int32_t error = cl.clGetPlatformIDs(0, nullptr, &count);
  if (error == kNoPlatforms || (error == 0 && count == 0))
    return Status(Code::unavailable, "The OpenCL loader has no implementation behind it (/etc/OpenCL/vendors).");
  if (error || count > 256) {
    report.error = error;
    return Status(Code::unavailable, "clGetPlatformIDs failed with error " + std::to_string(error) + ".");
  }
  std::vector<void*> platforms(count);
  if (cl.clGetPlatformIDs(count, platforms.data(), nullptr) != 0) platforms.clear();
  for (size_t p = 0; p < platforms.size(); ++p) {
    std::string platform = text_of(cl.clGetPlatformInfo, platforms[p], kPlatformName);
    std::string version = text_of(cl.clGetPlatformInfo, platforms[p], kPlatformVersion);
    report.version += (report.version.empty() ? "" : "; ") + version;
    error = cl.clGetDeviceIDs(platforms[p], kAllTypes, 0, nullptr, &count);
    if (error == kNoDevices || count > 4096) continue;
    if (error) {
      report.problem += "The platform \"" + platform + "\" fails with error " + std::to_string(error) + ". ";
      continue;
    }
    std::vector<void*> devices(count);
    if (cl.clGetDeviceIDs(platforms[p], kAllTypes, count, devices.data(), nullptr) != 0) continue;
    for (size_t i = 0; i < devices.size(); ++i) {
      RuntimeDevice d;
      d.index = std::to_string(p) + "." + std::to_string(i);
      d.platform = platform;
      d.name = text_of(cl.clGetDeviceInfo, devices[i], kDeviceName);
      d.driver = text_of(cl.clGetDeviceInfo, devices[i], kDriverVersion);
      if (auto type = value_of<uint64_t>(cl.clGetDeviceInfo, devices[i], kDeviceType))
        d.kind = *type & kGpu           ? std::optional(DeviceKind::gpu)
                 : *type & kAccelerator ? std::optional(DeviceKind::accelerator)
                 : *type & kCpu         ? std::optional(DeviceKind::processor)
                                        : std::nullopt;
      if (auto bytes = value_of<uint64_t>(cl.clGetDeviceInfo, devices[i], kGlobalMemory))
        d.memory_bytes = int64_t(*bytes);
      d.pci = opencl_pci_address([&](uint32_t what, void* value, size_t bytes) {
        size_t needed = 0;
        return cl.clGetDeviceInfo(devices[i], what, bytes, value, &needed) == 0 && needed == bytes;
      });
      if (auto major = value_of<uint32_t>(cl.clGetDeviceInfo, devices[i], kMajorNv))
        if (auto minor = value_of<uint32_t>(cl.clGetDeviceInfo, devices[i], kMajorNv + 1))
          d.architecture = "sm_" + std::to_string(*major) + std::to_string(*minor);
      struct Uuid {
        unsigned char bytes[16];
      };
      if (auto u = value_of<Uuid>(cl.clGetDeviceInfo, devices[i], kUuid)) d.uuid = uuid_text(u->bytes);
      report.devices.push_back(d);
    }
  }
  return {};
}

}  // namespace ai_vmm
