#include "hal/discovery/json.hpp"

namespace ai_vmm {

namespace {
using nlohmann::ordered_json;

// Sets what is known.
void put(ordered_json& j, const char* key, const std::string& value) {
  if (!value.empty()) j[key] = value;
}
template <class T>
void put(ordered_json& j, const char* key, const std::optional<T>& value) {
  if (value) j[key] = *value;
}
void put(ordered_json& j, const char* key, const std::optional<PciAddress>& value) {
  if (value) j[key] = value->text();
}

ordered_json to_json(const RuntimeDevice& d) {
  ordered_json j = {{"index", d.index}};
  put(j, "name", d.name);
  put(j, "platform", d.platform);
  if (d.kind) j["kind"] = name(*d.kind);
  put(j, "pci", d.pci);
  put(j, "uuid", d.uuid);
  put(j, "serial", d.serial);
  put(j, "memory_bytes", d.memory_bytes);
  put(j, "architecture", d.architecture);
  put(j, "driver", d.driver);
  put(j, "firmware", d.firmware);
  return j;
}

RuntimeDevice device_of(const ordered_json& j) {
  RuntimeDevice d;
  auto text = [&](const char* key) { return j.value(key, std::string()); };
  d.index = text("index");
  d.name = text("name");
  d.platform = text("platform");
  for (DeviceKind k : {DeviceKind::processor, DeviceKind::gpu, DeviceKind::npu, DeviceKind::accelerator})
    if (text("kind") == name(k)) d.kind = k;
  d.pci = PciAddress::parse(text("pci"));
  d.uuid = text("uuid");
  d.serial = text("serial");
  if (j.contains("memory_bytes")) d.memory_bytes = j["memory_bytes"].get<int64_t>();
  d.architecture = text("architecture");
  d.driver = text("driver");
  d.firmware = text("firmware");
  return d;
}
}  // namespace

ordered_json to_json(const RuntimeReport& r) {
  ordered_json j = {{"runtime", identifier(r.runtime)}, {"present", r.present}, {"answered", r.answered}};
  put(j, "library", r.library);
  put(j, "version", r.version);
  put(j, "problem", r.problem);
  if (r.error) j["error"] = r.error;
  j["devices"] = ordered_json::array();
  for (const RuntimeDevice& d : r.devices) j["devices"].push_back(to_json(d));
  return j;
}

Result<RuntimeReport> parse_report(std::string_view text) {
  try {
    ordered_json j = ordered_json::parse(text);
    RuntimeReport r;
    for (Runtime runtime : kRuntimes)
      if (j.at("runtime") == identifier(runtime)) r.runtime = runtime;
    r.present = j.at("present").get<bool>();
    r.answered = j.at("answered").get<bool>();
    r.library = j.value("library", "");
    r.version = j.value("version", "");
    r.problem = j.value("problem", "");
    r.error = j.value("error", int64_t(0));
    for (const ordered_json& d : j.at("devices")) r.devices.push_back(device_of(d));
    return r;
  } catch (const nlohmann::json::exception& e) {
    return Status(Code::data_loss, std::string("The answer is damaged: ") + e.what() + ".");
  }
}

ordered_json to_json(const Accelerator& a) {
  ordered_json j = {{"id", a.id}, {"resource", a.resource}, {"kind", name(a.kind)}};
  put(j, "name", a.name);
  put(j, "vendor", a.vendor);
  put(j, "pci", a.pci);
  put(j, "vendor_id", a.vendor_id);
  put(j, "device_id", a.device_id);
  put(j, "numa_node", a.numa_node);
  put(j, "iommu_group", a.iommu_group);
  put(j, "link", a.link);
  put(j, "driver", a.driver);
  put(j, "driver_version", a.driver_version);
  if (!a.firmware.empty()) j["firmware"] = a.firmware;
  put(j, "serial", a.serial);
  put(j, "architecture", a.architecture);
  put(j, "memory_bytes", a.memory_bytes);
  for (const DeviceNode& n : a.nodes)
    j["nodes"].push_back({{"path", n.path}, {"exists", n.exists}, {"usable", n.usable}, {"group", n.group}});
  j["seen_by_kernel"] = a.by_system;
  j["seen_by"] = ordered_json::array();
  for (const auto& s : a.seen) {
    ordered_json sight = {{"runtime", identifier(s.runtime)}};
    sight.update(to_json(s.device));
    j["seen_by"].push_back(sight);
  }
  j["advice"] = ordered_json::array();
  for (const Advice& advice : a.advice) j["advice"].push_back({{"problem", advice.problem}, {"remedy", advice.remedy}});
  return j;
}

}  // namespace ai_vmm
