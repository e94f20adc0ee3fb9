// Hosts ONNX Runtime: its CPU provider, and every device that an execution provider of another vendor shows it.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <set>

#include "ai_vmm/compute_backend.hpp"
#include "backends/onnxruntime/api.hpp"
#include "base/config.hpp"
#include "base/library.hpp"
#include "base/pci.hpp"
#include "base/python_packages.hpp"
#include "base/text.hpp"
#include "kit/hosted.hpp"

namespace ai_vmm::onnxruntime {

namespace {

struct OrtLibrary : Library {
  Symbol<const OrtApiBase*()> OrtGetApiBase{this, "OrtGetApiBase"};
};

// The loaded library: one environment a process, never released, as its threads may outlive main's statics.
struct Runtime {
  OrtLibrary library;
  Api api;
  std::string version;
  OrtEnv* env = nullptr;
  OrtMemoryInfo* host_memory = nullptr;
  bool has_devices = false;
  std::vector<int> opsets;

  Status check(OrtStatus* status) const {
    if (!status) return {};
    std::string text = api.GetErrorMessage(status);
    Code code = api.GetErrorCode(status) == kNotImplemented ? Code::unimplemented : Code::invalid_argument;
    api.ReleaseStatus(status);
    return Status(code, "ONNX Runtime: " + text);
  }
};

Runtime& runtime() {
  static auto* r = new Runtime;
  return *r;
}

// ONNXTensorElementDataType has the numbers of ONNX up to 23; then it goes its own way.
int element_type(int32_t dtype) {
  switch (static_cast<DType>(dtype)) {
    case DType::u2: return 24;
    case DType::i2: return 25;
    case DType::f8e8m0: return 26;
    default: return dtype;
  }
}

// A handle that the table's own function releases.
template <class T, void (*Api::*release)(T*)>
struct Owned {
  T* p = nullptr;
  Owned() = default;
  Owned(Owned&& o) noexcept : p(std::exchange(o.p, nullptr)) {}
  Owned& operator=(Owned&& o) noexcept {
    std::swap(p, o.p);
    return *this;
  }
  ~Owned() { reset(); }
  void reset() {
    if (p) (runtime().api.*release)(std::exchange(p, nullptr));
  }
};
using Options = Owned<OrtSessionOptions, &Api::ReleaseSessionOptions>;
using SessionHandle = Owned<OrtSession, &Api::ReleaseSession>;
using Value = Owned<OrtValue, &Api::ReleaseValue>;
using TensorInfo = Owned<OrtTensorInfo, &Api::ReleaseTensorTypeAndShapeInfo>;

Result<Value> wrap(void* data, int32_t dtype, std::span<const int64_t> shape) {
  const Runtime& r = runtime();
  static char empty;  // a tensor without elements still needs an address
  Value v;
  AI_VMM_TRY(r.check(r.api.CreateTensorWithDataAsOrtValue(
      r.host_memory, data ? data : &empty, size_t(backend::bytes_of(dtype, int32_t(shape.size()), shape.data())),
      shape.data(), shape.size(), element_type(dtype), &v.p)));
  return v;
}

// A tensor that ONNX Runtime sees in our memory, made again only when memory or shape change.
class Bound {
 public:
  Result<OrtValue*> get(void* data, int32_t dtype, std::span<const int64_t> shape) {
    if (!value_.p || data != data_ || !std::ranges::equal(shape, shape_)) {
      value_ = AI_VMM_TAKE(wrap(data, dtype, shape));
      data_ = data;
      shape_.assign(shape.begin(), shape.end());
    }
    return value_.p;
  }

 private:
  Value value_;
  void* data_ = nullptr;
  std::vector<int64_t> shape_;
};

// ---------------------------------------------------------------- running

class Session : public hosted::Session, public std::enable_shared_from_this<Session> {
 public:
  Result<std::unique_ptr<hosted::Request>> create_request() override;

