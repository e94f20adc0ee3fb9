#include "gpu/backend.hpp"

#include <cstdio>

#include "gpu/level3.hpp"
#include "gpu/program.hpp"
#include "kit/view.hpp"

namespace ai_vmm::gpu {

namespace {

class RunContext : public backend::Context {
 public:
  RunContext(std::unique_ptr<gpu::Context> context, std::shared_ptr<DeviceBuffers> buffers)
      : context_(std::move(context)), buffers_(std::move(buffers)) {}

  Status execute(std::span<const backend::TensorRef> inputs, std::span<const backend::TensorRef> outputs,
                 const AiVmmRun& run) override {
    inputs_.clear();
    placed_.clear();
    for (backend::TensorRef t : inputs) {
      placed_.push_back(here(*t) ? AI_VMM_TAKE(memory_of(*t)) : nullptr);
      inputs_.push_back(Tensor::view(static_cast<DType>(t->dtype), Shape(t->shape, t->shape + t->rank),
                                     static_cast<const char*>(t->data) + t->byte_offset));
    }
    slots_.resize(outputs.size());
    for (size_t k = 0; k < outputs.size(); ++k) {
      const AiVmmTensor& t = *outputs[k];
      slots_[k].data = t.data ? static_cast<char*>(t.data) + t.byte_offset : nullptr;
      slots_[k].shape = {t.shape, t.shape ? size_t(t.rank) : 0};
      slots_[k].allocate = [&run, k](DType dtype, const Shape& shape) -> Result<void*> {
        return backend::allocate(run, uint32_t(k), int32_t(dtype), int32_t(shape.size()), shape.data());
      };
      slots_[k].place = nullptr;
      if (here(t))
        slots_[k].place = [this, &run, &outputs, k](DType dtype, const Shape& shape) -> Result<MemoryRef> {
          if (outputs[k]->data && outputs[k]->dtype == int32_t(dtype) &&
              std::equal(shape.begin(), shape.end(), outputs[k]->shape, outputs[k]->shape + outputs[k]->rank))
            return memory_of(*outputs[k]);
          return buffers_->find(
              AI_VMM_TAKE(backend::allocate(run, uint32_t(k), int32_t(dtype), int32_t(shape.size()), shape.data())));
        };
    }
    Copied copied;
    Status status = context_->run(inputs_, slots_, run.cancel, placed_, &copied);
    if (run.info && AI_VMM_HAS(run.info, AiVmmRunInfo, bytes_from_device)) {
      run.info->bytes_to_device = uint64_t(copied.to_device);
      run.info->bytes_from_device = uint64_t(copied.from_device);
    }
    placed_.clear();
    return status;
  }

 private:
  bool here(const AiVmmTensor& t) const { return t.device_type == buffers_->device_type(); }
  Result<MemoryRef> memory_of(const AiVmmTensor& t) {
    if (t.byte_offset) return Status(Code::unimplemented, "Tensors in device memory begin where their buffer begins.");
    return buffers_->find(t.data);
  }

  std::unique_ptr<gpu::Context> context_;
  std::shared_ptr<DeviceBuffers> buffers_;
  std::vector<MemoryRef> placed_;
  std::vector<Tensor> inputs_;
  std::vector<OutputSlot> slots_;
};

class CompiledProgram : public backend::Executable {
 public:
  CompiledProgram(std::shared_ptr<const Program> program, std::shared_ptr<DeviceBuffers> buffers)
      : program_(std::move(program)), buffers_(std::move(buffers)) {}
  Result<std::unique_ptr<backend::Context>> create_context() override {
    auto context = AI_VMM_TAKE(gpu::Context::make(program_));
    return std::unique_ptr<backend::Context>(new RunContext(std::move(context), buffers_));
  }
  void info(AiVmmExecutableInfo& info) const override {
    info.weight_bytes = program_->weight_bytes();
    info.arena_bytes = program_->arena_bytes;
    info.compilations = program_->plans + program_->driver->compilations();
  }

 private:
  std::shared_ptr<const Program> program_;
  std::shared_ptr<DeviceBuffers> buffers_;
};

class OpenDevice : public backend::Device {
 public:
  explicit OpenDevice(std::shared_ptr<Driver> driver)
      : driver_(std::move(driver)), buffers_(std::make_shared<DeviceBuffers>(driver_)) {}
  const std::shared_ptr<DeviceBuffers>& buffers() const { return buffers_; }

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
    Options options;
    options.deterministic = o.deterministic != 0;
    options.memory_limit = o.memory_limit;
    auto program = AI_VMM_TAKE(Program::compile(std::move(graph), driver_, options));
    return std::unique_ptr<backend::Executable>(new CompiledProgram(std::move(program), buffers_));
  }

 private:
  std::shared_ptr<Driver> driver_;
  std::shared_ptr<DeviceBuffers> buffers_;
};

}  // namespace

const std::shared_ptr<DeviceBuffers>& buffers_of(AiVmmDevice* device) {
  return static_cast<OpenDevice&>(backend::object(device)).buffers();
}

const void* Backend::extension(std::string_view name) { return level3(name); }

Status Backend::initialize(const AiVmmHost& host) {
  host_ = &host;
  devices_ = AI_VMM_TAKE(find());
  drivers_.resize(devices_.size());
  return {};
}

Status Backend::capabilities(int32_t index, AiVmmDeviceInfo& info) const {
  const FoundDevice& d = devices_[size_t(index)];
  std::snprintf(info.name, sizeof info.name, "%s", d.name.c_str());
  std::snprintf(info.resource, sizeof info.resource, "%s", d.resource.c_str());
  info.memory_bytes = d.memory_bytes;
  return {};
}

Result<std::unique_ptr<backend::Device>> Backend::open(int32_t index) {
  std::lock_guard lock(mutex_);
  auto& driver = drivers_[size_t(index)];
  if (!driver) driver = AI_VMM_TAKE(devices_[size_t(index)].open(host_));
  return std::unique_ptr<backend::Device>(new OpenDevice(driver));
}

}  // namespace ai_vmm::gpu
