#pragma once

#include "nccl_library.hpp"

// Collectives on devices whose payload travels as bfloat16 over the program's own communicator, in the order of the
// program's stream. All ranks of a communicator that compresses do the same.
namespace AIRamp::Interposer {

class NcclChannel {
 public:
  // Elements of float32 that travel together; a shadow sums at most kShadowed of them.
  static constexpr std::size_t kChunk = std::size_t{4} << 20, kShadowed = std::size_t{1} << 20;
  static constexpr int kMaxRanks = 1024;

  // Everything that collectives of one rank will ever need: memory, kernels, a stream, events, on a device, or, if that
  // is -1, on the one that this thread works on. nullptr, and why, as the end of a sentence, if something cannot be
  // had.
  static NcclChannel* make(int device, int ranks, const char** why_not);
  // After the last collective has completed, or was enqueued: then `wait`.
  void close(bool wait);

  // A rank's part of one collective.
  struct Part {
    NcclChannel* channel;
    const void* from;  // float32, on the device
    void* to;
    void* stream;
  };

  // A copy, with the same memory, may stand in at a meeting of a part of its ranks; it is never closed.
  NcclChannel(const NcclChannel&) = default;

  // Collective over a communicator, of all ranks in this thread: brings them together for the first time. `ready`: what
  // they bring. The rates that all have agreed on are known afterwards; whether all were ready.
  static int meet(NcclChannel* const* channels, const NcclComm* comms, int count, bool ready, bool* all_ready);
  double link_rate() const { return link_rate_; }  // bytes a second that a rank sends and receives at once
  double pack_rate() const { return pack_rate_; }  // bytes of float32 a second that are rounded, added and widened

  // These enqueue, for all ranks of one communicator in this thread, and return results of NCCL's. `sent` is the
  // payload that one rank puts on the wire.
  //
  // to = the sum, or average, over ranks of from, in float32, rounded to bfloat16, the same bits on every rank; in mode
  // A, B or D, as in WireChannel.
  static int sum(char mode, const Part* parts, int count, std::size_t elements, bool average, std::int64_t* sent);
  // to[r * elements …] = what rank r holds in from, rounded.
  static int gather(const Part* parts, int count, std::size_t elements, std::int64_t* sent);

  // A comparison of the start of the payload with what the program gets: before the real collective, and after it.
  static int begin_shadow(const Part& part, std::size_t elements);
  static int end_shadow(char mode, const Part* parts, int count, std::size_t elements, bool average);

 private:
  NcclChannel(const Gpu& gpu, int device, int ranks) : gpu_(gpu), device_(device), ranks_(ranks) {}

  // In elements; whole groups of eight, so that all shards can be read four at a time.
  std::size_t shard(std::size_t elements) const {
    return ((elements + static_cast<std::size_t>(ranks_) - 1) / static_cast<std::size_t>(ranks_) + 7) / 8 * 8;
  }
  struct Span {
    std::size_t at, size;
  };
  Span span(std::size_t elements, int owner) const {
    std::size_t s = shard(elements), begin = s * static_cast<std::size_t>(owner);
    if (begin > elements) begin = elements;
    return {begin, begin + s < elements ? s : elements - begin};
  }

  template <class Each>
  static int each(const Part* parts, int count, Each&& what);
  template <class Each>
  static int grouped(const Part* parts, int count, Each&& what);
  bool launch(void* kernel, std::size_t elements, unsigned rows, void* stream, void** arguments) const;
  bool pack(const void* from, void* to, std::size_t count, void* stream) const;
  bool unpack(const void* from, void* to, std::size_t count, float scale, void* stream, unsigned rows = 1,
              std::size_t from_pitch = 0, std::size_t to_pitch = 0) const;
  bool add(const void* own, void* to, std::size_t chunk, float scale, void* stream) const;
  static int sum_a(const Part* parts, int count, std::size_t at, std::size_t n, bool average, std::int64_t* sent);
  static int sum_b(const Part* parts, int count, std::size_t at, std::size_t n, bool average, std::int64_t* sent);
  static int sum_d(const Part* parts, int count, std::size_t at, std::size_t n, bool average, std::int64_t* sent);
  static int gather_shards(const Part* parts, int count, std::size_t piece);
  bool measure();
  static void note(void* stream, int error, void* channel);
  static void compare(void* stream, int error, void* comparison);

  const Gpu& gpu_;
  int device_;
  int ranks_;
  int rank_ = 0;
  NcclComm comm_ = nullptr;
  void* pack_ = nullptr;
  void* unpack_ = nullptr;
  void* sum_ = nullptr;
  void* stream_ = nullptr;  // for what the program did not ask for
  void* done_ = nullptr;    // the last collective's end: its successor, on whichever stream, comes after it
  bool used_ = false;
  char* memory_ = nullptr;       // on the device
  char* outgoing_ = nullptr;     // kChunk halves, and what shards are rounded up by
  char* incoming_ = nullptr;     // the same
  char* figures_ = nullptr;      // kFigures doubles
  char* shadow_ = nullptr;       // two payloads of a shadow
  float* seen_[2] = {};          // the same on the host: what the program got, and what it would have got
  std::int64_t stamps_[3] = {};  // before the real collective, after it, after the shadow's
  int stamp_ = 0;
  double link_rate_ = 0;
  double pack_rate_ = 0;
};

}  // namespace AIRamp::Interposer
