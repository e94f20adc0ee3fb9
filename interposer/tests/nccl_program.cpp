// A program that uses NCCL on CUDA, or RCCL on HIP, and knows nothing of AIRamp, for fakes of both.
//
//   nccl_program CASE LEAST MOST threads N            N ranks, a thread each
//   nccl_program CASE LEAST MOST group N              N ranks of one thread, in groups; or initgroup, where they are
//   also made
//                                                     in a group
//   nccl_program CASE LEAST MOST process RANK N FILE  one of N processes; rank 0 writes the unique id into the file
//
// Exit 0 if what the case states holds; errors lie between LEAST and MOST. Ranks know each other's inputs, and so the
// exact results.

#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#ifdef FAKE_HIP
#define NAME(cuda, hip) hip
#else
#define NAME(cuda, hip) cuda
#endif

struct NcclId {
  char internal[128];
};
struct Config {
  std::size_t size;
  unsigned magic, version;
  int blocking;
};
extern "C" {
int ncclGetUniqueId(NcclId*);
int ncclCommInitRank(void**, int, NcclId, int);
int ncclCommInitRankConfig(void**, int, NcclId, int, Config*) __attribute__((weak));
int ncclCommInitAll(void**, int, const int*);
int ncclCommSplit(void*, int, int, void**, void*);
int ncclCommDestroy(void*);
int ncclGroupStart();
int ncclGroupEnd();
int ncclAllReduce(const void*, void*, std::size_t, int, int, void*, void*);
int ncclAllGather(const void*, void*, std::size_t, int, void*, void*);

int NAME(cuMemAlloc_v2, hipMalloc)(void**, std::size_t);
int NAME(cuMemFree_v2, hipFree)(void*);
int NAME(cuStreamCreate, hipStreamCreateWithFlags)(void**, unsigned);
int NAME(cuStreamSynchronize, hipStreamSynchronize)(void*);
int NAME(cuStreamBeginCapture_v2, hipStreamBeginCapture)(void*, int);
int NAME(cuStreamEndCapture, hipStreamEndCapture)(void*, void**);
int NAME(cuGraphLaunch, hipGraphLaunch)(void*, void*);
#ifdef FAKE_HIP
int hipMemcpy(void*, const void*, std::size_t, int);
int hipSetDevice(int);
#else
int cuMemcpy(void*, const void*, std::size_t);
int cuDevicePrimaryCtxRetain(void**, int);
int cuCtxSetCurrent(void*);
int cuCtxCreate_v2(void**, unsigned, int);
#endif
extern int fake_full_device;
extern std::atomic<int> fake_nccl_error;
extern std::atomic<long> fake_wire_bytes;
}

