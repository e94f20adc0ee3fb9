#include "wire.hpp"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <new>

#include "bf16.hpp"
#include "library.hpp"
#include "trace.hpp"

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

// Half the payload, within bounds: one half's sums travel while the other's addends do.
std::size_t WireChannel::chunk_for(std::size_t count) {
  std::size_t chunk = kLeastChunk;
  while (chunk < kLargestChunk && chunk < count / 2) chunk *= 2;
  return chunk;
}

// The spare chunks stay untouched, and take no memory, unless they are needed.
WireChannel::Memory WireChannel::allocate(std::size_t chunk) const {
  auto size = static_cast<std::size_t>(size_);
  std::size_t shard = (chunk + size - 1) / size;
  std::size_t padded = shard * size;
  std::size_t requests = 2 * size * sizeof(Handle);
  std::size_t slot = (2 * padded + shard) * sizeof(std::uint16_t) + 2 * requests + 512;
  std::size_t used = kSlots * slot + shard * sizeof(float) + size * sizeof(int) + 1024;
  Memory memory;
  memory.size = used + kSpareChunks * chunk * sizeof(float);
  void* all = mmap(nullptr, memory.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) return {};
  memory.all = all;
  memset(all, 0, used);
  char* at = static_cast<char*>(all);
  auto take = [&](std::size_t bytes) {
    char* taken = at;
    at += (bytes + 63) / 64 * 64;
    return taken;
  };
  for (Slot& s : memory.slots) {
    s.outgoing = reinterpret_cast<std::uint16_t*>(take(padded * 2));
    s.incoming = reinterpret_cast<std::uint16_t*>(take(padded * 2));
    s.sums = reinterpret_cast<std::uint16_t*>(take(shard * 2));
    s.scatter_requests = take(requests);
    s.gather_requests = take(requests);
  }
  memory.accumulator = reinterpret_cast<float*>(take(shard * sizeof(float)));
  memory.counts = reinterpret_cast<int*>(take(size * sizeof(int)));
  memory.spare = reinterpret_cast<float*>(at);
  return memory;
}

void WireChannel::fit(std::size_t count) {
  std::size_t chunk = chunk_for(count);
  if (chunk > largest_chunk_) chunk = largest_chunk_;
  if (chunk <= chunk_) return;
  Memory larger = allocate(chunk);
  double mine = larger.all ? 1 : 0, all = 0;
  if (mpi().Allreduce(&mine, &all, 1, mpi().float64, mpi().min, comm_) != 0) all = 0;
  Memory& loser = all == 1 ? memory_ : larger;
  if (loser.all) munmap(loser.all, loser.size);
  if (all == 1) {
    memory_ = larger;
    chunk_ = chunk;
  } else {
    largest_chunk_ = chunk_;
  }
}

WireChannel* WireChannel::open(Handle parent, int rank, int size, std::size_t count) {
  const MpiLibrary& m = mpi();
  trace::start();
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
    channel->chunk_ = chunk_for(count);
    channel->memory_ = channel->allocate(channel->chunk_);
    there = channel->memory_.all != nullptr;
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
  Slot& slot = channel->memory_.slots[0];
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
  if (memory_.all) munmap(memory_.all, memory_.size);
  munmap(static_cast<void*>(this), sizeof *this);
}

