// A fake of NCCL and RCCL for tests of libairamp.so, under their file names: ranks are threads, processes, or both, and
// talk through shared memory. Collectives happen late, in the order of their stream and of their communicator; groups
// are started together. Its unique ids are laid out as the real ones: 8 bytes, then an address. What a rank would send
// by ring algorithms is counted in fake_wire_bytes, and takes the time of a link of FAKE_NCCL_RATE bytes a second, if
// that is set.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "../bf16.hpp"

extern "C" {
void fake_enqueue(void* stream, void (*run)(void*), void* data);
void* fake_contents(const void* address);
#ifdef FAKE_HIP
int hipStreamIsCapturing(void* stream, int* status);
int hipGetDevice(int* device);
int hipSetDevice(int device);
#define is_capturing hipStreamIsCapturing
int device_now() {
  int device = -1;
  return hipGetDevice(&device) == 0 ? device : -1;
}
#else
int cuStreamIsCapturing(void* stream, int* status);
int cuCtxGetDevice(int* device);
#define is_capturing cuStreamIsCapturing
int device_now() {
  int device = -1;
  return cuCtxGetDevice(&device) == 0 ? device : -1;
}
#endif

// What tests ask.
std::atomic<long> fake_wire_bytes = 0;
std::atomic<int> fake_nccl_error = 0;  // of the next call
}

namespace {

constexpr int kMost = 4;
enum { kSuccess = 0, kInvalidArgument = 4, kInvalidUsage = 5 };

struct Ring {
  static constexpr std::size_t kSize = 1 << 16;
  std::atomic<std::size_t> written, read;
  char data[kSize];

  std::size_t write(const char* from, std::size_t size) {
    std::size_t w = written.load(), n = kSize - (w - read.load(std::memory_order_acquire));
    if (n > size) n = size;
    for (std::size_t i = 0; i < n;) {
      std::size_t at = (w + i) % kSize, part = n - i < kSize - at ? n - i : kSize - at;
      std::memcpy(data + at, from + i, part);
      i += part;
    }
    written.store(w + n, std::memory_order_release);
    return n;
  }
  std::size_t take(char* to, std::size_t size) {
    std::size_t r = read.load(), n = written.load(std::memory_order_acquire) - r;
    if (n > size) n = size;
    for (std::size_t i = 0; i < n;) {
      std::size_t at = (r + i) % kSize, part = n - i < kSize - at ? n - i : kSize - at;
      std::memcpy(to + i, data + at, part);
      i += part;
    }
    read.store(r + n, std::memory_order_release);
    return n;
  }
};

// Of a communicator, for all its ranks.
struct Shared {
  std::atomic<int> arrived;
  Ring rings[2][kMost][kMost];  // for the devices' work, and for the making of communicators; [from][to]
};

struct Comm {
  std::uint64_t magic;
  int rank, size, device, splits = 0;
  Shared* shared;
  std::atomic<std::uint64_t> tickets = 0, serving = 0;  // one after the other, on whichever stream
};

struct Id {
  std::uint64_t magic;
  sockaddr_in address;
  char rest[128 - sizeof(std::uint64_t) - sizeof(sockaddr_in)];
};
static_assert(sizeof(Id) == 128);

struct Transfer {
  Comm* comm;
  bool sends;
  int peer;
  char* data;
  std::size_t left;
};

// All at once; those between the same two in order.
void run(std::vector<Transfer> transfers, int plane) {
  for (bool busy = true; busy;) {
    busy = false;
    bool waits[2][kMost] = {};
    for (Transfer& t : transfers) {
      if (!t.left) continue;
      busy = true;
      if (waits[t.sends][t.peer]) continue;
      auto& rings = t.comm->shared->rings[plane];
      std::size_t n = t.sends ? rings[t.comm->rank][t.peer].write(t.data, t.left)
                              : rings[t.peer][t.comm->rank].take(t.data, t.left);
      t.data += n;
      t.left -= n;
      waits[t.sends][t.peer] = t.left > 0;
    }
    sched_yield();
  }
}

Shared* open_shared(std::uint64_t magic) {
  char name[64];
  std::snprintf(name, sizeof name, "/airamp-fake-nccl-%016llx", static_cast<unsigned long long>(magic));
  int file = shm_open(name, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, sizeof(Shared)) != 0) abort();
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return static_cast<Shared*>(memory);
}

// Arrives; who waits for all then takes the name away.
void arrive(Comm* c) { c->shared->arrived++; }
void await(Comm* c) {
  while (c->shared->arrived < c->size) usleep(100);
  char name[64];
  std::snprintf(name, sizeof name, "/airamp-fake-nccl-%016llx", static_cast<unsigned long long>(c->magic));
  shm_unlink(name);
}

enum Kind { kSend, kReceive, kAllReduce, kAllGather, kReduceScatter };
struct Operation {
  Kind kind;
  Comm* comm;
  void* stream;
  const void* from;
  void* to;
  std::size_t count;
  int type, op, peer;
};

std::size_t size_of(int type) {
  constexpr std::size_t kSizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return kSizes[type];
}

