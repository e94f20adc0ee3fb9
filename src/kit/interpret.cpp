#include "kit/interpret.hpp"

#include <algorithm>

#include "ai_vmm/cancel.hpp"
#include "ai_vmm/compute_backend.hpp"
#include "ops/op.hpp"

namespace ai_vmm {

Tensor view_of(const AiVmmTensor& t) {
  return Tensor::view(static_cast<DType>(t.dtype), Shape(t.shape, t.shape + t.rank),
                      static_cast<const char*>(t.data) + t.byte_offset);
}

Interpreter::Interpreter(Graph graph) : graph_(std::move(graph)), last_use_(graph_.values.size(), -1) {
  for (size_t n = 0; n < graph_.nodes.size(); ++n)
    for (ValueId v : graph_.nodes[n].inputs)
      if (v != kAbsent) last_use_[size_t(v)] = int(n);
  for (ValueId v : graph_.outputs) last_use_[size_t(v)] = int(graph_.nodes.size());
}

Result<std::vector<Tensor>> Interpreter::run(std::span<const AiVmmTensor* const> inputs, const AiVmmRun& run,
                                             const Observer& observe) const {
  const Graph& g = graph_;
  std::vector<Data> slots(g.values.size());
  for (size_t i = 0; i < g.values.size(); ++i)
    if (g.values[i].constant) slots[i] = Data(g.values[i].constant);
  for (size_t i = 0; i < inputs.size(); ++i) slots[size_t(g.inputs[i])] = Data(view_of(*inputs[i]));
  Random random{run.seed};
  std::vector<Data> in;
  for (size_t n = 0; n < g.nodes.size(); ++n) {
    const Node& node = g.nodes[n];
    if (cancelled(run.cancel)) return Status(Code::cancelled, "The run was cancelled before " + node.label() + ".");
    in.clear();
    for (ValueId v : node.inputs) in.push_back(v == kAbsent ? Data() : slots[size_t(v)]);
    auto out = AI_VMM_TAKE(evaluate(node, in, random));
    if (observe) observe(node, in, out);
    for (size_t k = 0; k < node.outputs.size(); ++k)
      if (node.outputs[k] != kAbsent) slots[size_t(node.outputs[k])] = std::move(out[k]);
    in.clear();
    for (ValueId v : node.inputs)
      if (v != kAbsent && last_use_[size_t(v)] == int(n) && !g.is_constant(v)) slots[size_t(v)] = Data();
  }
  std::vector<Tensor> results;
  for (ValueId v : g.outputs) results.push_back(slots[size_t(v)].tensor());
  return results;
}

Status deliver(const Graph& g, std::span<const Tensor> results, std::span<const AiVmmTensor* const> outputs,
               const AiVmmRun& run) {
  // A result that is a view, of an input then, would change under us when an output is written over that input.
  std::vector<Tensor> own(results.begin(), results.end());
  for (Tensor& t : own)
    if (own.size() > 1 && !t.owns_memory() && t.bytes()) t = AI_VMM_TAKE(t.clone());
  for (size_t k = 0; k < outputs.size(); ++k) {
    const Tensor& t = own[k];
    auto to = backend::output(run, outputs, uint32_t(k), int32_t(t.dtype()), int32_t(t.rank()), t.shape().data());
    if (!to.ok()) return std::move(to).status().during("handing over \"" + g.value(g.outputs[k]).name + "\"");
    if (t.bytes()) std::memmove(*to, t.data(), size_t(t.bytes()));
  }
  return {};
}

}  // namespace ai_vmm
