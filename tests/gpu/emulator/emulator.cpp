// A GPU made of the processor, for tests: libcuda and NVRTC, or libamdhip64 and hiprtc (with EMULATOR_HIP), under their
// own symbol names. Kernels are compiled by the host's compiler with device.hpp and run; work on a stream runs as late
// as the interface allows (when somebody waits for it), so that a missing wait shows as a wrong result. Every address
// is checked against the allocations that live.
//
//   EMULATED_DEVICES=2               devices; unset: 1
//   EMULATED_MEMORY=1000000          bytes of each; unset: 1 GiB
//   EMULATOR_FAIL=cuMemAlloc_v2:3:2  the third call of that function from now on fails with error 2; more after commas.
//                                    Errors 700 and 719 stay, as they do on a device
//   EMULATOR_CACHE=FOLDER            where compiled kernels are kept; unset: nowhere that lasts
#include <dlfcn.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.hpp"
#include "device.hpp"

extern char** environ;
#define EXPORT extern "C" __attribute__((visibility("default")))
#ifdef EMULATOR_HIP
#define API(cuda_name, hip_name) EXPORT int hip_name
#else
#define API(cuda_name, hip_name) EXPORT int cuda_name
#endif

namespace {

using Handle = void*;
using Address = uint64_t;
using emulator::Index;
using emulator::State;
namespace fs = std::filesystem;

enum : int {
  kInvalid = 1,
  kOutOfMemory = 2,
  kNoImage = 200,
  kNotFound = 500,
  kIllegalAddress = 700,
  kLaunchFailed = 719,
  kNotWhileCapturing = 900,
};

std::recursive_mutex mutex;
#define ENTER                                        \
  std::lock_guard<std::recursive_mutex> lock(mutex); \
  if (int injected = called(__func__); injected) return injected

// ---------------------------------------------------------------- failures on order

std::map<std::string, long> calls;
struct Order {
  long turns;
  int error;
};
std::map<std::string, Order> orders;
int sticky = 0;

void order(const char* list) {
  std::stringstream in(list ? list : "");
  for (std::string item; std::getline(in, item, ',');) {
    char name[64];
    Order o{};
    if (std::sscanf(item.c_str(), "%63[^:]:%ld:%d", name, &o.turns, &o.error) == 3) orders[name] = o;
  }
}
int called(const char* name) {
  static const bool once = (order(std::getenv("EMULATOR_FAIL")), true);
  (void)once;
  ++calls[name];
  if (sticky) return sticky;
  auto it = orders.find(name);
  if (it == orders.end() || --it->second.turns > 0) return 0;
  int error = it->second.error;
  orders.erase(it);
  if (error == kIllegalAddress || error == kLaunchFailed) sticky = error;
  return error;
}
int lost(int error, const std::string& why) {
  std::fprintf(stderr, "emulator: %s\n", why.c_str());
  return sticky = error;
}

long number(const char* variable, long otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::atol(text) : otherwise;
}

// ---------------------------------------------------------------- memory

std::map<Address, size_t> blocks;
size_t used = 0;

bool covers(Address a, size_t bytes) {
  auto it = blocks.upper_bound(a);
  return it != blocks.begin() && (--it, a >= it->first && a + bytes <= it->first + it->second);
}
int take(Address* a, size_t bytes) {
  if (bytes == 0) return kInvalid;
  if (used + bytes > size_t(number("EMULATED_MEMORY", 1L << 30))) return kOutOfMemory;
  void* memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
  std::memset(memory, 0xcd, bytes);  // a kernel that reads what nobody wrote shows
  *a = Address(memory);
  blocks[*a] = bytes;
  used += bytes;
  return 0;
}
int give(Address a) {
  auto it = blocks.find(a);
  if (it == blocks.end()) return kInvalid;
  used -= it->second;
  std::memset(reinterpret_cast<void*>(a), 0xdd, it->second);
  blocks.erase(it);
  std::free(reinterpret_cast<void*>(a));
  return 0;
}

// ---------------------------------------------------------------- streams, events, graphs

using Work = std::function<int()>;
struct Graph {
  std::vector<Work> work;
};
struct Stream {
  std::deque<Work> waiting;
  long put = 0, done = 0;
  std::unique_ptr<Graph> recording;
  bool spoilt = false;

