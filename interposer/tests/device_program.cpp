// A program that uses a device's memory and knows nothing of AIRamp, on the fakes. device_program DOOR CASE [LIBRARY]:
// DOOR is hip (linked), cuda (as CUDA's runtime finds its driver, by cuGetProcAddress) or cuda_dlsym.

#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

extern "C" {
int hipMalloc(void** address, size_t size);
int hipFree(void* address);
int hipMemGetInfo(size_t* free, size_t* total);
int hipMemcpy(void* to, const void* from, size_t size, int kind);
int hipDeviceSynchronize(void);
int hipIpcGetMemHandle(void* handle, void* address);
int hipStreamBeginCapture(void* stream, int mode);
int hipStreamEndCapture(void* stream, void** graph);
int hipMallocPitch(void** address, size_t* pitch, size_t width, size_t height);
int fake_fill_later(uintptr_t address, unsigned char byte, size_t size);
extern int fake_allocations, fake_frees, fake_broken_captures;
}

namespace {

int failures = 0;

#define EXPECT(condition)                                                        \
  do {                                                                           \
    if (!(condition)) {                                                          \
      failures++;                                                                \
      std::fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition); \
    }                                                                            \
  } while (0)

using Address = std::uintptr_t;
int (*allocate)(Address*, size_t);
int (*release)(Address);
int (*info)(size_t*, size_t*);
int (*copy)(Address, Address, size_t);
int (*synchronise)();
int (*share)(void*, Address);
int (*begin_capture)(void*, int);
int (*end_capture)(void*, void**);
int (*fill_later)(Address, unsigned char, size_t);
int *allocations, *frees, *broken_captures;

bool bind(const std::string& door, const char* library) {
  if (door == "hip") {
    allocate = [](Address* a, size_t size) { return hipMalloc(reinterpret_cast<void**>(a), size); };
    release = [](Address a) { return hipFree(reinterpret_cast<void*>(a)); };
    info = hipMemGetInfo;
    copy = [](Address to, Address from, size_t size) {
      return hipMemcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), size, 4);
    };
    synchronise = hipDeviceSynchronize;
    share = [](void* handle, Address a) { return hipIpcGetMemHandle(handle, reinterpret_cast<void*>(a)); };
    begin_capture = hipStreamBeginCapture;
    end_capture = hipStreamEndCapture;
    fill_later = fake_fill_later;
    allocations = &fake_allocations;
    frees = &fake_frees;
    broken_captures = &fake_broken_captures;
    return true;
  }
  void* cuda = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!cuda) return false;
  auto* get =
      reinterpret_cast<int (*)(const char*, void**, int, std::uint64_t, int*)>(dlsym(cuda, "cuGetProcAddress_v2"));
  auto find = [&](auto* slot, const char* name, const char* exported) {
    void* function = nullptr;
    if (door == "cuda_dlsym") {
      function = dlsym(cuda, exported);
    } else {
      EXPECT(get(name, &function, 12000, 0, nullptr) == 0);
    }
    *slot = reinterpret_cast<std::remove_pointer_t<decltype(slot)>>(function);
  };
  find(&allocate, "cuMemAlloc", "cuMemAlloc_v2");
  find(&release, "cuMemFree", "cuMemFree_v2");
  find(&info, "cuMemGetInfo", "cuMemGetInfo_v2");
  find(&copy, "cuMemcpy", "cuMemcpy");
  find(&synchronise, "cuCtxSynchronize", "cuCtxSynchronize");
  find(&share, "cuIpcGetMemHandle", "cuIpcGetMemHandle");
  find(&begin_capture, "cuStreamBeginCapture", "cuStreamBeginCapture_v2");
  find(&end_capture, "cuStreamEndCapture", "cuStreamEndCapture");
  fill_later = reinterpret_cast<decltype(fill_later)>(dlsym(cuda, "fake_fill_later"));
  allocations = static_cast<int*>(dlsym(cuda, "fake_allocations"));
  frees = static_cast<int*>(dlsym(cuda, "fake_frees"));
  broken_captures = static_cast<int*>(dlsym(cuda, "fake_broken_captures"));
  // Another version of a function is another function.
  void* old = nullptr;
  int status = -1;
  EXPECT(get("cuMemAlloc", &old, 2000, 0, &status) == 0 && status == 0);
  EXPECT(reinterpret_cast<int (*)(unsigned*, unsigned)>(old)(nullptr, 4) == 999);
  EXPECT(get("cuNoSuchFunction", &old, 12000, 0, &status) != 0 && status == 1 && old == nullptr);
  return true;
}

constexpr size_t kSize = 1 << 20;

Address block(size_t size = kSize) {
  Address a = 0;
  EXPECT(allocate(&a, size) == 0 && a != 0);
  return a;
}

