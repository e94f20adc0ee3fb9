// If, Loop, Scan and SequenceMap: their bodies are plans of their own.
#pragma once

#include "plan/frame.hpp"
#include "runtime/execute.hpp"

namespace ai_vmm {

// Runs a control-flow step over the values of the enclosing plan.
Status run_control_flow(const Plan::Step& step, Frame& frame, Execution& execution);

}  // namespace ai_vmm
