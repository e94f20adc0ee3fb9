#include "pinned_copy.hpp"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

namespace AIRamp::Interposer {
namespace {

constexpr unsigned kTrials = 16;  // copies of each direction by which it is judged
constexpr std::size_t kLeastPiece = 65536;

// What is not mapped is the driver's to complain of. The call does nothing else on Linux than to look for gaps.
bool is_mapped(std::uintptr_t address, std::size_t size) {
  int before = errno;
  std::uintptr_t page_size = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE)), begin = address & ~(page_size - 1);
  bool mapped = msync(reinterpret_cast<void*>(begin), address - begin + size, MS_ASYNC) == 0;
  errno = before;
  return mapped;
}

}  // namespace

// For those that cannot go on without. Copies do not wait for each other.
void PinnedCopy::lock() {
  while (busy_.exchange(true, std::memory_order_acquire)) sched_yield();
}

// Whether what the slot's memory was used for has ended; never waits.
bool PinnedCopy::free_now(Slot* slot) {
  if (slot->busy && driver_.query(slot->event) == 0) slot->busy = false;
  return !slot->busy;
}

// Waits. False: the driver is in trouble.
bool PinnedCopy::end(Slot* slot) {
  if (slot->busy && driver_.wait(slot->event) != 0) return false;
  slot->busy = false;
  return true;
}

void PinnedCopy::drop(Slot* slot) {
  Slot old = *slot;
  *slot = slots_[--count_];
  bytes_ -= old.size;
  driver_.drop_event(old.event);
  driver_.unpin(old.memory);
}

PinnedCopy::Slot* PinnedCopy::take(std::uintptr_t device, const Slot* besides) {
  auto size = static_cast<std::size_t>(tuning.get<Key::PIN_SLOT_BYTES>());
  auto most = static_cast<std::size_t>(tuning.get<Key::PIN_MAX_BYTES>());
  for (unsigned i = 0; i < count_; i++)
    if (&slots_[i] != besides && slots_[i].device == device && slots_[i].size == size && free_now(&slots_[i]))
      return &slots_[i];
  if (count_ == kMostSlots || bytes_ + size > most) return nullptr;
  Slot slot = {.memory = nullptr, .size = size, .event = nullptr, .device = device, .busy = false, .used_ns = 0};
  if (driver_.make_event(&slot.event) != 0) return nullptr;
  void* memory = nullptr;
  if (driver_.pin(&memory, size) != 0 || !memory) {
    driver_.drop_event(slot.event);
    return nullptr;
  }
  slot.memory = static_cast<char*>(memory);
  bytes_ += size;
  slots_[count_] = slot;
  return &slots_[count_++];
}

void PinnedCopy::trim_old() {
  std::int64_t ttl = tuning.get<Key::PIN_TTL_MS>() * 1000000, now = coarse_now_ns();
  if (now - trimmed_ns_.load(std::memory_order_relaxed) < ttl / 8) return;
  if (pool_.captures() || busy_.exchange(true, std::memory_order_acquire)) return;
  trimmed_ns_.store(now, std::memory_order_relaxed);
  auto most = static_cast<std::size_t>(tuning.get<Key::PIN_MAX_BYTES>());
  for (unsigned i = count_; i-- > 0;)
    if ((now - slots_[i].used_ns > ttl || bytes_ > most) && free_now(&slots_[i])) drop(&slots_[i]);
  busy_.store(false, std::memory_order_release);
}

void PinnedCopy::forget_device(std::uintptr_t device) {
  if (!options.pin) return;
  lock();
  for (unsigned i = count_; i-- > 0;) {
    if (device && slots_[i].device != device) continue;
    end(&slots_[i]);
    drop(&slots_[i]);
  }
  busy_.store(false, std::memory_order_release);
}

// Why the driver has to do this copy, or nullptr. Finds out which way it goes.
const char* PinnedCopy::unfit(Way* way, std::uintptr_t to, std::uintptr_t from, std::size_t size) {
  using Place = DeviceDriver::Place;
  if (complete_ < 0) complete_ = driver_.complete();
  if (!complete_) return "the driver lacks functions that staging needs";
  if (pool_.captures()) return "a graph is being captured";
  if (!driver_.here()) return "this thread works on no device";
  Place to_place = driver_.place_of(to), from_place = driver_.place_of(from);
  bool to_device = to_place == Place::kDevice && from_place == Place::kPageable;
  bool to_host = to_place == Place::kPageable && from_place == Place::kDevice;
  if (*way == Way::kEither && (to_device || to_host)) *way = to_device ? Way::kToDevice : Way::kToHost;
  if (*way == Way::kToDevice ? !to_device : *way == Way::kToHost ? !to_host : true)
    return "the copy is not between pageable memory and a device's";
  std::uintptr_t device = to_device ? to : from, host = to_device ? from : to, base = 0;
  std::size_t whole = 0;
  if (!driver_.allocation_of(device, &base, &whole) || device - base > whole || size > whole - (device - base))
    return "the copy goes beyond one block of device memory";
  if (!is_mapped(host, size)) return "the host's side is not all mapped";
  return nullptr;
}

