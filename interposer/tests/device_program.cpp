// A program that uses a device's memory and knows nothing of AIRamp, on the fakes. device_program DOOR CASE [LIBRARY]:
// DOOR is hip (linked), cuda (as CUDA's runtime finds its driver, by cuGetProcAddress), cuda_thread (the same, with a
// default stream for each thread) or cuda_dlsym.

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
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
int hipMemcpyAsync(void* to, const void* from, size_t size, int kind, void* stream);
int hipDeviceSynchronize(void);
int hipIpcGetMemHandle(void* handle, void* address);
int hipStreamCreateWithFlags(void** stream, unsigned flags);
int hipStreamDestroy(void* stream);
int hipStreamSynchronize(void* stream);
int hipStreamBeginCapture(void* stream, int mode);
int hipStreamEndCapture(void* stream, void** graph);
int hipDeviceEnablePeerAccess(int device, unsigned flags);
int hipHostMalloc(void** memory, size_t size, unsigned flags);
int hipHostFree(void* memory);
int hipMallocPitch(void** address, size_t* pitch, size_t width, size_t height);
int hipGetLastError(void);
int fake_fill_later(uintptr_t address, unsigned char byte, size_t size, void* stream);
void fake_fail(const char* name, int after, int code);
extern int fake_allocations, fake_frees, fake_broken_captures, fake_captured, fake_synchronisations, fake_pinned_bytes,
    fake_most_pinned_bytes, fake_registrations, fake_pageable_us, fake_pinned_us;
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
using Stream = void*;
int (*allocate)(Address*, size_t);
int (*release)(Address);
int (*info)(size_t*, size_t*);
int (*copy)(Address, Address, size_t);
int (*to_device)(Address, const void*, size_t);
int (*to_host)(void*, Address, size_t);
int (*to_device_async)(Address, const void*, size_t, Stream);
int (*to_host_async)(void*, Address, size_t, Stream);
int (*make_stream)(Stream*, unsigned);
int (*destroy_stream)(Stream);
int (*wait_for_stream)(Stream);
int (*synchronise)();
int (*share)(void*, Address);
int (*begin_capture)(void*, int);
int (*end_capture)(void*, void**);
int (*let_others_in)();
int (*pin)(void**, size_t);
int (*unpin)(void*);
int (*release_async)(Address, Stream);  // CUDA's; null with HIP
int (*allocate_pitch)(Address*, size_t*, size_t, size_t, unsigned);
int (*fill_later)(Address, unsigned char, size_t, Stream);
void (*fail)(const char*, int, int);
int *allocations, *frees, *broken_captures, *captured, *synchronisations, *pinned_bytes, *most_pinned_bytes,
    *registrations, *pageable_us, *pinned_us;
bool is_hip;

