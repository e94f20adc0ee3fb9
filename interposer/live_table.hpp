#pragma once

#include <cstddef>
#include <cstdint>

namespace AIRamp::Interposer {

// What is known of a driver's objects that the program has, by their address. Of fixed size, in the library's own
// memory; the caller holds a lock. An Entry has a member `key`, an address, 0 in empty places.
template <class Entry, unsigned kPlaces>
class LiveTable {
  static_assert((kPlaces & (kPlaces - 1)) == 0);

 public:
  // nullptr if the object is not known.
  Entry* find(std::uintptr_t key) {
    Entry* place = place_of(key);
    return place->key ? place : nullptr;
  }

  // Replaces what was known under the address. When the table is half full, nothing more is: false.
  bool add(const Entry& entry) {
    Entry* place = place_of(entry.key);
    if (!place->key) {
      if (count_ >= kPlaces / 2) return false;
      count_++;
    }
    *place = entry;
    return true;
  }

  void remove(Entry* entry) {
    auto i = static_cast<unsigned>(entry - places_);
    places_[i].key = 0;
    count_--;
    // Entries behind move up so that no search stops before them.
    for (unsigned j = (i + 1) % kPlaces; places_[j].key; j = (j + 1) % kPlaces) {
      if ((j - home(places_[j].key)) % kPlaces < (j - i) % kPlaces) continue;
      places_[i] = places_[j];
      places_[j].key = 0;
      i = j;
    }
  }

 private:
  static unsigned home(std::uintptr_t key) {
    return static_cast<unsigned>((key * 0x9e3779b97f4a7c15u) >> 40) % kPlaces;
  }

  // The entry, or the empty place where it would be.
  Entry* place_of(std::uintptr_t key) {
    unsigned i = home(key);
    while (places_[i].key && places_[i].key != key) i = (i + 1) % kPlaces;
    return &places_[i];
  }

  Entry places_[kPlaces] = {};
  unsigned count_ = 0;
};

}  // namespace AIRamp::Interposer
