#pragma once

#include "device_driver.hpp"

namespace AIRamp::Interposer {

// Tells when nothing that was submitted before a free can still use the freed block. The caller holds a lock.
//
// A free names no stream, so that all streams of the block's device, or context, may use it: those that the program
// made, which we know because each way to make one is hooked; the default stream; and the default stream that each
// thread may have for itself. An event in each of them, recorded after the free, stands behind all that could use the
// block. The threads' own streams cannot be named from another thread, and need not be: they wait for the default
// stream and it for them, as all streams do that were not made with the flag "non-blocking", so that the event in the
// default stream stands behind theirs. Streams that are destroyed may go on working: an event that was recorded just
// before stands for each of them. Streams of other devices do not count unless they were let in: then, or when streams
// were made in ways that do not tell their kind, the device is synchronised instead (`certain`), as the driver does.
//
// Events are recorded at most once at a time: frees that happen meanwhile share the next round of events. The later an
// event is recorded, the more stands before it, so that this is only later, never too early.
class Quarantine {
 public:
  explicit constexpr Quarantine(const DeviceDriver& driver) : driver_(driver) {}

  // Streams of the context in which this thread works.
  void add_stream(void* stream);
  // Before the driver destroys it.
  void remove_stream(void* stream);
  // The device or context goes, and its streams and events with it; or one that cannot be told.
  void forget(std::uintptr_t device);
  void forget_all();
  // From now on events do not tell all.
  void doubt() { certain_ = false; }
  bool certain() const { return certain_; }

  // The number of a free that happens now.
  std::uint64_t stamp() { return ++now_; }
  std::uint64_t now() const { return now_; }
  // Lets events follow what was freed, in the context of this thread, unless some are under way.
  void seal(std::uintptr_t device);
  // Whether what was freed under that number can no longer be used by anything; never waits.
  bool passed(std::uintptr_t device, std::uint64_t stamp);
  // The device was synchronised after all frees up to that number.
  void synchronised(std::uintptr_t device, std::uint64_t stamp);

 private:
  static constexpr unsigned kMostDevices = 16, kMostStreams = 64, kMostGone = 16;
  struct Device {
    std::uintptr_t key = 0;  // 0: nobody's
    std::uint64_t safe = 0;  // frees up to this one have passed
    void* streams[kMostStreams] = {};
    unsigned stream_count = 0;
    // One event for each stream, and one for the default stream. Made when first needed, and used again.
    void* events[kMostStreams + 1] = {};
    unsigned waiting = 0;  // how many of them have been recorded and not yet been seen to end
    std::uint64_t sealed = 0;
    // Events of streams that were destroyed at work.
    void* gone[kMostGone] = {};
    unsigned gone_count = 0;
  };

  Device* device_of(std::uintptr_t key, bool add);
  bool ended(Device* device);

  const DeviceDriver& driver_;
  Device devices_[kMostDevices] = {};
  std::uint64_t now_ = 0;
  bool certain_ = true;
};

}  // namespace AIRamp::Interposer
