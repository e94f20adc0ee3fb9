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
  // Elements of float32 that are on their way at a time.
  static constexpr std::size_t kChunk = std::size_t{2} << 20;
  // More ranks have shards too small to be worth sending.
  static constexpr int kMaxRanks = 1024;

  // Collective over `parent`. nullptr, on every rank alike, if some rank has not got the memory.
  static WireChannel* open(Handle parent, int rank, int size);
  void close();

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

  // Room for one chunk of float32 each: two, and a third with shadow runs. Not used by the collectives themselves.
  float* spare(int which) { return spare_ + static_cast<std::size_t>(which) * kChunk; }

 private:
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

  bool allocate();
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
  int send_sums(Slot& slot, std::size_t count, Work* work);
  int wait(char* requests, int count);

  Handle comm_ = 0;
  int rank_ = 0;
  int size_ = 0;
  void* memory_ = nullptr;
  std::size_t memory_size_ = 0;
  Slot slots_[2];
  float* accumulator_ = nullptr;
  float* spare_ = nullptr;
  int* counts_ = nullptr;
  double link_rate_ = 0;
  double pack_rate_ = 0;
  bool one_host_ = false;
};

}  // namespace AIRamp::Interposer
