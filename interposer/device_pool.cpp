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

// Programs load them when they like.
void DevicePool::look_for_other_allocators() {
  bool found = false;
  dl_iterate_phdr(find_caching_allocator, &found);
  if (found && !disarmed_) disarm("the program has an allocator that keeps device memory itself");
}

bool DevicePool::armed() {
  if (!looked_) {
    looked_ = true;
    if (!driver_.complete()) disarm("the driver lacks functions that the pool needs");
    look_for_other_allocators();
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

void DevicePool::forget_device(std::uintptr_t device) {
  trim_all();
  pthread_mutex_lock(&lock_);
  device ? quarantine_.forget(device) : quarantine_.forget_all();
  pthread_mutex_unlock(&lock_);
}

// Other threads may be recording events: they end before the capture begins.
void DevicePool::begin_capture() {
  pthread_mutex_lock(&lock_);
  captures_++;
  pthread_mutex_unlock(&lock_);
  if (options.pool) trim_all();
}

void DevicePool::add_stream(void* stream) {
  pthread_mutex_lock(&lock_);
  quarantine_.add_stream(stream);
  pthread_mutex_unlock(&lock_);
}

// An event in a stream that is being captured would become a part of the graph.
void DevicePool::remove_stream(void* stream) {
  pthread_mutex_lock(&lock_);
  captures_.load() > 0 ? quarantine_.doubt() : quarantine_.remove_stream(stream);
  pthread_mutex_unlock(&lock_);
}

void DevicePool::doubt_streams() {
  pthread_mutex_lock(&lock_);
  quarantine_.doubt();
  pthread_mutex_unlock(&lock_);
}

// What nobody has wanted for long goes; everything does when others need the device's memory.
void DevicePool::trim_old(std::int64_t now) {
  std::int64_t ttl = tuning.get<Key::POOL_TTL_MS>() * 1000000;
  if (now - trimmed_ns_ < ttl / 8) return;
  trimmed_ns_ = now;
  for (unsigned i = kept_count_; i-- > 0;)
    if (now - kept_[i].since_ns > life_.keep_ns(kept_[i].block.size, ttl)) give_back(i);
  look_for_other_allocators();
  std::size_t free = 0, total = 0;
  if (kept_count_ && driver_.memory_info(&free, &total) == 0 && free < total / 16)
    while (kept_count_) give_back(kept_count_ - 1);
}

std::size_t DevicePool::whole_of(std::uintptr_t address) const {
  std::uintptr_t base = 0;
  std::size_t whole = 0;
  return driver_.allocation_of(address, &base, &whole) && base == address ? whole : 0;
}

void DevicePool::note(std::uintptr_t address, std::uintptr_t device, std::size_t size, std::int64_t creation_ns) {
  std::size_t whole = whole_of(address);
  if (whole < size) return;
  pthread_mutex_lock(&lock_);
  live_.add({.key = address, .device = device, .size = size, .whole = whole, .creation_ns = creation_ns});
  pthread_mutex_unlock(&lock_);
}

void DevicePool::exclude(std::uintptr_t address) {
  if (!options.pool) return;
  std::size_t size = 0;
  driver_.allocation_of(address, &address, &size);
  pthread_mutex_lock(&lock_);
  if (Block* block = live_.find(address)) live_.remove(block);
  pthread_mutex_unlock(&lock_);
}

std::uint64_t DevicePool::before_synchronise() {
  pthread_mutex_lock(&lock_);
  std::uint64_t now = quarantine_.now();
  pthread_mutex_unlock(&lock_);
  return now;
}

void DevicePool::after_synchronise(std::uint64_t before) {
  pthread_mutex_lock(&lock_);
  quarantine_.synchronised(driver_.here(), before);
  pthread_mutex_unlock(&lock_);
}

bool DevicePool::take(std::uintptr_t device, std::size_t size, std::uintptr_t* address) {
  bool timed = takes_++ % kTimed == 0;
  std::int64_t start = timed ? now_ns() : 0, coarse = coarse_now_ns();
  trim_old(coarse);
  life_.observe({coarse, size, ObsKind::allocate});
  unsigned found = kept_count_;
  bool waits = false;
  for (unsigned i = kept_count_; i-- > 0 && found == kept_count_;) {
    if (kept_[i].block.size != size || kept_[i].block.device != device) continue;
    if (quarantine_.passed(device, kept_[i].stamp)) found = i;
    waits = true;
  }
  if (found == kept_count_ && waits && !quarantine_.certain()) {
    std::uint64_t now = quarantine_.now();
    if (driver_.synchronise() != 0) return false;
    quarantine_.synchronised(device, now);
    for (unsigned i = kept_count_; i-- > 0 && found == kept_count_;)
      if (kept_[i].block.size == size && kept_[i].block.device == device) found = i;
  }
  if (found == kept_count_) {
    if (waits) passed(driver_.allocate_call, "blocks of this size are there, but may still be in use");
    return false;
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
  // It may have gone by another way, and what is there now may be another's: a smaller one.
  if (whole_of(address) != block.whole) return false;
  bool timed = keeps_++ % kTimed == 0;
  std::int64_t start = timed ? now_ns() : 0;
  bool here = driver_.here() == block.device;
  bool waits =
      options.free_sync == FreeSync::kDriver || (options.free_sync == FreeSync::kDocumented && driver_.free_waits);
  if (waits && (!here || driver_.synchronise() != 0)) return false;
  std::uint64_t stamp = quarantine_.stamp();
  kept_[kept_count_++] = {.block = block, .stamp = stamp, .since_ns = now, .prewarmed = false};
  kept_bytes_ += block.size;
  if (waits) {
    quarantine_.synchronised(block.device, stamp);
  } else if (here) {
    quarantine_.seal(block.device);
  }
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
      if (!room) break;
      if (driver_.allocate(&address, size) != 0) {
        driver_.forget_error();
        break;
      }
      Block block = {
          .key = address, .device = here, .size = size, .whole = whole_of(address), .creation_ns = now_ns() - start};
      // New memory has no past that could still be written to.
      kept_[kept_count_++] = {.block = block, .stamp = 0, .since_ns = coarse_now_ns(), .prewarmed = true};
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
