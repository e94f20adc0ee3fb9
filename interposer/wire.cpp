#include "wire.hpp"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <new>

#include "bf16.hpp"
#include "library.hpp"
#include "trace.hpp"

namespace AIRamp::Interposer {
namespace {

// A rank may be one chunk ahead of another: addends and sums must not be taken for each other.
constexpr int kAddends = 1, kSums = 2;
constexpr double kUsualLatency = 30e-6;
constexpr long kShortestNap = 10000, kLongestNap = 320000;  // ns
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

std::size_t WireChannel::room_for(std::size_t count) {
  std::size_t room = kLeastChunk;
  while (room < kLargestChunk * kMostSlots && room < count) room *= 2;
  return room;
}

// Several chunks, so that one travels while another is summed, and no smaller than need be.
std::size_t WireChannel::chunk_for(std::size_t count) const {
  std::size_t chunk = kLeastChunk;
  while (chunk < kLargestChunk && chunk * kMostSlots < count) chunk *= 2;
  return chunk < room_ ? chunk : room_;
}

// The spare parts stay untouched, and take no memory, unless they are needed.
WireChannel::Memory WireChannel::allocate(std::size_t room) const {
  // Each chunk's shards may be an element larger than its part.
  auto size = static_cast<std::size_t>(size_);
  std::size_t shards = room / size + kMostSlots, all_shards = room + kMostSlots * size;
  std::size_t requests = kMostSlots * size * sizeof(Handle);
  auto rounded = [](std::size_t bytes) { return (bytes + 63) / 64 * 64; };
  std::size_t outgoing = kMostSends * shard_room(room < kLargestChunk ? room : kLargestChunk);
  std::size_t used = rounded(outgoing * 2) + 2 * rounded(all_shards * 2) + rounded(shards * 2) + 2 * rounded(requests) +
                     rounded(kMostSends * sizeof(Handle)) + rounded(size * sizeof(int));
  Memory memory;
  memory.size = used + kSpares * room * sizeof(float);
  void* all = mmap(nullptr, memory.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) return {};
  memory.all = all;
  memset(all, 0, used);
  char* at = static_cast<char*>(all);
  auto take = [&](std::size_t bytes) {
    char* taken = at;
    at += rounded(bytes);
    return taken;
  };
  memory.outgoing = reinterpret_cast<std::uint16_t*>(take(outgoing * 2));
  memory.addends = reinterpret_cast<std::uint16_t*>(take(all_shards * 2));
  memory.others = reinterpret_cast<std::uint16_t*>(take(all_shards * 2));
  memory.sums = reinterpret_cast<std::uint16_t*>(take(shards * 2));
  memory.addend_requests = take(requests);
  memory.sum_requests = take(requests);
  memory.send_requests = take(kMostSends * sizeof(Handle));
  memory.counts = reinterpret_cast<int*>(take(size * sizeof(int)));
  memory.spare = reinterpret_cast<float*>(at);
  return memory;
}

void WireChannel::fit(std::size_t count) {
  std::size_t room = room_for(count);
  if (room > most_room_) room = most_room_;
  if (room <= room_) return;
  Memory larger = allocate(room);
  double mine = larger.all ? 1 : 0, all = 0;
  if (mpi().Allreduce(&mine, &all, 1, mpi().float64, mpi().min, comm_) != 0) all = 0;
  Memory& loser = all == 1 ? memory_ : larger;
  if (loser.all) munmap(loser.all, loser.size);
  if (all == 1) {
    memory_ = larger;
    room_ = room;
  } else {
    most_room_ = room_;
  }
}

WireChannel* WireChannel::open(Handle parent, int rank, int size, std::size_t count, const Advice& advice) {
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
    channel->room_ = room_for(count);
    channel->memory_ = channel->allocate(channel->room_);
    there = channel->memory_.all != nullptr;
    if (there && advice.pack_rate == 0) channel->measure();
    if (advice.pack_rate > 0) channel->pack_rate_ = advice.pack_rate;
  }
  // Minima over all ranks, the third and fourth of a number that names the host and of its negative.
  double host = host_number(), latency = advice.latency > 0 ? advice.latency : kUsualLatency;
  double mine[5] = {there ? 1.0 : 0.0, there ? channel->pack_rate_ : 0.0, host, -host, -latency};
  double all[5] = {};
  if (m.Allreduce(mine, all, 5, m.float64, m.min, comm) != 0) all[0] = 0;
  if (all[0] == 0) {
    m.Comm_free(&comm);
    if (channel) channel->close();
    return nullptr;
  }
  channel->pack_rate_ = all[1];
  channel->one_host_ = all[2] == -all[3];
  channel->latency_ = -all[4];
  // The link is measured by all at the same time, half a mebibyte to the next rank, the best of three times.
  constexpr std::size_t kProbe = std::size_t{1} << 19;
  const Memory& memory = channel->memory_;
  std::int64_t best = INT64_MAX;
  for (int round = 0; round < 3; round++) {
    std::int64_t start = now_ns();
    Work ignored;
    channel->irecv(memory.addends, kProbe / 2, channel->sender(1), kAddends, memory.send_requests);
    channel->isend(memory.others, kProbe / 2, channel->receiver(1), kAddends, memory.send_requests + m.handle_size,
                   &ignored);
    channel->wait(memory.send_requests, 2);
    std::int64_t took = now_ns() - start;
    if (took < best) best = took;
  }
  mine[0] = static_cast<double>(kProbe) * 1e9 / static_cast<double>(best + 1);
  if (advice.link_rate > 0 && advice.link_rate < mine[0]) mine[0] = advice.link_rate;
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
  auto* numbers = reinterpret_cast<float*>(memory_.others);
  std::int64_t took = 0;
  for (int round = 0; round < 3; round++) {
    took = 0;
    Timed timed(&took);
    k.pack_bf16_v4(numbers, memory_.addends, n);
    k.add_bf16_v4(memory_.addends, numbers, n);
    k.unpack_bf16_v4(memory_.addends, numbers, n);
  }
  pack_rate_ = static_cast<double>(n * sizeof(float)) * 1e9 / static_cast<double>(took + 1);
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

int WireChannel::test(char* requests, int count, int* done) {
  return mpi().Testall(count, reinterpret_cast<Handle*>(requests), done, mpi().statuses_ignore);
}

// A rank that waits leaves its core to those that pack and to the kernel's network stack; MPI itself would poll. The
// sockets' buffers keep the wire busy for longer than the longest nap. Between processes of one host there is no wire.
void WireChannel::rest(long* nap_ns) const {
  if (one_host_) {
    sched_yield();
    return;
  }
  const timespec nap = {0, *nap_ns};
  nanosleep(&nap, nullptr);
  if (*nap_ns < kLongestNap) *nap_ns *= 2;
}

int WireChannel::wait(char* requests, int count) {
  long nap_ns = kShortestNap;
  for (int done = 0;;) {
    int e = test(requests, count, &done);
    if (e || done) return e;
    rest(&nap_ns);
  }
}

// Asks the other ranks for their addends and for their sums of a chunk.
int WireChannel::ask(Sum& sum, std::size_t place) {
  Slot& slot = sum.slots[place];
  auto others = static_cast<std::size_t>(size_ - 1), handle = mpi().handle_size;
  std::size_t room = shard_room(sum.chunk) * static_cast<std::size_t>(size_);
  std::size_t mine = shard_size(slot.count, rank_);
  for (int step = 1; step < size_; step++) {
    auto i = static_cast<std::size_t>(step - 1);
    int peer = sender(step);
    if (int e = irecv(memory_.addends + place * room + i * mine, mine, peer, kAddends,
                      memory_.addend_requests + handle * (place * others + i)))
      return e;
    if (int e = irecv(memory_.others + place * room + shard_begin(slot.count, peer), shard_size(slot.count, peer), peer,
                      kSums, memory_.sum_requests + handle * (place * others + i)))
      return e;
  }
  slot.sends = 2 * (size_ - 1);
  return 0;
}

// Empty shards travel too, as empty messages, which keeps the pairs alike.
int WireChannel::send_addends(Sum& sum, std::size_t place, int step, int handle) {
  Slot& slot = sum.slots[place];
  int peer = receiver(step);
  std::size_t begin = shard_begin(slot.count, peer), n = shard_size(slot.count, peer);
  std::uint16_t* packed = memory_.outgoing + static_cast<std::size_t>(handle) * shard_room(sum.chunk);
  {
    Timed timed(&sum.work->pack_nanoseconds);
    trace::Range range("AIRamp:BF16-Pack");
    bf16::kernels().pack_bf16_v4(sum.from + slot.at + begin, packed, n);
  }
  sum.sending[handle] = &slot;
  return isend(packed, n, peer, kAddends, memory_.send_requests + mpi().handle_size * static_cast<std::size_t>(handle),
               sum.work);
}

int WireChannel::send_sums(Sum& sum, std::size_t place, int step, int handle) {
  Slot& slot = sum.slots[place];
  sum.sending[handle] = &slot;
  return isend(memory_.sums + place * shard_room(sum.chunk), shard_size(slot.count, rank_), receiver(step), kSums,
               memory_.send_requests + mpi().handle_size * static_cast<std::size_t>(handle), sum.work);
}

// Sums this rank's shard, in the same order each time.
void WireChannel::reduce(Sum& sum, std::size_t place) {
  const auto& k = bf16::kernels();
  const Slot& slot = sum.slots[place];
  std::size_t begin = shard_begin(slot.count, rank_), n = shard_size(slot.count, rank_);
  const std::uint16_t* addends = memory_.addends + place * shard_room(sum.chunk) * static_cast<std::size_t>(size_);
  std::uint16_t* sums = memory_.sums + place * shard_room(sum.chunk);
  Timed timed(&sum.work->pack_nanoseconds);
  trace::Range range("AIRamp:BF16-Sum");
  for (std::size_t b = 0; b < n; b += kBlock) {
    std::size_t length = n - b < kBlock ? n - b : kBlock;
    float block[kBlock];
    memcpy(block, sum.from + slot.at + begin + b, length * sizeof(float));
    for (int i = size_ - 1; i >= 1; i--)
      k.add_bf16_v4(addends + n * static_cast<std::size_t>(i - 1) + b, block, length);
    k.pack_bf16_v4(block, sums + b, length);
    k.unpack_bf16_v4(sums + b, sum.to + slot.at + begin + b, length);
  }
}

// Takes the other ranks' sums.
void WireChannel::collect(Sum& sum, std::size_t place) {
  const Slot& slot = sum.slots[place];
  const std::uint16_t* others = memory_.others + place * shard_room(sum.chunk) * static_cast<std::size_t>(size_);
  Timed timed(&sum.work->pack_nanoseconds);
  trace::Range range("AIRamp:BF16-Unpack");
  for (int peer = 0; peer < size_; peer++) {
    std::size_t begin = shard_begin(slot.count, peer);
    if (peer != rank_)
      bf16::kernels().unpack_bf16_v4(others + begin, sum.to + slot.at + begin, shard_size(slot.count, peer));
  }
}

// Chunks go through four stages: asked for, sent as addends, summed and sent as sums, collected. All ranks ask for
// them, sum them and collect them in the order of the payload, so that messages of one kind between two ranks are taken
// in the order in which they were sent; sums go before addends, because they let chunks end. A few sends are under way
// at a time: one has to be agreed between two ranks while another's data flow, but many flows share the link badly. No
// rank can wait for ever: before a rank sends anything of a chunk whose place others may still use, it has sent all of
// the chunk that was there before.
int WireChannel::sum_b(const float* from, float* to, std::size_t count, Work* work) {
  Timed timed(&work->nanoseconds);
  Sum sum = {.from = from, .to = to, .work = work, .chunk = chunk_for(count), .slots = {}, .sending = {}};
  std::size_t chunks = (count + sum.chunk - 1) / sum.chunk, places = room_ / sum.chunk;
  if (places > kMostSlots) places = kMostSlots;
  auto others = static_cast<std::size_t>(size_ - 1), handle = mpi().handle_size;
  std::size_t asked = 0, summed = 0, collected = 0, ended = 0;
  struct {
    std::size_t chunk;
    int step;
    void go_on(int ranks) {
      if (++step == ranks) step = 1, chunk++;
    }
  } addends = {0, 1}, sums = {0, 1};
  long nap_ns = kShortestNap;
  while (ended < chunks) {
    bool idle = true;
    for (; asked < chunks && asked - ended < places; asked++, idle = false) {
      Slot& slot = sum.slots[asked % places];
      slot.at = asked * sum.chunk;
      slot.count = count - slot.at < sum.chunk ? count - slot.at : sum.chunk;
      if (int e = ask(sum, asked % places)) return e;
    }
    for (int i = 0; i < kMostSends; i++) {
      int done = 0;
      if (sum.sending[i]) {
        if (int e = test(memory_.send_requests + handle * static_cast<std::size_t>(i), 1, &done)) return e;
        if (!done) continue;
        sum.sending[i]->sends--;
        sum.sending[i] = nullptr;
        idle = false;
      }
      if (sums.chunk < summed) {
        if (int e = send_sums(sum, sums.chunk % places, sums.step, i)) return e;
        sums.go_on(size_);
        idle = false;
      } else if (addends.chunk < asked) {
        if (int e = send_addends(sum, addends.chunk % places, addends.step, i)) return e;
        addends.go_on(size_);
        idle = false;
      }
    }
    int done = 0;
    if (summed < asked) {
      std::size_t place = summed % places;
      if (int e = test(memory_.addend_requests + handle * place * others, size_ - 1, &done)) return e;
      if (done) {
        reduce(sum, place);
        summed++;
        idle = false;
      }
    }
    if (collected < summed) {
      std::size_t place = collected % places;
      if (int e = test(memory_.sum_requests + handle * place * others, size_ - 1, &done)) return e;
      if (done) {
        collect(sum, place);
        collected++;
        idle = false;
      }
    }
    for (; ended < collected && sum.slots[ended % places].sends == 0; ended++) idle = false;
    if (!idle) nap_ns = kShortestNap;
    if (idle) rest(&nap_ns);
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
  std::uint16_t* buffer = memory_.addends;
  for (std::size_t at = 0; at < count; at += room()) {
    std::size_t n = count - at < room() ? count - at : room();
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

// Sends this rank's shard of `count` elements, which stands in memory_.sums, to all, and gets theirs into
// memory_.others.
int WireChannel::exchange(std::size_t count, Work* work) {
  std::size_t handle = mpi().handle_size;
  for (int step = 1; step < size_; step++) {
    int peer = sender(step);
    if (int e = irecv(memory_.others + shard_begin(count, peer), shard_size(count, peer), peer, kSums,
                      memory_.sum_requests + handle * static_cast<std::size_t>(step - 1)))
      return e;
  }
  for (int step = 1; step < size_; step++) {
    if (int e = isend(memory_.sums, shard_size(count, rank_), receiver(step), kSums, memory_.send_requests, work))
      return e;
    if (int e = wait(memory_.send_requests, 1)) return e;
  }
  return wait(memory_.sum_requests, size_ - 1);
}

int WireChannel::sum_d(const float* from, float* to, std::size_t count, Work* work) {
  const MpiLibrary& m = mpi();
  Timed timed(&work->nanoseconds);
  const auto& k = bf16::kernels();
  // Twice as many bytes a number, for one shard of at least two.
  auto* accumulator = reinterpret_cast<float*>(memory_.addends);
  for (std::size_t at = 0; at < count; at += room()) {
    std::size_t part = count - at < room() ? count - at : room();
    for (int i = 0; i < size_; i++) memory_.counts[i] = static_cast<int>(shard_size(part, i));
    if (int e = m.Reduce_scatter(from + at, accumulator, memory_.counts, m.float32, m.sum, comm_)) return e;
    std::size_t mine = shard_size(part, rank_);
    work->bytes_sent += static_cast<std::int64_t>((part - mine) * 4);
    k.pack_bf16_v4(accumulator, memory_.sums, mine);
    if (int e = exchange(part, work)) return e;
    for (int peer = 0; peer < size_; peer++) {
      std::size_t begin = shard_begin(part, peer);
      k.unpack_bf16_v4(peer == rank_ ? memory_.sums : memory_.others + begin, to + at + begin, shard_size(part, peer));
    }
  }
  return 0;
}

int WireChannel::gather(const float* from, float* to, std::size_t count, Work* work) {
  Timed timed(&work->nanoseconds);
  const auto& k = bf16::kernels();
  auto size = static_cast<std::size_t>(size_);
  std::size_t piece = room() / size;
  for (std::size_t at = 0; at < count; at += piece) {
    std::size_t n = count - at < piece ? count - at : piece;
    k.pack_bf16_v4(from + at, memory_.sums, n);
    if (int e = exchange(n * size, work)) return e;
    // This rank's own part is rounded as well: all end with the same bits.
    for (std::size_t peer = 0; peer < size; peer++)
      k.unpack_bf16_v4(peer == static_cast<std::size_t>(rank_) ? memory_.sums : memory_.others + n * peer,
                       to + peer * count + at, n);
  }
  return 0;
}

}  // namespace AIRamp::Interposer
