// CUDA's driver interface and HIP have one shape: the same functions with the same arguments under two names. So have
// their compilers at run time, NVRTC and hiprtc. One row a function: signature, our name, CUDA's name, HIP's name;
// declared after NVIDIA's and AMD's reference manuals. Handles are pointers, addresses of device memory 64-bit
// integers.
#pragma once

#include <cstdint>

#include "base/library.hpp"
#include "gpu/dialect.hpp"

namespace ai_vmm::gpu {

using Handle = void*;
using Address = uint64_t;

struct DeviceApi : Library {
  explicit DeviceApi(Dialect d) : dialect(d) {}
  const Dialect dialect;

  // 0 or an error number; those that are used here are the same in CUDA and HIP.
  enum Error : int { kOutOfMemory = 2, kNoDevice = 100, kIllegalAddress = 700, kLaunchFailed = 719 };

#define ROW(signature, name, cuda_name, hip_name) \
  Symbol<signature> name { this, dialect == Dialect::cuda ? cuda_name : hip_name }
#define ROW_CUDA(signature, name, cuda_name) \
  Symbol<signature> name { this, cuda_name, dialect == Dialect::cuda ? required : optional }
#define ROW_HIP(signature, name, hip_name) \
  Symbol<signature> name { this, hip_name, dialect == Dialect::hip ? required : optional }
#define ROW_OPTIONAL(signature, name, cuda_name, hip_name) \
  Symbol<signature> name { this, dialect == Dialect::cuda ? cuda_name : hip_name, optional }

  // Devices
  ROW(int(unsigned flags), init, "cuInit", "hipInit");
  ROW(int(int* version), driver_version, "cuDriverGetVersion", "hipDriverGetVersion");
  ROW(int(int* count), device_count, "cuDeviceGetCount", "hipGetDeviceCount");
  ROW(int(int* device, int ordinal), device_get, "cuDeviceGet", "hipDeviceGet");
  ROW(int(char* name, int size, int device), device_name, "cuDeviceGetName", "hipDeviceGetName");
  ROW(int(char* text, int size, int device), device_pci, "cuDeviceGetPCIBusId", "hipDeviceGetPCIBusId");
  ROW(int(size_t* bytes, int device), device_memory, "cuDeviceTotalMem_v2", "hipDeviceTotalMem");
  ROW(int(int* value, int attribute, int device), device_attribute, "cuDeviceGetAttribute", "hipDeviceGetAttribute");
  // What calls of a thread act on: a context with CUDA, a device with HIP.
  ROW_CUDA(int(Handle* context, int device), context_retain, "cuDevicePrimaryCtxRetain");
  ROW_CUDA(int(Handle context), context_current, "cuCtxSetCurrent");
  ROW_HIP(int(int device), device_current, "hipSetDevice");

  // Streams and events
  ROW(int(Handle* stream, unsigned flags), stream_create, "cuStreamCreate", "hipStreamCreateWithFlags");
  ROW(int(Handle stream), stream_destroy, "cuStreamDestroy_v2", "hipStreamDestroy");
  ROW(int(Handle stream), stream_wait, "cuStreamSynchronize", "hipStreamSynchronize");
  ROW(int(Handle* event, unsigned flags), event_create, "cuEventCreate", "hipEventCreateWithFlags");
  ROW(int(Handle event), event_destroy, "cuEventDestroy_v2", "hipEventDestroy");
  ROW(int(Handle event, Handle stream), event_record, "cuEventRecord", "hipEventRecord");
  ROW(int(Handle event), event_wait, "cuEventSynchronize", "hipEventSynchronize");

  // Memory; the first two came with CUDA 11.2 and ROCm 5.1
  ROW_OPTIONAL(int(Address*, size_t bytes, Handle stream), allocate_async, "cuMemAllocAsync", "hipMallocAsync");
  ROW_OPTIONAL(int(Address, Handle stream), free_async, "cuMemFreeAsync", "hipFreeAsync");
  ROW_OPTIONAL(int(Handle* pool, int device), default_pool, "cuDeviceGetDefaultMemPool", "hipDeviceGetDefaultMemPool");
  ROW_OPTIONAL(int(Handle pool, int attribute, void* value), pool_set, "cuMemPoolSetAttribute",
               "hipMemPoolSetAttribute");
  ROW(int(Address*, size_t bytes), allocate, "cuMemAlloc_v2", "hipMalloc");
  ROW(int(Address), free, "cuMemFree_v2", "hipFree");
  ROW(int(void**, size_t bytes, unsigned flags), allocate_pinned, "cuMemHostAlloc", "hipHostMalloc");
  ROW(int(void*), free_pinned, "cuMemFreeHost", "hipHostFree");
  ROW(int(Address to, const void* from, size_t bytes, Handle stream), upload, "cuMemcpyHtoDAsync_v2",
      "hipMemcpyHtoDAsync");
  ROW(int(void* to, Address from, size_t bytes, Handle stream), download, "cuMemcpyDtoHAsync_v2", "hipMemcpyDtoHAsync");
  ROW(int(Address to, Address from, size_t bytes, Handle stream), copy, "cuMemcpyDtoDAsync_v2", "hipMemcpyDtoDAsync");

