// The tuning file as a running program reads it. airampd writes tuning.conf and then changes a word in a page that
// programs have mapped; a check whether anything is new is one load of that word. Nothing here waits, starts a thread,
// keeps a descriptor, changes errno or needs more than libc: whatever is wrong with the files, a program goes on with
// the last values that were good, or with the fallbacks of tuning.def.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace AIRamp::Interposer {

enum class Key : int {
#define AIRAMP_TUNING_KEY(name, ...) name,
#include "tuning.def"
#undef AIRAMP_TUNING_KEY
};

enum class KeyType : uint8_t { integer, flag };
enum class Scope : uint8_t { local, wire };

struct KeyRow {
  const char* name;
  KeyType type;
  const char* unit;
  int64_t least, most, fallback;
  Scope scope;
  const char* meaning;
};

inline constexpr KeyRow kKeys[] = {
#define AIRAMP_TUNING_KEY(name, type, unit, least, most, fallback, scope, meaning) \
  {#name, KeyType::type, unit, least, most, fallback, Scope::scope, meaning},
#include "tuning.def"
#undef AIRAMP_TUNING_KEY
};
inline constexpr int kKeyCount = int(sizeof kKeys / sizeof *kKeys);
constexpr const KeyRow& row(Key key) { return kKeys[int(key)]; }

// Of everything in the table but the meanings (FNV-1a): a library and a daemon with different tables see it.
constexpr uint64_t tuning_fingerprint() {
  uint64_t h = 0xcbf29ce484222325u;
  auto mix = [&h](uint64_t byte) { h = (h ^ (byte & 0xff)) * 0x100000001b3u; };
  auto mix_text = [&](const char* s) {
    for (; *s; ++s) mix(uint64_t(*s));
    mix(0);
  };
  auto mix_number = [&](int64_t v) {
    for (int i = 0; i < 8; ++i) mix(uint64_t(v) >> (8 * i));
  };
  for (const KeyRow& k : kKeys) {
    mix_text(k.name), mix_text(k.unit);
    mix(uint64_t(k.type)), mix(uint64_t(k.scope));
    mix_number(k.least), mix_number(k.most), mix_number(k.fallback);
  }
  return h;
}

struct Values {
  int64_t of[kKeyCount];
  int64_t operator[](Key key) const { return of[int(key)]; }
  int64_t& operator[](Key key) { return of[int(key)]; }
};
constexpr Values fallbacks() {
  Values v{};
  for (int i = 0; i < kKeyCount; ++i) v.of[i] = kKeys[i].fallback;
  return v;
}

// ---------------------------------------------------------------- the files

inline constexpr char kTuningFile[] = "tuning.conf";
inline constexpr char kPageFile[] = "generation";
inline constexpr int kTuningFormat = 1;
inline constexpr size_t kMostTuningBytes = 16384;

// The file `generation`: one page, only ever changed in place, so that mappings of it stay good.
struct TuningPage {
  static constexpr uint64_t kMagic = 0x31454e5554524941u;  // "AIRTUNE1" in little-endian order
  static constexpr size_t kBytes = 4096;
  uint64_t magic;
  std::atomic<uint64_t> generation;  // raised after each rename of tuning.conf
};
static_assert(sizeof(std::atomic<uint64_t>) == 8 && std::atomic<uint64_t>::is_always_lock_free);

// Folders in the order in which they are tried: $AIRAMP_TUNING_DIR alone if set, else /dev/shm/airamp-accel,
// /run/airamp-accel, $XDG_RUNTIME_DIR/airamp-accel. Writes the i-th path; false when there is none, or it is too long.
bool tuning_folder(int i, char* path, size_t capacity);

enum class Parse {
  ok,
  damaged,        // not text of ours, a torn write, or a wrong checksum
  other_version,  // another format or another key table
};
// Reads the canonical text that airampd publishes: comments, `NAME = INTEGER`, and the checksum of all before it in the
// last line. Values are clamped into their bounds; unknown names are ignored. `values` changes only when ok.
Parse parse_tuning(const char* text, size_t bytes, Values* values, uint64_t* generation);

uint32_t tuning_checksum(const char* text, size_t bytes);  // CRC-32 as of IEEE 802.3

// ---------------------------------------------------------------- the reader

class Tuning {
 public:
  constexpr Tuning() = default;
  Tuning(const Tuning&) = delete;

  // The value of a local key; when the daemon has published since the last look, the new one. Any thread, any time.
  template <Key key>
  int64_t get() {
    static_assert(row(key).scope == Scope::local, "wire keys are read in a snapshot, where all ranks agree");
    if (changed()) reload();
    return buffers_[flips_.load(std::memory_order_acquire) & 1][int(key)].load(std::memory_order_relaxed);
  }

  // True when the daemon has published something that this program has not read. One load of the mapped word.
  bool changed() const {
    return page_.load(std::memory_order_relaxed)->generation.load(std::memory_order_relaxed) !=
           seen_.load(std::memory_order_relaxed);
  }

  // All values of one publication, wire keys too; never a mix of two. Returns its generation, 0 for the fallbacks.
  uint64_t snapshot(Values* values);

  // Looks for the folder and reads it: call once at start, and at rare calls (a new communicator or context), so that a
  // daemon started after the program is found, or one that had to make its folder anew. At most one look a second does
  // anything.
  void look_for_daemon();

  // Reads the file again. Another thread that is doing so already makes this return at once.
  void reload();

  // In the child of a fork: a reload that another thread was in the middle of will not end here.
  void after_fork_in_child() { busy_.store(false, std::memory_order_relaxed); }

  // Where the values come from, for reports. Never null.
  const char* state() const { return state_.load(std::memory_order_relaxed); }
  // The folder in use, "" while there is none.
  const char* folder() const { return mapped_.load(std::memory_order_acquire) ? folder_ : ""; }

  // Receives each sentence about something wrong once. Without it the sentence goes to stderr after "airamp: ".
  void set_say(void (*say)(const char* sentence)) { say_ = say; }

 private:
  void read_folder(int folder);
  bool map_page(int folder);
  void take(const Values& values, uint64_t generation);
  void say_once(unsigned bit, const char* sentence);

  static const TuningPage kNoPage;  // what page_ points to until the daemon's page is mapped

  std::atomic<const TuningPage*> page_{&kNoPage};
  std::atomic<uint64_t> seen_{0};
  // Two sets of values: readers use buffer `flips_ & 1`, a reload writes the other one and then counts up.
  std::atomic<uint64_t> flips_{0};
  struct Buffer {
    std::atomic<int64_t> of[kKeyCount] = {
#define AIRAMP_TUNING_KEY(name, type, unit, least, most, fallback, scope, meaning) fallback,
#include "tuning.def"
#undef AIRAMP_TUNING_KEY
    };
    std::atomic<uint64_t> generation{0};
    std::atomic<int64_t>& operator[](int i) { return of[i]; }
  } buffers_[2];
  std::atomic<bool> busy_{false};
  std::atomic<bool> mapped_{false};
  std::atomic<int64_t> next_look_ns_{0};
  std::atomic<const char*> state_{"fallbacks: no folder of airampd was looked for yet"};
  void (*say_)(const char*) = nullptr;
  unsigned said_ = 0;
  uint64_t page_device_ = 0, page_inode_ = 0;
  char folder_[256] = {};
  char text_[kMostTuningBytes + 1] = {};
};

// The one of this process.
extern Tuning tuning;

}  // namespace AIRamp::Interposer
