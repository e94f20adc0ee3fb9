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
  static constexpr std::size_t kLeastChunk = std::size_t{1} << 20, kLargestChunk = std::size_t{8} << 20;
  // More ranks have shards too small to be worth sending.
  static constexpr int kMaxRanks = 1024;

  // Collective over `parent`, for payloads of about `count` elements. nullptr, on every rank alike, if some rank has
  // not got the memory.
  static WireChannel* open(Handle parent, int rank, int size, std::size_t count);
  void close();
  // Collective: makes chunks larger for payloads of `count` elements, if all ranks get the memory. Large chunks meet
  // less often, so that the link stands still less often.
  void fit(std::size_t count);
  // Elements of float32 that travel together.
  std::size_t chunk() const { return chunk_; }

  // Bytes a second that a rank sends and receives at once, and bytes of float32 a second that a rank rounds, adds and
  // widens: the smallest of all ranks, measured once by open().
  double link_rate() const { return link_rate_; }
  double pack_rate() const { return pack_rate_; }
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

  // Room for kSpareChunks chunks of float32, which the collectives themselves do not use.
  static constexpr std::size_t kSpareChunks = 3;
  float* spare(std::size_t which) { return memory_.spare + which * chunk_; }

 private:
  static constexpr std::size_t kSlots = 2;
  // The state of one chunk; two are in flight.
  struct Slot {
    std::uint16_t* outgoing;  // this rank's addends for the other ranks' shards
    std::uint16_t* incoming;  // the others' addends for this rank's shard; afterwards the other ranks' sums
    std::uint16_t* sums;      // this rank's shard
    char* scatter_requests;   // 2 (size - 1) handles
    char* gather_requests;
    std::size_t count = 0;  // elements of the chunk; 0: none
    std::size_t at = 0;     // its place in the payload
  };

  // All memory, and its parts.
  struct Memory {
    void* all = nullptr;
    std::size_t size = 0;
    Slot slots[kSlots];
    float* accumulator = nullptr;
    float* spare = nullptr;
    int* counts = nullptr;
  };

  static std::size_t chunk_for(std::size_t count);
  Memory allocate(std::size_t chunk) const;
  void measure();
  std::size_t shard_begin(std::size_t count, int owner) const {
    std::size_t begin = (count + static_cast<std::size_t>(size_) - 1) / static_cast<std::size_t>(size_) *
                        static_cast<std::size_t>(owner);
    return begin < count ? begin : count;
  }
  int scatter(Slot& slot, const float* from, Work* work);
  int reduce(Slot& slot, const float* from, float* to, Work* work);
  int collect(Slot& slot, float* to, Work* work);
  int isend(const std::uint16_t* data, std::size_t count, int peer, int tag, char* request, Work* work);
  int irecv(std::uint16_t* data, std::size_t count, int peer, int tag, char* request);
  int send_addends(Slot& slot, int step, const float* from, Work* work);
  int send_sums(Slot& slot, int step, std::size_t count, Work* work);
  int finish_sums(Slot& slot, std::size_t count, Work* work);
  int wait(char* requests, int count);

  Handle comm_ = 0;
  int rank_ = 0;
  int size_ = 0;
  Memory memory_;
  std::size_t chunk_ = 0;
  std::size_t largest_chunk_ = kLargestChunk;  // what all ranks got, once one did not get more
  double link_rate_ = 0;
  double pack_rate_ = 0;
  bool one_host_ = false;
};

}  // namespace AIRamp::Interposer
