// The template for a backend: copy this folder, put your own name in place of "null", and grow it from here. It is
// whole: it finds its device, judges nodes with reasons, compiles and runs. It only knows Identity, so its device is as
// fast as memory, and what a run of it costs is the cost of the interface.
// docs/write-a-backend.md goes through it step by step.
#include <cstdio>
#include <cstring>

#include "ai_vmm/cancel.hpp"
#include "ai_vmm/compute_backend.hpp"

namespace ai_vmm::null {

namespace {

// Where an output of the graph comes from: an input, or a constant, which is valid as long as the executable.
struct Source {
  int32_t input = -1;
  const void* constant = nullptr;
  int32_t dtype = 0;
  std::vector<int64_t> shape;  // of the constant
};

// 4. One concurrent run: what belongs to a single call lives here (arena, stream, scratch memory).
class NullContext : public backend::Context {
 public:
  explicit NullContext(std::shared_ptr<const std::vector<Source>> program) : program_(std::move(program)) {}

  // Arguments were checked against the compiled graph.
  Status execute(std::span<const backend::TensorRef> inputs, std::span<const backend::TensorRef> outputs,
                 const AiVmmRun& run) override {
    for (uint32_t k = 0; k < outputs.size(); ++k) {
      if (cancelled(run.cancel)) return Status(Code::cancelled, "The run was cancelled.");
      const Source& s = (*program_)[k];
      const AiVmmTensor* in = s.constant ? nullptr : inputs[size_t(s.input)];
      const void* from = in ? backend::data_of(*in) : s.constant;
      const int32_t rank = in ? in->rank : int32_t(s.shape.size());
      const int64_t* shape = in ? in->shape : s.shape.data();
      void* to = AI_VMM_TAKE(backend::output(run, outputs, k, s.dtype, rank, shape));
      if (int64_t bytes = backend::bytes_of(s.dtype, rank, shape)) std::memmove(to, from, size_t(bytes));
    }
    return {};
  }

 private:
  std::shared_ptr<const std::vector<Source>> program_;
};

// 3. A compiled graph: immutable, shared by threads. The graph it was made from is gone when it runs.
class NullExecutable : public backend::Executable {
 public:
  explicit NullExecutable(std::vector<Source> program)
      : program_(std::make_shared<const std::vector<Source>>(std::move(program))) {}
  Result<std::unique_ptr<backend::Context>> create_context() override {
    return std::unique_ptr<backend::Context>(new NullContext(program_));
  }

 private:
  std::shared_ptr<const std::vector<Source>> program_;
};

// 2. An opened device.
class NullDevice : public backend::Device {
 public:
  // A verdict a node. "Supported" promises that compile and run succeed; a refusal gives the first reason that holds.
  Status query(const AiVmmGraph& graph, std::span<AiVmmVerdict* const> verdicts) override {
    for (uint32_t n = 0; n < graph.node_count; ++n) {
      const AiVmmNode& node = *graph.nodes[n];
      verdicts[n]->reason = AI_VMM_REFUSED_OPERATOR;
      if (!backend::view(node.domain).empty() || backend::view(node.op) != "Identity") continue;
      const AiVmmValue& x = *graph.values[node.inputs[0]];
      verdicts[n]->reason = backend::bits_of(x.dtype) == 0 ? AI_VMM_REFUSED_DTYPE : AI_VMM_SUPPORTED;
    }
    return {};
  }

  Result<std::unique_ptr<backend::Executable>> compile(const AiVmmGraph& graph, const AiVmmCompileOptions&) override {
    std::vector<Source> source(graph.value_count);
    for (uint32_t v = 0; v < graph.value_count; ++v) {
      const AiVmmValue& value = *graph.values[v];
      source[v].dtype = value.dtype;
      if (!value.data) continue;
      source[v].constant = value.data;
      source[v].shape.assign(value.dims, value.dims + value.rank);
    }
    for (uint32_t i = 0; i < graph.input_count; ++i) source[size_t(graph.inputs[i])].input = int32_t(i);
    for (uint32_t n = 0; n < graph.node_count; ++n) {
      const AiVmmNode& node = *graph.nodes[n];
      if (!backend::view(node.domain).empty() || backend::view(node.op) != "Identity")
        return Status(Code::unimplemented, "The null device has no operator \"" + std::string(backend::view(node.op)) +
                                               "\"; it has Identity.");
      source[size_t(node.outputs[0])] = source[size_t(node.inputs[0])];
    }
    std::vector<Source> program;
    for (uint32_t k = 0; k < graph.output_count; ++k) program.push_back(source[size_t(graph.outputs[k])]);
    return std::unique_ptr<backend::Executable>(new NullExecutable(std::move(program)));
  }
};

// 1. The backend: finds the devices of this machine.
class NullBackend : public backend::ComputeBackend {
 public:
  const char* name() const override { return "null"; }
  const char* version() const override { return "1"; }
  Status initialize(const AiVmmHost&) override { return {}; }
  Status capabilities(int32_t, AiVmmDeviceInfo& info) const override {
    std::snprintf(info.name, sizeof info.name, "null (copies; a template for backends)");
    std::snprintf(info.resource, sizeof info.resource, "cpu:0");  // it is the processor that copies
    return {};
  }
  Result<std::unique_ptr<backend::Device>> open(int32_t) override {
    return std::unique_ptr<backend::Device>(new NullDevice);
  }
};

}  // namespace

// A plugin says AI_VMM_EXPORT_BACKEND(NullBackend) instead, outside every namespace.
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  return backend::entry<NullBackend>(host, status);
}

}  // namespace ai_vmm::null
