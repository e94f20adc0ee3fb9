#include "base/threads.hpp"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

namespace ai_vmm {

int available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  std::string group;
  for (std::ifstream in("/proc/self/cgroup"); std::getline(in, group);)
    if (group.rfind("0::", 0) == 0) {
      group = group.substr(3);
      break;
    }
  for (const std::string& path : {"/sys/fs/cgroup" + group + "/cpu.max", std::string("/sys/fs/cgroup/cpu.max")}) {
    std::ifstream in(path);
    std::string quota;
    double period = 0;
    if (in >> quota >> period && quota != "max" && period > 0)
      n = std::min(n, std::max(1, int(std::floor(std::stod(quota) / period + 0.5))));
  }
  return std::max(1, n);
}

}  // namespace ai_vmm
