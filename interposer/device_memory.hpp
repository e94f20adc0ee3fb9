#pragma once

#include <type_traits>

#include "device_pool.hpp"
#include "pinned_copy.hpp"

// What happens to the calls of CUDA's driver and HIP's runtime that concern memory. Handlers get the real function
// first.
namespace AIRamp::Interposer {

extern DevicePool cuda_pool;
extern DevicePool hip_pool;
extern PinnedCopy cuda_copy;
extern PinnedCopy hip_copy;

// A wrapper in place of what the driver answered when it was asked for `name`, if that is a function that we hook;
// compared by address, so that another version of it, which may take other arguments, is never taken for it.
void* wrapped(const char* name, void* function);

template <class F, class... Status>
int on_get_proc_address(F* function, const char* name, void** function_out, int version, std::uint64_t flags,
                        Status... status) {
  int code = function(name, function_out, version, flags, status...);
  if (code == 0 && name && function_out && *function_out) *function_out = wrapped(name, *function_out);
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
template <class F, class... Rest>
int on_cuda_export(F* function, void* handle, Handle address, Rest... rest) {
  cuda_pool.exclude(address);
  return function(handle, address, rest...);
}
int on_cuda_synchronise(cuCtxSynchronize_t* function);

// A context is named, a device's own one is not.
template <class F, class What>
int on_cuda_destroy(F* function, What what) {
  std::uintptr_t context = 0;
  if constexpr (std::is_pointer_v<What>) context = reinterpret_cast<std::uintptr_t>(what);
  if (options.pool) cuda_pool.forget_device(context);
  cuda_copy.forget_device(context);
  return function(what);
}

template <class F, class... Rest>
int on_cuda_make_stream(F* function, void** stream, Rest... rest) {
  int code = function(stream, rest...);
  if (code == 0 && stream && options.pool) cuda_pool.add_stream(*stream);
  return code;
}
template <class F>
int on_cuda_destroy_stream(F* function, void* stream) {
  if (options.pool && stream) cuda_pool.remove_stream(stream);
  return function(stream);
}
// Streams of a kind of their own, or of other devices, may use blocks from now on.
template <class F, class... Arguments>
int on_cuda_doubt(F* function, Arguments... arguments) {
  if (options.pool) cuda_pool.doubt_streams();
  return function(arguments...);
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

inline std::uintptr_t address_of(Handle address) { return address; }
inline std::uintptr_t address_of(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

// Which side is the host's says the type of the argument.
template <class To, class From>
constexpr PinnedCopy::Way way_between() {
  return std::is_pointer_v<From> ? PinnedCopy::Way::kToDevice
         : std::is_pointer_v<To> ? PinnedCopy::Way::kToHost
                                 : PinnedCopy::Way::kEither;
}

// The variants whose default stream is the thread's own.
constexpr bool is_of_thread(Call call) {
  const char* name = kCallNames[static_cast<unsigned>(call)];
  std::size_t end = 0;
  while (name[end]) end++;
  // _ptds, _ptsz, _spt
  return (name[end - 4] == 'p' && name[end - 3] == 't') || (name[end - 2] == 'p' && name[end - 1] == 't');
}
template <Call call>
void* stream_named(void* stream) {
  return is_of_thread(call) && stream == kLegacyStream ? kThreadStream : stream;
}

template <Call call, class F, class To, class From>
int on_cuda_copy(F* function, To to, From from, size_t size) {
  return cuda_copy.copy(call, way_between<To, From>(), address_of(to), address_of(from), size,
                        stream_named<call>(kLegacyStream), true, [&] { return function(to, from, size); });
}
template <Call call, class F, class To, class From>
int on_cuda_copy_async(F* function, To to, From from, size_t size, void* stream) {
  return cuda_copy.copy(call, way_between<To, From>(), address_of(to), address_of(from), size,
                        stream_named<call>(stream), false, [&] { return function(to, from, size, stream); });
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
int on_hip_reset(hipDeviceReset_t* function);

template <class F, class... Rest>
int on_hip_make_stream(F* function, void** stream, Rest... rest) {
  int code = function(stream, rest...);
  if (code == 0 && stream && options.pool) hip_pool.add_stream(*stream);
  return code;
}
inline int on_hip_destroy_stream(hipStreamDestroy_t* function, void* stream) {
  if (options.pool && stream) hip_pool.remove_stream(stream);
  return function(stream);
}
inline int on_hip_doubt(hipDeviceEnablePeerAccess_t* function, int device, unsigned flags) {
  if (options.pool) hip_pool.doubt_streams();
  return function(device, flags);
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

// hipMemcpyKind: 1 to a device, 2 to the host, 4 as the addresses say.
template <class Real>
int hip_copied(Call call, void* to, const void* from, size_t size, int kind, void* stream, bool blocking, Real&& real) {
  if (kind != 1 && kind != 2 && kind != 4) return real();
  PinnedCopy::Way way = kind == 1   ? PinnedCopy::Way::kToDevice
                        : kind == 2 ? PinnedCopy::Way::kToHost
                                    : PinnedCopy::Way::kEither;
  return hip_copy.copy(call, way, address_of(to), address_of(from), size, stream, blocking, real);
}
template <Call call, class F>
int on_hip_copy(F* function, void* to, const void* from, size_t size, int kind) {
  return hip_copied(call, to, from, size, kind, stream_named<call>(kLegacyStream), true,
                    [&] { return function(to, from, size, kind); });
}
// hipMemcpyWithStream waits for its stream.
template <Call call, class F>
int on_hip_copy_with_stream(F* function, void* to, const void* from, size_t size, int kind, void* stream) {
  return hip_copied(call, to, from, size, kind, stream_named<call>(stream), call == Call::hipMemcpyWithStream,
                    [&] { return function(to, from, size, kind, stream); });
}
// The direction is in the name.
constexpr int kind_of(Call call) { return call == Call::hipMemcpyHtoD || call == Call::hipMemcpyHtoDAsync ? 1 : 2; }
template <Call call, class F>
int on_hip_copy_one_way(F* function, void* to, void* from, size_t size) {
  return hip_copied(call, to, from, size, kind_of(call), kLegacyStream, true, [&] { return function(to, from, size); });
}
template <Call call, class F>
int on_hip_copy_one_way_async(F* function, void* to, void* from, size_t size, void* stream) {
  return hip_copied(call, to, from, size, kind_of(call), stream, false,
                    [&] { return function(to, from, size, stream); });
}

}  // namespace AIRamp::Interposer
