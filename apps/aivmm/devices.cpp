#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.hpp"
#include "base/threads.hpp"
#include "command.hpp"
#include "hal/device.hpp"
#include "hal/discovery/discover.hpp"
#include "hal/discovery/json.hpp"
#include "terminal.hpp"

namespace ai_vmm::cli {

namespace {
constexpr Option kOptions[] = {
    {"--json", nullptr, "Print one JSON object."},
    {"--verbose", nullptr, "Say all that is known of each device, and what each runtime answered."},
    {"--root", "DIR", "Look at the copy of a machine's /sys, /proc, /dev and /etc in DIR; no runtime is asked."},
};

std::string text_or(const std::string& text, const char* otherwise) { return text.empty() ? otherwise : text; }
std::string memory_text(const std::optional<int64_t>& bytes) { return bytes ? size(double(*bytes)) : "unknown"; }

// Backends' devices on that piece of silicon.
std::vector<std::string> users_of(const Accelerator& a, const std::vector<DeviceDescription>& devices) {
  std::vector<std::string> users;
  for (const auto& d : devices)
    if (d.resource == a.resource && d.problem.empty()) users.push_back(d.backend + ":" + std::to_string(d.index));
  return users;
}

// Why nothing of this build runs models on it.
std::vector<Advice> obstacles(const Accelerator& a, bool used, bool asked) {
  if (used || !a.advice.empty()) return a.advice;
  auto backends = backend_names();
  for (const auto& s : a.seen)
    if (std::find(backends.begin(), backends.end(), identifier(s.runtime)) != backends.end())
      return {{std::string(name(s.runtime)) + " reports it, but the backend " + identifier(s.runtime) +
                   " does not offer it.",
               "`aivmm devices --verbose` shows what the backend says."}};
  if (a.computes())
    return {{std::string(name(a.seen.back().runtime)) + " reports it, but this build has no backend that uses it.",
             "A backend plugin can (docs/backend-interface.md)."}};
  if (asked) return {{"No runtime reports it.", "See `aivmm devices --verbose` for what each runtime answered."}};
  return {};
}

void print_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) line += row[i] + std::string(widths[i] - row[i].size() + 2, ' ');
    std::printf("%s%s%s\n", &row == &rows[0] ? style(stdout, Style::dim) : "",
                line.substr(0, line.find_last_not_of(' ') + 1).c_str(),
                &row == &rows[0] ? style(stdout, Style::plain) : "");
  }
}

void fact(const char* what, const std::string& value) {
  if (!value.empty()) std::printf("  %-14s %s\n", what, value.c_str());
}

void print_details(const Accelerator& a, const Machine& machine) {
  std::printf("\n%s%s%s  %s\n", style(stdout, Style::bold), a.resource.c_str(), style(stdout, Style::plain),
              a.name.c_str());
  if (a.kind == DeviceKind::processor) {
    const ProcessorFacts& cpu = machine.processor;
    fact("processors", std::to_string(cpu.logical) + (cpu.cores ? " on " + std::to_string(cpu.cores) + " cores" : "") +
                           ", " + std::to_string(available_threads()) + " usable here");
    fact("instructions", text_or(join(cpu.isa, " "), "unknown"));
  } else {
    fact("identity", a.id);
    fact("kernel driver", (a.driver.empty() ? "none" : a.driver + " " + a.driver_version) +
                              (a.by_system ? "" : "; the kernel does not show the device"));
    fact("architecture", a.architecture);
    fact("NUMA node", a.numa_node ? std::to_string(*a.numa_node) : "unknown");
    fact("IOMMU group", a.iommu_group ? std::to_string(*a.iommu_group) : "unknown");
    fact("link", a.link);
    for (const auto& [part, version] : a.firmware) fact("firmware", part + " " + version);
    for (const DeviceNode& n : a.nodes)
      fact("node", n.path + (n.usable ? "" : n.exists ? ", not usable by this user" : ", missing"));
  }
  fact("memory", memory_text(a.memory_bytes));
  for (const auto& [runtime, d] : a.seen)
    fact("seen by", std::string(name(runtime)) + (d.platform.empty() ? "" : ", " + d.platform) + ", as number " +
                        d.index + (d.name.empty() ? "" : ", \"" + d.name + "\"") +
                        (d.memory_bytes ? ", " + size(double(*d.memory_bytes)) : ""));
}

