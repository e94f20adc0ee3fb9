// OpenCL devices behind the plugin interface. The library is loaded when the first device is asked for.
#include <cstdio>
#include <mutex>

#include "ai_vmm/compute_backend.hpp"
#include "backends/opencl/driver.hpp"
#include "gpu/program.hpp"
#include "kit/view.hpp"

namespace ai_vmm::opencl {

namespace {

class ClContext : public backend::Context {
 public:
  explicit ClContext(std::unique_ptr<gpu::Context> context) : context_(std::move(context)) {}

  Status execute(std::span<const backend::TensorRef> inputs, std::span<const backend::TensorRef> outputs,
                 const AiVmmRun& run) override {
    inputs_.clear();
    for (backend::TensorRef t : inputs)
      inputs_.push_back(Tensor::view(static_cast<DType>(t->dtype), Shape(t->shape, t->shape + t->rank),
                                     static_cast<const char*>(t->data) + t->byte_offset));
    slots_.resize(outputs.size());
    for (size_t k = 0; k < outputs.size(); ++k) {
      const AiVmmTensor& t = *outputs[k];
      slots_[k].data = t.data ? static_cast<char*>(t.data) + t.byte_offset : nullptr;
      slots_[k].shape = {t.shape, t.shape ? size_t(t.rank) : 0};
      slots_[k].allocate = [&run, k](DType dtype, const Shape& shape) -> Result<void*> {
        return backend::allocate(run, uint32_t(k), int32_t(dtype), int32_t(shape.size()), shape.data());
      };
    }
    return context_->run(inputs_, slots_, run.cancel);
  }

 private:
  std::unique_ptr<gpu::Context> context_;
  std::vector<Tensor> inputs_;
  std::vector<gpu::OutputSlot> slots_;
};

class ClExecutable : public backend::Executable {
 public:
  explicit ClExecutable(std::shared_ptr<const gpu::Program> program) : program_(std::move(program)) {}
  Result<std::unique_ptr<backend::Context>> create_context() override {
    auto context = AI_VMM_TAKE(gpu::Context::make(program_));
    return std::unique_ptr<backend::Context>(new ClContext(std::move(context)));
  }
  void info(AiVmmExecutableInfo& info) const override {
    info.weight_bytes = program_->weight_bytes();
    info.arena_bytes = program_->arena_bytes;
    info.compilations = program_->plans + program_->driver->compilations();
  }

 private:
  std::shared_ptr<const gpu::Program> program_;
};

class ClDevice : public backend::Device {
 public:
  explicit ClDevice(std::shared_ptr<gpu::Driver> driver) : driver_(std::move(driver)) {}

  Status query(const AiVmmGraph& view, std::span<AiVmmVerdict* const> verdicts) override {
    Graph graph = AI_VMM_TAKE(graph_from_view(view));
    auto answers = gpu::query(graph, driver_->traits());
    for (size_t n = 0; n < answers.size(); ++n) {
      verdicts[n]->reason = answers[n].reason;
      verdicts[n]->detail = answers[n].detail;
    }
    return {};
  }
  Result<std::unique_ptr<backend::Executable>> compile(const AiVmmGraph& view, const AiVmmCompileOptions& o) override {
    Graph graph = AI_VMM_TAKE(graph_from_view(view));
    gpu::Options options;
    options.deterministic = o.deterministic != 0;
    options.memory_limit = o.memory_limit;
    auto program = AI_VMM_TAKE(gpu::Program::compile(std::move(graph), driver_, options));
    return std::unique_ptr<backend::Executable>(new ClExecutable(std::move(program)));
  }

 private:
  std::shared_ptr<gpu::Driver> driver_;
};

class ClBackend : public backend::ComputeBackend {
 public:
  const char* name() const override { return "opencl"; }
  const char* version() const override { return "1"; }
  Status initialize(const AiVmmHost& host) override {
    host_ = &host;
    return {};
  }
  int32_t device_count() const override { return devices().ok() ? int32_t((*devices()).size()) : 0; }
  Status capabilities(int32_t index, AiVmmDeviceInfo& info) const override {
    const DeviceId* id = AI_VMM_TAKE(device(index));
    std::snprintf(info.name, sizeof info.name, "%s (%s)", id->name.c_str(), id->platform_name.c_str());
    std::snprintf(info.resource, sizeof info.resource, "%s", id->resource.c_str());
    info.memory_bytes = id->memory_bytes;
    return {};
  }
  Result<std::unique_ptr<backend::Device>> open(int32_t index) override {
    const DeviceId* id = AI_VMM_TAKE(device(index));
    std::lock_guard lock(mutex_);
    auto& driver = drivers_[id];
    if (!driver) driver = AI_VMM_TAKE(open_driver(*id, host_));
    return std::unique_ptr<backend::Device>(new ClDevice(driver));
  }

 private:
  static const Result<std::vector<DeviceId>>& devices() {
    static const Result<std::vector<DeviceId>> found = find_devices();
    return found;
  }
  static Result<const DeviceId*> device(int32_t index) {
    const auto& found = devices();
    if (!found.ok()) return found.status().copy();
    if (index < 0 || size_t(index) >= (*found).size())
      return Status(Code::unavailable, "There is no OpenCL device " + std::to_string(index) + "; the machine has " +
                                           std::to_string((*found).size()) +
                                           ". Install the OpenCL driver of the device (pocl-opencl-icd runs OpenCL on "
                                           "the processor).");
    return &(*found)[size_t(index)];
  }

  const AiVmmHost* host_ = nullptr;
  std::mutex mutex_;
  std::unordered_map<const DeviceId*, std::shared_ptr<gpu::Driver>> drivers_;
};

}  // namespace

const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  return backend::entry<ClBackend>(host, status);
}

}  // namespace ai_vmm::opencl