bool PinnedCopy::stage(Call call, Way* way, std::uintptr_t to, std::uintptr_t from, std::size_t size, void* stream,
                       bool blocking, bool* compare) {
  if (busy_.exchange(true, std::memory_order_acquire)) {
    passed(call, "another thread is copying");
    return false;
  }
  const char* why = unfit(way, to, from, size);
  Trial& trial = trials_[*way == Way::kToHost];
  // Copies that return before they are done tell nothing of their speed.
  bool whole = blocking || *way == Way::kToHost;
  bool on_trial = !why && whole && !options.pin_always && trial.copies < kTrials;
  bool staged = false;
  if (!why && trial.lost) why = "the driver's own copies were not slower";
  if (!why && on_trial && trial.copies % 2) {
    trial.copies++;
    *compare = true;
  } else if (!why) {
    std::int64_t start = now_ns();
    std::uintptr_t here = driver_.here();
    Slot* slots[2] = {take(here, nullptr), nullptr};
    if (slots[0]) slots[1] = take(here, slots[0]);
    staged = slots[1] && through(slots, *way, to, from, size, stream, blocking);
    if (!slots[1]) why = "PIN_MAX_BYTES or the driver gave no two buffers";
    if (slots[1] && !staged) why = "the driver refused a part of it";
    std::int64_t took = now_ns() - start;
    if (staged && on_trial && trial.warm) {
      trial.copies++;
      trial.staged_ns += static_cast<double>(took);
      trial.staged_bytes += static_cast<double>(size);
      judge(*way);
    }
    if (staged) {
      trial.warm = true;
      double driver_ns = trial.driver_bytes > 0 ? static_cast<double>(size) * trial.driver_ns / trial.driver_bytes : 0;
      gained(kPin, 0, whole && driver_ns > 0 ? static_cast<std::int64_t>(driver_ns) - took : 0);
      if (page->mechanisms[kPin].state == State::kIdle)
        set_state(kPin, State::kActive, "seconds saved are against copies that the driver was left to do");
    }
  }
  busy_.store(false, std::memory_order_release);
  if (why) passed(call, why);
  return staged;
}

// False: the driver has to do all of it, which is right whatever was done before, because it comes after that.
bool PinnedCopy::through(Slot** slots, Way way, std::uintptr_t to, std::uintptr_t from, std::size_t size, void* stream,
                         bool blocking) {
  // Two pieces at least, so that there is something to do while one is on the bus.
  std::size_t piece = (size / 2 + 4095) / 4096 * 4096;
  if (piece > slots[0]->size) piece = slots[0]->size;
  if (piece < kLeastPiece) piece = kLeastPiece;
  std::size_t pieces = (size + piece - 1) / piece;
  auto at = [&](std::size_t i) { return i * piece; };
  auto bytes = [&](std::size_t i) { return size - at(i) < piece ? size - at(i) : piece; };
  bool good = true;
  auto sent = [&](Slot* slot, int code) {
    slot->busy = code == 0;
    if (code == 0 && driver_.record(slot->event, stream) == 0) return true;
    // What was begun has no event behind it.
    if (slot->busy && driver_.synchronise() == 0) slot->busy = false;
    driver_.forget_error();
    return false;
  };
  if (way == Way::kToDevice) {
    for (std::size_t i = 0; i < pieces && good; i++) {
      Slot* slot = slots[i % 2];
      good = end(slot);
      if (!good) break;
      memcpy(slot->memory, reinterpret_cast<const char*>(from) + at(i), bytes(i));
      good = sent(slot, driver_.to_device(to + at(i), slot->memory, bytes(i), stream));
    }
  } else {
    auto begin = [&](std::size_t i) {
      return i >= pieces || sent(slots[i % 2], driver_.to_host(slots[i % 2]->memory, from + at(i), bytes(i), stream));
    };
    good = begin(0) && begin(1);
    for (std::size_t i = 0; i < pieces && good; i++) {
      good = end(slots[i % 2]);
      if (!good) break;
      memcpy(reinterpret_cast<char*>(to) + at(i), slots[i % 2]->memory, bytes(i));
      good = begin(i + 2);
    }
  }
  std::int64_t now = coarse_now_ns();
  for (int i = 0; i < 2; i++) {
    slots[i]->used_ns = now;
    if (blocking || !good) good = end(slots[i]) && good;
  }
  return good;
}

void PinnedCopy::note_driver(Way way, std::size_t bytes, std::int64_t nanoseconds) {
  lock();
  Trial& trial = trials_[way == Way::kToHost];
  trial.driver_ns += static_cast<double>(nanoseconds);
  trial.driver_bytes += static_cast<double>(bytes);
  judge(way);
  busy_.store(false, std::memory_order_release);
}

// A direction in which the driver is as fast is left to it.
void PinnedCopy::judge(Way way) {
  Trial& trial = trials_[way == Way::kToHost];
  if (trial.copies < kTrials || trial.driver_bytes == 0 || trial.staged_bytes == 0) return;
  trial.lost = trial.staged_ns / trial.staged_bytes >= trial.driver_ns / trial.driver_bytes;
  if (!trials_[0].lost || !trials_[1].lost) return;
  for (unsigned i = count_; i-- > 0;)
    if (end(&slots_[i])) drop(&slots_[i]);
  set_state(kPin, State::kDisarmed, "the driver's own copies were not slower");
}

}  // namespace AIRamp::Interposer
