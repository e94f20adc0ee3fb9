// Accelerators as sensors see them. A reader stands for one source; `DeviceReaders` makes one list of all of them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "telemetry/reading.hpp"

namespace ai_vmm::telemetry {

struct DeviceSample {
  std::string id;                     // the PCI address as "0000:c1:00.0"; for others what the source calls it
  std::string name;                   // "" when the source has none
  std::string source;                 // "nvml", "rocm-smi", "drm", or several joined by "+"
  Reading busy;                       // share of the time in which the device worked, 0 to 1
  Reading memory_total, memory_used;  // bytes
  Reading power;                      // watts
  Reading temperature;                // degrees Celsius
  Reading link_received, link_sent;   // bytes per second over the bus, as the device sees it
  Reading link_capacity;              // bytes per second that the bus can carry one way
};

class DeviceReader {
 public:
  virtual ~DeviceReader() = default;
  // All devices now. A device that cannot be read is listed with unknown readings. `now_ns`: any steady clock.
  virtual std::vector<DeviceSample> read(int64_t now_ns) = 0;
};

// NVIDIA's library, and AMD's, loaded at run time; `folder`: as for Library::load.
Result<std::unique_ptr<DeviceReader>> open_nvml(const std::string& folder = "");
Result<std::unique_ptr<DeviceReader>> open_rocm_smi(const std::string& folder = "");
// The kernel's own files: DRM and accel classes, fdinfo, hwmon. Always there, perhaps with an empty list.
std::unique_ptr<DeviceReader> open_drm(const Roots& roots);

class DeviceReaders {
 public:
  // All sources that work here; `absent()` says why the others do not. `library_folder`: "" for the system's own.
  explicit DeviceReaders(const Roots& roots, const std::string& library_folder = "");
  // One sample for each device: where two sources see one device, the vendor's reading goes first and the other fills
  // what is unknown.
  std::vector<DeviceSample> read(int64_t now_ns);
  const std::vector<std::string>& absent() const { return absent_; }

 private:
  Roots roots_;
  std::vector<std::unique_ptr<DeviceReader>> readers_;
  std::vector<std::string> absent_;
};

// What the PCI link at `speed` ("16.0 GT/s PCIe") and `width` ("16") carries one way, in bytes per second, after its
// line coding but before packet headers.
Reading pci_capacity(const std::string& speed, const std::string& width);

}  // namespace ai_vmm::telemetry
