// NVIDIA Management Library, declared by ourselves: nvml.h need not be there to build. Facts: NVML API reference.
#include <algorithm>
#include <cctype>

#include "base/library.hpp"
#include "telemetry/device.hpp"

namespace ai_vmm::telemetry {

namespace {

using Device = struct NvmlDevice*;  // opaque
struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned gpu, memory;  // percent
};
struct PciInfo {
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];  // "00000000:C1:00.0"
};
enum { kSuccess = 0, kTemperatureGpu = 0, kPcieSent = 0, kPcieReceived = 1 };

struct Nvml : Library {
  Symbol<int()> init{this, "nvmlInit_v2"};
  Symbol<int()> shutdown{this, "nvmlShutdown"};
  Symbol<const char*(int)> error_string{this, "nvmlErrorString"};
  Symbol<int(unsigned*)> count{this, "nvmlDeviceGetCount_v2"};
  Symbol<int(unsigned, Device*)> handle{this, "nvmlDeviceGetHandleByIndex_v2"};
  Symbol<int(Device, char*, unsigned)> device_name{this, "nvmlDeviceGetName"};
  Symbol<int(Device, PciInfo*)> pci{this, "nvmlDeviceGetPciInfo_v3"};
  Symbol<int(Device, Memory*)> memory{this, "nvmlDeviceGetMemoryInfo"};
  Symbol<int(Device, Utilization*)> utilization{this, "nvmlDeviceGetUtilizationRates"};
  Symbol<int(Device, unsigned*)> power{this, "nvmlDeviceGetPowerUsage", optional};              // milliwatts
  Symbol<int(Device, int, unsigned*)> temperature{this, "nvmlDeviceGetTemperature", optional};  // degrees Celsius
  Symbol<int(Device, int, unsigned*)> pcie_throughput{this, "nvmlDeviceGetPcieThroughput", optional};  // KB/s
};

class NvmlReader : public DeviceReader {
 public:
  ~NvmlReader() override {
    if (started_) nvml_.shutdown();
  }

  Status start(const std::string& folder) {
    AI_VMM_TRY(nvml_.load({"libnvidia-ml.so.1"}, folder));
    if (int e = nvml_.init(); e != kSuccess)
      return Status(Code::unavailable, "libnvidia-ml.so.1 does not start: " + text(e) + ".");
    started_ = true;
    return {};
  }

  std::vector<DeviceSample> read(int64_t) override {
    std::vector<DeviceSample> out;
    unsigned n = 0;
    if (nvml_.count(&n) != kSuccess) return out;
    for (unsigned i = 0; i < n; ++i) {
      DeviceSample d;
      d.source = "nvml";
      d.id = "nvml:" + std::to_string(i);
      Device handle = nullptr;
      if (int e = nvml_.handle(i, &handle); e != kSuccess) {
        Reading lost = failed("nvmlDeviceGetHandleByIndex", e);
        d.busy = d.memory_total = d.memory_used = d.power = d.temperature = d.link_received = d.link_sent = lost;
        out.push_back(std::move(d));
        continue;
      }
      PciInfo pci{};
      if (nvml_.pci(handle, &pci) == kSuccess) d.id = address(pci);
      char name[96] = {};
      if (nvml_.device_name(handle, name, sizeof name - 1) == kSuccess) d.name = name;
      Utilization u{};
      int e = nvml_.utilization(handle, &u);
      d.busy = e == kSuccess ? Reading(u.gpu / 100.0) : failed("nvmlDeviceGetUtilizationRates", e);
      Memory m{};
      e = nvml_.memory(handle, &m);
      d.memory_total = e == kSuccess ? Reading(double(m.total)) : failed("nvmlDeviceGetMemoryInfo", e);
      d.memory_used = e == kSuccess ? Reading(double(m.used)) : failed("nvmlDeviceGetMemoryInfo", e);
      d.power = scaled(1e-3, nvml_.power, "nvmlDeviceGetPowerUsage", handle);
      d.temperature = scaled(1, nvml_.temperature, "nvmlDeviceGetTemperature", handle, int(kTemperatureGpu));
      d.link_sent = scaled(1e3, nvml_.pcie_throughput, "nvmlDeviceGetPcieThroughput", handle, int(kPcieSent));
      d.link_received = scaled(1e3, nvml_.pcie_throughput, "nvmlDeviceGetPcieThroughput", handle, int(kPcieReceived));
      out.push_back(std::move(d));
    }
    return out;
  }

 private:
  std::string text(int error) const {
    const char* s = nvml_.error_string(error);
    return s ? s : "error " + std::to_string(error);
  }
  Reading failed(const char* call, int error) const { return Reading::unknown(std::string(call) + ": " + text(error)); }
  template <class F, class... Args>
  Reading scaled(double unit, const F& function, const char* call, Args... args) const {
    if (!function) return Reading::unknown(std::string("this libnvidia-ml has no ") + call);
    unsigned value = 0;
    int e = function(args..., &value);
    return e == kSuccess ? Reading(value * unit) : failed(call, e);
  }
  // As in sysfs: a domain of four digits, lower case.
  static std::string address(const PciInfo& pci) {
    char text[40];
    std::snprintf(text, sizeof text, "%04x:%02x:%02x.0", pci.domain, pci.bus, pci.device);
    return text;
  }

  Nvml nvml_;
  bool started_ = false;
};

}  // namespace

Result<std::unique_ptr<DeviceReader>> open_nvml(const std::string& folder) {
  auto reader = std::make_unique<NvmlReader>();
  AI_VMM_TRY(reader->start(folder));
  return std::unique_ptr<DeviceReader>(std::move(reader));
}

}  // namespace ai_vmm::telemetry
