// Where the limits of this process's control group stand.
#pragma once

#include <string>
#include <vector>

namespace ai_vmm {

// Paths of the file `name` ("memory.max") of cgroup v2: of the group this process is in, then of the root as a
// container sees it. Either may not exist.
std::vector<std::string> cgroup_files(const std::string& name);

}  // namespace ai_vmm
