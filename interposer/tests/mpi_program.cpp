// An MPI program that knows nothing of AIRamp. mpi_program CASE [ARGUMENT]: exit 0 if what the case states holds on
// this rank. Errors are measured against sums in double precision, which are never compressed.

#include <dlfcn.h>
#include <mpi.h>
#ifdef OPEN_MPI
#include <mpi-ext.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

namespace {

int failures = 0;
int rank = 0, size = 0;

#define EXPECT(condition, ...)                                                    \
  do {                                                                            \
    if (!(condition)) {                                                           \
      failures++;                                                                 \
      std::fprintf(stderr, "rank %d, line %d: %s: ", rank, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                          \
      std::fputc('\n', stderr);                                                   \
    }                                                                             \
  } while (0)

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

// (2u + u²) with u = 2⁻⁸, of two roundings to bfloat16.
constexpr double kBound = 2.0 / 256 + 1.0 / 65536;

// Holds y against the sum of all ranks' x. Returns the root of the mean square error relative to the inputs' norm.
double check_sum(const std::vector<float>& x, const float* y, MPI_Comm comm, double bound) {
  std::size_t n = x.size();
  std::vector<double> in(2 * n), out(2 * n);
  for (std::size_t i = 0; i < n; i++) {
    in[i] = x[i];
    in[n + i] = std::fabs(x[i]);
  }
  MPI_Allreduce(in.data(), out.data(), static_cast<int>(2 * n), MPI_DOUBLE, MPI_SUM, comm);
  std::size_t wrong = 0;
  double squares = 0, norm = 0;
  for (std::size_t i = 0; i < n; i++) {
    double error = std::fabs(y[i] - out[i]);
    wrong += !(error <= bound * out[n + i]);
    squares += error * error;
    norm += out[n + i] * out[n + i];
  }
  EXPECT(wrong == 0, "%zu of %zu elements are out of bounds", wrong, n);
  return n ? std::sqrt(squares / norm) : 0;
}

void check_same_bits(const float* y, std::size_t count, MPI_Comm comm) {
  // A sum over the bits, unsigned and exact.
  std::uint64_t mine = 0, low = 0, high = 0;
  for (std::size_t i = 0; i < count; i++) {
    std::uint32_t bits;
    std::memcpy(&bits, y + i, 4);
    mine = mine * 1099511628211u + bits;
  }
  MPI_Allreduce(&mine, &low, 1, MPI_UINT64_T, MPI_MIN, comm);
  MPI_Allreduce(&mine, &high, 1, MPI_UINT64_T, MPI_MAX, comm);
  EXPECT(low == high, "the ranks differ");
}

// sums BOUND_MIN BOUND_MAX: the error lies between, for many shapes of calls.
void sums(double least, double most) {
  auto judge = [&](double rms) { EXPECT(rms >= least && rms <= most, "rms %g", rms); };
  double bound = most > 1e-6 ? kBound + 1e-6 : 1e-6;
  MPI_Comm half, twin, reversed;
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &half);
  MPI_Comm_dup(MPI_COMM_WORLD, &twin);
  MPI_Comm_split(MPI_COMM_WORLD, 0, size - rank, &reversed);
  for (MPI_Comm comm : {MPI_COMM_WORLD, half, twin, reversed}) {
    int members = 0;
    MPI_Comm_size(comm, &members);
    for (int count : {262147, 1 << 18}) {
      std::vector<float> x = numbers(static_cast<std::size_t>(count), rank + count), y(x.size());
      std::vector<float> before = x;
      int e = MPI_Allreduce(x.data(), y.data(), count, MPI_FLOAT, MPI_SUM, comm);
      EXPECT(e == MPI_SUCCESS, "%d", e);
      EXPECT(std::memcmp(x.data(), before.data(), x.size() * 4) == 0, "the input was changed");
      if (members > 1) judge(check_sum(x, y.data(), comm, bound));
      check_same_bits(y.data(), y.size(), comm);
      y = x;
      MPI_Allreduce(MPI_IN_PLACE, y.data(), count, MPI_FLOAT, MPI_SUM, comm);
      if (members > 1) judge(check_sum(x, y.data(), comm, bound));
      check_same_bits(y.data(), y.size(), comm);
    }
  }
  // Several chunks, and not a multiple of one.
  std::vector<float> x = numbers((std::size_t{4} << 20) + 12345, rank), y(x.size());
  MPI_Allreduce(x.data(), y.data(), static_cast<int>(x.size()), MPI_FLOAT, MPI_SUM, twin);
  judge(check_sum(x, y.data(), twin, bound));
  check_same_bits(y.data(), y.size(), twin);
  MPI_Comm_free(&half);
  MPI_Comm_free(&twin);
  MPI_Comm_free(&reversed);
}

// Everything here must be the same as without AIRamp, bit for bit where it is exact.
void untouched() {
  const int n = 1 << 19;
  std::vector<int> i(n, rank + 1), isum(n);
  MPI_Allreduce(i.data(), isum.data(), n, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  EXPECT(isum[n - 1] == size * (size + 1) / 2, "%d", isum[n - 1]);

  std::vector<double> d(n, 1.0 / 3), dsum(n);
  MPI_Allreduce(d.data(), dsum.data(), n, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  EXPECT(std::fabs(dsum[0] - size / 3.0) < 1e-15, "%g", dsum[0]);

  std::vector<float> x(n, 1 + static_cast<float>(rank) * 1e-6f), y(n);
  MPI_Allreduce(x.data(), y.data(), n, MPI_FLOAT, MPI_MAX, MPI_COMM_WORLD);
  EXPECT(y[7] == 1 + static_cast<float>(size - 1) * 1e-6f, "%.9g", y[7]);

  MPI_Op op;
  MPI_Op_create(
      [](void* a, void* b, int* count, MPI_Datatype*) {
        for (int k = 0; k < *count; k++) static_cast<float*>(b)[k] += static_cast<float*>(a)[k];
      },
      1, &op);
  std::fill(x.begin(), x.end(), 1.00001f);
  MPI_Allreduce(x.data(), y.data(), n, MPI_FLOAT, op, MPI_COMM_WORLD);
  EXPECT(std::fabs(y[0] - static_cast<float>(size) * 1.00001f) < 1e-5, "%.9g", y[0]);
  MPI_Op_free(&op);

  MPI_Datatype pair;
  MPI_Type_contiguous(2, MPI_FLOAT, &pair);
  MPI_Type_commit(&pair);
  std::vector<float> all(static_cast<std::size_t>(2 * n) * static_cast<std::size_t>(size));
  std::vector<float> mine(2 * n, 1.00001f * static_cast<float>(rank + 1));
  MPI_Allgather(mine.data(), n, pair, all.data(), n, pair, MPI_COMM_WORLD);
  EXPECT(all[all.size() - 1] == 1.00001f * static_cast<float>(size), "%.9g", all[all.size() - 1]);
  MPI_Type_free(&pair);

  // Small payloads, none at all, and calls that return early.
  float one = 1.00001f, sum = 0;
  MPI_Allreduce(&one, &sum, 1, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  EXPECT(std::fabs(sum - static_cast<float>(size) * 1.00001f) < 1e-5, "%.9g", sum);
  EXPECT(MPI_Allreduce(&one, &sum, 0, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD) == MPI_SUCCESS, "count 0");
  std::vector<std::vector<float>> outputs(3, std::vector<float>(n));
  MPI_Request requests[3];
  for (int k = 0; k < 3; k++)
    MPI_Iallreduce(x.data(), outputs[static_cast<std::size_t>(k)].data(), n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD,
                   &requests[k]);
  for (int done = 0; done < 3; done++) {
    int which = -1;
    MPI_Waitany(3, requests, &which, MPI_STATUS_IGNORE);
    float first = outputs[static_cast<std::size_t>(which)][0];
    EXPECT(std::fabs(first - static_cast<float>(size) * 1.00001f) < 1e-5, "%.9g", first);
  }

#ifdef OPEN_MPI
  // Persistent, two at a time, started twice.
  MPI_Request persistent[2];
  for (std::size_t k = 0; k < 2; k++)
    MPIX_Allreduce_init(x.data(), outputs[k].data(), n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, MPI_INFO_NULL,
                        &persistent[k]);
  for (int round = 0; round < 2; round++) {
    for (std::size_t k = 0; k < 2; k++) outputs[k][9] = 0;
    MPI_Startall(2, persistent);
    int flag = 0;
    while (!flag) MPI_Test(&persistent[1], &flag, MPI_STATUS_IGNORE);
    MPI_Wait(&persistent[0], MPI_STATUS_IGNORE);
    for (std::size_t k = 0; k < 2; k++)
      EXPECT(std::fabs(outputs[k][9] - static_cast<float>(size) * 1.00001f) < 1e-5, "%.9g", outputs[k][9]);
  }
  for (MPI_Request& request : persistent) MPI_Request_free(&request);
#endif

  // Two groups that talk through an intercommunicator.
  if (size >= 2) {
    MPI_Comm local, inter;
    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &local);
    MPI_Intercomm_create(local, 0, MPI_COMM_WORLD, rank % 2 ? 0 : 1, 5, &inter);
    int others = 0;
    MPI_Comm_remote_size(inter, &others);
    MPI_Allreduce(x.data(), y.data(), n, MPI_FLOAT, MPI_SUM, inter);
    EXPECT(std::fabs(y[3] - static_cast<float>(others) * 1.00001f) < 1e-5, "%.9g", y[3]);
    MPI_Comm_free(&inter);
    MPI_Comm_free(&local);
  }

#ifdef OPEN_MPI
  // Errors and their handlers.
  MPI_Comm twin;
  MPI_Comm_dup(MPI_COMM_WORLD, &twin);
  MPI_Comm_set_errhandler(twin, MPI_ERRORS_RETURN);
  int kind = 0, e = MPI_Allreduce(x.data(), y.data(), -1, MPI_FLOAT, MPI_SUM, twin);
  MPI_Error_class(e, &kind);
  EXPECT(kind == MPI_ERR_COUNT, "class %d", kind);
  e = MPI_Allreduce(x.data(), y.data(), n, MPI_DATATYPE_NULL, MPI_SUM, twin);
  MPI_Error_class(e, &kind);
  EXPECT(kind == MPI_ERR_TYPE || kind == MPI_ERR_OP, "class %d", kind);  // Open MPI's way of putting it
  e = MPI_Allreduce(x.data(), y.data(), n, MPI_FLOAT, MPI_OP_NULL, twin);
  MPI_Error_class(e, &kind);
  EXPECT(kind == MPI_ERR_OP, "class %d", kind);
  MPI_Comm_free(&twin);
#endif  // MPICH's wheel is built without checks of arguments
}

// Calls that return early, several at a time over the same and over different communicators, with compressed ones in
// between, completed in every way and in another order than that of their start: they are exact.
void deferred() {
  constexpr int kCalls = 6, kCount = 1 << 19;
  const auto n = static_cast<std::size_t>(kCount);
  MPI_Comm twin;
  MPI_Comm_dup(MPI_COMM_WORLD, &twin);
  // Sums that bfloat16 does not hold.
  auto value = [](int call, int of) { return 1 + static_cast<float>(call + 1) * 0x1p-12f + static_cast<float>(of); };
  auto expected = [&](int call) {
    float sum = 0;
    for (int r = 0; r < size; r++) sum += value(call, r);
    return sum;
  };
  std::vector<std::vector<float>> in(kCalls), out(kCalls);
  std::vector<float> x = numbers(n, rank), y(n), all(n * static_cast<std::size_t>(size));
  auto completed = [&](int call) {
    const float* data = out[static_cast<std::size_t>(call)].data();
    EXPECT(data[0] == expected(call) && data[n - 1] == expected(call), "call %d: %.9g", call, data[0]);
  };
  for (int way = 0; way < 5; way++) {
    MPI_Request requests[kCalls + 1];
    for (int call = 0; call < kCalls; call++) {
      auto k = static_cast<std::size_t>(call);
      in[k].assign(n, value(call, rank));
      out[k].assign(n, 0);
      MPI_Iallreduce(in[k].data(), out[k].data(), kCount, MPI_FLOAT, MPI_SUM, call % 2 ? twin : MPI_COMM_WORLD,
                     &requests[call]);
      // A blocking one in the middle.
      if (call != 2) continue;
      MPI_Allreduce(x.data(), y.data(), kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      MPI_Allreduce(x.data(), y.data(), kCount, MPI_FLOAT, MPI_SUM, twin);
    }
    MPI_Iallgather(x.data(), kCount, MPI_FLOAT, all.data(), kCount, MPI_FLOAT, twin, &requests[kCalls]);
    if (way == 0) {
      for (int call = kCalls; call >= 0; call--) MPI_Wait(&requests[call], MPI_STATUS_IGNORE);
    } else if (way == 1) {
      MPI_Waitall(kCalls + 1, requests, MPI_STATUSES_IGNORE);
    } else if (way == 2) {
      for (int done = 0; !done;) MPI_Testall(kCalls + 1, requests, &done, MPI_STATUSES_IGNORE);
    } else if (way == 3) {
      for (int call = kCalls; call >= 0; call--)
        for (int done = 0; !done;) MPI_Test(&requests[call], &done, MPI_STATUS_IGNORE);
    } else {
      for (int left = kCalls + 1; left > 0;) {
        int done = 0, which[kCalls + 1];
        MPI_Waitsome(kCalls + 1, requests, &done, which, MPI_STATUSES_IGNORE);
        for (int i = 0; i < done; i++)
          if (which[i] < kCalls) completed(which[i]);
        left -= done;
      }
    }
    for (int call = 0; call < kCalls; call++) completed(call);
    for (int r = 0; r < size; r++)
      EXPECT(std::memcmp(all.data() + n * static_cast<std::size_t>(r), numbers(n, r).data(), n * 4) == 0, "from %d", r);
    double rms = check_sum(x, y.data(), MPI_COMM_WORLD, kBound + 1e-6);
    EXPECT(rms < 2.5e-3, "rms %g", rms);
  }
#ifdef OPEN_MPI
  MPI_Request persistent[2];
  for (std::size_t k = 0; k < 2; k++)
    MPIX_Allreduce_init(in[k].data(), out[k].data(), kCount, MPI_FLOAT, MPI_SUM, k ? twin : MPI_COMM_WORLD,
                        MPI_INFO_NULL, &persistent[k]);
  for (int round = 0; round < 3; round++) {
    for (std::size_t k = 0; k < 2; k++) out[k].assign(n, 0);
    MPI_Start(&persistent[0]);
    MPI_Start(&persistent[1]);
    MPI_Allreduce(x.data(), y.data(), kCount, MPI_FLOAT, MPI_SUM, twin);
    MPI_Wait(&persistent[1], MPI_STATUS_IGNORE);
    for (int done = 0; !done;) MPI_Testall(2, persistent, &done, MPI_STATUSES_IGNORE);
    completed(0);
    completed(1);
  }
  for (MPI_Request& request : persistent) MPI_Request_free(&request);
#endif
  MPI_Comm_free(&twin);
}

// NaN and infinity arrive, on all ranks alike.
void specials() {
  const int n = 1 << 19;
  std::vector<float> x(n, 1), y(n);
  if (rank == 0) {
    x[1] = std::numeric_limits<float>::quiet_NaN();
    x[n - 2] = std::numeric_limits<float>::infinity();
    x[5] = std::numeric_limits<float>::infinity();
    std::uint32_t bits = 0x7f800001;  // rounding without a guard would make it infinite
    std::memcpy(&x[n / 2], &bits, 4);
  }
  if (rank == size - 1) x[5] = -std::numeric_limits<float>::infinity();
  MPI_Allreduce(x.data(), y.data(), n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  EXPECT(std::isnan(y[1]) && std::isnan(y[5]) && std::isnan(y[n / 2]), "%g %g %g", y[1], y[5], y[n / 2]);
  EXPECT(y[n - 2] == std::numeric_limits<float>::infinity(), "%g", y[n - 2]);
  EXPECT(y[0] == static_cast<float>(size), "%g", y[0]);
  check_same_bits(y.data(), y.size(), MPI_COMM_WORLD);
}

// gather BOUND_MIN BOUND_MAX: relative errors of an all-gather.
void gather(double least, double most) {
  const std::size_t n = 1 << 19;
  std::vector<float> x = numbers(n, rank), all(n * static_cast<std::size_t>(size)), in_place(all.size());
  MPI_Allgather(x.data(), n, MPI_FLOAT, all.data(), n, MPI_FLOAT, MPI_COMM_WORLD);
  std::copy(x.begin(), x.end(), in_place.begin() + static_cast<std::ptrdiff_t>(n) * rank);
  MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, in_place.data(), n, MPI_FLOAT, MPI_COMM_WORLD);
  EXPECT(std::memcmp(all.data(), in_place.data(), all.size() * 4) == 0, "in place differs");
  double worst = 0;
  for (int r = 0; r < size; r++) {
    std::vector<float> theirs = numbers(n, r);
    for (std::size_t i = 0; i < n; i++) {
      double error = std::fabs(all[n * static_cast<std::size_t>(r) + i] - theirs[i]);
      worst = std::max(worst, error / std::max(1e-30, std::fabs(static_cast<double>(theirs[i]))));
    }
  }
  EXPECT(worst >= least && worst <= most, "worst %g", worst);
  check_same_bits(all.data(), all.size(), MPI_COMM_WORLD);
  // Ranks that name the same floats by different types must not part ways.
  MPI_Datatype row;
  MPI_Type_contiguous(static_cast<int>(n), MPI_FLOAT, &row);
  MPI_Type_commit(&row);
  if (rank == 0) {
    MPI_Allgather(x.data(), 1, row, in_place.data(), 1, row, MPI_COMM_WORLD);
  } else {
    MPI_Allgather(x.data(), n, MPI_FLOAT, in_place.data(), n, MPI_FLOAT, MPI_COMM_WORLD);
  }
  EXPECT(in_place[n * static_cast<std::size_t>(rank)] == x[0], "%g", in_place[0]);
  MPI_Type_free(&row);
}

// One sum that is compressed where everything can be, and exact where it cannot.
void alone() {
  std::vector<float> x = numbers(1 << 18, rank), y(x.size());
  MPI_Allreduce(x.data(), y.data(), 1 << 18, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  EXPECT(check_sum(x, y.data(), MPI_COMM_WORLD, 1e-6) < 1e-7, "compressed");
}

#if MPI_VERSION >= 4
void large_counts() {
  std::vector<float> x = numbers(1 << 18, rank), y(x.size());
  MPI_Allreduce_c(x.data(), y.data(), MPI_Count{1} << 18, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  double rms = check_sum(x, y.data(), MPI_COMM_WORLD, kBound + 1e-6);
  EXPECT(rms > 1e-4 && rms < 2.5e-3, "rms %g", rms);
}
#else
void large_counts() { EXPECT(false, "this MPI has no large counts"); }
#endif

// Sums and gathers from and to a device's memory on some ranks, of several chunks.
void device(const char* driver) {
  void* cuda = dlopen(driver, RTLD_NOW);
  EXPECT(cuda, "%s", dlerror());
  if (!cuda) return;
  auto* allocate = reinterpret_cast<int (*)(std::uintptr_t*, std::size_t)>(dlsym(cuda, "cuMemAlloc_v2"));
  auto* copy = reinterpret_cast<int (*)(std::uintptr_t, std::uintptr_t, std::size_t)>(dlsym(cuda, "cuMemcpy"));
  std::size_t n = (std::size_t{4} << 20) + 777, bytes = n * 4, all = bytes * static_cast<std::size_t>(size);
  std::vector<float> x = numbers(n, rank), y(n), gathered(all / 4);
  std::uintptr_t in = 0, out = 0;
  allocate(&in, bytes);
  allocate(&out, all);
  copy(in, reinterpret_cast<std::uintptr_t>(x.data()), bytes);
  void* from = rank == 0 ? reinterpret_cast<void*>(in) : x.data();
  void* to = rank != 1 ? reinterpret_cast<void*>(out) : static_cast<void*>(y.data());
  MPI_Allreduce(from, to, static_cast<int>(n), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  copy(reinterpret_cast<std::uintptr_t>(y.data()), reinterpret_cast<std::uintptr_t>(to), bytes);
  double rms = check_sum(x, y.data(), MPI_COMM_WORLD, kBound + 1e-6);
  EXPECT(rms > 1e-4 && rms < 2.5e-3, "rms %g", rms);
  check_same_bits(y.data(), n, MPI_COMM_WORLD);
  to = rank != 1 ? reinterpret_cast<void*>(out) : static_cast<void*>(gathered.data());
  MPI_Allgather(from, static_cast<int>(n), MPI_FLOAT, to, static_cast<int>(n), MPI_FLOAT, MPI_COMM_WORLD);
  copy(reinterpret_cast<std::uintptr_t>(gathered.data()), reinterpret_cast<std::uintptr_t>(to), all);
  check_same_bits(gathered.data(), gathered.size(), MPI_COMM_WORLD);
  float last = gathered[gathered.size() - 1], exact = numbers(n, size - 1)[n - 1];
  EXPECT(std::fabs(last - exact) <= std::fabs(exact) / 256, "%g %g", last, exact);
}

// Two threads that sum at the same time, each over a communicator of its own.
void threads() {
  MPI_Comm comms[2];
  for (MPI_Comm& comm : comms) MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  std::vector<float> x[2], y[2];
  auto work = [&](int t) {
    x[t] = numbers(300000, rank + 10 * t);
    y[t].resize(x[t].size());
    for (int i = 0; i < 10; i++) MPI_Allreduce(x[t].data(), y[t].data(), 300000, MPI_FLOAT, MPI_SUM, comms[t]);
  };
  std::thread other(work, 1);
  work(0);
  other.join();
  for (int t = 0; t < 2; t++) {
    double rms = check_sum(x[t], y[t].data(), comms[t], kBound + 1e-6);
    EXPECT(rms > 1e-4 && rms < 2.5e-3, "rms %g", rms);
    check_same_bits(y[t].data(), y[t].size(), comms[t]);
    MPI_Comm_free(&comms[t]);
  }
}

// A process that is started later belongs to those that have not agreed with us: a communicator that holds both sides
// passes through.
void spawn(const char* self) {
  MPI_Comm parent, both, merged;
  MPI_Comm_get_parent(&parent);
  bool child = parent != MPI_COMM_NULL;
  if (child) {
    both = parent;
  } else {
    char word[] = "spawn", *words[] = {word, nullptr};
    MPI_Comm_spawn(self, words, 1, MPI_INFO_NULL, 0, MPI_COMM_WORLD, &both, MPI_ERRCODES_IGNORE);
  }
  MPI_Intercomm_merge(both, child, &merged);
  std::vector<float> x = numbers(300000, child ? 77 : rank), y(x.size());
  MPI_Allreduce(x.data(), y.data(), 300000, MPI_FLOAT, MPI_SUM, merged);
  EXPECT(check_sum(x, y.data(), merged, 1e-6) < 1e-7, "compressed");
  MPI_Comm_free(&merged);
  MPI_Comm_disconnect(&both);
}

// The losses of a network of two layers, trained on random data split over the ranks, from one seed.
void train(int seed) {
  constexpr int kIn = 32, kHidden = 2048, kSamples = 64, kSteps = 40;
  std::vector<float> w1 = numbers(kIn * kHidden, seed), w2 = numbers(kHidden, seed + 1),
                     teacher = numbers(kIn, seed + 2);
  for (float& w : w1) w *= 0.2f;
  for (float& w : w2) w *= 0.02f;
  std::vector<float> x = numbers(kIn * kSamples, seed + 100 + rank);
  std::vector<float> gradient(w1.size() + w2.size() + 1), hidden(kHidden);
  double loss = 0;
  for (int step = 0; step < kSteps; step++) {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    for (int s = 0; s < kSamples; s++) {
      const float* in = x.data() + s * kIn;
      float target = 0, output = 0;
      for (int i = 0; i < kIn; i++) target += teacher[static_cast<std::size_t>(i)] * in[i];
      target = std::sin(target * 0.3f);
      for (int h = 0; h < kHidden; h++) {
        float sum = 0;
        for (int i = 0; i < kIn; i++) sum += w1[static_cast<std::size_t>(h * kIn + i)] * in[i];
        hidden[static_cast<std::size_t>(h)] = sum > 0 ? sum : 0;
        output += hidden[static_cast<std::size_t>(h)] * w2[static_cast<std::size_t>(h)];
      }
      float difference = (output - target) / static_cast<float>(kSamples * size);
      gradient.back() += 0.5f * (output - target) * difference;
      for (int h = 0; h < kHidden; h++) {
        auto k = static_cast<std::size_t>(h);
        gradient[w1.size() + k] += difference * hidden[k];
        if (hidden[k] <= 0) continue;
        for (int i = 0; i < kIn; i++) gradient[k * kIn + static_cast<std::size_t>(i)] += difference * w2[k] * in[i];
      }
    }
    MPI_Allreduce(MPI_IN_PLACE, gradient.data(), static_cast<int>(gradient.size()), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    const float rate = 4e-4f;
    for (std::size_t i = 0; i < w1.size(); i++) w1[i] -= rate * gradient[i];
    for (std::size_t i = 0; i < w2.size(); i++) w2[i] -= rate * gradient[w1.size() + i];
    loss = gradient.back();
  }
  check_same_bits(w1.data(), w1.size(), MPI_COMM_WORLD);
  if (rank == 0) std::printf("loss %.9g\n", loss);
}

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  bool multiple = argc > 1 && std::strcmp(argv[1], "threads") == 0;
  MPI_Init_thread(&argc, &argv, multiple ? MPI_THREAD_MULTIPLE : MPI_THREAD_SINGLE, &provided);
  EXPECT(!multiple || provided == MPI_THREAD_MULTIPLE, "provided %d", provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::string what = argc > 1 ? argv[1] : "";
  double a = argc > 2 ? std::atof(argv[2]) : 0, b = argc > 3 ? std::atof(argv[3]) : 0;
  if (what == "sums") {
    sums(a, b);
  } else if (what == "untouched") {
    untouched();
  } else if (what == "deferred") {
    deferred();
  } else if (what == "specials") {
    specials();
  } else if (what == "gather") {
    gather(a, b);
  } else if (what == "threads") {
    threads();
  } else if (what == "spawn") {
    spawn(argv[0]);
  } else if (what == "device") {
    device(argv[2]);
  } else if (what == "alone") {
    alone();
  } else if (what == "large_counts") {
    large_counts();
  } else if (what == "train") {
    train(static_cast<int>(a));
  } else {
    failures = 1;
    std::fprintf(stderr, "no case is named %s\n", what.c_str());
  }
  int all = 0;
  MPI_Allreduce(&failures, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  return all != 0;
}
