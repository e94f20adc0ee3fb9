// Threads of the compute pool.
#pragma once

namespace ai_vmm {

// How many processors this process may use: affinity mask and cgroup CPU quota, at least 1.
int available_threads();

}  // namespace ai_vmm
