#include "nccl.hpp"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <new>

#include "nccl_channel.hpp"
#include "nccl_meeting.hpp"
#include "wire_terms.hpp"

namespace AIRamp::Interposer {
namespace {

constexpr const char* kUnknown = "the communicator was made in a way that libairamp does not follow";

// A communicator of the program's.
struct Record {
  NcclComm comm;
  int rank, ranks;
  std::uint64_t clique;  // the same for all ranks of a communicator that are in this process
  const char* why_not;
  NcclChannel* channel;
  unsigned splits;
  Record* next;
};
Record* records = nullptr;
pthread_mutex_t records_lock = PTHREAD_MUTEX_INITIALIZER;

Record* record_of(NcclComm comm) {
  pthread_mutex_lock(&records_lock);
  Record* r = records;
  while (r && r->comm != comm) r = r->next;
  pthread_mutex_unlock(&records_lock);
  return r;
}

// Takes a record out; the caller frees it.
Record* take_record(NcclComm comm) {
  pthread_mutex_lock(&records_lock);
  Record** at = &records;
  while (*at && (*at)->comm != comm) at = &(*at)->next;
  Record* r = *at;
  if (r) *at = r->next;
  pthread_mutex_unlock(&records_lock);
  return r;
}

// A communicator that is being made. What is needed afterwards is had before others count on it.
struct Newcomer {
  NcclComm* place;  // where the library puts it
  Record* record;   // not yet among the others
  std::uint64_t clique;
  NcclChannel* channel;
  const char* why_not;
  int meeting;           // -1: none
  const Record* parent;  // of which it is a part, whose ranks have agreed
};

// A collective that is done when the group ends that it was called in: what it enqueues must come behind what the group
// does, and between its own steps groups of its own end.
struct Deferred {
  Record* record;  // null: done
  const void* from;
  void* to;
  std::size_t count;
  void* stream;
  bool average, gathers;
};

template <class T>
struct List {
  T* items;
  unsigned count, room;

