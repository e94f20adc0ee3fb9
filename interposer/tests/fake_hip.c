// A fake of libamdhip64.so.5 for tests, with the names and symbol versions of the real one (fake_hip.map). Like the real one
// it calls its own public functions through the dynamic linker, and remembers the last error of each thread.

#include "fake_device.h"

static __thread int last_error;
#define CALL(function, ...)                   \
  {                                           \
    int code = function;                      \
    if (code) last_error = code;              \
    return code;                              \
  }
// The lock, and the failures that tests ask for, go by the name of the public function.
#define PUBLIC(name, parameters, ...)                              \
  static int locked_##name parameters {                            \
    pthread_mutex_lock(&device_lock);                              \
    int code = failure(#name);                                     \
    if (!code) code = (__VA_ARGS__);                               \
    pthread_mutex_unlock(&device_lock);                            \
    return code;                                                   \
  }                                                                \
  int name parameters

PUBLIC(hipMalloc, (void** address, size_t size), allocate_block((uintptr_t*)address, size))
CALL(locked_hipMalloc(address, size))
PUBLIC(hipFree, (void* address), free_block((uintptr_t)address))
CALL(locked_hipFree(address))
PUBLIC(hipMemGetInfo, (size_t * free_bytes, size_t* total), tell_memory(free_bytes, total))
CALL(locked_hipMemGetInfo(free_bytes, total))
PUBLIC(hipMemcpy, (void* to, const void* from, size_t size, int kind),
       (void)kind, copy_memory((uintptr_t)to, (uintptr_t)from, size, 0, 1))
CALL(locked_hipMemcpy(to, from, size, kind))
PUBLIC(hipMemcpyAsync, (void* to, const void* from, size_t size, int kind, void* stream),
       (void)kind, copy_memory((uintptr_t)to, (uintptr_t)from, size, (uintptr_t)stream, 0))
CALL(locked_hipMemcpyAsync(to, from, size, kind, stream))
PUBLIC(hipStreamCreateWithFlags, (void** stream, unsigned flags), make_stream(stream, !(flags & 1)))
CALL(locked_hipStreamCreateWithFlags(stream, flags))
PUBLIC(hipStreamDestroy, (void* stream), destroy_stream(stream))
CALL(locked_hipStreamDestroy(stream))
PUBLIC(hipStreamSynchronize, (void* stream), wait_for_stream(stream))
CALL(locked_hipStreamSynchronize(stream))
PUBLIC(hipEventCreateWithFlags, (void** event, unsigned flags), (void)flags, make_event(event))
CALL(locked_hipEventCreateWithFlags(event, flags))
PUBLIC(hipEventDestroy, (void* event), drop_event(event))
CALL(locked_hipEventDestroy(event))
PUBLIC(hipEventRecord, (void* event, void* stream), record_event(event, stream))
CALL(locked_hipEventRecord(event, stream))
PUBLIC(hipEventQuery, (void* event), query_event(event))
CALL(locked_hipEventQuery(event))
PUBLIC(hipEventSynchronize, (void* event), wait_for_event(event))
CALL(locked_hipEventSynchronize(event))
PUBLIC(hipHostMalloc, (void** memory, size_t size, unsigned flags), (void)flags, pin_memory(memory, size))
CALL(locked_hipHostMalloc(memory, size, flags))
PUBLIC(hipHostFree, (void* memory), unpin_memory(memory))
CALL(locked_hipHostFree(memory))
PUBLIC(hipHostRegister, (void* memory, size_t size, unsigned flags),
       (void)memory, (void)size, (void)flags, fake_registrations++, 0)
CALL(locked_hipHostRegister(memory, size, flags))
PUBLIC(hipMemGetAddressRange, (uintptr_t * base, size_t* size, uintptr_t address), range_of(address, base, size))
CALL(locked_hipMemGetAddressRange(base, size, address))
PUBLIC(hipDeviceSynchronize, (void), synchronise_all())
CALL(locked_hipDeviceSynchronize())
PUBLIC(hipDeviceReset, (void), synchronise_all())
CALL(locked_hipDeviceReset())
PUBLIC(hipStreamBeginCapture, (void* stream, int mode), (void)stream, (void)mode, capturing = 1, 0)
CALL(locked_hipStreamBeginCapture(stream, mode))
PUBLIC(hipStreamEndCapture, (void* stream, void** graph), (void)stream, (void)graph, capturing = 0)
CALL(locked_hipStreamEndCapture(stream, graph))

struct attributes {
  int kind, device;
  void *on_device, *on_host;
  int is_managed;
  unsigned flags;
};
static int fill_attributes(struct attributes* a, uintptr_t address) {
  memset(a, 0, sizeof *a);
  int code = place_of(address, &a->kind);
  if (code) return code;
  a->on_device = (void*)address;
  if (a->kind == kHostMemory) a->on_host = (void*)address;
  return 0;
}
PUBLIC(hipPointerGetAttributes, (struct attributes * a, uintptr_t address), fill_attributes(a, address))
CALL(locked_hipPointerGetAttributes(a, address))

int hipPeekAtLastError(void) { return last_error; }
int hipGetLastError(void) {
  int error = last_error;
  return last_error = 0, error;
}
int hipGetDevice(int* device) { return *device = 0, 0; }
int hipDeviceEnablePeerAccess(int device, unsigned flags) { return (void)device, (void)flags, 0; }
int hipIpcGetMemHandle(void* handle, void* address) { return memcpy(handle, &address, sizeof address), 0; }
int hipMallocPitch(void** address, size_t* pitch, size_t width, size_t height) {
  int code = hipMalloc(address, width * height);
  *pitch = width;
  return code;
}