int run_devices(const Arguments& arguments) {
  DiscoverOptions options;
  options.root = arguments.text("--root");
  const bool here = options.root.empty();
  options.ask_runtimes = here;
  if (std::error_code none; !here && !std::filesystem::is_directory(options.root, none))
    return complain(
        Status(Code::not_found,
               "\"" + options.root + "\" is not a folder that can be read; --root wants one with sys/ in it."),
        kUsage);
  const Machine machine = here ? this_machine() : discover(options);
  auto devices = here ? list_devices() : std::vector<DeviceDescription>();

  if (arguments.has("--json")) {
    const ProcessorFacts& cpu = machine.processor;
    nlohmann::ordered_json j;
    j["processor"] = {{"model", cpu.model},
                      {"logical", cpu.logical},
                      {"cores", cpu.cores},
                      {"isa", cpu.isa},
                      {"memory_bytes", cpu.memory_bytes}};
    if (here) j["processor"]["usable"] = available_threads();
    j["kernel"] = machine.kernel;
    j["devices"] = nlohmann::ordered_json::array();
    for (const auto& d : devices)
      j["devices"].push_back({{"backend", d.backend},
                              {"version", d.version},
                              {"index", d.index},
                              {"name", d.name},
                              {"resource", d.resource},
                              {"memory_bytes", d.memory_bytes > 0 ? nlohmann::ordered_json(d.memory_bytes) : nullptr},
                              {"usable", d.problem.empty()},
                              {"problem", d.problem}});
    j["hardware"] = nlohmann::ordered_json::array();
    for (Accelerator a : machine.accelerators) {
      auto users = users_of(a, devices);
      a.advice = obstacles(a, !users.empty(), here);
      j["hardware"].push_back(to_json(a));
      j["hardware"].back()["used_by"] = users;
    }
    j["runtimes"] = nlohmann::ordered_json::array();
    for (const RuntimeReport& r : machine.runtimes) j["runtimes"].push_back(to_json(r));
    std::puts(j.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return kSuccess;
  }

  std::vector<std::vector<std::string>> rows = {
      {"RESOURCE", "DEVICE", "KIND", "DRIVER", "MEMORY", "MODELS RUN THROUGH"}};
  for (const Accelerator& a : machine.accelerators) {
    auto users = users_of(a, devices);
    rows.push_back({a.resource, a.name, name(a.kind),
                    text_or(a.driver, a.kind == DeviceKind::processor || !a.by_system ? "-" : "none"),
                    memory_text(a.memory_bytes), users.empty() ? (here ? "nothing" : "-") : join(users, ", ")});
  }
  for (const auto& d : devices)  // devices of no silicon, such as simulated ones
    if (!d.resource.empty() && std::none_of(machine.accelerators.begin(), machine.accelerators.end(),
                                            [&](const auto& a) { return a.resource == d.resource; }))
      rows.push_back({text_or(d.resource, "-"), text_or(d.name, "-"), "-", "-",
                      d.memory_bytes > 0 ? size(double(d.memory_bytes)) : "unknown",
                      d.problem.empty() ? d.backend + ":" + std::to_string(d.index) : "nothing"});
  print_table(rows);

  for (const Accelerator& a : machine.accelerators) {
    bool used = !users_of(a, devices).empty();
    for (const Advice& advice : obstacles(a, used, here))
      std::printf("\n%s%s%s  %s\n  %s\n", style(stdout, Style::bold), a.resource.c_str(), style(stdout, Style::plain),
                  advice.problem.c_str(), advice.remedy.c_str());
  }
  std::string unusable;
  for (const auto& d : devices)
    if (!d.problem.empty()) unusable += (unusable.empty() ? "" : ", ") + d.backend;
  if (!unusable.empty())
    std::printf("\nBackends without a device here: %s. `aivmm devices --verbose` says why.\n", unusable.c_str());
  if (!arguments.has("--verbose")) return kSuccess;

  for (const Accelerator& a : machine.accelerators) print_details(a, machine);
  std::printf("\n%sBackends%s\n", style(stdout, Style::bold), style(stdout, Style::plain));
  for (const auto& d : devices)
    std::printf("  %-14s %s\n", (d.backend + ":" + std::to_string(d.index)).c_str(),
                d.problem.empty() ? ("version " + d.version + ", " + d.name + ", on " + d.resource).c_str()
                                  : d.problem.c_str());
  if (machine.runtimes.empty()) return kSuccess;
  std::printf("\n%sRuntimes%s\n", style(stdout, Style::bold), style(stdout, Style::plain));
  for (const RuntimeReport& r : machine.runtimes)
    std::printf("  %-14s %s\n", name(r.runtime),
                r.answered ? (r.version + ", " + std::to_string(r.devices.size()) +
                              (r.devices.size() == 1 ? " device, " : " devices, ") + r.library +
                              (r.problem.empty() ? "" : ". " + r.problem))
                                 .c_str()
                           : r.problem.c_str());
  return kSuccess;
}
}  // namespace

const Command kDevices = {
    "devices",
    "",
    0,
    0,
    "List the machine's devices, what can use each, and what is missing",
    "A resource is one piece of silicon, however many backends and runtimes show it. Devices that nothing can use are "
    "listed\n"
    "with the reason and with what to install. docs/devices.md explains where the facts come from.\n",
    kOptions,
    run_devices};

}  // namespace ai_vmm::cli
