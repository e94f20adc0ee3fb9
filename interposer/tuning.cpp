#include "tuning.hpp"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "checked_files.hpp"

namespace AIRamp::Interposer {

constinit Tuning tuning;
constinit const TuningPage Tuning::kNoPage{0, {0}};

bool tuning_folder(int i, char* path, size_t capacity) {
  const char* chosen = secure_getenv("AIRAMP_TUNING_DIR");
  const char* runtime = secure_getenv("XDG_RUNTIME_DIR");
  int length = -1;
  if (chosen && *chosen) {
    if (i == 0) length = snprintf(path, capacity, "%s", chosen);
  } else if (i == 0) {
    length = snprintf(path, capacity, "/dev/shm/airamp-accel");
  } else if (i == 1) {
    length = snprintf(path, capacity, "/run/airamp-accel");
  } else if (i == 2 && runtime && *runtime == '/') {
    length = snprintf(path, capacity, "%s/airamp-accel", runtime);
  }
  return length > 0 && size_t(length) < capacity;
}

uint32_t tuning_checksum(const char* text, size_t bytes) {
  static constexpr auto kTable = [] {
    struct Table {
      uint32_t of[16];
    } t{};
    for (uint32_t i = 0; i < 16; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 4; ++k) c = (c >> 1) ^ (c & 1 ? 0xedb88320u : 0);
      t.of[i] = c;
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (size_t i = 0; i < bytes; ++i) {
    crc ^= uint8_t(text[i]);
    crc = (crc >> 4) ^ kTable.of[crc & 15];
    crc = (crc >> 4) ^ kTable.of[crc & 15];
  }
  return ~crc;
}

namespace {

struct Text {
  const char* at;
  const char* end;

  bool done() const { return at == end; }
  Text line() {
    const char* start = at;
    while (at != end && *at != '\n') ++at;
    Text out{start, at};
    if (at != end) ++at;
    return out;
  }
  void blanks() {
    while (at != end && (*at == ' ' || *at == '\t')) ++at;
  }
  // A run of the characters of names and numbers.
  Text word() {
    const char* start = at;
    while (at != end && ((*at >= 'A' && *at <= 'Z') || (*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9') ||
                         *at == '_' || *at == '-' || *at == '.'))
      ++at;
    return {start, at};
  }
  bool is(const char* s) const {
    size_t n = strlen(s);
    return size_t(end - at) == n && memcmp(at, s, n) == 0;
  }
};

// A decimal integer, held at the ends of int64; false when it is none.
bool integer_of(Text t, int64_t* value) {
  bool minus = !t.done() && *t.at == '-';
  if (minus) ++t.at;
  if (t.done()) return false;
  uint64_t v = 0;
  bool huge = false;
  for (; !t.done(); ++t.at) {
    if (*t.at < '0' || *t.at > '9') return false;
    if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, uint64_t(*t.at - '0'), &v)) huge = true;
  }
  if (huge || v > uint64_t(INT64_MAX)) v = uint64_t(INT64_MAX);
  *value = minus ? -int64_t(v) : int64_t(v);
  return true;
}

bool hex_of(Text t, uint64_t* value) {
  if (t.done() || t.end - t.at > 16) return false;
  uint64_t v = 0;
  for (; !t.done(); ++t.at) {
    int digit = *t.at >= '0' && *t.at <= '9' ? *t.at - '0' : *t.at >= 'a' && *t.at <= 'f' ? *t.at - 'a' + 10 : -1;
    if (digit < 0) return false;
    v = v << 4 | uint64_t(digit);
  }
  *value = v;
  return true;
}

constexpr char kChecksumName[] = "CHECKSUM";

// The last line must be `CHECKSUM = <crc>` of all before it.
bool checksum_fits(const char* text, size_t bytes) {
  if (bytes == 0 || text[bytes - 1] != '\n') return false;
  size_t start = bytes - 1;
  while (start > 0 && text[start - 1] != '\n') --start;
  Text line{text + start, text + bytes - 1};
  uint64_t crc;
  if (!line.word().is(kChecksumName)) return false;
  line.blanks();
  if (line.done() || *line.at++ != '=') return false;
  line.blanks();
  Text number = line.word();
  return line.done() && number.end - number.at == 8 && hex_of(number, &crc) && crc == tuning_checksum(text, start);
}

int64_t clamp(int64_t v, const KeyRow& k) { return v < k.least ? k.least : v > k.most ? k.most : v; }

}  // namespace

Parse parse_tuning(const char* text, size_t bytes, Values* values, uint64_t* generation) {
  if (bytes > kMostTuningBytes || !checksum_fits(text, bytes)) return Parse::damaged;
  Values v = fallbacks();
  int64_t format = 0, number = 0;
  uint64_t fingerprint = 0;
  for (Text all{text, text + bytes}; !all.done();) {
    Text line = all.line();
    line.blanks();
    if (line.done() || *line.at == '#') continue;
    Text name = line.word();
    line.blanks();
    if (name.done() || line.done() || *line.at++ != '=') return Parse::damaged;
    line.blanks();
    Text value = line.word();
    if (name.is("AIRAMP_TUNING")) {
      if (!integer_of(value, &format)) return Parse::damaged;
    } else if (name.is("KEYS")) {
      if (!hex_of(value, &fingerprint)) return Parse::damaged;
    } else if (name.is("GENERATION")) {
      if (!integer_of(value, &number) || number < 0) return Parse::damaged;
    } else {
      for (int i = 0; i < kKeyCount; ++i) {
        if (!name.is(kKeys[i].name)) continue;
        int64_t n;
        if (!integer_of(value, &n)) return Parse::damaged;
        v.of[i] = clamp(n, kKeys[i]);
      }
    }
  }
  if (format != kTuningFormat || fingerprint != tuning_fingerprint()) return Parse::other_version;
  *values = v;
  *generation = uint64_t(number);
  return Parse::ok;
}

// ---------------------------------------------------------------- the reader

namespace {
enum Said : unsigned { kFolder = 1, kPage = 2, kFile = 4, kDamaged = 8, kVersion = 16 };

int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}
}  // namespace

