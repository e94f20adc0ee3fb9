#include "runtime/execute.hpp"

#include "ai_vmm/cancel.hpp"
#include "plan/frame.hpp"
#include "runtime/control_flow.hpp"

namespace ai_vmm {

namespace {

Status run_host(const Plan::Step& step, Frame& frame, Execution& execution) {
  std::vector<Data> in;
  in.reserve(step.inputs.size());
  for (int v : step.inputs) in.push_back(v < 0 ? Data() : frame.at(v));
  auto out = AI_VMM_TAKE(evaluate(*step.node, in, execution.random));
  for (size_t k = 0; k < step.outputs.size(); ++k)
    if (step.outputs[k] >= 0) frame.set(step.outputs[k], std::move(out[k]));
  return {};
}

Status run_steps(const Plan& plan, Frame& frame, Execution& execution) {
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Plan::Step& step = plan.steps[i];
    if (cancelled(execution.request.cancel)) return Status(Code::cancelled, "The run was cancelled.");
    frame.prefetch(i, execution.request);
    if (step.kind != Plan::Kind::region) AI_VMM_TRY(frame.bring_home(step, execution.request));
    switch (step.kind) {
      case Plan::Kind::region: AI_VMM_TRY(frame.run_region(step, execution.request)); break;
      case Plan::Kind::host: AI_VMM_TRY(run_host(step, frame, execution)); break;
      default: AI_VMM_TRY(run_control_flow(step, frame, execution).during(step.node->label())); break;
    }
    for (int v : step.release) frame.release(v);
  }
  return {};
}

}  // namespace

Status execute(const Plan& plan, std::span<const Data* const> inputs, std::span<const Data* const> captures,
               std::span<Data* const> outputs, Execution& execution, std::span<HeldState* const> states) {
  auto frame = plan.frames.take();
  if (!frame) frame = std::make_unique<Frame>(plan);
  frame->start(inputs, captures, outputs, states);
  Status status = run_steps(plan, *frame, execution);
  if (status.ok()) status = frame->deliver(outputs, execution.request);
  frame->finish();
  plan.frames.give(std::move(frame));
  return status;
}

}  // namespace ai_vmm