// With a pool or without.
void always() {
  // What was launched before a free still writes: into memory that nobody else has yet.
  for (int i = 0; i < 10; i++) {
    Address a = block();
    fill_later(a, 0xee, kSize);
    EXPECT(release(a) == 0);
    Address b = block();
    std::vector<unsigned char> in(kSize, static_cast<unsigned char>(i)), out(kSize);
    EXPECT(copy(b, reinterpret_cast<Address>(in.data()), kSize) == 0);
    EXPECT(synchronise() == 0);
    EXPECT(copy(reinterpret_cast<Address>(out.data()), b, kSize) == 0);
    EXPECT(in == out);
    EXPECT(release(b) == 0);
  }
  // Memory that nobody uses is free.
  size_t before = 0, after = 0, total = 0;
  EXPECT(info(&before, &total) == 0 && total == 64 << 20 && before == total);
  Address a = block(3 << 20);
  EXPECT(info(&after, nullptr) == 0 && before - after == 3 << 20);
  EXPECT(release(a) == 0);
  EXPECT(info(&after, &total) == 0 && after == before);
  EXPECT(info(nullptr, &total) == 0);
  // The driver's codes.
  EXPECT(allocate(&a, 65 << 20) == 2);
  EXPECT(allocate(&a, 0) == 1);
  EXPECT(release(0) == 0);
  EXPECT(release(0x1234) == 1);
  a = block();
  EXPECT(release(a) == 0);
  EXPECT(release(a) == 1);
  // All memory can be had although some was freed in other sizes.
  std::vector<Address> many;
  for (int i = 0; i < 15; i++) many.push_back(block(static_cast<size_t>(i + 1) << 18));
  for (Address x : many) EXPECT(release(x) == 0);
  a = block(60 << 20);
  EXPECT(release(a) == 0);
  // A block that another process knows goes back to the driver.
  a = block();
  char handle[64];
  EXPECT(share(handle, a) == 0);
  int freed = *frees;
  EXPECT(release(a) == 0 && *frees == freed + 1);
  // Allocations, frees and hidden synchronisations in a capture.
  a = block();
  Address b = block(2 * kSize);
  EXPECT(release(a) == 0);
  EXPECT(begin_capture(nullptr, 0) == 0);
  Address inside = block();
  EXPECT(*broken_captures == 0);
  EXPECT(end_capture(nullptr, nullptr) == 0);
  EXPECT(release(inside) == 0 && release(b) == 0);
  // Threads.
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; i++) {
        Address x = 0;
        unsigned char value = static_cast<unsigned char>(t * 50 + i), back = 0;
        wrong += allocate(&x, 4096 * static_cast<size_t>(1 + i % 3)) != 0;
        wrong += copy(x, reinterpret_cast<Address>(&value), 1) != 0;
        wrong += copy(reinterpret_cast<Address>(&back), x, 1) != 0;
        wrong += back != value;
        wrong += release(x) != 0;
      }
    });
  for (auto& t : threads) t.join();
  EXPECT(wrong == 0);
}

// With a pool only.
void reused() {
  Address first = block();
  EXPECT(release(first) == 0);
  int before = *allocations;
  for (int i = 0; i < 20; i++) {
    Address a = block();
    EXPECT(a == first);
    EXPECT(release(a) == 0);
  }
  EXPECT(*allocations == before);
}

// With a pool only: blocks of a step that repeats are made again, after all was given back, while the program waits.
void prewarmed() {
  const std::vector<size_t> sizes = {4096, 3 * 4096, 5 * 4096, 7 * 4096, 3 * 4096, 9 * 4096};
  auto step = [&] {
    std::vector<Address> blocks;
    for (size_t s : sizes) blocks.push_back(block(s));
    for (Address a : blocks) EXPECT(release(a) == 0);
  };
  for (int i = 0; i < 12; i++) {
    step();
    EXPECT(synchronise() == 0);
  }
  int steady = *allocations;
  for (int i = 0; i < 5; i++) {
    step();
    EXPECT(synchronise() == 0);
  }
  EXPECT(*allocations == steady);  // nothing is missing
  int freed = *frees;
  EXPECT(begin_capture(nullptr, 0) == 0);
  EXPECT(end_capture(nullptr, nullptr) == 0);
  EXPECT(*frees == freed + static_cast<int>(sizes.size()));
  EXPECT(synchronise() == 0);
  EXPECT(*allocations == steady + static_cast<int>(sizes.size()));
  step();
  EXPECT(*allocations == steady + static_cast<int>(sizes.size()));  // the program met no driver call
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || !bind(argv[1], argc > 3 ? argv[3] : nullptr)) return 2;
  std::string what = argv[2];
  if (what == "always") always();
  if (what == "reused") reused();
  if (what == "prewarmed") prewarmed();
  if (what == "pitch") {
    // The library's own call of hipMalloc is not the program's: the block is not the pool's.
    void* a = nullptr;
    size_t pitch = 0;
    EXPECT(hipMallocPitch(&a, &pitch, 1024, 1024) == 0);
    EXPECT(hipFree(a) == 0);
    EXPECT(fake_frees == 1);
  }
  return failures;
}
