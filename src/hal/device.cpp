#include "hal/device.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "ai_vmm/compute_backend.hpp"
#include "base/memory_budget.hpp"
#include "base/text.hpp"
#include "hal/backends.hpp"
#include "kit/view.hpp"
#include "ops/op.hpp"

namespace ai_vmm {

using backend::make;

const char* name(AiVmmReason reason) {
  switch (reason) {
    case AI_VMM_SUPPORTED: return "native";
    case AI_VMM_SUPPORTED_GENERIC: return "generic";
    case AI_VMM_REFUSED_OPERATOR: return "operator not implemented";
    case AI_VMM_REFUSED_DTYPE: return "element type not supported";
    case AI_VMM_REFUSED_RANK: return "rank not supported";
    case AI_VMM_REFUSED_ATTRIBUTE: return "attribute value not supported";
    case AI_VMM_REFUSED_DYNAMIC: return "a size must be known before the run";
    case AI_VMM_REFUSED_MEMORY: return "too little device memory";
    case AI_VMM_REFUSED_HOST_ONLY: return "belongs to the host";
    case AI_VMM_REFUSED_SHAPE: return "size not supported";
    case AI_VMM_REFUSED_LAYOUT: return "layout not accepted";
    case AI_VMM_REFUSED_PRECISION: return "not exact enough";
    case AI_VMM_REFUSED_DRIVER: return "driver or library missing or too old";
    case AI_VMM_REFUSED_NEIGHBOURS: return "runs only together with other operators";
  }
  return "refused";
}

namespace {
// Of a fixed field that a plugin may have filled to the brim.
template <size_t N>
std::string text_of(const char (&field)[N]) {
  return {field, strnlen(field, N)};
}
}  // namespace

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  for (const Backend* b : all_backends()) names.push_back(b->name);
  return names;
}

std::vector<std::string> automatic_backend_names() {
  std::vector<std::string> names;
  for (const InTreeBackend& b : in_tree_backends())
    if (b.automatic) names.push_back(b.name);
  return names;
}

std::vector<DeviceDescription> list_devices() {
  std::vector<DeviceDescription> list;
  for (const Backend* b : all_backends()) {
    DeviceDescription d;
    d.backend = b->name;
    d.origin = b->origin;
    if (!b->api) {
      d.problem = b->problem;
      list.push_back(d);
      continue;
    }
    d.version = b->api->version;
    for (int i = 0; i < b->api->device_count(b->api->self); ++i) {
      auto info = make<AiVmmDeviceInfo>();
      auto s = make<AiVmmStatus>();
      d.index = i;
      d.problem.clear();
      if (int32_t code = b->api->device_info(b->api->self, i, &info, &s)) d.problem = to_status(code, s).message();
      d.name = text_of(info.name);
      d.resource = text_of(info.resource);
      d.memory_bytes = info.memory_bytes;
      d.simulated = (info.flags & AI_VMM_DEVICE_SIMULATED) != 0;
      list.push_back(d);
    }
  }
  return list;
}

std::string device_resource(std::string_view name) {
  auto [backend, index] = parse_device(name);
  auto found = find_backend(backend);
  auto info = make<AiVmmDeviceInfo>();
  auto s = make<AiVmmStatus>();
  if (!found.ok() || (*found)->api->device_info((*found)->api->self, index, &info, &s)) return std::string(name);
  std::string resource = text_of(info.resource);
  return resource.empty() ? (*found)->name + ":" + std::to_string(index) : resource;
}

Result<std::shared_ptr<Device>> Device::open(std::string_view name) {
  auto [backend, index] = parse_device(name);
  const AiVmmBackend* api = AI_VMM_TAKE(find_backend(backend))->api;
  auto device = std::shared_ptr<Device>(new Device);
  device->api_ = api;
  device->backend_ = api->name;
  device->index_ = index;
  device->label_ = device->backend_ + ":" + std::to_string(index);
  auto s = make<AiVmmStatus>();
  auto info = make<AiVmmDeviceInfo>();
  if (int32_t code = api->device_info(api->self, index, &info, &s)) return to_status(code, s);
  device->name_ = text_of(info.name);
  device->resource_ = text_of(info.resource);
  if (device->resource_.empty()) device->resource_ = device->label_;
  device->memory_bytes_ = info.memory_bytes;
  device->simulated_ = (info.flags & AI_VMM_DEVICE_SIMULATED) != 0;
  if (int32_t code = api->open_device(api->self, index, &device->device_, &s)) return to_status(code, s);
  device->memory_ = DeviceMemory::of(*device, *api, device->device_);
  device->states_ = extension<AiVmmStates>(*api, AI_VMM_EXTENSION_STATES);
  return device;
}

Device::~Device() {
  memory_ = nullptr;
  if (device_) api_->close_device(device_);
}

Status Device::state() const {
  if (!api_->device_state) return {};
  auto s = make<AiVmmStatus>();
  if (int32_t code = api_->device_state(device_, &s)) return to_status(code, s);
  return {};
}

