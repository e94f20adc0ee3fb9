// The Trio as a device of AI VMM. docs/write-a-backend.md explains it part by part.
#include <cstdio>
#include <memory>
#include <vector>

#include "ai_vmm/compute_backend.hpp"
#include "trio.h"

namespace {

using namespace ai_vmm;

constexpr int32_t kF32 = int32_t(DType::f32);

// What a code of the driver means for the host: the request is not at fault, the device is.
Status check(int code) {
  if (code == TRIO_NO_MEMORY)
    return Status(Code::resource_exhausted, "The Trio has no memory left.").on_device(DeviceState::out_of_memory);
  if (code == TRIO_UNPLUGGED) return Status(Code::unavailable, "The Trio is unplugged.").on_device(DeviceState::lost);
  return {};
}

// Memory of the chip that grows when it must.
class Memory {
 public:
  Memory() = default;
  Memory(Memory&& o) noexcept : memory_(std::exchange(o.memory_, nullptr)), floats_(std::exchange(o.floats_, 0)) {}
  ~Memory() { trio_free(memory_); }
  Status reserve(size_t floats) {
    if (memory_ && floats <= floats_) return {};
    trio_free(std::exchange(memory_, nullptr));
    AI_VMM_TRY(check(trio_allocate(floats, &memory_)));
    floats_ = floats;
    return {};
  }
  TrioMemory* get() const { return memory_; }
  size_t floats() const { return floats_; }

 private:
  TrioMemory* memory_ = nullptr;
  size_t floats_ = 0;
};

enum class Function { matmul, add, relu };

struct Step {
  Function function;
  int32_t a, b, y;  // values
};

// What compile makes: steps over numbered values, the constants among them already on the chip.
struct Program {
  std::vector<Step> steps;
  std::vector<int32_t> inputs, outputs;
  std::vector<Memory> constants;  // of each value; empty where it is none
  std::vector<std::vector<int64_t>> constant_shapes;
  int64_t weight_bytes = 0;
};

// ---------------------------------------------------------------- one run

class TrioContext : public backend::Context {
 public:
  explicit TrioContext(std::shared_ptr<const Program> program)
      : program_(std::move(program)), memory_(program_->constants.size()), shapes_(program_->constant_shapes) {}

  Status execute(std::span<const backend::TensorRef> inputs, std::span<const backend::TensorRef> outputs,
                 const AiVmmRun& run) override {
    for (size_t i = 0; i < inputs.size(); ++i) {
      const AiVmmTensor& t = *inputs[i];
      const auto v = size_t(program_->inputs[i]);
      shapes_[v].assign(t.shape, t.shape + t.rank);
      AI_VMM_TRY(memory_[v].reserve(floats(v)));
      AI_VMM_TRY(check(trio_write(memory_[v].get(), static_cast<const float*>(backend::data_of(t)), floats(v))));
    }
    for (const Step& s : program_->steps) {
      if (cancelled(run.cancel)) return Status(Code::cancelled, "The run was cancelled.");
      AI_VMM_TRY(run_step(s));
    }
    for (uint32_t k = 0; k < outputs.size(); ++k) {
      const auto v = size_t(program_->outputs[k]);
      void* to = AI_VMM_TAKE(backend::output(run, outputs, k, kF32, int32_t(shapes_[v].size()), shapes_[v].data()));
      AI_VMM_TRY(check(trio_read(on_chip(v), static_cast<float*>(to), floats(v))));
    }
    return {};
  }

 private:
  size_t floats(size_t v) const { return size_t(backend::count_of(int32_t(shapes_[v].size()), shapes_[v].data())); }
  const TrioMemory* on_chip(size_t v) const {
    return program_->constants[v].get() ? program_->constants[v].get() : memory_[v].get();
  }

  Status run_step(const Step& s) {
    const auto a = size_t(s.a), b = size_t(s.b), y = size_t(s.y);
    if (s.function == Function::matmul) {
      if (shapes_[a][1] != shapes_[b][0])
        return Status(Code::invalid_argument, "A matrix has " + std::to_string(shapes_[a][1]) +
                                                  " columns, the one it is multiplied with " +
                                                  std::to_string(shapes_[b][0]) + " rows.");
      shapes_[y] = {shapes_[a][0], shapes_[b][1]};
    } else {
      if (s.function == Function::add && shapes_[a] != shapes_[b])
        return Status(Code::invalid_argument, "Two tensors that are added differ in shape.");
      shapes_[y] = shapes_[a];
    }
    AI_VMM_TRY(memory_[y].reserve(floats(y)));
    switch (s.function) {
      case Function::matmul:
        return check(trio_matmul(on_chip(a), on_chip(b), memory_[y].get(), size_t(shapes_[a][0]), size_t(shapes_[a][1]),
                                 size_t(shapes_[b][1])));
      case Function::add: return check(trio_add(on_chip(a), on_chip(b), memory_[y].get(), floats(y)));
      case Function::relu: return check(trio_relu(on_chip(a), memory_[y].get(), floats(y)));
    }
    return {};
  }

