// Hosts OpenVINO: every device that it shows, which are Intel's CPUs (and others' of x86), GPUs and NPUs.
#include <algorithm>
#include <charconv>
#include <cstring>

#include "ai_vmm/compute_backend.hpp"
#include "backends/openvino/api.hpp"
#include "base/config.hpp"
#include "base/pci.hpp"
#include "base/python_packages.hpp"
#include "base/text.hpp"
#include "kit/hosted.hpp"

namespace ai_vmm::openvino {

namespace {

// The loaded library, never released: its threads may outlive main's statics.
struct Runtime {
  Api api;
  std::string version;  // "2026.4.1-22982-…"
  ov_core* core = nullptr;

  Status check(int status) const {
    if (status == 0) return {};
    if (status <= kInvalidParameter)  // found by the C interface itself, which leaves the last message as it was
      return Status(Code::internal, "OpenVINO: " + std::string(api.ov_get_error_info(status)) + ".");
    const char* message = api.ov_get_last_err_msg();
    std::string text = message ? message : "";
    if (message) api.ov_free(message);
    return Status(Code::invalid_argument, "OpenVINO: " + essence(text, status));
  }
  // Of its messages the lines that say something: not where in OpenVINO's sources, and no advice on extending it.
  static std::string essence(const std::string& message, int status) {
    std::string kept;
    for (std::string_view line : split(message, '\n')) {
      line = trim(line);
      if (line.starts_with("To facilitate")) break;
      if (line.empty() || line.starts_with("Exception from ") || line.starts_with("Check '") ||
          line.starts_with("FrontEnd API failed") || line.starts_with("Summary:"))
        continue;
      kept += (kept.empty() ? "" : " ") + std::string(line);
    }
    if (kept.empty()) kept = message.empty() ? "status " + std::to_string(status) : message;
    return kept;
  }
  // A property of a device as text; "" where the device has no such property.
  std::string property(const std::string& device, const char* key) const {
    char* value = nullptr;
    if (api.ov_core_get_property(core, device.c_str(), key, &value) != 0 || !value) return "";
    std::string text = value;
    api.ov_free(value);
    return text;
  }
};

Runtime& runtime() {
  static auto* r = new Runtime;
  return *r;
}

template <class T, Library::Symbol<void(T*)> Api::*release>
struct Owned {
  T* p = nullptr;
  Owned() = default;
  Owned(Owned&& o) noexcept : p(std::exchange(o.p, nullptr)) {}
  Owned& operator=(Owned&& o) noexcept {
    std::swap(p, o.p);
    return *this;
  }
  ~Owned() {
    if (p) (runtime().api.*release)(p);
  }
};
using Model = Owned<ov_model, &Api::ov_model_free>;
using CompiledModel = Owned<ov_compiled_model, &Api::ov_compiled_model_free>;
using InferRequest = Owned<ov_infer_request, &Api::ov_infer_request_free>;
using TensorHandle = Owned<ov_tensor, &Api::ov_tensor_free>;
using Port = Owned<ov_const_port, &Api::ov_output_const_port_free>;

// ---------------------------------------------------------------- running

// Binding a tensor costs OpenVINO about two microseconds, which the host's ever new memory would cost at every run: up
// to this size, copying to and from a place that stays bound is cheaper.
constexpr size_t kCopyBytes = 4096;

// A tensor that OpenVINO sees in our memory.
class Bound {
 public:
  // Says whether the tensor had to be made anew and so has to be bound.
  Result<bool> set(void* data, ov_element_type type, std::span<const int64_t> shape, size_t bytes) {
    copied_ = bytes <= kCopyBytes;
    if (copied_) {
      if (!small_) small_ = std::make_unique<std::byte[]>(kCopyBytes);
      data = small_.get();
    }
    if (tensor_.p && data == data_ && std::ranges::equal(shape, shape_)) return false;
    shape_.assign(shape.begin(), shape.end());
    data_ = data;
    const Runtime& r = runtime();
    TensorHandle made;
    AI_VMM_TRY(
        r.check(r.api.ov_tensor_create_from_host_ptr(type, {int64_t(shape_.size()), shape_.data()}, data, &made.p)));
    tensor_ = std::move(made);
    return true;
  }
  const ov_tensor* get() const { return tensor_.p; }
  void* data() const { return data_; }
  bool copied() const { return copied_; }

