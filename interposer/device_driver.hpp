#pragma once

#include "library.hpp"

namespace AIRamp::Interposer {

// What CUDA's driver and HIP's runtime do alike: the real functions. All that return int return 0 for success.
struct DeviceDriver {
  enum class Place { kPageable, kDevice, kOther };  // kOther: pinned, managed, or unknown to us

  Call allocate_call, free_call;
  int out_of_memory, invalid_value, not_ready;  // codes of that driver
  // Whether its documentation says that freeing memory waits for the device.
  bool free_waits;
  bool (*complete)();  // whether the loaded library has all of these
  // Names the device, or context, that this thread works on; 0: there is none.
  std::uintptr_t (*here)();

  int (*allocate)(std::uintptr_t* address, std::size_t size);
  int (*free)(std::uintptr_t address);
  int (*synchronise)();
  int (*memory_info)(std::size_t* free, std::size_t* total);

  int (*make_event)(void** event);
  int (*drop_event)(void* event);
  int (*record)(void* event, void* stream);
  int (*query)(void* event);  // not_ready: what stood before it has not ended
  int (*wait)(void* event);

  int (*pin)(void** memory, std::size_t size);
  int (*unpin)(void* memory);
  // From and to pinned memory, in the order of the stream.
  int (*to_device)(std::uintptr_t to, const void* from, std::size_t size, void* stream);
  int (*to_host)(void* to, std::uintptr_t from, std::size_t size, void* stream);
  Place (*place_of)(std::uintptr_t address);
  // The allocation of device memory that holds the address; false: none does.
  bool (*allocation_of)(std::uintptr_t address, std::uintptr_t* base, std::size_t* size);
  // After a call that failed and is no matter of the program's: HIP would tell it when it asks for the last error. What
  // is asked of the driver here besides does so by itself.
  void (*forget_error)();
};

extern const DeviceDriver cuda_driver;
extern const DeviceDriver hip_driver;

// Streams that both interfaces name by number: the one that waits for all others and that all others wait for, save
// those made not to, and the one that each thread has for itself.
inline void* const kLegacyStream = nullptr;
inline void* const kThreadStream = reinterpret_cast<void*>(2);

}  // namespace AIRamp::Interposer