  int add(Work w) {
    if (recording) {
      recording->work.push_back(std::move(w));
      return 0;
    }
    waiting.push_back(std::move(w));
    ++put;
    return 0;
  }
  int run_to(long end) {
    if (recording) return spoilt = true, kNotWhileCapturing;
    while (done < end) {
      Work w = std::move(waiting.front());
      waiting.pop_front();
      ++done;
      if (int e = sticky ? sticky : w()) return e;
    }
    return 0;
  }
};
struct Event {
  Stream* stream = nullptr;
  long at = 0;
};
std::set<Stream*> streams;
int run_all() {
  for (Stream* s : streams)
    if (int e = s->run_to(s->put)) return e;
  return 0;
}
Stream* of(Handle s) { return static_cast<Stream*>(s); }

// ---------------------------------------------------------------- fibers

struct Fiber {
  enum class At { start, running, barrier, exchange, end };
  At at = At::end;
  void* sp = nullptr;
  Index item{};
  int lane = 0, turn = 0;
  const void* mine = nullptr;
  int bytes = 0;
};

#if defined(__x86_64__)
asm(R"(
.text
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
extern "C" void emulator_switch(void** from, void* to);
#else
#error "The emulator switches between fibers by hand, which is written for x86-64 only."
#endif

using Kernel = void(State*, void**, int);
#ifdef EMULATOR_HIP
constexpr unsigned kWarp = 64;  // of gfx90a
#else
constexpr unsigned kWarp = 32;
#endif

// The items of one group, side by side.
class Group {
 public:
  void run(Kernel* kernel, void** arguments, State& state, unsigned items) {
    kernel_ = kernel, arguments_ = arguments, state_ = &state;
    current() = this;
    while (fibers_.size() < items) add();
    unsigned n = 0;
    for (unsigned z = 0; z < state.size.z; ++z)
      for (unsigned y = 0; y < state.size.y; ++y)
        for (unsigned x = 0; x < state.size.x; ++x, ++n) {
          Fiber& f = *fibers_[n];
          f.item = {x, y, z}, f.lane = int(n % kWarp), f.turn = 0, f.at = Fiber::At::start;
        }
    for (unsigned left = items; left;) {
      unsigned arrived = 0;
      left = 0;
      for (unsigned w = 0; w < items; w += kWarp) {
        const unsigned end = std::min(items, w + kWarp);
        for (bool again = true; again;) {
          again = false;
          unsigned exchanging = 0;
          for (unsigned i = w; i < end; ++i) {
            Fiber& f = *fibers_[i];
            if (f.at != Fiber::At::end && f.at != Fiber::At::barrier) enter(f);
            exchanging += f.at == Fiber::At::exchange;
          }
          if (!exchanging) break;
          if (exchanging != end - w) return fail("not every lane of a warp takes part in a collective call");
          again = true;
        }
        for (unsigned i = w; i < end; ++i) {
          arrived += fibers_[i]->at == Fiber::At::barrier;
          left += fibers_[i]->at != Fiber::At::end;
        }
      }
      if (arrived != 0 && arrived != items) return fail("not every item of a group arrives at a barrier");
      for (unsigned i = 0; i < items && arrived; ++i) fibers_[i]->at = Fiber::At::running;
    }
  }
  std::string failure;

  static void barrier(State* s) { current()->stop(s, Fiber::At::barrier); }
  static const void* exchange(State* s, const void* mine, int bytes) {
    Group& g = *current();
    Fiber& f = *g.now_;
    f.turn ^= 1;
    char* table = g.tables_[f.turn];
    std::memcpy(table + 64 * f.lane, mine, size_t(bytes));
    g.stop(s, Fiber::At::exchange);
    return table;
  }

 private:
  static constexpr size_t kStack = 128 << 10;
  static Group*& current() {
    static thread_local Group* g;
    return g;
  }
  void add() {
    fibers_.push_back(std::make_unique<Fiber>());
    char* stack = static_cast<char*>(
        mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    auto* top = reinterpret_cast<void**>(stack + kStack);
    top[-2] = reinterpret_cast<void*>(&main);
    fibers_.back()->sp = top - 8;  // six registers under it
  }
  static void main() {
    for (;;) {
      Group& g = *current();
      g.kernel_(g.state_, g.arguments_, 0);
      current()->stop(current()->state_, Fiber::At::end);
    }
  }
  void enter(Fiber& f) {
    now_ = &f;
    state_->item = f.item;
    f.at = Fiber::At::running;
    emulator_switch(&back_, f.sp);
  }
  void stop(State*, Fiber::At at) {
    now_->at = at;
    emulator_switch(&now_->sp, back_);
  }
  // Fibers that stand in the middle of a kernel are not used again.
  void fail(const char* why) {
    failure = why;
    for (auto& f : fibers_) (void)f.release();
    fibers_.clear();
  }

  std::vector<std::unique_ptr<Fiber>> fibers_;
  Fiber* now_ = nullptr;
  void* back_ = nullptr;
  Kernel* kernel_ = nullptr;
  void** arguments_ = nullptr;
  State* state_ = nullptr;
  char tables_[2][kWarp * 64];
};

// ---------------------------------------------------------------- kernels

struct Function {
  std::string name;
  Kernel* kernel = nullptr;
  int arguments = 0;
  bool collective = false;
};
using Module = std::map<std::string, Function>;

int run_kernel(const Function& f, Index grid, Index size, std::vector<uint64_t> values) {
  std::vector<void*> arguments;
  for (uint64_t& v : values) arguments.push_back(&v);
  State s{};
  s.size = size, s.groups = grid;
  s.barrier = Group::barrier, s.exchange = Group::exchange;
  s.known = [](State*, const void* p) { return int(covers(Address(p), 1)); };
  f.kernel(&s, arguments.data(), 1);
  if (s.bad_argument) return lost(kIllegalAddress, f.name + " is given an address where no memory is");
  const unsigned items = size.x * size.y * size.z;
  static thread_local Group group;
  for (s.group.z = 0; s.group.z < grid.z; ++s.group.z)
    for (s.group.y = 0; s.group.y < grid.y; ++s.group.y)
      for (s.group.x = 0; s.group.x < grid.x; ++s.group.x) {
        if (f.collective) {
          group.run(f.kernel, arguments.data(), s, items);
          if (!group.failure.empty()) return lost(kLaunchFailed, f.name + ": " + std::exchange(group.failure, ""));
          continue;
        }
        for (s.item.z = 0; s.item.z < size.z; ++s.item.z)
          for (s.item.y = 0; s.item.y < size.y; ++s.item.y)
            for (s.item.x = 0; s.item.x < size.x; ++s.item.x) f.kernel(&s, arguments.data(), 0);
      }
  return 0;
}

std::string cache_folder() {
  static const std::string folder = [] {
    if (const char* given = std::getenv("EMULATOR_CACHE")) return std::string(given);
    char text[] = "/tmp/emulatorXXXXXX";
    return std::string(mkdtemp(text));
  }();
  return folder;
}

struct Program {
  std::string text, image, log;
};

// The text is a prelude and kernels, each after a line "// kernel NAME". Each kernel is a library of its own, so that
// it is compiled once in whatever company it comes.
int compile(Program& p) {
  const std::string mark = "// kernel ";
  size_t at = p.text.find(mark);
  const std::string prelude = p.text.substr(0, at);
  fs::create_directories(cache_folder());
  std::vector<pid_t> running;
  bool good = true;
  auto reap = [&] {
    int status = 0;
    waitpid(running.front(), &status, 0);
    running.erase(running.begin());
    good &= WIFEXITED(status) && WEXITSTATUS(status) == 0;
  };
  std::vector<std::pair<fs::path, fs::path>> made;
  while (at != std::string::npos) {
    size_t next = p.text.find(mark, at + 1);
    std::string body = p.text.substr(at, next == std::string::npos ? next : next - at);
    const std::string name = body.substr(mark.size(), body.find('\n') - mark.size());
    const bool collective = body.find("BARRIER") != std::string::npos || body.find("mma_") != std::string::npos;
    body = prelude + body +
           "#define EMULATED extern \"C\" __attribute__((visibility(\"default\")))\nEMULATED void run_" + name +
           "(emulator::State* s, void** a, int check) { emulator::run(s, " + name +
           ", a, check); }\ntemplate <class... A> constexpr int count(void (*)(A...)) { return sizeof...(A); }\n"
           "EMULATED int arguments_" +
           name + "() { return count(" + name + "); }\n";
    char file[32];
    std::snprintf(file, sizeof file, "%016llx.so",
                  static_cast<unsigned long long>(ai_vmm::hash_bytes(std::as_bytes(std::span(body)))));
    const fs::path library = fs::path(cache_folder()) / file;
    p.image += name + " " + library.string() + (collective ? " 1\n" : " 0\n");
    at = next;
    if (fs::exists(library)) continue;
    const std::string base = library.string() + "." + std::to_string(getpid()), source = base + ".cpp",
                      partial = base + ".part";
    std::ofstream(source) << body;
    const char* arguments[] = {EMULATOR_COMPILER,
                               "-std=c++20",
                               "-O1",
                               "-march=native",
                               "-ffp-contract=off",
                               "-fPIC",
                               "-shared",
                               "-w",
                               "-fvisibility=hidden",
                               "-fno-gnu-unique",
                               "-include",
                               EMULATOR_HEADER,
                               "-o",
                               partial.c_str(),
                               source.c_str(),
                               nullptr};
    if (running.size() == 2) reap();
    pid_t child = 0;
    if (posix_spawnp(&child, EMULATOR_COMPILER, nullptr, nullptr, const_cast<char* const*>(arguments), environ) != 0)
      return p.log = std::string("There is no ") + EMULATOR_COMPILER + ".", 6;
    running.push_back(child);
    made.emplace_back(partial, library);
  }
  while (!running.empty()) reap();
  if (!good) return p.log = "The host's compiler failed; its words are on stderr.", 6;
  for (auto& [partial, library] : made) {
    fs::rename(partial, library);
    fs::remove(partial.string().substr(0, partial.string().size() - 5) + ".cpp");
  }
  return 0;
}

}  // namespace

// What tests ask for beside the vendor's interface.
EXPORT void emulator_fail(const char* list) {
  std::lock_guard lock(mutex);
  sticky = 0;
  orders.clear();
  order(list);
}
EXPORT long emulator_calls(const char* name) {
  std::lock_guard lock(mutex);
  return calls[name];
}
EXPORT size_t emulator_used() {  // bytes of device memory, when all work is done
  std::lock_guard lock(mutex);
  run_all();
  return used;
}
// For the emulated libraries beside this one (libraries.cpp): work on a stream, and whether an address is memory.
EXPORT int emulator_add(Handle stream, int (*work)(void*), void* user, void (*release)(void*)) {
  std::lock_guard lock(mutex);
  std::shared_ptr<void> kept(user, release);
  return of(stream)->add([work, kept] { return work(kept.get()); });
}
EXPORT int emulator_covers(Address a, size_t bytes) {
  std::lock_guard lock(mutex);
  return covers(a, bytes);
}

// ---------------------------------------------------------------- devices

API(cuInit, hipInit)(unsigned) {
  ENTER;
  return 0;
}
API(cuDriverGetVersion, hipDriverGetVersion)(int* version) { return *version = 13000, 0; }
API(cuDeviceGetCount, hipGetDeviceCount)(int* count) { return *count = int(number("EMULATED_DEVICES", 1)), 0; }
API(cuDeviceGet, hipDeviceGet)(int* device, int ordinal) {
  if (ordinal < 0 || ordinal >= number("EMULATED_DEVICES", 1)) return 101;
  return *device = ordinal, 0;
}
API(cuDeviceGetName, hipDeviceGetName)(char* name, int size, int device) {
  return std::snprintf(name, size_t(size), "Emulated GPU %d (test library, on the processor)", device), 0;
}
API(cuDeviceGetPCIBusId, hipDeviceGetPCIBusId)(char* text, int size, int device) {
  return std::snprintf(text, size_t(size), "0000:%02x:00.0", device + 1), 0;
}
API(cuDeviceTotalMem_v2, hipDeviceTotalMem)(size_t* bytes, int) {
  return *bytes = size_t(number("EMULATED_MEMORY", 1L << 30)), 0;
}
API(cuDeviceGetAttribute, hipDeviceGetAttribute)(int* value, int attribute, int) {
#ifdef EMULATOR_HIP
  const std::map<int, int> values = {{56, 1024}, {74, 65536}, {63, 4}};
#else
  const std::map<int, int> values = {{1, 1024}, {8, 49152}, {16, 4}, {75, 9}, {76, 0}, {115, 1}};
#endif
  auto it = values.find(attribute);
  if (it == values.end()) return kInvalid;
  return *value = it->second, 0;
}
#ifdef EMULATOR_HIP
EXPORT int hipSetDevice(int device) {
  ENTER;
  return device < number("EMULATED_DEVICES", 1) ? 0 : 101;
}
EXPORT const char* hipGetErrorName(int) { return "hipErrorEmulated"; }
#else
EXPORT int cuDevicePrimaryCtxRetain(Handle* context, int device) {
  ENTER;
  return *context = reinterpret_cast<Handle>(uintptr_t(device) + 1), 0;
}
EXPORT int cuCtxSetCurrent(Handle context) { return context ? 0 : kInvalid; }
EXPORT int cuGetErrorName(int, const char** text) { return *text = "CUDA_ERROR_EMULATED", 0; }
#endif

// ---------------------------------------------------------------- streams and events

API(cuStreamCreate, hipStreamCreateWithFlags)(Handle* stream, unsigned) {
  ENTER;
  auto* s = new Stream;
  streams.insert(s);
  return *stream = s, 0;
}
API(cuStreamDestroy_v2, hipStreamDestroy)(Handle stream) {
  std::lock_guard lock(mutex);
  of(stream)->run_to(of(stream)->put);
  streams.erase(of(stream));
  delete of(stream);
  return 0;
}
API(cuStreamSynchronize, hipStreamSynchronize)(Handle stream) {
  ENTER;
  return of(stream)->run_to(of(stream)->put);
}
API(cuEventCreate, hipEventCreateWithFlags)(Handle* event, unsigned) {
  ENTER;
  return *event = new Event, 0;
}
API(cuEventDestroy_v2, hipEventDestroy)(Handle event) {
  std::lock_guard lock(mutex);
  delete static_cast<Event*>(event);
  return 0;
}
API(cuEventRecord, hipEventRecord)(Handle event, Handle stream) {
  ENTER;
  auto* e = static_cast<Event*>(event);
  return e->stream = of(stream), e->at = of(stream)->put, 0;
}
API(cuEventSynchronize, hipEventSynchronize)(Handle event) {
  ENTER;
  auto* e = static_cast<Event*>(event);
  return e->stream && streams.count(e->stream) ? e->stream->run_to(e->at) : 0;
}

// ---------------------------------------------------------------- memory

API(cuMemAlloc_v2, hipMalloc)(Address* a, size_t bytes) {
  ENTER;
  return take(a, bytes);
}
API(cuMemFree_v2, hipFree)(Address a) {
  ENTER;
  if (int e = run_all()) return e;
  return give(a);
}
API(cuMemAllocAsync, hipMallocAsync)(Address* a, size_t bytes, Handle) {
  ENTER;
  return take(a, bytes);
}
API(cuMemFreeAsync, hipFreeAsync)(Address a, Handle stream) {
  ENTER;
  return of(stream)->add([a] { return give(a); });
}
API(cuDeviceGetDefaultMemPool, hipDeviceGetDefaultMemPool)(Handle* pool, int) { return *pool = &blocks, 0; }
API(cuMemPoolSetAttribute, hipMemPoolSetAttribute)(Handle, int attribute, void*) {
  return attribute == 4 ? 0 : kInvalid;
}
API(cuMemHostAlloc, hipHostMalloc)(void** memory, size_t bytes, unsigned) {
  ENTER;
  return *memory = std::malloc(bytes), 0;
}
API(cuMemFreeHost, hipHostFree)(void* memory) {
  std::lock_guard lock(mutex);
  run_all();
  return std::free(memory), 0;
}
API(cuMemcpyHtoDAsync_v2, hipMemcpyHtoDAsync)(Address to, const void* from, size_t bytes, Handle stream) {
  ENTER;
  if (!covers(to, bytes)) return kInvalid;
  return of(stream)->add([=] { return std::memcpy(reinterpret_cast<void*>(to), from, bytes), 0; });
}
API(cuMemcpyDtoHAsync_v2, hipMemcpyDtoHAsync)(void* to, Address from, size_t bytes, Handle stream) {
  ENTER;
  if (!covers(from, bytes)) return kInvalid;
  return of(stream)->add([=] { return std::memcpy(to, reinterpret_cast<void*>(from), bytes), 0; });
}
API(cuMemcpyDtoDAsync_v2, hipMemcpyDtoDAsync)(Address to, Address from, size_t bytes, Handle stream) {
  ENTER;
  if (!covers(from, bytes) || !covers(to, bytes)) return kInvalid;
  return of(stream)->add(
      [=] { return std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes), 0; });
}
API(cuMemsetD8Async, hipMemsetD8Async)(Address to, unsigned char value, size_t bytes, Handle stream) {
  ENTER;
  if (!covers(to, bytes)) return kInvalid;
  return of(stream)->add([=] { return std::memset(reinterpret_cast<void*>(to), value, bytes), 0; });
}

// ---------------------------------------------------------------- kernels

API(cuModuleLoadData, hipModuleLoadData)(Handle* module, const void* image) {
  ENTER;
  std::stringstream lines(static_cast<const char*>(image));
  auto m = std::make_unique<Module>();
  std::string name, path;
  for (int collective; lines >> name >> path >> collective;) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) return kNoImage;
    Function f{name, reinterpret_cast<Kernel*>(dlsym(library, ("run_" + name).c_str())), 0, collective != 0};
    auto* count = reinterpret_cast<int (*)()>(dlsym(library, ("arguments_" + name).c_str()));
    if (!f.kernel || !count) return kNoImage;
    f.arguments = count();
    (*m)[name] = f;
  }
  if (m->empty()) return kNoImage;
  return *module = m.release(), 0;
}
API(cuModuleUnload, hipModuleUnload)(Handle module) {
  std::lock_guard lock(mutex);
  run_all();
  delete static_cast<Module*>(module);
  return 0;
}
API(cuModuleGetFunction, hipModuleGetFunction)(Handle* function, Handle module, const char* name) {
  ENTER;
  auto& m = *static_cast<Module*>(module);
  auto it = m.find(name);
  if (it == m.end()) return kNotFound;
  return *function = &it->second, 0;
}
API(cuLaunchKernel, hipModuleLaunchKernel)
(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned x, unsigned y, unsigned z, unsigned, Handle stream,
 void** arguments, void**) {
  ENTER;
  const Function f = *static_cast<Function*>(function);
  if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || x * y * z == 0 || x * y * z > 1024) return kInvalid;
  std::vector<uint64_t> values;
  for (int i = 0; i < f.arguments; ++i) values.push_back(*static_cast<uint64_t*>(arguments[i]));
  return of(stream)->add([=] { return run_kernel(f, {gx, gy, gz}, {x, y, z}, values); });
}