 private:
  TensorHandle tensor_;
  std::unique_ptr<std::byte[]> small_;
  void* data_ = nullptr;
  bool copied_ = false;
  std::vector<int64_t> shape_;
};

class Session : public hosted::Session, public std::enable_shared_from_this<Session> {
 public:
  Result<std::unique_ptr<hosted::Request>> create_request() override;
  Result<InferRequest> infer_request() const {
    InferRequest request;
    AI_VMM_TRY(runtime().check(runtime().api.ov_compiled_model_create_infer_request(model.p, &request.p)));
    return request;
  }

  struct Input {
    Port port;  // null: OpenVINO found that nothing depends on it
    ov_element_type type;
  };
  CompiledModel model;
  std::vector<Input> inputs;
  std::vector<ov_element_type> outputs;
};

class Request : public hosted::Request {
 public:
  Request(std::shared_ptr<const Session> session, InferRequest request)
      : session_(std::move(session)),
        request_(std::move(request)),
        inputs_(session_->inputs.size()),
        outputs_(session_->outputs.size()),
        made_(session_->outputs.size()),
        shapes_(session_->outputs.size()),
        elsewhere_(session_->outputs.size(), 0) {}

  Status run(std::span<const AiVmmTensor* const> inputs, std::span<hosted::Output> outputs) override {
    const Runtime& r = runtime();
    const Api& api = r.api;
    for (size_t k = 0; k < outputs.size(); ++k)
      if (!outputs[k].data && outputs_[k].get()) {
        // A request keeps a tensor once it has one; only a new request lets OpenVINO allocate again.
        AI_VMM_TRY(start_anew());
        break;
      }
    for (size_t i = 0; i < inputs.size(); ++i) {
      const AiVmmTensor& t = *inputs[i];
      const Session::Input& in = session_->inputs[i];
      if (!in.port.p) continue;
      void* data = static_cast<char*>(t.data) + t.byte_offset;
      auto bytes = size_t(backend::bytes_of(t.dtype, t.rank, t.shape));
      if (AI_VMM_TAKE(inputs_[i].set(data, in.type, {t.shape, size_t(t.rank)}, bytes)))
        AI_VMM_TRY(r.check(api.ov_infer_request_set_tensor_by_const_port(request_.p, in.port.p, inputs_[i].get())));
      if (inputs_[i].copied() && bytes) std::memcpy(inputs_[i].data(), data, bytes);
    }
    for (size_t k = 0; k < outputs.size(); ++k)
      if (checked_ && outputs[k].data && !elsewhere_[k] &&
          AI_VMM_TAKE(outputs_[k].set(outputs[k].data, session_->outputs[k], outputs[k].shape, bytes_of(outputs[k]))))
        AI_VMM_TRY(r.check(api.ov_infer_request_set_output_tensor_by_index(request_.p, k, outputs_[k].get())));
    AI_VMM_TRY(r.check(api.ov_infer_request_infer(request_.p)));
    for (size_t k = 0; k < outputs.size(); ++k) {
      if (!outputs[k].data || elsewhere_[k] || !checked_)
        AI_VMM_TRY(fetch(k, outputs[k]));
      else if (outputs_[k].copied())
        copy(outputs[k], outputs_[k].data());
    }
    checked_ = true;
    return {};
  }

 private:
  Status start_anew() {
    request_ = AI_VMM_TAKE(session_->infer_request());
    inputs_ = std::vector<Bound>(inputs_.size());
    outputs_ = std::vector<Bound>(outputs_.size());
    return {};
  }

  static size_t bytes_of(const hosted::Output& o) {
    return size_t(backend::bytes_of(o.dtype, int32_t(o.shape.size()), o.shape.data()));
  }
  static void copy(const hosted::Output& to, const void* from) {
    if (size_t bytes = bytes_of(to)) std::memcpy(to.data, from, bytes);
  }

