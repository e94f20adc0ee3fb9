// Runs a plan.
#pragma once

#include <span>
#include <vector>

#include "hal/device.hpp"
#include "plan/plan.hpp"

namespace ai_vmm {

struct Execution {
  RunRequest request;
  Random random;
};

// `inputs` and `captures` are in the plan's order. `outputs` has one entry an output: a tensor there is the caller's
// buffer and is written in place; anything else is replaced by what the plan made.
// Memory is charged to MemoryBudget::current(). Failures name the node.
Status execute(const Plan& plan, std::span<const Data> inputs, std::span<const Data> captures, std::span<Data> outputs,
               Execution& execution);

}  // namespace ai_vmm