bool bind(const std::string& door, const char* library) {
  is_hip = door == "hip";
  if (is_hip) {
    allocate = [](Address* a, size_t size) { return hipMalloc(reinterpret_cast<void**>(a), size); };
    release = [](Address a) { return hipFree(reinterpret_cast<void*>(a)); };
    info = hipMemGetInfo;
    copy = [](Address to, Address from, size_t size) {
      return hipMemcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), size, 4);
    };
    to_device = [](Address to, const void* from, size_t size) {
      return hipMemcpy(reinterpret_cast<void*>(to), from, size, 1);
    };
    to_host = [](void* to, Address from, size_t size) { return hipMemcpy(to, reinterpret_cast<void*>(from), size, 2); };
    to_device_async = [](Address to, const void* from, size_t size, Stream stream) {
      return hipMemcpyAsync(reinterpret_cast<void*>(to), from, size, 1, stream);
    };
    to_host_async = [](void* to, Address from, size_t size, Stream stream) {
      return hipMemcpyAsync(to, reinterpret_cast<void*>(from), size, 2, stream);
    };
    make_stream = hipStreamCreateWithFlags;
    destroy_stream = hipStreamDestroy;
    wait_for_stream = hipStreamSynchronize;
    synchronise = hipDeviceSynchronize;
    share = [](void* handle, Address a) { return hipIpcGetMemHandle(handle, reinterpret_cast<void*>(a)); };
    begin_capture = hipStreamBeginCapture;
    end_capture = hipStreamEndCapture;
    let_others_in = [] { return hipDeviceEnablePeerAccess(1, 0); };
    pin = [](void** memory, size_t size) { return hipHostMalloc(memory, size, 0); };
    unpin = hipHostFree;
    fill_later = fake_fill_later;
    fail = fake_fail;
    allocations = &fake_allocations, frees = &fake_frees, broken_captures = &fake_broken_captures;
    captured = &fake_captured, synchronisations = &fake_synchronisations, pinned_bytes = &fake_pinned_bytes;
    most_pinned_bytes = &fake_most_pinned_bytes, registrations = &fake_registrations;
    pageable_us = &fake_pageable_us, pinned_us = &fake_pinned_us;
    return true;
  }
  void* cuda = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!cuda) return false;
  auto* get =
      reinterpret_cast<int (*)(const char*, void**, int, std::uint64_t, int*)>(dlsym(cuda, "cuGetProcAddress_v2"));
  bool by_name = door == "cuda_dlsym";
  // cuda_thread: as programs ask whose default stream is each thread's own.
  std::uint64_t flags = door == "cuda_thread" ? 2 : 0;
  auto find = [&](auto* slot, const char* name, const char* exported) {
    void* function = nullptr;
    if (by_name) {
      function = dlsym(cuda, exported);
    } else {
      EXPECT(get(name, &function, 12000, flags, nullptr) == 0);
    }
    *slot = reinterpret_cast<std::remove_pointer_t<decltype(slot)>>(function);
  };
  static int (*let_in)(void*, unsigned);
  static int (*host_allocate)(void**, size_t, unsigned);
  find(&allocate, "cuMemAlloc", "cuMemAlloc_v2");
  find(&release, "cuMemFree", "cuMemFree_v2");
  find(&info, "cuMemGetInfo", "cuMemGetInfo_v2");
  find(&copy, "cuMemcpy", "cuMemcpy");
  find(&to_device, "cuMemcpyHtoD", "cuMemcpyHtoD_v2");
  find(&to_host, "cuMemcpyDtoH", "cuMemcpyDtoH_v2");
  find(&to_device_async, "cuMemcpyHtoDAsync", "cuMemcpyHtoDAsync_v2");
  find(&to_host_async, "cuMemcpyDtoHAsync", "cuMemcpyDtoHAsync_v2");
  find(&make_stream, "cuStreamCreate", "cuStreamCreate");
  find(&destroy_stream, "cuStreamDestroy", "cuStreamDestroy_v2");
  find(&synchronise, "cuCtxSynchronize", "cuCtxSynchronize");
  find(&share, "cuIpcGetMemHandle", "cuIpcGetMemHandle");
  find(&begin_capture, "cuStreamBeginCapture", "cuStreamBeginCapture_v2");
  find(&end_capture, "cuStreamEndCapture", "cuStreamEndCapture");
  find(&let_in, "cuCtxEnablePeerAccess", "cuCtxEnablePeerAccess");
  let_others_in = [] { return let_in(nullptr, 0); };
  auto plainly = [&](auto* slot, const char* name) {
    *slot = reinterpret_cast<std::remove_pointer_t<decltype(slot)>>(dlsym(cuda, name));
  };
  plainly(&wait_for_stream, "cuStreamSynchronize");
  plainly(&host_allocate, "cuMemHostAlloc");
  pin = [](void** memory, size_t size) { return host_allocate(memory, size, 0); };
  plainly(&unpin, "cuMemFreeHost");
  plainly(&release_async, "cuMemFreeAsync");
  plainly(&allocate_pitch, "cuMemAllocPitch_v2");
  plainly(&fill_later, "fake_fill_later");
  plainly(&fail, "fake_fail");
  plainly(&allocations, "fake_allocations");
  plainly(&frees, "fake_frees");
  plainly(&broken_captures, "fake_broken_captures");
  plainly(&captured, "fake_captured");
  plainly(&synchronisations, "fake_synchronisations");
  plainly(&pinned_bytes, "fake_pinned_bytes");
  plainly(&most_pinned_bytes, "fake_most_pinned_bytes");
  plainly(&registrations, "fake_registrations");
  plainly(&pageable_us, "fake_pageable_us");
  plainly(&pinned_us, "fake_pinned_us");
  // The function's first version gives the same.
  auto* get_1 = reinterpret_cast<int (*)(const char*, void**, int, std::uint64_t)>(dlsym(cuda, "cuGetProcAddress"));
  void* same = nullptr;
  EXPECT(get_1("cuMemAlloc", &same, 12000, flags) == 0 && same == reinterpret_cast<void*>(allocate));
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
    fill_later(a, 0xee, kSize, nullptr);
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
  // A block that went by another way, and a smaller one of another kind in its place.
  if (release_async) {
    a = block();
    EXPECT(release_async(a, nullptr) == 0);
    Address small = 0;
    size_t pitch = 0;
    EXPECT(allocate_pitch(&small, &pitch, 64, 64, 4) == 0 && small == a);
    EXPECT(release(small) == 0);
    a = block();
    std::vector<unsigned char> in(kSize, 3);
    EXPECT(copy(a, reinterpret_cast<Address>(in.data()), kSize) == 0);
    EXPECT(release(a) == 0);
  }
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