  // Output k, where OpenVINO left it: in memory of its own, given out until the next run, or, if it is an input
  // unchanged, in that input's memory. The latter it does not write anywhere else, even if told to.
  Status fetch(size_t k, hosted::Output& output) {
    const Runtime& r = runtime();
    TensorHandle made;
    AI_VMM_TRY(r.check(r.api.ov_infer_request_get_output_tensor_by_index(request_.p, k, &made.p)));
    made_[k] = std::move(made);
    ov_shape shape{};
    void* data = nullptr;
    int status = r.api.ov_tensor_get_shape(made_[k].p, &shape);
    if (status != kInvalidParameter) AI_VMM_TRY(r.check(status));  // which it says of the shape of a scalar
    shapes_[k].assign(shape.dims, shape.dims + shape.rank);
    if (shape.dims) (void)r.api.ov_shape_free(&shape);
    AI_VMM_TRY(r.check(r.api.ov_tensor_data(made_[k].p, &data)));
    if (!checked_)
      elsewhere_[k] = std::ranges::any_of(inputs_, [&](const Bound& in) { return in.get() && in.data() == data; });
    if (!output.data) {
      output.data = data;
      output.shape = shapes_[k];
      return {};
    }
    if (!std::ranges::equal(output.shape, shapes_[k]))
      return Status(Code::internal, "OpenVINO made an output of shape " + to_string(Shape(shapes_[k])) + ", not " +
                                        to_string(Shape(output.shape.begin(), output.shape.end())) + ".");
    if (data != output.data) copy(output, data);
    return {};
  }