  // Makes room for one more.
  bool reserve() {
    if (count < room) return true;
    auto* more = static_cast<T*>(realloc(static_cast<void*>(items), (room + 16) * sizeof(T)));
    if (!more) return false;
    items = more;
    room += 16;
    return true;
  }
  T* add() { return reserve() ? &items[count++] : nullptr; }
};

// Groups belong to threads.
struct Group {
  int depth;
  List<Newcomer> newcomers;
  List<Deferred> deferred;
};
constinit thread_local Group group __attribute__((tls_model("initial-exec"))) = {};

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  for (int i = 0; i < 8; i++) hash = (hash ^ (value >> (8 * i) & 0xff)) * 1099511628211u;
  return hash;
}

bool usable() {
  if (!wire_wanted()) return false;
  if (!nccl().why_not) return true;
  static std::atomic<bool> said;
  if (!said.exchange(true)) {
    set_state(kBf16Wire, State::kOff, nccl().why_not);
    say("bf16-wire is off: %s.", nccl().why_not);
  }
  return false;
}

void enter(Newcomer& n, NcclComm comm) {
  Record* r = n.record;
  n.record = nullptr;
  r->comm = comm;
  r->clique = n.clique;
  r->channel = n.channel;
  r->why_not = n.channel ? nullptr : n.why_not;
  nccl().CommCount(comm, &r->ranks);
  nccl().CommUserRank(comm, &r->rank);
  pthread_mutex_lock(&records_lock);
  r->next = records;
  records = r;
  pthread_mutex_unlock(&records_lock);
  if (!r->why_not) return set_state(kBf16Wire, State::kIdle, "no call has qualified yet");
  if (page->mechanisms[kBf16Wire].state.load() == State::kIdle) set_state(kBf16Wire, State::kOff, r->why_not);
  static std::atomic<bool> said;
  if (r->rank == 0 && r->ranks > 1 && !said.exchange(true))
    say("bf16-wire is off for a communicator of %d ranks: %s; everything on it passes through.", r->ranks, r->why_not);
}

// Brings all ranks of a communicator together that are among the newcomers of this thread. An error of the library's at
// this point is one that its next call returns as well.
void bring_together(Newcomer* all, unsigned count, unsigned first) {
  constexpr int kMost = Gpu::kMostDevices;  // each rank of a communicator has a device for itself
  NcclChannel* channels[kMost] = {};
  NcclComm comms[kMost] = {};
  alignas(NcclChannel) char stand_ins[kMost * sizeof(NcclChannel)];
  int n = 0;
  bool ready = true, all_ready = false;
  for (unsigned i = first; i < count && n < kMost; i++) {
    Newcomer& c = all[i];
    if (c.clique != all[first].clique || (!c.channel && !c.parent)) continue;
    comms[n] = *c.place;
    channels[n] = c.channel;
    if (!c.channel) {
      channels[n] = new (stand_ins + static_cast<std::size_t>(n) * sizeof(NcclChannel)) NcclChannel(*c.parent->channel);
      ready = false;
    }
    n++;
  }
  int error = NcclChannel::meet(channels, comms, n, ready, &all_ready);
  for (unsigned i = first; i < count; i++) {
    Newcomer& c = all[i];
    if (c.clique != all[first].clique || (!c.channel && !c.parent)) continue;
    if (error || !all_ready) {
      if (c.channel) c.channel->close(false);
      c.channel = nullptr;
      c.why_not = error ? "its ranks could not be brought together" : "some rank had no memory for the channel";
    }
    c.parent = nullptr;
    enter(c, *c.place);
  }
}

// After the real library has made communicators, for all of this thread's at once.
void settle(Newcomer* all, unsigned count, int code) {
  bool made = code == kNcclSuccess;
  for (unsigned i = 0; i < count; i++) {
    if (all[i].meeting < 0) continue;
    if (made) {
      meeting::come_back(all[i].meeting);
    } else {
      meeting::leave(all[i].meeting);
    }
  }
  for (unsigned i = 0; i < count; i++) {
    Newcomer& n = all[i];
    bool agreed = made;
    if (made && n.meeting >= 0) agreed = meeting::answer(n.meeting);
    if (agreed) continue;
    n.why_not = "not all ranks run this version of libairamp with these settings";
    if (n.channel) n.channel->close(false);
    n.channel = nullptr;
    n.parent = nullptr;
  }
  for (unsigned i = 0; i < count && made; i++) {
    Newcomer& n = all[i];
    if (!*n.place || record_of(*n.place)) continue;  // a split that this rank takes no part in, or one that is there
    int ranks = 0;
    if (nccl().CommCount(*n.place, &ranks) == 0 && ranks == 1 && n.channel) {
      n.channel->close(false);
      n.channel = nullptr;
    }
    if (ranks == 1) {
      n.parent = nullptr;
      n.why_not = "the communicator has one rank only";
    }
    if (n.channel || n.parent) {
      bring_together(all, count, i);
    } else {
      enter(n, *n.place);
    }
  }
  for (unsigned i = 0; i < count; i++) free(all[i].record);
}

// A newcomer, with its record, and room in the group; false if the host has no memory for them.
bool announce(Newcomer* n, NcclComm* place, std::uint64_t clique) {
  *n = {place, static_cast<Record*>(calloc(1, sizeof(Record))), clique, nullptr, nullptr, -1, nullptr};
  if (n->record && (group.depth == 0 || group.newcomers.reserve())) return true;
  free(n->record);
  return false;
}

// One that does not come.
void dismiss(Newcomer& n) {
  if (n.meeting >= 0) meeting::leave(n.meeting);
  if (n.channel) n.channel->close(false);
  free(n.record);
}

// Now, or at the end of the group.
void welcome(const Newcomer& n, int code) {
  if (group.depth > 0 && code == kNcclSuccess) {
    *group.newcomers.add() = n;
    return;
  }
  Newcomer one = n;
  settle(&one, 1, code);
}

// Whether the configuration, of which these fields stand first in all versions, makes calls return before they are
// done.
bool is_non_blocking(const void* config) {
  struct {
    std::size_t size;
    unsigned magic, version;
    int blocking;
  } start;
  const char* variable = getenv("NCCL_COMM_BLOCKING");
  if (variable && strcmp(variable, "0") == 0) return true;
  if (!config) return false;
  memcpy(&start, config, sizeof start);
  return start.blocking == 0;
}

template <class Real>
int init(NcclComm* comm, int ranks, const NcclId& id, int rank, const void* config, Real&& real_call) {
  const char* terms = usable() ? wire_terms() : nullptr;
  Newcomer n;
  if (!terms || !comm || !announce(&n, comm, 14695981039346656037u)) return real_call();
  for (std::size_t i = 0; i < sizeof id.internal; i += 8) {
    std::uint64_t word;
    memcpy(&word, id.internal + i, 8);
    n.clique = mix(n.clique, word);
  }
  if (ranks <= 1) {
    n.why_not = "the communicator has one rank only";
  } else if (ranks > NcclChannel::kMaxRanks) {
    n.why_not = "the communicator has more than 1024 ranks";
  } else if (is_non_blocking(config)) {
    n.why_not = "the communicator is a non-blocking one";
  } else {
    n.channel = NcclChannel::make(-1, ranks, &n.why_not);
    if (n.channel) {
      n.meeting = meeting::speak(id, rank, ranks, terms);
      if (n.meeting < 0) {
        n.why_not = "the process that made the unique id offers no channel, so that ranks cannot agree";
        n.channel->close(false);
        n.channel = nullptr;
      }
    }
  }
  int code = real_call();
  if (code == kNcclInProgress) {
    // Was asked for in a way that nobody knew of; the others learn that this rank has left.
    dismiss(n);
    return code;
  }
  welcome(n, code);
  return code;
}

// The record of a collective that will be compressed; or nullptr, and a reason is noted. `bytes` are what one rank
// contributes: equal on all ranks, as is every other answer to what is asked here, capture included, which NCCL wants
// of all ranks or of none.
Record* channel_for(Call call, NcclComm comm, void* stream, std::size_t bytes, bool gathers) {
  const Gpu& gpu = Gpu::of(nccl().vendor);
  const char* why = nullptr;
  Record* r = record_of(comm);
  if (!r) {
    why = kUnknown;
  } else if (r->why_not) {
    why = r->why_not;
  } else if (bytes < static_cast<std::size_t>(options.wire_min)) {
    why = "the payload is smaller than the least worth compressing";
  } else {
    int device = 0, status = 0;
    nccl().CommCuDevice(comm, &device);
    OnDevice here(gpu, device);
    constexpr double kLatency = 10e-6;
    if (gpu.is_capturing(stream, &status) != 0 || status != 0) {
      why = "a graph is being captured";
    } else if (options.wire == Wire::kAuto && !wire_pays(static_cast<double>(bytes), r->ranks, gathers,
                                                         r->channel->link_rate(), r->channel->pack_rate(), kLatency)) {
      why = "rounding would cost more time than half the bytes save on this link";
      set_state(kBf16Wire, State::kIdle, why);
    }
  }
  if (!why) return r;
  passed(call, why);
  return nullptr;
}

// The time saved is estimated from the rates that were measured when the communicator was made.
void account(const Record& r, std::size_t elements, bool gathers, std::int64_t sent) {
  auto ranks = static_cast<std::int64_t>(r.ranks), bytes = static_cast<std::int64_t>(elements * 4);
  std::int64_t plain = gathers ? bytes * (ranks - 1) : bytes * 2 * (ranks - 1) / ranks;
  double seconds = static_cast<double>(plain - sent) / r.channel->link_rate() -
                   static_cast<double>(gathers ? bytes * ranks : bytes) / r.channel->pack_rate();
  gained(kBf16Wire, plain - sent, static_cast<std::int64_t>(seconds * 1e9));
  set_state(kBf16Wire, State::kActive,
            "seconds saved are estimated from rates measured when the communicator was made");
}

// Enqueues one collective of a communicator, for all of its ranks in this list that call it alike, and marks these as
// done.
int run(Deferred* all, unsigned count, NcclChannel::Part* parts) {
  const Deferred first = all[0];
  int n = 0;
  for (unsigned i = 0; i < count; i++) {
    Deferred& d = all[i];
    bool alike = d.record && d.record->clique == first.record->clique && d.count == first.count &&
                 d.average == first.average && d.gathers == first.gathers;
    for (int k = 0; k < n && alike; k++) alike = parts[k].channel != d.record->channel;
    if (!alike) continue;
    parts[n++] = {d.record->channel, d.from, d.to, d.stream};
    d.record = nullptr;
  }
  if (options.shadow) return NcclChannel::end_shadow(options.wire_mode, parts, n, first.count, first.average);
  std::int64_t sent = 0;
  int error = first.gathers ? NcclChannel::gather(parts, n, first.count, &sent)
                            : NcclChannel::sum(options.wire_mode, parts, n, first.count, first.average, &sent);
  for (int k = 0; k < n && !error; k++) account(*first.record, first.count, first.gathers, sent);
  return error;
}

int run_deferred(Deferred* all, unsigned count) {
  auto* parts = static_cast<NcclChannel::Part*>(calloc(count, sizeof(NcclChannel::Part)));
  int error = parts ? 0 : kNcclSystemError;
  for (unsigned i = 0; i < count && !error; i++)
    if (all[i].record) error = run(all + i, count - i, parts);
  free(parts);
  return error;
}

int do_or_defer(Record* r, const void* from, void* to, std::size_t count, void* stream, bool average, bool gathers) {
  Deferred d = {r, from, to, count, stream, average, gathers};
  if (group.depth == 0) return run_deferred(&d, 1);
  Deferred* place = group.deferred.add();
  if (!place) return kNcclSystemError;
  *place = d;
  return kNcclSuccess;
}

// Of a communicator that goes before the group ends.
void drop_deferred(const Record* r) {
  for (unsigned i = 0; i < group.deferred.count; i++)
    if (group.deferred.items[i].record == r) group.deferred.items[i].record = nullptr;
}

}  // namespace