  SessionHandle handle;
  std::vector<Value> weights;  // the views that the session was given
  std::vector<std::string> inputs, outputs;
};

class Request : public hosted::Request {
 public:
  explicit Request(std::shared_ptr<Session> session)
      : session_(std::move(session)),
        inputs_(session_->inputs.size()),
        outputs_(session_->outputs.size()),
        made_(session_->outputs.size()),
        shapes_(session_->outputs.size()),
        in_(inputs_.size()),
        out_(outputs_.size()) {
    for (const std::string& s : session_->inputs) input_names_.push_back(s.c_str());
    for (const std::string& s : session_->outputs) output_names_.push_back(s.c_str());
  }

  Status run(std::span<const AiVmmTensor* const> inputs, std::span<hosted::Output> outputs) override {
    const Runtime& r = runtime();
    for (size_t i = 0; i < inputs.size(); ++i) {
      const AiVmmTensor& t = *inputs[i];
      in_[i] =
          AI_VMM_TAKE(inputs_[i].get(static_cast<char*>(t.data) + t.byte_offset, t.dtype, {t.shape, size_t(t.rank)}));
    }
    for (size_t k = 0; k < outputs.size(); ++k) {
      made_[k].reset();
      out_[k] = nullptr;
      if (outputs[k].data) out_[k] = AI_VMM_TAKE(outputs_[k].get(outputs[k].data, outputs[k].dtype, outputs[k].shape));
    }
    AI_VMM_TRY(r.check(r.api.Run(session_->handle.p, nullptr, input_names_.data(), in_.data(), in_.size(),
                                 output_names_.data(), out_.size(), out_.data())));
    for (size_t k = 0; k < outputs.size(); ++k) {
      if (outputs[k].data) continue;
      made_[k].p = out_[k];
      TensorInfo info;
      size_t rank = 0;
      AI_VMM_TRY(r.check(r.api.GetTensorTypeAndShape(out_[k], &info.p)));
      AI_VMM_TRY(r.check(r.api.GetDimensionsCount(info.p, &rank)));
      shapes_[k].resize(rank);
      AI_VMM_TRY(r.check(r.api.GetDimensions(info.p, shapes_[k].data(), rank)));
      AI_VMM_TRY(r.check(r.api.GetTensorMutableData(out_[k], &outputs[k].data)));
      outputs[k].shape = shapes_[k];
    }
    return {};
  }

 private:
  std::shared_ptr<Session> session_;
  std::vector<Bound> inputs_, outputs_;
  std::vector<Value> made_;  // outputs that ONNX Runtime allocated, until the next run
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<const OrtValue*> in_;
  std::vector<OrtValue*> out_;
  std::vector<const char*> input_names_, output_names_;
};

Result<std::unique_ptr<hosted::Request>> Session::create_request() {
  return std::unique_ptr<hosted::Request>(new Request(shared_from_this()));
}

// ---------------------------------------------------------------- devices

// Neither `provider` nor `built_in`: the CPU provider, which every build has.
struct Device {
  const OrtEpDevice* provider = nullptr;  // one that tells its hardware
  std::string built_in;                   // one of the library's own that does not, such as "XNNPACK"
  std::string name, resource;

  Status append_to(OrtSessionOptions* options) const {
    const Runtime& r = runtime();
    return r.check(
        provider ? r.api.SessionOptionsAppendExecutionProvider_V2(options, r.env, &provider, 1, nullptr, nullptr, 0)
                 : r.api.SessionOptionsAppendExecutionProvider(options, built_in.c_str(), nullptr, nullptr, 0));
  }
};

class Engine : public hosted::Engine {
 public:
  explicit Engine(Device device) : device_(std::move(device)) {}

  std::string identity() const override { return "onnxruntime " + runtime().version + " " + device_.name; }
  std::span<const int> opsets() const override { return runtime().opsets; }
  OnnxWeights weights() const override { return OnnxWeights::beside; }
  std::optional<hosted::Deviation> deviation(const AiVmmGraph& g, const AiVmmNode& n) const override {
    if (backend::view(n.op) != "Mod" || !is_float(static_cast<DType>(g.values[n.inputs[0]]->dtype)))
      return std::nullopt;
    for (uint32_t k = 0; k < n.attribute_count; ++k)
      if (backend::view(n.attributes[k]->name) == "fmod" && n.attributes[k]->i == 1) return std::nullopt;
    return {{AI_VMM_REFUSED_ATTRIBUTE, "ONNX Runtime fails at run time on floats without fmod"}};
  }

