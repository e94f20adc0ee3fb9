#pragma once

#include <cstddef>
#include <cstdint>

#include "mpi_library.hpp"

// Collectives whose payload travels as bfloat16 over a communicator of our own. Every rank of a communicator calls the
// same functions in the same order with the same counts.
namespace AIRamp::Interposer {

// A communicator of ours that shadows one of the program's, with all memory that its collectives will ever use:
// payloads that are larger go through it in chunks, so that no rank can fail where the others go on.
class WireChannel {
 public:
  // Elements of float32 that are summed and sent together. While they are, those before and after them are on the wire.
  static constexpr std::size_t kLeastChunk = std::size_t{1} << 20, kLargestChunk = std::size_t{1} << 22;
  static constexpr std::size_t kMostSlots = 4;  // chunks in flight
  // More ranks have shards too small to be worth sending.
  static constexpr int kMaxRanks = 1024;

  // What airampd says of this machine; 0 is unknown.
  struct Advice {
    double link_rate;  // bytes a second
    double pack_rate;
    double latency;  // seconds
  };

  // Collective over `parent`, for payloads of about `count` elements. nullptr, on every rank alike, if some rank has
  // not got the memory.
  static WireChannel* open(Handle parent, int rank, int size, std::size_t count, const Advice& advice);
  void close();
  // Collective: makes room for more chunks in flight for payloads of `count` elements, if all ranks get the memory.
  void fit(std::size_t count);
  // Elements of float32 that all chunks in flight hold.
  std::size_t room() const { return room_; }

  // Bytes a second that a rank sends and receives at once, bytes of float32 a second that a rank rounds, adds and
  // widens, and seconds for one more message: the worst of all ranks. The rates are measured once, by open(), whose
  // short probe may find a link faster than it is, since buffers take it in: advice bounds it.
  double link_rate() const { return link_rate_; }
  double pack_rate() const { return pack_rate_; }
  double latency() const { return latency_; }
  // Whether all ranks are on one host, between whose processes there is no wire.
  bool one_host() const { return one_host_; }

  struct Work {
    std::int64_t bytes_sent = 0;        // payload that this rank put on the wire
    std::int64_t nanoseconds = 0;       // in all
    std::int64_t pack_nanoseconds = 0;  // of it on rounding, adding and widening
  };

  // to = sum over ranks of from, in float32, rounded to bfloat16; the same bits on every rank. `from` may be `to`.
  // Return codes are MPI's.
  //
  // Mode B: every rank owns a shard, gets it from all as bfloat16, sums in float32 and sends the rounded sum to all.
  int sum_b(const float* from, float* to, std::size_t count, Work* work);
  // Mode A: MPI's own algorithm over bfloat16, which rounds at every step.
  int sum_a(const float* from, float* to, std::size_t count, Work* work);
  // Mode D: MPI's own float32 reduce-scatter; only the sums travel as bfloat16.
  int sum_d(const float* from, float* to, std::size_t count, Work* work);

  // to[r * count …] = what rank r holds in `from`, rounded. `from` may be this rank's part of `to`.
  int gather(const float* from, float* to, std::size_t count, Work* work);

  // Memory of room() elements each, which the collectives themselves do not use.
  static constexpr std::size_t kSpares = 3;
  float* spare(std::size_t which) { return memory_.spare + which * room(); }

 private:
  static constexpr int kMostSends = 3;  // that have begun and not ended
  // What is known of a chunk in flight.
  struct Slot {
    std::size_t at, count;  // its place in the payload, and its elements
    int sends;              // that have not ended
  };
  // All memory, and its parts, each for the chunks in flight, one after the other, where nothing else is said.
  struct Memory {
    void* all = nullptr;
    std::size_t size = 0;
    std::uint16_t* outgoing = nullptr;  // this rank's addends for another rank's shard; kMostSends shards
    std::uint16_t* addends = nullptr;   // the other ranks' addends for this rank's shard
    std::uint16_t* sums = nullptr;      // this rank's shard
    std::uint16_t* others = nullptr;    // the other ranks' shards
    char* addend_requests = nullptr;    // size - 1 handles for each chunk
    char* sum_requests = nullptr;
    char* send_requests = nullptr;  // kMostSends handles
    int* counts = nullptr;          // one for each rank
    float* spare = nullptr;
  };
  // One call of sum_b.
  struct Sum {
    const float* from;
    float* to;
    Work* work;
    std::size_t chunk;  // elements of one
    Slot slots[kMostSlots];
    Slot* sending[kMostSends];  // whose send has this handle; null: nobody's
  };

  static std::size_t room_for(std::size_t count);
  std::size_t chunk_for(std::size_t count) const;
  Memory allocate(std::size_t room) const;
  void measure();
  std::size_t shard_room(std::size_t count) const {
    return (count + static_cast<std::size_t>(size_) - 1) / static_cast<std::size_t>(size_);
  }
  std::size_t shard_begin(std::size_t count, int owner) const {
    std::size_t begin = shard_room(count) * static_cast<std::size_t>(owner);
    return begin < count ? begin : count;
  }
  std::size_t shard_size(std::size_t count, int owner) const {
    return shard_begin(count, owner + 1) - shard_begin(count, owner);
  }
  // Ranks in the order in which this one sends to them, and gets from them at the same time.
  int receiver(int step) const { return (rank_ + step) % size_; }
  int sender(int step) const { return (rank_ + size_ - step) % size_; }
  int ask(Sum& sum, std::size_t place);
  int send_addends(Sum& sum, std::size_t place, int step, int handle);
  int send_sums(Sum& sum, std::size_t place, int step, int handle);
  void reduce(Sum& sum, std::size_t place);
  void collect(Sum& sum, std::size_t place);
  int exchange(std::size_t count, Work* work);
  int isend(const std::uint16_t* data, std::size_t count, int peer, int tag, char* request, Work* work);
  int irecv(std::uint16_t* data, std::size_t count, int peer, int tag, char* request);
  int test(char* requests, int count, int* done);
  int wait(char* requests, int count);
  void rest(long* nap_ns) const;

  Handle comm_ = 0;
  int rank_ = 0;
  int size_ = 0;
  Memory memory_;
  std::size_t room_ = 0;
  std::size_t most_room_ = kLargestChunk * kMostSlots;  // what all ranks got, once one did not get more
  double link_rate_ = 0;
  double pack_rate_ = 0;
  double latency_ = 0;
  bool one_host_ = false;
};

}  // namespace AIRamp::Interposer
