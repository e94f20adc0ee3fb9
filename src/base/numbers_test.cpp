#include "base/numbers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace ai_vmm {
namespace {

const double kInf = std::numeric_limits<double>::infinity(), kNaN = std::numeric_limits<double>::quiet_NaN();

// A format as its specification lists it.
struct Facts {
  const char* name;
  MiniFloat format;
  int bits;
  double least, greatest;  // positive finite values
  int finite;              // patterns with the sign bit clear that are finite
};
const Facts kFormats[] = {
    {"f16", kF16, 16, 0x1p-24, 65504, 0x7c00},
    {"bf16", kBF16, 16, 0x1p-133, 0x1.fep127, 0x7f80},
    {"f8e4m3fn", kF8E4M3FN, 8, 0x1p-9, 448, 127},
    {"f8e4m3fnuz", kF8E4M3FNUZ, 8, 0x1p-10, 240, 128},
    {"f8e5m2", kF8E5M2, 8, 0x1p-16, 57344, 124},
    {"f8e5m2fnuz", kF8E5M2FNUZ, 8, 0x1p-17, 57344, 128},
    {"f4e2m1", kF4E2M1, 4, 0.5, 6, 8},
};

class MiniFloats : public ::testing::TestWithParam<Facts> {
 protected:
  const Facts& f = GetParam();
  uint32_t sign = 1u << (f.bits - 1);
  bool uz = f.format.nan_is_neg_zero;
};
INSTANTIATE_TEST_SUITE_P(All, MiniFloats, ::testing::ValuesIn(kFormats),
                         [](const auto& i) { return std::string(i.param.name); });

// Values rise with their patterns from 0 to `greatest`, in steps of `least` that double with every binade.
TEST_P(MiniFloats, DecodeEveryPattern) {
  EXPECT_EQ(decode(f.format, 0), 0);
  EXPECT_EQ(decode(f.format, 1), f.least);
  EXPECT_EQ(decode(f.format, uint32_t(f.finite - 1)), f.greatest);
  for (uint32_t p = 1; p < uint32_t(f.finite); ++p) {
    int binade = std::max(int((p - 1) >> f.format.mantissa), 1) - 1;  // subnormals step like the first binade
    EXPECT_EQ(decode(f.format, p) - decode(f.format, p - 1), std::ldexp(f.least, binade)) << p;
  }
  for (uint32_t p = uz ? 1 : 0; p < uint32_t(f.finite); ++p) {
    EXPECT_EQ(decode(f.format, p | sign), -decode(f.format, p)) << p;
    EXPECT_TRUE(std::signbit(decode(f.format, p | sign))) << p;
  }
  for (uint32_t p = uint32_t(f.finite); p < sign; ++p) {
    bool infinite = f.format.has_inf && p == uint32_t(f.finite);
    EXPECT_EQ(std::isinf(decode(f.format, p)), infinite) << p;
    EXPECT_EQ(std::isnan(decode(f.format, p)), !infinite) << p;
  }
  EXPECT_EQ(std::isnan(decode(f.format, sign)), uz);
}

TEST_P(MiniFloats, EncodeIsTheInverseOfDecode) {
  for (uint32_t p = 0; p < uint32_t(f.finite); ++p)
    for (bool saturate : {false, true}) {
      EXPECT_EQ(encode(f.format, decode(f.format, p), saturate), p);
      uint32_t negative = p || !uz ? p | sign : 0;
      EXPECT_EQ(encode(f.format, -decode(f.format, p), saturate), negative);
    }
  EXPECT_EQ(encode(f.format, -0.0, true), uz ? 0 : sign);
}

// Midpoints go to the even pattern, everything else to the nearer neighbour.
TEST_P(MiniFloats, EncodeRoundsToNearestEven) {
  for (uint32_t p = 0; p + 1 < uint32_t(f.finite); ++p) {
    double low = decode(f.format, p), high = decode(f.format, p + 1), middle = (low + high) / 2;
    EXPECT_EQ(encode(f.format, middle, false), p % 2 ? p + 1 : p) << p;
    EXPECT_EQ(encode(f.format, std::nextafter(middle, low), false), p) << p;
    EXPECT_EQ(encode(f.format, std::nextafter(middle, high), false), p + 1) << p;
    uint32_t even = p % 2 ? p + 1 : p;
    EXPECT_EQ(encode(f.format, -middle, false), uz && !even ? 0 : even | sign) << p;
  }
}

// The value half a step above the greatest is the first that overflows, where the greatest pattern is odd.
TEST_P(MiniFloats, EncodeOverflow) {
  uint32_t top = uint32_t(f.finite - 1);
  double step = f.greatest - decode(f.format, top - 1), edge = f.greatest + step / 2;
  double beyond = top % 2 ? edge : std::nextafter(edge, kInf);
  bool has_nan = f.format.exponent > 2;
  uint32_t out = f.format.has_inf ? top + 1 : !has_nan ? top : uz ? sign : top + 1;
  uint32_t out_negative = !has_nan || !uz ? out | sign : sign;
  EXPECT_EQ(encode(f.format, std::nextafter(edge, 0), false), top);
  for (double v : {beyond, f.greatest * 4, 1e300, kInf}) {
    EXPECT_EQ(encode(f.format, v, true), top) << v;
    EXPECT_EQ(encode(f.format, -v, true), top | sign) << v;
    EXPECT_EQ(encode(f.format, v, false), out) << v;
    EXPECT_EQ(encode(f.format, -v, false), out_negative) << v;
  }
}

TEST_P(MiniFloats, EncodeNaN) {
  if (f.format.exponent > 2) {
    for (double v : {kNaN, -kNaN})
      for (bool saturate : {false, true}) EXPECT_TRUE(std::isnan(decode(f.format, encode(f.format, v, saturate))));
  } else {
    EXPECT_EQ(encode(f.format, kNaN, true), sign);
  }
}

TEST(Numbers, F16FastPathsEqualTheGeneralOnes) {
  for (uint32_t p = 0; p < 0x10000; ++p) {
    uint16_t h = uint16_t(p);
    double slow = decode(kF16, p);
    float fast = f16_to_f32(h);
    if (std::isnan(slow)) {
      EXPECT_TRUE(std::isnan(fast)) << p;
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(fast)))) << p;
      continue;
    }
    EXPECT_EQ(double(fast), slow) << p;
    EXPECT_EQ(std::signbit(fast), std::signbit(slow)) << p;
    EXPECT_EQ(f32_to_f16(fast), h) << p;
    if ((p & 0x7fff) >= 0x7c00) continue;
    // The midpoint to the next half is a float; so are its neighbours.
    float next = (p & 0x7fff) == 0x7bff ? 65536.0f : std::fabs(f16_to_f32(uint16_t((p & 0x7fff) + 1)));
    float middle = std::copysign((std::fabs(fast) + next) / 2, fast);
    for (float v : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, middle * 2)})
      EXPECT_EQ(f32_to_f16(v), encode(kF16, double(v), false)) << v;
  }
  for (float v : {1e-30f, -1e-30f, 1e30f, -1e30f, 65519.996f, 65520.0f, 0x1p-25f, 0x1.000002p-25f})
    EXPECT_EQ(f32_to_f16(v), encode(kF16, double(v), false)) << v;
}