  Result<std::shared_ptr<hosted::Session>> load(const OnnxModel& model, const hosted::LoadOptions& how) override {
    const Runtime& r = runtime();
    Options options;
    AI_VMM_TRY(r.check(r.api.CreateSessionOptions(&options.p)));
    AI_VMM_TRY(r.check(r.api.SetSessionLogSeverityLevel(options.p, kFatalOnly)));
    AI_VMM_TRY(r.check(r.api.SetIntraOpNumThreads(options.p, how.threads)));
    AI_VMM_TRY(r.check(r.api.SetInterOpNumThreads(options.p, 1)));
    if (how.probe) {
      AI_VMM_TRY(r.check(r.api.SetSessionGraphOptimizationLevel(options.p, kDisableOptimizers)));
      AI_VMM_TRY(r.check(r.api.AddSessionConfigEntry(options.p, "session.disable_prepacking", "1")));
    }
    if (device_.provider || !device_.built_in.empty()) {
      AI_VMM_TRY(device_.append_to(options.p));
      // What the provider does not take must be refused, not run on the processor in silence.
      AI_VMM_TRY(r.check(r.api.AddSessionConfigEntry(options.p, "session.disable_cpu_ep_fallback", "1")));
    }
    auto session = std::make_shared<Session>();
    for (const OnnxPort& p : model.inputs) session->inputs.push_back(p.name);
    for (const OnnxPort& p : model.outputs) session->outputs.push_back(p.name);
    std::vector<const char*> names;
    std::vector<const OrtValue*> values;
    for (const OnnxWeight& w : model.weights) {
      session->weights.push_back(AI_VMM_TAKE(wrap(const_cast<std::byte*>(w.data.data()), w.dtype, w.shape)));
      names.push_back(w.name.c_str());
      values.push_back(session->weights.back().p);
    }
    if (!names.empty())
      AI_VMM_TRY(r.check(r.api.AddExternalInitializers(options.p, names.data(), values.data(), names.size())));
    AI_VMM_TRY(r.check(
        r.api.CreateSessionFromArray(r.env, model.bytes.data(), model.bytes.size(), options.p, &session->handle.p)));
    return std::shared_ptr<hosted::Session>(std::move(session));
  }

  AiVmmReason reason(const Status& failure) const override {
    const std::string& text = failure.message();
    auto says = [&](const char* part) { return text.find(part) != std::string::npos; };
    if (says("No Op registered") || says("is not a registered function")) return AI_VMM_REFUSED_OPERATOR;
    if (says("ttribute")) return AI_VMM_REFUSED_ATTRIBUTE;
    if (says("Type Error") || says("tensor(")) return AI_VMM_REFUSED_DTYPE;
    return AI_VMM_REFUSED_OPERATOR;
  }

 private:
  Device device_;
};

// ---------------------------------------------------------------- the backend

class OnnxRuntimeBackend : public backend::ComputeBackend {
 public:
  const char* name() const override { return "onnxruntime"; }
  const char* version() const override { return version_.c_str(); }
  int32_t device_count() const override { return int32_t(devices_.size()); }

  Status initialize(const AiVmmHost&) override {
    Config config = AI_VMM_TAKE(Config::load());
    AI_VMM_TRY(load(config.text("onnxruntime_library")));
    AI_VMM_TRY(register_providers(config.text("onnxruntime_providers")));
    list_devices();
    return {};
  }

  Status capabilities(int32_t index, AiVmmDeviceInfo& info) const override {
    const Device& d = devices_[size_t(index)];
    std::snprintf(info.name, sizeof info.name, "%s", d.name.c_str());
    std::snprintf(info.resource, sizeof info.resource, "%s", d.resource.c_str());
    return {};
  }

