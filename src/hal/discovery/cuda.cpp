// NVIDIA: CUDA's driver interface, which computes, and NVML, which tells. Declared after NVIDIA's reference manuals.
#include <cstring>

#include "base/library.hpp"
#include "hal/discovery/runtimes.hpp"

namespace ai_vmm {

namespace {
struct CudaDriver : Library {
  Symbol<int(unsigned flags)> cuInit{this, "cuInit"};
  Symbol<int(int* version)> cuDriverGetVersion{this, "cuDriverGetVersion"};
  Symbol<int(int* count)> cuDeviceGetCount{this, "cuDeviceGetCount"};
  Symbol<int(int* device, int ordinal)> cuDeviceGet{this, "cuDeviceGet"};
  Symbol<int(char* name, int size, int device)> cuDeviceGetName{this, "cuDeviceGetName"};
  Symbol<int(size_t* bytes, int device)> cuDeviceTotalMem{this, "cuDeviceTotalMem_v2"};
  Symbol<int(char* text, int size, int device)> cuDeviceGetPCIBusId{this, "cuDeviceGetPCIBusId"};
  Symbol<int(int* value, int attribute, int device)> cuDeviceGetAttribute{this, "cuDeviceGetAttribute"};
  Symbol<int(unsigned char* uuid, int device)> cuDeviceGetUuid{this, "cuDeviceGetUuid"};
  Symbol<int(unsigned char* uuid, int device)> cuDeviceGetUuid_v2{this, "cuDeviceGetUuid_v2", optional};  // knows MIG
  Symbol<int(int error, const char** text)> cuGetErrorName{this, "cuGetErrorName"};
  Symbol<int(int error, const char** text)> cuGetErrorString{this, "cuGetErrorString"};
};
constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*

// Versions are 1000 · major + 10 · minor.
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

struct Nvml : Library {
  struct Pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
  };
  struct Memory {
    unsigned long long total, free, used;
  };
  Symbol<int()> nvmlInit{this, "nvmlInit_v2"};
  Symbol<int()> nvmlShutdown{this, "nvmlShutdown"};
  Symbol<int(char*, unsigned)> nvmlSystemGetDriverVersion{this, "nvmlSystemGetDriverVersion"};
  Symbol<int(unsigned*)> nvmlDeviceGetCount{this, "nvmlDeviceGetCount_v2"};
  Symbol<int(unsigned, void**)> nvmlDeviceGetHandleByIndex{this, "nvmlDeviceGetHandleByIndex_v2"};
  Symbol<int(void*, char*, unsigned)> nvmlDeviceGetName{this, "nvmlDeviceGetName"};
  Symbol<int(void*, char*, unsigned)> nvmlDeviceGetUUID{this, "nvmlDeviceGetUUID"};
  Symbol<int(void*, char*, unsigned)> nvmlDeviceGetSerial{this, "nvmlDeviceGetSerial"};
  Symbol<int(void*, char*, unsigned)> nvmlDeviceGetVbiosVersion{this, "nvmlDeviceGetVbiosVersion"};
  Symbol<int(void*, Pci*)> nvmlDeviceGetPciInfo{this, "nvmlDeviceGetPciInfo_v3"};
  Symbol<int(void*, Memory*)> nvmlDeviceGetMemoryInfo{this, "nvmlDeviceGetMemoryInfo"};
  Symbol<const char*(int)> nvmlErrorString{this, "nvmlErrorString"};
};
}  // namespace

