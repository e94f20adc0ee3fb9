#include "base/threads.hpp"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

#include "base/cgroup.hpp"

namespace ai_vmm {

int available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  for (const std::string& path : cgroup_files("cpu.max")) {
    std::ifstream in(path);
    std::string quota;
    double period = 0;
    if (in >> quota >> period && quota != "max" && period > 0)
      n = std::min(n, std::max(1, int(std::floor(std::stod(quota) / period + 0.5))));
  }
  return std::max(1, n);
}

}  // namespace ai_vmm