void Tuning::say_once(unsigned bit, const char* sentence) {
  if (said_ & bit) return;
  said_ |= bit;
  if (say_) return say_(sentence);
  char line[512];
  int n = snprintf(line, sizeof line, "airamp: %s\n", sentence);
  if (n > 0) (void)!write(2, line, size_t(n) < sizeof line ? size_t(n) : sizeof line - 1);
}

uint64_t Tuning::snapshot(Values* values) {
  if (changed()) reload();
  for (;;) {
    uint64_t flips = flips_.load(std::memory_order_acquire);
    Buffer& b = buffers_[flips & 1];
    // Acquire loads of values that were stored with release: one that belongs to a later flip shows that flip too.
    for (int i = 0; i < kKeyCount; ++i) values->of[i] = b[i].load(std::memory_order_acquire);
    uint64_t generation = b.generation.load(std::memory_order_acquire);
    if (flips_.load(std::memory_order_relaxed) == flips) return generation;
  }
}

void Tuning::take(const Values& values, uint64_t generation) {
  uint64_t flips = flips_.load(std::memory_order_relaxed);
  Buffer& b = buffers_[(flips + 1) & 1];
  for (int i = 0; i < kKeyCount; ++i) b[i].store(values.of[i], std::memory_order_release);
  b.generation.store(generation, std::memory_order_release);
  flips_.store(flips + 1, std::memory_order_release);
}

bool Tuning::map_page(int folder) {
  FileFacts facts;
  FileFault fault;
  int fd = open_checked_file(folder, kPageFile, O_RDONLY, TuningPage::kBytes, &facts, &fault);
  if (fd < 0) {
    if (fault != FileFault::absent) {
      char sentence[400];
      snprintf(sentence, sizeof sentence, "\"%s/%s\" %s; values stay as they are. Remove it and restart airampd.",
               folder_, kPageFile, sentence_end(fault));
      say_once(kPage, sentence);
    }
    return false;
  }
  bool mapped = mapped_.load(std::memory_order_relaxed);
  if (mapped && facts.device == page_device_ && facts.inode == page_inode_) {
    close(fd);
    return true;
  }
  // A page without a block behind it could not be read when /dev/shm is full: the load would end the program.
  bool whole = facts.bytes == TuningPage::kBytes && facts.blocks > 0;
  uint64_t magic = 0;
  whole = whole && pread(fd, &magic, sizeof magic, 0) == ssize_t(sizeof magic) && magic == TuningPage::kMagic;
  if (whole) {
    // A new page takes the place of the old one in one step, under threads that are reading it.
    void* old = mapped ? const_cast<TuningPage*>(page_.load(std::memory_order_relaxed)) : nullptr;
    void* at = mmap(old, TuningPage::kBytes, PROT_READ, MAP_SHARED | (old ? MAP_FIXED : 0), fd, 0);
    whole = at != MAP_FAILED;
    if (whole) {
      page_device_ = facts.device, page_inode_ = facts.inode;
      page_.store(static_cast<const TuningPage*>(at), std::memory_order_release);
      mapped_.store(true, std::memory_order_release);
    }
  }
  close(fd);
  if (!whole) say_once(kPage, "The page of airampd's generation word is damaged; values stay as they are.");
  return whole;
}

