// The choice of device and threads for a deployment, by measuring this model on this machine.
#pragma once

#include "runtime/deployment.hpp"

namespace ai_vmm {

// Measures `deployment` at each thread count with random inputs, sets its `threads` to the fastest and records every
// candidate. `budget_ms` bounds the time, except that each candidate runs at least once. When the trial run fails
// (random inputs do not suit every model) the largest count stays and the reason says so.
void choose_threads(Deployment::Impl& deployment, std::span<const int> counts,
                    const std::map<std::string, Shape>& shapes, int budget_ms);

}  // namespace ai_vmm
