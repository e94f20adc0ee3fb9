#include "hal/device.hpp"

#include <array>

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
  }
  return "refused";
}

namespace {

Status to_status(int32_t code, const AiVmmStatus& s) {
  return Status(static_cast<Code>(code), s.text_size ? std::string(s.text, std::min<size_t>(s.text_size, sizeof s.text))
                                                     : "The backend failed and gave no reason.");
}

const AiVmmHost& host() {
  static const AiVmmHost table = [] {
    auto h = make<AiVmmHost>();
    h.abi_major = AI_VMM_ABI_MAJOR;
    h.abi_minor_min = 0;
    h.abi_minor_max = AI_VMM_ABI_MINOR;
    h.parallel_for = [](void*, int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* arg) {
      int64_t chunks = grain > 0 ? (count + grain - 1) / grain : 1;
#pragma omp parallel for schedule(static) if (chunks > 1)
      for (int64_t c = 0; c < chunks; ++c) body(arg, c * grain, std::min(count, (c + 1) * grain));
    };
    h.log = [](void*, int32_t level, const char* text, uint64_t size) {
      if (level >= 2) std::fprintf(stderr, "ai_vmm: %.*s\n", int(size), text);
    };
    h.memory_charge = [](void*, int64_t bytes) -> int32_t {
      const auto& budget = MemoryBudget::current();
      if (!budget) return 0;
      if (bytes < 0) return budget->release(-bytes), 0;
      return static_cast<int32_t>(budget->charge(bytes).code());
    };
    return h;
  }();
  return table;
}

Result<const AiVmmBackend*> find_backend(std::string_view wanted) {
  std::vector<std::string> names;
  for (const InTreeBackend& b : in_tree_backends()) {
    if (wanted == b.name) {
      auto s = make<AiVmmStatus>();
      if (const AiVmmBackend* api = b.entry(&host(), &s)) return api;
      return to_status(s.code, s);
    }
    names.push_back(b.name);
  }
  std::string near = nearest(wanted, names);
  return Status(Code::not_found, "There is no backend \"" + std::string(wanted) + "\"; this build has " +
                                     join(names, ", ") + (near.empty() ? "." : ". Did you mean \"" + near + "\"?"));
}

}  // namespace

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  for (const InTreeBackend& b : in_tree_backends()) names.push_back(b.name);
  return names;
}

std::vector<DeviceDescription> list_devices() {
  std::vector<DeviceDescription> list;
  for (const std::string& n : backend_names()) {
    DeviceDescription d;
    d.backend = n;
    auto api = find_backend(n);
    if (!api.ok()) {
      d.problem = api.status().message();
      list.push_back(d);
      continue;
    }
    d.version = (*api)->version;
    for (int i = 0; i < (*api)->device_count((*api)->self); ++i) {
      auto info = make<AiVmmDeviceInfo>();
      auto s = make<AiVmmStatus>();
      d.index = i;
      if (int32_t code = (*api)->device_info((*api)->self, i, &info, &s)) d.problem = to_status(code, s).message();
      d.name = info.name;
      d.resource = info.resource;
      d.memory_bytes = info.memory_bytes;
      list.push_back(d);
    }
  }
  return list;
}

Result<std::shared_ptr<Device>> Device::open(std::string_view backend, int index) {
  const AiVmmBackend* api = AI_VMM_TAKE(find_backend(backend));
  auto device = std::shared_ptr<Device>(new Device);
  device->api_ = api;
  device->backend_ = api->name;
  auto s = make<AiVmmStatus>();
  auto info = make<AiVmmDeviceInfo>();
  if (int32_t code = api->device_info(api->self, index, &info, &s)) return to_status(code, s);
  device->name_ = info.name;
  device->resource_ = info.resource;
  device->memory_bytes_ = info.memory_bytes;
  if (int32_t code = api->open_device(api->self, index, &device->device_, &s)) return to_status(code, s);
  return device;
}

Device::~Device() {
  if (device_) api_->close_device(device_);
}

Result<std::vector<Verdict>> Device::query(const Graph& graph) {
  GraphView view(graph);
  std::vector<AiVmmVerdict> verdicts(graph.nodes.size(), make<AiVmmVerdict>());
  std::vector<AiVmmVerdict*> pointers;
  for (auto& v : verdicts) pointers.push_back(&v);
  auto s = make<AiVmmStatus>();
  if (int32_t code = api_->query(device_, view.get(), pointers.data(), &s)) return to_status(code, s);
  std::vector<Verdict> out;
  for (const auto& v : verdicts) out.push_back({static_cast<AiVmmReason>(v.reason), v.detail ? v.detail : ""});
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
  std::span<Tensor> outputs;
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
  auto t = Tensor::make(static_cast<DType>(dtype), Shape(shape, shape + rank));
  if (!t.ok()) {
    a->failed = std::move(t).status().during("making " + describe_output(a->graph, index));
    return nullptr;
  }
  a->outputs[index] = *std::move(t);
  return a->outputs[index].mutable_data();
}
void describe(AiVmmTensor& d, const Tensor& t) {
  d = make<AiVmmTensor>();
  d.data = const_cast<void*>(t.data());
  d.dtype = static_cast<int32_t>(t.dtype());
  d.rank = static_cast<int32_t>(t.rank());
  d.shape = t.shape().data();
  d.device_type = 1;
}
}  // namespace

Status Executable::run(std::span<const Tensor* const> inputs, std::span<Tensor> outputs, const RunRequest& request) {
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
  for (size_t i = 0; i < n; ++i) describe(tensors[i], *inputs[i]);
  for (size_t k = 0; k < m; ++k) describe(tensors[n + k], outputs[k]);
  for (size_t i = 0; i < n + m; ++i) pointers[i] = &tensors[i];
  Allocation allocation{*graph_, outputs, {}};
  auto run = make<AiVmmRun>();
  run.allocate = allocate;
  run.user = &allocation;
  run.threads = request.threads;
  run.cancel = request.cancel;
  run.seed = request.seed;
  int32_t code = api->execute(context, pointers.data(), uint32_t(n), pointers.data() + n, uint32_t(m), &run, &s);
  {
    std::lock_guard lock(mutex_);
    idle_.push_back(context);
  }
  if (code) {
    if (!allocation.failed.ok()) return std::move(allocation.failed);
    return to_status(code, s);
  }
  return {};
}

}  // namespace ai_vmm