  std::shared_ptr<const Session> session_;
  InferRequest request_;
  std::vector<Bound> inputs_, outputs_;
  std::vector<TensorHandle> made_;
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<char> elsewhere_;  // outputs that are inputs unchanged
  bool checked_ = false;         // elsewhere_ is known: after the first run, which binds no outputs
};

Result<std::unique_ptr<hosted::Request>> Session::create_request() {
  InferRequest request = AI_VMM_TAKE(infer_request());
  return std::unique_ptr<hosted::Request>(new Request(shared_from_this(), std::move(request)));
}

// ---------------------------------------------------------------- devices

constexpr const char* kOtherType = "has no counterpart of the element type ";

Result<ov_element_type> element_type(DType type) {
  switch (type) {
    case DType::f32: return kF32;
    case DType::f16: return kF16;
    case DType::bf16: return kBf16;
    case DType::i8: return kI8;
    case DType::i16: return kI16;
    case DType::i32: return kI32;
    case DType::i64: return kI64;
    case DType::u8: return kU8;
    case DType::u16: return kU16;
    case DType::u32: return kU32;
    case DType::u64: return kU64;
    case DType::boolean: return kBoolean;
    case DType::i4: return kI4;
    case DType::u4: return kU4;
    default: return Status(Code::unimplemented, "OpenVINO " + (kOtherType + std::string(ai_vmm::name(type))) + ".");
  }
}

// Attributes that OpenVINO 2026.4 reads past, in operators that it takes: wherever they are not at their defaults, the
// results are wrong, as the conformance run shows. So do the other deviations below.
constexpr struct {
  const char *op, *attribute;
  int64_t integer;   // the default, of an integer
  const char* text;  // of a text; null: an integer
} kIgnored[] = {
    {"Attention", "left_window_size", -1, nullptr},
    {"Attention", "right_window_size", -1, nullptr},
    {"Resize", "antialias", 0, nullptr},
    {"Resize", "exclude_outside", 0, nullptr},
    {"Resize", "keep_aspect_ratio_policy", 0, "stretch"},
    {"SpaceToDepth", "mode", 0, "DCR"},
};

std::optional<hosted::Deviation> find_deviation(const AiVmmGraph& g, const AiVmmNode& n) {
  std::string_view op = backend::view(n.op);
  if (!backend::view(n.domain).empty()) return std::nullopt;
  for (auto values : {std::span(n.inputs, n.input_count), std::span(n.outputs, n.output_count)})
    for (int32_t v : values) {
      auto dtype = v < 0 ? DType::f32 : static_cast<DType>(g.values[v]->dtype);
      if (dtype == DType::f64) return {{AI_VMM_REFUSED_DTYPE, "OpenVINO computes float64 in float32"}};
      if (is_float(dtype) && bits(dtype) <= 8)
        return {{AI_VMM_REFUSED_DTYPE, "OpenVINO does not saturate floats of 8 and 4 bits as ONNX does"}};
    }
  for (uint32_t k = 0; k < n.attribute_count; ++k) {
    const AiVmmAttribute& a = *n.attributes[k];
    for (const auto& ignored : kIgnored)
      if (op == ignored.op && backend::view(a.name) == ignored.attribute &&
          (ignored.text ? backend::view(a.s) != ignored.text : a.i != ignored.integer))
        return {{AI_VMM_REFUSED_ATTRIBUTE, "OpenVINO ignores this attribute"}};
    if (op == "RoiAlign" && backend::view(a.name) == "mode" && backend::view(a.s) == "max")
      return {{AI_VMM_REFUSED_ATTRIBUTE, "OpenVINO's maximum is of other samples"}};
  }
  auto first = n.input_count && n.inputs[0] >= 0 ? static_cast<DType>(g.values[n.inputs[0]]->dtype) : DType::undefined;
  const bool is_signed = first == DType::i8 || first == DType::i16 || first == DType::i32 || first == DType::i64;
  if (op == "BitShift" && is_signed)
    return {{AI_VMM_REFUSED_DTYPE, "OpenVINO shifts signed integers as unsigned ones, and saturates"}};
  if ((first == DType::i8 || first == DType::u8) && (op == "Add" || op == "Sub" || op == "Mul" || op == "Pow"))
    return {{AI_VMM_REFUSED_DTYPE, "OpenVINO saturates integers of 8 bits where they must wrap"}};
  if (op == "HardSigmoid" && !is_float(first))
    return {{AI_VMM_REFUSED_DTYPE, "OpenVINO rounds what HardSigmoid makes of integers"}};
  if (op == "DFT") return {{AI_VMM_REFUSED_ATTRIBUTE, "OpenVINO reads the axis only where opset 17 had it"}};
  if (op == "LSTM" && n.input_count > 7 && n.inputs[7] >= 0)
    return {{AI_VMM_REFUSED_ATTRIBUTE, "OpenVINO ignores the peephole weights"}};
  if (op == "Tile" && !g.values[n.inputs[1]]->data)
    return {{AI_VMM_REFUSED_DYNAMIC, "OpenVINO leaves the result unwritten"}};
  return std::nullopt;
}

class Engine : public hosted::Engine {
 public:
  explicit Engine(std::string device) : device_(std::move(device)) {}

  std::string identity() const override { return "openvino " + runtime().version + " " + device_; }
  // It takes every operator at the newest version that it knows, up to the one that the model is stamped with.
  std::span<const int> opsets() const override {
    static constexpr int kOpsets[] = {kNewestOnnxOpset};
    return kOpsets;
  }
  OnnxWeights weights() const override { return OnnxWeights::by_address; }
  std::optional<hosted::Deviation> deviation(const AiVmmGraph& g, const AiVmmNode& n) const override {
    return find_deviation(g, n);
  }