int on_nccl_unique_id(ncclGetUniqueId_t* function, NcclId* id) {
  if (!id || !usable()) return function(id);
  memset(id, 0, sizeof *id);
  int code = function(id);
  if (code == kNcclSuccess && !meeting::offer(id))
    say("bf16-wire: ranks that get this unique id cannot agree, since it has no room for our address.");
  return code;
}

int on_nccl_init(ncclCommInitRank_t* function, NcclComm* comm, int ranks, NcclId id, int rank) {
  return init(comm, ranks, id, rank, nullptr, [&] { return function(comm, ranks, id, rank); });
}

int on_nccl_init(ncclCommInitRankConfig_t* function, NcclComm* comm, int ranks, NcclId id, int rank, void* config) {
  return init(comm, ranks, id, rank, config, [&] { return function(comm, ranks, id, rank, config); });
}

// All ranks are in this thread: there is nobody to ask.
int on_nccl_init_all(ncclCommInitAll_t* function, NcclComm* comms, int count, const int* devices) {
  int code = function(comms, count, devices);
  if (code != kNcclSuccess || !usable() || !wire_terms() || !comms || count < 1) return code;
  static std::atomic<std::uint64_t> made;
  auto* all = static_cast<Newcomer*>(calloc(static_cast<unsigned>(count), sizeof(Newcomer)));
  int announced = 0;
  std::uint64_t clique = mix(1, made.fetch_add(1));
  while (all && announced < count && announce(&all[announced], &comms[announced], clique)) announced++;
  if (announced < count) {
    for (int i = 0; i < announced; i++) dismiss(all[i]);
    free(all);
    return code;
  }
  bool whole = count > 1 && count <= NcclChannel::kMaxRanks && !is_non_blocking(nullptr);
  const char* why_not = count == 1 ? "the communicator has one rank only" : "its ranks cannot be brought together";
  for (int i = 0; i < count; i++) {
    if (whole) all[i].channel = NcclChannel::make(devices ? devices[i] : i, count, &why_not);
    whole = all[i].channel;
  }
  for (int i = 0; i < count; i++) {
    if (!whole && all[i].channel) all[i].channel->close(false);
    if (!whole) all[i].channel = nullptr;
    all[i].why_not = why_not;
  }
  settle(all, static_cast<unsigned>(count), code);
  free(all);
  return code;
}

