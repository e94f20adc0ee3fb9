// A fake of libcuda.so.1 for tests, with the names of the real one.

#include "fake_device.h"

#include <stdio.h>

int cuMemAlloc_v2(uintptr_t* address, size_t size) { return device_allocate(address, size); }
int cuMemFree_v2(uintptr_t address) { return device_free(address); }
int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) { return device_info(free_bytes, total); }
int cuMemcpy(uintptr_t to, uintptr_t from, size_t size) { return device_copy(to, from, size); }
int cuCtxGetCurrent(uintptr_t* context) { return *context = 0xc0de, 0; }
int cuCtxSynchronize(void) { return device_synchronise(); }
int cuCtxDestroy_v2(void* context) { return (void)context, 0; }
int cuIpcGetMemHandle(void* handle, uintptr_t address) { return memcpy(handle, &address, sizeof address), 0; }
int cuStreamBeginCapture_v2(void* stream, int mode) { return (void)stream, (void)mode, device_capture(1); }
int cuStreamEndCapture(void* stream, void** graph) { return (void)stream, (void)graph, device_capture(0); }
// The old function of that name takes 32-bit sizes: no program may get the new one's wrapper for it.
int cuMemAlloc(unsigned* address, unsigned size) { return (void)address, (void)size, 999; }

#define NAME(name, function) \
  if (strcmp(symbol, name) == 0) return *out = (void*)(uintptr_t)function, 0;

int cuGetProcAddress_v2(const char* symbol, void** out, int version, uint64_t flags, int* status) {
  (void)flags;
  if (status) *status = 0;
  if (version < 3020) NAME("cuMemAlloc", cuMemAlloc)
  NAME("cuMemAlloc", cuMemAlloc_v2)
  NAME("cuMemFree", cuMemFree_v2)
  NAME("cuMemGetInfo", cuMemGetInfo_v2)
  NAME("cuMemcpy", cuMemcpy)
  NAME("cuCtxSynchronize", cuCtxSynchronize)
  NAME("cuIpcGetMemHandle", cuIpcGetMemHandle)
  NAME("cuStreamBeginCapture", cuStreamBeginCapture_v2)
  NAME("cuStreamEndCapture", cuStreamEndCapture)
  if (status) *status = 1;
  *out = NULL;
  return 500;
}