TEST(Numbers, BF16FastPathsEqualTheGeneralOnes) {
  for (uint32_t p = 0; p < 0x10000; ++p) {
    float v = bf16_to_f32(uint16_t(p));
    double slow = decode(kBF16, p);
    if (std::isnan(slow)) {
      EXPECT_TRUE(std::isnan(v)) << p;
      EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(v)))) << p;
      continue;
    }
    EXPECT_EQ(double(v), slow) << p;
    EXPECT_EQ(f32_to_bf16(v), uint16_t(p));
    if ((p & 0x7fff) >= 0x7f80) continue;
    for (uint32_t low : {0x7fffu, 0x8000u, 0x8001u}) {
      float between = std::bit_cast<float>((p << 16) | low);
      EXPECT_EQ(f32_to_bf16(between), encode(kBF16, double(between), false)) << between;
    }
  }
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));  // a NaN with low bits only
}

// A double between two floats that straddle a half-way point must not be rounded twice.
TEST(Numbers, DoublesAreRoundedOnce) {
  uint16_t h, b;
  write_double(DType::f16, &h, 0, 1 + 0x1p-11 + 0x1p-40);
  EXPECT_EQ(f16_to_f32(h), 1 + 0x1p-10f);
  write_double(DType::bf16, &b, 0, 1 + 0x1p-8 + 0x1p-40);
  EXPECT_EQ(bf16_to_f32(b), 1 + 0x1p-7f);
}