namespace {

constexpr int kInt32 = 2, kUint64 = 5, kFloat32 = 7, kFloat64 = 8, kBfloat16 = 9;
constexpr int kSum = 0, kProduct = 1, kMaximum = 2, kMinimum = 3, kAverage = 4;

std::atomic<int> failures = 0;
#define EXPECT(condition, ...)                                     \
  do {                                                             \
    if (!(condition)) {                                            \
      failures++;                                                  \
      std::fprintf(stderr, "line %d: %s: ", __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                           \
      std::fputc('\n', stderr);                                    \
    }                                                              \
  } while (0)
#define OK(call)                              \
  do {                                        \
    int code = (call);                        \
    EXPECT(code == 0, "%s: %d", #call, code); \
  } while (0)

int copy(void* to, const void* from, std::size_t size) {
#ifdef FAKE_HIP
  return hipMemcpy(to, from, size, 4);
#else
  return cuMemcpy(to, from, size);
#endif
}

void select(int device) {
#ifdef FAKE_HIP
  OK(hipSetDevice(device));
#else
  void* context = nullptr;
  OK(cuDevicePrimaryCtxRetain(&context, device));
  OK(cuCtxSetCurrent(context));
#endif
}

// A rank of this thread's, and memory of its device.
struct Rank {
  int rank, size;
  void* comm = nullptr;
  void* stream = nullptr;

  void* allocate(std::size_t bytes) const {
    select(rank);
    void* memory = nullptr;
    OK(NAME(cuMemAlloc_v2, hipMalloc)(&memory, bytes));
    return memory;
  }
  void synchronise() const {
    select(rank);
    OK(NAME(cuStreamSynchronize, hipStreamSynchronize)(stream));
  }
};

void make_stream(Rank& r) {
  select(r.rank);
  OK(NAME(cuStreamCreate, hipStreamCreateWithFlags)(&r.stream, 1));
}

void deallocate(void* memory) { OK(NAME(cuMemFree_v2, hipFree)(memory)); }

// Collectives of one thread's ranks.
using Ranks = std::vector<Rank>;
void together(const Ranks& ranks, const std::function<int(const Rank&, std::size_t)>& call) {
  if (ranks.size() > 1) OK(ncclGroupStart());
  for (std::size_t i = 0; i < ranks.size(); i++) OK(call(ranks[i], i));
  if (ranks.size() > 1) OK(ncclGroupEnd());
}

// Of mean 0 and variance 1, roughly normal.
std::vector<float> numbers(std::size_t count, int seed) {
  std::uint64_t state = static_cast<std::uint64_t>(seed) * 0x9e3779b97f4a7c15u + 1;
  std::vector<float> v(count);
  for (float& x : v) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    int sum = 0;
    for (int shift = 32; shift < 64; shift += 8) sum += static_cast<int>(state >> shift & 0xff);
    x = static_cast<float>(sum - 510) / 147.8f + static_cast<float>(state >> 8 & 0xffff) * 1e-7f;
  }
  return v;
}

// (2u + u²) with u = 2⁻⁸, of two roundings to bfloat16; the last term is for what float32 rounds.
constexpr double kBound = 2.0 / 256 + 1.0 / 65536 + 1e-6;

// A hash of all bits, the same on all ranks.
void check_same_bits(const Ranks& ranks, const std::vector<std::vector<float>>& y) {
  std::vector<void*> memory;
  for (std::size_t i = 0; i < ranks.size(); i++) {
    std::uint64_t hash[2] = {};
    for (float value : y[i]) {
      std::uint32_t bits;
      std::memcpy(&bits, &value, 4);
      hash[0] = hash[0] * 1099511628211u + bits;
    }
    hash[1] = ~hash[0];
    memory.push_back(ranks[i].allocate(sizeof hash));
    OK(copy(memory[i], hash, sizeof hash));
  }
  together(ranks, [&](const Rank& r, std::size_t i) {
    return ncclAllReduce(memory[i], memory[i], 2, kUint64, kMinimum, r.comm, r.stream);
  });
  for (std::size_t i = 0; i < ranks.size(); i++) {
    std::uint64_t hash[2] = {};
    ranks[i].synchronise();
    OK(copy(hash, memory[i], sizeof hash));
    EXPECT(hash[0] == ~hash[1], "the ranks differ");
    deallocate(memory[i]);
  }
}

struct Errors {
  double least, most;  // of the root of the mean square error, relative to the inputs' norm
};

// Holds results against the sums, or averages, of numbers(count, seed + rank).
void check(const Ranks& ranks, const std::vector<std::vector<float>>& y, int seed, bool average, Errors errors) {
  std::size_t count = y[0].size(), wrong = 0;
  int size = ranks[0].size;
  std::vector<double> sum(count), norm(count);
  for (int r = 0; r < size; r++) {
    std::vector<float> x = numbers(count, seed + r);
    for (std::size_t i = 0; i < count; i++) {
      sum[i] += static_cast<double>(x[i]) / (average ? size : 1);
      norm[i] += std::fabs(static_cast<double>(x[i])) / (average ? size : 1);
    }
  }
  double bound = errors.most > 1e-6 ? kBound : 1e-6, squares = 0, norms = 0;
  for (std::size_t i = 0; i < count; i++) {
    double error = std::fabs(y[0][i] - sum[i]);
    wrong += !(error <= bound * norm[i]);
    squares += error * error;
    norms += norm[i] * norm[i];
  }
  double rms = std::sqrt(squares / norms);
  EXPECT(wrong == 0, "%zu of %zu elements are out of bounds", wrong, count);
  EXPECT(rms >= errors.least && rms <= errors.most, "rms %g", rms);
  check_same_bits(ranks, y);
}

// One all-reduce of `count` elements, some bytes behind the start of an allocation.
void reduce(const Ranks& ranks, std::size_t count, int seed, int op, bool in_place, std::size_t shift, Errors errors) {
  std::vector<float*> from, to;
  std::vector<std::vector<float>> y;
  for (const Rank& r : ranks) {
    std::vector<float> x = numbers(count, seed + r.rank);
    from.push_back(static_cast<float*>(r.allocate((count + shift) * 4)) + shift);
    to.push_back(in_place ? from.back() : static_cast<float*>(r.allocate(count * 4)));
    OK(copy(from.back(), x.data(), count * 4));
  }
  together(ranks, [&](const Rank& r, std::size_t i) {
    return ncclAllReduce(from[i], to[i], count, kFloat32, op, r.comm, r.stream);
  });
  for (std::size_t i = 0; i < ranks.size(); i++) {
    ranks[i].synchronise();
    y.emplace_back(count);
    OK(copy(y[i].data(), to[i], count * 4));
    if (in_place) continue;
    std::vector<float> x = numbers(count, seed + ranks[i].rank), now(count);
    OK(copy(now.data(), from[i], count * 4));
    EXPECT(std::memcmp(x.data(), now.data(), count * 4) == 0, "the input was changed");
    deallocate(to[i]);
  }
  for (std::size_t i = 0; i < ranks.size(); i++) deallocate(from[i] - shift);
  check(ranks, y, seed, op == kAverage, errors);
}

// Two collectives at once on one communicator: in a group, or one after the other on two streams, without a wait.
void two_at_once(const Ranks& ranks, bool grouped, Errors errors) {
  constexpr std::size_t kCount = 300001;
  std::vector<float*> memory[2];
  std::vector<Rank> seconds = ranks;
  if (!grouped)
    for (Rank& r : seconds) make_stream(r);
  for (int k = 0; k < 2; k++)
    for (const Rank& r : ranks) {
      memory[k].push_back(static_cast<float*>(r.allocate(kCount * 4)));
      OK(copy(memory[k].back(), numbers(kCount, 50 + 10 * k + r.rank).data(), kCount * 4));
    }
  if (grouped) {
    OK(ncclGroupStart());
  }
  for (int k = 0; k < 2; k++)
    together(k ? seconds : ranks, [&](const Rank& r, std::size_t i) {
      return ncclAllReduce(memory[k][i], memory[k][i], kCount, kFloat32, kSum, r.comm, r.stream);
    });
  if (grouped) {
    OK(ncclGroupEnd());
  }
  for (int k = 0; k < 2; k++) {
    std::vector<std::vector<float>> y;
    for (std::size_t i = 0; i < ranks.size(); i++) {
      (k ? seconds[i] : ranks[i]).synchronise();
      y.emplace_back(kCount);
      OK(copy(y[i].data(), memory[k][i], kCount * 4));
      deallocate(memory[k][i]);
    }
    check(ranks, y, 50 + 10 * k, false, errors);
  }
}

// A group with something that is compressed, and something that is not, of which one needs what the group's other ranks
// do.
void mixed(const Ranks& ranks, Errors errors) {
  constexpr std::size_t kCount = 300000;
  std::vector<float*> memory;
  std::vector<int*> numbers_of_ranks;
  for (const Rank& r : ranks) {
    memory.push_back(static_cast<float*>(r.allocate(kCount * 4)));
    numbers_of_ranks.push_back(static_cast<int*>(r.allocate(4)));
    OK(copy(memory.back(), numbers(kCount, 70 + r.rank).data(), kCount * 4));
    OK(copy(numbers_of_ranks.back(), &r.rank, 4));
  }
  OK(ncclGroupStart());
  for (std::size_t i = 0; i < ranks.size(); i++) {
    const Rank& r = ranks[i];
    OK(ncclAllReduce(memory[i], memory[i], kCount, kFloat32, kSum, r.comm, r.stream));
    OK(ncclAllReduce(numbers_of_ranks[i], numbers_of_ranks[i], 1, kInt32, kSum, r.comm, r.stream));
  }
  OK(ncclGroupEnd());
  std::vector<std::vector<float>> y;
  int size = ranks[0].size;
  for (std::size_t i = 0; i < ranks.size(); i++) {
    int sum = 0;
    ranks[i].synchronise();
    y.emplace_back(kCount);
    OK(copy(y[i].data(), memory[i], kCount * 4));
    OK(copy(&sum, numbers_of_ranks[i], 4));
    EXPECT(sum == size * (size - 1) / 2, "%d", sum);
    deallocate(memory[i]);
    deallocate(numbers_of_ranks[i]);
  }
  check(ranks, y, 70, false, errors);
}

void sums(const Ranks& ranks, Errors errors) {
  for (std::size_t count : {std::size_t{1} << 18, std::size_t{262147}})
    for (int op : {kSum, kAverage}) {
      reduce(ranks, count, 1, op, false, 0, errors);
      reduce(ranks, count, 2, op, true, 1, errors);
    }
  // Several chunks, and no multiple of one.
  reduce(ranks, (std::size_t{4} << 20) + 12345, 3, kSum, false, 0, errors);
  two_at_once(ranks, true, errors);
  two_at_once(ranks, false, errors);
  mixed(ranks, errors);
  for (const Rank& r : ranks) {
    void* memory = r.allocate(64);
    OK(ncclAllReduce(memory, memory, 0, kFloat32, kSum, r.comm, r.stream));
    deallocate(memory);
  }
}

// On communicators that were split off: all ranks the other way round, and those of even and of odd rank.
void splits(const Ranks& ranks, Errors errors) {
  for (bool halves : {false, true}) {
    Ranks children = ranks;
    for (Rank& r : children) OK(ncclCommSplit(ranks[0].comm, halves ? r.rank % 2 : 0, -r.rank, &r.comm, nullptr));
    if (!halves) reduce(children, 300000, 4, kSum, false, 0, errors);
    if (halves && ranks[0].size == 4) {
      // Their sums are of other ranks' numbers: only that they are the same is checked.
      std::vector<float> x = numbers(300000, ranks[0].rank), y(x.size());
      void* memory = children[0].allocate(x.size() * 4);
      OK(copy(memory, x.data(), x.size() * 4));
      OK(ncclAllReduce(memory, memory, x.size(), kFloat32, kSum, children[0].comm, children[0].stream));
      children[0].synchronise();
      OK(copy(y.data(), memory, x.size() * 4));
      deallocate(memory);
      std::vector<float> other = numbers(300000, (ranks[0].rank + 2) % 4);
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < x.size(); i++)
        wrong += !(std::fabs(y[i] - (static_cast<double>(x[i]) + static_cast<double>(other[i]))) <=
                   kBound * (std::fabs(x[i]) + std::fabs(other[i])));
      EXPECT(wrong == 0, "%zu of a half's sums are wrong", wrong);
      check_same_bits(children, {y});
    }
    for (Rank& r : children)
      if (r.comm) OK(ncclCommDestroy(r.comm));
  }
}

template <class T>
void exactly(const Ranks& ranks, int type, int op, T (*input)(int rank), T expected) {
  constexpr std::size_t kCount = 1 << 19;
  std::vector<void*> memory;
  for (const Rank& r : ranks) {
    memory.push_back(r.allocate(kCount * sizeof(T)));
    OK(copy(memory.back(), std::vector<T>(kCount, input(r.rank)).data(), kCount * sizeof(T)));
  }
  together(ranks, [&](const Rank& r, std::size_t i) {
    return ncclAllReduce(memory[i], memory[i], kCount, type, op, r.comm, r.stream);
  });
  for (std::size_t i = 0; i < ranks.size(); i++) {
    std::vector<T> y(kCount);
    ranks[i].synchronise();
    OK(copy(y.data(), memory[i], kCount * sizeof(T)));
    EXPECT(y[kCount - 1] == expected, "type %d, op %d", type, op);
    deallocate(memory[i]);
  }
}

// Everything here must be the same as without AIRamp.
void untouched(const Ranks& ranks) {
  int size = ranks[0].size;
  exactly<int>(
      ranks, kInt32, kSum, [](int rank) { return rank + 1; }, size * (size + 1) / 2);
  exactly<double>(
      ranks, kFloat64, kSum, [](int) { return 1 + 0x1p-40; }, size * (1 + 0x1p-40));
  exactly<float>(
      ranks, kFloat32, kMaximum, [](int rank) { return 1 + static_cast<float>(rank) * 0x1p-20f; },
      1 + static_cast<float>(size - 1) * 0x1p-20f);
  exactly<float>(
      ranks, kFloat32, kProduct, [](int rank) { return rank ? 1.0f : 1 + 0x1p-20f; }, 1 + 0x1p-20f);
  reduce(ranks, 100, 5, kSum, false, 0, {0, 1e-6});
  void* memory = ranks[0].allocate(4);
  if (ranks.size() == 1)
    EXPECT(ncclAllReduce(memory, memory, 1, 99, kSum, ranks[0].comm, ranks[0].stream) == 4, "type");
  deallocate(memory);
}

void specials(const Ranks& ranks) {
  constexpr std::size_t kCount = 1 << 19;
  int size = ranks[0].size;
  std::vector<void*> memory;
  std::vector<std::vector<float>> y;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const Rank& r : ranks) {
    std::vector<float> x(kCount, 1);
    if (r.rank == 0) {
      x[1] = std::numeric_limits<float>::quiet_NaN();
      x[5] = x[kCount - 2] = kInfinity;
      std::uint32_t bits = 0x7f800001;  // rounding without a guard would make it infinite
      std::memcpy(&x[kCount / 2], &bits, 4);
    }
    if (r.rank == size - 1) x[5] = -kInfinity;
    memory.push_back(r.allocate(kCount * 4));
    OK(copy(memory.back(), x.data(), kCount * 4));
  }
  together(ranks, [&](const Rank& r, std::size_t i) {
    return ncclAllReduce(memory[i], memory[i], kCount, kFloat32, kSum, r.comm, r.stream);
  });
  for (std::size_t i = 0; i < ranks.size(); i++) {
    ranks[i].synchronise();
    y.emplace_back(kCount);
    OK(copy(y[i].data(), memory[i], kCount * 4));
    EXPECT(std::isnan(y[i][1]) && std::isnan(y[i][5]) && std::isnan(y[i][kCount / 2]), "%g %g", y[i][1], y[i][5]);
    EXPECT(y[i][kCount - 2] == kInfinity && y[i][0] == static_cast<float>(size), "%g %g", y[i][kCount - 2], y[i][0]);
  }
  check_same_bits(ranks, y);
}

