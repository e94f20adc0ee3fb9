// A fake of libamdhip64.so.5 for tests, with the names and symbol versions of the real one (fake_hip.map). Like the real one
// it calls its own public functions through the dynamic linker.

#include "fake_device.h"

int hipMalloc(void** address, size_t size) { return device_allocate((uintptr_t*)address, size); }
int hipFree(void* address) { return device_free((uintptr_t)address); }
int hipMemGetInfo(size_t* free_bytes, size_t* total) { return device_info(free_bytes, total); }
int hipMemcpy(void* to, const void* from, size_t size, int kind) {
  return (void)kind, device_copy((uintptr_t)to, (uintptr_t)from, size);
}
int hipGetDevice(int* device) { return *device = 0, 0; }
int hipDeviceSynchronize(void) { return device_synchronise(); }
int hipIpcGetMemHandle(void* handle, void* address) { return memcpy(handle, &address, sizeof address), 0; }
int hipStreamBeginCapture(void* stream, int mode) { return (void)stream, (void)mode, device_capture(1); }
int hipStreamEndCapture(void* stream, void** graph) { return (void)stream, (void)graph, device_capture(0); }
int hipMallocPitch(void** address, size_t* pitch, size_t width, size_t height) {
  int code = hipMalloc(address, width * height);
  *pitch = width;
  return code;
}