// ---------------------------------------------------------------- graphs

API(cuStreamBeginCapture_v2, hipStreamBeginCapture)(Handle stream, int) {
  ENTER;
  if (of(stream)->recording) return kInvalid;
  of(stream)->recording = std::make_unique<Graph>();
  of(stream)->spoilt = false;
  return 0;
}
API(cuStreamEndCapture, hipStreamEndCapture)(Handle stream, Handle* graph) {
  std::lock_guard lock(mutex);
  auto g = std::move(of(stream)->recording);  // over, whether it fails or not
  if (int injected = called(__func__)) return injected;
  if (!g) return kInvalid;
  if (of(stream)->spoilt) return *graph = nullptr, 901;
  return *graph = g.release(), 0;
}
API(cuGraphInstantiateWithFlags, hipGraphInstantiateWithFlags)(Handle* executable, Handle graph, unsigned long long) {
  ENTER;
  return *executable = new Graph(*static_cast<Graph*>(graph)), 0;
}
API(cuGraphDestroy, hipGraphDestroy)(Handle graph) {
  std::lock_guard lock(mutex);
  return delete static_cast<Graph*>(graph), 0;
}
API(cuGraphExecDestroy, hipGraphExecDestroy)(Handle graph) {
  std::lock_guard lock(mutex);
  return delete static_cast<Graph*>(graph), 0;
}
API(cuGraphLaunch, hipGraphLaunch)(Handle executable, Handle stream) {
  ENTER;
  for (const Work& w : static_cast<Graph*>(executable)->work) of(stream)->add(w);
  return 0;
}

