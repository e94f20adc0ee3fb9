// Conversions between float/double and the narrow float kinds. All round to nearest even and treat NaN and infinity as
// the ONNX specification of Cast says. Integer casts that would trap or be undefined in C++ are defined here.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

inline float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }

inline uint16_t f32_to_bf16(float value) {
  uint32_t u = std::bit_cast<uint32_t>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return uint16_t((u >> 16) | 0x40);  // NaN stays NaN
  u += 0x7fffu + ((u >> 16) & 1);
  return uint16_t(u >> 16);
}

// A float format of at most 16 bits: sign, `exponent` bits, `mantissa` bits.
struct MiniFloat {
  int exponent, mantissa, bias;
  bool has_inf;          // IEEE style: the top exponent is infinity and NaN
  bool nan_is_neg_zero;  // the "uz" kinds: one NaN, at the pattern of -0; no -0
};
inline constexpr MiniFloat kF16{5, 10, 15, true, false};
inline constexpr MiniFloat kBF16{8, 7, 127, true, false};
inline constexpr MiniFloat kF8E4M3FN{4, 3, 7, false, false};
inline constexpr MiniFloat kF8E4M3FNUZ{4, 3, 8, false, true};
inline constexpr MiniFloat kF8E5M2{5, 2, 15, true, false};
inline constexpr MiniFloat kF8E5M2FNUZ{5, 2, 16, false, true};
inline constexpr MiniFloat kF4E2M1{2, 1, 1, false, false};  // has no NaN: NaN becomes -0, as in the ONNX cases of Cast

double decode(const MiniFloat& format, uint32_t bits);
// `saturate`: out-of-range values become the largest finite one, otherwise infinity or NaN as the format has them.
uint32_t encode(const MiniFloat& format, double value, bool saturate);

inline float f16_to_f32(uint16_t h) {
  uint32_t sign = uint32_t(h & 0x8000) << 16, body = h & 0x7fff;
  if (body >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000u | (uint32_t(body & 0x3ff) << 13));
  if (body >= 0x0400) return std::bit_cast<float>(sign | ((body + 0x1c000u) << 13));
  float f = float(body) * 0x1p-24f;
  return sign ? -f : f;
}
uint16_t f32_to_f16(float value);

double decode_e8m0(uint8_t bits);  // 2^(bits-127); 255 is NaN
enum class E8M0Rounding { up, down, nearest };
// The power of two near |value|. Zero, and what lies outside the range, is held at its edge with `saturate`, else NaN.
uint8_t encode_e8m0(double value, bool saturate, E8M0Rounding rounding);

// float → integer as a C cast where that is defined. Values in [2^63, 2^64) keep the bits of the unsigned integer; NaN
// and everything else outside the range give the least int64, as x86 does.
inline int64_t to_int64(double v) {
  if (!(v == v)) return std::numeric_limits<int64_t>::min();
  if (v >= 0x1p63) return v < 0x1p64 ? int64_t(uint64_t(v)) : std::numeric_limits<int64_t>::min();
  if (v < -0x1p63) return std::numeric_limits<int64_t>::min();
  return int64_t(v);
}

// One element of a packed or plain numeric tensor, as a double / int64. `data` is the tensor's storage.
double read_double(DType type, const void* data, int64_t index);
int64_t read_int64(DType type, const void* data, int64_t index);  // u64 keeps its bits; floats are truncated
// Narrowing keeps the low bits for integers; float kinds round to nearest even; f8 and f4 saturate.
void write_double(DType type, void* data, int64_t index, double value);
void write_int64(DType type, void* data, int64_t index, int64_t value);

}  // namespace ai_vmm