template <class T>
T combine(T a, T b, int op) {
  switch (op) {
    case 1: return a * b;
    case 2: return a > b ? a : b;
    case 3: return a < b ? a : b;
    default: return a + b;
  }
}

struct Bfloat16 {
  std::uint16_t bits;
  float value() const {
    std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
    float v;
    std::memcpy(&v, &wide, 4);
    return v;
  }
};
Bfloat16 combine(Bfloat16 a, Bfloat16 b, int op) {
  float sum = combine(a.value(), b.value(), op);
  std::uint32_t bits;
  std::memcpy(&bits, &sum, 4);
  return {AIRamp::Interposer::bf16::round(bits)};
}

template <class T>
void combine_all(const std::vector<std::vector<char>>& parts, void* to, std::size_t count, int op) {
  auto* out = static_cast<T*>(to);
  for (std::size_t i = 0; i < count; i++) {
    T value = reinterpret_cast<const T*>(parts[0].data())[i];
    for (std::size_t r = 1; r < parts.size(); r++)
      value = combine(value, reinterpret_cast<const T*>(parts[r].data())[i], op);
    if constexpr (std::is_same_v<T, float>)
      if (op == 4) value /= static_cast<float>(parts.size());
    out[i] = value;
  }
}

void collective(const Operation& o) {
  Comm* c = o.comm;
  auto n = static_cast<std::size_t>(c->size), rank = static_cast<std::size_t>(c->rank);
  std::size_t bytes = o.count * size_of(o.type);
  auto* from = static_cast<char*>(fake_contents(o.from));
  auto* to = static_cast<char*>(fake_contents(o.to));
  bool scatters = o.kind == kReduceScatter;
  std::vector<std::vector<char>> parts(n, std::vector<char>(bytes));
  std::vector<Transfer> transfers;
  std::vector<char> copy(from, from + bytes * (scatters ? n : 1));
  for (std::size_t peer = 0; peer < n; peer++) {
    char* part = copy.data() + (scatters ? peer * bytes : 0);
    if (peer == rank) {
      parts[peer].assign(part, part + bytes);
      continue;
    }
    transfers.push_back({c, true, static_cast<int>(peer), part, bytes});
    transfers.push_back({c, false, static_cast<int>(peer), parts[peer].data(), bytes});
  }
  run(transfers, 0);
  if (o.kind == kAllGather) {
    for (std::size_t peer = 0; peer < n; peer++) std::memcpy(to + peer * bytes, parts[peer].data(), bytes);
    fake_wire_bytes += static_cast<long>((n - 1) * bytes);
    return;
  }
  fake_wire_bytes += static_cast<long>(scatters ? (n - 1) * bytes : 2 * (n - 1) * bytes / n);
  switch (o.type) {
    case 2: combine_all<std::int32_t>(parts, to, o.count, o.op); break;
    case 5: combine_all<std::uint64_t>(parts, to, o.count, o.op); break;
    case 7: combine_all<float>(parts, to, o.count, o.op); break;
    case 8: combine_all<double>(parts, to, o.count, o.op); break;
    case 9: combine_all<Bfloat16>(parts, to, o.count, o.op); break;
    default: abort();
  }
}

// As a link of that many bytes a second, where a test names them.
void take_time(long bytes) {
  static const char* rate = std::getenv("FAKE_NCCL_RATE");
  if (rate) usleep(static_cast<useconds_t>(static_cast<double>(bytes) * 1e6 / std::atof(rate)));
}

// What one communicator does of a group, as one piece of its stream.
struct Work {
  Comm* comm;
  std::vector<Operation> operations;
  bool captured;
  std::uint64_t ticket;

  static void run_it(void* self) {
    auto* w = static_cast<Work*>(self);
    std::uint64_t ticket = w->captured ? w->comm->tickets++ : w->ticket;
    while (w->comm->serving.load() != ticket) usleep(50);
    long before = fake_wire_bytes;
    std::vector<Transfer> transfers;
    for (const Operation& o : w->operations) {
      if (o.kind > kReceive) continue;
      std::size_t bytes = o.count * size_of(o.type);
      void* data = fake_contents(o.kind == kSend ? o.from : o.to);
      transfers.push_back({o.comm, o.kind == kSend, o.peer, static_cast<char*>(data), bytes});
      if (o.kind == kSend) fake_wire_bytes += static_cast<long>(bytes);
    }
    run(transfers, 0);
    for (const Operation& o : w->operations)
      if (o.kind > kReceive) collective(o);
    take_time(fake_wire_bytes - before);
    w->comm->serving++;
    if (!w->captured) delete w;
  }
};

struct Made {
  Comm** place;
  Comm* comm;
};
thread_local int depth = 0;
thread_local std::vector<Operation> pending;
thread_local std::vector<Made> making;

int flush() {
  for (Made& m : making) arrive(m.comm);
  for (Made& m : making) {
    await(m.comm);
    *m.place = m.comm;
  }
  making.clear();
  while (!pending.empty()) {
    auto* work = new Work{pending[0].comm, {}, false, 0};
    void* stream = pending[0].stream;
    std::vector<Operation> rest;
    for (const Operation& o : pending) (o.comm == work->comm ? work->operations : rest).push_back(o);
    pending = rest;
    int status = 0;
    is_capturing(stream, &status);
    work->captured = status != 0;
    if (!work->captured) work->ticket = work->comm->tickets++;
    fake_enqueue(stream, Work::run_it, work);
  }
  return kSuccess;
}

