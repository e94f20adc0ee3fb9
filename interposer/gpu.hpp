#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel_compiler.hpp"

// What compressed collectives need of CUDA's driver or HIP's runtime, whichever the program has loaded. The functions
// of both have the same parameters here; all return 0 for success. They are the real ones: nothing of it is pooled.
namespace AIRamp::Interposer {

// field, signature, CUDA's name, HIP's name
#define AIRAMP_GPU_FUNCTIONS(X)                                                                                      \
  X(allocate, int(void**, std::size_t), "cuMemAlloc_v2", "hipMalloc")                                                \
  X(free, int(void*), "cuMemFree_v2", "hipFree")                                                                     \
  X(allocate_host, int(void**, std::size_t), "cuMemAllocHost_v2", "hipMemAllocHost")                                 \
  X(copy_to_device, int(void*, const void*, std::size_t, void*), "cuMemcpyHtoDAsync_v2", "hipMemcpyHtoDAsync")       \
  X(copy_to_host, int(void*, const void*, std::size_t, void*), "cuMemcpyDtoHAsync_v2", "hipMemcpyDtoHAsync")         \
  X(copy_on_device, int(void*, const void*, std::size_t, void*), "cuMemcpyDtoDAsync_v2", "hipMemcpyDtoDAsync")       \
  X(load_module, int(void**, const void*), "cuModuleLoadData", "hipModuleLoadData")                                  \
  X(find_kernel, int(void**, void*, const char*), "cuModuleGetFunction", "hipModuleGetFunction")                     \
  X(launch, int(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**), \
    "cuLaunchKernel", "hipModuleLaunchKernel")                                                                       \
  X(call_back, int(void*, void (*)(void*, int, void*), void*, unsigned), "cuStreamAddCallback",                      \
    "hipStreamAddCallback")                                                                                          \
  X(create_stream, int(void**, unsigned), "cuStreamCreate", "hipStreamCreateWithFlags")                              \
  X(synchronise_stream, int(void*), "cuStreamSynchronize", "hipStreamSynchronize")                                   \
  X(destroy_stream, int(void*), "cuStreamDestroy_v2", "hipStreamDestroy")                                            \
  X(is_capturing, int(void*, int*), "cuStreamIsCapturing", "hipStreamIsCapturing")                                   \
  X(create_event, int(void**, unsigned), "cuEventCreate", "hipEventCreateWithFlags")                                 \
  X(record_event, int(void*, void*), "cuEventRecord", "hipEventRecord")                                              \
  X(wait_for_event, int(void*, void*, unsigned), "cuStreamWaitEvent", "hipStreamWaitEvent")                          \
  X(synchronise_event, int(void*), "cuEventSynchronize", "hipEventSynchronize")                                      \
  X(destroy_event, int(void*), "cuEventDestroy_v2", "hipEventDestroy")

constexpr unsigned kNonBlockingStream = 1, kEventWithoutTiming = 2;  // the same numbers in both

class Gpu {
 public:
  static constexpr int kMostDevices = 64;

  // Ask `why_not` before anything else of it.
  static const Gpu& of(Vendor vendor);

  const char* why_not = nullptr;  // why it cannot be used
  template <class F>
  using Function = F*;
#define X(name, signature, cuda, hip) Function<signature> name = nullptr;
  AIRAMP_GPU_FUNCTIONS(X)
#undef X

  // The device that this thread works on; -1 if there is none yet.
  int current() const;
  // Whether this thread works in the context that all who use CUDA's runtime share, and not in one that the program
  // made: streams of one are strange to the other.
  bool is_shared(int device) const;
  // Makes a device this thread's; `before` is what restore() needs.
  bool select(int device, std::uintptr_t* before) const;
  void restore(std::uintptr_t before) const;
  // Such as sm_90 or gfx90a.
  bool architecture(int device, char* text, std::size_t room) const;

 private:
  explicit Gpu(Vendor vendor);

  Vendor vendor_;
};

// This thread works on a device as long as the object lives.
class OnDevice {
 public:
  OnDevice(const Gpu& gpu, int device) : gpu_(gpu), there_(gpu.select(device, &before_)) {}
  ~OnDevice() {
    if (there_) gpu_.restore(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  explicit operator bool() const { return there_; }

 private:
  const Gpu& gpu_;
  std::uintptr_t before_ = 0;
  bool there_;
};

}  // namespace AIRamp::Interposer
