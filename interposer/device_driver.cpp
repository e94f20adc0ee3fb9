#include "device_driver.hpp"

#include "elf.hpp"

namespace AIRamp::Interposer {
namespace {

// A hooked function's real one.
template <Call call, class F, class... Arguments>
int hooked(Arguments... arguments) {
  auto* function = reinterpret_cast<F*>(real(call));
  return function ? function(arguments...) : -1;
}

// A function that is not hooked. -1: no loaded library has it.
template <class F>
F* other(std::atomic<void*>* slot, const char* name) {
  void* found = slot->load(std::memory_order_relaxed);
  if (!found) {
    found = elf::find(name);
    slot->store(found, std::memory_order_relaxed);
  }
  return reinterpret_cast<F*>(found);
}
#define OTHER(signature, name, ...)                 \
  [&] {                                             \
    static std::atomic<void*> slot;                 \
    auto* function = other<signature>(&slot, name); \
    return function ? function(__VA_ARGS__) : -1;   \
  }()

bool has(std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (!elf::find(name)) return false;
  return true;
}

constexpr unsigned kNoTiming = 2;  // CU_EVENT_DISABLE_TIMING, hipEventDisableTiming

// HIP remembers a call's failure until the program asks for the last error. A call of ours that fails leaves no trace.
// Those that fail in the ordinary course of things are not made while the program has an error to hear of, unless all
// that it could hear is that something was not ready: theirs would take its place.
template <class Ask>
int quietly(Ask&& ask) {
  int pending = OTHER(int(), "hipPeekAtLastError"), code = ask();
  if (code != 0 && pending == 0) OTHER(int(), "hipGetLastError");
  return code;
}
template <class Ask>
int quietly_or(int otherwise, Ask&& ask) {
  constexpr int kNotReady = 600;
  int pending = OTHER(int(), "hipPeekAtLastError");
  if (pending != 0 && pending != kNotReady) return otherwise;
  int code = ask();
  if (code != 0) OTHER(int(), "hipGetLastError");
  return code;
}

}  // namespace

// Codes, attributes and flags are those of cuda.h. CUDA_ERROR_OUT_OF_MEMORY is 2, CUDA_ERROR_INVALID_VALUE 1.
const DeviceDriver cuda_driver = {
    .allocate_call = Call::cuMemAlloc_v2,
    .free_call = Call::cuMemFree_v2,
    .out_of_memory = 2,
    .invalid_value = 1,
    .not_ready = 600,
    .free_waits = false,
    .complete =
        [] {
          return has({"cuMemAlloc_v2", "cuMemFree_v2", "cuCtxSynchronize", "cuMemGetInfo_v2", "cuEventCreate",
                      "cuEventRecord", "cuEventQuery", "cuEventSynchronize", "cuEventDestroy_v2", "cuMemHostAlloc",
                      "cuMemFreeHost", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuPointerGetAttribute",
                      "cuMemGetAddressRange_v2", "cuCtxGetCurrent"});
        },
    .here =
        [] {
          std::uintptr_t context = 0;
          return OTHER(int(std::uintptr_t*), "cuCtxGetCurrent", &context) == 0 ? context : 0;
        },
    .allocate = hooked<Call::cuMemAlloc_v2, cuMemAlloc_v2_t, std::uintptr_t*, std::size_t>,
    .free = hooked<Call::cuMemFree_v2, cuMemFree_v2_t, std::uintptr_t>,
    .synchronise = hooked<Call::cuCtxSynchronize, cuCtxSynchronize_t>,
    .memory_info = hooked<Call::cuMemGetInfo_v2, cuMemGetInfo_v2_t, std::size_t*, std::size_t*>,
    .make_event = [](void** event) { return OTHER(int(void**, unsigned), "cuEventCreate", event, kNoTiming); },
    .drop_event = [](void* event) { return OTHER(int(void*), "cuEventDestroy_v2", event); },
    .record = [](void* event, void* stream) { return OTHER(int(void*, void*), "cuEventRecord", event, stream); },
    .query = [](void* event) { return OTHER(int(void*), "cuEventQuery", event); },
    .wait = [](void* event) { return OTHER(int(void*), "cuEventSynchronize", event); },
    .pin =
        [](void** memory, std::size_t size) {
          constexpr unsigned kPortable = 1;
          return OTHER(int(void**, std::size_t, unsigned), "cuMemHostAlloc", memory, size, kPortable);
        },
    .unpin = [](void* memory) { return OTHER(int(void*), "cuMemFreeHost", memory); },
    .to_device =
        hooked<Call::cuMemcpyHtoDAsync_v2, cuMemcpyHtoDAsync_v2_t, std::uintptr_t, const void*, std::size_t, void*>,
    .to_host = hooked<Call::cuMemcpyDtoHAsync_v2, cuMemcpyDtoHAsync_v2_t, void*, std::uintptr_t, std::size_t, void*>,
    .place_of =
        [](std::uintptr_t address) {
          // Memory that the driver does not know is no device's and not pinned: it says that the address is invalid.
          constexpr int kMemoryType = 2, kIsManaged = 8, kDevice = 2;
          unsigned type = 0, managed = 0;
          int e = OTHER(int(void*, int, std::uintptr_t), "cuPointerGetAttribute", &type, kMemoryType, address);
          if (e == 1) return DeviceDriver::Place::kPageable;
          if (e != 0 || type != kDevice) return DeviceDriver::Place::kOther;
          e = OTHER(int(void*, int, std::uintptr_t), "cuPointerGetAttribute", &managed, kIsManaged, address);
          return e == 0 && !managed ? DeviceDriver::Place::kDevice : DeviceDriver::Place::kOther;
        },
    .allocation_of =
        [](std::uintptr_t address, std::uintptr_t* base, std::size_t* size) {
          return OTHER(int(std::uintptr_t*, std::size_t*, std::uintptr_t), "cuMemGetAddressRange_v2", base, size,
                       address) == 0;
        },
    .forget_error = [] {},
};

// Codes and flags are those of hip_runtime_api.h. hipErrorOutOfMemory is 2, hipErrorInvalidValue 1.
const DeviceDriver hip_driver = {
    .allocate_call = Call::hipMalloc,
    .free_call = Call::hipFree,
    .out_of_memory = 2,
    .invalid_value = 1,
    .not_ready = 600,
    .free_waits = true,
    .complete =
        [] {
          return has({"hipMalloc", "hipFree", "hipDeviceSynchronize", "hipMemGetInfo", "hipEventCreateWithFlags",
                      "hipEventRecord", "hipEventQuery", "hipEventSynchronize", "hipEventDestroy", "hipHostMalloc",
                      "hipHostFree", "hipMemcpyAsync", "hipPointerGetAttributes", "hipMemGetAddressRange",
                      "hipGetDevice", "hipPeekAtLastError", "hipGetLastError"});
        },
    .here = []() -> std::uintptr_t {
      int device = -1;
      // Devices count from 0.
      return OTHER(int(int*), "hipGetDevice", &device) == 0 ? static_cast<std::uintptr_t>(device) + 1 : 0;
    },
    .allocate =
        [](std::uintptr_t* address, std::size_t size) {
          return hooked<Call::hipMalloc, hipMalloc_t>(reinterpret_cast<void**>(address), size);
        },
    .free = [](std::uintptr_t address) { return hooked<Call::hipFree, hipFree_t>(reinterpret_cast<void*>(address)); },
    .synchronise = hooked<Call::hipDeviceSynchronize, hipDeviceSynchronize_t>,
    .memory_info = hooked<Call::hipMemGetInfo, hipMemGetInfo_t, std::size_t*, std::size_t*>,
    .make_event =
        [](void** event) {
          return quietly([&] { return OTHER(int(void**, unsigned), "hipEventCreateWithFlags", event, kNoTiming); });
        },
    .drop_event = [](void* event) { return OTHER(int(void*), "hipEventDestroy", event); },
    .record =
        [](void* event, void* stream) {
          return quietly([&] { return OTHER(int(void*, void*), "hipEventRecord", event, stream); });
        },
    .query = [](void* event) { return quietly_or(600, [&] { return OTHER(int(void*), "hipEventQuery", event); }); },
    .wait = [](void* event) { return quietly([&] { return OTHER(int(void*), "hipEventSynchronize", event); }); },
    .pin =
        [](void** memory, std::size_t size) {
          return quietly_or(
              -1, [&] { return OTHER(int(void**, std::size_t, unsigned), "hipHostMalloc", memory, size, 0u); });
        },
    .unpin = [](void* memory) { return OTHER(int(void*), "hipHostFree", memory); },
    .to_device =
        [](std::uintptr_t to, const void* from, std::size_t size, void* stream) {
          return hooked<Call::hipMemcpyAsync, hipMemcpyAsync_t>(reinterpret_cast<void*>(to), from, size, 1, stream);
        },
    .to_host =
        [](void* to, std::uintptr_t from, std::size_t size, void* stream) {
          return hooked<Call::hipMemcpyAsync, hipMemcpyAsync_t>(to, reinterpret_cast<const void*>(from), size, 2,
                                                                stream);
        },
    .place_of =
        [](std::uintptr_t address) {
          // hipPointerAttribute_t grows, and its kinds were renumbered with HIP 6. What has stayed: memory that the
          // runtime does not know is refused or has no address on a device, and a device's own has none on the host.
          struct {
            int kind, device;
            void *on_device, *on_host;
            int is_managed;
            char rest[256];
          } attributes = {};
          int e = quietly_or(
              -1, [&] { return OTHER(int(void*, std::uintptr_t), "hipPointerGetAttributes", &attributes, address); });
          if (e == 1 || (e == 0 && !attributes.on_device)) return DeviceDriver::Place::kPageable;
          return e == 0 && !attributes.on_host && !attributes.is_managed ? DeviceDriver::Place::kDevice
                                                                         : DeviceDriver::Place::kOther;
        },
    .allocation_of =
        [](std::uintptr_t address, std::uintptr_t* base, std::size_t* size) {
          return quietly([&] {
                   return OTHER(int(std::uintptr_t*, std::size_t*, std::uintptr_t), "hipMemGetAddressRange", base, size,
                                address);
                 }) == 0;
        },
    .forget_error = [] { OTHER(int(), "hipGetLastError"); },
};

}  // namespace AIRamp::Interposer