Result<std::vector<Verdict>> Device::query(const Graph& graph) {
  GraphView view(graph);
  auto s = make<AiVmmStatus>();
  if (!api_->query) {
    auto options = make<AiVmmCompileOptions>();
    AiVmmExecutable* executable = nullptr;
    Verdict all{AI_VMM_SUPPORTED, "", 0, 0};
    if (int32_t code = api_->compile(device_, view.get(), &options, &executable, &s)) {
      if (s.device_state != AI_VMM_DEVICE_OK) return to_status(code, s);
      all = {AI_VMM_REFUSED_OPERATOR, to_status(code, s).message(), 0, 0};
    } else {
      api_->release_executable(executable);
    }
    return std::vector<Verdict>(graph.nodes.size(), all);
  }
  std::vector<AiVmmVerdict> verdicts(graph.nodes.size(), make<AiVmmVerdict>());
  std::vector<AiVmmVerdict*> pointers;
  for (auto& v : verdicts) pointers.push_back(&v);
  if (int32_t code = api_->query(device_, view.get(), pointers.data(), &s)) return to_status(code, s);
  std::vector<Verdict> out;
  for (const auto& v : verdicts)
    out.push_back({static_cast<AiVmmReason>(v.reason), v.detail ? v.detail : "", v.est_ns, v.est_bytes});
  return out;
}

Result<std::shared_ptr<Executable>> Device::compile(std::shared_ptr<const Graph> graph, const CompileOptions& options) {
  GraphView view(*graph);
  auto o = make<AiVmmCompileOptions>();
  o.threads = options.threads;
  o.deterministic = options.deterministic;
  o.memory_limit = options.memory_limit;
  auto e = std::shared_ptr<Executable>(new Executable);
  e->device_ = shared_from_this();
  e->graph_ = std::move(graph);
  auto s = make<AiVmmStatus>();
  if (int32_t code = api_->compile(device_, view.get(), &o, &e->executable_, &s)) return to_status(code, s);
  return e;
}

Executable::~Executable() {
  if (!executable_) return;
  for (AiVmmContext* c : idle_) device_->api_->release_context(c);
  device_->api_->release_executable(executable_);
}

AiVmmExecutableInfo Executable::info() const {
  auto info = make<AiVmmExecutableInfo>();
  auto s = make<AiVmmStatus>();
  (void)device_->api_->executable_info(executable_, &info, &s);
  return info;
}

namespace {
// Fixed storage for the usual number of tensors, so that a run allocates nothing.
template <class T, size_t N = 16>
class Small {
 public:
  explicit Small(size_t n) : n_(n) {
    if (n > N) heap_.resize(n);
  }
  T& operator[](size_t i) { return n_ > N ? heap_[i] : fixed_[i]; }
  T* data() { return n_ > N ? heap_.data() : fixed_.data(); }

 private:
  size_t n_;
  std::array<T, N> fixed_;
  std::vector<T> heap_;
};

struct Allocation {
  const Graph& graph;
  std::span<Tensor* const> outputs;
  std::span<DeviceTensor* const> placed;  // of the outputs; may be empty
  DeviceMemory* memory;
  Status failed;
};
// "the output \"y\" of Expand \"n\"", for the failure to make output `index`.
std::string describe_output(const Graph& graph, uint32_t index) {
  ValueId v = graph.outputs[index];
  int producer = graph.producers()[size_t(v)];
  return "the output \"" + graph.value(v).name + "\"" +
         (producer < 0 ? "" : " of " + graph.nodes[size_t(producer)].label());
}
void* allocate(void* user, uint32_t index, int32_t dtype, int32_t rank, const int64_t* shape) {
  auto* a = static_cast<Allocation*>(user);
  if (index >= a->outputs.size() || rank < 0 || (rank > 0 && !shape) || dtype <= 0 || dtype >= kDTypeCount) {
    a->failed = Status(Code::internal, "The backend asked for memory for an output that cannot be.");
    return nullptr;
  }
  if (DeviceTensor* placed = a->placed.empty() ? nullptr : a->placed[index]) {
    auto count = element_count({shape, size_t(rank)});
    placed->dtype = static_cast<DType>(dtype);
    placed->shape.assign(shape, shape + rank);
    placed->bytes = count ? bytes_for(placed->dtype, *count) : INT64_MAX;
    auto block = a->memory->take(placed->bytes);
    if (!block.ok()) {
      a->failed = std::move(block).status().during("making " + describe_output(a->graph, index));
      return nullptr;
    }
    placed->block = *std::move(block);
    return placed->block.address();
  }
  Tensor& out = *a->outputs[index];
  if (out) {  // a buffer is given again; an empty one may have had no memory to tell it by
    static std::byte nothing;
    a->failed = check_buffer(a->graph.value(a->graph.outputs[index]).name, static_cast<DType>(dtype),
                             {shape, size_t(rank)}, out);
    if (!a->failed.ok()) return nullptr;
    return out.bytes() ? out.mutable_data() : &nothing;
  }
  auto t = Tensor::make(static_cast<DType>(dtype), Shape(shape, shape + rank));
  if (!t.ok()) {
    a->failed = std::move(t).status().during("making " + describe_output(a->graph, index));
    return nullptr;
  }
  out = *std::move(t);
  return out.mutable_data();
}
void describe(AiVmmTensor& d, const Tensor& t) {
  d = make<AiVmmTensor>();
  d.data = const_cast<void*>(t.data());
  d.dtype = static_cast<int32_t>(t.dtype());
  d.rank = static_cast<int32_t>(t.rank());
  d.shape = t.shape().data();
  d.device_type = 1;
}
void describe(AiVmmTensor& d, const DeviceTensor& t, const DeviceMemory& memory) {
  d = make<AiVmmTensor>();
  d.data = t.block ? t.block.address() : nullptr;
  d.dtype = static_cast<int32_t>(t.dtype);
  d.rank = static_cast<int32_t>(t.shape.size());
  d.shape = t.shape.data();
  d.device_type = memory.device_type();
  d.device_id = memory.device_id();
  if (!t.state) return;
  d.data = t.state;
  d.device_type = AI_VMM_STATE_TENSOR;
}
}  // namespace