// Writes to the block, lets all that was submitted happen, and holds it against what was written.
bool is_ours_alone(Address a, unsigned char value) {
  std::vector<unsigned char> in(kSize, value), out(kSize);
  EXPECT(to_device(a, in.data(), kSize) == 0);
  EXPECT(synchronise() == 0);
  EXPECT(to_host(out.data(), a, kSize) == 0);
  return in == out;
}

// With a pool or without: what was submitted to any stream before a free never reaches the next owner of the block.
void streams() {
  Stream quiet, blocking, gone, thread_stream = reinterpret_cast<Stream>(2);
  EXPECT(make_stream(&quiet, 1) == 0 && make_stream(&blocking, 0) == 0);
  for (Stream stream : {static_cast<Stream>(nullptr), thread_stream, blocking, quiet}) {
    for (int i = 0; i < 5; i++) {
      Address a = block();
      EXPECT(fill_later(a, 0xee, kSize, stream) == 0);
      EXPECT(release(a) == 0);
      a = block();
      EXPECT(is_ours_alone(a, static_cast<unsigned char>(i)));
      EXPECT(release(a) == 0);
    }
  }
  // A stream that is destroyed at work goes on working.
  for (int i = 0; i < 40; i++) {
    Address a = block();
    EXPECT(make_stream(&gone, 1) == 0);
    EXPECT(fill_later(a, 0xee, kSize, gone) == 0);
    EXPECT(destroy_stream(gone) == 0);
    EXPECT(release(a) == 0);
    a = block();
    EXPECT(is_ours_alone(a, static_cast<unsigned char>(i)));
    EXPECT(release(a) == 0);
  }
  // More streams than anyone watches.
  std::vector<Stream> many(80);
  for (Stream& s : many) EXPECT(make_stream(&s, 1) == 0);
  for (int i = 0; i < 80; i += 13) {
    Address a = block();
    EXPECT(fill_later(a, 0xee, kSize, many[static_cast<size_t>(i)]) == 0);
    EXPECT(release(a) == 0);
    a = block();
    EXPECT(is_ours_alone(a, static_cast<unsigned char>(i)));
    EXPECT(release(a) == 0);
  }
  for (Stream s : many) EXPECT(destroy_stream(s) == 0);
  EXPECT(destroy_stream(quiet) == 0 && destroy_stream(blocking) == 0);
}

// With a pool whose frees do not wait: blocks come back when events have passed, and nothing waits for the device.
void quarantined() {
  Stream quiet;
  EXPECT(make_stream(&quiet, 1) == 0);
  Address first = block();
  EXPECT(fill_later(first, 0xee, kSize, quiet) == 0);
  EXPECT(release(first) == 0);
  std::vector<Address> others;
  Address a = block();
  EXPECT(a != first);  // its stream is at work
  others.push_back(a);
  // Each question to an event lets one thing happen.
  for (int i = 0; i < 20 && a != first; i++) others.push_back(a = block());
  EXPECT(a == first);
  EXPECT(*synchronisations == 0);
  for (Address x : others) EXPECT(release(x) == 0);
  EXPECT(*synchronisations == 0);
  // Other devices' streams are not watched: then the device is waited for.
  EXPECT(let_others_in() == 0);
  a = block(2 * kSize);
  EXPECT(fill_later(a, 0xee, kSize, quiet) == 0);
  EXPECT(release(a) == 0);
  int before = *allocations;
  a = block(2 * kSize);
  EXPECT(*synchronisations == 1 && *allocations == before);
  EXPECT(is_ours_alone(a, 7));
  EXPECT(release(a) == 0);
  EXPECT(destroy_stream(quiet) == 0);
}

// With a pool: what others need of the device's memory, they get.
void pressed() {
  Address a = block(8 << 20);
  EXPECT(release(a) == 0);
  size_t total = 0, free = 0;
  Address most = block(53 << 20);
  usleep(1500000);  // an eighth of POOL_TTL_MS, and more
  int freed = *frees;
  EXPECT(release(block(4096)) == 0);
  EXPECT(*frees == freed + 1);
  EXPECT(release(most) == 0);
  EXPECT(info(&free, &total) == 0 && free == total);
}