// The parent's ranks have agreed, and all of them call this: so have the child's.
int on_nccl_split(ncclCommSplit_t* function, NcclComm comm, int color, int key, NcclComm* child, void* config) {
  Record* parent = usable() && child ? record_of(comm) : nullptr;
  if (!parent) return function(comm, color, key, child, config);
  Newcomer n;
  // Others may count on this rank already: it cannot pass through alone.
  if (!announce(&n, child, mix(mix(parent->clique, parent->splits++), static_cast<std::uint64_t>(color))))
    return kNcclSystemError;
  n.why_not = parent->why_not;
  bool follows = parent->channel && !is_non_blocking(config);
  if (follows && color >= 0) {
    int device = 0;
    nccl().CommCuDevice(comm, &device);
    // Shards are small enough for as many ranks as the parent has.
    n.channel = NcclChannel::make(device, parent->ranks, &n.why_not);
    n.parent = parent;
  } else if (!n.why_not) {
    n.why_not = "the communicator is a non-blocking one";
  }
  *child = nullptr;
  int code = function(comm, color, key, child, config);
  if (code == kNcclInProgress) {
    dismiss(n);
    return code;
  }
  welcome(n, code);
  return code;
}

int on_nccl_destroy(ncclCommDestroy_t* function, NcclComm comm) {
  Record* r = wire_wanted() ? take_record(comm) : nullptr;
  drop_deferred(r);
  int code = function(comm);
  if (r && r->channel) r->channel->close(true);
  free(r);
  return code;
}

