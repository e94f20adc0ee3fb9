#include "mpi.hpp"

#include <stdio.h>
#include <stdlib.h>

#include "agreement.hpp"
#include "device.hpp"
#include "wire.hpp"
#include "wire_terms.hpp"

namespace AIRamp::Interposer {
namespace {

// What all ranks have in common since MPI_Init; nothing here changes afterwards.
bool agreed = false;
const char* not_agreed = "MPI_Init was not called through libairamp";
Handle world_group = 0;
int keyval = 0;
std::atomic<bool> finalized;
const char* terms = nullptr;

// A communicator of the program's, hung to it as an attribute.
struct Record {
  int size = 0;
  int rank = 0;
  const char* why_not = nullptr;
  WireChannel* channel = nullptr;
};

// Duplicates of a communicator get a record of their own.
int copy_record(Handle, int, void*, void*, void*, int* flag) {
  *flag = 0;
  return 0;
}

int delete_record(Handle, int, void* value, void*) {
  auto* record = static_cast<Record*>(value);
  // MPI_Finalize deletes attributes when it is too late to free a communicator.
  if (finalized.load()) return 0;
  if (record->channel) record->channel->close();
  free(record);
  return 0;
}

void before_init() {
  if (!wire_wanted()) return;
  const MpiLibrary& m = mpi();
  if (m.why_not) {
    set_state(kBf16Wire, State::kOff, m.why_not);
    say("bf16-wire is off: %s.", m.why_not);
    return;
  }
  terms = wire_terms();
  if (terms) agreement::prepare(terms);
}

void after_init() {
  if (!terms) return;
  const MpiLibrary& m = mpi();
  int size = 0, rank = 0;
  m.Comm_size(m.comm_world, &size);
  m.Comm_rank(m.comm_world, &rank);
  if (size == 1) {
    not_agreed = "there is one rank only";
  } else {
    not_agreed = agreement::verdict(size);
    agreed = !not_agreed && m.Comm_create_keyval(copy_record, delete_record, &keyval, nullptr) == 0 &&
             m.Comm_group(m.comm_world, &world_group) == 0;
  }
  if (agreed) return set_state(kBf16Wire, State::kIdle, "no call has qualified yet");
  set_state(kBf16Wire, State::kOff, not_agreed);
  if (rank == 0) say("bf16-wire is off: %s; everything passes through.", not_agreed);
}

// Whether all members belong to the ranks that agreed: spawned ones do not. The same on all members.
bool all_known(Handle comm, int size) {
  const MpiLibrary& m = mpi();
  Handle group = 0;
  if (m.Comm_group(comm, &group) != 0) return false;
  bool known = true;
  for (int rank = 0; rank < size && known; rank++) {
    int there = -1;
    known = m.Group_translate_ranks(group, 1, &rank, world_group, &there) == 0 && there >= 0;
  }
  m.Group_free(&group);
  return known;
}

Record* record_of(Handle comm) {
  const MpiLibrary& m = mpi();
  void* value = nullptr;
  int found = 0;
  if (m.Comm_get_attr(comm, keyval, &value, &found) != 0) return nullptr;
  if (found) return static_cast<Record*>(value);
  auto* record = static_cast<Record*>(calloc(1, sizeof(Record)));
  if (!record) return nullptr;
  int inter = 0;
  m.Comm_test_inter(comm, &inter);
  m.Comm_size(comm, &record->size);
  m.Comm_rank(comm, &record->rank);
  if (inter) {
    record->why_not = "intercommunicators are not compressed";
  } else if (record->size == 1) {
    record->why_not = "the communicator has one rank only";
  } else if (record->size > WireChannel::kMaxRanks) {
    record->why_not = "the communicator has more than 1024 ranks";
  } else if (!all_known(comm, record->size)) {
    record->why_not = "the communicator has ranks that were started by others";
  }
  m.Comm_set_attr(comm, keyval, record);
  return record;
}

bool is_float32(Handle type) {
  const MpiLibrary& m = mpi();
  if (type == m.float32) return true;
  int size = 0;
  // Fortran's REAL has eight bytes where the library was built so.
  return type && (type == m.real || type == m.real4) && m.Type_size(type, &size) == 0 && size == 4;
}

bool pays(const Record& record, double bytes, bool gathers) {
  return wire_pays(bytes, record.size, gathers, record.channel->link_rate(), record.channel->pack_rate(),
                   record.channel->latency());
}

// The record, with a channel, of a collective that will be compressed; or nullptr, and a reason is noted. `bytes` are
// what one rank contributes: equal on all ranks, as is every other answer to what is asked here.
Record* channel_for(Call call, std::int64_t bytes, bool gathers, Handle comm) {
  const char* why = nullptr;
  Record* record = nullptr;
  auto elements = [&](const Record& r) { return static_cast<std::size_t>(bytes / 4 * (gathers ? r.size : 1)); };
  if (!agreed) {
    why = not_agreed;
  } else if (bytes < options.wire_min) {
    why = "the payload is smaller than the least worth compressing";
  } else if (mpi().clean(comm) == mpi().comm_null) {
    why = "the communicator is MPI_COMM_NULL";
  } else if (record = record_of(comm); !record) {
    why = "the communicator is not one";
  } else if (!record->why_not && !record->channel) {
    const Values& advice = wire_advice();
    record->channel = WireChannel::open(comm, record->rank, record->size, elements(*record),
                                        {.link_rate = static_cast<double>(advice[Key::WIRE_LINK_BYTES_PER_S]),
                                         .pack_rate = static_cast<double>(advice[Key::WIRE_PACK_BYTES_PER_S]),
                                         .latency = static_cast<double>(advice[Key::WIRE_LATENCY_NS]) * 1e-9});
    if (!record->channel) {
      record->why_not = "some rank had no memory for the channel";
    } else if (options.wire == Wire::kAuto && record->channel->one_host()) {
      record->why_not = "all ranks are on one host, between whose processes there is no wire";
      record->channel->close();
      record->channel = nullptr;
      set_state(kBf16Wire, State::kIdle, record->why_not);
    }
  }
  if (record && record->why_not) why = record->why_not;
  if (!why && options.wire == Wire::kAuto && !pays(*record, static_cast<double>(bytes), gathers)) {
    why = "rounding would cost more time than half the bytes save on this link";
    set_state(kBf16Wire, State::kIdle, why);
  }
  if (!why) {
    record->channel->fit(elements(*record));
    return record;
  }
  passed(call, why);
  return nullptr;
}

// `plain_bytes`: what the float32 algorithm of least volume sends.
void account(const WireChannel::Work& work, std::int64_t plain_bytes) {
  std::int64_t wire_time = work.nanoseconds - work.pack_nanoseconds;
  double ratio = work.bytes_sent ? static_cast<double>(plain_bytes) / static_cast<double>(work.bytes_sent) : 1;
  gained(kBf16Wire, plain_bytes - work.bytes_sent,
         static_cast<std::int64_t>(static_cast<double>(wire_time) * (ratio - 1)) - work.pack_nanoseconds);
  set_state(kBf16Wire, State::kActive, "seconds saved are estimated from the time on the wire");
}

int sum(WireChannel* channel, const float* from, float* to, std::size_t count, WireChannel::Work* work) {
  if (options.wire_mode == 'A') return channel->sum_a(from, to, count, work);
  if (options.wire_mode == 'D') return channel->sum_d(from, to, count, work);
  return channel->sum_b(from, to, count, work);
}

// The same with memory of devices on either side, a chunk at a time through the channel's own: the messages are those
// that ranks with memory of the host's send.
int staged_sum(WireChannel* channel, const float* from, float* to, std::size_t count, WireChannel::Work* work) {
  float* chunk = channel->spare(0);
  for (std::size_t at = 0; at < count; at += channel->room()) {
    std::size_t n = count - at < channel->room() ? count - at : channel->room();
    bool there = device::copy(chunk, from + at, n * sizeof(float));
    if (int e = sum(channel, chunk, chunk, n, work)) return e;
    if (!there || !device::copy(to + at, chunk, n * sizeof(float))) return kMpiErrOther;
  }
  return 0;
}

// Each rank's piece of the result stands `count` elements behind the last one's.
int staged_gather(WireChannel* channel, int ranks, const float* from, float* to, std::size_t count,
                  WireChannel::Work* work) {
  std::size_t piece = channel->room() / static_cast<std::size_t>(ranks);
  for (std::size_t at = 0; at < count; at += piece) {
    std::size_t n = count - at < piece ? count - at : piece;
    bool there = device::copy(channel->spare(0), from + at, n * sizeof(float));
    if (int e = channel->gather(channel->spare(0), channel->spare(1), n, work)) return e;
    for (std::size_t rank = 0; rank < static_cast<std::size_t>(ranks); rank++)
      there = there && device::copy(to + rank * count + at, channel->spare(1) + rank * n, n * sizeof(float));
    if (!there) return kMpiErrOther;
  }
  return 0;
}

// What the program gets is the real result; the start of the payload is summed a second time, compressed, and compared.
template <class Real>
int shadow(Real&& real_call, const Record& record, const float* from, const float* to, std::size_t count) {
  WireChannel* channel = record.channel;
  std::size_t n = count < channel->room() ? count : channel->room();
  float *input = channel->spare(0), *output = channel->spare(1), *result = channel->spare(2);
  bool there = device::copy(input, from, n * sizeof(float));
  std::int64_t start = now_ns();
  if (int e = real_call()) return e;
  std::int64_t plain = now_ns() - start;
  WireChannel::Work work;
  // An error of ours is not the program's.
  if (sum(channel, input, output, n, &work) != 0 || !there || !device::copy(result, to, n * sizeof(float))) return 0;
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < n; i++) {
    double d = static_cast<double>(output[i]) - static_cast<double>(result[i]);
    difference += d * d;
    norm += static_cast<double>(result[i]) * static_cast<double>(result[i]);
  }
  double would_take = static_cast<double>(work.nanoseconds) * static_cast<double>(count) / static_cast<double>(n);
  gained(kShadow, 0, plain - static_cast<std::int64_t>(would_take));
  char text[160];
  snprintf(text, sizeof text, "last call: error %.1e of the result's norm; float32 took %.3f ms, compressed %.3f ms",
           norm > 0 ? __builtin_sqrt(difference / norm) : 0.0, static_cast<double>(plain) * 1e-6, would_take * 1e-6);
  set_state(kShadow, State::kActive, text);
  return 0;
}

// Our own communicator reports errors to us; they go to the program's handler, as if its communicator had failed.
int raise(int error, Handle comm) {
  if (error) mpi().Comm_call_errhandler(comm, error);
  return error;
}

template <class F, class N>
int allreduce(Call call, F* function, const void* send, void* receive, N count, Handle type, Handle op, Handle comm) {
  auto plain = [&] { return function(send, receive, count, type, op, comm); };
  if (!wire_wanted()) return plain();
  const MpiLibrary& m = mpi();
  if (m.why_not) return plain();
  if (!is_float32(m.clean(type)) || m.clean(op) != m.sum) {
    passed(call, "only sums of float32 are compressed");
    return plain();
  }
  const void* from = send == m.in_place ? receive : send;
  if (count <= 0 || !from || !receive || send == receive) return plain();
  Record* record = channel_for(call, static_cast<std::int64_t>(count) * 4, false, comm);
  if (!record) return plain();
  auto n = static_cast<std::size_t>(count);
  auto* out = static_cast<float*>(receive);
  if (options.shadow) return shadow(plain, *record, static_cast<const float*>(from), out, n);
  WireChannel::Work work;
  bool staged = device::is_device(from) || device::is_device(receive);
  auto* sum_with = staged ? staged_sum : sum;
  if (int e = sum_with(record->channel, static_cast<const float*>(from), out, n, &work)) return raise(e, comm);
  account(work, static_cast<std::int64_t>(n * 4 * 2 * static_cast<std::size_t>(record->size - 1)) / record->size);
  return 0;
}

template <class F, class N>
int allgather(Call call, F* function, const void* send, N send_count, Handle send_type, void* receive, N receive_count,
              Handle receive_type, Handle comm) {
  auto plain = [&] { return function(send, send_count, send_type, receive, receive_count, receive_type, comm); };
  if (!options.wire_allgather || options.wire == Wire::kOff || options.shadow) return plain();
  const MpiLibrary& m = mpi();
  int size = 0;
  if (m.why_not || receive_count <= 0 || !receive || m.Type_size(receive_type, &size) != 0) return plain();
  Record* record = channel_for(call, static_cast<std::int64_t>(receive_count) * size, true, comm);
  if (!record) return plain();
  // Ranks may name the same data by different types: whether all see float32 has to be asked.
  bool in_place = send == m.in_place;
  double all = 0, mine = is_float32(m.clean(receive_type)) && (in_place || is_float32(m.clean(send_type))) ? 1 : 0;
  if (int e_all = m.Allreduce(&mine, &all, 1, m.float64, m.min, comm)) return e_all;
  if (all == 0) {
    passed(call, "only float32 is compressed");
    return plain();
  }
  auto n = static_cast<std::size_t>(receive_count);
  auto* out = static_cast<float*>(receive);
  auto* from = in_place ? out + n * static_cast<std::size_t>(record->rank) : static_cast<const float*>(send);
  WireChannel::Work work;
  bool staged = device::is_device(from) || device::is_device(receive);
  int e = staged ? staged_gather(record->channel, record->size, from, out, n, &work)
                 : record->channel->gather(from, out, n, &work);
  if (e) return raise(e, comm);
  account(work, static_cast<std::int64_t>(n * 4 * static_cast<std::size_t>(record->size - 1)));
  return 0;
}

}  // namespace

