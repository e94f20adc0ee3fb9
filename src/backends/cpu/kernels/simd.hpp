// Vectors of floats for the kernels. Every kernels/*.cpp is compiled once per instruction set, in a namespace of its
// own (AI_VMM_ISA), so nothing from these files may be inline in a shared namespace, and no standard container is used:
// the linker could keep the copy that needs the newest instructions.
#pragma once

#include <stdint.h>

#if defined(__AVX512F__)
#define AI_VMM_LANES 16
#elif defined(__AVX2__)
#define AI_VMM_LANES 8
#else
#define AI_VMM_LANES 4
#endif

namespace ai_vmm::cpu::AI_VMM_ISA {
namespace {

constexpr int kLanes = AI_VMM_LANES;
typedef float vf __attribute__((vector_size(4 * AI_VMM_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * AI_VMM_LANES)));

inline vf load(const float* p) {
  vf v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
inline vf load_part(const float* p, int64_t n) {  // n < kLanes; the rest is 0
  vf v = {};
  __builtin_memcpy(&v, p, size_t(n) * 4);
  return v;
}
inline void store_part(float* p, vf v, int64_t n) { __builtin_memcpy(p, &v, size_t(n) * 4); }
inline vf splat(float x) { return x - vf{}; }
inline vi as_int(vf v) { return (vi)v; }
inline vf as_float(vi v) { return (vf)v; }
inline vf max(vf a, vf b) { return a > b ? a : b; }
inline vf min(vf a, vf b) { return a < b ? a : b; }
// The same, but NaN in `a` stays.
inline vf clamp_low(vf a, vf low) { return a < low ? low : a; }
inline vf clamp_high(vf a, vf high) { return a > high ? high : a; }
inline vf abs(vf a) { return as_float(as_int(a) & 0x7fffffff); }
inline vf copysign(vf magnitude, vf sign) {
  return as_float((as_int(magnitude) & 0x7fffffff) | (as_int(sign) & vi(as_int(splat(-0.0f)))));
}
// x - round(x) is exact for |x| < 2^22.
inline vf round_small(vf x) {
  vf magic = splat(12582912.0f);
  return (x + magic) - magic;
}
inline float sum(vf v) {
  float s[kLanes];
  __builtin_memcpy(s, &v, sizeof v);
  for (int w = kLanes / 2; w > 0; w /= 2)
    for (int i = 0; i < w; ++i) s[i] += s[i + w];
  return s[0];
}
inline float maximum(vf v) {
  float s[kLanes];
  __builtin_memcpy(s, &v, sizeof v);
  float m = s[0];
  for (int i = 1; i < kLanes; ++i) m = s[i] > m || s[i] != s[i] ? s[i] : m;
  return m;
}

// e^(x - n ln 2) for the n nearest to x / ln 2.
inline vf exp_part(vf x, vf n) {
  vf r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  vf p = splat(1.383682696e-3f);
  p = p * r + 8.374822030e-3f;
  p = p * r + 4.166822624e-2f;
  p = p * r + 1.666642010e-1f;
  p = p * r + 4.999999208e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p;
}
// e^x; relative error below 2 ulp, 0 and infinity outside the range of floats, NaN stays.
inline vf exp(vf x) {
  vf in = x;
  x = clamp_high(clamp_low(x, splat(-104.0f)), splat(89.0f));
  vf n = round_small(x * 1.44269504f), p = exp_part(x, n);
  // 2^n in two steps, so that subnormals and the largest floats come out right.
  vi k = __builtin_convertvector(n, vi);
  vi h = k >> 1;
  p = p * as_float((h + 127) << 23) * as_float((k - h + 127) << 23);
  return in != in ? in : p;
}
// The same where x <= 0 or the result is known to be a normal float: no special cases but underflow to 0.
inline vf exp_fast(vf x) {
  x = max(x, splat(-87.0f));
  vf n = round_small(x * 1.44269504f), p = exp_part(x, n);
  return as_float(as_int(p) + (__builtin_convertvector(n, vi) << 23));
}
inline vf log(vf x) {
  vf in = x;
  vi tiny = x < 1.17549435e-38f;
  x = tiny ? x * 8388608.0f : x;
  vi bits = as_int(x);
  vi e = ((bits >> 23) & 0xff) - 127 - (tiny ? vi{} + 23 : vi{});
  vf m = as_float((bits & 0x007fffff) | 0x3f800000);
  vi high = m > 1.41421356f;
  m = high ? m * 0.5f : m;
  vf n = __builtin_convertvector(high ? e + 1 : e, vf);
  vf f = m - 1.0f;
  vf p = splat(-7.830532940e-2f);
  p = p * f + 1.301900438e-1f;
  p = p * f + -1.321230849e-1f;
  p = p * f + 1.416074877e-1f;
  p = p * f + -1.661033974e-1f;
  p = p * f + 2.000320504e-1f;
  p = p * f + -2.500157101e-1f;
  p = p * f + 3.333330243e-1f;
  p = p * f + -4.999998832e-1f;
  vf y = f + (f * f) * p;
  y = y + n * -2.12194440e-4f;
  y = y + n * 0.693359375f;
  y = in == 0.0f ? splat(-__builtin_inff()) : y;
  y = in == __builtin_inff() ? in : y;
  return in < 0.0f || in != in ? splat(__builtin_nanf("")) : y;
}
inline vf tanh(vf x) {
  vf a = abs(x), s = x * x;
  vf p = splat(-5.672414460e-3f);
  p = p * s + 2.060314006e-2f;
  p = p * s + -5.372522920e-2f;
  p = p * s + 1.333118573e-1f;
  p = p * s + -3.333326338e-1f;
  vf near = x + x * s * p;
  vf e = exp_fast(min(a, splat(20.0f)) * 2.0f);
  vf far = copysign(1.0f - 2.0f / (e + 1.0f), x);
  vf y = a < 0.625f ? near : far;
  return x != x ? x : y;
}
// sin(x + quarters * pi/2), quarters 0 or 1. Reduced by pi/2 in three parts (Cody and Waite), exact enough up to 8192;
// a vector that holds a larger or not finite element goes through libm.
inline vf sine(vf x, int quarters) {
  float lanes[kLanes];
  store(lanes, x);
  bool small = true;
  for (int i = 0; i < kLanes; ++i) small &= __builtin_fabsf(lanes[i]) <= 8192.0f;
  if (!small) {
    for (int i = 0; i < kLanes; ++i) lanes[i] = quarters ? __builtin_cosf(lanes[i]) : __builtin_sinf(lanes[i]);
    return load(lanes);
  }
  vf q = round_small(x * 0.636619772f);
  vi n = __builtin_convertvector(q, vi) + quarters;
  vf r = x - q * 1.5703125f;
  r = r - q * 4.837512969970703125e-4f;
  r = r - q * 7.54978995489188216e-8f;
  vf s = r * r;
  vf p = splat(-1.9515295891e-4f);
  p = p * s + 8.3321608736e-3f;
  p = p * s + -1.6666654611e-1f;
  vf sin_r = r + r * s * p;
  vf c = splat(2.443315711809948e-5f);
  c = c * s + -1.388731625493765e-3f;
  c = c * s + 4.166664568298827e-2f;
  vf cos_r = 1.0f - 0.5f * s + s * s * c;
  vf y = (n & 1) == 1 ? cos_r : sin_r;
  return (n & 2) == 2 ? -y : y;
}
inline vf erf(vf x) {
  vf a = abs(x), s = x * x;
  vf p = splat(7.889113288e-5f);
  p = p * s + -8.020839411e-4f;
  p = p * s + 5.189535130e-3f;
  p = p * s + -2.685444448e-2f;
  p = p * s + 1.128360017e-1f;
  p = p * s + -3.761262714e-1f;
  p = p * s + 1.128379166f;
  vf near = x * p;
  vf t = min(a, splat(4.0f));
  vf q = splat(-2.168699726e-5f);
  q = q * t + 4.413381937e-4f;
  q = q * t + -4.204571279e-3f;
  q = q * t + 2.520828325e-2f;
  q = q * t + -1.084186213e-1f;
  q = q * t + -6.332198502e-1f;
  q = q * t + -1.129578447f;
  q = q * t + 1.880453333e-4f;
  vf far = copysign(1.0f - exp_fast(q), x);
  vf y = a < 1.0f ? near : far;
  return x != x ? x : y;
}
inline vf sigmoid(vf x) {
  vf e = exp_fast(-abs(x));  // in (0, 1]
  vf small = e / (1.0f + e), big = 1.0f / (1.0f + e);
  vf y = x >= 0.0f ? big : small;
  return x != x ? x : y;
}
inline vf gelu_erf(vf x) { return 0.5f * x * (1.0f + erf(x * 0.70710678f)); }
inline vf gelu_tanh(vf x) { return 0.5f * x * (1.0f + tanh(0.79788456f * (x + 0.044715f * x * x * x))); }
inline vf hard_sigmoid(vf x, vf a, vf b) { return clamp_low(clamp_high(a * x + b, splat(1.0f)), splat(0.0f)); }

// The activations that kernels apply to results on their way out. Numbers are kernels.hpp's Act.
inline vf activate(int act, vf x, float a, float b) {
  switch (act) {
    case 1: return clamp_low(x, splat(0.0f));
    case 2: return clamp_high(clamp_low(x, splat(a)), splat(b));
    case 3: return sigmoid(x);
    case 4: return tanh(x);
    case 5: return gelu_erf(x);
    case 6: return gelu_tanh(x);
    case 7: return x * sigmoid(x * a);
    case 8: return x * hard_sigmoid(x, splat(a), splat(b));
    case 9: return hard_sigmoid(x, splat(a), splat(b));
    case 10: return x < 0.0f ? x * a : x;
    case 11: return x < 0.0f ? (exp(x) - 1.0f) * a : x;
    default: return x;
  }
}

}  // namespace
}  // namespace ai_vmm::cpu::AI_VMM_ISA
