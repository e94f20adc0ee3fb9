// A fake of a driver with streams, for tests of libairamp.so: of libcuda.so.1, or, with FAKE_HIP, of libamdhip64.so.5
// (with the symbol versions of fake_streams_hip.map). The processor cannot touch the memory of its devices, of which
// there are four; what is enqueued happens late, on a thread for each stream; new memory is full of NaNs. Its kernels
// are those of bf16_kernels.cu, compiled for the host; a module is what the fake compiler of fake_rtc.c makes.

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "host_kernels.hpp"

#ifdef FAKE_HIP
#define NAME(cuda, hip) hip
constexpr const char* kModule = "code for --offload-arch=gfx90a";
#else
#define NAME(cuda, hip) cuda
constexpr const char* kModule = "code for --gpu-architecture=sm_90";
#endif

namespace {

enum { kInvalid = 1, kOutOfMemory = 2, kNoContext = 201, kInvalidHandle = 400, kDevices = 4 };
using Task = std::function<void()>;

std::mutex lock;
struct Block {
  std::size_t size;
  char* contents;
};
std::map<std::uintptr_t, Block> blocks;

// What the address stands for; itself, where it is the host's.
template <class T>
T* contents(const T* address) {
  std::lock_guard guard(lock);
  auto at = reinterpret_cast<std::uintptr_t>(address);
  auto next = blocks.upper_bound(at);
  if (next != blocks.begin()) {
    auto& [begin, block] = *--next;
    if (at - begin < block.size) return reinterpret_cast<T*>(block.contents + (at - begin));
  }
  return const_cast<T*>(address);
}

class Stream {
 public:
  explicit Stream(int device) : device(device) {
    std::thread([this] { run(); }).detach();
  }

  void enqueue(Task task) {
    std::lock_guard guard(lock_);
    if (capture) {
      capture->push_back(std::move(task));
    } else {
      tasks_.push_back(std::move(task));
      unfinished_++;
      changed_.notify_all();
    }
  }
  void synchronise() {
    std::unique_lock guard(lock_);
    changed_.wait(guard, [this] { return unfinished_ == 0; });
  }

  const int device;
  std::unique_ptr<std::vector<Task>> capture;

 private:
  void run() {
    std::minstd_rand random(static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(this) >> 4));
    for (;;) {
      Task task;
      {
        std::unique_lock guard(lock_);
        changed_.wait(guard, [this] { return !tasks_.empty(); });
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      usleep(random() % 200);
      task();
      std::lock_guard guard(lock_);
      unfinished_--;
      changed_.notify_all();
    }
  }

  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  int unfinished_ = 0;
};

// The moment that an event was last recorded for.
struct Moment {
  std::mutex lock;
  std::condition_variable changed;
  bool passed = false;

  void pass() {
    std::lock_guard guard(lock);
    passed = true;
    changed.notify_all();
  }
  void wait() {
    std::unique_lock guard(lock);
    changed.wait(guard, [this] { return passed; });
  }
};
struct Event {
  std::shared_ptr<Moment> moment;
};

#ifdef FAKE_HIP
thread_local int selected = 0;
int current() { return selected; }
#else
thread_local std::vector<int> contexts;
thread_local void* own_context = nullptr;
thread_local std::vector<void*> before_push;
int current() { return contexts.empty() ? -1 : contexts.back(); }
void* context_of(int device) { return reinterpret_cast<void*>(std::uintptr_t{0xc0de} + static_cast<unsigned>(device)); }
int device_of(void* context) { return static_cast<int>(reinterpret_cast<std::uintptr_t>(context) - 0xc0de); }
#endif

Stream* stream_of(void* handle) {
  if (handle) return static_cast<Stream*>(handle);
  static Stream* defaults[kDevices] = {};
  std::lock_guard guard(lock);
  if (current() < 0) return nullptr;
  if (!defaults[current()]) defaults[current()] = new Stream(current());
  return defaults[current()];
}

const char* const kKernels[] = {"pack_bf16_v4", "unpack_bf16_v4", "sum_bf16_v4"};
std::vector<std::string> modules;

template <class T>
T argument(void** arguments, int i) {
  return *static_cast<T*>(arguments[i]);
}

}  // namespace