  std::shared_ptr<const Program> program_;
  std::vector<Memory> memory_;
  std::vector<std::vector<int64_t>> shapes_;
};

// ---------------------------------------------------------------- a compiled graph

class TrioExecutable : public backend::Executable {
 public:
  explicit TrioExecutable(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  Result<std::unique_ptr<backend::Context>> create_context() override {
    return std::unique_ptr<backend::Context>(new TrioContext(program_));
  }
  bool works_in_place() const override { return true; }  // inputs are on the chip before an output is written
  void info(AiVmmExecutableInfo& info) const override {
    info.weight_bytes = program_->weight_bytes;
    info.compilations = 1;
  }

 private:
  std::shared_ptr<const Program> program_;
};

// ---------------------------------------------------------------- the device

// The function for a node, or why there is none.
struct Choice {
  AiVmmReason reason = AI_VMM_SUPPORTED;
  Function function = Function::relu;
};

Choice choose(const AiVmmGraph& g, const AiVmmNode& node) {
  Choice c;
  const std::string_view op = backend::view(node.op);
  if (!backend::view(node.domain).empty()) return {AI_VMM_REFUSED_OPERATOR};
  if (op == "MatMul") {
    c.function = Function::matmul;
  } else if (op == "Add") {
    c.function = Function::add;
  } else if (op != "Relu") {
    return {AI_VMM_REFUSED_OPERATOR};
  }
  auto input = [&](uint32_t i) -> const AiVmmValue& { return *g.values[node.inputs[i]]; };
  for (uint32_t i = 0; i < node.input_count; ++i) {
    if (input(i).dtype != kF32) return {AI_VMM_REFUSED_DTYPE};
    if (input(i).rank < 0 || (c.function == Function::matmul && input(i).rank != 2)) return {AI_VMM_REFUSED_RANK};
  }
  // The chip does not broadcast: both sides of Add have one shape, open sizes (negative codes) included.
  if (c.function == Function::add &&
      !std::equal(input(0).dims, input(0).dims + input(0).rank, input(1).dims, input(1).dims + input(1).rank))
    return {AI_VMM_REFUSED_SHAPE};
  return c;
}

class TrioDevice : public backend::Device {
 public:
  Status state() const override { return check(trio_present() < 1 ? TRIO_UNPLUGGED : 0); }

  Status query(const AiVmmGraph& graph, std::span<AiVmmVerdict* const> verdicts) override {
    for (uint32_t n = 0; n < graph.node_count; ++n) verdicts[n]->reason = choose(graph, *graph.nodes[n]).reason;
    return {};
  }

  Result<std::unique_ptr<backend::Executable>> compile(const AiVmmGraph& graph, const AiVmmCompileOptions&) override {
    auto p = std::make_shared<Program>();
    p->constants.resize(graph.value_count);
    p->constant_shapes.resize(graph.value_count);
    for (uint32_t n = 0; n < graph.node_count; ++n) {
      const AiVmmNode& node = *graph.nodes[n];
      const Choice c = choose(graph, node);
      if (c.reason != AI_VMM_SUPPORTED)
        return Status(Code::unimplemented, "The Trio does not take the operator \"" +
                                               std::string(backend::view(node.op)) + "\" as it stands in the graph.");
      p->steps.push_back({c.function, node.inputs[0], node.inputs[node.input_count - 1], node.outputs[0]});
    }
    for (uint32_t v = 0; v < graph.value_count; ++v) {
      const AiVmmValue& value = *graph.values[v];
      if (!value.data || value.dtype != kF32) continue;
      p->constant_shapes[v].assign(value.dims, value.dims + value.rank);
      const auto floats = size_t(backend::count_of(value.rank, value.dims));
      AI_VMM_TRY(p->constants[v].reserve(floats));
      AI_VMM_TRY(check(trio_write(p->constants[v].get(), static_cast<const float*>(value.data), floats)));
      p->weight_bytes += int64_t(floats * sizeof(float));
    }
    p->inputs.assign(graph.inputs, graph.inputs + graph.input_count);
    p->outputs.assign(graph.outputs, graph.outputs + graph.output_count);
    return std::unique_ptr<backend::Executable>(new TrioExecutable(std::move(p)));
  }
};

// ---------------------------------------------------------------- the backend

class TrioBackend : public backend::ComputeBackend {
 public:
  const char* name() const override { return "trio"; }
  const char* version() const override { return "1.0"; }
  Status initialize(const AiVmmHost&) override {
    if (trio_present() < 1) return Status(Code::unavailable, "No Trio is plugged in.");
    return {};
  }
  int32_t device_count() const override { return trio_present(); }
  Status capabilities(int32_t device, AiVmmDeviceInfo& info) const override {
    std::snprintf(info.name, sizeof info.name, "Trio %d", int(device));
    std::snprintf(info.resource, sizeof info.resource, "trio:%d", int(device));
    std::snprintf(info.driver, sizeof info.driver, "trio 1.0");
    info.memory_bytes = int64_t(trio_memory_bytes());
    return {};
  }
  double performance_score(int32_t) const override { return 1e9; }
  Result<std::unique_ptr<backend::Device>> open(int32_t) override {
    return std::unique_ptr<backend::Device>(new TrioDevice);
  }
};

}  // namespace

AI_VMM_EXPORT_BACKEND(TrioBackend)