void Tuning::read_folder(int folder) {
  if (!map_page(folder)) {
    // A page that vanished keeps its mapping; what was seen of it is settled either way.
    seen_.store(page_.load(std::memory_order_relaxed)->generation.load(std::memory_order_acquire),
                std::memory_order_relaxed);
    return;
  }
  // Read before the file: if the daemon publishes in between, the next check finds a difference again.
  uint64_t generation = page_.load(std::memory_order_relaxed)->generation.load(std::memory_order_acquire);
  FileFacts facts;
  FileFault fault;
  int fd = open_checked_file(folder, kTuningFile, O_RDONLY, kMostTuningBytes, &facts, &fault);
  char sentence[400];
  if (fd < 0) {
    snprintf(sentence, sizeof sentence, "\"%s/%s\" %s; values stay as they are.", folder_, kTuningFile,
             sentence_end(fault));
    say_once(kFile, sentence);
  } else {
    long n = read_whole(fd, text_, sizeof text_);
    close(fd);
    Values values;
    uint64_t written = 0;
    switch (n < 0 ? Parse::damaged : parse_tuning(text_, size_t(n), &values, &written)) {
      case Parse::ok:
        take(values, written);
        state_.store("published by airampd", std::memory_order_relaxed);
        break;
      case Parse::damaged:
        snprintf(sentence, sizeof sentence,
                 "\"%s/%s\" is damaged or was edited while airampd does not run; values stay as they are.", folder_,
                 kTuningFile);
        say_once(kDamaged, sentence);
        break;
      case Parse::other_version:
        take(fallbacks(), 0);
        state_.store("fallbacks: airampd is of another version", std::memory_order_relaxed);
        say_once(
            kVersion,
            "This library and airampd are of different versions; the library uses its own defaults. Install both from "
            "one build.");
        break;
    }
  }
  seen_.store(generation, std::memory_order_relaxed);
}

void Tuning::reload() {
  if (busy_.exchange(true, std::memory_order_acquire)) return;
  int error = errno;
  if (getauxval(AT_SECURE)) {
    state_.store("fallbacks: this program runs with raised rights", std::memory_order_relaxed);
  } else {
    bool found = false;
    FileFault fault = FileFault::absent;
    char refused[400] = "";
    bool mapped = mapped_.load(std::memory_order_relaxed);
    char path[sizeof folder_];
    // The folder of the mapped page is kept; otherwise the first that passes the checks.
    for (int i = 0; !found && (mapped ? i < 1 : tuning_folder(i, path, sizeof path)); ++i) {
      int fd = open_checked_folder(mapped ? folder_ : path, &fault);
      if (fd < 0) {
        if (fault == FileFault::absent) continue;
        if (!*refused)
          snprintf(refused, sizeof refused, "The folder \"%s\" %s; it is not used for tuning.", mapped ? folder_ : path,
                   sentence_end(fault));
        continue;
      }
      if (!mapped) memcpy(folder_, path, sizeof path);
      read_folder(fd);
      close(fd);
      found = mapped_.load(std::memory_order_relaxed);
    }
    if (!found) {
      // Said only where nothing else serves: anyone can take the name in /dev/shm.
      if (*refused) say_once(kFolder, refused);
      if (mapped)  // settled, or every call from now on would look again
        seen_.store(page_.load(std::memory_order_relaxed)->generation.load(std::memory_order_relaxed),
                    std::memory_order_relaxed);
      else
        state_.store("fallbacks: no folder of airampd", std::memory_order_relaxed);
    }
  }
  errno = error;
  busy_.store(false, std::memory_order_release);
}

void Tuning::look_for_daemon() {
  int64_t now = now_ns(), next = next_look_ns_.load(std::memory_order_relaxed);
  if (now < next || !next_look_ns_.compare_exchange_strong(next, now + 1'000'000'000, std::memory_order_relaxed))
    return;
  reload();
}

}  // namespace AIRamp::Interposer
