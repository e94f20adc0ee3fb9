// Runs a plan.
#pragma once

#include <span>

#include "hal/held_state.hpp"
#include "plan/plan.hpp"

namespace ai_vmm {

struct Execution {
  RunRequest request;
  Random random;
};

// `inputs` and `captures` are in the plan's order. `outputs` has one entry an output: a tensor there is the caller's
// buffer and is written in place; anything else is replaced by what the plan made.
// `states` is empty, or has one entry an input: the state whose rows it is, or null.
// Memory is charged to MemoryBudget::current(). Failures name the node.
Status execute(const Plan& plan, std::span<const Data* const> inputs, std::span<const Data* const> captures,
               std::span<Data* const> outputs, Execution& execution, std::span<HeldState* const> states = {});

}  // namespace ai_vmm
