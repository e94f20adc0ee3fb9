#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/processors.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "command.hpp"
#include "hal/device.hpp"
#include "terminal.hpp"

namespace ai_vmm::cli {

namespace {
constexpr Option kOptions[] = {{"--json", nullptr, "Print one JSON object."}};

int run_devices(const Arguments& arguments) {
  ProcessorFacts cpu = processor_facts();
  auto devices = list_devices();
  if (arguments.has("--json")) {
    nlohmann::ordered_json j;
    j["processor"] = {{"model", cpu.model}, {"logical", cpu.logical},        {"cores", cpu.cores},
                      {"isa", cpu.isa},     {"usable", available_threads()}, {"memory_bytes", cpu.memory_bytes}};
    j["devices"] = nlohmann::ordered_json::array();
    for (const auto& d : devices)
      j["devices"].push_back({{"backend", d.backend},
                              {"version", d.version},
                              {"index", d.index},
                              {"name", d.name},
                              {"resource", d.resource},
                              {"memory_bytes", d.memory_bytes},
                              {"usable", d.problem.empty()},
                              {"problem", d.problem}});
    std::puts(j.dump(2).c_str());
    return kSuccess;
  }
  for (const auto& d : devices) {
    std::printf("%s%s:%d%s  %s\n", style(stdout, Style::bold), d.backend.c_str(), d.index, style(stdout, Style::plain),
                d.name.c_str());
    if (!d.problem.empty()) {
      std::printf("  not usable: %s\n", d.problem.c_str());
      continue;
    }
    std::printf("  backend version %s, on resource %s, memory %s\n", d.version.c_str(), d.resource.c_str(),
                d.memory_bytes > 0 ? size(double(d.memory_bytes)).c_str() : "unknown");
  }
  std::printf("%sProcessor%s  %s: %d logical processors%s, %d usable here, memory %s\n", style(stdout, Style::bold),
              style(stdout, Style::plain), cpu.model.c_str(), cpu.logical,
              cpu.cores ? (", " + std::to_string(cpu.cores) + " cores").c_str() : "", available_threads(),
              size(double(cpu.memory_bytes)).c_str());
  std::printf("  instruction sets: %s\n", cpu.isa.empty() ? "unknown" : join(cpu.isa, " ").c_str());
  return kSuccess;
}
}  // namespace

const Command kDevices = {"devices",
                          "",
                          0,
                          0,
                          "List the devices that models can run on",
                          "Devices that share a resource are one piece of silicon shown by several backends.\n",
                          kOptions,
                          run_devices};

}  // namespace ai_vmm::cli
