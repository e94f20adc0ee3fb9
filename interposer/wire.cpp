#include "wire.hpp"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <new>

#include "bf16.hpp"
#include "library.hpp"

namespace AIRamp::Interposer {
namespace {

// A rank may be one chunk ahead of another: addends and sums must not be taken for each other.
constexpr int kAddends = 1, kSums = 2;
// Summed in the first-level cache.
constexpr std::size_t kBlock = 4096;

class Timed {
 public:
  explicit Timed(std::int64_t* to) : to_(to), start_(now_ns()) {}
  ~Timed() { *to_ += now_ns() - start_; }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  std::int64_t* to_;
  std::int64_t start_;
};

// The operation of mode A: adds bfloat16 values, rounding each sum.
void add_rounded(void* in, void* in_out, int* count, Handle*) {
  auto* a = static_cast<const std::uint16_t*>(in);
  auto* b = static_cast<std::uint16_t*>(in_out);
  const auto& k = bf16::kernels();
  float block[kBlock];
  for (std::size_t i = 0; i < static_cast<std::size_t>(*count); i += kBlock) {
    std::size_t n = static_cast<std::size_t>(*count) - i < kBlock ? static_cast<std::size_t>(*count) - i : kBlock;
    k.unpack_bf16_v4(b + i, block, n);
    k.add_bf16_v4(a + i, block, n);
    k.pack_bf16_v4(block, b + i, n);
  }
}

// A number that two hosts hardly share, exact in a double.
double host_number() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  std::uint32_t hash = 2166136261u;
  for (const char* c = name; *c; c++) hash = (hash ^ static_cast<unsigned char>(*c)) * 16777619u;
  return hash;
}

// Created once; 0 until then.
std::atomic<Handle> add_rounded_op;

}  // namespace

