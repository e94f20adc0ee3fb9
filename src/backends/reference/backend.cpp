// The reference backend: runs the reference function of every operator, one node after another. Slow and obvious; the
// oracle that other backends are compared with, and the fallback of last resort.
#include "ai_vmm/compute_backend.hpp"
#include "kit/view.hpp"
#include "ops/op.hpp"

namespace ai_vmm::reference {

namespace {

Tensor view_of(const AiVmmTensor& t) {
  return Tensor::view(static_cast<DType>(t.dtype), Shape(t.shape, t.shape + t.rank),
                      static_cast<const char*>(t.data) + t.byte_offset);
}

class ReferenceContext : public backend::Context {
 public:
  explicit ReferenceContext(std::shared_ptr<const Graph> graph) : graph_(std::move(graph)) {
    last_use_.assign(graph_->values.size(), -1);
    for (size_t n = 0; n < graph_->nodes.size(); ++n)
      for (ValueId v : graph_->nodes[n].inputs)
        if (v != kAbsent) last_use_[size_t(v)] = int(n);
    for (ValueId v : graph_->outputs) last_use_[size_t(v)] = int(graph_->nodes.size());
  }

  Status execute(std::span<const backend::TensorRef> inputs, std::span<const backend::TensorRef> outputs,
                 const AiVmmRun& run) override {
    const Graph& g = *graph_;
    std::vector<Data> slots(g.values.size());
    for (size_t i = 0; i < g.values.size(); ++i)
      if (g.values[i].constant) slots[i] = Data(g.values[i].constant);
    for (size_t i = 0; i < inputs.size(); ++i) slots[size_t(g.inputs[i])] = Data(view_of(*inputs[i]));
    Random random{run.seed};
    std::vector<Data> in;
    for (size_t n = 0; n < g.nodes.size(); ++n) {
      if (run.cancel && *run.cancel)
        return Status(Code::cancelled, "The run was cancelled before " + g.nodes[n].label() + ".");
      const Node& node = g.nodes[n];
      in.clear();
      for (ValueId v : node.inputs) in.push_back(v == kAbsent ? Data() : slots[size_t(v)]);
      auto out = AI_VMM_TAKE(evaluate(node, in, random));
      for (size_t k = 0; k < node.outputs.size(); ++k)
        if (node.outputs[k] != kAbsent) slots[size_t(node.outputs[k])] = std::move(out[k]);
      in.clear();
      for (ValueId v : node.inputs)
        if (v != kAbsent && last_use_[size_t(v)] == int(n) && !g.is_constant(v)) slots[size_t(v)] = Data();
    }
    for (size_t k = 0; k < outputs.size(); ++k) {
      const Tensor& t = slots[size_t(g.outputs[k])].tensor();
      const AiVmmTensor& o = *outputs[k];
      void* to = nullptr;
      if (o.data && std::equal(t.shape().begin(), t.shape().end(), o.shape, o.shape + o.rank)) {
        to = static_cast<char*>(o.data) + o.byte_offset;
      } else {
        to = run.allocate(run.user, uint32_t(k), int32_t(t.dtype()), int32_t(t.rank()), t.shape().data());
        if (!to)
          return Status(Code::resource_exhausted,
                        "The memory limit does not allow output \"" + g.value(g.outputs[k]).name + "\".");
      }
      if (t.bytes()) std::memcpy(to, t.data(), size_t(t.bytes()));
    }
    return {};
  }

 private:
  std::shared_ptr<const Graph> graph_;
  std::vector<int> last_use_;  // node index; nodes.size() for outputs
};

class ReferenceExecutable : public backend::Executable {
 public:
  explicit ReferenceExecutable(Graph graph) : graph_(std::make_shared<const Graph>(std::move(graph))) {}
  Result<std::unique_ptr<backend::Context>> create_context() override {
    return std::unique_ptr<backend::Context>(new ReferenceContext(graph_));
  }

 private:
  std::shared_ptr<const Graph> graph_;
};

class ReferenceDevice : public backend::Device {
 public:
  Status query(const AiVmmGraph& view, std::span<AiVmmVerdict* const> verdicts) override {
    for (uint32_t n = 0; n < view.node_count; ++n) {
      const AiVmmNode& node = *view.nodes[n];
      const OpDef* def = find_op(backend::view(node.domain), backend::view(node.op));
      verdicts[n]->reason = !def                                            ? AI_VMM_REFUSED_OPERATOR
                            : !def->eval || (def->traits & kHostOnly) != 0u ? AI_VMM_REFUSED_HOST_ONLY
                                                                            : AI_VMM_SUPPORTED;
    }
    return {};
  }
  Result<std::unique_ptr<backend::Executable>> compile(const AiVmmGraph& view, const AiVmmCompileOptions&) override {
    Graph graph = AI_VMM_TAKE(graph_from_view(view));
    return std::unique_ptr<backend::Executable>(new ReferenceExecutable(std::move(graph)));
  }
};

class ReferenceBackend : public backend::ComputeBackend {
 public:
  const char* name() const override { return "reference"; }
  const char* version() const override { return "1"; }
  Status initialize(const AiVmmHost&) override { return {}; }
  Status capabilities(int32_t, AiVmmDeviceInfo& info) const override {
    std::snprintf(info.name, sizeof info.name, "reference (one thread, no vector code)");
    std::snprintf(info.resource, sizeof info.resource, "cpu:0");
    return {};
  }
  Result<std::unique_ptr<backend::Device>> open(int32_t) override {
    return std::unique_ptr<backend::Device>(new ReferenceDevice);
  }
};

}  // namespace

const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  return backend::entry<ReferenceBackend>(host, status);
}

}  // namespace ai_vmm::reference
