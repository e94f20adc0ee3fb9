#include "base/processors.hpp"

#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "base/text.hpp"

namespace ai_vmm {

ProcessorFacts processor_facts(const std::string& root) {
  ProcessorFacts facts;
  facts.model = "unknown";
  std::set<std::string> flags;
  std::set<std::pair<std::string, std::string>> cores;
  std::string package, line;
  for (std::ifstream in(root + "/proc/cpuinfo"); std::getline(in, line);) {
    size_t colon = line.find(':');
    if (colon == line.npos) continue;
    std::string key(trim(std::string_view(line).substr(0, colon))),
        value(trim(std::string_view(line).substr(colon + 1)));
    if (key == "processor") ++facts.logical;
    if (key == "model name" && facts.model == "unknown") facts.model = value;
    if (key == "physical id") package = value;
    if (key == "core id") cores.insert({package, value});
    if ((key == "flags" || key == "Features") && flags.empty()) {
      std::istringstream words(value);
      for (std::string w; words >> w;) flags.insert(w);
    }
  }
  std::string unit;
  for (std::ifstream in(root + "/proc/meminfo"); in >> line;)
    if (int64_t kib = 0; line == "MemTotal:" && in >> kib >> unit) facts.memory_bytes = kib * 1024;
  facts.cores = static_cast<int>(cores.size());
  constexpr std::pair<const char*, const char*> kFlags[] = {
      // the kernel's name, ours
      {"sse4_2", "sse4.2"},
      {"avx2", "avx2"},
      {"fma", "fma"},
      {"f16c", "f16c"},
      {"avx512f", "avx512f"},
      {"avx512_vnni", "avx512_vnni"},
      {"avx512_bf16", "avx512_bf16"},
      {"avx512_fp16", "avx512_fp16"},
      {"amx_bf16", "amx_bf16"},
      {"amx_int8", "amx_int8"},
      {"avx_vnni", "avx_vnni"},
      {"asimd", "neon"},
      {"sve", "sve"},
  };
  for (auto [flag, ours] : kFlags)
    if (flags.count(flag)) facts.isa.emplace_back(ours);
  return facts;
}

}  // namespace ai_vmm