Status ask_cuda(const std::string& folder, RuntimeReport& report) {
  CudaDriver cuda;
  Status loaded = cuda.load({"libcuda.so.1"}, folder);
  report.library = cuda.path();
  AI_VMM_TRY(std::move(loaded));
  auto failed = [&](const char* call, int error) {
    const char *name = nullptr, *text = nullptr;
    cuda.cuGetErrorName(error, &name);
    cuda.cuGetErrorString(error, &text);
    report.error = error;
    return Status(Code::unavailable, std::string(call) + " failed with " + (name ? name : "error") + " (" +
                                         std::to_string(error) + ")" + (text ? std::string(": ") + text : "") + ".");
  };
  int version = 0, count = 0;
  if (cuda.cuDriverGetVersion(&version) == 0) report.version = version_text(version);
  if (int e = cuda.cuInit(0)) return failed("cuInit", e);
  if (int e = cuda.cuDeviceGetCount(&count)) return failed("cuDeviceGetCount", e);
  for (int i = 0; i < count; ++i) {
    RuntimeDevice d;
    d.index = std::to_string(i);
    d.kind = DeviceKind::gpu;
    int device = 0, major = 0, minor = 0;
    if (int e = cuda.cuDeviceGet(&device, i)) return failed("cuDeviceGet", e);
    char text[256] = "";
    if (cuda.cuDeviceGetName(text, sizeof text - 1, device) == 0) d.name = text;
    if (cuda.cuDeviceGetPCIBusId(text, sizeof text - 1, device) == 0) d.pci = PciAddress::parse(text);
    size_t bytes = 0;
    if (cuda.cuDeviceTotalMem(&bytes, device) == 0) d.memory_bytes = int64_t(bytes);
    if (cuda.cuDeviceGetAttribute(&major, kMajor, device) == 0 &&
        cuda.cuDeviceGetAttribute(&minor, kMinor, device) == 0)
      d.architecture = "sm_" + std::to_string(major) + std::to_string(minor);
    unsigned char u[16] = {};
    if ((cuda.cuDeviceGetUuid_v2 ? cuda.cuDeviceGetUuid_v2 : cuda.cuDeviceGetUuid)(u, device) == 0) {
      d.uuid = "GPU-" + uuid_text(u);
    }
    report.devices.push_back(d);
  }
  return {};
}

Status ask_nvml(const std::string& folder, RuntimeReport& report) {
  Nvml nvml;
  Status loaded = nvml.load({"libnvidia-ml.so.1"}, folder);
  report.library = nvml.path();
  AI_VMM_TRY(std::move(loaded));
  auto failed = [&](const char* call, int error) {
    const char* text = nvml.nvmlErrorString(error);
    report.error = error;
    return Status(Code::unavailable, std::string(call) + " failed with error " + std::to_string(error) +
                                         (text ? std::string(": ") + text : "") + ".");
  };
  if (int e = nvml.nvmlInit()) return failed("nvmlInit", e);
  struct Shutdown {
    Nvml& nvml;
    ~Shutdown() { nvml.nvmlShutdown(); }
  } shutdown{nvml};
  char text[256] = "";
  if (nvml.nvmlSystemGetDriverVersion(text, sizeof text - 1) == 0) report.version = text;
  unsigned count = 0;
  if (int e = nvml.nvmlDeviceGetCount(&count)) return failed("nvmlDeviceGetCount", e);
  for (unsigned i = 0; i < count; ++i) {
    void* h = nullptr;
    if (nvml.nvmlDeviceGetHandleByIndex(i, &h) != 0) continue;  // lost, or not ours to see
    RuntimeDevice d;
    d.index = std::to_string(i);
    d.kind = DeviceKind::gpu;
    d.driver = report.version;
    auto told = [&](auto& call, std::string& to) {
      if (call(h, text, sizeof text - 1) == 0) to = text;
    };
    told(nvml.nvmlDeviceGetName, d.name);
    told(nvml.nvmlDeviceGetUUID, d.uuid);
    told(nvml.nvmlDeviceGetSerial, d.serial);
    told(nvml.nvmlDeviceGetVbiosVersion, d.firmware);
    Nvml::Pci pci = {};
    if (nvml.nvmlDeviceGetPciInfo(h, &pci) == 0)
      d.pci = PciAddress::parse(std::string(pci.bus_id, strnlen(pci.bus_id, 32)));
    Nvml::Memory memory = {};
    if (nvml.nvmlDeviceGetMemoryInfo(h, &memory) == 0 && memory.total > 0) d.memory_bytes = int64_t(memory.total);
    report.devices.push_back(d);
  }
  return {};
}

}  // namespace ai_vmm