  // Kernels
  ROW(int(Handle* module, const void* image), module_load, "cuModuleLoadData", "hipModuleLoadData");
  ROW(int(Handle module), module_unload, "cuModuleUnload", "hipModuleUnload");
  ROW(int(Handle* function, Handle module, const char* name), module_function, "cuModuleGetFunction",
      "hipModuleGetFunction");
  ROW(int(Handle function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned group_x, unsigned group_y,
          unsigned group_z, unsigned shared_bytes, Handle stream, void** arguments, void** extra),
      launch, "cuLaunchKernel", "hipModuleLaunchKernel");

  // Graphs: work recorded once and started as one
  ROW_OPTIONAL(int(Handle stream, int mode), capture_begin, "cuStreamBeginCapture_v2", "hipStreamBeginCapture");
  ROW_OPTIONAL(int(Handle stream, Handle* graph), capture_end, "cuStreamEndCapture", "hipStreamEndCapture");
  ROW_OPTIONAL(int(Handle* executable, Handle graph, unsigned long long flags), graph_instantiate,
               "cuGraphInstantiateWithFlags", "hipGraphInstantiateWithFlags");
  ROW_OPTIONAL(int(Handle graph), graph_destroy, "cuGraphDestroy", "hipGraphDestroy");
  ROW_OPTIONAL(int(Handle executable, Handle stream), graph_launch, "cuGraphLaunch", "hipGraphLaunch");
  ROW_OPTIONAL(int(Handle executable), graph_free, "cuGraphExecDestroy", "hipGraphExecDestroy");

  ROW_CUDA(int(int error, const char** text), error_name_cuda, "cuGetErrorName");
  ROW_HIP(const char*(int error), error_name_hip, "hipGetErrorName");

  // Attribute numbers: cudaDeviceAttr and hipDeviceAttribute_t count differently.
  int attribute(int cuda, int hip, int device) const {
    int value = 0;
    return device_attribute(&value, dialect == Dialect::cuda ? cuda : hip, device) == 0 ? value : 0;
  }
  int max_group(int device) const { return attribute(1, 56, device); }
  int shared_bytes(int device) const { return attribute(8, 74, device); }
  int multiprocessors(int device) const { return attribute(16, 63, device); }
  std::string capability(int device) const {  // "90"; CUDA only
    return std::to_string(attribute(75, 0, device)) + std::to_string(attribute(76, 0, device));
  }
  static constexpr int kReleaseThreshold = 4;    // of a memory pool, in both
  static constexpr unsigned kNoTiming = 2;       // flag of an event, in both
  static constexpr unsigned kNonBlocking = 1;    // flag of a stream, in both
  static constexpr int kCaptureThreadLocal = 1;  // mode of capture, in both

  std::string error_text(int error) const {
    const char* text = nullptr;
    if (error_name_cuda) error_name_cuda(error, &text);
    if (error_name_hip) text = error_name_hip(error);
    return (text ? std::string(text) + ", " : "error ") + std::to_string(error);
  }
};

struct CompilerApi : Library {
  explicit CompilerApi(Dialect d) : dialect(d) {}
  const Dialect dialect;

  ROW(int(int* major, int* minor), version, "nvrtcVersion", "hiprtcVersion");
  ROW(int(Handle* program, const char* text, const char* name, int headers, const char* const* texts,
          const char* const* names),
      create, "nvrtcCreateProgram", "hiprtcCreateProgram");
  ROW(int(Handle* program), destroy, "nvrtcDestroyProgram", "hiprtcDestroyProgram");
  ROW(int(Handle program, int count, const char* const* options), compile, "nvrtcCompileProgram",
      "hiprtcCompileProgram");
  ROW(int(Handle program, size_t* bytes), log_size, "nvrtcGetProgramLogSize", "hiprtcGetProgramLogSize");
  ROW(int(Handle program, char* text), log, "nvrtcGetProgramLog", "hiprtcGetProgramLog");
  ROW(int(Handle program, size_t* bytes), code_size, "nvrtcGetCUBINSize", "hiprtcGetCodeSize");
  ROW(int(Handle program, char* code), code, "nvrtcGetCUBIN", "hiprtcGetCode");
  ROW(const char*(int error), error_text, "nvrtcGetErrorString", "hiprtcGetErrorString");
#undef ROW
#undef ROW_CUDA
#undef ROW_HIP
#undef ROW_OPTIONAL
};

}  // namespace ai_vmm::gpu
