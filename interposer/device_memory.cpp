#include "device_memory.hpp"

#include <string.h>

#include "elf.hpp"

namespace AIRamp::Interposer {

constinit DevicePool cuda_pool(cuda_driver);
constinit DevicePool hip_pool(hip_driver);
constinit PinnedCopy cuda_copy(cuda_driver, cuda_pool);
constinit PinnedCopy hip_copy(hip_driver, hip_pool);

void* wrapped(const char* name, void* function) {
  std::size_t length = strlen(name);
  for (unsigned i = 0; i < kCallCount; i++) {
    // Programs ask for a function without the suffix of its version or variant.
    if (kCallApis[i] != kCuda || strncmp(kCallNames[i], name, length) != 0) continue;
    void* real_one = real_functions[i].load(std::memory_order_relaxed);
    if (!real_one) real_one = elf::find(kCallNames[i]);
    if (real_one != function) continue;
    set_real(static_cast<Call>(i), function, "procaddress");
    return wrapper_of(static_cast<Call>(i));
  }
  return function;
}

int on_cuda_synchronise(cuCtxSynchronize_t* function) {
  if (options.pin) cuda_copy.trim_old();
  if (!options.pool) return function();
  cuda_pool.prewarm();
  std::uint64_t before = cuda_pool.before_synchronise();
  int code = function();
  if (code == 0) cuda_pool.after_synchronise(before);
  return code;
}

int on_hip_synchronise(hipDeviceSynchronize_t* function) {
  if (options.pin) hip_copy.trim_old();
  if (!options.pool) return function();
  hip_pool.prewarm();
  std::uint64_t before = hip_pool.before_synchronise();
  int code = function();
  if (code == 0) hip_pool.after_synchronise(before);
  return code;
}

int on_hip_reset(hipDeviceReset_t* function) {
  std::uintptr_t device = hip_driver.here();
  if (options.pool) hip_pool.forget_device(device);
  hip_copy.forget_device(device);
  return function();
}

}  // namespace AIRamp::Interposer