void gather(const Ranks& ranks, Errors errors) {
  for (std::size_t count : {std::size_t{1} << 18, std::size_t{2100003}}) {
    std::vector<float*> from, to, place;
    auto size = static_cast<std::size_t>(ranks[0].size);
    for (const Rank& r : ranks) {
      std::vector<float> x = numbers(count, r.rank);
      from.push_back(static_cast<float*>(r.allocate(count * 4)));
      to.push_back(static_cast<float*>(r.allocate(count * size * 4)));
      place.push_back(static_cast<float*>(r.allocate(count * size * 4)));
      OK(copy(from.back(), x.data(), count * 4));
      OK(copy(place.back() + count * static_cast<std::size_t>(r.rank), x.data(), count * 4));
    }
    together(ranks, [&](const Rank& r, std::size_t i) {
      return ncclAllGather(from[i], to[i], count, kFloat32, r.comm, r.stream);
    });
    together(ranks, [&](const Rank& r, std::size_t i) {
      return ncclAllGather(place[i] + count * static_cast<std::size_t>(r.rank), place[i], count, kFloat32, r.comm,
                           r.stream);
    });
    std::vector<std::vector<float>> y;
    for (std::size_t i = 0; i < ranks.size(); i++) {
      ranks[i].synchronise();
      y.emplace_back(count * size);
      std::vector<float> z(count * size);
      OK(copy(y[i].data(), to[i], y[i].size() * 4));
      OK(copy(z.data(), place[i], z.size() * 4));
      EXPECT(std::memcmp(y[i].data(), z.data(), z.size() * 4) == 0, "in place differs");
      double worst = 0;
      for (std::size_t r = 0; r < size; r++) {
        std::vector<float> x = numbers(count, static_cast<int>(r));
        for (std::size_t k = 0; k < count; k++)
          worst =
              std::max(worst, std::fabs(static_cast<double>(y[i][r * count + k]) - x[k]) / (std::fabs(x[k]) + 1e-30));
      }
      EXPECT(worst >= errors.least && worst <= errors.most, "worst %g", worst);
      deallocate(from[i]), deallocate(to[i]), deallocate(place[i]);
    }
    check_same_bits(ranks, y);
  }
}

