#include "report.hpp"

#include <cstdio>
#include <utility>

namespace AIRamp::Daemon {

namespace {

using Named = std::pair<const char*, const Reading*>;

std::string text(const char* format, auto... args) {
  char out[300];
  std::snprintf(out, sizeof out, format, args...);
  return out;
}

std::string amount(const Reading& r, double scale, const char* unit) {
  return r.known() ? text("%.4g%s", r.value() * scale, unit) : "unknown (" + r.why() + ")";
}

}  // namespace

std::string describe(const Observation& seen, const std::vector<std::string>& absent) {
  std::string out = "What is read\n";
  auto line = [&](const std::string& what, const std::string& how) { out += "  " + what + ": " + how + "\n"; };
  for (const std::string& a : absent) out += "  " + a + "\n";
  if (seen.devices.empty()) out += "  No accelerator shows itself to the kernel or to a vendor's library.\n";
  for (const auto& d : seen.devices) {
    std::string name = "device " + d.id + (d.name.empty() ? "" : " (" + d.name + ", by " + d.source + ")");
    line(name + ", busy", amount(d.busy, 100, " %"));
    line(name + ", memory in use", amount(d.memory_used, 0x1p-30, " GiB"));
    line(name + ", memory in all", amount(d.memory_total, 0x1p-30, " GiB"));
    line(name + ", power", amount(d.power, 1, " W"));
    line(name + ", temperature", amount(d.temperature, 1, " degrees"));
    line(name + ", received over the bus", amount(d.link_received, 1e-9, " GB/s"));
    line(name + ", sent over the bus", amount(d.link_sent, 1e-9, " GB/s"));
    line(name + ", the bus carries", amount(d.link_capacity, 1e-9, " GB/s"));
  }
  for (const auto& n : seen.links) {
    if (n.loopback) continue;
    line("link " + n.name, n.up ? "up" : "down");
    line("link " + n.name + ", received", amount(n.received, 1e-6, " MB/s"));
    line("link " + n.name + ", sent", amount(n.sent, 1e-6, " MB/s"));
    line("link " + n.name + ", carries", amount(n.capacity, 1e-6, " MB/s"));
  }
  line("TCP connections", std::to_string(seen.tcp.connections));
  line("TCP, least round trip", amount(seen.tcp.min_rtt, 1e6, " us"));
  line("TCP, largest delivery rate", amount(seen.tcp.delivery_rate, 1e-6, " MB/s"));
  for (const auto& d : seen.disks) {
    line("disk " + d.name + ", read", amount(d.read, 1e-6, " MB/s"));
    line("disk " + d.name + ", written", amount(d.written, 1e-6, " MB/s"));
    line("disk " + d.name + ", busy", amount(d.busy, 100, " %"));
  }
  line("host memory available", amount(seen.memory.available, 0x1p-30, " GiB"));
  line("host memory in all", amount(seen.memory.total, 0x1p-30, " GiB"));
  for (auto [what, r] : {Named{"some tasks wait for processors", &seen.pressure.cpu_some},
                         Named{"some tasks wait for memory", &seen.pressure.memory_some},
                         Named{"all tasks wait for memory", &seen.pressure.memory_full},
                         Named{"some tasks wait for disks", &seen.pressure.io_some},
                         Named{"all tasks wait for disks", &seen.pressure.io_full}})
    line(what, amount(*r, 100, " % of the time"));
  line("rounding to bf16 and back", amount(seen.pack_rate, 1e-9, " GB/s of float32, one thread, best of 3"));
  return out;
}

std::string describe_keys(const Controller& controller) {
  std::string out = "What is reckoned\n";
  for (const std::string& n : controller.notes()) out += "  " + n + "\n";
  out += "Keys\n";
  const Settings& s = controller.settings();
  for (int i = 0; i < kKeyCount; ++i) {
    Key key{i};
    out += text("  %-24s", kKeys[i].name) + value_text(key, s[key]);
    out += s.is_held(key) ? ", held by hand" : s[key] == kKeys[i].fallback ? ", the default" : "";
    const Target* target = nullptr;
    for (const Target& t : controller.targets())
      if (t.key == key) target = &t;
    if (!target)
      out += "; nothing is known that speaks for another value";
    else if (target->value == s[key])
      out += "; right, because " + target->reason;
    else
      out += std::string("; ") + (s.is_held(key) ? "otherwise " : "should be ") + value_text(key, target->value) +
             ", because " + target->reason;
    out += ".\n";
  }
  return out;
}

std::string describe_changes(const Controller& controller) {
  std::string out = std::string("Mode ") + name(controller.mode()) + "\n";
  for (const Change& c : controller.open()) out += "  " + sentence(c) + "\n";
  for (auto c = controller.history().rbegin(); c != controller.history().rend(); ++c) out += "  " + sentence(*c) + "\n";
  if (controller.open().empty() && controller.history().empty()) out += "  No change was proposed yet.\n";
  return out;
}

std::string metrics(const Observation& seen, const Controller& controller, const DaemonFacts& facts) {
  std::string out;
  auto family = [&](const char* name, const char* type, const char* help) {
    out += std::string("# HELP ") + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
  };
  auto quoted = [](const std::string& s) {
    std::string q = "\"";
    for (char c : s) {
      if (c == '\\' || c == '"') q += '\\';
      if (c == '\n')
        q += "\\n";
      else
        q += c;
    }
    return q + "\"";
  };
  int unknown = 0;
  auto sample = [&](const char* name, const std::string& labels, const Reading& r) {
    if (!r.known())
      ++unknown;
    else
      out += std::string(name) + (labels.empty() ? "" : "{" + labels + "}") + " " + text("%.10g", r.value()) + "\n";
  };
  auto per = [&](const auto& list, const char* label, auto id, const char* name, const char* help, auto field) {
    family(name, "gauge", help);
    for (const auto& x : list) sample(name, std::string(label) + "=" + quoted(x.*id), x.*field);
  };
  using ai_vmm::telemetry::DeviceSample, ai_vmm::telemetry::NetworkSample, ai_vmm::telemetry::DiskSample;
  auto device = [&](const char* name, const char* help, auto field) {
    per(seen.devices, "device", &DeviceSample::id, name, help, field);
  };
  device("airampd_device_busy_ratio", "Share of the time in which the device worked.", &DeviceSample::busy);
  device("airampd_device_memory_used_bytes", "Device memory in use.", &DeviceSample::memory_used);
  device("airampd_device_memory_bytes", "Device memory in all.", &DeviceSample::memory_total);
  device("airampd_device_power_watts", "Power the device draws.", &DeviceSample::power);
  device("airampd_device_temperature_celsius", "Temperature of the device.", &DeviceSample::temperature);
  device("airampd_device_bus_received_bytes_per_second", "Bytes that the device receives.",
         &DeviceSample::link_received);
  device("airampd_device_bus_sent_bytes_per_second", "Bytes that the device sends.", &DeviceSample::link_sent);
  auto link = [&](const char* name, const char* help, auto field) {
    per(seen.links, "link", &NetworkSample::name, name, help, field);
  };
  link("airampd_link_received_bytes_per_second", "Bytes that the link receives.", &NetworkSample::received);
  link("airampd_link_sent_bytes_per_second", "Bytes that the link sends.", &NetworkSample::sent);
  auto disk = [&](const char* name, const char* help, auto field) {
    per(seen.disks, "disk", &DiskSample::name, name, help, field);
  };
  disk("airampd_disk_read_bytes_per_second", "Bytes read from the disk.", &DiskSample::read);
  disk("airampd_disk_written_bytes_per_second", "Bytes written to the disk.", &DiskSample::written);
  disk("airampd_disk_busy_ratio", "Share of the time with a request under way.", &DiskSample::busy);
  auto single = [&](const char* name, const char* type, const char* help, const Reading& r) {
    family(name, type, help);
    sample(name, "", r);
  };
  family("airampd_pressure_ratio", "gauge", "Share of the last 10 s in which tasks waited.");
  for (auto [labels, r] : {Named{"resource=\"cpu\",who=\"some\"", &seen.pressure.cpu_some},
                           Named{"resource=\"memory\",who=\"some\"", &seen.pressure.memory_some},
                           Named{"resource=\"memory\",who=\"all\"", &seen.pressure.memory_full},
                           Named{"resource=\"io\",who=\"some\"", &seen.pressure.io_some},
                           Named{"resource=\"io\",who=\"all\"", &seen.pressure.io_full}})
    sample("airampd_pressure_ratio", labels, *r);
  single("airampd_host_memory_available_bytes", "gauge", "Host memory that programs can still have.",
         seen.memory.available);
  single("airampd_tcp_round_trip_seconds", "gauge", "Least round trip of all TCP connections.", seen.tcp.min_rtt);
  single("airampd_pack_bytes_per_second", "gauge", "Rate of rounding float32 to bf16 and back.", seen.pack_rate);
  single("airampd_observation_age_seconds", "gauge", "Time since the last look; grows where a vendor's library hangs.",
         seen.now_ns ? Reading(double(facts.now_ns - seen.now_ns) * 1e-9) : Reading::unknown("no look yet"));
  single("airampd_readings_unknown", "gauge", "Readings that are left out because they are unknown.", double(unknown));
  family("airampd_tuning_value", "gauge", "Value of a key as published.");
  for (int i = 0; i < kKeyCount; ++i)
    sample("airampd_tuning_value", std::string("key=\"") + kKeys[i].name + "\"",
           double(controller.settings().values.of[i]));
  family("airampd_tuning_held", "gauge", "1 where a person holds the key.");
  for (int i = 0; i < kKeyCount; ++i)
    sample("airampd_tuning_held", std::string("key=\"") + kKeys[i].name + "\"",
           double(controller.settings().held[size_t(i)]));
  single("airampd_generation", "gauge", "Number of the publication in force.", double(facts.generation));
  single("airampd_edits_rejected_total", "counter", "Edits by hand that were refused.", double(facts.rejected_edits));
  single("airampd_publish_failures_total", "counter", "Publications that failed.", double(facts.publish_failures));
  family("airampd_changes_total", "counter", "Changes by how they ended.");
  using Stage = Change::Stage;
  for (Stage stage : {Stage::kept, Stage::rolled_back, Stage::vetoed, Stage::withdrawn})
    sample("airampd_changes_total", std::string("end=\"") + name(stage) + "\"", double(controller.count(stage)));
  family("airampd_mode", "gauge", "1 for the mode in force.");
  for (Mode m : {Mode::off, Mode::advise, Mode::supervised, Mode::automatic})
    sample("airampd_mode", std::string("mode=\"") + name(m) + "\"", m == controller.mode() ? 1.0 : 0.0);
  return out;
}

}  // namespace AIRamp::Daemon
