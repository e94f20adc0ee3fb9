// AMD: HIP's runtime, declared after AMD's reference manual. Its large property structure changes with the version and
// is not used: the architecture comes from the kernel.
#include <algorithm>
#include <cctype>

#include "base/library.hpp"
#include "hal/discovery/runtimes.hpp"

namespace ai_vmm {

namespace {
struct Hip : Library {
  Symbol<int(unsigned flags)> hipInit{this, "hipInit"};
  Symbol<int(int* version)> hipRuntimeGetVersion{this, "hipRuntimeGetVersion"};
  Symbol<int(int* count)> hipGetDeviceCount{this, "hipGetDeviceCount"};
  Symbol<int(int* device, int ordinal)> hipDeviceGet{this, "hipDeviceGet"};
  Symbol<int(char* name, int size, int device)> hipDeviceGetName{this, "hipDeviceGetName"};
  Symbol<int(char* text, int size, int device)> hipDeviceGetPCIBusId{this, "hipDeviceGetPCIBusId"};
  Symbol<int(size_t* bytes, int device)> hipDeviceTotalMem{this, "hipDeviceTotalMem"};
  Symbol<int(char* uuid, int device)> hipDeviceGetUuid{this, "hipDeviceGetUuid", optional};
  Symbol<const char*(int error)> hipGetErrorName{this, "hipGetErrorName"};
  Symbol<const char*(int error)> hipGetErrorString{this, "hipGetErrorString"};
};

// Versions are 10^7 · major + 10^5 · minor + patch.
std::string version_text(int v) { return std::to_string(v / 10000000) + "." + std::to_string(v / 100000 % 100); }
}  // namespace

Status ask_hip(const std::string& folder, RuntimeReport& report) {
  Hip hip;
  Status loaded = hip.load({"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so"}, folder);
  report.library = hip.path();
  AI_VMM_TRY(std::move(loaded));
  auto failed = [&](const char* call, int error) {
    const char *name = hip.hipGetErrorName(error), *text = hip.hipGetErrorString(error);
    report.error = error;
    return Status(Code::unavailable, std::string(call) + " failed with " + (name ? name : "error") + " (" +
                                         std::to_string(error) + ")" + (text ? std::string(": ") + text : "") + ".");
  };
  int version = 0, count = 0;
  if (int e = hip.hipInit(0)) return failed("hipInit", e);
  if (hip.hipRuntimeGetVersion(&version) == 0 && version > 0) report.version = version_text(version);
  if (int e = hip.hipGetDeviceCount(&count)) return failed("hipGetDeviceCount", e);
  for (int i = 0; i < count; ++i) {
    RuntimeDevice d;
    d.index = std::to_string(i);
    d.kind = DeviceKind::gpu;
    int device = 0;
    if (int e = hip.hipDeviceGet(&device, i)) return failed("hipDeviceGet", e);
    char text[256] = "";
    if (hip.hipDeviceGetName(text, sizeof text - 1, device) == 0) d.name = text;
    if (hip.hipDeviceGetPCIBusId(text, sizeof text - 1, device) == 0) d.pci = PciAddress::parse(text);
    size_t bytes = 0;
    if (hip.hipDeviceTotalMem(&bytes, device) == 0) d.memory_bytes = int64_t(bytes);
    char uuid[16] = {};  // the device's unique number as 16 hexadecimal digits, not terminated
    if (hip.hipDeviceGetUuid && hip.hipDeviceGetUuid(uuid, device) == 0 &&
        std::all_of(uuid, uuid + 16, [](unsigned char c) { return std::isxdigit(c); }))
      d.uuid.assign(uuid, 16);
    report.devices.push_back(d);
  }
  return {};
}

}  // namespace ai_vmm
