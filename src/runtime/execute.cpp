#include "runtime/execute.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "runtime/control_flow.hpp"

namespace ai_vmm {

namespace {

// Writes `value` into the caller's buffer, if there is one.
Status deliver(const Plan& plan, size_t k, const Data& value, Data& out) {
  if (!out.is_tensor()) {
    out = value;
    return {};
  }
  const Tensor& buffer = out.tensor();
  const std::string& name = plan.value(plan.outputs[k]).name;
  if (!value.is_tensor())
    return Status(Code::invalid_argument,
                  "Output \"" + name + "\" is not a tensor; it cannot be written into a buffer.");
  const Tensor& t = value.tensor();
  if (t.data() == buffer.data()) return {};
  if (t.dtype() != buffer.dtype() || t.shape() != buffer.shape())
    return Status(Code::invalid_argument, "Output \"" + name + "\" is " + ai_vmm::name(t.dtype()) +
                                              to_string(t.shape()) + "; the buffer given for it is " +
                                              ai_vmm::name(buffer.dtype()) + to_string(buffer.shape()) + ".");
  Tensor to = buffer;
  if (t.dtype() == DType::string) {
    auto from = t.as<std::string>();
    std::copy(from.begin(), from.end(), to.as_mutable<std::string>().begin());
  } else if (t.bytes()) {
    std::memcpy(to.mutable_data(), t.data(), size_t(t.bytes()));
  }
  return {};
}

Status run_region(const Plan::Step& step, std::vector<Data>& slots,
                  const std::vector<std::pair<int, const Tensor*>>& buffers, Execution& execution) {
  std::vector<const Tensor*> in;
  in.reserve(step.inputs.size());
  for (int v : step.inputs) in.push_back(&slots[size_t(v)].tensor());
  std::vector<Tensor> out(step.outputs.size());
  for (size_t k = 0; k < out.size(); ++k)
    for (const auto& [slot, buffer] : buffers)
      if (slot == step.outputs[k]) out[k] = *buffer;
  AI_VMM_TRY(step.executable->run(in, out, execution.request));
  for (size_t k = 0; k < out.size(); ++k) slots[size_t(step.outputs[k])] = Data(std::move(out[k]));
  return {};
}

Status run_host(const Plan::Step& step, std::vector<Data>& slots, Execution& execution) {
  std::vector<Data> in;
  in.reserve(step.inputs.size());
  for (int v : step.inputs) in.push_back(v < 0 ? Data() : slots[size_t(v)]);
  auto out = AI_VMM_TAKE(evaluate(*step.node, in, execution.random));
  for (size_t k = 0; k < step.outputs.size(); ++k)
    if (step.outputs[k] >= 0) slots[size_t(step.outputs[k])] = std::move(out[k]);
  return {};
}

}  // namespace

Status execute(const Plan& plan, std::span<const Data> inputs, std::span<const Data> captures, std::span<Data> outputs,
               Execution& execution) {
  std::vector<Data> slots(plan.values.size());
  for (const auto& [slot, value] : plan.constants) slots[size_t(slot)] = value;
  for (size_t i = 0; i < plan.captures.size(); ++i) slots[size_t(plan.captures[i])] = captures[i];
  for (size_t i = 0; i < plan.inputs.size(); ++i) slots[size_t(plan.inputs[i])] = inputs[i];
  std::vector<std::pair<int, const Tensor*>> buffers;
  for (size_t k = 0; k < outputs.size(); ++k)
    if (outputs[k].is_tensor()) buffers.emplace_back(plan.outputs[k], &outputs[k].tensor());

  for (const Plan::Step& step : plan.steps) {
    if (execution.request.cancel && *execution.request.cancel) return Status(Code::cancelled, "The run was cancelled.");
    switch (step.kind) {
      case Plan::Kind::region: AI_VMM_TRY(run_region(step, slots, buffers, execution)); break;
      case Plan::Kind::host: AI_VMM_TRY(run_host(step, slots, execution)); break;
      default: AI_VMM_TRY(run_control_flow(step, slots, execution).during(step.node->label())); break;
    }
    for (int v : step.release) slots[size_t(v)] = Data();
  }
  for (size_t k = 0; k < outputs.size(); ++k) AI_VMM_TRY(deliver(plan, k, slots[size_t(plan.outputs[k])], outputs[k]));
  return {};
}

}  // namespace ai_vmm
