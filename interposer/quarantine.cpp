#include "quarantine.hpp"

namespace AIRamp::Interposer {

Quarantine::Device* Quarantine::device_of(std::uintptr_t key, bool add) {
  if (!key) return nullptr;
  Device* free = nullptr;
  for (Device& d : devices_) {
    if (d.key == key) return &d;
    if (!d.key && !free) free = &d;
  }
  if (!add || !free) return nullptr;
  free->key = key;
  return free;
}

void Quarantine::add_stream(void* stream) {
  Device* d = device_of(driver_.here(), true);
  if (!d || d->stream_count == kMostStreams) return doubt();
  d->streams[d->stream_count++] = stream;
}

void Quarantine::remove_stream(void* stream) {
  for (Device& d : devices_)
    for (unsigned i = 0; i < d.stream_count; i++) {
      if (d.streams[i] != stream) continue;
      d.streams[i] = d.streams[--d.stream_count];
      void* event = nullptr;
      if (d.gone_count == kMostGone) ended(&d);
      if (d.gone_count == kMostGone || driver_.make_event(&event) != 0) return doubt();
      if (driver_.record(event, stream) != 0) {
        driver_.drop_event(event);
        return doubt();
      }
      d.gone[d.gone_count++] = event;
      return;
    }
}

void Quarantine::forget(std::uintptr_t device) {
  if (Device* d = device_of(device, false)) *d = {};
}

void Quarantine::forget_all() {
  for (Device& d : devices_) d = {};
  doubt();
}

// Whether all that is waited for has ended. An error is the program's to hear of, from its own calls: what is told by a
// driver in that state proves nothing, and the device is synchronised instead.
bool Quarantine::ended(Device* d) {
  while (d->gone_count) {
    int code = driver_.query(d->gone[d->gone_count - 1]);
    if (code == driver_.not_ready) return false;
    if (code != 0) return doubt(), false;
    driver_.drop_event(d->gone[--d->gone_count]);
  }
  while (d->waiting) {
    int code = driver_.query(d->events[d->waiting - 1]);
    if (code == driver_.not_ready) return false;
    if (code != 0) return doubt(), false;
    d->waiting--;
  }
  return true;
}

void Quarantine::seal(std::uintptr_t device) {
  Device* d = device_of(device, true);
  if (!d) return doubt();
  if (!certain_ || d->sealed == now_) return;
  if (!ended(d)) return;
  if (d->sealed > d->safe) d->safe = d->sealed;
  for (unsigned i = 0; i <= d->stream_count; i++) {
    if (!d->events[i] && driver_.make_event(&d->events[i]) != 0) return doubt();
    if (driver_.record(d->events[i], i ? d->streams[i - 1] : kLegacyStream) != 0) return doubt();
  }
  d->waiting = d->stream_count + 1;
  d->sealed = now_;
}

bool Quarantine::passed(std::uintptr_t device, std::uint64_t stamp) {
  Device* d = device_of(device, true);
  if (!d) return doubt(), false;
  if (stamp <= d->safe) return true;
  if (!certain_) return false;
  // At most twice: the events under way may belong to earlier frees only.
  for (int round = 0; round < 2 && stamp > d->safe; round++) {
    seal(device);
    if (!certain_ || !ended(d)) return false;
    d->safe = d->sealed;
  }
  return stamp <= d->safe;
}

void Quarantine::synchronised(std::uintptr_t device, std::uint64_t stamp) {
  Device* d = device_of(device, true);
  if (d && stamp > d->safe) d->safe = stamp;
}

}  // namespace AIRamp::Interposer