  Result<std::shared_ptr<hosted::Session>> load(const OnnxModel& from, const hosted::LoadOptions& how) override {
    const Runtime& r = runtime();
    Model model;
    AI_VMM_TRY(r.check(
        r.api.ov_core_read_model_from_memory_buffer(r.core, from.bytes.data(), from.bytes.size(), nullptr, &model.p)));
    auto session = std::make_shared<Session>();
    std::string threads = std::to_string(how.threads);
    std::vector<const char*> texts = {"PERFORMANCE_HINT", "LATENCY"};
    if (device_.starts_with("CPU")) texts.insert(texts.end(), {"INFERENCE_NUM_THREADS", threads.c_str()});
    // Left alone, it lowers float32 to what the device multiplies fastest. An NPU has no float32 at all.
    if (!device_.starts_with("NPU")) texts.insert(texts.end(), {"INFERENCE_PRECISION_HINT", "f32"});
    texts.resize(6, nullptr);
    size_t count = size_t(std::find(texts.begin(), texts.end(), nullptr) - texts.begin());
    AI_VMM_TRY(r.check(r.api.ov_core_compile_model(r.core, model.p, device_.c_str(), count, &session->model.p, texts[0],
                                                   texts[1], texts[2], texts[3], texts[4], texts[5])));
    size_t inputs = 0, found = 0;
    AI_VMM_TRY(r.check(r.api.ov_compiled_model_inputs_size(session->model.p, &inputs)));
    for (size_t i = 0; i < from.inputs.size(); ++i) {
      const OnnxPort& p = from.inputs[i];
      Session::Input in;
      in.type = AI_VMM_TAKE(element_type(static_cast<DType>(p.dtype)));
      // By name only where it must be: an input that is given out unchanged goes by its output's name.
      if (inputs == from.inputs.size())
        AI_VMM_TRY(r.check(r.api.ov_compiled_model_input_by_index(session->model.p, i, &in.port.p)));
      else if (r.api.ov_compiled_model_input_by_name(session->model.p, p.name.c_str(), &in.port.p) != 0)
        in.port.p = nullptr;
      if (in.port.p) AI_VMM_TRY(check_port(in.port, in.type, p));
      found += in.port.p != nullptr;
      session->inputs.push_back(std::move(in));
    }
    if (found != inputs)
      return Status(Code::unimplemented, "OpenVINO drops some inputs and renames others, which cannot be told apart.");
    size_t outputs = 0;
    AI_VMM_TRY(r.check(r.api.ov_compiled_model_outputs_size(session->model.p, &outputs)));
    if (outputs != from.outputs.size())
      return Status(Code::unimplemented, "OpenVINO makes " + std::to_string(outputs) + " outputs of " +
                                             std::to_string(from.outputs.size()) + ".");
    for (size_t k = 0; k < outputs; ++k) {
      Port port;
      auto type = AI_VMM_TAKE(element_type(static_cast<DType>(from.outputs[k].dtype)));
      AI_VMM_TRY(r.check(r.api.ov_compiled_model_output_by_index(session->model.p, k, &port.p)));
      AI_VMM_TRY(check_port(port, type, from.outputs[k]));
      session->outputs.push_back(type);
    }
    return std::shared_ptr<hosted::Session>(std::move(session));
  }

  AiVmmReason reason(const Status& failure) const override {
    const std::string& text = failure.message();
    auto says = [&](const char* part) { return text.find(part) != std::string::npos; };
    if (says(kOtherType) || says("element type") || says("data type")) return AI_VMM_REFUSED_DTYPE;
    if (says("No conversion rule")) return AI_VMM_REFUSED_OPERATOR;
    if (says("ttribute")) return AI_VMM_REFUSED_ATTRIBUTE;
    if (says("upper bound") || says("dynamic")) return AI_VMM_REFUSED_DYNAMIC;
    if (says(" rank")) return AI_VMM_REFUSED_RANK;
    return AI_VMM_REFUSED_OPERATOR;
  }

 private:
  // Type and shape at the edge must be ours, since our memory is bound there; another one means that OpenVINO gives the
  // model another meaning.
  static Status check_port(const Port& port, ov_element_type type, const OnnxPort& wanted) {
    const Runtime& r = runtime();
    ov_element_type found{};
    AI_VMM_TRY(r.check(r.api.ov_port_get_element_type(port.p, &found)));
    if (found != type)
      return Status(Code::unimplemented, "OpenVINO has another element type where the model has " +
                                             std::string(ai_vmm::name(static_cast<DType>(wanted.dtype))) + ".");
    if (!wanted.dims) return {};
    ov_partial_shape shape{};
    AI_VMM_TRY(r.check(r.api.ov_port_get_partial_shape(port.p, &shape)));
    bool fits =
        shape.rank.max < 0 || shape.rank.min != shape.rank.max || shape.rank.max == int64_t(wanted.dims->size());
    std::string text;
    for (int64_t i = 0; shape.rank.max >= 0 && shape.rank.min == shape.rank.max && i < shape.rank.max; ++i) {
      const ov_range& d = shape.dims[i];
      text += (text.empty() ? "" : ",") + (d.min == d.max ? std::to_string(d.min) : std::string("?"));
      if (fits && (*wanted.dims)[size_t(i)] >= 0)
        fits = (*wanted.dims)[size_t(i)] >= d.min && (d.max < 0 || (*wanted.dims)[size_t(i)] <= d.max);
    }
    r.api.ov_partial_shape_free(&shape);
    if (fits) return {};
    return Status(Code::unimplemented, "OpenVINO infers the rank and sizes [" + text + "] where the model has " +
                                           to_string(Shape(*wanted.dims)) + ".");
  }

