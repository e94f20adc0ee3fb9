#include "gloo.hpp"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bf16.hpp"
#include "elf.hpp"
#include "once.hpp"
#include "trace.hpp"
#include "wire_terms.hpp"

namespace AIRamp::Interposer {
namespace {

// Gloo throws. An exception passes through our frames without a trace, so that the depth of hooked calls is put right
// before anything of Gloo's is called: the wrapper's own count is then never taken back.
class Throwing {
 public:
  Throwing() { thread.depth--; }
  ~Throwing() { thread.depth++; }
  Throwing(const Throwing&) = delete;
  Throwing& operator=(const Throwing&) = delete;
};

// libstdc++'s layouts, of its younger binary interface.
struct Shared {
  void* object;
  void* control;
};
struct Vector {
  char *begin, *end, *room;
};
struct String {
  char* data;
  std::size_t size;
  char local[16];
};
struct Function {
  void* functor[2];
  void* manager;
  void (*invoke)(const void* functor, void** to, const void** a, const void** b, std::size_t* count);
};

// Gloo's, which have been the same since it has options (2018).
struct Buffer {
  void (**virtuals)(Buffer*);  // the second destroys and frees
  void* memory;
  std::size_t size;
};
struct AllreduceOptions {
  Shared context;
  std::int64_t timeout;
  int algorithm;
  Buffer **in, **in_end, **in_room;
  Buffer **out, **out_end, **out_room;
  std::size_t elements, element_size;
  Function reduce;
  std::uint32_t tag;
};
struct ExchangeOptions {  // of alltoall and allgather
  Shared context;
  Buffer* in;
  Buffer* out;
  std::size_t element_size;
  std::uint32_t tag;
  std::int64_t timeout;
};
struct Ranks {  // in a context, behind its table of virtual functions if it has one
  int rank, size;
};

// A store that puts a prefix before keys, and does for any store what its exported functions do: no table of virtual
// functions needs to be known.
#define AIRAMP_GLOO_STRING "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
struct GlooLibrary {
  bool is_virtual = false;  // whether contexts have a table of virtual functions, or only those that can connect
  void (*create_buffer)(Buffer** result, void* context, void* memory, std::size_t size) = nullptr;
  void (*alltoall)(ExchangeOptions*) = nullptr;
  void (*allgather)(ExchangeOptions*) = nullptr;
  void (*make_store)(void* place, const String* prefix, void* store) = nullptr;
  bool (*is_extended)(void* store) = nullptr;
  void (*append)(void* store, const String* key, const Vector* value) = nullptr;
  void (*get)(Vector* result, void* store, const String* key) = nullptr;
  void (*free)(void*) = nullptr;
};

const GlooLibrary* gloo(bool shared) {
  static GlooLibrary library;
  static Once once;
  static bool whole;
  once.run([shared] {
    elf::Object object;
    elf::find("_ZN4gloo9allreduceERKNS_16AllreduceOptionsE", &object);
    auto find = [&](auto** function, const char* name) {
      *function =
          object ? reinterpret_cast<std::remove_reference_t<decltype(*function)>>(elf::find_in(object, name)) : nullptr;
      return *function != nullptr;
    };
    GlooLibrary& g = library;
    g.is_virtual = object && elf::find_in(object, "_ZTVN4gloo7ContextE");
    whole = find(&g.create_buffer, "_ZN4gloo7Context19createUnboundBufferEPvm") &&
            find(&g.alltoall, "_ZN4gloo8alltoallERNS_15AlltoallOptionsE") &&
            find(&g.allgather, "_ZN4gloo9allgatherERNS_16AllgatherOptionsE") &&
            find(&g.make_store, shared ? "_ZN4gloo10rendezvous11PrefixStoreC1ERK" AIRAMP_GLOO_STRING
                                         "St10shared_ptrINS0_5StoreEE"
                                       : "_ZN4gloo10rendezvous11PrefixStoreC1ERK" AIRAMP_GLOO_STRING "RNS0_5StoreE") &&
            find(&g.is_extended, "_ZN4gloo10rendezvous11PrefixStore14has_v2_supportEv") &&
            find(&g.append, "_ZN4gloo10rendezvous11PrefixStore6appendERK" AIRAMP_GLOO_STRING "RKSt6vectorIcS6_E") &&
            find(&g.get, "_ZN4gloo10rendezvous11PrefixStore3getERK" AIRAMP_GLOO_STRING);
    g.free = reinterpret_cast<void (*)(void*)>(elf::find("_ZdlPv"));
    whole = whole && g.free;
  });
  return whole ? &library : nullptr;
}

constexpr std::size_t kChunk = std::size_t{2} << 20;  // elements that travel together
constexpr int kMaxRanks = 1024;
constexpr int kSlots = 2;
constexpr std::size_t kProbe = std::size_t{1} << 18;  // elements

// Memory of one collective; several may run at once.
struct Slot {
  std::atomic<bool> taken;
  std::uint16_t* outgoing;
  std::uint16_t* incoming;
  float* sum;
  Slot* next;
};

// A context that has been connected.
struct Record {
  const void* context;
  int rank, size;
  const char* why_not;
  const GlooLibrary* library;
  double link_rate, pack_rate;
  std::atomic<bool> held;  // a weak reference of ours keeps its address from being used again
  Slot slots[kSlots];
  std::atomic<Slot*> more;
  Record* next;
};
Record* records = nullptr;
pthread_mutex_t records_lock = PTHREAD_MUTEX_INITIALIZER;

Record* record_of(const Shared& context) {
  pthread_mutex_lock(&records_lock);
  Record* r = records;
  while (r && r->context != context.object) r = r->next;
  pthread_mutex_unlock(&records_lock);
  if (r && context.control && !r->held.exchange(true))
    __atomic_fetch_add(reinterpret_cast<int*>(static_cast<char*>(context.control) + 12), 1, __ATOMIC_ACQ_REL);
  return r;
}

std::size_t shard_of(std::size_t elements, int size) {
  return (elements + static_cast<std::size_t>(size) - 1) / static_cast<std::size_t>(size);
}

bool allocate(Slot* slot, int size) {
  std::size_t halves = shard_of(kChunk, size) * static_cast<std::size_t>(size) + 64,
              shard = shard_of(kChunk, size) + 64;
  std::size_t bytes = halves * 4 + shard * 4;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return false;
  slot->outgoing = static_cast<std::uint16_t*>(memory);
  slot->incoming = slot->outgoing + halves;
  slot->sum = reinterpret_cast<float*>(slot->incoming + halves);
  return true;
}

// Gloo's threads, of which PyTorch has two, hold one each; what an exception passed by stays taken. Who finds none gets
// one more, and waits only if there is no memory for it.
Slot& take(Record& r) {
  for (;;) {
    for (Slot& slot : r.slots)
      if (!slot.taken.exchange(true)) return slot;
    for (Slot* slot = r.more.load(); slot; slot = slot->next)
      if (!slot->taken.exchange(true)) return *slot;
    auto* slot = static_cast<Slot*>(calloc(1, sizeof(Slot)));
    if (slot && allocate(slot, r.size)) {
      slot->taken.store(true);
      slot->next = r.more.load();
      while (!r.more.compare_exchange_weak(slot->next, slot)) continue;
      return *slot;
    }
    free(slot);
  }
}

String text(const char* from) {
  String s = {nullptr, strlen(from), {}};
  memcpy(s.local, from, s.size);  // keys are shorter than 16
  return s;
}

// One step of a compressed sum, over Gloo's own connections.
void exchange(void (*function)(ExchangeOptions*), const Record& r, const Shared& context, void* in,
              std::size_t in_bytes, void* out, std::size_t out_bytes, std::uint32_t tag, std::int64_t timeout) {
  ExchangeOptions o = {context, nullptr, nullptr, 1, tag, timeout};
  r.library->create_buffer(&o.in, context.object, in, in_bytes);
  r.library->create_buffer(&o.out, context.object, out, out_bytes);
  function(&o);
  o.in->virtuals[1](o.in);
  o.out->virtuals[1](o.out);
}

void round_trip(Record& r, const Shared& context, Slot& slot, const float* from, float* to, std::size_t n,
                const AllreduceOptions& o, std::int64_t* sent) {
  const auto& k = bf16::kernels();
  std::size_t shard = shard_of(n, r.size), all = shard * static_cast<std::size_t>(r.size);
  std::size_t begin = shard * static_cast<std::size_t>(r.rank);
  std::size_t mine = begin >= n ? 0 : n - begin < shard ? n - begin : shard;
  {
    trace::Range range("AIRamp:BF16-Pack");
    k.pack_bf16_v4(from, slot.outgoing, n);
    memset(slot.outgoing + n, 0, (all - n) * 2);
  }
  exchange(r.library->alltoall, r, context, slot.outgoing, all * 2, slot.incoming, all * 2, o.tag, o.timeout);
  {
    trace::Range range("AIRamp:BF16-Sum");
    memset(slot.sum, 0, shard * 4);
    memcpy(slot.sum, from + begin, mine * 4);
    for (int rank = 0; rank < r.size; rank++)
      if (rank != r.rank) k.add_bf16_v4(slot.incoming + shard * static_cast<std::size_t>(rank), slot.sum, mine);
    k.pack_bf16_v4(slot.sum, slot.incoming, shard);
  }
  exchange(r.library->allgather, r, context, slot.incoming, shard * 2, slot.outgoing, all * 2, o.tag, o.timeout);
  trace::Range range("AIRamp:BF16-Unpack");
  k.unpack_bf16_v4(slot.outgoing, to, n);
  *sent += static_cast<std::int64_t>(2 * 2 * (all - shard));
}

// Measures once, with all ranks; the figures are then the smallest of all.
void measure(Record& r, const Shared& context) {
  constexpr std::uint32_t kTag = 0x41495241;
  constexpr std::int64_t kTimeout = 60000;  // milliseconds
  Slot& slot = take(r);
  const auto& k = bf16::kernels();
  std::size_t piece = kProbe / static_cast<std::size_t>(r.size) * 2, all = piece * static_cast<std::size_t>(r.size);
  std::int64_t link = INT64_MAX, pack = INT64_MAX;
  for (int round = 0; round < 3; round++) {
    std::int64_t start = now_ns();
    k.pack_bf16_v4(slot.sum, slot.outgoing, kProbe / static_cast<std::size_t>(r.size));
    k.add_bf16_v4(slot.outgoing, slot.sum, kProbe / static_cast<std::size_t>(r.size));
    k.unpack_bf16_v4(slot.outgoing, slot.sum, kProbe / static_cast<std::size_t>(r.size));
    std::int64_t packed = now_ns();
    exchange(r.library->alltoall, r, context, slot.outgoing, all, slot.incoming, all, kTag, kTimeout);
    std::int64_t end = now_ns();
    if (packed - start < pack) pack = packed - start;
    if (end - packed < link) link = end - packed;
  }
  struct Figures {
    double link_rate, pack_rate, host;
  } mine = {static_cast<double>(all - piece) * 1e9 / static_cast<double>(link + 1),
            static_cast<double>(piece * 2) * 1e9 / static_cast<double>(pack + 1), 0};
  auto advised = static_cast<double>(wire_advice()[Key::WIRE_LINK_BYTES_PER_S]);
  if (advised > 0 && advised < mine.link_rate) mine.link_rate = advised;
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  std::uint32_t hash = 2166136261u;
  for (const char* c = name; *c; c++) hash = (hash ^ static_cast<unsigned char>(*c)) * 16777619u;
  mine.host = hash;
  auto* figures = reinterpret_cast<Figures*>(slot.sum);
  memcpy(slot.incoming, &mine, sizeof mine);
  exchange(r.library->allgather, r, context, slot.incoming, sizeof mine, figures,
           sizeof mine * static_cast<unsigned>(r.size), kTag, kTimeout);
  bool one_host = true;
  r.link_rate = mine.link_rate;
  r.pack_rate = mine.pack_rate;
  for (int i = 0; i < r.size; i++) {
    if (figures[i].link_rate < r.link_rate) r.link_rate = figures[i].link_rate;
    if (figures[i].pack_rate < r.pack_rate) r.pack_rate = figures[i].pack_rate;
    one_host = one_host && figures[i].host == mine.host;
  }
  slot.taken.store(false);
  if (one_host && options.wire == Wire::kAuto)
    r.why_not = "all ranks are on one host, between whose processes there is no wire";
}

// What the ranks tell each other is a log in the store that they meet over. Each writes a line before it connects, and
// one after. If all have written their first before anybody wrote the second, all have us; the log only grows, so that
// all who read it behind their own second line find the same.
constexpr std::size_t kLine = 32;
void write_line(const Record& r, void* store, char kind, const char* terms) {
  std::uint64_t hash = 14695981039346656037u;
  for (const char* c = terms; *c; c++) hash = (hash ^ static_cast<unsigned char>(*c)) * 1099511628211u;
  char line[kLine + 1];
  snprintf(line, sizeof line, "%c%014d %016llx", kind, r.rank, static_cast<unsigned long long>(hash));
  String key = text("log");
  key.data = key.local;
  Vector value = {line, line + kLine, line + kLine};
  r.library->append(store, &key, &value);
}

bool all_spoke(const Record& r, void* store, const char* terms) {
  String key = text("log");
  key.data = key.local;
  Vector log = {};
  r.library->get(&log, store, &key);
  std::uint64_t hash = 14695981039346656037u;
  for (const char* c = terms; *c; c++) hash = (hash ^ static_cast<unsigned char>(*c)) * 1099511628211u;
  char expected[20];
  snprintf(expected, sizeof expected, "%016llx", static_cast<unsigned long long>(hash));
  bool spoke[kMaxRanks] = {};
  int count = 0;
  for (char* line = log.begin; log.end - line >= static_cast<std::ptrdiff_t>(kLine) && line[0] == 'a'; line += kLine) {
    char number[15] = {};
    memcpy(number, line + 1, 14);
    int rank = atoi(number);
    if (rank < 0 || rank >= r.size || spoke[rank] || memcmp(line + 16, expected, 16) != 0) continue;
    spoke[rank] = true;
    count++;
  }
  if (log.begin) r.library->free(log.begin);
  return count == r.size;
}

void enter(Record* r) {
  pthread_mutex_lock(&records_lock);
  // One that stood at this address before is forgotten, with its memory: a collective of it may still run.
  for (Record* old = records; old; old = old->next)
    if (old->context == r->context) old->context = nullptr;
  r->next = records;
  records = r;
  pthread_mutex_unlock(&records_lock);
  if (!r->why_not) return set_state(kBf16Wire, State::kIdle, "no call has qualified yet");
  if (page->mechanisms[kBf16Wire].state.load() == State::kIdle) set_state(kBf16Wire, State::kOff, r->why_not);
  static std::atomic<bool> said;
  if (r->rank == 0 && r->size > 1 && !said.exchange(true))
    say("bf16-wire is off for Gloo's context of %d ranks: %s; everything on it passes through.", r->size, r->why_not);
}

// Whether the function adds float32, found out by asking it.
bool adds_floats(const AllreduceOptions& o) {
  if (!o.reduce.manager || !o.reduce.invoke || o.element_size != sizeof(float)) return false;
  constexpr std::size_t n = 8;
  const float x[n] = {1.5f, -2.25f, 1e30f, 0x1p-140f, 3, 1e-8f, -7, 0.1f};
  const float y[n] = {2.25f, 1e-3f, 1e30f, 0x1p-139f, -3, 1, -9, 0.2f};
  float expected[n], sum[n] = {};
  for (std::size_t i = 0; i < n; i++) expected[i] = x[i] + y[i];
  void* to = sum;
  const void *a = x, *b = y;
  std::size_t count = n;
  o.reduce.invoke(o.reduce.functor, &to, &a, &b, &count);
  return memcmp(sum, expected, sizeof sum) == 0;
}

// The record of a sum that will be compressed; or nullptr, and a reason is noted.
Record* channel_for(const AllreduceOptions& o) {
  constexpr Call kCall = Call::_ZN4gloo9allreduceERKNS_16AllreduceOptionsE;
  constexpr double kLatency = 100e-6;
  const char* why = nullptr;
  Record* r = record_of(o.context);
  std::size_t bytes = o.elements * o.element_size;
  if (!r) {
    why = "the context was connected in a way that libairamp does not follow";
  } else if (r->why_not) {
    why = r->why_not;
  } else if (bytes < static_cast<std::size_t>(options.wire_min)) {
    why = "the payload is smaller than the least worth compressing";
  } else if (o.out_end - o.out != 1 || o.in_end - o.in > 1 || o.out[0]->size != bytes) {
    why = "there are several buffers";
  } else if (!adds_floats(o)) {
    why = "only sums of float32 are compressed";
  } else if (options.wire == Wire::kAuto &&
             !wire_pays(static_cast<double>(bytes), r->size, false, r->link_rate, r->pack_rate, kLatency)) {
    why = "rounding would cost more time than half the bytes save on this link";
    set_state(kBf16Wire, State::kIdle, why);
  }
  if (!why) return r;
  passed(kCall, why);
  return nullptr;
}

}  // namespace

void on_gloo_connect(
    _ZN4gloo10rendezvous7Context15connectFullMeshERNS0_5StoreERSt10shared_ptrINS_9transport6DeviceEE_t* function,
    void* context, void* store, void* device, bool shared) {
  Throwing throwing;
  const char* terms = options.wire != Wire::kOff && !options.shadow ? wire_terms() : nullptr;
  auto* r = terms ? static_cast<Record*>(calloc(1, sizeof(Record))) : nullptr;
  if (!r) return function(context, store, device);
  r->library = gloo(shared);
  auto* ranks = reinterpret_cast<const Ranks*>(static_cast<const char*>(context) + sizeof(void*));
  r->rank = ranks->rank;
  r->size = ranks->size;
  // Options name the base of what connects.
  void* base = static_cast<char*>(context) + (r->library && !r->library->is_virtual ? sizeof(void*) : 0);
  r->context = base;
  trace::start();
  alignas(16) char ours[256] = {};  // a store on the program's, which is borrowed: it is never destroyed
  if (r->size < 2 || r->size > kMaxRanks || r->rank < 0 || r->rank >= r->size) {
    r->why_not = "the context has one rank only, or more than 1024";
  } else if (!r->library) {
    r->why_not = "this Gloo offers no store that ranks can agree over";
  } else if (options.wire_mode != 'B') {
    r->why_not = "Gloo's sums are compressed in mode B only";
  } else {
    for (Slot& slot : r->slots)
      if (!allocate(&slot, r->size)) r->why_not = "the host has no memory left for the channel";
  }
  if (!r->why_not) {
    String prefix = text("airamp");
    prefix.data = prefix.local;
    Shared copy = shared ? *static_cast<const Shared*>(store) : Shared{};
    r->library->make_store(ours, &prefix, shared ? &copy : store);
    if (!r->library->is_extended(ours))
      r->why_not = "the store of this Gloo's context is too old for ranks to agree over";
  }
  if (!r->why_not) write_line(*r, ours, 'a', terms);
  function(context, store, device);
  if (!r->why_not) {
    write_line(*r, ours, 'b', terms);
    if (!all_spoke(*r, ours, terms)) r->why_not = "not all ranks run this version of libairamp with these settings";
  }
  if (!r->why_not) measure(*r, Shared{base, nullptr});
  enter(r);
}

void on_gloo_allreduce(_ZN4gloo9allreduceERKNS_16AllreduceOptionsE_t* function, const void* options_of_call) {
  Throwing throwing;
  if (options.wire == Wire::kOff || options.shadow) return function(options_of_call);
  const auto& o = *static_cast<const AllreduceOptions*>(options_of_call);
  Record* r = channel_for(o);
  if (!r) return function(options_of_call);
  auto* to = static_cast<float*>(o.out[0]->memory);
  const float* from = o.in_end != o.in ? static_cast<const float*>(o.in[0]->memory) : to;
  Slot& slot = take(*r);
  std::int64_t sent = 0;
  for (std::size_t at = 0; at < o.elements; at += kChunk)
    round_trip(*r, o.context, slot, from + at, to + at, o.elements - at < kChunk ? o.elements - at : kChunk, o, &sent);
  slot.taken.store(false);
  auto bytes = static_cast<std::int64_t>(o.elements * 4);
  std::int64_t plain = bytes * 2 * (r->size - 1) / r->size;
  double seconds = static_cast<double>(plain - sent) / r->link_rate - static_cast<double>(bytes) / r->pack_rate;
  gained(kBf16Wire, plain - sent, static_cast<std::int64_t>(seconds * 1e9));
  set_state(kBf16Wire, State::kActive,
            "seconds saved are estimated from rates measured when the context was connected");
}

}  // namespace AIRamp::Interposer
