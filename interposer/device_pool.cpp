#include "device_pool.hpp"

#include <link.h>
#include <string.h>

namespace AIRamp::Interposer {
namespace {

// Libraries whose allocators keep memory themselves: what they give back is meant for others.
int find_caching_allocator(dl_phdr_info* info, std::size_t, void* found) {
  for (const char* name : {"libc10_cuda", "libc10_hip", "librmm", "libjax", "xla_extension", "libtensorflow"})
    if (info->dlpi_name && strstr(info->dlpi_name, name)) *static_cast<bool*>(found) = true;
  return 0;
}

}  // namespace

bool DevicePool::armed() {
  if (!looked_) {
    looked_ = true;
    bool found = false;
    dl_iterate_phdr(find_caching_allocator, &found);
    if (!driver_.complete()) disarm("the driver lacks functions that the pool needs");
    if (found) disarm("the program has an allocator that keeps device memory itself");
  }
  return !disarmed_;
}

void DevicePool::disarm(const char* why) {
  disarmed_ = true;
  while (kept_count_) give_back(kept_count_ - 1);
  set_state(kPool, State::kDisarmed, why);
}

void DevicePool::give_back(unsigned index) {
  Block block = kept_[index].block;
  if (kept_[index].prewarmed) life_.prewarm_unused(block.size);
  kept_[index] = kept_[--kept_count_];
  kept_bytes_ -= block.size;
  driver_.free(block.key);
}

bool DevicePool::trim_all() {
  pthread_mutex_lock(&lock_);
  bool any = kept_count_ > 0;
  while (kept_count_) give_back(kept_count_ - 1);
  pthread_mutex_unlock(&lock_);
  return any;
}

// What nobody has wanted for long goes; everything does when others need the device's memory.
void DevicePool::trim_old(std::int64_t now) {
  std::int64_t ttl = tuning.get<Key::POOL_TTL_MS>() * 1000000;
  if (now - trimmed_ns_ < ttl / 8) return;
  trimmed_ns_ = now;
  for (unsigned i = kept_count_; i-- > 0;)
    if (now - kept_[i].since_ns > life_.keep_ns(kept_[i].block.size, ttl)) give_back(i);
  std::size_t free = 0, total = 0;
  if (kept_count_ && driver_.memory_info(&free, &total) == 0 && free < total / 16)
    while (kept_count_) give_back(kept_count_ - 1);
}

void DevicePool::note(std::uintptr_t address, std::uintptr_t device, std::size_t size, std::int64_t creation_ns) {
  pthread_mutex_lock(&lock_);
  live_.add({.key = address, .device = device, .size = size, .creation_ns = creation_ns});
  pthread_mutex_unlock(&lock_);
}

void DevicePool::exclude(std::uintptr_t address) {
  pthread_mutex_lock(&lock_);
  if (Block* block = live_.find(address)) live_.remove(block);
  pthread_mutex_unlock(&lock_);
}

void DevicePool::mark_synchronised(std::uintptr_t device, std::uint64_t since) {
  for (auto& s : synchronised_)
    if (s.device == device || !s.device) {
      s.device = device;
      if (since > s.epoch) s.epoch = since;
      return;
    }
}

void DevicePool::synchronised(std::uintptr_t device, std::uint64_t since) {
  pthread_mutex_lock(&lock_);
  mark_synchronised(device, since);
  pthread_mutex_unlock(&lock_);
}

bool DevicePool::take(std::uintptr_t device, std::size_t size, std::uintptr_t* address) {
  bool timed = takes_++ % kTimed == 0;
  std::int64_t start = timed ? now_ns() : 0, coarse = coarse_now_ns();
  trim_old(coarse);
  life_.observe({coarse, size, ObsKind::allocate});
  unsigned found = kept_count_;
  for (unsigned i = kept_count_; i-- > 0 && found == kept_count_;)
    if (kept_[i].block.size == size && kept_[i].block.device == device) found = i;
  if (found == kept_count_) return false;
  std::uint64_t safe = 0;
  for (const auto& s : synchronised_)
    if (s.device == device) safe = s.epoch;
  if (kept_[found].epoch >= safe) {
    std::uint64_t since = epoch_.load();
    if (driver_.synchronise() != 0) return false;
    mark_synchronised(device, since);
  }
  Block block = kept_[found].block;
  if (kept_[found].prewarmed) life_.prewarm_used(size);
  kept_[found] = kept_[--kept_count_];
  kept_bytes_ -= size;
  *address = block.key;
  if (page->mechanisms[kPool].state != State::kActive)
    set_state(kPool, State::kActive, "bytes saved were not allocated anew");
  live_.add(block);
  if (timed) last_take_ns_ = now_ns() - start;
  note_gain(size, block.creation_ns - last_keep_ns_ - last_take_ns_);
  return true;
}

bool DevicePool::keep(std::uintptr_t address, bool* twice) {
  for (unsigned i = 0; i < kept_count_; i++) *twice |= kept_[i].block.key == address;
  Block* known = live_.find(address);
  if (*twice || !known) return false;
  Block block = *known;
  live_.remove(known);
  std::int64_t now = coarse_now_ns();
  life_.observe({now, block.size, ObsKind::release});
  if (disarmed_ || captures_.load() > 0 || kept_count_ == kMostKept ||
      kept_bytes_ + block.size > static_cast<std::size_t>(tuning.get<Key::POOL_MAX_BYTES>()))
    return false;
  bool timed = keeps_++ % kTimed == 0;
  std::int64_t start = timed ? now_ns() : 0;
  // Programs may rely on a free that waits for the device, as the drivers' mostly does.
  std::uint64_t since = epoch_.load() + 1;
  if (!options.free_late && driver_.synchronise() != 0) return false;
  kept_[kept_count_++] = {.block = block, .epoch = epoch_++, .since_ns = now, .prewarmed = false};
  kept_bytes_ += block.size;
  if (!options.free_late) mark_synchronised(driver_.here(), since);
  if (timed) last_keep_ns_ = now_ns() - start;
  return true;
}

void DevicePool::prewarm() {
  constexpr int kMostSizes = 16;
  Need needs[kMostSizes];
  if (captures_.load() > 0) return;
  pthread_mutex_lock(&lock_);
  std::uintptr_t here = armed() ? driver_.here() : 0;
  std::int64_t permille = tuning.get<Key::PREWARM_PERMILLE>();
  life_.set_waste_permille(tuning.get<Key::PREWARM_WASTE_PERMILLE>());
  int sizes = here && permille ? life_.predict_next(~std::uint64_t{0}, needs, kMostSizes) : 0;
  std::size_t budget = 0;
  bool asked = false;
  for (int s = 0; s < sizes; s++) {
    std::size_t size = needs[s].bytes;
    for (unsigned i = 0; i < kept_count_ && needs[s].count; i++)
      if (kept_[i].block.size == size && kept_[i].block.device == here) needs[s].count--;
    for (; needs[s].count; needs[s].count--) {
      // In the steady state nothing is missing, and the driver is not asked.
      std::size_t free = 0, total = 0;
      if (!asked && driver_.memory_info(&free, &total) == 0 && free > total / 8)
        budget = free / 1000 * static_cast<std::size_t>(permille);
      asked = true;
      bool room = kept_count_ < kMostKept && size <= budget &&
                  kept_bytes_ + size <= static_cast<std::size_t>(tuning.get<Key::POOL_MAX_BYTES>());
      std::uintptr_t address = 0;
      std::int64_t start = now_ns();
      if (!room || driver_.allocate(&address, size) != 0) break;
      Block block = {.key = address, .device = here, .size = size, .creation_ns = now_ns() - start};
      // New memory has no past that could still be written to.
      kept_[kept_count_++] = {.block = block, .epoch = 0, .since_ns = coarse_now_ns(), .prewarmed = true};
      kept_bytes_ += size;
      budget -= size;
    }
  }
  pthread_mutex_unlock(&lock_);
}

void DevicePool::note_gain(std::size_t bytes, std::int64_t nanoseconds) {
  gained(kPool, static_cast<std::int64_t>(bytes), nanoseconds);
  if (options.pool_always) return;
  trial_gain_ns_ += nanoseconds;
  if (++trials_ < kTrials) return;
  if (trial_gain_ns_ < 0) return disarm("keeping blocks took more time than this driver takes to make them");
  trials_ = 0;
  trial_gain_ns_ = 0;
}

}  // namespace AIRamp::Interposer
