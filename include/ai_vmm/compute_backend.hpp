// Header-only C++ over backend_abi.h, for plugin authors: derive from ComputeBackend, Device, Executable and Context,
// and export the table with AI_VMM_EXPORT_BACKEND(MyBackend). Version negotiation, status passing and the containment
// of exceptions are done here, so an author cannot forget them.
#pragma once

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "ai_vmm/backend_abi.h"
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

class Context {
 public:
  virtual ~Context() = default;
  virtual Status execute(std::span<const TensorRef> inputs, std::span<const TensorRef> outputs,
                         const AiVmmRun& run) = 0;
};

class Executable {
 public:
  virtual ~Executable() = default;
  virtual Result<std::unique_ptr<Context>> create_context() = 0;
  virtual void info(AiVmmExecutableInfo&) const {}
};

class Device {
 public:
  virtual ~Device() = default;
  // Fills one verdict a node of the graph.
  virtual Status query(const AiVmmGraph& graph, std::span<AiVmmVerdict* const> verdicts) = 0;
  virtual Result<std::unique_ptr<Executable>> compile(const AiVmmGraph& graph, const AiVmmCompileOptions& options) = 0;
};

class ComputeBackend {
 public:
  virtual ~ComputeBackend() = default;
  virtual const char* name() const = 0;
  virtual const char* version() const = 0;
  virtual Status initialize(const AiVmmHost& host) = 0;
  virtual int32_t device_count() const { return 1; }
  virtual Status capabilities(int32_t device, AiVmmDeviceInfo& info) const = 0;
  virtual double performance_score(int32_t) const { return 0; }
  virtual Result<std::unique_ptr<Device>> open(int32_t device) = 0;
};

namespace detail {

inline int32_t report(const Status& status, AiVmmStatus* out) {
  if (status.ok()) return 0;
  if (out) {
    out->code = static_cast<int32_t>(status.code());
    out->device_state = status.code() == Code::resource_exhausted ? AI_VMM_DEVICE_OUT_OF_MEMORY : AI_VMM_DEVICE_OK;
    const std::string& m = status.fault()->text;
    out->text_size = static_cast<uint32_t>(std::min(m.size(), sizeof(out->text)));
    std::memcpy(out->text, m.data(), out->text_size);
  }
  return static_cast<int32_t>(status.code());
}

// Nothing thrown below may reach the host.
template <class F>
int32_t guarded(AiVmmStatus* out, F&& f) {
  try {
    return report(f(), out);
  } catch (const std::bad_alloc&) {
    return report(Status(Code::resource_exhausted, "The machine has no memory left."), out);
  } catch (const std::exception& e) {
    return report(Status(Code::internal, std::string("The backend failed: ") + e.what() + "."), out);
  }
}

template <class Handle, class T>
T* unwrap(Handle* h) {
  return reinterpret_cast<T*>(h);
}

}  // namespace detail

// The table of one backend object, which lives for ever. Fails when the host speaks no version of ours.
template <class Backend>
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  using detail::guarded;
  if (!host || host->abi_major != AI_VMM_ABI_MAJOR || host->abi_minor_min > AI_VMM_ABI_MINOR) {
    detail::report(
        Status(Code::unimplemented, "The backend speaks version " + std::to_string(AI_VMM_ABI_MAJOR) + "." +
                                        std::to_string(AI_VMM_ABI_MINOR) + " of the interface, the host another."),
        status);
    return nullptr;
  }
  static Backend backend;
  static AiVmmBackend table = [] {
    auto t = make<AiVmmBackend>();
    t.abi_major = AI_VMM_ABI_MAJOR;
    t.abi_minor = AI_VMM_ABI_MINOR;
    t.name = backend.name();
    t.version = backend.version();
    t.self = &backend;
    t.device_count = [](void*) { return backend.device_count(); };
    t.device_info = [](void*, int32_t i, AiVmmDeviceInfo* info, AiVmmStatus* s) {
      return guarded(s, [&] {
        info->score = backend.performance_score(i);
        return backend.capabilities(i, *info);
      });
    };
    t.open_device = [](void*, int32_t i, AiVmmDevice** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        *out = reinterpret_cast<AiVmmDevice*>(AI_VMM_TAKE(backend.open(i)).release());
        return {};
      });
    };
    t.close_device = [](AiVmmDevice* d) { delete reinterpret_cast<Device*>(d); };
    t.query = [](AiVmmDevice* d, const AiVmmGraph* g, AiVmmVerdict* const* v, AiVmmStatus* s) {
      return guarded(s, [&] { return reinterpret_cast<Device*>(d)->query(*g, {v, g->node_count}); });
    };
    t.compile = [](AiVmmDevice* d, const AiVmmGraph* g, const AiVmmCompileOptions* o, AiVmmExecutable** out,
                   AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        *out = reinterpret_cast<AiVmmExecutable*>(AI_VMM_TAKE(reinterpret_cast<Device*>(d)->compile(*g, *o)).release());
        return {};
      });
    };
    t.release_executable = [](AiVmmExecutable* e) { delete reinterpret_cast<Executable*>(e); };
    t.executable_info = [](AiVmmExecutable* e, AiVmmExecutableInfo* info, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        reinterpret_cast<Executable*>(e)->info(*info);
        return {};
      });
    };
    t.create_context = [](AiVmmExecutable* e, AiVmmContext** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        *out =
            reinterpret_cast<AiVmmContext*>(AI_VMM_TAKE(reinterpret_cast<Executable*>(e)->create_context()).release());
        return {};
      });
    };
    t.release_context = [](AiVmmContext* c) { delete reinterpret_cast<Context*>(c); };
    t.execute = [](AiVmmContext* c, const AiVmmTensor* const* in, uint32_t n, const AiVmmTensor* const* out, uint32_t m,
                   const AiVmmRun* run, AiVmmStatus* s) {
      return guarded(s, [&] { return reinterpret_cast<Context*>(c)->execute({in, n}, {out, m}, *run); });
    };
    return t;
  }();
  static const int32_t initialized = guarded(status, [&] { return backend.initialize(*host); });
  return initialized == 0 ? &table : nullptr;
}

}  // namespace ai_vmm::backend

#define AI_VMM_EXPORT_BACKEND(Backend)                                                                              \
  extern "C" __attribute__((visibility("default"))) const AiVmmBackend* ai_vmm_backend_entry(const AiVmmHost* host, \
                                                                                             AiVmmStatus* status) { \
    return ::ai_vmm::backend::entry<Backend>(host, status);                                                         \
  }
