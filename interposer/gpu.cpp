#include "gpu.hpp"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <atomic>
#include <new>

#include "elf.hpp"

namespace AIRamp::Interposer {
namespace {

// Functions that one of the two has only.
struct Cuda {
  int (*current_context)(void**) = nullptr;
  int (*push)(void*) = nullptr;
  int (*pop)(void**) = nullptr;
  int (*current_device)(int*) = nullptr;
  int (*retain_primary)(void**, int) = nullptr;
  int (*attribute)(int*, int, int) = nullptr;
} cuda;
struct Hip {
  int (*get_device)(int*) = nullptr;
  int (*set_device)(int) = nullptr;
  int (*properties)(void*, int) = nullptr;
} hip;

template <class F>
bool find(F** function, const char* name) {
  *function = reinterpret_cast<F*>(elf::find(name));
  return *function;
}

constexpr int kMajor = 75, kMinor = 76;     // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…
void* primary_contexts[Gpu::kMostDevices];  // retained once, for good

}  // namespace

Gpu::Gpu(Vendor vendor) : vendor_(vendor) {
  bool nvidia = vendor == Vendor::kNvidia;
#define X(field, signature, cuda_name, hip_name) \
  if (!find(&field, nvidia ? cuda_name : hip_name)) why_not = "the driver lacks " cuda_name " or " hip_name;
  AIRAMP_GPU_FUNCTIONS(X)
#undef X
  bool whole = nvidia ? find(&cuda.current_context, "cuCtxGetCurrent") && find(&cuda.push, "cuCtxPushCurrent_v2") &&
                            find(&cuda.pop, "cuCtxPopCurrent_v2") && find(&cuda.current_device, "cuCtxGetDevice") &&
                            find(&cuda.retain_primary, "cuDevicePrimaryCtxRetain") &&
                            find(&cuda.attribute, "cuDeviceGetAttribute")
                      : find(&hip.get_device, "hipGetDevice") && find(&hip.set_device, "hipSetDevice") &&
                            find(&hip.properties, "hipGetDeviceProperties");
  if (!allocate) {
    why_not = nvidia ? "CUDA's driver is not loaded" : "HIP's runtime is not loaded";
    return;
  }
  if (!whole) why_not = nvidia ? "the loaded libcuda lacks a function" : "the loaded libamdhip64 lacks a function";
}

// A program may load its driver later than its communication library: what was not found is looked for again.
const Gpu& Gpu::of(Vendor vendor) {
  static std::atomic<const Gpu*> found[2];
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  alignas(Gpu) static char places[2][2][sizeof(Gpu)];
  int i = vendor == Vendor::kNvidia ? 0 : 1;
  if (const Gpu* gpu = found[i].load(std::memory_order_acquire)) return *gpu;
  pthread_mutex_lock(&lock);
  const Gpu* gpu = found[i].load();
  if (!gpu) {
    Gpu now(vendor);
    gpu = new (places[i][now.why_not ? 1 : 0]) Gpu(now);
    if (!now.why_not) found[i].store(gpu, std::memory_order_release);
  }
  pthread_mutex_unlock(&lock);
  return *gpu;
}

int Gpu::current() const {
  int device = -1;
  int error = vendor_ == Vendor::kNvidia ? cuda.current_device(&device) : hip.get_device(&device);
  return error == 0 && device < kMostDevices ? device : -1;
}

bool Gpu::is_shared(int device) const {
  if (vendor_ == Vendor::kAmd) return true;
  void *context = nullptr, *ours = nullptr;
  std::uintptr_t before = 0;
  if (cuda.current_context(&context) != 0 || !select(device, &before)) return false;
  bool same = !context || (cuda.current_context(&ours) == 0 && ours == context);
  restore(before);
  return same;
}

bool Gpu::select(int device, std::uintptr_t* before) const {
  if (device < 0 || device >= kMostDevices) return false;
  if (vendor_ == Vendor::kAmd) {
    int was = 0;
    if (hip.get_device(&was) != 0) return false;
    *before = static_cast<std::uintptr_t>(was);
    return was == device || hip.set_device(device) == 0;
  }
  void** context = &primary_contexts[device];
  if (!__atomic_load_n(context, __ATOMIC_ACQUIRE)) {
    void* retained = nullptr;
    if (cuda.retain_primary(&retained, device) != 0) return false;
    __atomic_store_n(context, retained, __ATOMIC_RELEASE);
  }
  return cuda.push(*context) == 0;
}

void Gpu::restore(std::uintptr_t before) const {
  if (vendor_ == Vendor::kAmd) {
    hip.set_device(static_cast<int>(before));
  } else {
    void* ours = nullptr;
    cuda.pop(&ours);
  }
}

bool Gpu::architecture(int device, char* text, std::size_t room) const {
  if (vendor_ == Vendor::kNvidia) {
    int major = 0, minor = 0;
    if (cuda.attribute(&major, kMajor, device) != 0 || cuda.attribute(&minor, kMinor, device) != 0) return false;
    snprintf(text, room, "sm_%d%d", major, minor);
    return true;
  }
  // gcnArchName stands elsewhere in each version of this structure of at most 1.5 KiB. It is the only text behind the
  // name, of 256 bytes, that begins so; what follows a colon are modes that plain code runs in too.
  char properties[8192] = {};
  if (hip.properties(properties, device) != 0) return false;
  auto* at = static_cast<const char*>(memmem(properties + 256, sizeof properties - 257, "gfx", 3));
  if (!at) return false;
  snprintf(text, room, "%.*s", static_cast<int>(strcspn(at, ":")), at);
  return true;
}

}  // namespace AIRamp::Interposer
