#include "nccl_channel.hpp"

#include <stdio.h>
#include <stdlib.h>

#include <new>

#include "library.hpp"
#include "trace.hpp"
#include "wire_terms.hpp"

namespace AIRamp::Interposer {
namespace {

constexpr std::size_t kFigures = 4;

// What the last of a shadow's steps needs; freed there.
struct Comparison {
  NcclChannel* channel;
  std::size_t count, of;  // elements compared, and of the whole payload
};
constexpr std::size_t kProbe = std::size_t{1}
                               << 20;  // bytes that a link is measured with, and elements that rounding is

}  // namespace

NcclChannel* NcclChannel::make(int device, int ranks, const char** why_not) {
  const Gpu& gpu = Gpu::of(nccl().vendor);
  trace::start();
  *why_not = gpu.why_not;
  if (gpu.why_not) return nullptr;
  if (device < 0) device = gpu.current();
  *why_not = "no device is selected";
  char architecture[32];
  if (device < 0 || !gpu.architecture(device, architecture, sizeof architecture)) return nullptr;
  // Ranks of ncclCommInitAll are on devices that this thread does not work on.
  *why_not = "the program works in a context of its own";
  if (gpu.current() == device && !gpu.is_shared(device)) return nullptr;
  *why_not = "there are too many kinds of devices";
  KernelCode* code = KernelCode::begin(nccl().vendor, architecture);
  if (!code) return nullptr;
  *why_not = code->why_not();
  if (!code->wait()) return nullptr;
  OnDevice here(gpu, device);
  *why_not = "the host has no memory left";
  void* place = malloc(sizeof(NcclChannel));
  if (!place) return nullptr;
  auto* c = new (place) NcclChannel(gpu, device, ranks);
  void* module = nullptr;  // stays loaded
  *why_not = "the driver does not load the kernels";
  bool there = here && gpu.load_module(&module, code->data()) == 0 &&
               gpu.find_kernel(&c->pack_, module, "pack_bf16_v4") == 0 &&
               gpu.find_kernel(&c->unpack_, module, "unpack_bf16_v4") == 0 &&
               gpu.find_kernel(&c->sum_, module, "sum_bf16_v4") == 0;
  std::size_t half = (kChunk + 8 * static_cast<std::size_t>(ranks)) * 2;
  std::size_t shadows = options.shadow ? 2 * kShadowed * sizeof(float) : 0;
  if (there) *why_not = "the device has no memory left";
  void* memory = nullptr;
  there = there && gpu.allocate(&memory, 2 * half + kFigures * sizeof(double) + shadows) == 0;
  c->memory_ = static_cast<char*>(memory);
  c->outgoing_ = c->memory_;
  c->incoming_ = c->memory_ + half;
  c->figures_ = c->memory_ + 2 * half;
  c->shadow_ = c->figures_ + kFigures * sizeof(double);
  for (float*& seen : c->seen_)
    there = there &&
            (!options.shadow || gpu.allocate_host(reinterpret_cast<void**>(&seen), kShadowed * sizeof(float)) == 0);
  there = there && gpu.create_stream(&c->stream_, kNonBlockingStream) == 0 &&
          gpu.create_event(&c->done_, kEventWithoutTiming) == 0 && c->measure();
  if (there) return c;
  c->close(false);
  return nullptr;
}

// What is pinned for a shadow stays: it is small, and the driver may be gone.
void NcclChannel::close(bool wait) {
  OnDevice here(gpu_, device_);
  if (here) {
    if (wait && used_) gpu_.synchronise_event(done_);
    if (done_) gpu_.destroy_event(done_);
    if (stream_) gpu_.destroy_stream(stream_);
    if (memory_) gpu_.free(memory_);
  }
  ::free(this);
}

// What mode B does to each byte of float32 on the way.
bool NcclChannel::measure() {
  std::int64_t took = 0;
  for (int round = 0; round < 3; round++) {
    std::int64_t start = now_ns();
    if (!pack(outgoing_, incoming_, kProbe, stream_) || !add(outgoing_, incoming_, kProbe, 1, stream_) ||
        !unpack(incoming_, outgoing_, kProbe, 1, stream_) || gpu_.synchronise_stream(stream_) != 0)
      return false;
    took = now_ns() - start;
  }
  pack_rate_ = static_cast<double>(kProbe * sizeof(float)) * 1e9 / static_cast<double>(took + 1);
  return true;
}

int NcclChannel::meet(NcclChannel* const* channels, const NcclComm* comms, int count, bool ready, bool* all_ready) {
  const NcclLibrary& n = nccl();
  std::int64_t best = INT64_MAX;
  for (int i = 0; i < count; i++) {
    NcclChannel& c = *channels[i];
    c.comm_ = comms[i];
    if (c.used_ && c.gpu_.synchronise_event(c.done_) != 0) return kNcclUnhandledDeviceError;
    if (int e = n.CommUserRank(comms[i], &c.rank_)) return e;
    if (int e = n.CommCount(comms[i], &c.ranks_)) return e;
  }
  auto all = [&](auto&& what) {
    if (int e = n.GroupStart()) return e;
    int error = 0;
    for (int i = 0; i < count && !error; i++) error = what(*channels[i]);
    int e = n.GroupEnd();
    if (error || e) return error ? error : e;
    for (int i = 0; i < count; i++) {
      OnDevice here(channels[i]->gpu_, channels[i]->device_);
      if (channels[i]->gpu_.synchronise_stream(channels[i]->stream_) != 0) return kNcclUnhandledDeviceError;
    }
    return 0;
  };
  // Once to connect the ranks, and then for the time: to the next, from the one before.
  for (int round = 0; round < 3; round++) {
    std::int64_t start = now_ns();
    int error = all([&](NcclChannel& c) {
      int e = n.Send(c.outgoing_, kProbe, kNcclBytes, (c.rank_ + 1) % c.ranks_, c.comm_, c.stream_);
      return e ? e : n.Recv(c.incoming_, kProbe, kNcclBytes, (c.rank_ + c.ranks_ - 1) % c.ranks_, c.comm_, c.stream_);
    });
    if (error) return error;
    std::int64_t took = now_ns() - start;
    if (took < best) best = took;
  }
  double rate = static_cast<double>(kProbe) * 1e9 / static_cast<double>(best + 1);
  auto advised = static_cast<double>(wire_advice()[Key::WIRE_LINK_BYTES_PER_S]);
  if (advised > 0 && advised < rate) rate = advised;
  auto copy = [&](bool to_device, double* figures, NcclChannel& c) {
    OnDevice here(c.gpu_, c.device_);
    std::size_t bytes = kFigures * sizeof(double);
    int e = to_device ? c.gpu_.copy_to_device(c.figures_, figures, bytes, c.stream_)
                      : c.gpu_.copy_to_host(figures, c.figures_, bytes, c.stream_);
    return e == 0 && c.gpu_.synchronise_stream(c.stream_) == 0;
  };
  double figures[kFigures] = {ready ? 1.0 : 0.0, rate, 0, 0};
  for (int i = 0; i < count; i++) {
    figures[2] = channels[i]->pack_rate_;
    if (!copy(true, figures, *channels[i])) return kNcclUnhandledDeviceError;
  }
  int error = all([&](NcclChannel& c) {
    return n.AllReduce(c.figures_, c.figures_, kFigures, kNcclFloat64, kNcclMin, c.comm_, c.stream_);
  });
  if (error) return error;
  for (int i = 0; i < count; i++) {
    if (!copy(false, figures, *channels[i])) return kNcclUnhandledDeviceError;
    channels[i]->link_rate_ = figures[1];
    channels[i]->pack_rate_ = figures[2];
  }
  *all_ready = figures[0] == 1;
  return 0;
}

bool NcclChannel::launch(void* kernel, std::size_t elements, unsigned rows, void* stream, void** arguments) const {
  constexpr unsigned kThreads = 256, kMostBlocks = 1024;  // each thread has four elements or more
  std::size_t blocks = (elements + 4 * kThreads - 1) / (4 * kThreads);
  unsigned x = blocks < kMostBlocks ? static_cast<unsigned>(blocks) : kMostBlocks;
  return elements == 0 || gpu_.launch(kernel, x, rows, 1, kThreads, 1, 1, 0, stream, arguments, nullptr) == 0;
}

bool NcclChannel::pack(const void* from, void* to, std::size_t count, void* stream) const {
  trace::Range range("AIRamp:BF16-Pack");
  void* arguments[] = {&from, &to, &count};
  return launch(pack_, count, 1, stream, arguments);
}

bool NcclChannel::unpack(const void* from, void* to, std::size_t count, float scale, void* stream, unsigned rows,
                         std::size_t from_pitch, std::size_t to_pitch) const {
  trace::Range range("AIRamp:BF16-Unpack");
  void* arguments[] = {&from, &to, &count, &scale, &from_pitch, &to_pitch};
  return launch(unpack_, count, rows, stream, arguments);
}

// Sums this rank's shard of a chunk.
bool NcclChannel::add(const void* own, void* to, std::size_t chunk, float scale, void* stream) const {
  trace::Range range("AIRamp:BF16-Sum");
  Span mine = span(chunk, rank_);
  std::size_t pitch = shard(chunk);
  int rank = rank_, ranks = ranks_;
  const void* addends = incoming_;
  void* arguments[] = {&own, &addends, &pitch, &rank, &ranks, &to, &mine.size, &scale};
  return launch(sum_, mine.size, 1, stream, arguments);
}

template <class Each>
int NcclChannel::each(const Part* parts, int count, Each&& what) {
  for (int i = 0; i < count; i++) {
    OnDevice here(parts[i].channel->gpu_, parts[i].channel->device_);
    if (!here || !what(*parts[i].channel, parts[i])) return kNcclUnhandledDeviceError;
  }
  return 0;
}

template <class Each>
int NcclChannel::grouped(const Part* parts, int count, Each&& what) {
  const NcclLibrary& n = nccl();
  if (int e = n.GroupStart()) return e;
  int error = 0;
  for (int i = 0; i < count && !error; i++) error = what(*parts[i].channel, parts[i]);
  int e = n.GroupEnd();
  return error ? error : e;
}

// All ranks' shards of `piece` halves, which stand in the outgoing memory in the order of ranks.
int NcclChannel::gather_shards(const Part* parts, int count, std::size_t piece) {
  return grouped(parts, count, [&](NcclChannel& c, const Part& p) {
    return nccl().AllGather(c.outgoing_ + 2 * piece * static_cast<std::size_t>(c.rank_), c.outgoing_, 2 * piece,
                            kNcclBytes, c.comm_, p.stream);
  });
}

int NcclChannel::sum_b(const Part* parts, int count, std::size_t at, std::size_t n, bool average, std::int64_t* sent) {
  auto from = [&](const Part& p) { return static_cast<const float*>(p.from) + at; };
  int e = each(parts, count, [&](NcclChannel& c, const Part& p) { return c.pack(from(p), c.outgoing_, n, p.stream); });
  if (e) return e;
  e = grouped(parts, count, [&](NcclChannel& c, const Part& p) {
    std::size_t mine = c.span(n, c.rank_).size, pitch = c.shard(n);
    for (int i = 1; i < c.ranks_; i++) {
      int to = (c.rank_ + i) % c.ranks_, by = (c.rank_ + c.ranks_ - i) % c.ranks_;
      Span theirs = c.span(n, to);
      int error = theirs.size
                      ? nccl().Send(c.outgoing_ + 2 * theirs.at, 2 * theirs.size, kNcclBytes, to, c.comm_, p.stream)
                      : 0;
      if (!error && mine)
        error = nccl().Recv(c.incoming_ + 2 * pitch * static_cast<std::size_t>(by), 2 * mine, kNcclBytes, by, c.comm_,
                            p.stream);
      if (error) return error;
    }
    return 0;
  });
  if (e) return e;
  const NcclChannel& one = *parts[0].channel;
  float scale = average ? 1.0f / static_cast<float>(one.ranks_) : 1;
  std::size_t piece = one.shard(n);
  e = each(parts, count, [&](NcclChannel& c, const Part& p) {
    return c.add(from(p) + c.span(n, c.rank_).at, c.outgoing_ + 2 * piece * static_cast<std::size_t>(c.rank_), n, scale,
                 p.stream);
  });
  if (e) return e;
  if (int error = gather_shards(parts, count, piece)) return error;
  *sent += static_cast<std::int64_t>(2 * (n - one.span(n, one.rank_).size) +
                                     2 * piece * static_cast<std::size_t>(one.ranks_ - 1));
  return each(parts, count, [&](NcclChannel& c, const Part& p) {
    return c.unpack(c.outgoing_, static_cast<float*>(p.to) + at, n, 1, p.stream);
  });
}

// The average is taken of the sum, in float32: NCCL's own multiplies with a rounded 1/N.
int NcclChannel::sum_a(const Part* parts, int count, std::size_t at, std::size_t n, bool average, std::int64_t* sent) {
  int e = each(parts, count, [&](NcclChannel& c, const Part& p) {
    return c.pack(static_cast<const float*>(p.from) + at, c.outgoing_, n, p.stream);
  });
  if (e) return e;
  e = grouped(parts, count, [&](NcclChannel& c, const Part& p) {
    return nccl().AllReduce(c.outgoing_, c.outgoing_, n, kNcclBfloat16, kNcclSum, c.comm_, p.stream);
  });
  if (e) return e;
  int ranks = parts[0].channel->ranks_;
  *sent += static_cast<std::int64_t>(n) * 2 * 2 * (ranks - 1) / ranks;
  return each(parts, count, [&](NcclChannel& c, const Part& p) {
    return c.unpack(c.outgoing_, static_cast<float*>(p.to) + at, n, average ? 1.0f / static_cast<float>(ranks) : 1,
                    p.stream);
  });
}

// The few elements that do not divide among the ranks travel as float32.
int NcclChannel::sum_d(const Part* parts, int count, std::size_t at, std::size_t n, bool average, std::int64_t* sent) {
  auto ranks = static_cast<std::size_t>(parts[0].channel->ranks_);
  std::size_t piece = n / ranks, main = piece * ranks;
  int op = average ? kNcclAverage : kNcclSum;
  int e = grouped(parts, count, [&](NcclChannel& c, const Part& p) {
    const float* from = static_cast<const float*>(p.from) + at;
    int error = piece ? nccl().ReduceScatter(from, c.incoming_, piece, kNcclFloat32, op, c.comm_, p.stream) : 0;
    return error || main == n ? error
                              : nccl().AllReduce(from + main, static_cast<float*>(p.to) + at + main, n - main,
                                                 kNcclFloat32, op, c.comm_, p.stream);
  });
  if (e || !piece) return e;
  e = each(parts, count, [&](NcclChannel& c, const Part& p) {
    return c.pack(c.incoming_, c.outgoing_ + 2 * piece * static_cast<std::size_t>(c.rank_), piece, p.stream);
  });
  if (e) return e;
  if (int error = gather_shards(parts, count, piece)) return error;
  *sent +=
      static_cast<std::int64_t>((main - piece) * 4 + 2 * piece * (ranks - 1) + 8 * (n - main) * (ranks - 1) / ranks);
  return each(parts, count, [&](NcclChannel& c, const Part& p) {
    return c.unpack(c.outgoing_, static_cast<float*>(p.to) + at, main, 1, p.stream);
  });
}

int NcclChannel::sum(char mode, const Part* parts, int count, std::size_t elements, bool average, std::int64_t* sent) {
  auto* chunk_sum = mode == 'A' ? sum_a : mode == 'D' ? sum_d : sum_b;
  int e = each(parts, count, [&](NcclChannel& c, const Part& p) {
    return !c.used_ || c.gpu_.wait_for_event(p.stream, c.done_, 0) == 0;
  });
  for (std::size_t at = 0; at < elements && !e; at += kChunk)
    e = chunk_sum(parts, count, at, elements - at < kChunk ? elements - at : kChunk, average, sent);
  if (e) return e;
  return each(parts, count, [&](NcclChannel& c, const Part& p) {
    c.used_ = true;
    return c.gpu_.record_event(c.done_, p.stream) == 0;
  });
}

int NcclChannel::gather(const Part* parts, int count, std::size_t elements, std::int64_t* sent) {
  auto ranks = static_cast<std::size_t>(parts[0].channel->ranks_);
  std::size_t most = kChunk / ranks;
  int e = each(parts, count, [&](NcclChannel& c, const Part& p) {
    return !c.used_ || c.gpu_.wait_for_event(p.stream, c.done_, 0) == 0;
  });
  for (std::size_t at = 0; at < elements && !e; at += most) {
    std::size_t n = elements - at < most ? elements - at : most;
    e = each(parts, count, [&](NcclChannel& c, const Part& p) {
      return c.pack(static_cast<const float*>(p.from) + at, c.outgoing_ + 2 * n * static_cast<std::size_t>(c.rank_), n,
                    p.stream);
    });
    if (!e) e = gather_shards(parts, count, n);
    if (e) return e;
    *sent += static_cast<std::int64_t>(2 * n * (ranks - 1));
    e = each(parts, count, [&](NcclChannel& c, const Part& p) {
      return c.unpack(c.outgoing_, static_cast<float*>(p.to) + at, n, 1, p.stream, static_cast<unsigned>(ranks), n,
                      elements);
    });
  }
  if (e) return e;
  return each(parts, count, [&](NcclChannel& c, const Part& p) {
    c.used_ = true;
    return c.gpu_.record_event(c.done_, p.stream) == 0;
  });
}

void NcclChannel::note(void*, int, void* channel) {
  auto* c = static_cast<NcclChannel*>(channel);
  c->stamps_[c->stamp_] = now_ns();
  c->stamp_ = (c->stamp_ + 1) % 3;
}

int NcclChannel::begin_shadow(const Part& part, std::size_t elements) {
  std::size_t n = elements < kShadowed ? elements : kShadowed;
  return each(&part, 1, [&](NcclChannel& c, const Part& p) {
    return (!c.used_ || c.gpu_.wait_for_event(p.stream, c.done_, 0) == 0) &&
           c.gpu_.copy_on_device(c.shadow_, p.from, n * sizeof(float), p.stream) == 0 &&
           c.gpu_.call_back(p.stream, note, &c, 0) == 0;
  });
}

int NcclChannel::end_shadow(char mode, const Part* parts, int count, std::size_t elements, bool average) {
  std::size_t n = elements < kShadowed ? elements : kShadowed;
  int e =
      each(parts, count, [&](NcclChannel& c, const Part& p) { return c.gpu_.call_back(p.stream, note, &c, 0) == 0; });
  auto* copies = e ? nullptr : static_cast<Part*>(calloc(static_cast<unsigned>(count), sizeof(Part)));
  if (!copies) return e ? e : kNcclSystemError;
  for (int i = 0; i < count; i++) {
    char* shadow = parts[i].channel->shadow_;
    copies[i] = {parts[i].channel, shadow, shadow + kShadowed * sizeof(float), parts[i].stream};
  }
  std::int64_t sent = 0;
  e = sum(mode, copies, count, n, average, &sent);
  ::free(copies);
  if (e) return e;
  return each(parts, count, [&](NcclChannel& c, const Part& p) {
    std::size_t bytes = n * sizeof(float);
    auto* comparison = static_cast<Comparison*>(malloc(sizeof(Comparison)));
    if (!comparison) return false;
    *comparison = {&c, n, elements};
    return c.gpu_.call_back(p.stream, note, &c, 0) == 0 &&
           c.gpu_.copy_to_host(c.seen_[0], p.to, bytes, p.stream) == 0 &&
           c.gpu_.copy_to_host(c.seen_[1], c.shadow_ + kShadowed * sizeof(float), bytes, p.stream) == 0 &&
           c.gpu_.call_back(p.stream, compare, comparison, 0) == 0 && c.gpu_.record_event(c.done_, p.stream) == 0;
  });
}

// On a thread of the driver's, which may not call it.
void NcclChannel::compare(void*, int, void* comparison) {
  Comparison call = *static_cast<Comparison*>(comparison);
  ::free(comparison);
  NcclChannel* c = call.channel;
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < call.count; i++) {
    double real = static_cast<double>(c->seen_[0][i]), d = static_cast<double>(c->seen_[1][i]) - real;
    difference += d * d;
    norm += real * real;
  }
  std::int64_t plain = c->stamps_[1] - c->stamps_[0];
  double would_take = static_cast<double>(c->stamps_[2] - c->stamps_[1]) * static_cast<double>(call.of) /
                      static_cast<double>(call.count);
  gained(kShadow, 0, plain - static_cast<std::int64_t>(would_take));
  char text[160];
  snprintf(text, sizeof text, "last call: error %.1e of the result's norm; float32 took %.3f ms, compressed %.3f ms",
           norm > 0 ? __builtin_sqrt(difference / norm) : 0.0, static_cast<double>(plain) * 1e-6, would_take * 1e-6);
  set_state(kShadow, State::kActive, text);
}

}  // namespace AIRamp::Interposer