extern "C" {

// What tests ask for: a device that has no memory left.
int fake_full_device = -1;
std::atomic<int> fake_launches = 0;

// For the fakes of communication libraries.
void fake_enqueue(void* stream, void (*run)(void*), void* data) {
  stream_of(stream)->enqueue([=] { run(data); });
}
void* fake_contents(const void* address) { return contents(static_cast<char*>(const_cast<void*>(address))); }

int NAME(cuMemAlloc_v2, hipMalloc)(std::uintptr_t* address, std::size_t size) {
  if (current() < 0) return kNoContext;
  if (!size) return kInvalid;
  if (current() == fake_full_device) return kOutOfMemory;
  std::size_t whole = (size + 4095) / 4096 * 4096;
  void* reserved = mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  void* real = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  std::memset(real, 0xff, whole);
  *address = reinterpret_cast<std::uintptr_t>(reserved);
  std::lock_guard guard(lock);
  blocks[*address] = {whole, static_cast<char*>(real)};
  return 0;
}
int NAME(cuMemFree_v2, hipFree)(std::uintptr_t address) {
  std::lock_guard guard(lock);
  auto found = blocks.find(address);
  if (found == blocks.end()) return address ? kInvalid : 0;
  munmap(reinterpret_cast<void*>(address), found->second.size);
  munmap(found->second.contents, found->second.size);
  blocks.erase(found);
  return 0;
}
int NAME(cuMemAllocHost_v2, hipMemAllocHost)(void** address, std::size_t size) {
  return *address = malloc(size), *address ? 0 : kOutOfMemory;
}
// Of the test program: after a synchronisation.
#ifdef FAKE_HIP
int hipMemcpy(char* to, const char* from, std::size_t size, int) {
#else
int cuMemcpy(char* to, const char* from, std::size_t size) {
#endif
  return std::memcpy(contents(to), contents(from), size), 0;
}
// The host's memory is read before it returns.
int NAME(cuMemcpyHtoDAsync_v2, hipMemcpyHtoDAsync)(char* to, const char* from, std::size_t size, void* stream) {
  std::string copy(from, size);
  stream_of(stream)->enqueue([=] { std::memcpy(contents(to), copy.data(), size); });
  return 0;
}
int NAME(cuMemcpyDtoHAsync_v2, hipMemcpyDtoHAsync)(char* to, const char* from, std::size_t size, void* stream) {
  stream_of(stream)->enqueue([=] { std::memcpy(to, contents(from), size); });
  return 0;
}
int NAME(cuMemcpyDtoDAsync_v2, hipMemcpyDtoDAsync)(char* to, const char* from, std::size_t size, void* stream) {
  stream_of(stream)->enqueue([=] { std::memmove(contents(to), contents(from), size); });
  return 0;
}

int NAME(cuModuleLoadData, hipModuleLoadData)(void** module, const char* image) {
  if (std::string(image).rfind(kModule, 0) != 0) return 200;  // CUDA_ERROR_INVALID_IMAGE
  *module = const_cast<char*>(kModule);
  return 0;
}
int NAME(cuModuleGetFunction, hipModuleGetFunction)(void** function, void*, const char* name) {
  for (const char* kernel : kKernels)
    if (std::strcmp(kernel, name) == 0) return *function = const_cast<char*>(kernel), 0;
  return 500;
}
int NAME(cuLaunchKernel, hipModuleLaunchKernel)(void* kernel, unsigned x, unsigned y, unsigned, unsigned threads,
                                                unsigned, unsigned, unsigned, void* handle, void** a, void**) {
  Stream* stream = stream_of(handle);
  if (!stream || stream->device != current()) return kInvalidHandle;
  using namespace host_kernels;
  using Floats = float_bits*;
  using Halves = bf16_bits*;
  Task task;
  if (kernel == kKernels[0]) {
    auto from = argument<Floats>(a, 0);
    auto to = argument<Halves>(a, 1);
    auto count = argument<host_kernels::size>(a, 2);
    task = [=] { launch(x, y, threads, [f = contents(from), t = contents(to), count] { pack_bf16_v4(f, t, count); }); };
  } else if (kernel == kKernels[1]) {
    auto from = argument<Halves>(a, 0);
    auto to = argument<Floats>(a, 1);
    auto count = argument<host_kernels::size>(a, 2), pitch = argument<host_kernels::size>(a, 4),
         to_pitch = argument<host_kernels::size>(a, 5);
    float scale = argument<float>(a, 3);
    task = [=] {
      launch(x, y, threads,
             [=, f = contents(from), t = contents(to)] { unpack_bf16_v4(f, t, count, scale, pitch, to_pitch); });
    };
  } else {
    auto own = argument<float*>(a, 0);
    auto addends = argument<Halves>(a, 1), to = argument<Halves>(a, 5);
    auto pitch = argument<host_kernels::size>(a, 2), count = argument<host_kernels::size>(a, 6);
    int rank = argument<int>(a, 3), ranks = argument<int>(a, 4);
    float scale = argument<float>(a, 7);
    task = [=] {
      launch(x, y, threads, [=, o = contents(own), d = contents(addends), t = contents(to)] {
        sum_bf16_v4(o, d, pitch, rank, ranks, t, count, scale);
      });
    };
  }
  fake_launches++;
  stream->enqueue(std::move(task));
  return 0;
}
int NAME(cuStreamAddCallback, hipStreamAddCallback)(void* stream, void (*call)(void*, int, void*), void* data,
                                                    unsigned) {
  stream_of(stream)->enqueue([=] { call(stream, 0, data); });
  return 0;
}

int NAME(cuStreamCreate, hipStreamCreateWithFlags)(void** stream, unsigned) {
  if (current() < 0) return kNoContext;
  *stream = new Stream(current());
  return 0;
}
int NAME(cuStreamSynchronize, hipStreamSynchronize)(void* stream) { return stream_of(stream)->synchronise(), 0; }
// Its thread stays; a test has few streams.
int NAME(cuStreamDestroy_v2, hipStreamDestroy)(void* stream) { return stream_of(stream)->synchronise(), 0; }
int NAME(cuStreamIsCapturing, hipStreamIsCapturing)(void* stream, int* status) {
  return *status = stream_of(stream)->capture != nullptr, 0;
}
int NAME(cuStreamBeginCapture_v2, hipStreamBeginCapture)(void* stream, int) {
  return stream_of(stream)->capture = std::make_unique<std::vector<Task>>(), 0;
}
int NAME(cuStreamEndCapture, hipStreamEndCapture)(void* stream, void** graph) {
  return *graph = stream_of(stream)->capture.release(), 0;
}
// A graph runs as it is.
int NAME(cuGraphLaunch, hipGraphLaunch)(void* graph, void* stream) {
  for (const Task& task : *static_cast<std::vector<Task>*>(graph)) stream_of(stream)->enqueue(task);
  return 0;
}

int NAME(cuEventCreate, hipEventCreateWithFlags)(void** event, unsigned) { return *event = new Event, 0; }
int NAME(cuEventRecord, hipEventRecord)(Event* event, void* stream) {
  event->moment = std::make_shared<Moment>();
  stream_of(stream)->enqueue([moment = event->moment] { moment->pass(); });
  return 0;
}
int NAME(cuStreamWaitEvent, hipStreamWaitEvent)(void* stream, Event* event, unsigned) {
  if (event->moment) stream_of(stream)->enqueue([moment = event->moment] { moment->wait(); });
  return 0;
}
int NAME(cuEventSynchronize, hipEventSynchronize)(Event* event) {
  if (event->moment) event->moment->wait();
  return 0;
}
int NAME(cuEventDestroy_v2, hipEventDestroy)(Event* event) { return delete event, 0; }

#ifdef FAKE_HIP
int hipGetDevice(int* device) { return *device = selected, 0; }
int hipSetDevice(int device) { return device < 0 || device >= kDevices ? 101 : (selected = device, 0); }
int hipGetDeviceProperties(char* properties, int) {
  std::memset(properties, 0, 792);
  std::strcpy(properties, "A fake of gfx1");
  std::strcpy(properties + 500, "gfx90a:sramecc+:xnack-");
  return 0;
}
#else
int cuCtxPushCurrent_v2(void* context) {
  before_push.push_back(own_context);
  own_context = nullptr;
  contexts.push_back(device_of(context));
  return 0;
}
int cuCtxPopCurrent_v2(void** context) {
  if (contexts.empty()) return kNoContext;
  *context = context_of(contexts.back());
  contexts.pop_back();
  own_context = before_push.back();
  before_push.pop_back();
  return 0;
}
int cuCtxGetCurrent(void** context) {
  *context = current() < 0 ? nullptr : own_context ? own_context : context_of(current());
  return 0;
}
// A context of the program's own, on device 0, is only told apart here.
int cuCtxCreate_v2(void** context, unsigned, int) {
  return *context = own_context = &own_context, contexts.assign(1, 0), 0;
}
int cuCtxSetCurrent(void* context) { return contexts.assign(1, device_of(context)), 0; }
int cuCtxGetDevice(int* device) { return current() < 0 ? kNoContext : (*device = current(), 0); }
int cuDevicePrimaryCtxRetain(void** context, int device) { return *context = context_of(device), 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) { return *value = attribute == 75 ? 9 : 0, 0; }
#endif
}
