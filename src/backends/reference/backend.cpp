// The reference backend: runs the reference function of every operator, one node after another. Slow and obvious; the
// oracle that other backends are compared with, and the fallback of last resort.
#include "ai_vmm/compute_backend.hpp"
#include "kit/interpret.hpp"
#include "kit/view.hpp"
#include "ops/op.hpp"

namespace ai_vmm::reference {

namespace {

class ReferenceContext : public backend::Context {
 public:
  explicit ReferenceContext(std::shared_ptr<const Interpreter> program) : program_(std::move(program)) {}
  Status execute(std::span<const backend::TensorRef> inputs, std::span<const backend::TensorRef> outputs,
                 const AiVmmRun& run) override {
    return deliver(program_->graph(), AI_VMM_TAKE(program_->run(inputs, run)), outputs, run);
  }

 private:
  std::shared_ptr<const Interpreter> program_;
};

class ReferenceExecutable : public backend::Executable {
 public:
  explicit ReferenceExecutable(Graph graph) : program_(std::make_shared<const Interpreter>(std::move(graph))) {}
  bool works_in_place() const override { return true; }  // results are handed over when all are made
  Result<std::unique_ptr<backend::Context>> create_context() override {
    return std::unique_ptr<backend::Context>(new ReferenceContext(program_));
  }

 private:
  std::shared_ptr<const Interpreter> program_;
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