int on_init(MPI_Init_t* function, int* argc, char*** argv) {
  before_init();
  int e = function(argc, argv);
  if (e == 0) after_init();
  return e;
}

int on_init_thread(MPI_Init_thread_t* function, int* argc, char*** argv, int required, int* provided) {
  before_init();
  int e = function(argc, argv, required, provided);
  if (e == 0) after_init();
  return e;
}

int on_finalize(MPI_Finalize_t* function) {
  finalized.store(true);
  return function();
}

int on_pmix_commit(PMIx_Commit_t* function) {
  agreement::publish_with_pmix();
  return function();
}

int on_allreduce(MPI_Allreduce_t* function, const void* send, void* receive, int count, Handle type, Handle op,
                 Handle comm) {
  return allreduce(Call::MPI_Allreduce, function, send, receive, count, type, op, comm);
}

int on_allreduce_c(MPI_Allreduce_c_t* function, const void* send, void* receive, Count count, Handle type, Handle op,
                   Handle comm) {
  return allreduce(Call::MPI_Allreduce_c, function, send, receive, count, type, op, comm);
}

int on_allgather(MPI_Allgather_t* function, const void* send, int send_count, Handle send_type, void* receive,
                 int receive_count, Handle receive_type, Handle comm) {
  return allgather(Call::MPI_Allgather, function, send, send_count, send_type, receive, receive_count, receive_type,
                   comm);
}

int on_allgather_c(MPI_Allgather_c_t* function, const void* send, Count send_count, Handle send_type, void* receive,
                   Count receive_count, Handle receive_type, Handle comm) {
  return allgather(Call::MPI_Allgather_c, function, send, send_count, send_type, receive, receive_count, receive_type,
                   comm);
}

}  // namespace AIRamp::Interposer
