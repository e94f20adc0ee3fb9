#include "base/numbers.hpp"

#include <complex>

#include "base/check.hpp"

namespace ai_vmm {

double decode(const MiniFloat& f, uint32_t bits) {
  uint32_t sign_bit = 1u << (f.exponent + f.mantissa);
  uint32_t e = (bits >> f.mantissa) & ((1u << f.exponent) - 1), m = bits & ((1u << f.mantissa) - 1);
  bool negative = bits & sign_bit;
  uint32_t top = (1u << f.exponent) - 1;
  if (f.nan_is_neg_zero) {
    if (negative && e == 0 && m == 0) return std::numeric_limits<double>::quiet_NaN();
  } else if (f.has_inf && e == top) {
    double v = m ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
    return negative ? -v : v;
  } else if (!f.has_inf && f.exponent > 2 && e == top && m == (1u << f.mantissa) - 1) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  double v = e ? std::ldexp(double((1u << f.mantissa) + m), int(e) - f.bias - f.mantissa)
               : std::ldexp(double(m), 1 - f.bias - f.mantissa);
  return negative ? -v : v;
}

uint32_t encode(const MiniFloat& f, double value, bool saturate) {
  const uint32_t sign_bit = 1u << (f.exponent + f.mantissa);
  const uint32_t mantissa_mask = (1u << f.mantissa) - 1, top = (1u << f.exponent) - 1;
  const bool has_nan = f.exponent > 2;
  const uint32_t nan = f.nan_is_neg_zero ? sign_bit
                       : f.has_inf       ? (top << f.mantissa) | (1u << (f.mantissa - 1))
                                         : (top << f.mantissa) | mantissa_mask;
  // The pattern of the largest finite value, without its sign.
  const uint32_t max = f.has_inf           ? (top << f.mantissa) - 1
                       : f.nan_is_neg_zero ? (top << f.mantissa) | mantissa_mask
                       : has_nan           ? ((top << f.mantissa) | mantissa_mask) - 1
                                           : (top << f.mantissa) | mantissa_mask;
  uint32_t sign = std::signbit(value) ? sign_bit : 0;
  if (std::isnan(value)) {
    if (!has_nan) return sign_bit;
    return f.nan_is_neg_zero ? nan : nan | sign;
  }
  double a = std::fabs(value);
  auto overflow = [&]() -> uint32_t {
    if (saturate || !has_nan) return sign | max;
    if (f.has_inf) return sign | (top << f.mantissa);
    return f.nan_is_neg_zero ? nan : nan | sign;
  };
  if (std::isinf(a)) return overflow();
  uint32_t body = 0;
  if (a > 0) {
    int e = std::ilogb(a);
    int unit = std::max(e, 1 - f.bias) - f.mantissa;  // exponent of one unit in the last place
    double q = std::nearbyint(std::ldexp(a, -unit));  // round to nearest even (the default mode)
    // q is an integer below 2^(mantissa+1), or equal to it after rounding up; adding it to the shifted exponent
    // carries into the exponent field by itself.
    int biased = std::max(e, 1 - f.bias) + f.bias;
    int64_t pattern = (int64_t(biased - 1) << f.mantissa) + int64_t(q);
    if (pattern > int64_t(max)) return overflow();
    body = uint32_t(pattern);
  }
  if (f.nan_is_neg_zero && body == 0) return 0;
  return sign | body;
}

uint16_t f32_to_f16(float value) {
  uint32_t u = std::bit_cast<uint32_t>(value), sign = (u >> 16) & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) return uint16_t(sign | 0x7e00);
  if (u >= 0x477ff000) return uint16_t(sign | 0x7c00);  // rounds to infinity
  if (u < 0x38800000) {                                 // subnormal or zero in half
    float a = std::bit_cast<float>(u) + 0.5f;           // aligns the unit in the last place; rounds to nearest even
    return uint16_t(sign | (std::bit_cast<uint32_t>(a) - 0x3f000000u));
  }
  u += 0xfff + ((u >> 13) & 1);
  return uint16_t(sign | ((u - 0x38000000) >> 13));
}

double decode_e8m0(uint8_t bits) {
  return bits == 255 ? std::numeric_limits<double>::quiet_NaN() : std::ldexp(1.0, int(bits) - 127);
}

uint8_t encode_e8m0(double value, bool saturate, E8M0Rounding rounding) {
  if (std::isnan(value)) return 255;
  double a = std::fabs(value);
  if (a == 0) return saturate ? 0 : 255;
  if (std::isinf(a)) return saturate ? 254 : 255;
  int e;
  double m = std::frexp(a, &e);  // a = m·2^e, m in [0.5, 1)
  int k = e - 1;                 // a = (2m)·2^k
  double fraction = 2 * m;       // [1, 2)
  if ((rounding == E8M0Rounding::up && fraction > 1) || (rounding == E8M0Rounding::nearest && fraction >= 1.5)) ++k;
  int b = k + 127;
  if (b < 0) return saturate ? 0 : 255;
  if (b > 254) return saturate ? 254 : 255;
  return uint8_t(b);
}

