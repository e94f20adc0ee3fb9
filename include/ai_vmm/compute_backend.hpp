// Header-only C++ over backend_abi.h, for plugin authors: derive from ComputeBackend, Device, Executable and Context,
// and export the table with AI_VMM_EXPORT_BACKEND(MyBackend). Done here, so that an author cannot forget it: version
// negotiation, structs of an older or newer host, statuses, exceptions, malformed graphs, arguments that do not fit the
// compiled graph, and a caller who gave up before the run began.
#pragma once

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ai_vmm/backend_abi.h"
#include "ai_vmm/cancel.hpp"
#include "ai_vmm/types.hpp"

namespace ai_vmm::backend {

using TensorRef = const AiVmmTensor*;

inline std::string_view view(const AiVmmText& text) { return {text.data, static_cast<size_t>(text.size)}; }
inline AiVmmText text(std::string_view s) { return {s.data(), s.size()}; }

template <class T>
T make() {  // a zeroed struct with its size filled in
  T t{};
  t.head.size = sizeof(T);
  return t;
}

// The other side's struct as this build knows it: fields that the other side lacks are zero.
template <class T>
T local(const T* theirs) {
  T t{};
  if (theirs) std::memcpy(static_cast<void*>(&t), theirs, std::min<size_t>(sizeof(T), theirs->head.size));
  t.head.size = sizeof(T);
  return t;
}

// Writes what `mine` holds into the other side's struct, as far as that reaches.
template <class T>
void publish(const T& mine, T* theirs) {
  size_t n = std::min<size_t>(sizeof(T), theirs->head.size);
  if (n > sizeof(AiVmmHead))
    std::memcpy(reinterpret_cast<char*>(theirs) + sizeof(AiVmmHead),
                reinterpret_cast<const char*>(&mine) + sizeof(AiVmmHead), n - sizeof(AiVmmHead));
}

// Bits of an element of ONNX's type number; 0 for strings and unknown numbers.
constexpr int bits_of(int32_t dtype) {
  constexpr uint8_t kBits[] = {0,  32,  8,  8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64,
                               64, 128, 16, 8, 8,  8,  8,  4,  4, 4, 8,  2,  2};
  return dtype >= 0 && size_t(dtype) < sizeof kBits ? kBits[dtype] : 0;
}
inline int64_t count_of(int32_t rank, const int64_t* shape) {
  int64_t n = 1;
  for (int32_t d = 0; d < rank; ++d) n *= shape[d];
  return n;
}
inline int64_t bytes_of(int32_t dtype, int32_t rank, const int64_t* shape) {
  return (count_of(rank, shape) * bits_of(dtype) + 7) / 8;
}
inline const void* data_of(const AiVmmTensor& t) { return static_cast<const char*>(t.data) + t.byte_offset; }

// New memory of the host for output k.
inline Result<void*> allocate(const AiVmmRun& run, uint32_t k, int32_t dtype, int32_t rank, const int64_t* shape) {
  if (void* memory = run.allocate(run.user, k, dtype, rank, shape)) return memory;
  std::string sizes;
  for (int32_t d = 0; d < rank; ++d) sizes.append(d ? "," : "").append(std::to_string(shape[d]));
  return Status(Code::resource_exhausted,
                "The memory limit does not allow output " + std::to_string(k) + " of shape [" + sizes + "].");
}

// Where output k of the now known type goes: the caller's memory if it fits, else new memory of the host.
inline Result<void*> output(const AiVmmRun& run, std::span<const TensorRef> outputs, uint32_t k, int32_t dtype,
                            int32_t rank, const int64_t* shape) {
  const AiVmmTensor& t = *outputs[k];
  if (t.data && t.dtype == dtype && t.rank == rank && std::equal(shape, shape + rank, t.shape))
    return static_cast<void*>(static_cast<char*>(t.data) + t.byte_offset);
  return allocate(run, k, dtype, rank, shape);
}

class Context {
 public:
  virtual ~Context() = default;
  // The tensors fit the compiled graph: their number, and for inputs element types, ranks, fixed sizes and dense
  // memory.
  virtual Status execute(std::span<const TensorRef> inputs, std::span<const TensorRef> outputs,
                         const AiVmmRun& run) = 0;
};

class Executable {
 public:
  virtual ~Executable() = default;
  virtual Result<std::unique_ptr<Context>> create_context() = 0;
  // Whether runs are right when an output is given the memory of an input, as compile was told that it may be. If not,
  // such inputs are copied before the run.
  virtual bool works_in_place() const { return false; }
  virtual void info(AiVmmExecutableInfo&) const {}
};

class Device {
 public:
  virtual ~Device() = default;
  // Fills one verdict a node of the graph. A level-1 backend (answers_queries is false) is never asked.
  virtual Status query(const AiVmmGraph&, std::span<AiVmmVerdict* const>) {
    return Status(Code::unimplemented, "The backend answers no queries.");
  }
  virtual Result<std::unique_ptr<Executable>> compile(const AiVmmGraph& graph, const AiVmmCompileOptions& options) = 0;
  virtual bool takes_layouts() const { return false; }  // else every value is row-major, and others are refused
  virtual Status state() const { return {}; }           // a failure says with on_device() what is wrong with the device
};

// Failures of a device, as against those of a request, are marked: Status(…).on_device(DeviceState::lost).
class ComputeBackend {
 public:
  virtual ~ComputeBackend() = default;
  virtual const char* name() const = 0;
  virtual const char* version() const = 0;
  // Called once. A failure declines this machine; its sentence is what the user reads.
  virtual Status initialize(const AiVmmHost& host) = 0;
  virtual bool answers_queries() const { return true; }
  virtual int32_t device_count() const { return 1; }
  virtual Status capabilities(int32_t device, AiVmmDeviceInfo& info) const = 0;
  virtual double performance_score(int32_t) const { return 0; }
  virtual Result<std::unique_ptr<Device>> open(int32_t device) = 0;
  virtual const void* extension(std::string_view) { return nullptr; }  // a table of level 3
};

namespace detail {

inline void report(const Status& status, AiVmmStatus* out) {
  if (!out) return;
  auto s = make<AiVmmStatus>();
  s.code = static_cast<int32_t>(status.code());
  s.device_state = static_cast<int32_t>(status.device_state());
  s.retry_after_ms = status.ok() ? 0 : status.fault()->retry_after_ms;
  if (status.code() == Code::resource_exhausted && s.device_state == AI_VMM_DEVICE_OK)
    s.device_state = AI_VMM_DEVICE_OUT_OF_MEMORY;  // the host knows which refusals were its own
  size_t room = out->head.size > offsetof(AiVmmStatus, text) ? out->head.size - offsetof(AiVmmStatus, text) : 0;
  s.text_size = static_cast<uint32_t>(std::min({status.message().size(), sizeof(s.text), room}));
  std::memcpy(s.text, status.message().data(), s.text_size);
  size_t used = offsetof(AiVmmStatus, text) + s.text_size;
  std::memcpy(reinterpret_cast<char*>(out) + sizeof(AiVmmHead), reinterpret_cast<char*>(&s) + sizeof(AiVmmHead),
              std::min<size_t>(used, out->head.size) - std::min<size_t>(sizeof(AiVmmHead), out->head.size));
}

// What the graph promised of one of its inputs.
struct Port {
  std::string name;
  int32_t dtype = 0, rank = -1;
  std::vector<int64_t> dims;  // -1: open
};

struct Signature {
  std::vector<Port> inputs;
  uint32_t outputs = 0;
  explicit Signature(const AiVmmGraph& g) : outputs(g.output_count) {
    for (uint32_t i = 0; i < g.input_count; ++i) {
      const AiVmmValue& v = *g.values[g.inputs[i]];
      Port p{std::string(view(v.name)), v.dtype, v.rank, {}};
      for (int32_t d = 0; d < v.rank; ++d) p.dims.push_back(std::max<int64_t>(v.dims[d], -1));
      inputs.push_back(std::move(p));
    }
  }

