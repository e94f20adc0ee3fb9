// If, Loop, Scan and SequenceMap: their bodies are plans of their own.
#pragma once

#include <vector>

#include "runtime/execute.hpp"

namespace ai_vmm {

// Runs a control-flow step over the slots of the enclosing plan.
Status run_control_flow(const Plan::Step& step, std::vector<Data>& slots, Execution& execution);

}  // namespace ai_vmm