bool WireChannel::allocate() {
  auto size = static_cast<std::size_t>(size_);
  std::size_t shard = (kChunk + size - 1) / size;
  std::size_t padded = shard * size;
  std::size_t requests = 2 * size * sizeof(Handle);
  std::size_t slot = (2 * padded + shard) * sizeof(std::uint16_t) + 2 * requests + 256;
  std::size_t spare = (options.shadow ? 3 : 2) * kChunk * sizeof(float);
  memory_size_ = 2 * slot + shard * sizeof(float) + size * sizeof(int) + spare + 1024;
  void* memory = mmap(nullptr, memory_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return false;
  memory_ = memory;
  char* at = static_cast<char*>(memory);
  auto take = [&](std::size_t bytes) {
    char* taken = at;
    at += (bytes + 63) / 64 * 64;
    return taken;
  };
  for (Slot& s : slots_) {
    s.outgoing = reinterpret_cast<std::uint16_t*>(take(padded * 2));
    s.incoming = reinterpret_cast<std::uint16_t*>(take(padded * 2));
    s.sums = reinterpret_cast<std::uint16_t*>(take(shard * 2));
    s.scatter_requests = take(requests);
    s.gather_requests = take(requests);
  }
  accumulator_ = reinterpret_cast<float*>(take(shard * sizeof(float)));
  counts_ = reinterpret_cast<int*>(take(size * sizeof(int)));
  spare_ = reinterpret_cast<float*>(take(spare));
  return true;
}

WireChannel* WireChannel::open(Handle parent, int rank, int size) {
  const MpiLibrary& m = mpi();
  void* place = mmap(nullptr, sizeof(WireChannel), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  auto* channel = place == MAP_FAILED ? nullptr : new (place) WireChannel;
  Handle comm = 0;
  if (m.Comm_split(parent, 0, rank, &comm) != 0) return nullptr;
  m.Comm_set_errhandler(comm, m.errors_return);
  bool there = false;
  if (channel) {
    channel->comm_ = comm;
    channel->rank_ = rank;
    channel->size_ = size;
    there = channel->allocate();
    if (there) channel->measure();
  }
  // Minima over all ranks, the last two of a number that names the host and of its negative.
  double host = host_number();
  double mine[4] = {there ? 1.0 : 0.0, there ? channel->pack_rate_ : 0.0, host, -host};
  double all[4] = {};
  if (m.Allreduce(mine, all, 4, m.float64, m.min, comm) != 0) all[0] = 0;
  if (all[0] == 0) {
    m.Comm_free(&comm);
    if (channel) channel->close();
    return nullptr;
  }
  channel->pack_rate_ = all[1];
  channel->one_host_ = all[2] == -all[3];
  // The link is measured by all at the same time, half a mebibyte to the next rank, the best of three times.
  constexpr std::size_t kProbe = std::size_t{1} << 19;
  int next = (rank + 1) % size, previous = (rank + size - 1) % size;
  Slot& slot = channel->slots_[0];
  std::int64_t best = INT64_MAX;
  for (int round = 0; round < 3; round++) {
    std::int64_t start = now_ns();
    Work ignored;
    channel->irecv(slot.incoming, kProbe / 2, previous, kAddends, slot.scatter_requests);
    channel->isend(slot.outgoing, kProbe / 2, next, kAddends, slot.scatter_requests + m.handle_size, &ignored);
    channel->wait(slot.scatter_requests, 2);
    std::int64_t took = now_ns() - start;
    if (took < best) best = took;
  }
  mine[0] = static_cast<double>(kProbe) * 1e9 / static_cast<double>(best + 1);
  m.Allreduce(mine, all, 1, m.float64, m.min, comm);
  channel->link_rate_ = all[0];
  return channel;
}

void WireChannel::close() {
  if (comm_) mpi().Comm_free(&comm_);
  if (memory_) munmap(memory_, memory_size_);
  munmap(static_cast<void*>(this), sizeof *this);
}

// What mode B does to each byte of float32 on the way: rounded, widened and added, rounded, widened.
void WireChannel::measure() {
  const auto& k = bf16::kernels();
  constexpr std::size_t n = std::size_t{1} << 18;
  auto* numbers = reinterpret_cast<float*>(slots_[0].outgoing);  // kChunk * 2 bytes hold twice n floats
  std::int64_t took = 0;
  for (int round = 0; round < 3; round++) {
    took = 0;
    Timed timed(&took);
    k.pack_bf16_v4(numbers, slots_[0].incoming, n);
    k.add_bf16_v4(slots_[0].incoming, numbers, n);
    k.unpack_bf16_v4(slots_[0].incoming, numbers, n);
  }
  pack_rate_ = static_cast<double>(n * sizeof(float)) * 1e9 / static_cast<double>(took + 1);
  memset(slots_[0].outgoing, 0, n * sizeof(float));
}

int WireChannel::isend(const std::uint16_t* data, std::size_t count, int peer, int tag, char* request, Work* work) {
  const MpiLibrary& m = mpi();
  work->bytes_sent += static_cast<std::int64_t>(count * 2);
  return m.Isend(data, static_cast<int>(count), m.uint16, peer, tag, comm_, reinterpret_cast<Handle*>(request));
}

int WireChannel::irecv(std::uint16_t* data, std::size_t count, int peer, int tag, char* request) {
  const MpiLibrary& m = mpi();
  return m.Irecv(data, static_cast<int>(count), m.uint16, peer, tag, comm_, reinterpret_cast<Handle*>(request));
}

// To all other ranks, from slot.sums.
int WireChannel::send_sums(Slot& slot, std::size_t count, Work* work) {
  std::size_t handle = mpi().handle_size;
  for (int i = 1; i < size_; i++) {
    char* request = slot.gather_requests + handle * static_cast<std::size_t>(size_ - 1 + i - 1);
    if (int e = isend(slot.sums, count, (rank_ + i) % size_, kSums, request, work)) return e;
  }
  return 0;
}

int WireChannel::wait(char* requests, int count) {
  return mpi().Waitall(count, reinterpret_cast<Handle*>(requests), mpi().statuses_ignore);
}

// Sends each other rank its shard of the chunk, and asks for theirs of ours. Empty shards travel too: as empty
// messages, which keeps the pairs alike.
int WireChannel::scatter(Slot& slot, const float* from, Work* work) {
  const auto& k = bf16::kernels();
  std::size_t mine = shard_begin(slot.count, rank_ + 1) - shard_begin(slot.count, rank_);
  std::size_t handle = mpi().handle_size;
  for (int i = 1; i < size_; i++) {
    int peer = (rank_ + size_ - i) % size_;
    char* request = slot.scatter_requests + handle * static_cast<std::size_t>(i - 1);
    if (int e = irecv(slot.incoming + mine * static_cast<std::size_t>(i - 1), mine, peer, kAddends, request)) return e;
  }
  for (int i = 1; i < size_; i++) {
    int peer = (rank_ + i) % size_;
    std::size_t begin = shard_begin(slot.count, peer), n = shard_begin(slot.count, peer + 1) - begin;
    {
      Timed timed(&work->pack_nanoseconds);
      k.pack_bf16_v4(from + slot.at + begin, slot.outgoing + begin, n);
    }
    char* request = slot.scatter_requests + handle * static_cast<std::size_t>(size_ - 1 + i - 1);
    if (int e = isend(slot.outgoing + begin, n, peer, kAddends, request, work)) return e;
  }
  return 0;
}

// Sums this rank's shard, in the same order each time, and sends it to all.
int WireChannel::reduce(Slot& slot, const float* from, float* to, Work* work) {
  if (int e = wait(slot.scatter_requests, 2 * (size_ - 1))) return e;
  const auto& k = bf16::kernels();
  std::size_t begin = shard_begin(slot.count, rank_), n = shard_begin(slot.count, rank_ + 1) - begin;
  {
    Timed timed(&work->pack_nanoseconds);
    for (std::size_t b = 0; b < n; b += kBlock) {
      std::size_t length = n - b < kBlock ? n - b : kBlock;
      float sum[kBlock];
      memcpy(sum, from + slot.at + begin + b, length * sizeof(float));
      for (int i = size_ - 1; i >= 1; i--)
        k.add_bf16_v4(slot.incoming + n * static_cast<std::size_t>(i - 1) + b, sum, length);
      k.pack_bf16_v4(sum, slot.sums + b, length);
      k.unpack_bf16_v4(slot.sums + b, to + slot.at + begin + b, length);
    }
  }
  std::size_t handle = mpi().handle_size;
  for (int i = 1; i < size_; i++) {
    int peer = (rank_ + size_ - i) % size_;
    std::size_t theirs = shard_begin(slot.count, peer);
    if (int e = irecv(slot.incoming + theirs, shard_begin(slot.count, peer + 1) - theirs, peer, kSums,
                      slot.gather_requests + handle * static_cast<std::size_t>(i - 1)))
      return e;
  }
  return send_sums(slot, n, work);
}

// Takes the other ranks' sums.
int WireChannel::collect(Slot& slot, float* to, Work* work) {
  if (int e = wait(slot.gather_requests, 2 * (size_ - 1))) return e;
  const auto& k = bf16::kernels();
  Timed timed(&work->pack_nanoseconds);
  for (int peer = 0; peer < size_; peer++) {
    std::size_t begin = shard_begin(slot.count, peer), n = shard_begin(slot.count, peer + 1) - begin;
    if (peer != rank_) k.unpack_bf16_v4(slot.incoming + begin, to + slot.at + begin, n);
  }
  slot.count = 0;
  return 0;
}

// The next chunk's addends travel while this one's sums do, so that the link never waits for a rank.
int WireChannel::sum_b(const float* from, float* to, std::size_t count, Work* work) {
  Timed timed(&work->nanoseconds);
  std::size_t chunks = (count + kChunk - 1) / kChunk;
  auto begin = [&](std::size_t chunk) {
    Slot& slot = slots_[chunk % 2];
    slot.at = chunk * kChunk;
    slot.count = count - slot.at < kChunk ? count - slot.at : kChunk;
    return scatter(slot, from, work);
  };
  if (int e = begin(0)) return e;
  for (std::size_t chunk = 0; chunk < chunks; chunk++) {
    if (chunk + 1 < chunks)
      if (int e = begin(chunk + 1)) return e;
    if (int e = reduce(slots_[chunk % 2], from, to, work)) return e;
    if (int e = collect(slots_[chunk % 2], to, work)) return e;
  }
  return 0;
}

int WireChannel::sum_a(const float* from, float* to, std::size_t count, Work* work) {
  const MpiLibrary& m = mpi();
  Timed timed(&work->nanoseconds);
  if (!add_rounded_op.load()) {
    Handle op = 0;
    if (int e = m.Op_create(add_rounded, 1, &op)) return e;
    add_rounded_op.store(op);
  }
  const auto& k = bf16::kernels();
  std::uint16_t* buffer = slots_[0].outgoing;
  for (std::size_t at = 0; at < count; at += kChunk) {
    std::size_t n = count - at < kChunk ? count - at : kChunk;
    {
      Timed packing(&work->pack_nanoseconds);
      k.pack_bf16_v4(from + at, buffer, n);
    }
    if (int e = m.Allreduce(m.in_place, buffer, static_cast<int>(n), m.uint16, add_rounded_op.load(), comm_)) return e;
    work->bytes_sent +=
        static_cast<std::int64_t>(n * 4 * static_cast<std::size_t>(size_ - 1) / static_cast<std::size_t>(size_));
    Timed unpacking(&work->pack_nanoseconds);
    k.unpack_bf16_v4(buffer, to + at, n);
  }
  return 0;
}

int WireChannel::sum_d(const float* from, float* to, std::size_t count, Work* work) {
  const MpiLibrary& m = mpi();
  Timed timed(&work->nanoseconds);
  const auto& k = bf16::kernels();
  std::size_t handle = m.handle_size;
  Slot& slot = slots_[0];
  for (slot.at = 0; slot.at < count; slot.at += kChunk) {
    std::size_t left = count - slot.at;
    slot.count = left < kChunk ? left : kChunk;
    std::size_t chunk = slot.count;
    for (int i = 0; i < size_; i++) counts_[i] = static_cast<int>(shard_begin(chunk, i + 1) - shard_begin(chunk, i));
    if (int e = m.Reduce_scatter(from + slot.at, accumulator_, counts_, m.float32, m.sum, comm_)) return e;
    std::size_t begin = shard_begin(chunk, rank_), n = static_cast<std::size_t>(counts_[rank_]);
    work->bytes_sent += static_cast<std::int64_t>((chunk - n) * 4);
    k.pack_bf16_v4(accumulator_, slot.sums, n);
    k.unpack_bf16_v4(slot.sums, to + slot.at + begin, n);
    for (int i = 1; i < size_; i++) {
      int peer = (rank_ + size_ - i) % size_;
      if (int e = irecv(slot.incoming + shard_begin(chunk, peer), static_cast<std::size_t>(counts_[peer]), peer, kSums,
                        slot.gather_requests + handle * static_cast<std::size_t>(i - 1)))
        return e;
    }
    if (int e = send_sums(slot, n, work)) return e;
    if (int e = collect(slot, to, work)) return e;
  }
  return 0;
}

int WireChannel::gather(const float* from, float* to, std::size_t count, Work* work) {
  Timed timed(&work->nanoseconds);
  const auto& k = bf16::kernels();
  std::size_t handle = mpi().handle_size;
  Slot& slot = slots_[0];
  auto size = static_cast<std::size_t>(size_);
  std::size_t piece = kChunk / size;
  for (std::size_t at = 0; at < count; at += piece) {
    std::size_t n = count - at < piece ? count - at : piece;
    k.pack_bf16_v4(from + at, slot.sums, n);
    for (int i = 1; i < size_; i++) {
      auto peer = static_cast<std::size_t>((rank_ + size_ - i) % size_);
      if (int e = irecv(slot.incoming + n * peer, n, static_cast<int>(peer), kSums,
                        slot.gather_requests + handle * static_cast<std::size_t>(i - 1)))
        return e;
    }
    if (int e = send_sums(slot, n, work)) return e;
    if (int e = wait(slot.gather_requests, 2 * (size_ - 1))) return e;
    // This rank's own part is rounded as well: all end with the same bits.
    for (std::size_t peer = 0; peer < size; peer++)
      k.unpack_bf16_v4(peer == static_cast<std::size_t>(rank_) ? slot.sums : slot.incoming + n * peer,
                       to + peer * count + at, n);
  }
  return 0;
}

}  // namespace AIRamp::Interposer
