#include "base/processors.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "base/text.hpp"

namespace ai_vmm {

namespace {
// Processors that the cgroup's quota amounts to; 0 where there is no quota.
int quota_processors() {
  std::string group;
  for (std::ifstream in("/proc/self/cgroup"); std::getline(in, group);)
    if (group.rfind("0::", 0) == 0) break;
  group = group.rfind("0::", 0) == 0 ? group.substr(3) : "";
  auto processors = [](double quota, double period) {
    return quota > 0 && period > 0 ? std::max(1, static_cast<int>((quota + period - 1) / period)) : 0;
  };
  int least = 0;
  // A group's ancestors limit it as well.
  for (std::string g = group;; g = g.substr(0, g.rfind('/'))) {
    double quota = 0, period = 0;
    if (std::ifstream in("/sys/fs/cgroup" + g + "/cpu.max"); in >> quota >> period)
      if (int n = processors(quota, period); n && (!least || n < least)) least = n;
    if (g.empty() || g.rfind('/') == std::string::npos) break;
  }
  double quota = 0, period = 0;  // cgroup v1
  std::ifstream quota_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), period_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (quota_file >> quota && period_file >> period)
    if (int n = processors(quota, period); n && (!least || n < least)) least = n;
  return least;
}
}  // namespace

int usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  if (int quota = quota_processors()) n = std::min(n, quota);
  return std::max(n, 1);
}

ProcessorFacts processor_facts() {
  ProcessorFacts facts;
  facts.model = "unknown";
  facts.logical = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  facts.memory_bytes = int64_t(sysconf(_SC_PHYS_PAGES)) * int64_t(sysconf(_SC_PAGESIZE));
  std::set<std::string> flags;
  std::set<std::pair<std::string, std::string>> cores;
  std::string package, line;
  for (std::ifstream in("/proc/cpuinfo"); std::getline(in, line);) {
    size_t colon = line.find(':');
    if (colon == line.npos) continue;
    std::string key(trim(std::string_view(line).substr(0, colon))), value(trim(std::string_view(line).substr(colon + 1)));
    if (key == "model name" && facts.model == "unknown") facts.model = value;
    if (key == "physical id") package = value;
    if (key == "core id") cores.insert({package, value});
    if ((key == "flags" || key == "Features") && flags.empty()) {
      std::istringstream words(value);
      for (std::string w; words >> w;) flags.insert(w);
    }
  }
  facts.cores = static_cast<int>(cores.size());
  constexpr std::pair<const char*, const char*> kFlags[] = {  // the kernel's name, ours
      {"sse4_2", "sse4.2"},           {"avx2", "avx2"},         {"fma", "fma"},           {"f16c", "f16c"},
      {"avx512f", "avx512f"},         {"avx512_vnni", "avx512_vnni"}, {"avx512_bf16", "avx512_bf16"},
      {"avx512_fp16", "avx512_fp16"}, {"amx_bf16", "amx_bf16"}, {"amx_int8", "amx_int8"}, {"avx_vnni", "avx_vnni"},
      {"asimd", "neon"},              {"sve", "sve"},
  };
  for (auto [flag, ours] : kFlags)
    if (flags.count(flag)) facts.isa.emplace_back(ours);
  return facts;
}

}  // namespace ai_vmm
