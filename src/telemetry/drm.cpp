// Accelerators through the kernel's own files, without a vendor's library: the DRM and accel classes, the engine times
// that drivers print for each client in fdinfo, and hwmon. Formats: Linux Documentation/gpu/drm-usage-stats.rst and
// Documentation/ABI/testing/sysfs-*.
#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <unordered_map>

#include "base/text.hpp"
#include "telemetry/device.hpp"

namespace ai_vmm::telemetry {

namespace {

// What one client (an open file of a device) printed.
struct Client {
  std::string pci;
  std::string id;
  std::map<std::string, double> engine_ns, capacity;
  double resident = 0;  // bytes on the device
  bool has_memory = false;
};

// "123 KiB" and such; drm-usage-stats knows bytes, KiB and MiB.
Reading bytes_of(std::string_view text) {
  Reading r = number_of(text);
  if (!r.known()) return r;
  double unit = text.find("MiB") != text.npos ? 1 << 20 : text.find("KiB") != text.npos ? 1 << 10 : 1;
  return r.value() * unit;
}

Client parse_fdinfo(std::string_view text) {
  Client c;
  std::map<std::string, double> resident, memory;
  for (std::string_view line : split(text, '\n')) {
    size_t colon = line.find(':');
    if (colon == line.npos || !line.starts_with("drm-")) continue;
    std::string name(trim(line.substr(0, colon)));
    std::string_view value = trim(line.substr(colon + 1));
    auto after = [&](std::string_view prefix) {
      return name.starts_with(prefix) ? name.substr(prefix.size()) : std::string();
    };
    if (name == "drm-pdev") {
      c.pci = value;
    } else if (name == "drm-client-id") {
      c.id = value;
    } else if (std::string engine = after("drm-engine-capacity-"); !engine.empty()) {
      if (Reading r = number_of(value); r.known() && r.value() >= 1) c.capacity[engine] = r.value();
    } else if (engine = after("drm-engine-"); !engine.empty()) {
      if (Reading r = number_of(value); r.known()) c.engine_ns[engine] = r.value();
    } else if (std::string region = after("drm-resident-"); !region.empty()) {
      if (Reading r = bytes_of(value); r.known()) resident[region] = r.value();
    } else if (region = after("drm-memory-"); !region.empty()) {
      if (Reading r = bytes_of(value); r.known()) memory[region] = r.value();
    }
  }
  // drm-memory- is the older name of drm-resident-.
  if (resident.empty()) resident = std::move(memory);
  for (const auto& [region, bytes] : resident)
    if (region.starts_with("vram") || region.starts_with("local")) c.resident += bytes, c.has_memory = true;
  return c;
}

bool all_digits(const std::string& s) {
  return !s.empty() && std::all_of(s.begin(), s.end(), [](unsigned char c) { return std::isdigit(c); });
}

class DrmReader : public DeviceReader {
 public:
  explicit DrmReader(Roots roots) : roots_(std::move(roots)) {}

  std::vector<DeviceSample> read(int64_t now_ns) override {
    std::vector<DeviceSample> out;
    std::set<std::string> seen;
    for (const char* kind : {"drm", "accel"})
      for (const std::string& name : names_in(roots_.sys + "/class/" + kind)) {
        // Outputs of a card ("card0-DP-1") and render nodes are other faces of the same device.
        std::string number =
            name.substr(std::min(name.size(), std::string_view(kind[0] == 'd' ? "card" : "accel").size()));
        if (!name.starts_with(kind[0] == 'd' ? "card" : "accel") || !all_digits(number)) continue;
        std::string device = roots_.sys + "/class/" + kind + "/" + name + "/device";
        std::string pci = link_target_name(device);
        std::string id = pci.find(':') != pci.npos ? pci : name;
        if (!seen.insert(id).second) continue;
        out.push_back(read_device(id, device, now_ns));
      }
    if (!out.empty()) read_clients(out, now_ns);
    return out;
  }

