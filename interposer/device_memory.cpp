#include "device_memory.hpp"

#include "elf.hpp"

namespace AIRamp::Interposer {
namespace {

template <class F>
F* real_of(Call call) {
  return reinterpret_cast<F*>(real(call));
}

// Functions that are not hooked.
template <class F>
F* other(std::atomic<void*>* slot, const char* name) {
  void* found = slot->load(std::memory_order_relaxed);
  if (!found) {
    found = elf::find(name);
    slot->store(found, std::memory_order_relaxed);
  }
  return reinterpret_cast<F*>(found);
}

std::uintptr_t cuda_here() {
  static std::atomic<void*> slot;
  std::uintptr_t context = 0;
  auto* current = other<int(std::uintptr_t*)>(&slot, "cuCtxGetCurrent");
  return current && current(&context) == 0 ? context : 0;
}

// Devices count from 0.
std::uintptr_t hip_here() {
  static std::atomic<void*> slot;
  int device = -1;
  auto* current = other<int(int*)>(&slot, "hipGetDevice");
  return current && current(&device) == 0 ? static_cast<std::uintptr_t>(device) + 1 : 0;
}

}  // namespace

// CUDA_ERROR_OUT_OF_MEMORY and hipErrorOutOfMemory are 2, CUDA_ERROR_INVALID_VALUE and hipErrorInvalidValue 1.
constinit DevicePool cuda_pool({
    .allocate_call = Call::cuMemAlloc_v2,
    .free_call = Call::cuMemFree_v2,
    .out_of_memory = 2,
    .invalid_value = 1,
    .allocate = [](std::uintptr_t* address,
                   std::size_t size) { return real_of<cuMemAlloc_v2_t>(Call::cuMemAlloc_v2)(address, size); },
    .free = [](std::uintptr_t address) { return real_of<cuMemFree_v2_t>(Call::cuMemFree_v2)(address); },
    .synchronise = [] { return real_of<cuCtxSynchronize_t>(Call::cuCtxSynchronize)(); },
    .memory_info = [](std::size_t* free,
                      std::size_t* total) { return real_of<cuMemGetInfo_v2_t>(Call::cuMemGetInfo_v2)(free, total); },
    .complete =
        [] {
          return real(Call::cuMemAlloc_v2) && real(Call::cuMemFree_v2) && real(Call::cuCtxSynchronize) &&
                 real(Call::cuMemGetInfo_v2);
        },
    .here = cuda_here,
});

constinit DevicePool hip_pool({
    .allocate_call = Call::hipMalloc,
    .free_call = Call::hipFree,
    .out_of_memory = 2,
    .invalid_value = 1,
    .allocate =
        [](std::uintptr_t* address, std::size_t size) {
          return real_of<hipMalloc_t>(Call::hipMalloc)(reinterpret_cast<void**>(address), size);
        },
    .free = [](std::uintptr_t address) { return real_of<hipFree_t>(Call::hipFree)(reinterpret_cast<void*>(address)); },
    .synchronise = [] { return real_of<hipDeviceSynchronize_t>(Call::hipDeviceSynchronize)(); },
    .memory_info = [](std::size_t* free,
                      std::size_t* total) { return real_of<hipMemGetInfo_t>(Call::hipMemGetInfo)(free, total); },
    .complete =
        [] {
          return real(Call::hipMalloc) && real(Call::hipFree) && real(Call::hipDeviceSynchronize) &&
                 real(Call::hipMemGetInfo);
        },
    .here = hip_here,
});

void* wrapped(void* function) {
  for (unsigned i = 0; i < kCallCount; i++) {
    if (kCallApis[i] != kCuda) continue;
    void* ours = real_functions[i].load(std::memory_order_relaxed);
    if (!ours) ours = elf::find(kCallNames[i]);
    if (ours != function) continue;
    set_real(static_cast<Call>(i), function, "procaddress");
    return wrapper_of(static_cast<Call>(i));
  }
  return function;
}

int on_cuda_synchronise(cuCtxSynchronize_t* function) {
  if (options.pool) cuda_pool.prewarm();
  std::uint64_t since = cuda_pool.epoch();
  int code = function();
  if (code == 0 && options.pool) cuda_pool.synchronised(cuda_here(), since);
  return code;
}

int on_hip_synchronise(hipDeviceSynchronize_t* function) {
  if (options.pool) hip_pool.prewarm();
  std::uint64_t since = hip_pool.epoch();
  int code = function();
  if (code == 0 && options.pool) hip_pool.synchronised(hip_here(), since);
  return code;
}

}  // namespace AIRamp::Interposer
