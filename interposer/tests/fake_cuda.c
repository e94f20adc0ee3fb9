// A fake of libcuda.so.1 for tests, with the names of the real one.

#include "fake_device.h"

int cuMemAlloc_v2(uintptr_t* address, size_t size) { LOCKED(allocate_block(address, size)); }
int cuMemFree_v2(uintptr_t address) { LOCKED(free_block(address)); }
int cuMemFreeAsync(uintptr_t address, void* stream) { LOCKED((void)stream, free_block(address)); }
// As the driver may, at the place of what was freed last.
int cuMemAllocPitch_v2(uintptr_t* address, size_t* pitch, size_t width, size_t height, unsigned element) {
  LOCKED((void)element, *pitch = width, allocate_block(address, width * height));
}
int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) { LOCKED(tell_memory(free_bytes, total)); }
int cuMemcpy(uintptr_t to, uintptr_t from, size_t size) { LOCKED(copy_memory(to, from, size, 0, 1)); }
int cuMemcpyHtoD_v2(uintptr_t to, const void* from, size_t size) {
  LOCKED(copy_memory(to, (uintptr_t)from, size, 0, 1));
}
int cuMemcpyDtoH_v2(void* to, uintptr_t from, size_t size) { LOCKED(copy_memory((uintptr_t)to, from, size, 0, 1)); }
int cuMemcpyHtoD_v2_ptds(uintptr_t to, const void* from, size_t size) {
  LOCKED(copy_memory(to, (uintptr_t)from, size, 2, 1));
}
int cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t size, void* stream) {
  LOCKED(copy_memory(to, (uintptr_t)from, size, (uintptr_t)stream, 0));
}
int cuMemcpyHtoDAsync_v2_ptsz(uintptr_t to, const void* from, size_t size, void* stream) {
  LOCKED(copy_memory(to, (uintptr_t)from, size, stream ? (uintptr_t)stream : 2, 0));
}
int cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t size, void* stream) {
  LOCKED(copy_memory((uintptr_t)to, from, size, (uintptr_t)stream, 0));
}
int cuStreamCreate(void** stream, unsigned flags) { LOCKED(make_stream(stream, !(flags & 1))); }
int cuStreamDestroy_v2(void* stream) { LOCKED(destroy_stream(stream)); }
int cuStreamSynchronize(void* stream) { LOCKED(wait_for_stream(stream)); }
int cuEventCreate(void** event, unsigned flags) { LOCKED((void)flags, make_event(event)); }
int cuEventDestroy_v2(void* event) { LOCKED(drop_event(event)); }
int cuEventRecord(void* event, void* stream) { LOCKED(record_event(event, stream)); }
int cuEventQuery(void* event) { LOCKED(query_event(event)); }
int cuEventSynchronize(void* event) { LOCKED(wait_for_event(event)); }
int cuMemHostAlloc(void** memory, size_t size, unsigned flags) { LOCKED((void)flags, pin_memory(memory, size)); }
int cuMemFreeHost(void* memory) { LOCKED(unpin_memory(memory)); }
int cuMemHostRegister_v2(void* memory, size_t size, unsigned flags) {
  LOCKED((void)memory, (void)size, (void)flags, fake_registrations++, 0);
}
int cuMemGetAddressRange_v2(uintptr_t* base, size_t* size, uintptr_t address) {
  LOCKED(range_of(address, base, size));
}
// Memory type (2) and whether it is managed (8).
int cuPointerGetAttribute(int* value, int attribute, uintptr_t address) {
  LOCKED(attribute == 2 ? place_of(address, value) : (*value = 0));
}
int cuCtxGetCurrent(uintptr_t* context) { return *context = 0xc0de, 0; }
int cuCtxEnablePeerAccess(void* context, unsigned flags) { return (void)context, (void)flags, 0; }
int cuCtxSynchronize(void) { LOCKED(synchronise_all()); }
int cuCtxDestroy_v2(void* context) { LOCKED((void)context, synchronise_all()); }
int cuIpcGetMemHandle(void* handle, uintptr_t address) { return memcpy(handle, &address, sizeof address), 0; }
int cuStreamBeginCapture_v2(void* stream, int mode) { LOCKED((void)stream, (void)mode, capturing = 1, 0); }
int cuStreamEndCapture(void* stream, void** graph) { LOCKED((void)stream, (void)graph, capturing = 0); }
// The old function of that name takes 32-bit sizes: no program may get the new one's wrapper for it.
int cuMemAlloc(unsigned* address, unsigned size) { return (void)address, (void)size, 999; }

#define NAME(name, function) \
  if (strcmp(symbol, name) == 0) return *out = (void*)(uintptr_t)function, 0;

// Flags 2 asks for the variants whose default stream is the thread's own.
int cuGetProcAddress_v2(const char* symbol, void** out, int version, uint64_t flags, int* status) {
  if (status) *status = 0;
  if (version < 3020) NAME("cuMemAlloc", cuMemAlloc)
  if (flags & 2) NAME("cuMemcpyHtoD", cuMemcpyHtoD_v2_ptds)
  if (flags & 2) NAME("cuMemcpyHtoDAsync", cuMemcpyHtoDAsync_v2_ptsz)
  NAME("cuMemAlloc", cuMemAlloc_v2)
  NAME("cuMemFree", cuMemFree_v2)
  NAME("cuMemGetInfo", cuMemGetInfo_v2)
  NAME("cuMemcpy", cuMemcpy)
  NAME("cuMemcpyHtoD", cuMemcpyHtoD_v2)
  NAME("cuMemcpyDtoH", cuMemcpyDtoH_v2)
  NAME("cuMemcpyHtoDAsync", cuMemcpyHtoDAsync_v2)
  NAME("cuMemcpyDtoHAsync", cuMemcpyDtoHAsync_v2)
  NAME("cuStreamCreate", cuStreamCreate)
  NAME("cuStreamDestroy", cuStreamDestroy_v2)
  NAME("cuCtxEnablePeerAccess", cuCtxEnablePeerAccess)
  NAME("cuCtxSynchronize", cuCtxSynchronize)
  NAME("cuCtxDestroy", cuCtxDestroy_v2)
  NAME("cuIpcGetMemHandle", cuIpcGetMemHandle)
  NAME("cuStreamBeginCapture", cuStreamBeginCapture_v2)
  NAME("cuStreamEndCapture", cuStreamEndCapture)
  if (status) *status = 1;
  *out = NULL;
  return 500;
}

int cuGetProcAddress(const char* symbol, void** out, int version, uint64_t flags) {
  return cuGetProcAddress_v2(symbol, out, version, flags, NULL);
}