  Result<std::unique_ptr<backend::Device>> open(int32_t index) override {
    return std::unique_ptr<backend::Device>(new hosted::Device(std::make_shared<Engine>(devices_[size_t(index)])));
  }

 private:
  Status load(const std::string& wanted) {
    Runtime& r = runtime();
    auto files = library_candidates(wanted, "libonnxruntime.so", "onnxruntime/capi");
    if (wanted.empty()) files.insert(files.begin(), "libonnxruntime.so.1");
    Status loaded = r.library.load(files);
    if (!loaded.ok())
      return Status(loaded.code(),
                    (loaded.code() == Code::not_found ? std::string("ONNX Runtime is not installed") +
                                                            (wanted.empty() ? "" : " at \"" + wanted + "\"")
                                                      : loaded.message()) +
                        ": `pip install onnxruntime` in the active environment, or the setting onnxruntime_library "
                        "(AI_VMM_ONNXRUNTIME_LIBRARY) with the path of libonnxruntime.so, makes it available.");
    const OrtApiBase* base = r.library.OrtGetApiBase();
    r.version = version_ = base->GetVersionString();
    uint32_t minor = 0;
    if (!r.version.starts_with("1.") ||
        std::from_chars(r.version.data() + 2, r.version.data() + r.version.size(), minor).ec != std::errc() ||
        minor < kOldestApi)
      return Status(Code::failed_precondition, r.library.path() + " is ONNX Runtime " + r.version +
                                                   "; this build speaks versions 1." + std::to_string(kOldestApi) +
                                                   " and later of 1.x.");
    r.has_devices = minor >= kDevicesApi;
    const void* const* table = base->GetApi(r.has_devices ? kDevicesApi : kOldestApi);
    if (!table) return Status(Code::failed_precondition, r.library.path() + " gives out no table of functions.");
    r.api.bind(table, r.has_devices);
    AI_VMM_TRY(r.check(r.api.CreateEnv(kFatalOnly, "ai_vmm", &r.env)));
    AI_VMM_TRY(r.check(r.api.CreateCpuMemoryInfo(kPlainAllocator, kDefaultMemory, &r.host_memory)));
    int newest = kNewestOnnxOpset;
    while (newest > kOldestOnnxOpset && !reads_opset(newest)) --newest;
    // A provider may lag behind the library: what it lacks at the newest opset it may have at the oldest.
    r.opsets = {newest};
    if (newest > kOldestOnnxOpset) r.opsets.push_back(kOldestOnnxOpset);
    return {};
  }

  // Whether the library takes models stamped so: it refuses those newer than its release.
  static bool reads_opset(int opset) {
    auto value = backend::make<AiVmmValue>(), result = backend::make<AiVmmValue>();
    value.name = backend::text("x");
    result.name = backend::text("y");
    value.dtype = result.dtype = int32_t(DType::f32);
    value.rank = result.rank = -1;
    const AiVmmValue* values[] = {&value, &result};
    const int32_t x = 0, y = 1;
    auto node = backend::make<AiVmmNode>();
    node.op = backend::text("Identity");
    node.input_count = node.output_count = 1;
    node.inputs = &x;
    node.outputs = &y;
    const AiVmmNode* nodes[] = {&node};
    auto graph = backend::make<AiVmmGraph>();
    graph.values = values;
    graph.value_count = 2;
    graph.nodes = nodes;
    graph.node_count = graph.input_count = graph.output_count = 1;
    graph.inputs = &x;
    graph.outputs = &y;
    return Engine(Device()).load(write_onnx(graph, opset, OnnxWeights::beside), {.threads = 1, .probe = true}).ok();
  }