// ---------------------------------------------------------------- the compiler

API(nvrtcVersion, hiprtcVersion)(int* major, int* minor) { return *major = 0, *minor = 0, 0; }
API(nvrtcCreateProgram, hiprtcCreateProgram)
(Handle* program, const char* text, const char*, int, const char* const*, const char* const*) {
  return *program = new Program{text, "", ""}, 0;
}
API(nvrtcDestroyProgram, hiprtcDestroyProgram)(Handle* program) {
  delete static_cast<Program*>(*program);
  return *program = nullptr, 0;
}
API(nvrtcCompileProgram, hiprtcCompileProgram)(Handle program, int, const char* const*) {
  ENTER;
  return compile(*static_cast<Program*>(program));
}
API(nvrtcGetProgramLogSize, hiprtcGetProgramLogSize)(Handle program, size_t* bytes) {
  return *bytes = static_cast<Program*>(program)->log.size() + 1, 0;
}
API(nvrtcGetProgramLog, hiprtcGetProgramLog)(Handle program, char* text) {
  return std::strcpy(text, static_cast<Program*>(program)->log.c_str()), 0;
}
API(nvrtcGetCUBINSize, hiprtcGetCodeSize)(Handle program, size_t* bytes) {
  return *bytes = static_cast<Program*>(program)->image.size() + 1, 0;
}
API(nvrtcGetCUBIN, hiprtcGetCode)(Handle program, char* code) {
  return std::strcpy(code, static_cast<Program*>(program)->image.c_str()), 0;
}
#ifdef EMULATOR_HIP
EXPORT const char* hiprtcGetErrorString(int) { return "emulated"; }
#else
EXPORT const char* nvrtcGetErrorString(int) { return "emulated"; }
#endif