// What runs on the device may never end: its memory stays.
int on_nccl_abort(ncclCommAbort_t* function, NcclComm comm) {
  Record* r = wire_wanted() ? take_record(comm) : nullptr;
  drop_deferred(r);
  free(r);
  return function(comm);
}

// Made by all ranks of a communicator: from here on the library may have ways that are faster than ours.
int on_nccl_window(ncclCommWindowRegister_t* function, NcclComm comm, void* memory, size_t size, void** window,
                   int flags) {
  if (Record* r = wire_wanted() ? record_of(comm) : nullptr; r && !r->why_not)
    r->why_not = "the communicator has windows of registered memory";
  return function(comm, memory, size, window, flags);
}

int on_nccl_group_start(ncclGroupStart_t* function) {
  int code = function();
  if (code == kNcclSuccess) group.depth++;
  return code;
}

int on_nccl_group_end(ncclGroupEnd_t* function) {
  int code = function();
  if (group.depth == 0 || --group.depth > 0) return code;
  Group ended = group;
  group = {};
  if (ended.newcomers.count) settle(ended.newcomers.items, ended.newcomers.count, code);
  int error = 0;
  if (ended.deferred.count && (code == kNcclSuccess || code == kNcclInProgress))
    error = run_deferred(ended.deferred.items, ended.deferred.count);
  free(ended.newcomers.items);
  free(ended.deferred.items);
  return error ? error : code;
}

// Ends a group that is not run.
int on_nccl_group_simulate_end(ncclGroupSimulateEnd_t* function, void* info) {
  int code = function(info);
  if (group.depth > 0 && --group.depth == 0) {
    for (unsigned i = 0; i < group.newcomers.count; i++) dismiss(group.newcomers.items[i]);
    group.newcomers.count = group.deferred.count = 0;
  }
  return code;
}

int on_nccl_all_reduce(ncclAllReduce_t* function, const void* send, void* receive, size_t count, int type, int op,
                       NcclComm comm, void* stream) {
  auto plain = [&] { return function(send, receive, count, type, op, comm, stream); };
  if (!usable() || !count || !send || !receive || !comm) return plain();
  if (type != kNcclFloat32 || (op != kNcclSum && op != kNcclAverage)) {
    passed(Call::ncclAllReduce, "only sums and averages of float32 are compressed");
    return plain();
  }
  Record* r = channel_for(Call::ncclAllReduce, comm, stream, count * 4, false);
  if (!r) return plain();
  if (!options.shadow) return do_or_defer(r, send, receive, count, stream, op == kNcclAverage, false);
  // Of a group's calls on a communicator the first is shadowed.
  for (unsigned i = 0; i < group.deferred.count; i++)
    if (group.deferred.items[i].record == r) return plain();
  if (int e = NcclChannel::begin_shadow({r->channel, send, receive, stream}, count)) return e;
  if (int e = plain()) return e;
  return do_or_defer(r, send, receive, count, stream, op == kNcclAverage, false);
}

int on_nccl_all_gather(ncclAllGather_t* function, const void* send, void* receive, size_t count, int type,
                       NcclComm comm, void* stream) {
  auto plain = [&] { return function(send, receive, count, type, comm, stream); };
  if (!options.wire_allgather || options.shadow || !usable() || !count || !send || !receive || !comm) return plain();
  if (type != kNcclFloat32) {
    passed(Call::ncclAllGather, "only float32 is compressed");
    return plain();
  }
  Record* r = channel_for(Call::ncclAllGather, comm, stream, count * 4, true);
  return r ? do_or_defer(r, send, receive, count, stream, false, true) : plain();
}

}  // namespace AIRamp::Interposer
