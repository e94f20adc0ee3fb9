#pragma once

#include <pthread.h>

#include "library.hpp"
#include "live_table.hpp"
#include "pattern_of_life.hpp"

namespace AIRamp::Interposer {

// Keeps blocks of device memory that a program frees, and hands them out again to those who ask for the same size on
// the same device. A block is one allocation of the driver, whole: address ranges and handles for other processes are
// the driver's. A free carries no stream, so that the device is synchronised before a block is handed out again: at the
// free, as drivers mostly do, or, with AIRAMP_FREE_SYNC=late, when the block is wanted, unless the program has done so
// since. While a graph is captured nothing is kept and nothing handed out.
class DevicePool {
 public:
  // What a driver does. All return 0 for success, and are the real functions.
  struct Driver {
    Call allocate_call, free_call;
    int out_of_memory;  // codes of that driver
    int invalid_value;
    int (*allocate)(std::uintptr_t* address, std::size_t size);
    int (*free)(std::uintptr_t address);
    int (*synchronise)();
    int (*memory_info)(std::size_t* free, std::size_t* total);
    bool (*complete)();  // whether the loaded library has all of these
    // Names the device, or context, that this thread works on; 0: there is none.
    std::uintptr_t (*here)();
  };

  explicit constexpr DevicePool(const Driver& driver) : driver_(driver) {}

  // `real` allocates. Codes are the driver's.
  template <class Real>
  int allocate(std::size_t size, std::uintptr_t* address, Real&& real) {
    if (!options.pool || !address || size == 0 || captures_.load() > 0) return real();
    pthread_mutex_lock(&lock_);
    std::uintptr_t here = driver_.here();
    if (!armed() || !here || !take(here, size, address)) {
      pthread_mutex_unlock(&lock_);
      std::int64_t start = now_ns();
      int code = real();
      if (code == driver_.out_of_memory && trim_all()) code = real();
      if (code == 0 && here) note(*address, here, size, now_ns() - start);
      return code;
    }
    pthread_mutex_unlock(&lock_);
    return 0;
  }

  template <class Real>
  int free(std::uintptr_t address, Real&& real) {
    if (!options.pool || !address) return real();
    pthread_mutex_lock(&lock_);
    bool twice = false;
    bool kept = keep(address, &twice);
    pthread_mutex_unlock(&lock_);
    if (twice) passed(driver_.free_call, "the program freed a block twice");
    return twice ? driver_.invalid_value : kept ? 0 : real();
  }

  // Blocks that are kept are free to the program.
  template <class Real>
  int memory_info(std::size_t* free, std::size_t* total, Real&& real) {
    int code = real();
    if (code != 0 || !options.pool || !free) return code;
    pthread_mutex_lock(&lock_);
    std::uintptr_t here = driver_.here();
    for (unsigned i = 0; i < kept_count_; i++)
      if (kept_[i].block.device == here) *free += kept_[i].block.size;
    if (total && *free > *total) *free = *total;
    pthread_mutex_unlock(&lock_);
    return code;
  }

  // A block that another process gets to know is the driver's from then on.
  void exclude(std::uintptr_t address);
  // After the program has synchronised: `since` is epoch() from before.
  std::uint64_t epoch() const { return epoch_.load(); }
  void synchronised(std::uintptr_t device, std::uint64_t since);
  // Before the program waits for the device, so that what the driver does meanwhile costs it nothing: makes the blocks
  // that the next step is known to need and that are neither kept nor in use, within PREWARM_PERMILLE of the free
  // memory.
  void prewarm();
  // Gives everything back: before a device or context goes, and when memory runs out. Whether there was any.
  bool trim_all();
  void begin_capture() {
    captures_++;
    if (options.pool) trim_all();
  }
  void end_capture() {
    if (captures_.load() > 0) captures_--;
  }

 private:
  struct Block {
    std::uintptr_t key;  // its address
    std::uintptr_t device;
    std::size_t size;
    std::int64_t creation_ns;
  };
  struct Kept {
    Block block;
    std::uint64_t epoch;  // of its free
    std::int64_t since_ns;
    bool prewarmed;
  };

  bool armed();
  void disarm(const char* why);
  bool take(std::uintptr_t device, std::size_t size, std::uintptr_t* address);
  bool keep(std::uintptr_t address, bool* twice);
  void note(std::uintptr_t address, std::uintptr_t device, std::size_t size, std::int64_t creation_ns);
  void mark_synchronised(std::uintptr_t device, std::uint64_t since);
  void give_back(unsigned index);
  void trim_old(std::int64_t now);
  void note_gain(std::size_t bytes, std::int64_t nanoseconds);

  static constexpr unsigned kMostKept = 512;
  static constexpr unsigned kMostDevices = 16;
  static constexpr unsigned kTrials = 64;

  Driver driver_;
  pthread_mutex_t lock_ = PTHREAD_MUTEX_INITIALIZER;
  LiveTable<Block, 16384> live_;
  Kept kept_[kMostKept] = {};
  unsigned kept_count_ = 0;
  std::size_t kept_bytes_ = 0;
  // A free's epoch is the number of frees before it. What was freed before a synchronisation began may be handed out.
  std::atomic<std::uint64_t> epoch_{1};
  struct {
    std::uintptr_t device;
    std::uint64_t epoch;
  } synchronised_[kMostDevices] = {};
  std::atomic<int> captures_{0};
  bool looked_ = false;
  bool disarmed_ = false;
  std::int64_t trimmed_ns_ = 0;
  PatternOfLife life_;  // for how long a size is worth keeping, and what the next step needs
  // Reading the clock costs as much as all else: one call in so many is timed, and stands for the others.
  static constexpr unsigned kTimed = 16;
  unsigned takes_ = 0;
  unsigned keeps_ = 0;
  std::int64_t last_take_ns_ = 0;
  std::int64_t last_keep_ns_ = 0;
  unsigned trials_ = 0;
  std::int64_t trial_gain_ns_ = 0;
};

}  // namespace AIRamp::Interposer