 private:
  DeviceSample read_device(const std::string& id, const std::string& device, int64_t now_ns) {
    DeviceSample d;
    d.id = id;
    d.source = "drm";
    auto vendor = read_text(device + "/vendor"), model = read_text(device + "/device");
    std::string driver = link_target_name(device + "/driver");
    if (vendor.ok() && model.ok()) d.name = driver + (driver.empty() ? "" : " ") + *vendor + ":" + *model;
    Reading percent = read_number(device + "/gpu_busy_percent");  // amdgpu
    d.busy = percent.known() ? Reading(percent.value() / 100) : percent;
    if (!d.busy.known()) {
      // The Intel NPU counts microseconds of work.
      Reading us = npu_[id].at(read_number(device + "/npu_busy_time_us"), now_ns);
      if (us.known()) d.busy = std::clamp(us.value() * 1e-6, 0.0, 1.0);
    }
    d.memory_total = read_number(device + "/mem_info_vram_total");
    d.memory_used = read_number(device + "/mem_info_vram_used");
    d.power = d.temperature = Reading::unknown("the device has no hwmon folder");
    for (const std::string& h : names_in(device + "/hwmon")) {
      std::string folder = device + "/hwmon/" + h + "/";
      Reading uw = first_known(read_number(folder + "power1_average"), read_number(folder + "power1_input"));
      Reading mc = read_number(folder + "temp1_input");
      d.power = uw.known() ? Reading(uw.value() * 1e-6) : uw;
      d.temperature = mc.known() ? Reading(mc.value() * 1e-3) : mc;
    }
    d.link_received = d.link_sent = Reading::unknown("the kernel does not count bus traffic");
    return d;
  }

  // Engine times and memory of all clients that this process may look at, summed by device. Without root these are the
  // user's own, which is less than the device does: only used where the driver itself says nothing.
  void read_clients(std::vector<DeviceSample>& devices, int64_t now_ns) {
    std::set<std::string> clients;  // one client shows in each of its processes and files
    struct Sum {
      double busy = 0, resident = 0;
      bool timed = false, has_memory = false;
    };
    std::unordered_map<std::string, Sum> sums;
    std::map<std::string, double> engine_busy;  // by device and engine
    std::set<std::string> live;
    for (const std::string& pid : names_in(roots_.proc)) {
      if (!all_digits(pid)) continue;
      for (const std::string& fd : names_in(roots_.proc + "/" + pid + "/fd")) {
        // Reading the information of each of a machine's descriptors would cost more than all else together.
        std::string target = link_target_name(roots_.proc + "/" + pid + "/fd/" + fd);
        if (!target.starts_with("render") && !target.starts_with("card") && !target.starts_with("accel")) continue;
        auto text = read_text(roots_.proc + "/" + pid + "/fdinfo/" + fd);
        if (!text.ok()) continue;  // the process ended
        Client c = parse_fdinfo(*text);
        if (c.id.empty() || !clients.insert(c.pci + "/" + c.id).second) continue;
        Sum& sum = sums[c.pci];
        sum.resident += c.resident;
        sum.has_memory |= c.has_memory;
        for (const auto& [engine, ns] : c.engine_ns) {
          std::string key = c.pci + "/" + c.id + "/" + engine;
          live.insert(key);
          double& most = engine_most_[key];
          most = std::max(most, ns);  // these counters may step back
          Reading rate = engine_rate_[key].at(most, now_ns);
          if (!rate.known()) continue;
          auto capacity = c.capacity.find(engine);
          engine_busy[c.pci + "/" + engine] +=
              rate.value() * 1e-9 / (capacity == c.capacity.end() ? 1 : capacity->second);
          sum.timed = true;
        }
      }
    }
    std::erase_if(engine_most_, [&](const auto& e) { return !live.count(e.first); });
    std::erase_if(engine_rate_, [&](const auto& e) { return !live.count(e.first); });
    for (auto& d : devices) {
      auto sum = sums.find(d.id);
      if (sum == sums.end()) continue;
      // A device is as busy as the busiest of its engines.
      double busy = 0;
      for (const auto& [key, share] : engine_busy)
        if (key.starts_with(d.id + "/")) busy = std::max(busy, share);
      if (!d.busy.known() && sum->second.timed) d.busy = std::clamp(busy, 0.0, 1.0);
      if (!d.memory_used.known() && sum->second.has_memory) d.memory_used = sum->second.resident;
    }
  }

  Roots roots_;
  std::map<std::string, Rate> npu_;
  std::map<std::string, double> engine_most_;
  std::map<std::string, Rate> engine_rate_;
};

}  // namespace

std::unique_ptr<DeviceReader> open_drm(const Roots& roots) { return std::make_unique<DrmReader>(roots); }

}  // namespace ai_vmm::telemetry