Status check_buffer(const std::string& output, DType dtype, std::span<const int64_t> shape, const Tensor& buffer) {
  if (dtype == buffer.dtype() && std::ranges::equal(shape, buffer.shape())) return {};
  return Status(Code::invalid_argument, "Output \"" + output + "\" is " + name(dtype) + to_string(shape) +
                                            "; the buffer given for it is " + name(buffer.dtype()) +
                                            to_string(buffer.shape()) + ".");
}

Status Executable::run(std::span<const Tensor* const> inputs, std::span<Tensor* const> outputs,
                       const RunRequest& request, std::span<DeviceTensor* const> placed) {
  for (size_t k = 0; k < outputs.size(); ++k)
    if (const Value& v = graph_->value(graph_->outputs[k]);
        outputs[k] && *outputs[k] && outputs[k]->dtype() != v.type.dtype)
      return check_buffer(v.name, v.type.dtype, outputs[k]->shape(), *outputs[k]);
  const AiVmmBackend* api = device_->api_;
  auto s = make<AiVmmStatus>();
  AiVmmContext* context = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      context = idle_.back();
      idle_.pop_back();
    }
  }
  if (!context)
    if (int32_t code = api->create_context(executable_, &context, &s)) return to_status(code, s);

  size_t n = inputs.size(), m = outputs.size();
  Small<AiVmmTensor> tensors(n + m);
  Small<const AiVmmTensor*> pointers(n + m);
  DeviceMemory* memory = device_->memory();
  auto in_device = [&](size_t i) { return placed.empty() ? nullptr : placed[i]; };
  for (size_t i = 0; i < n + m; ++i) {
    pointers[i] = &tensors[i];
    if (const DeviceTensor* t = in_device(i))
      describe(tensors[i], *t, *memory);
    else
      describe(tensors[i], i < n ? *inputs[i] : *outputs[i - n]);
  }
  Allocation allocation{*graph_, outputs, placed.empty() ? placed : placed.subspan(n), memory, {}};
  auto run = make<AiVmmRun>();
  run.allocate = allocate;
  run.user = &allocation;
  run.threads = request.threads;
  run.cancel = request.cancel;
  run.seed = request.seed;
  auto info = make<AiVmmRunInfo>();
  run.info = &info;
  const auto& budget = MemoryBudget::current();
  int64_t refusals = budget ? budget->refusals() : 0;
  int32_t code = api->execute(context, pointers.data(), uint32_t(n), pointers.data() + n, uint32_t(m), &run, &s);
  if (code && s.device_state == AI_VMM_DEVICE_LOST) {
    api->release_context(context);
  } else {
    std::lock_guard lock(mutex_);
    idle_.push_back(context);
  }
  if (code) {
    if (!allocation.failed.ok()) return std::move(allocation.failed);
    // What the caller's limit forbade is no failure of the device.
    if (budget && budget->refusals() != refusals) s.device_state = AI_VMM_DEVICE_OK;
    return to_status(code, s);
  }
  for (size_t k = 0; k < m; ++k)
    if (const DeviceTensor* t = in_device(n + k); t ? !t->block : !*outputs[k])
      return Status(Code::internal, "Backend " + device_->backend() + " reported success, but did not make " +
                                        describe_output(*graph_, uint32_t(k)) + ".");
  if (request.transfers && info.bytes_to_device)
    request.transfers->add("host", device_->label(), Why::backend, int64_t(info.bytes_to_device), 0);
  if (request.transfers && info.bytes_from_device)
    request.transfers->add(device_->label(), "host", Why::backend, int64_t(info.bytes_from_device), 0);
  if (request.info) {
    request.info->device_ns += info.device_ns;
    request.info->joules += info.joules;
    request.info->bytes_to_device += info.bytes_to_device;
    request.info->bytes_from_device += info.bytes_from_device;
  }
  return {};
}

}  // namespace ai_vmm
