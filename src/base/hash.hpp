// A fast 64-bit hash of bytes: finds accidental change and names things by content. Not cryptographic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace ai_vmm {

namespace detail {
inline uint64_t fold(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  Wide w = Wide(a) * b;
  return uint64_t(w) ^ uint64_t(w >> 64);
}
}  // namespace detail

// Four lanes of multiply-and-fold, so that it runs at memory speed; the same on every machine of one byte order.
inline uint64_t hash_bytes(std::span<const std::byte> bytes, uint64_t seed = 0) {
  constexpr uint64_t kOdd[] = {0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9, 0xd6e8feb86659fd93};
  uint64_t lane[4] = {seed ^ kOdd[3], seed ^ kOdd[2], seed ^ kOdd[1], seed ^ kOdd[0]};
  const std::byte* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= 32; p += 32, left -= 32)
    for (int i = 0; i < 4; ++i) {
      uint64_t word;
      std::memcpy(&word, p + 8 * i, 8);
      // Adding the word keeps its bits when a lane meets a multiple that folds to zero.
      lane[i] = detail::fold(lane[i] ^ word, kOdd[i]) + word;
    }
  uint64_t tail[4] = {};
  if (left) std::memcpy(tail, p, left);
  uint64_t h = bytes.size() ^ kOdd[0];
  for (int i = 0; i < 4; ++i) h = detail::fold(h ^ lane[i] ^ detail::fold(tail[i] + 1, kOdd[i]), kOdd[i]) + lane[i];
  return h ^ (h >> 29);
}

}  // namespace ai_vmm
