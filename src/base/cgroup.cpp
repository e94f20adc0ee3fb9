#include "base/cgroup.hpp"

#include <fstream>

namespace ai_vmm {

std::vector<std::string> cgroup_files(const std::string& name) {
  std::string group;
  for (std::ifstream in("/proc/self/cgroup"); std::getline(in, group);)
    if (group.rfind("0::", 0) == 0) return {"/sys/fs/cgroup" + group.substr(3) + "/" + name, "/sys/fs/cgroup/" + name};
  return {"/sys/fs/cgroup/" + name};
}

}  // namespace ai_vmm