// A sum that is captured into a graph, and run twice.
void capture(const Ranks& ranks) {
  constexpr std::size_t kCount = 300000;
  const Rank& r = ranks[0];
  auto* from = r.allocate(kCount * 4);
  auto* to = r.allocate(kCount * 4);
  OK(NAME(cuStreamBeginCapture_v2, hipStreamBeginCapture)(r.stream, 0));
  OK(ncclAllReduce(from, to, kCount, kFloat32, kSum, r.comm, r.stream));
  void* graph = nullptr;
  OK(NAME(cuStreamEndCapture, hipStreamEndCapture)(r.stream, &graph));
  for (int seed : {8, 9}) {
    std::vector<float> x = numbers(kCount, seed + r.rank), y(kCount);
    OK(copy(from, x.data(), kCount * 4));
    OK(NAME(cuGraphLaunch, hipGraphLaunch)(graph, r.stream));
    r.synchronise();
    OK(copy(y.data(), to, kCount * 4));
    check(ranks, {y}, seed, false, {0, 1e-6});
  }
  deallocate(from), deallocate(to);
  reduce(ranks, kCount, 10, kSum, false, 0, {1e-4, 2.5e-3});
}

// What one sum of 2^20 elements puts on the wire.
void bytes(const Ranks& ranks) {
  static std::atomic<int> arrived;
  auto meet = [&](int all) {
    arrived++;
    while (arrived < all) usleep(100);
  };
  const Rank& r = ranks[0];
  auto* memory = r.allocate(std::size_t{4} << 20);
  OK(copy(memory, numbers(1 << 20, 1).data(), std::size_t{4} << 20));
  meet(r.size);
  if (r.rank == 0) fake_wire_bytes = 0;
  meet(2 * r.size);
  OK(ncclAllReduce(memory, memory, 1 << 20, kFloat32, kSum, r.comm, r.stream));
  r.synchronise();
  meet(3 * r.size);
  if (r.rank == 0) std::printf("bytes %ld\n", fake_wire_bytes.load());
}