int call(const Operation& o) {
  if (int error = fake_nccl_error.exchange(0)) return error;
  if (!o.comm || o.type < 0 || o.type > 9) return kInvalidArgument;
  pending.push_back(o);
  return depth ? kSuccess : flush();
}

int make(Comm** place, std::uint64_t magic, int size, int rank) {
  if (size < 1 || size > kMost || rank < 0 || rank >= size) return kInvalidArgument;
  making.push_back({place, new Comm{magic, rank, size, device_now(), 0, open_shared(magic)}});
  return depth ? kSuccess : flush();
}

}  // namespace

extern "C" {

int ncclGetVersion(int* version) { return *version = 22809, 0; }
int ncclGetUniqueId(Id* id) {
  std::random_device random;
  std::memset(id, 0, sizeof *id);
  id->magic = static_cast<std::uint64_t>(random()) << 32 | random();
  id->address.sin_family = AF_INET;
  id->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  id->address.sin_port = htons(9);
  return 0;
}
int ncclCommInitRank(Comm** comm, int size, Id id, int rank) { return make(comm, id.magic, size, rank); }
struct Config {
  std::size_t size;
  unsigned magic, version;
  int blocking;
};
int ncclCommInitRankConfig(Comm** comm, int size, Id id, int rank, Config* config) {
  int code = make(comm, id.magic, size, rank);
  return code == kSuccess && config && config->blocking == 0 ? 7 : code;
}
int ncclGroupStart() { return depth++, 0; }
int ncclGroupEnd() {
  if (!depth) return kInvalidUsage;
  return --depth ? kSuccess : flush();
}
int ncclCommInitAll(Comm** comms, int count, const int* devices);
int ncclCommSplit(Comm* parent, int color, int key, Comm** child, Config*) {
  struct Place {
    int color, key;
  };
  std::vector<Place> all(static_cast<std::size_t>(parent->size));
  Place mine = {color, key};
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < parent->size; peer++) {
    auto* theirs = reinterpret_cast<char*>(&all[static_cast<std::size_t>(peer)]);
    transfers.push_back({parent, true, peer, reinterpret_cast<char*>(&mine), sizeof mine});
    transfers.push_back({parent, false, peer, theirs, sizeof mine});
  }
  run(transfers, 1);
  std::uint64_t magic = (parent->magic ^ static_cast<std::uint64_t>(++parent->splits)) * 1099511628211u +
                        static_cast<std::uint64_t>(color + 1);
  *child = nullptr;
  if (color < 0) return kSuccess;
  int size = 0, rank = 0;
  for (int r = 0; r < parent->size; r++) {
    Place p = all[static_cast<std::size_t>(r)];
    if (p.color != color) continue;
    size++;
    rank += p.key < key || (p.key == key && r < parent->rank);
  }
  return make(child, magic, size, rank);
}
int ncclCommDestroy(Comm* comm) {
  while (comm->serving.load() != comm->tickets.load()) usleep(50);
  return 0;
}
int ncclCommAbort(Comm*) { return 0; }
int ncclCommCount(Comm* comm, int* count) { return *count = comm->size, 0; }
int ncclCommUserRank(Comm* comm, int* rank) { return *rank = comm->rank, 0; }
int ncclCommCuDevice(Comm* comm, int* device) { return *device = comm->device, 0; }
int ncclCommWindowRegister(Comm*, void*, std::size_t, void** window, int) { return *window = nullptr, 0; }

int ncclSend(const void* from, std::size_t count, int type, int peer, Comm* comm, void* stream) {
  return call({kSend, comm, stream, from, nullptr, count, type, 0, peer});
}
int ncclRecv(void* to, std::size_t count, int type, int peer, Comm* comm, void* stream) {
  return call({kReceive, comm, stream, nullptr, to, count, type, 0, peer});
}
int ncclAllReduce(const void* from, void* to, std::size_t count, int type, int op, Comm* comm, void* stream) {
  return count ? call({kAllReduce, comm, stream, from, to, count, type, op, 0}) : 0;
}
int ncclAllGather(const void* from, void* to, std::size_t count, int type, Comm* comm, void* stream) {
  return call({kAllGather, comm, stream, from, to, count, type, 0, 0});
}
int ncclReduceScatter(const void* from, void* to, std::size_t count, int type, int op, Comm* comm, void* stream) {
  return call({kReduceScatter, comm, stream, from, to, count, type, op, 0});
}
}

// As the real one, through the library's own public functions.
int ncclCommInitAll(Comm** comms, int count, const int* devices) {
  Id id;
  ncclGetUniqueId(&id);
  ncclGroupStart();
  for (int i = 0; i < count; i++) {
    if (int e = ncclCommInitRank(&comms[i], count, id, i)) return e;
    making.back().comm->device = devices ? devices[i] : i;
  }
  return ncclGroupEnd();
}