  std::string device_;
};

// ---------------------------------------------------------------- the backend

class OpenVinoBackend : public backend::ComputeBackend {
 public:
  const char* name() const override { return "openvino"; }
  const char* version() const override { return runtime().version.c_str(); }
  int32_t device_count() const override { return int32_t(devices_.size()); }

  Status initialize(const AiVmmHost&) override {
    Runtime& r = runtime();
    Config config = AI_VMM_TAKE(Config::load());
    const std::string& wanted = config.text("openvino_library");
    Status loaded = r.api.load(library_candidates(wanted, "libopenvino_c.so", "openvino/libs"));
    if (!loaded.ok())
      return Status(loaded.code(),
                    (loaded.code() == Code::not_found
                         ? std::string("OpenVINO is not installed") + (wanted.empty() ? "" : " at \"" + wanted + "\"")
                         : loaded.message()) +
                        ": `pip install openvino` in the active environment, or the setting openvino_library "
                        "(AI_VMM_OPENVINO_LIBRARY) with the path of libopenvino_c.so, makes it available.");
    ov_version version{};
    AI_VMM_TRY(r.check(r.api.ov_get_openvino_version(&version)));
    r.version = version.build_number;
    r.api.ov_version_free(&version);
    int year = 0;
    std::from_chars(r.version.data(), r.version.data() + r.version.size(), year);
    if (year < 2025)
      return Status(Code::failed_precondition,
                    r.api.path() + " is OpenVINO " + r.version + "; this build speaks version 2025.0 and later.");
    AI_VMM_TRY(r.check(r.api.ov_core_create(&r.core)));
    ov_devices found{};
    AI_VMM_TRY(r.check(r.api.ov_core_get_available_devices(r.core, &found)));
    devices_.assign(found.names, found.names + found.count);
    r.api.ov_available_devices_free(&found);
    return {};
  }

  Status capabilities(int32_t index, AiVmmDeviceInfo& info) const override {
    const Runtime& r = runtime();
    const std::string& device = devices_[size_t(index)];
    std::string text = "OpenVINO " + r.version.substr(0, r.version.find('-')) + ", " + device + ", " +
                       r.property(device, "FULL_DEVICE_NAME");
    std::snprintf(info.name, sizeof info.name, "%s", text.c_str());
    std::string resource = "openvino:" + device;
    if (device == "CPU") resource = "cpu:0";
    unsigned domain = 0, bus = 0, slot = 0, function = 0;
    if (std::sscanf(r.property(device, "DEVICE_PCI_INFO").c_str(), "{domain: %u bus: %u device: 0x%x function: %u}",
                    &domain, &bus, &slot, &function) == 4)
      if (auto address = PciAddress::of(domain, bus, slot, function)) resource = resource_name(*address);
    std::snprintf(info.resource, sizeof info.resource, "%s", resource.c_str());
    std::string memory = r.property(device, "GPU_DEVICE_TOTAL_MEM_SIZE");
    std::from_chars(memory.data(), memory.data() + memory.size(), info.memory_bytes);
    return {};
  }

  Result<std::unique_ptr<backend::Device>> open(int32_t index) override {
    return std::unique_ptr<backend::Device>(new hosted::Device(std::make_shared<Engine>(devices_[size_t(index)])));
  }

 private:
  std::vector<std::string> devices_;  // "CPU", "GPU.0"
};

}  // namespace

const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  return backend::entry<OpenVinoBackend>(host, status);
}

}  // namespace ai_vmm::openvino
