// ROCm System Management Interface, declared by ourselves. Facts: rocm_smi.h of ROCm 5.2.
#include "base/library.hpp"
#include "telemetry/device.hpp"

namespace ai_vmm::telemetry {

namespace {

enum { kSuccess = 0, kMemoryVram = 0, kTemperatureEdge = 0, kTemperatureCurrent = 0, kFirstSensor = 0 };

struct RocmSmi : Library {
  Symbol<int(uint64_t flags)> init{this, "rsmi_init"};
  Symbol<int()> shut_down{this, "rsmi_shut_down"};
  Symbol<int(int, const char**)> status_string{this, "rsmi_status_string"};
  Symbol<int(uint32_t*)> count{this, "rsmi_num_monitor_devices"};
  Symbol<int(uint32_t, char*, size_t)> device_name{this, "rsmi_dev_name_get"};
  Symbol<int(uint32_t, uint64_t*)> pci{this, "rsmi_dev_pci_id_get"};
  Symbol<int(uint32_t, int, uint64_t*)> memory_total{this, "rsmi_dev_memory_total_get"};
  Symbol<int(uint32_t, int, uint64_t*)> memory_used{this, "rsmi_dev_memory_usage_get"};
  Symbol<int(uint32_t, uint32_t*)> busy{this, "rsmi_dev_busy_percent_get"};
  Symbol<int(uint32_t, uint32_t, uint64_t*)> power{this, "rsmi_dev_power_ave_get", optional};              // microwatts
  Symbol<int(uint32_t, uint32_t, int, int64_t*)> temperature{this, "rsmi_dev_temp_metric_get", optional};  // m°C
};

class RocmSmiReader : public DeviceReader {
 public:
  ~RocmSmiReader() override {
    if (started_) smi_.shut_down();
  }

  Status start(const std::string& folder) {
    AI_VMM_TRY(
        smi_.load({"librocm_smi64.so.7", "librocm_smi64.so.6", "librocm_smi64.so.5", "librocm_smi64.so.1"}, folder));
    if (int e = smi_.init(0); e != kSuccess)
      return Status(Code::unavailable, "librocm_smi64 does not start: " + text(e) + ".");
    started_ = true;
    return {};
  }

  std::vector<DeviceSample> read(int64_t) override {
    std::vector<DeviceSample> out;
    uint32_t n = 0;
    if (smi_.count(&n) != kSuccess) return out;
    for (uint32_t i = 0; i < n; ++i) {
      DeviceSample d;
      d.source = "rocm-smi";
      d.id = "rocm-smi:" + std::to_string(i);
      uint64_t pci = 0;
      if (smi_.pci(i, &pci) == kSuccess) d.id = address(pci);
      char name[96] = {};
      if (smi_.device_name(i, name, sizeof name - 1) == kSuccess) d.name = name;
      d.busy = scaled<uint32_t>(0.01, smi_.busy, "rsmi_dev_busy_percent_get", i);
      d.memory_total = scaled<uint64_t>(1, smi_.memory_total, "rsmi_dev_memory_total_get", i, int(kMemoryVram));
      d.memory_used = scaled<uint64_t>(1, smi_.memory_used, "rsmi_dev_memory_usage_get", i, int(kMemoryVram));
      d.power = scaled<uint64_t>(1e-6, smi_.power, "rsmi_dev_power_ave_get", i, uint32_t(kFirstSensor));
      d.temperature = scaled<int64_t>(1e-3, smi_.temperature, "rsmi_dev_temp_metric_get", i, uint32_t(kTemperatureEdge),
                                      int(kTemperatureCurrent));
      // rsmi_dev_pci_throughput_get takes a second to count, so it is left alone.
      d.link_received = d.link_sent = Reading::unknown("rocm-smi counts bus traffic too slowly to ask for it");
      out.push_back(std::move(d));
    }
    return out;
  }

 private:
  std::string text(int status) const {
    const char* s = nullptr;
    return smi_.status_string(status, &s) == kSuccess && s ? s : "status " + std::to_string(status);
  }
  template <class Value, class F, class... Args>
  Reading scaled(double unit, const F& function, const char* call, Args... args) const {
    if (!function) return Reading::unknown(std::string("this librocm_smi64 has no ") + call);
    Value value = 0;
    int e = function(args..., &value);
    return e == kSuccess ? Reading(double(value) * unit) : Reading::unknown(std::string(call) + ": " + text(e));
  }
  // The identifier holds the domain above bit 32, then bus, device and function as on the bus.
  static std::string address(uint64_t id) {
    char text[40];
    std::snprintf(text, sizeof text, "%04x:%02x:%02x.%x", unsigned(id >> 32), unsigned(id >> 8 & 0xff),
                  unsigned(id >> 3 & 0x1f), unsigned(id & 7));
    return text;
  }

  RocmSmi smi_;
  bool started_ = false;
};

}  // namespace

Result<std::unique_ptr<DeviceReader>> open_rocm_smi(const std::string& folder) {
  auto reader = std::make_unique<RocmSmiReader>();
  AI_VMM_TRY(reader->start(folder));
  return std::unique_ptr<DeviceReader>(std::move(reader));
}

}  // namespace ai_vmm::telemetry
