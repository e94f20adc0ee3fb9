#include "telemetry/machine.hpp"

#include <unistd.h>

#include <array>

#include "base/text.hpp"

namespace ai_vmm::telemetry {

namespace {
bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }
}  // namespace

std::vector<NetworkSample> NetworkReader::read(int64_t now_ns) {
  std::vector<NetworkSample> out;
  for (const std::string& name : names_in(roots_.sys + "/class/net")) {
    std::string folder = roots_.sys + "/class/net/" + name + "/";
    Reading kind = read_number(folder + "type");
    if (!kind.known()) continue;  // bonding_masters and such are no links
    NetworkSample n;
    n.name = name;
    n.loopback = kind.value() == 772;  // ARPHRD_LOOPBACK
    auto state = read_text(folder + "operstate");
    n.up = state.ok() && (*state == "up" || (*state == "unknown" && read_number(folder + "carrier").value_or(0) == 1));
    n.received = received_[name].at(read_number(folder + "statistics/rx_bytes"), now_ns);
    n.sent = sent_[name].at(read_number(folder + "statistics/tx_bytes"), now_ns);
    Reading speed = read_number(folder + "speed");  // Mbit/s
    if (!exists(folder + "device") && !exists(folder + "bonding"))
      n.capacity = Reading::unknown(name + " is no hardware, so that its speed is made up");
    else if (!speed.known())
      n.capacity = speed;
    else if (speed.value() <= 0 || speed.value() >= 4294967295.0)
      n.capacity = Reading::unknown("the driver of " + name + " does not know its speed");
    else
      n.capacity = speed.value() * 1e6 / 8;
    out.push_back(std::move(n));
  }
  return out;
}

std::vector<DiskSample> DiskReader::read(int64_t now_ns) {
  std::vector<DiskSample> out;
  for (const std::string& name : names_in(roots_.sys + "/block")) {
    std::string folder = roots_.sys + "/block/" + name + "/";
    if (read_number(folder + "size").value_or(0) <= 0) continue;
    DiskSample d;
    d.name = name;
    auto stat = read_text(folder + "stat");
    // Fields 3 and 7 are sectors of 512 bytes read and written, field 10 milliseconds with a request under way
    // (Linux Documentation/block/stat.rst).
    std::array<Reading, 10> field;
    field.fill(Reading::unknown(stat.ok() ? "\"" + folder + "stat\" is too short." : stat.status().message()));
    size_t at = 0;
    if (stat.ok())
      for (std::string_view word : split(*stat, ' '))
        if (!trim(word).empty() && at < field.size()) field[at++] = number_of(word);
    auto scaled = [](const Reading& r, double unit) { return r.known() ? Reading(r.value() * unit) : r; };
    d.read = read_[name].at(scaled(field[2], 512), now_ns);
    d.written = written_[name].at(scaled(field[6], 512), now_ns);
    d.busy = busy_[name].at(scaled(field[9], 1e-3), now_ns);
    if (d.busy.known() && d.busy.value() > 1) d.busy = 1;
    out.push_back(std::move(d));
  }
  return out;
}

PressureSample read_pressure(const Roots& roots) {
  auto share = [&](const char* what, const char* who) -> Reading {
    std::string path = roots.proc + "/pressure/" + what;
    auto text = read_text(path);
    if (!text.ok()) return Reading::unknown(text.status().message());
    for (std::string_view line : split(*text, '\n')) {
      if (!line.starts_with(who)) continue;
      size_t at = line.find("avg10=");
      if (at == line.npos) break;
      Reading percent = number_of(line.substr(at + 6));
      return percent.known() ? Reading(percent.value() / 100) : percent;
    }
    return Reading::unknown("\"" + path + "\" has no line \"" + who + " avg10=…\".");
  };
  return {share("cpu", "some "), share("memory", "some "), share("memory", "full "), share("io", "some "),
          share("io", "full ")};
}

MemorySample read_memory(const Roots& roots) {
  MemorySample m;
  auto text = read_text(roots.proc + "/meminfo");
  m.total = m.available = Reading::unknown(text.ok() ? "\"meminfo\" does not say" : text.status().message());
  if (!text.ok()) return m;
  for (std::string_view line : split(*text, '\n')) {
    auto take = [&](std::string_view name, Reading& into) {
      if (!line.starts_with(name)) return;
      Reading kib = number_of(line.substr(name.size()));
      into = kib.known() ? Reading(kib.value() * 1024) : kib;
    };
    take("MemTotal:", m.total);
    take("MemAvailable:", m.available);
  }
  return m;
}

}  // namespace ai_vmm::telemetry
