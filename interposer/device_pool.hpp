#pragma once

#include <pthread.h>

#include "device_driver.hpp"
#include "library.hpp"
#include "live_table.hpp"
#include "pattern_of_life.hpp"
#include "quarantine.hpp"

namespace AIRamp::Interposer {

// Keeps blocks of device memory that a program frees, and hands them out again to those who ask for the same size on
// the same device. A block is one allocation of the driver, whole: address ranges and handles for other processes are
// the driver's. What was freed is handed out when events tell that nothing can still use it (Quarantine). Where the
// driver's documentation says that a free waits for the device, it does; AIRAMP_FREE_SYNC says otherwise. While a graph
// is captured nothing is kept and nothing handed out.
class DevicePool {
 public:
  explicit constexpr DevicePool(const DeviceDriver& driver) : driver_(driver), quarantine_(driver) {}

  // `real` allocates. Codes are the driver's.
  template <class Real>
  int allocate(std::size_t size, std::uintptr_t* address, Real&& real) {
    if (!options.pool || !address || size == 0 || captures_.load() > 0) return real();
    pthread_mutex_lock(&lock_);
    std::uintptr_t here = driver_.here();
    if (!armed() || captures_.load() > 0 || !here || !take(here, size, address)) {
      pthread_mutex_unlock(&lock_);
      std::int64_t start = now_ns();
      int code = real();
      if (code == driver_.out_of_memory && trim_all()) {
        code = real();
        if (code == 0) driver_.forget_error();
      }
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

  // A block that others get to know by a handle is the driver's from then on. The address may be inside.
  void exclude(std::uintptr_t address);
  // Around the program's own synchronisation of its device.
  std::uint64_t before_synchronise();
  void after_synchronise(std::uint64_t before);
  // Streams that the program made, or is about to destroy, and what makes them not tell all.
  void add_stream(void* stream);
  void remove_stream(void* stream);
  void doubt_streams();
  // Before the program waits for the device, so that what the driver does meanwhile costs it nothing: makes the blocks
  // that the next step is known to need and that are neither kept nor in use, within PREWARM_PERMILLE of the free
  // memory.
  void prewarm();
  // Gives everything back, when memory runs out. Whether there was any.
  bool trim_all();
  // Before a device or context goes; 0: nobody knows which.
  void forget_device(std::uintptr_t device);
  void begin_capture();
  void end_capture() {
    if (captures_.load() > 0) captures_--;
  }
  bool captures() const { return captures_.load() > 0; }

 private:
  struct Block {
    std::uintptr_t key;  // its address
    std::uintptr_t device;
    std::size_t size;   // that was asked for
    std::size_t whole;  // that the driver made of it
    std::int64_t creation_ns;
  };
  struct Kept {
    Block block;
    std::uint64_t stamp;  // of its free; 0: it is new
    std::int64_t since_ns;
    bool prewarmed;
  };

  bool armed();
  void disarm(const char* why);
  bool take(std::uintptr_t device, std::size_t size, std::uintptr_t* address);
  bool keep(std::uintptr_t address, bool* twice);
  // What the driver says of the block at this address; 0: there is none.
  std::size_t whole_of(std::uintptr_t address) const;
  void note(std::uintptr_t address, std::uintptr_t device, std::size_t size, std::int64_t creation_ns);
  void look_for_other_allocators();
  void give_back(unsigned index);
  void trim_old(std::int64_t now);
  void note_gain(std::size_t bytes, std::int64_t nanoseconds);

  static constexpr unsigned kMostKept = 512;
  static constexpr unsigned kTrials = 64;

  const DeviceDriver& driver_;
  Quarantine quarantine_;
  pthread_mutex_t lock_ = PTHREAD_MUTEX_INITIALIZER;
  LiveTable<Block, 16384> live_;
  Kept kept_[kMostKept] = {};
  unsigned kept_count_ = 0;
  std::size_t kept_bytes_ = 0;
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