TEST(Numbers, E8M0IsPowersOfTwo) {
  for (int p = 0; p < 255; ++p) {
    double v = std::ldexp(1.0, p - 127);
    EXPECT_EQ(decode_e8m0(uint8_t(p)), v);
    for (auto mode : {E8M0Rounding::up, E8M0Rounding::down, E8M0Rounding::nearest})
      for (bool saturate : {false, true}) EXPECT_EQ(encode_e8m0(v, saturate, mode), p);
    uint8_t above = uint8_t(std::min(p + 1, 254));
    EXPECT_EQ(encode_e8m0(v * 1.25, true, E8M0Rounding::up), above);
    EXPECT_EQ(encode_e8m0(v * 1.25, true, E8M0Rounding::down), p);
    EXPECT_EQ(encode_e8m0(v * 1.25, true, E8M0Rounding::nearest), p);
    EXPECT_EQ(encode_e8m0(v * 1.5, true, E8M0Rounding::nearest), above);
  }
  EXPECT_TRUE(std::isnan(decode_e8m0(255)));
  for (auto mode : {E8M0Rounding::up, E8M0Rounding::nearest}) {
    EXPECT_EQ(encode_e8m0(kNaN, true, mode), 255);
    EXPECT_EQ(encode_e8m0(kInf, true, mode), 254);
    EXPECT_EQ(encode_e8m0(kInf, false, mode), 255);
    EXPECT_EQ(encode_e8m0(0x1p200, true, mode), 254);
    EXPECT_EQ(encode_e8m0(0x1p200, false, mode), 255);
    EXPECT_EQ(encode_e8m0(0, true, mode), 0);
    EXPECT_EQ(encode_e8m0(0, false, mode), 255);
    EXPECT_EQ(encode_e8m0(0x1p-200, true, mode), 0);
    EXPECT_EQ(encode_e8m0(0x1p-200, false, mode), 255);
  }
}

TEST(Numbers, FloatsBecomeIntegersWithoutTraps) {
  EXPECT_EQ(to_int64(2.9), 2);
  EXPECT_EQ(to_int64(-2.9), -2);
  EXPECT_EQ(to_int64(kNaN), INT64_MIN);
  EXPECT_EQ(to_int64(kInf), INT64_MIN);
  EXPECT_EQ(to_int64(-kInf), INT64_MIN);
  EXPECT_EQ(to_int64(-0x1p63), INT64_MIN);
  EXPECT_EQ(uint64_t(to_int64(0x1.8p63)), 0xc000000000000000u);
  int32_t i;
  auto written = [&](double v) { return write_double(DType::i32, &i, 0, v), i; };
  EXPECT_EQ(written(-2147483648.9), INT32_MIN);
  EXPECT_EQ(written(2147483647.9), INT32_MAX);
  for (double v : {kNaN, kInf, -kInf, 0x1p31, -0x1p31 - 1}) EXPECT_EQ(written(v), INT32_MIN) << v;
}

// Every type holds its own values, at every position of a packed byte, and leaves the neighbours alone.
TEST(Numbers, ElementsAreWrittenAndReadInPlace) {
  std::mt19937_64 random(7);
  for (int type = 1; type < kDTypeCount; ++type) {
    DType t = DType(type);
    if (t == DType::string || is_complex(t)) continue;
    int width = bits(t);
    constexpr int64_t kCount = 37;
    std::vector<uint8_t> bytes(size_t(kCount * 8), 0);
    std::vector<int64_t> expected(kCount, 0);
    if (t == DType::f8e8m0) std::fill(expected.begin(), expected.end(), 1), std::fill(bytes.begin(), bytes.end(), 127);
    for (int round = 0; round < 400; ++round) {
      int64_t i = int64_t(random() % kCount), v;
      if (t == DType::boolean)
        v = int64_t(random() % 2);
      else if (t == DType::f8e8m0)
        v = int64_t(1) << (random() % 7);
      else if (is_float(t))
        v = int64_t(random() % 5);  // exact in every float kind
      else if (is_signed_integer(t))
        v = int64_t(random()) >> (64 - width);
      else
        v = int64_t(random() >> (64 - width));
      if (round % 2 && (is_float(t) || width < 53))
        write_double(t, bytes.data(), i, double(v));
      else
        write_int64(t, bytes.data(), i, v);
      expected[size_t(i)] = v;
      for (int64_t k = 0; k < kCount; ++k) {
        ASSERT_EQ(read_int64(t, bytes.data(), k), expected[size_t(k)]) << name(t) << " " << k;
        double wide = t == DType::u64 ? double(uint64_t(expected[size_t(k)])) : double(expected[size_t(k)]);
        ASSERT_EQ(read_double(t, bytes.data(), k), wide) << name(t) << " " << k;
      }
    }
  }
}

TEST(Numbers, NarrowIntegersKeepLowBits) {
  uint8_t b[8] = {};
  write_int64(DType::i8, b, 0, 200);
  EXPECT_EQ(read_int64(DType::i8, b, 0), -56);
  write_int64(DType::u4, b, 1, 0x1f);
  EXPECT_EQ(read_int64(DType::u4, b, 1), 15);
  write_int64(DType::i2, b, 3, 2);
  EXPECT_EQ(read_int64(DType::i2, b, 3), -2);
}

}  // namespace
}  // namespace ai_vmm