  // Providers that lie beside the library, as vendors' wheels put them, and those of the setting.
  static Status register_providers(const std::string& setting) {
    Runtime& r = runtime();
    if (!r.has_devices) return {};
    namespace fs = std::filesystem;
    std::vector<std::string> files;
    std::error_code error;
    constexpr std::string_view kPrefix = "libonnxruntime_providers_";
    for (fs::directory_iterator it(fs::path(r.library.path()).parent_path(), error), end; !error && it != end;
         it.increment(error)) {
      std::string file = it->path().filename().string();
      if (file.starts_with(kPrefix) && file != "libonnxruntime_providers_shared.so") files.push_back(it->path());
    }
    std::sort(files.begin(), files.end());
    size_t beside = files.size();
    for (std::string_view f : split(setting, ':'))
      if (!trim(f).empty()) files.emplace_back(trim(f));
    for (size_t i = 0; i < files.size(); ++i) {
      std::string name = fs::path(files[i]).stem().string();
      Status s = r.check(r.api.RegisterExecutionProviderLibrary(r.env, name.c_str(), files[i].c_str()));
      // One beside the library may be older than this way of registering; one that the user names must work.
      if (!s.ok() && i >= beside) return std::move(s).during("loading the execution provider " + files[i]);
    }
    return {};
  }

  void list_devices() {
    const Runtime& r = runtime();
    devices_.push_back({nullptr, "", "ONNX Runtime " + r.version + ", CPU", "cpu:0"});
    std::set<std::string> listed = {"CPUExecutionProvider", "AzureExecutionProvider"};  // the latter runs nothing here
    const OrtEpDevice* const* list = nullptr;
    size_t count = 0;
    if (r.has_devices && !r.check(r.api.GetEpDevices(r.env, &list, &count)).ok()) count = 0;
    for (size_t i = 0; i < count; ++i) {
      std::string provider = r.api.EpDevice_EpName(list[i]);
      if (provider == "CPUExecutionProvider") continue;
      listed.insert(provider);
      const OrtHardwareDevice* hardware = r.api.EpDevice_Device(list[i]);
      HardwareType type = r.api.HardwareDevice_Type(hardware);
      const char* bus = r.api.GetKeyValue(r.api.HardwareDevice_Metadata(hardware), "pci_bus_id");
      auto address = PciAddress::parse(bus ? bus : "");
      std::string kind = type == HardwareType::gpu ? "GPU" : type == HardwareType::npu ? "NPU" : "CPU";
      Device d;
      d.provider = list[i];
      d.name =
          "ONNX Runtime " + r.version + ", " + provider + ", " + r.api.HardwareDevice_Vendor(hardware) + " " + kind;
      d.resource = type == HardwareType::cpu ? "cpu:0"
                   : address                 ? resource_name(*address)
                                             : provider + ":" + std::to_string(r.api.HardwareDevice_DeviceId(hardware));
      devices_.push_back(std::move(d));
    }
    list_built_in(listed);
  }

  // Providers of the library that it can be given by name alone, as their hardware is one that they find themselves.
  void list_built_in(const std::set<std::string>& listed) {
    const Runtime& r = runtime();
    constexpr std::string_view kSuffix = "ExecutionProvider";
    char** names = nullptr;
    int count = 0;
    if (!r.check(r.api.GetAvailableProviders(&names, &count)).ok()) return;
    for (int i = 0; i < count; ++i) {
      std::string name = names[i];
      if (listed.contains(name) || !name.ends_with(kSuffix)) continue;
      Device d;
      d.built_in = name.substr(0, name.size() - kSuffix.size());
      d.name = "ONNX Runtime " + r.version + ", " + name;
      bool processor = d.built_in == "OpenVINO" || d.built_in == "XNNPACK" || d.built_in == "DNNL";  // by default
      d.resource = processor ? "cpu:0" : "onnxruntime:" + d.built_in;
      Options options;
      if (r.check(r.api.CreateSessionOptions(&options.p)).ok() && d.append_to(options.p).ok())
        devices_.push_back(std::move(d));
    }
    (void)r.check(r.api.ReleaseAvailableProviders(names, count));
  }

  std::string version_;
  std::vector<Device> devices_;
};

}  // namespace

const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  return backend::entry<OnnxRuntimeBackend>(host, status);
}

}  // namespace ai_vmm::onnxruntime