// What mode B does to each byte of float32 on the way: rounded, widened and added, rounded, widened.
void WireChannel::measure() {
  const auto& k = bf16::kernels();
  constexpr std::size_t n = std::size_t{1} << 18;
  auto* numbers = reinterpret_cast<float*>(memory_.slots[0].outgoing);  // 2 chunk_ bytes hold twice n floats
  std::int64_t took = 0;
  for (int round = 0; round < 3; round++) {
    took = 0;
    Timed timed(&took);
    k.pack_bf16_v4(numbers, memory_.slots[0].incoming, n);
    k.add_bf16_v4(memory_.slots[0].incoming, numbers, n);
    k.unpack_bf16_v4(memory_.slots[0].incoming, numbers, n);
  }
  pack_rate_ = static_cast<double>(n * sizeof(float)) * 1e9 / static_cast<double>(took + 1);
  memset(memory_.slots[0].outgoing, 0, n * sizeof(float));
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

// This rank's sums, likewise.
int WireChannel::send_sums(Slot& slot, int step, std::size_t count, Work* work) {
  char* request = slot.gather_requests + mpi().handle_size * static_cast<std::size_t>(size_ + step - 2);
  if (step > 1)
    if (int e = wait(request - mpi().handle_size, 1)) return e;
  return isend(slot.sums, count, (rank_ + step) % size_, kSums, request, work);
}

// The rest of them, and until the others' have come.
int WireChannel::finish_sums(Slot& slot, std::size_t count, Work* work) {
  for (int step = 2; step < size_; step++)
    if (int e = send_sums(slot, step, count, work)) return e;
  return wait(slot.gather_requests, 2 * (size_ - 1));
}

int WireChannel::wait(char* requests, int count) {
  return mpi().Waitall(count, reinterpret_cast<Handle*>(requests), mpi().statuses_ignore);
}

// Asks the other ranks for their addends of this rank's shard, and begins to send them those of theirs. Empty shards
// travel too, as empty messages, which keeps the pairs alike.
int WireChannel::scatter(Slot& slot, const float* from, Work* work) {
  std::size_t mine = shard_begin(slot.count, rank_ + 1) - shard_begin(slot.count, rank_);
  std::size_t handle = mpi().handle_size;
  for (int i = 1; i < size_; i++) {
    int peer = (rank_ + size_ - i) % size_;
    char* request = slot.scatter_requests + handle * static_cast<std::size_t>(i - 1);
    if (int e = irecv(slot.incoming + mine * static_cast<std::size_t>(i - 1), mine, peer, kAddends, request)) return e;
  }
  return send_addends(slot, 1, from, work);
}

// To the rank that is `step` further, which gets from us while we get from the rank that is as much before. One rank at
// a time: many senders at once to one receiver, or many flows through one queue, cost more than they gain.
int WireChannel::send_addends(Slot& slot, int step, const float* from, Work* work) {
  int peer = (rank_ + step) % size_;
  std::size_t begin = shard_begin(slot.count, peer), n = shard_begin(slot.count, peer + 1) - begin;
  {
    Timed timed(&work->pack_nanoseconds);
    trace::Range range("AIRamp:BF16-Pack");
    bf16::kernels().pack_bf16_v4(from + slot.at + begin, slot.outgoing + begin, n);
  }
  char* request = slot.scatter_requests + mpi().handle_size * static_cast<std::size_t>(size_ + step - 2);
  if (step > 1)
    if (int e = wait(request - mpi().handle_size, 1)) return e;
  return isend(slot.outgoing + begin, n, peer, kAddends, request, work);
}

// Sums this rank's shard, in the same order each time, and sends it to all.
int WireChannel::reduce(Slot& slot, const float* from, float* to, Work* work) {
  for (int step = 2; step < size_; step++)
    if (int e = send_addends(slot, step, from, work)) return e;
  if (int e = wait(slot.scatter_requests, 2 * (size_ - 1))) return e;
  const auto& k = bf16::kernels();
  std::size_t begin = shard_begin(slot.count, rank_), n = shard_begin(slot.count, rank_ + 1) - begin;
  {
    Timed timed(&work->pack_nanoseconds);
    trace::Range range("AIRamp:BF16-Sum");
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
  return send_sums(slot, 1, n, work);
}

// Takes the other ranks' sums.
int WireChannel::collect(Slot& slot, float* to, Work* work) {
  std::size_t mine = shard_begin(slot.count, rank_ + 1) - shard_begin(slot.count, rank_);
  if (int e = finish_sums(slot, mine, work)) return e;
  const auto& k = bf16::kernels();
  Timed timed(&work->pack_nanoseconds);
  trace::Range range("AIRamp:BF16-Unpack");
  for (int peer = 0; peer < size_; peer++) {
    std::size_t begin = shard_begin(slot.count, peer), n = shard_begin(slot.count, peer + 1) - begin;
    if (peer != rank_) k.unpack_bf16_v4(slot.incoming + begin, to + slot.at + begin, n);
  }
  slot.count = 0;
  return 0;
}

// While a chunk is summed, the next one's addends and the last one's sums travel, so that the link never waits for a
// rank.
int WireChannel::sum_b(const float* from, float* to, std::size_t count, Work* work) {
  Timed timed(&work->nanoseconds);
  std::size_t chunks = (count + chunk_ - 1) / chunk_;
  auto begin = [&](std::size_t chunk) {
    if (chunk >= chunks) return 0;
    Slot& slot = memory_.slots[chunk % kSlots];
    slot.at = chunk * chunk_;
    slot.count = count - slot.at < chunk_ ? count - slot.at : chunk_;
    return scatter(slot, from, work);
  };
  if (int e = begin(0)) return e;
  for (std::size_t chunk = 0; chunk < chunks; chunk++) {
    if (int e = begin(chunk + 1)) return e;
    if (int e = reduce(memory_.slots[chunk % kSlots], from, to, work)) return e;
    if (int e = collect(memory_.slots[chunk % kSlots], to, work)) return e;
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
  std::uint16_t* buffer = memory_.slots[0].outgoing;
  for (std::size_t at = 0; at < count; at += chunk_) {
    std::size_t n = count - at < chunk_ ? count - at : chunk_;
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
  Slot& slot = memory_.slots[0];
  for (slot.at = 0; slot.at < count; slot.at += chunk_) {
    std::size_t left = count - slot.at;
    slot.count = left < chunk_ ? left : chunk_;
    std::size_t chunk = slot.count;
    for (int i = 0; i < size_; i++)
      memory_.counts[i] = static_cast<int>(shard_begin(chunk, i + 1) - shard_begin(chunk, i));
    if (int e = m.Reduce_scatter(from + slot.at, memory_.accumulator, memory_.counts, m.float32, m.sum, comm_))
      return e;
    std::size_t begin = shard_begin(chunk, rank_), n = static_cast<std::size_t>(memory_.counts[rank_]);
    work->bytes_sent += static_cast<std::int64_t>((chunk - n) * 4);
    k.pack_bf16_v4(memory_.accumulator, slot.sums, n);
    k.unpack_bf16_v4(slot.sums, to + slot.at + begin, n);
    for (int i = 1; i < size_; i++) {
      int peer = (rank_ + size_ - i) % size_;
      if (int e = irecv(slot.incoming + shard_begin(chunk, peer), static_cast<std::size_t>(memory_.counts[peer]), peer,
                        kSums, slot.gather_requests + handle * static_cast<std::size_t>(i - 1)))
        return e;
    }
    if (int e = send_sums(slot, 1, n, work)) return e;
    if (int e = collect(slot, to, work)) return e;
  }
  return 0;
}

int WireChannel::gather(const float* from, float* to, std::size_t count, Work* work) {
  Timed timed(&work->nanoseconds);
  const auto& k = bf16::kernels();
  std::size_t handle = mpi().handle_size;
  Slot& slot = memory_.slots[0];
  auto size = static_cast<std::size_t>(size_);
  std::size_t piece = chunk_ / size;
  for (std::size_t at = 0; at < count; at += piece) {
    std::size_t n = count - at < piece ? count - at : piece;
    k.pack_bf16_v4(from + at, slot.sums, n);
    for (int i = 1; i < size_; i++) {
      auto peer = static_cast<std::size_t>((rank_ + size_ - i) % size_);
      if (int e = irecv(slot.incoming + n * peer, n, static_cast<int>(peer), kSums,
                        slot.gather_requests + handle * static_cast<std::size_t>(i - 1)))
        return e;
    }
    if (int e = send_sums(slot, 1, n, work)) return e;
    if (int e = finish_sums(slot, n, work)) return e;
    // This rank's own part is rounded as well: all end with the same bits.
    for (std::size_t peer = 0; peer < size; peer++)
      k.unpack_bf16_v4(peer == static_cast<std::size_t>(rank_) ? slot.sums : slot.incoming + n * peer,
                       to + peer * count + at, n);
  }
  return 0;
}

}  // namespace AIRamp::Interposer
