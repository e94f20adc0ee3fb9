#pragma once

#include <atomic>
#include <cstdint>

// What a process shows of itself: a page of memory in a file that `airamp status` and `airamp explain` map. Its layout
// is the contract between a library and a command of the same version; the names are in it.
namespace AIRamp::Interposer {

constexpr std::uint32_t kPageMagic = 0x41495241;  // "ARIA"
constexpr std::uint32_t kPageVersion = 2;
constexpr unsigned kMaxRows = 192;
constexpr unsigned kLanes = 32;

// A call that is hooked. Text is written by one thread at a time and may be seen half changed.
struct HookRow {
  char name[48];
  char door[12];                      // pmpi, preload, dlsym, layer; empty: not bound
  char reason[140];                   // why the last call that passed through did
  std::atomic<std::uint64_t> passed;  // calls that were candidates for a mechanism and passed through
};

enum class State : std::uint32_t { kOff, kIdle, kActive, kDisarmed };
constexpr const char* kStateNames[] = {"off", "idle", "active", "disarmed"};

struct MechanismRow {
  char name[24];
  std::atomic<State> state;
  char reason[200];
  std::atomic<std::uint64_t> calls;
  std::atomic<std::int64_t> bytes_saved;
  std::atomic<std::int64_t> nanoseconds_saved;
};

// In the order of the switches of `airamp run`.
enum Mechanism { kBf16Wire, kPool, kPin, kOclChunk, kShadow, kMechanismCount };
constexpr const char* kMechanismNames[kMechanismCount] = {"bf16-wire", "pool", "pin", "ocl-chunk", "shadow"};

struct Page {
  std::uint32_t magic;
  std::uint32_t version;
  std::uint32_t pid;
  std::uint32_t row_count;
  std::uint64_t start_time;  // field 22 of /proc/PID/stat: with the pid, names one process
  char program[256];
  char note[200];  // why nothing is hooked; empty otherwise
  MechanismRow mechanisms[kMechanismCount];
  HookRow rows[kMaxRows];
  // Calls by the program. A thread has a lane of its own as long as there are some; the last is shared.
  std::atomic<std::uint64_t> calls[kLanes][kMaxRows];

  std::uint64_t calls_of(unsigned row) const {
    std::uint64_t sum = 0;
    for (unsigned lane = 0; lane < kLanes; lane++) sum += calls[lane][row].load(std::memory_order_relaxed);
    return sum;
  }
};

}  // namespace AIRamp::Interposer
