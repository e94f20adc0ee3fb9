#pragma once

#define CL_TARGET_OPENCL_VERSION 200
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

// Types, numbers and slots of the calls of calls.def.
namespace AIRamp::Interposer {

using Handle = std::uintptr_t;
using Count = std::int64_t;
constexpr int kMpiErrOther = 16;
constexpr cl_int kClMissing = -1001;  // CL_PLATFORM_NOT_FOUND_KHR

constexpr int kCudaMissing = 3;  // CUDA_ERROR_NOT_INITIALIZED
constexpr int kHipMissing = 3;   // hipErrorNotInitialized

// NCCL's and RCCL's.
struct NcclId {
  char internal[128];
};
using NcclComm = void*;
constexpr int kNcclMissing = 5;  // ncclInvalidUsage

enum Api { kMpi, kOpenCl, kCuda, kHip, kNccl, kGloo, kApiCount };
constexpr const char* kApiNames[kApiCount] = {"mpi", "opencl", "cuda", "hip", "nccl", "gloo"};

#define CALL(api, result, name, parameters, arguments, missing, handler) using name##_t = result parameters;
#include "calls.def"

enum class Call : unsigned {
#define CALL(api, result, name, parameters, arguments, missing, handler) name,
#include "calls.def"
  kCount
};
constexpr unsigned kCallCount = static_cast<unsigned>(Call::kCount);

constexpr const char* kCallNames[] = {
#define CALL(api, result, name, parameters, arguments, missing, handler) #name,
#include "calls.def"
};
constexpr Api kCallApis[] = {
#define CALL(api, result, name, parameters, arguments, missing, handler) api,
#include "calls.def"
};

// What a call is named in reports.
constexpr const char* title_of(Call call) {
  if (kCallApis[static_cast<unsigned>(call)] != kGloo) return kCallNames[static_cast<unsigned>(call)];
  return call == Call::_ZN4gloo9allreduceERKNS_16AllreduceOptionsE ? "gloo::allreduce"
         : call ==
                 Call::_ZN4gloo10rendezvous7Context15connectFullMeshERNS0_5StoreERSt10shared_ptrINS_9transport6DeviceEE
             ? "gloo::connectFullMesh"
             : "gloo::connectFullMesh, shared";
}

// The row of a call in reports: a function and its twin of MPI's profiling interface, which stands after it, share one.
constexpr unsigned row_of(Call call) {
  unsigned i = static_cast<unsigned>(call);
  const char* name = kCallNames[i];
  return name[0] == 'P' && name[1] == 'M' && name[2] == 'P' && name[3] == 'I' ? i - 1 : i;
}

// Calls that are handled although an MPI library makes them, inside a call of the program's.
constexpr bool handled_inside(Call call) { return call == Call::PMIx_Commit; }

// The real functions, by call; null until first needed. Written once, by whoever finds the function first.
extern std::atomic<void*> real_functions[kCallCount];

// Where the libraries' code lies that they are in: what these call themselves is not the program's call.
struct Range {
  std::uintptr_t begin, size;
};
extern Range real_ranges[kCallCount];

inline bool calls_itself(Call call, const void* return_address) {
  const Range& r = real_ranges[static_cast<unsigned>(call)];
  return reinterpret_cast<std::uintptr_t>(return_address) - r.begin < r.size;
}

// Notes the real function and the door, if none is noted; whether it is that one now.
bool set_real(Call call, void* function, const char* door);

// Finds the real function and notes it; nullptr, said once, if no library defines it.
void* bind(Call call);

inline void* real(Call call) {
  void* function = real_functions[static_cast<unsigned>(call)].load(std::memory_order_relaxed);
  return function ? function : bind(call);
}

// Notes the door through which a call was first caught.
void note_door(Call call, const char* door);

// The call of that name, or kCount.
Call call_named(const char* name);

// Our own function of that call.
void* wrapper_of(Call call);

// Says whether the address is inside this library.
bool is_ours(const void* address);

}  // namespace AIRamp::Interposer
