#pragma once

#include "device_driver.hpp"
#include "device_pool.hpp"

namespace AIRamp::Interposer {

// Large copies between pageable memory and a device's go through pinned buffers of ours, two at a time: while one is on
// the bus, the other is filled or emptied. The buffers are kept for a time, up to a limit (PIN_TTL_MS, PIN_MAX_BYTES,
// PIN_SLOT_BYTES); the program's own pages are never pinned, which would outlive what the program does with them.
//
// The program sees what its driver documents for pageable memory: when a copy returns, its source may be changed and,
// towards the host, its destination is there; the copy stands in its stream like any other. Whatever is unusual is left
// to the driver, which also has the last word when anything fails: it then does the whole copy, and its code is the
// program's.
class PinnedCopy {
 public:
  enum class Way { kToDevice, kToHost, kEither };

  constexpr PinnedCopy(const DeviceDriver& driver, const DevicePool& pool) : driver_(driver), pool_(pool) {}

  // `blocking`: the call's contract is that all is done when it returns.
  template <class Real>
  int copy(Call call, Way way, std::uintptr_t to, std::uintptr_t from, std::size_t size, void* stream, bool blocking,
           Real&& real) {
    if (!options.pin) return real();
    trim_old();
    if (size < static_cast<std::size_t>(tuning.get<Key::PIN_MIN_BYTES>())) return real();
    bool compare = false;
    if (stage(call, &way, to, from, size, stream, blocking, &compare)) return 0;
    if (!compare) return real();
    std::int64_t start = now_ns();
    int code = real();
    if (code == 0) note_driver(way, size, now_ns() - start);
    return code;
  }

  // Gives back what nothing has used for long.
  void trim_old();
  // Before a device or context goes; 0: nobody knows which.
  void forget_device(std::uintptr_t device);

 private:
  static constexpr unsigned kMostSlots = 16;
  struct Slot {
    char* memory;
    std::size_t size;
    void* event;  // follows the last copy
    std::uintptr_t device;
    bool busy;  // the event may not have passed
    std::int64_t used_ns;
  };
  // Copies of one direction: how fast they are through the buffers, and without.
  struct Trial {
    unsigned copies;
    bool warm;  // the first one made buffers, and does not count
    double staged_ns, staged_bytes, driver_ns, driver_bytes;
    bool lost;
  };

  bool stage(Call call, Way* way, std::uintptr_t to, std::uintptr_t from, std::size_t size, void* stream, bool blocking,
             bool* compare);
  const char* unfit(Way* way, std::uintptr_t to, std::uintptr_t from, std::size_t size);
  bool through(Slot** slots, Way way, std::uintptr_t to, std::uintptr_t from, std::size_t size, void* stream,
               bool blocking);
  void lock();
  bool free_now(Slot* slot);
  Slot* take(std::uintptr_t device, const Slot* besides);
  void drop(Slot* slot);
  bool end(Slot* slot);
  void note_driver(Way way, std::size_t bytes, std::int64_t nanoseconds);
  void judge(Way way);

  const DeviceDriver& driver_;
  const DevicePool& pool_;         // knows of captures
  std::atomic<bool> busy_{false};  // a lock
  Slot slots_[kMostSlots] = {};
  unsigned count_ = 0;
  std::size_t bytes_ = 0;
  std::atomic<std::int64_t> trimmed_ns_{0};
  Trial trials_[2] = {};
  int complete_ = -1;  // whether the driver has all functions; -1: nobody has looked
};

}  // namespace AIRamp::Interposer
