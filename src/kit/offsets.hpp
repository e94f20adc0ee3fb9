// Offset assignment: where in one arena each buffer lies, so that buffers alive at the same time do not overlap.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace ai_vmm {

struct Lifetime {
  int32_t first, last;  // steps, both included
  int64_t bytes;
};

struct Offsets {
  std::vector<int64_t> at;  // one a buffer, multiples of `alignment`
  int64_t total = 0;        // bytes of the arena
};

// Greedy by several orders (size, area, duration, start), best fit; where that needs more than is alive at once, a
// short search for better. Zero-byte buffers get 0.
Offsets assign_offsets(std::span<const Lifetime> buffers, int64_t alignment = 64);

// An assignment within `capacity` bytes, or none: there is none, or none was found in that many steps of the search.
std::optional<Offsets> fit_offsets(std::span<const Lifetime> buffers, int64_t capacity, int64_t steps,
                                   int64_t alignment = 64);

}  // namespace ai_vmm