// Codes of the library's arrive at the program.
void error(const Ranks& ranks) {
  const Rank& r = ranks[0];
  auto* memory = r.allocate(1 << 20);
  fake_nccl_error = 6;
  int code = ncclAllReduce(memory, memory, 1 << 18, kFloat32, kSum, r.comm, r.stream);
  EXPECT(code == 6, "%d", code);
}

void run(const std::string& what, Ranks ranks, Errors errors) {
  if (what == "sums" || what == "without") {
    sums(ranks, errors);
  } else if (what == "splits") {
    splits(ranks, errors);
  } else if (what == "untouched") {
    untouched(ranks);
  } else if (what == "specials") {
    specials(ranks);
  } else if (what == "gather") {
    gather(ranks, errors);
  } else if (what == "capture") {
    capture(ranks);
  } else if (what == "bytes") {
    bytes(ranks);
  } else if (what == "error") {
    error(ranks);
  } else if (what == "full" || what == "once") {
    fake_full_device = -1;
    reduce(ranks, 300000, 1, kSum, false, 0, errors);
  } else {
    EXPECT(false, "no case is named %s", what.c_str());
  }
}

}  // namespace

// CASE LEAST MOST MODE …
int main(int argc, char** argv) {
  if (argc < 6) return 2;
  std::string what = argv[1], mode = argv[4];
  Errors errors = {std::atof(argv[2]), std::atof(argv[3])};
  if (mode == "process") {
    Rank r = {std::atoi(argv[5]), std::atoi(argv[6])};
    NcclId id;
    std::string file = argv[7];
    if (r.rank == 0) {
      OK(ncclGetUniqueId(&id));
      std::FILE* out = std::fopen((file + ".new").c_str(), "w");
      std::fwrite(&id, sizeof id, 1, out);
      std::fclose(out);
      std::rename((file + ".new").c_str(), file.c_str());
    }
    std::FILE* in = nullptr;
    while (!(in = std::fopen(file.c_str(), "r"))) usleep(1000);
    EXPECT(std::fread(&id, sizeof id, 1, in) == 1, "the id is not whole");
    select(r.rank);
#ifndef FAKE_HIP
    void* context = nullptr;
    if (std::getenv("TEST_OWN_CONTEXT") && r.rank == 0) OK(cuCtxCreate_v2(&context, 0, 0));
#endif
    if (const char* blocking = std::getenv("TEST_BLOCKING")) {
      Config config = {sizeof(Config), 0, 0, std::atoi(blocking)};
      int code = ncclCommInitRankConfig(&r.comm, r.size, id, r.rank, &config);
      EXPECT(code == (config.blocking ? 0 : 7), "%d", code);
    } else {
      OK(ncclCommInitRank(&r.comm, r.size, id, r.rank));
    }
    make_stream(r);
    run(what, {r}, errors);
    OK(ncclCommDestroy(r.comm));
  } else if (mode == "group" || mode == "initgroup") {
    Ranks ranks;
    int size = std::atoi(argv[5]);
    std::vector<void*> comms(static_cast<std::size_t>(size));
    if (mode == "group") {
      OK(ncclCommInitAll(comms.data(), size, nullptr));
    } else {
      NcclId id;
      OK(ncclGetUniqueId(&id));
      OK(ncclGroupStart());
      for (int i = 0; i < size; i++) {
        select(i);
        OK(ncclCommInitRank(&comms[static_cast<std::size_t>(i)], size, id, i));
      }
      OK(ncclGroupEnd());
    }
    for (int i = 0; i < size; i++) {
      ranks.push_back({i, size, comms[static_cast<std::size_t>(i)]});
      make_stream(ranks.back());
    }
    run(what, ranks, errors);
    for (void* comm : comms) OK(ncclCommDestroy(comm));
  } else {
    int size = std::atoi(argv[5]);
    NcclId id;
    OK(ncclGetUniqueId(&id));
    if (what == "full") fake_full_device = 1;
    std::vector<std::thread> threads;
    for (int i = 0; i < size; i++)
      threads.emplace_back([=] {
        Rank r = {i, size};
        select(i);
        OK(ncclCommInitRank(&r.comm, size, id, i));
        make_stream(r);
        run(what, {r}, errors);
        if (what != "error") OK(ncclCommDestroy(r.comm));
      });
    for (std::thread& t : threads) t.join();
  }
  return failures != 0;
}