// Wherever a call of the driver's fails that the program did not make, the program does not notice.
void faults(bool pool) {
  const std::vector<const char*> cuda = {"cuMemHostAlloc",          "cuEventCreate",
                                         "cuEventRecord",           "cuEventQuery",
                                         "cuEventSynchronize",      "cuPointerGetAttribute",
                                         "cuMemGetAddressRange_v2", "cuMemcpyHtoDAsync_v2",
                                         "cuMemcpyDtoHAsync_v2"},
                                 hip = {"hipHostMalloc",         "hipEventCreateWithFlags", "hipEventRecord",
                                        "hipEventQuery",         "hipEventSynchronize",     "hipPointerGetAttributes",
                                        "hipMemGetAddressRange", "hipMemcpyAsync"};
  const size_t size = (12 << 20) + 12345;
  std::vector<unsigned char> in(size), out(size);
  for (size_t i = 0; i < size; i++) in[i] = static_cast<unsigned char>(i * 7 + i / 4096);
  for (const char* name : is_hip ? hip : cuda)
    for (int after = 0; after < 4; after++) {
      fail(name, after, 719);  // as after a fault on the device
      Address a = block(size);
      std::fill(out.begin(), out.end(), 0);
      EXPECT(to_device(a, in.data(), size) == 0);
      EXPECT(to_host(out.data(), a, size) == 0);
      EXPECT(in == out);
      if (!pool) EXPECT(!is_hip || hipGetLastError() == 0);
      EXPECT(release(a) == 0);
      a = block(size);
      EXPECT(release(a) == 0);
    }
  fail("", 0, 0);
}

// With pinned copies or without.
void copies() {
  const size_t size = (9 << 20) + 4097;
  std::vector<unsigned char> in(size), out(size);
  auto renew = [&](int seed) {
    for (size_t i = 0; i < size; i++) in[i] = static_cast<unsigned char>(i * 13 + i / 997 + static_cast<size_t>(seed));
    std::fill(out.begin(), out.end(), 0);
  };
  Stream stream, quiet;
  EXPECT(make_stream(&stream, 0) == 0 && make_stream(&quiet, 1) == 0);
  Address a = block(size);
  for (size_t part : {size, size_t{1} << 20, (size_t{1} << 20) + 1, size_t{5000}, size_t{0}}) {
    renew(static_cast<int>(part));
    EXPECT(to_device(a, in.data(), part) == 0);
    EXPECT(to_host(out.data(), a, part) == 0);
    EXPECT(std::memcmp(in.data(), out.data(), part) == 0);
    if (part < size) EXPECT(out[part] == 0);
  }
  // Sources may be changed, and destinations read, when a call returns; in between the streams keep their order.
  for (Stream s : {static_cast<Stream>(nullptr), stream, quiet}) {
    renew(3);
    std::vector<unsigned char> before = in;
    EXPECT(fill_later(a, 0x11, size, s) == 0);
    EXPECT(to_device_async(a, in.data(), size, s) == 0);
    std::fill(in.begin(), in.end(), 0x22);
    EXPECT(to_host_async(out.data(), a, size, s) == 0);
    EXPECT(out == before);
    EXPECT(to_device_async(a, in.data(), size, s) == 0);
    EXPECT(fill_later(a, 0x33, size, s) == 0);
    EXPECT(to_host_async(out.data(), a, size, s) == 0);
    EXPECT(out[0] == 0x33 && out[size - 1] == 0x33);
    // Unlike the streams, the call without one waits for those that block.
    EXPECT(fill_later(a, 0x44, size, stream) == 0);
    EXPECT(to_host(out.data(), a, size) == 0);
    EXPECT(out[0] == 0x44 && out[size - 1] == 0x44);
    EXPECT(synchronise() == 0);
  }
  // Many that return early.
  std::vector<Address> targets;
  for (int i = 0; i < 8; i++) targets.push_back(block(2 << 20));
  std::vector<std::vector<unsigned char>> sources(8, std::vector<unsigned char>(2 << 20));
  for (size_t i = 0; i < 8; i++) {
    std::fill(sources[i].begin(), sources[i].end(), static_cast<unsigned char>(i + 1));
    EXPECT(to_device_async(targets[i], sources[i].data(), 2 << 20, i % 2 ? stream : quiet) == 0);
    std::fill(sources[i].begin(), sources[i].end(), 0xff);
  }
  EXPECT(wait_for_stream(stream) == 0 && wait_for_stream(quiet) == 0);
  for (size_t i = 0; i < 8; i++) {
    EXPECT(to_host(out.data(), targets[i], 2 << 20) == 0);
    EXPECT(out[0] == i + 1 && out[(2 << 20) - 1] == i + 1);
    EXPECT(release(targets[i]) == 0);
  }
  // What is pinned already is the driver's to copy, late.
  void* memory = nullptr;
  EXPECT(pin(&memory, 2 << 20) == 0);
  std::memset(memory, 0x55, 2 << 20);
  EXPECT(to_device_async(a, memory, 2 << 20, quiet) == 0);
  std::memset(memory, 0x66, 2 << 20);
  EXPECT(wait_for_stream(quiet) == 0);
  EXPECT(to_host(out.data(), a, 2 << 20) == 0);
  EXPECT(out[0] == 0x66);
  EXPECT(unpin(memory) == 0);
  // The driver's codes, and nothing done.
  EXPECT(to_device(a, in.data(), 2 << 20) == 0);
  EXPECT(to_device(a + (size - 4096), in.data(), 2 << 20) == 1);
  EXPECT(to_device(0x1234, in.data(), 2 << 20) == 1);
  EXPECT(to_host(out.data(), 0x1234, 2 << 20) == 1);
  EXPECT(to_device_async(a, in.data(), 2 << 20, reinterpret_cast<Stream>(0x77)) == 400);
  if (is_hip) EXPECT(hipGetLastError() == 400 && hipGetLastError() == 0);
  // In a capture there is one copy, and nothing else.
  int copied = *captured;
  EXPECT(begin_capture(stream, 0) == 0);
  EXPECT(to_device_async(a, in.data(), size, stream) == 0);
  EXPECT(end_capture(stream, nullptr) == 0);
  EXPECT(*captured == copied + 1 && *broken_captures == 0);
  // Threads, each with memory of its own.
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++)
    threads.emplace_back([&, t] {
      Address mine = 0;
      wrong += allocate(&mine, 3 << 20) != 0;
      std::vector<unsigned char> source(3 << 20), back(3 << 20);
      for (int i = 0; i < 20; i++) {
        std::fill(source.begin(), source.end(), static_cast<unsigned char>(t * 40 + i));
        wrong += to_device(mine, source.data(), source.size()) != 0;
        wrong += to_host(back.data(), mine, back.size()) != 0;
        wrong += back != source;
      }
      wrong += release(mine) != 0;
    });
  for (auto& t : threads) t.join();
  EXPECT(wrong == 0);
  EXPECT(*registrations == 0);
  EXPECT(*most_pinned_bytes <= 66 << 20);
  EXPECT(release(a) == 0);
  EXPECT(destroy_stream(stream) == 0 && destroy_stream(quiet) == 0);
}

