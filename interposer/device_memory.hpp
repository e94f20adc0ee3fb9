#pragma once

#include "device_pool.hpp"

// What happens to the calls of CUDA's driver and HIP's runtime that concern memory. Handlers get the real function
// first.
namespace AIRamp::Interposer {

extern DevicePool cuda_pool;
extern DevicePool hip_pool;

// A wrapper in place of what the driver answered, if that is a function that we hook; compared by address, so that
// another version of it, which may take other arguments, is never taken for it.
void* wrapped(void* function);

template <class F, class... Status>
int on_get_proc_address(F* function, const char* name, void** function_out, int version, std::uint64_t flags,
                        Status... status) {
  int code = function(name, function_out, version, flags, status...);
  if (code == 0 && function_out && *function_out) *function_out = wrapped(*function_out);
  return code;
}

inline int on_cuda_allocate(cuMemAlloc_v2_t* function, Handle* address, size_t size) {
  return cuda_pool.allocate(size, address, [&] { return function(address, size); });
}
inline int on_cuda_free(cuMemFree_v2_t* function, Handle address) {
  return cuda_pool.free(address, [&] { return function(address); });
}
inline int on_cuda_memory_info(cuMemGetInfo_v2_t* function, size_t* free, size_t* total) {
  return cuda_pool.memory_info(free, total, [&] { return function(free, total); });
}
inline int on_cuda_share(cuIpcGetMemHandle_t* function, void* handle, Handle address) {
  cuda_pool.exclude(address);
  return function(handle, address);
}
int on_cuda_synchronise(cuCtxSynchronize_t* function);
template <class F, class What>
int on_cuda_destroy(F* function, What what) {
  cuda_pool.trim_all();
  return function(what);
}
template <class F, class... Arguments>
int on_cuda_begin_capture(F* function, Arguments... arguments) {
  cuda_pool.begin_capture();
  int code = function(arguments...);
  if (code != 0) cuda_pool.end_capture();
  return code;
}
template <class F>
int on_cuda_end_capture(F* function, void* stream, void** graph) {
  int code = function(stream, graph);
  cuda_pool.end_capture();
  return code;
}

inline int on_hip_allocate(hipMalloc_t* function, void** address, size_t size) {
  return hip_pool.allocate(size, reinterpret_cast<std::uintptr_t*>(address), [&] { return function(address, size); });
}
inline int on_hip_free(hipFree_t* function, void* address) {
  return hip_pool.free(reinterpret_cast<std::uintptr_t>(address), [&] { return function(address); });
}
inline int on_hip_memory_info(hipMemGetInfo_t* function, size_t* free, size_t* total) {
  return hip_pool.memory_info(free, total, [&] { return function(free, total); });
}
inline int on_hip_share(hipIpcGetMemHandle_t* function, void* handle, void* address) {
  hip_pool.exclude(reinterpret_cast<std::uintptr_t>(address));
  return function(handle, address);
}
int on_hip_synchronise(hipDeviceSynchronize_t* function);
inline int on_hip_reset(hipDeviceReset_t* function) {
  hip_pool.trim_all();
  return function();
}
template <class F>
int on_hip_begin_capture(F* function, void* stream, int mode) {
  hip_pool.begin_capture();
  int code = function(stream, mode);
  if (code != 0) hip_pool.end_capture();
  return code;
}
template <class F>
int on_hip_end_capture(F* function, void* stream, void** graph) {
  int code = function(stream, graph);
  hip_pool.end_capture();
  return code;
}

}  // namespace AIRamp::Interposer
