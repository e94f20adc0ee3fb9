#include <string.h>

#include "device_memory.hpp"
#include "gloo.hpp"
#include "library.hpp"
#include "mpi.hpp"
#include "nccl.hpp"
#include "opencl.hpp"

#define AIRAMP_EXPORT __attribute__((visibility("default")))

namespace AIRamp::Interposer {
namespace {

// The handler of calls that are only counted.
[[maybe_unused]] constexpr auto observe = [](auto* function, auto... arguments) { return function(arguments...); };

}  // namespace
}  // namespace AIRamp::Interposer

// The wrappers: each hands the outermost call of a thread to its handler, and every other one to the real function. An
// OpenCL loader that has us as a layer calls the layer's wrappers; then those that the program calls stand aside.
using namespace AIRamp::Interposer;  // for the types in the parameters
extern "C" {
#define CALL(api, result, name, parameters, arguments, missing, handler)                                  \
  AIRAMP_EXPORT result name parameters {                                                                  \
    auto* function = reinterpret_cast<name##_t*>(real(Call::name));                                       \
    if (!function) return missing;                                                                        \
    if (api == kOpenCl && is_opencl_layer()) return function arguments;                                   \
    /* PyTorch carries Gloo in the library that calls it. */                                              \
    if (api != kGloo && calls_itself(Call::name, __builtin_return_address(0))) return function arguments; \
    HookedCall hooked(Call::name);                                                                        \
    if (!hooked.handles(Call::name)) return function arguments;                                           \
    return ([&](auto... values) { return handler(function, values...); } arguments);                      \
  }
#include "calls.def"
}

namespace AIRamp::Interposer {
namespace {

namespace layer {
#define CALL(api, result, name, parameters, arguments, missing, handler)
#define OPENCL(result, name, parameters, arguments, missing, handler)                \
  result CL_API_CALL name parameters {                                               \
    auto* function = next_layer()->name;                                             \
    HookedCall hooked(Call::name);                                                   \
    if (!hooked.handles(Call::name)) return function arguments;                      \
    return ([&](auto... values) { return handler(function, values...); } arguments); \
  }
#include "calls.def"
}  // namespace layer

}  // namespace

void hook_layer(cl_icd_dispatch* table) {
#define CALL(api, result, name, parameters, arguments, missing, handler)
#define OPENCL(result, name, parameters, arguments, missing, handler) \
  if (table->name) {                                                  \
    table->name = layer::name;                                        \
    note_door(Call::name, "layer");                                   \
  }
#include "calls.def"
}

}  // namespace AIRamp::Interposer

namespace AIRamp::Interposer {
namespace {

void* const kWrappers[] = {
#define CALL(api, result, name, parameters, arguments, missing, handler) reinterpret_cast<void*>(&::name),
#include "calls.def"
};

// FNV-1a.
constexpr std::uint32_t hash_of(const char* name) {
  std::uint32_t h = 2166136261u;
  for (; *name; name++) h = (h ^ static_cast<unsigned char>(*name)) * 16777619u;
  return h;
}

// Open addressing over the names, a quarter full, made by the compiler.
struct Names {
  static constexpr unsigned kSize = 512;
  static_assert(kCallCount * 2 < kSize);
  std::uint16_t at[kSize] = {};  // call + 1

  constexpr Names() {
    for (unsigned i = 0; i < kCallCount; i++) {
      unsigned slot = hash_of(kCallNames[i]) % kSize;
      while (at[slot]) slot = (slot + 1) % kSize;
      at[slot] = static_cast<std::uint16_t>(i + 1);
    }
  }
};
constexpr Names kNames;

}  // namespace

Call call_named(const char* name) {
  for (unsigned slot = hash_of(name) % Names::kSize; kNames.at[slot]; slot = (slot + 1) % Names::kSize)
    if (strcmp(kCallNames[kNames.at[slot] - 1], name) == 0) return static_cast<Call>(kNames.at[slot] - 1);
  return Call::kCount;
}

void* wrapper_of(Call call) { return kWrappers[static_cast<unsigned>(call)]; }

}  // namespace AIRamp::Interposer