// With pinned copies only: the buffers stay for a while.
void kept_for_a_while() {
  const size_t size = 9 << 20;
  std::vector<unsigned char> in(size, 5);
  Address a = block(size);
  EXPECT(to_device(a, in.data(), size) == 0);
  int kept = *pinned_bytes;
  EXPECT(kept == 8 << 20);
  EXPECT(to_device(a, in.data(), size) == 0);
  EXPECT(*pinned_bytes == kept && *most_pinned_bytes == kept);
  usleep(2500000);  // more than PIN_TTL_MS
  EXPECT(to_device(a, in.data(), 16) == 0);
  EXPECT(*pinned_bytes == 0);
  EXPECT(release(a) == 0);
}

// On trial: copies of one size, when the driver's own take that many microseconds a mebibyte with pageable and with
// pinned memory.
void judged(int pageable, int through_pinned) {
  *pageable_us = pageable, *pinned_us = through_pinned;
  const size_t size = 2 << 20;
  std::vector<unsigned char> in(size, 9), out(size);
  Address a = block(size);
  for (int i = 0; i < 60; i++) {
    std::fill(in.begin(), in.end(), static_cast<unsigned char>(i));
    EXPECT(to_device(a, in.data(), size) == 0);
    EXPECT(to_host(out.data(), a, size) == 0);
    EXPECT(in == out);
  }
  EXPECT(release(a) == 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || !bind(argv[1], argc > 3 ? argv[3] : nullptr)) return 2;
  std::string what = argv[2];
  if (what == "always") always();
  if (what == "reused") reused();
  if (what == "prewarmed") prewarmed();
  if (what == "streams") streams();
  if (what == "quarantined") quarantined();
  if (what == "pressed") pressed();
  if (what == "pool_faults") faults(true);
  if (what == "copy_faults") faults(false);
  if (what == "copies") copies();
  if (what == "kept_for_a_while") kept_for_a_while();
  if (what == "driver_is_slow") judged(20000, 0);
  if (what == "driver_is_fast") judged(0, 20000);
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