namespace {
template <class T>
T load(const void* p, int64_t i) {
  T v;
  std::memcpy(&v, static_cast<const char*>(p) + i * int64_t(sizeof(T)), sizeof(T));
  return v;
}
template <class T>
void store(void* p, int64_t i, T v) {
  std::memcpy(static_cast<char*>(p) + i * int64_t(sizeof(T)), &v, sizeof(T));
}
uint32_t load_packed(const void* p, int64_t i, int bits) {
  int per = 8 / bits;
  return (load<uint8_t>(p, i / per) >> (bits * int(i % per))) & ((1u << bits) - 1);
}
void store_packed(void* p, int64_t i, int bits, uint32_t v) {
  int per = 8 / bits, shift = bits * int(i % per);
  uint8_t mask = uint8_t(((1u << bits) - 1) << shift);
  uint8_t old = load<uint8_t>(p, i / per);
  store<uint8_t>(p, i / per, uint8_t((old & ~mask) | ((v << shift) & mask)));
}
// As x86 converts: what lies outside the range, and NaN, gives the least value.
int32_t to_int32(double v) {
  return v > -0x1.00000002p31 && v < 0x1p31 ? int32_t(v) : std::numeric_limits<int32_t>::min();
}
int64_t sign_extend(uint32_t v, int bits) { return int64_t(int32_t(v << (32 - bits)) >> (32 - bits)); }
}  // namespace

double read_double(DType type, const void* p, int64_t i) {
  switch (type) {
    case DType::f32: return double(load<float>(p, i));
    case DType::f64: return load<double>(p, i);
    case DType::f16: return double(f16_to_f32(load<uint16_t>(p, i)));
    case DType::bf16: return double(bf16_to_f32(load<uint16_t>(p, i)));
    case DType::f8e4m3fn: return decode(kF8E4M3FN, load<uint8_t>(p, i));
    case DType::f8e4m3fnuz: return decode(kF8E4M3FNUZ, load<uint8_t>(p, i));
    case DType::f8e5m2: return decode(kF8E5M2, load<uint8_t>(p, i));
    case DType::f8e5m2fnuz: return decode(kF8E5M2FNUZ, load<uint8_t>(p, i));
    case DType::f8e8m0: return decode_e8m0(load<uint8_t>(p, i));
    case DType::f4e2m1: return decode(kF4E2M1, load_packed(p, i, 4));
    case DType::c64: return double(load<float>(p, 2 * i));
    case DType::c128: return load<double>(p, 2 * i);
    case DType::u64: return double(load<uint64_t>(p, i));
    default: return double(read_int64(type, p, i));
  }
}

int64_t read_int64(DType type, const void* p, int64_t i) {
  switch (type) {
    case DType::u8: return load<uint8_t>(p, i);
    case DType::boolean: return load<uint8_t>(p, i) != 0;
    case DType::i8: return load<int8_t>(p, i);
    case DType::u16: return load<uint16_t>(p, i);
    case DType::i16: return load<int16_t>(p, i);
    case DType::u32: return load<uint32_t>(p, i);
    case DType::i32: return load<int32_t>(p, i);
    case DType::u64: return int64_t(load<uint64_t>(p, i));
    case DType::i64: return load<int64_t>(p, i);
    case DType::u4: return load_packed(p, i, 4);
    case DType::i4: return sign_extend(load_packed(p, i, 4), 4);
    case DType::u2: return load_packed(p, i, 2);
    case DType::i2: return sign_extend(load_packed(p, i, 2), 2);
    case DType::string:
    case DType::undefined: AI_VMM_CHECK(false, "read_int64 of a non-numeric tensor");
    default: return to_int64(read_double(type, p, i));
  }
}

void write_double(DType type, void* p, int64_t i, double v) {
  switch (type) {
    case DType::f32: return store(p, i, float(v));
    case DType::f64: return store(p, i, v);
    // By way of float they would round twice; encode rounds once.
    case DType::f16: return store(p, i, uint16_t(encode(kF16, v, false)));
    case DType::bf16: return store(p, i, uint16_t(encode(kBF16, v, false)));
    case DType::f8e4m3fn: return store(p, i, uint8_t(encode(kF8E4M3FN, v, true)));
    case DType::f8e4m3fnuz: return store(p, i, uint8_t(encode(kF8E4M3FNUZ, v, true)));
    case DType::f8e5m2: return store(p, i, uint8_t(encode(kF8E5M2, v, true)));
    case DType::f8e5m2fnuz: return store(p, i, uint8_t(encode(kF8E5M2FNUZ, v, true)));
    case DType::f8e8m0: return store(p, i, encode_e8m0(v, true, E8M0Rounding::up));
    case DType::f4e2m1: return store_packed(p, i, 4, encode(kF4E2M1, v, true));
    case DType::c64: store(p, 2 * i, float(v)); return store(p, 2 * i + 1, 0.0f);
    case DType::c128: store(p, 2 * i, v); return store(p, 2 * i + 1, 0.0);
    case DType::boolean: return store(p, i, uint8_t(v != 0));
    case DType::u32:
    case DType::i64:
    case DType::u64: return write_int64(type, p, i, to_int64(v));
    default: return write_int64(type, p, i, to_int32(v));
  }
}

void write_int64(DType type, void* p, int64_t i, int64_t v) {
  switch (type) {
    case DType::u8: return store(p, i, uint8_t(v));
    case DType::boolean: return store(p, i, uint8_t(v != 0));
    case DType::i8: return store(p, i, int8_t(v));
    case DType::u16: return store(p, i, uint16_t(v));
    case DType::i16: return store(p, i, int16_t(v));
    case DType::u32: return store(p, i, uint32_t(v));
    case DType::i32: return store(p, i, int32_t(v));
    case DType::u64: return store(p, i, uint64_t(v));
    case DType::i64: return store(p, i, v);
    case DType::u4:
    case DType::i4: return store_packed(p, i, 4, uint32_t(v));
    case DType::u2:
    case DType::i2: return store_packed(p, i, 2, uint32_t(v));
    case DType::string:
    case DType::undefined: AI_VMM_CHECK(false, "write_int64 to a non-numeric tensor");
    default: return write_double(type, p, i, double(v));
  }
}

}  // namespace ai_vmm
