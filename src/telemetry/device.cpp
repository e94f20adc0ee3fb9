#include "telemetry/device.hpp"

#include <algorithm>

namespace ai_vmm::telemetry {

DeviceReaders::DeviceReaders(const Roots& roots, const std::string& library_folder) : roots_(roots) {
  for (auto* open : {open_nvml, open_rocm_smi}) {
    auto reader = open(library_folder);
    if (reader.ok())
      readers_.push_back(*std::move(reader));
    else
      absent_.push_back(reader.status().message());
  }
  readers_.push_back(open_drm(roots));
}

std::vector<DeviceSample> DeviceReaders::read(int64_t now_ns) {
  std::vector<DeviceSample> all;
  for (auto& reader : readers_)
    for (DeviceSample& one : reader->read(now_ns)) {
      auto known = std::find_if(all.begin(), all.end(), [&](const DeviceSample& d) { return d.id == one.id; });
      if (known == all.end()) {
        all.push_back(std::move(one));
        continue;
      }
      DeviceSample& d = *known;
      if (d.name.empty()) d.name = one.name;
      d.source += "+" + one.source;
      for (auto field : {&DeviceSample::busy, &DeviceSample::memory_total, &DeviceSample::memory_used,
                         &DeviceSample::power, &DeviceSample::temperature, &DeviceSample::link_received,
                         &DeviceSample::link_sent, &DeviceSample::link_capacity})
        d.*field = first_known(std::move(d.*field), std::move(one.*field));
    }
  for (DeviceSample& d : all) {
    if (d.link_capacity.known()) continue;
    // An idle device lowers the speed of its link, so that the most it can do says more than what it does now.
    std::string folder = roots_.sys + "/bus/pci/devices/" + d.id + "/";
    auto speed = read_text(folder + "max_link_speed"), width = read_text(folder + "max_link_width");
    d.link_capacity = speed.ok() && width.ok() ? pci_capacity(*speed, *width)
                                               : Reading::unknown("the PCI link of " + d.id + " is not in sysfs");
  }
  return all;
}

Reading pci_capacity(const std::string& speed, const std::string& width) {
  Reading transfers = number_of(speed), lanes = number_of(width);
  // A port without a device says width 255 or 0, and "Unknown" as its speed.
  if (!transfers.known() || !lanes.known() || lanes.value() < 1 || lanes.value() > 32 || transfers.value() <= 0)
    return Reading::unknown("the PCI link says \"" + speed + "\", width \"" + width + "\"");
  double gigabits = transfers.value();
  // 8b/10b up to 5 GT/s, 128b/130b up to 32, then 242 bytes of each 256-byte flit.
  double coding = gigabits <= 5 ? 0.8 : gigabits <= 32 ? 128.0 / 130 : 242.0 / 256;
  return gigabits * 1e9 * coding / 8 * lanes.value();
}

}  // namespace ai_vmm::telemetry
