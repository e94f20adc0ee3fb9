#include "bf16.hpp"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
// gcc 12 takes the undefined operands of its own intrinsics for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace AIRamp::Interposer::bf16 {
namespace {

namespace generic {

void pack_bf16_v4(const float* from, std::uint16_t* to, std::size_t count) {
  for (std::size_t i = 0; i < count; i++) {
    std::uint32_t bits;
    std::memcpy(&bits, from + i, sizeof bits);
    to[i] = round(bits);
  }
}

void unpack_bf16_v4(const std::uint16_t* from, float* to, std::size_t count) {
  for (std::size_t i = 0; i < count; i++) {
    std::uint32_t bits = static_cast<std::uint32_t>(from[i]) << 16;
    std::memcpy(to + i, &bits, sizeof bits);
  }
}

void add_bf16_v4(const std::uint16_t* from, float* to, std::size_t count) {
  for (std::size_t i = 0; i < count; i++) {
    std::uint32_t bits = static_cast<std::uint32_t>(from[i]) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof bits);
    to[i] += value;
  }
}

constexpr Kernels kKernels = {"generic", pack_bf16_v4, unpack_bf16_v4, add_bf16_v4};

}  // namespace generic

#if defined(__x86_64__)

// The processor's own vcvtneps2bf16 flushes subnormals, so that rounding is done in integers everywhere.
namespace avx2 {

#define AIRAMP_TARGET __attribute__((target("avx2")))

AIRAMP_TARGET inline __m256i rounded(__m256i bits) {
  __m256i upper = _mm256_srli_epi32(bits, 16);
  __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
  __m256i number = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
  __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
  __m256i is_nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
  return _mm256_blendv_epi8(number, _mm256_or_si256(upper, _mm256_set1_epi32(0x40)), is_nan);
}

AIRAMP_TARGET void pack_bf16_v4(const float* from, std::uint16_t* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    __m256i low = rounded(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
    __m256i high = rounded(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i + 8)));
    // Packing works on 128-bit halves, which are then put in order.
    __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), both);
  }
  generic::pack_bf16_v4(from + i, to + i, count - i);
}

AIRAMP_TARGET inline __m256 widened(const std::uint16_t* from) {
  __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

AIRAMP_TARGET void unpack_bf16_v4(const std::uint16_t* from, float* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(to + i, widened(from + i));
  generic::unpack_bf16_v4(from + i, to + i, count - i);
}

AIRAMP_TARGET void add_bf16_v4(const std::uint16_t* from, float* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(to + i, _mm256_add_ps(_mm256_loadu_ps(to + i), widened(from + i)));
  generic::add_bf16_v4(from + i, to + i, count - i);
}

constexpr Kernels kKernels = {"avx2", pack_bf16_v4, unpack_bf16_v4, add_bf16_v4};

#undef AIRAMP_TARGET

}  // namespace avx2

namespace avx512 {

#define AIRAMP_TARGET __attribute__((target("avx512f,avx512bw,avx512vl")))

AIRAMP_TARGET inline __m256i rounded(__m512i bits) {
  __m512i upper = _mm512_srli_epi32(bits, 16);
  __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
  __m512i number = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
  __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
  __mmask16 is_nan = _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7f800000));
  return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(number, is_nan, upper, _mm512_set1_epi32(0x40)));
}

AIRAMP_TARGET void pack_bf16_v4(const float* from, std::uint16_t* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    __m256i low = rounded(_mm512_loadu_si512(from + i));
    __m256i high = rounded(_mm512_loadu_si512(from + i + 16));
    _mm512_storeu_si512(to + i, _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
  }
  generic::pack_bf16_v4(from + i, to + i, count - i);
}

AIRAMP_TARGET inline __m512 widened(const std::uint16_t* from) {
  __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

AIRAMP_TARGET void unpack_bf16_v4(const std::uint16_t* from, float* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16) _mm512_storeu_ps(to + i, widened(from + i));
  generic::unpack_bf16_v4(from + i, to + i, count - i);
}

AIRAMP_TARGET void add_bf16_v4(const std::uint16_t* from, float* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16) _mm512_storeu_ps(to + i, _mm512_add_ps(_mm512_loadu_ps(to + i), widened(from + i)));
  generic::add_bf16_v4(from + i, to + i, count - i);
}

constexpr Kernels kKernels = {"avx512", pack_bf16_v4, unpack_bf16_v4, add_bf16_v4};

#undef AIRAMP_TARGET

}  // namespace avx512

#endif

}  // namespace

const Kernels* kernels_for(const char* isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (std::strcmp(isa, "avx512") == 0 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return &avx512::kKernels;
  if (std::strcmp(isa, "avx2") == 0 && __builtin_cpu_supports("avx2")) return &avx2::kKernels;
#endif
  return std::strcmp(isa, "generic") == 0 ? &generic::kKernels : nullptr;
}

const Kernels& kernels() {
  static const Kernels* best = nullptr;
  if (!best) {
    best = kernels_for("avx512");
    if (!best) best = kernels_for("avx2");
    if (!best) best = kernels_for("generic");
  }
  return *best;
}

}  // namespace AIRamp::Interposer::bf16