  Status check(std::span<const TensorRef> in, std::span<const TensorRef> out) const {
    auto bad = [](std::string what) { return Status(Code::invalid_argument, std::move(what)); };
    if (in.size() != inputs.size() || out.size() != outputs)
      return bad("The run has " + std::to_string(in.size()) + " inputs and " + std::to_string(out.size()) +
                 " outputs; the graph was compiled with " + std::to_string(inputs.size()) + " and " +
                 std::to_string(outputs) + ".");
    for (size_t i = 0; i < in.size(); ++i) {
      const Port& p = inputs[i];
      auto which = [&] { return "Input " + std::to_string(i) + " (\"" + p.name + "\") "; };
      if (!in[i]) return bad(which() + "is missing.");
      const AiVmmTensor& t = *in[i];
      if (p.dtype && t.dtype != p.dtype)
        return bad(which() + "has element type " + std::to_string(t.dtype) + "; the graph was compiled for " +
                   std::to_string(p.dtype) + ".");
      if (t.rank < 0 || (p.rank >= 0 && t.rank != p.rank) || (t.rank > 0 && !t.shape))
        return bad(which() + "has rank " + std::to_string(t.rank) + "; the graph was compiled for " +
                   std::to_string(p.rank) + ".");
      int64_t count = 1;
      for (int32_t d = t.rank; d-- > 0;) {
        int64_t size = t.shape[d];
        if (size < 0 || (p.rank >= 0 && p.dims[size_t(d)] >= 0 && size != p.dims[size_t(d)]))
          return bad(which() + "has size " + std::to_string(size) + " along axis " + std::to_string(d) +
                     "; the graph was compiled for another.");
        if (t.strides && size > 1 && t.strides[d] != count) return bad(which() + "is not dense and row-major.");
        if (__builtin_mul_overflow(count, size, &count)) return bad(which() + "has more elements than 2^63.");
      }
      if (count > 0 && !t.data) return bad(which() + "has no memory.");
    }
    for (size_t k = 0; k < out.size(); ++k)
      if (!out[k] || out[k]->rank < 0 || (out[k]->data && out[k]->rank > 0 && !out[k]->shape))
        return bad("Output " + std::to_string(k) + " is missing, or has memory but no shape.");
    return {};
  }
};

// Indices in range, dimensions that exist and, in a graph to compile, values made before they are read. (A graph to
// judge may be the body of a loop, which reads values of the graph around it.)
inline Status check(const AiVmmGraph* g, bool to_compile) {
  auto bad = [](std::string what) {
    return Status(Code::invalid_argument, "The graph is malformed: " + std::move(what) + ".");
  };
  if (!g) return bad("it is null");
  std::vector<char> made(g->value_count, !to_compile);
  auto known = [&](int32_t v) { return v >= 0 && static_cast<uint32_t>(v) < g->value_count; };
  for (uint32_t i = 0; i < g->value_count; ++i) {
    const AiVmmValue* v = g->values[i];
    if (!v || (v->rank > 0 && !v->dims) || (v->int_count > 0 && !v->ints))
      return bad("value " + std::to_string(i) + " lacks its dimensions");
    auto sized = [&](const int64_t* codes, int64_t n) {
      return n <= 0 ||
             std::all_of(codes, codes + n, [&](int64_t c) { return c >= 0 || -1 - c < int64_t(g->expression_count); });
    };
    if (!sized(v->dims, v->rank) || !sized(v->ints, v->int_count))
      return bad("value " + std::to_string(i) + " names a size that there is not");
    if (v->data) made[i] = 1;
  }
  for (uint32_t i = 0; i < g->input_count; ++i) {
    if (!known(g->inputs[i])) return bad("input " + std::to_string(i) + " is no value");
    made[size_t(g->inputs[i])] = 1;
  }
  for (uint32_t n = 0; n < g->node_count; ++n) {
    const AiVmmNode* node = g->nodes[n];
    if (!node) return bad("node " + std::to_string(n) + " is null");
    for (uint32_t i = 0; i < node->input_count; ++i)
      if (int32_t v = node->inputs[i]; v != -1 && (!known(v) || !made[size_t(v)]))
        return bad("node " + std::to_string(n) + " reads a value that does not exist yet");
    for (uint32_t i = 0; i < node->output_count; ++i)
      if (int32_t v = node->outputs[i]; v != -1) {
        if (!known(v)) return bad("node " + std::to_string(n) + " writes a value that there is not");
        made[size_t(v)] = 1;
      }
  }
  for (uint32_t k = 0; k < g->output_count; ++k)
    if (!known(g->outputs[k]) || !made[size_t(g->outputs[k])])
      return bad("output " + std::to_string(k) + " is made by no node");
  return {};
}

inline Status check_layouts(const AiVmmGraph& g, const AiVmmCompileOptions& o) {
  auto row_major = [](const uint32_t* tokens, uint32_t n) {
    return !tokens || std::all_of(tokens, tokens + n, [](uint32_t t) { return t == AI_VMM_LAYOUT_ROW_MAJOR; });
  };
  if (row_major(o.input_layouts, g.input_count) && row_major(o.output_layouts, g.output_count)) return {};
  return Status(Code::unimplemented, "The backend takes row-major values only.");
}

struct CompiledGraph {
  std::unique_ptr<Executable> executable;
  Signature signature;
  bool protect_inputs;  // from being overwritten by outputs
};
struct OpenContext {
  std::unique_ptr<Context> context;
  const CompiledGraph* compiled;
};

// Inputs whose memory is an output's too, copied.
struct ProtectedInputs {
  std::vector<TensorRef> tensors;
  std::vector<AiVmmTensor> copies;
  std::vector<std::vector<char>> memory;
  ProtectedInputs(std::span<const TensorRef> in, std::span<const TensorRef> out) : tensors(in.begin(), in.end()) {
    copies.reserve(in.size());
    for (TensorRef& t : tensors) {
      if (std::none_of(out.begin(), out.end(), [&](TensorRef o) { return o->data && o->data == t->data; })) continue;
      auto bytes = static_cast<size_t>(bytes_of(t->dtype, t->rank, t->shape));
      memory.emplace_back(bytes);
      if (bytes) std::memcpy(memory.back().data(), data_of(*t), bytes);
      copies.push_back(*t);
      copies.back().data = memory.back().data();
      copies.back().byte_offset = 0;
      t = &copies.back();
    }
  }
};

}  // namespace detail

// Runs f() -> Status. Nothing thrown below reaches the host; the failure is in *out and its code is returned.
template <class F>
int32_t guarded(AiVmmStatus* out, F&& f) {
  Status s;
  try {
    s = f();
  } catch (const std::bad_alloc&) {
    s = Status(Code::resource_exhausted, "The machine has no memory left.");
  } catch (const std::exception& e) {
    s = Status(Code::internal, std::string("The backend failed: ") + e.what() + ".");
  } catch (...) {
    s = Status(Code::internal, "The backend failed with something that is no std::exception.");
  }
  if (s.ok()) return 0;
  detail::report(s, out);
  return static_cast<int32_t>(s.code());
}

// The author's object behind a handle, for the tables of extensions.
inline Device& object(AiVmmDevice* d) { return *reinterpret_cast<Device*>(d); }
inline Executable& object(AiVmmExecutable* e) { return *reinterpret_cast<detail::CompiledGraph*>(e)->executable; }
inline Context& object(AiVmmContext* c) { return *reinterpret_cast<detail::OpenContext*>(c)->context; }

// A run with the checks that AiVmmBackend::execute makes, for the streams extension too.
inline Status checked_execute(AiVmmContext* c, std::span<const TensorRef> in, std::span<const TensorRef> out,
                              const AiVmmRun& run) {
  auto* context = reinterpret_cast<detail::OpenContext*>(c);
  AI_VMM_TRY(context->compiled->signature.check(in, out));
  if (cancelled(run.cancel)) return Status(Code::cancelled, "The run was cancelled before it began.");
  if (!context->compiled->protect_inputs) return context->context->execute(in, out, run);
  detail::ProtectedInputs own(in, out);
  return context->context->execute(own.tensors, out, run);
}

inline ComputeBackend& backend_of(void* self) { return *static_cast<ComputeBackend*>(self); }

// The table over a backend object, which must outlive it.
inline AiVmmBackend table_of(ComputeBackend& backend, uint32_t minor) {
  auto t = make<AiVmmBackend>();
  t.abi_major = AI_VMM_ABI_MAJOR;
  t.abi_minor = minor;
  t.name = backend.name();
  t.version = backend.version();
  t.self = &backend;
  t.device_count = [](void* self) { return backend_of(self).device_count(); };
  t.device_info = [](void* self, int32_t i, AiVmmDeviceInfo* theirs, AiVmmStatus* s) {
    return guarded(s, [&]() -> Status {
      ComputeBackend& backend = backend_of(self);
      if (i < 0 || i >= backend.device_count())
        return Status(Code::not_found, std::string("Backend ") + backend.name() + " has no device " +
                                           std::to_string(i) + "; it has " + std::to_string(backend.device_count()) +
                                           ".");
      auto info = make<AiVmmDeviceInfo>();
      info.score = backend.performance_score(i);
      AI_VMM_TRY(backend.capabilities(i, info));
      publish(info, theirs);
      return {};
    });
  };
  t.open_device = [](void* self, int32_t i, AiVmmDevice** out, AiVmmStatus* s) {
    return guarded(s, [&]() -> Status {
      ComputeBackend& backend = backend_of(self);
      if (i < 0 || i >= backend.device_count())
        return Status(Code::not_found,
                      std::string("Backend ") + backend.name() + " has no device " + std::to_string(i) + ".");
      *out = reinterpret_cast<AiVmmDevice*>(AI_VMM_TAKE(backend.open(i)).release());
      return {};
    });
  };
  t.close_device = [](AiVmmDevice* d) { delete &object(d); };
  if (backend.answers_queries())
    t.query = [](AiVmmDevice* d, const AiVmmGraph* g, AiVmmVerdict* const* theirs, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        AI_VMM_TRY(detail::check(g, false));
        std::vector<AiVmmVerdict> verdicts(g->node_count, make<AiVmmVerdict>());
        std::vector<AiVmmVerdict*> pointers;
        for (AiVmmVerdict& v : verdicts) pointers.push_back(&v);
        AI_VMM_TRY(object(d).query(*g, pointers));
        for (uint32_t n = 0; n < g->node_count; ++n) publish(verdicts[n], theirs[n]);
        return {};
      });
    };
  t.compile = [](AiVmmDevice* d, const AiVmmGraph* g, const AiVmmCompileOptions* options, AiVmmExecutable** out,
                 AiVmmStatus* s) {
    return guarded(s, [&]() -> Status {
      AI_VMM_TRY(detail::check(g, true));
      const AiVmmCompileOptions o = local(options);
      if (!object(d).takes_layouts()) AI_VMM_TRY(detail::check_layouts(*g, o));
      auto executable = AI_VMM_TAKE(object(d).compile(*g, o));
      bool alias = o.alias && std::any_of(o.alias, o.alias + g->output_count, [](int32_t a) { return a >= 0; });
      bool protect = alias && !executable->works_in_place();
      *out = reinterpret_cast<AiVmmExecutable*>(
          new detail::CompiledGraph{std::move(executable), detail::Signature(*g), protect});
      return {};
    });
  };
  t.release_executable = [](AiVmmExecutable* e) { delete reinterpret_cast<detail::CompiledGraph*>(e); };
  t.executable_info = [](AiVmmExecutable* e, AiVmmExecutableInfo* theirs, AiVmmStatus* s) {
    return guarded(s, [&]() -> Status {
      auto info = make<AiVmmExecutableInfo>();
      object(e).info(info);
      publish(info, theirs);
      return {};
    });
  };
  t.create_context = [](AiVmmExecutable* e, AiVmmContext** out, AiVmmStatus* s) {
    return guarded(s, [&]() -> Status {
      auto context = AI_VMM_TAKE(object(e).create_context());
      const auto* compiled = reinterpret_cast<detail::CompiledGraph*>(e);
      *out = reinterpret_cast<AiVmmContext*>(new detail::OpenContext{std::move(context), compiled});
      return {};
    });
  };
  t.release_context = [](AiVmmContext* c) { delete reinterpret_cast<detail::OpenContext*>(c); };
  t.execute = [](AiVmmContext* c, const AiVmmTensor* const* in, uint32_t n, const AiVmmTensor* const* out, uint32_t m,
                 const AiVmmRun* run, AiVmmStatus* s) {
    return guarded(s, [&] { return checked_execute(c, {in, n}, {out, m}, local(run)); });
  };
  t.extension = [](void* self, const char* name) -> const void* {
    return name ? backend_of(self).extension(name) : nullptr;
  };
  t.device_state = [](AiVmmDevice* d, AiVmmStatus* s) { return guarded(s, [&] { return object(d).state(); }); };
  return t;
}

// The table of one backend object, which lives for ever. Fails when the host speaks no version of ours. Hidden, so that
// two plugins with classes of the same name do not share the object.
template <class Backend>
__attribute__((visibility("hidden"))) const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  uint32_t minor = 0;
  if (ai_vmm_negotiate(host, AI_VMM_ABI_MAJOR, AI_VMM_ABI_MINOR, &minor, status)) return nullptr;
  const AiVmmBackend* made = nullptr;
  guarded(status, [&]() -> Status {
    static const AiVmmHost services = local(host);
    static Backend backend;
    static const Status initialized = backend.initialize(services);
    if (!initialized.ok()) return initialized.copy();
    static const AiVmmBackend table = table_of(backend, minor);
    made = &table;
    return {};
  });
  return made;
}

}  // namespace ai_vmm::backend

#define AI_VMM_EXPORT_BACKEND(Backend)                                                                              \
  extern "C" __attribute__((visibility("default"))) const AiVmmBackend* ai_vmm_backend_entry(const AiVmmHost* host, \
                                                                                             AiVmmStatus* status) { \
    return ::ai_vmm::backend::entry<Backend>(host, status);                                                         \
  }
