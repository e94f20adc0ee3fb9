// Elementwise operators over a block of contiguous elements: the instructions of fused elementwise programs.
#include "backends/cpu/kernels/kernels.hpp"
#include "backends/cpu/kernels/simd.hpp"

namespace ai_vmm::cpu::AI_VMM_ISA {
namespace {

// ONNX numbers of element types.
constexpr int kF32 = 1, kU8 = 2, kI8 = 3, kU16 = 4, kI16 = 5, kI32 = 6, kI64 = 7, kBool = 9, kF64 = 11, kU32 = 12,
              kU64 = 13;

template <class F>
inline void vectors1(void* out, const void* a, int64_t n, F f) {
  float* y = static_cast<float*>(out);
  const float* x = static_cast<const float*>(a);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));
  if (i < n) store_part(y + i, f(load_part(x + i, n - i)), n - i);
}
template <class F>
inline void vectors2(void* out, const void* a, const void* b, int64_t n, F f) {
  float* y = static_cast<float*>(out);
  const float *x = static_cast<const float*>(a), *w = static_cast<const float*>(b);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i), load(w + i)));
  if (i < n) store_part(y + i, f(load_part(x + i, n - i), load_part(w + i, n - i)), n - i);
}
template <class O, class T, class F>
inline void scalars1(void* out, const void* a, int64_t n, F f) {
  O* y = static_cast<O*>(out);
  const T* x = static_cast<const T*>(a);
  for (int64_t i = 0; i < n; ++i) y[i] = f(x[i]);
}
template <class O, class T, class F>
inline void scalars2(void* out, const void* a, const void* b, int64_t n, F f) {
  O* y = static_cast<O*>(out);
  const T *x = static_cast<const T*>(a), *w = static_cast<const T*>(b);
  for (int64_t i = 0; i < n; ++i) y[i] = f(x[i], w[i]);
}
template <class T>
void where(void* out, const void* c, const void* a, const void* b, int64_t n, const float*) {
  T* y = static_cast<T*>(out);
  const uint8_t* m = static_cast<const uint8_t*>(c);
  const T *x = static_cast<const T*>(a), *w = static_cast<const T*>(b);
  for (int64_t i = 0; i < n; ++i) y[i] = m[i] ? x[i] : w[i];
}

// float → integer as base/numbers.hpp's to_int64, then narrowed.
inline int64_t to_int(double v) {
  constexpr double k63 = 9223372036854775808.0;
  if (!(v == v)) return INT64_MIN;
  if (v >= k63) return v < 2 * k63 ? int64_t(uint64_t(v)) : INT64_MIN;
  return v < -k63 ? INT64_MIN : int64_t(v);
}
template <class To, class From>
inline To convert(From x) {
  if constexpr (__is_same(To, bool))
    return x != From(0);
  else if constexpr ((__is_same(From, float) || __is_same(From, double)) &&
                     !(__is_same(To, float) || __is_same(To, double)))
    return To(to_int(x));
  else
    return To(x);
}
template <class To, class From>
void cast(void* out, const void* a, const void*, const void*, int64_t n, const float*) {
  scalars1<To, From>(out, a, n, [](From x) { return convert<To>(x); });
}

// Wrapping arithmetic of signed types.
template <class T>
inline T wrap_add(T a, T b) {
  return T(uint64_t(a) + uint64_t(b));
}
template <class T>
inline T wrap_sub(T a, T b) {
  return T(uint64_t(a) - uint64_t(b));
}
template <class T>
inline T wrap_mul(T a, T b) {
  return T(uint64_t(a) * uint64_t(b));
}
template <class T>
inline T int_div(T a, T b) {
  return b == 0 ? T(0) : b == T(-1) && T(-1) < T(0) ? T(0 - uint64_t(a)) : T(a / b);
}
template <class T>
inline T int_mod(T a, T b) {  // the sign of b
  if (b == 0) return T(0);
  if constexpr (T(-1) < T(0)) {
    if (b == T(-1)) return T(0);
    T r = T(a % b);
    return r != 0 && (r < 0) != (b < 0) ? T(r + b) : r;
  }
  return T(a % b);
}
inline float ieee_mod(float x, float y) { return __builtin_fmodf(x, y); }
inline vf round_even(vf x) {
  vf a = abs(x);
  vf r = copysign((a + 8388608.0f) - 8388608.0f, x);
  return a < 8388608.0f ? r : x;  // NaN compares false and stays
}
inline vf floor(vf x) {
  vf r = round_even(x);
  return r > x ? copysign(r - 1.0f, x) : r;
}
inline vf ceil(vf x) {
  vf r = round_even(x);
  return r < x ? copysign(r + 1.0f, x) : r;
}
inline vf sqrt(vf x) {
  vf y;
  for (int i = 0; i < kLanes; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
}
inline vf sign(vf x) { return x > 0.0f ? splat(1.0f) : x < 0.0f ? splat(-1.0f) : x; }
// log(1 + e) for 0 <= e <= 1, exact to the last bits where e is small: the rounding of 1 + e is divided out.
inline vf log_one_plus(vf e) {
  vf u = 1.0f + e;
  return u == 1.0f ? e : log(u) * (e / (u - 1.0f));
}
inline vf softplus(vf x) { return clamp_low(x, splat(0.0f)) + log_one_plus(exp_fast(-abs(x))); }
inline float power(float x, float y) { return __builtin_powf(x, y); }

#define F1(op, expr)                                                                                                   \
  {#op, kF32, kF32, [](void* o, const void* a, const void*, const void*, int64_t n, [[maybe_unused]] const float* p) { \
     vectors1(o, a, n, [=](vf x) { return expr; });                                                                    \
   }},
#define F2(op, expr)                                                                                    \
  {#op, kF32, kF32,                                                                                     \
   [](void* o, const void* a, const void* b, const void*, int64_t n, [[maybe_unused]] const float* p) { \
     vectors2(o, a, b, n, [=](vf x, vf y) { return expr; });                                            \
   }},
#define S1(op, type, T, O, otype, expr)                                                               \
  {#op, type, otype,                                                                                  \
   [](void* o, const void* a, const void*, const void*, int64_t n, [[maybe_unused]] const float* p) { \
     scalars1<O, T>(o, a, n, [=](T x) -> O { return O(expr); });                                      \
   }},
#define S2(op, type, T, O, otype, expr)                                                                \
  {#op, type, otype, [](void* o, const void* a, const void* b, const void*, int64_t n, const float*) { \
     scalars2<O, T>(o, a, b, n, [](T x, T y) -> O { return O(expr); });                                \
   }},
#define COMPARE(type, T)                           \
  S2(Equal, type, T, uint8_t, kBool, x == y)       \
  S2(Less, type, T, uint8_t, kBool, x < y)         \
  S2(Greater, type, T, uint8_t, kBool, x > y)      \
  S2(LessOrEqual, type, T, uint8_t, kBool, x <= y) \
  S2(GreaterOrEqual, type, T, uint8_t, kBool, x >= y){"Where", type, type, where<T>},
#define INTEGER(type, T)                    \
  S2(Add, type, T, T, type, wrap_add(x, y)) \
  S2(Sub, type, T, T, type, wrap_sub(x, y)) \
  S2(Mul, type, T, T, type, wrap_mul(x, y)) \
  S2(Div, type, T, T, type, int_div(x, y))  \
  S2(Mod, type, T, T, type, int_mod(x, y))  \
  S2(Max, type, T, T, type, x > y ? x : y) S2(Min, type, T, T, type, x < y ? x : y) COMPARE(type, T)
#define SIGNED(type, T)                         \
  INTEGER(type, T)                              \
  S1(Neg, type, T, T, type, T(0 - uint64_t(x))) \
  S1(Abs, type, T, T, type, x < 0 ? T(0 - uint64_t(x)) : x) S1(Sign, type, T, T, type, (x > 0) - (x < 0))
#define CASTS_FROM(type, T)                                                          \
  {"Cast", type, kF32, cast<float, T>}, {"Cast", type, kI64, cast<int64_t, T>},      \
      {"Cast", type, kI32, cast<int32_t, T>}, {"Cast", type, kU8, cast<uint8_t, T>}, \
      {"Cast", type, kI8, cast<int8_t, T>}, {"Cast", type, kBool, cast<bool, T>},    \
      {"Cast", type, kF64, cast<double, T>},

// clang-format off
const BlockEntry kEntries[] = {
    F1(Relu, clamp_low(x, splat(0.0f)))
    F1(Abs, abs(x))
    F1(Neg, -x)
    F1(Exp, exp(x))
    F1(Log, log(x))
    F1(Sqrt, sqrt(x))
    F1(Reciprocal, 1.0f / x)
    F1(Sigmoid, sigmoid(x))
    F1(Tanh, tanh(x))
    F1(Erf, erf(x))
    F1(Floor, floor(x))
    F1(Ceil, ceil(x))
    F1(Round, round_even(x))
    F1(Sign, sign(x))
    F1(Softplus, softplus(x))
    F1(Softsign, x / (1.0f + abs(x)))
    F1(HardSwish, x * hard_sigmoid(x, splat(0.16666667f), splat(0.5f)))
    F1(HardSigmoid, hard_sigmoid(x, splat(p[0]), splat(p[1])))
    F1(LeakyRelu, x < 0.0f ? x * p[0] : x)
    F1(Elu, x < 0.0f ? (exp(x) - 1.0f) * p[0] : x)
    F1(Selu, (x <= 0.0f ? (exp(x) - 1.0f) * p[0] : x) * p[1])
    F1(Celu, clamp_low(x, splat(0.0f)) + min(splat(0.0f), p[0] * (exp(x / p[0]) - 1.0f)))
    F1(ThresholdedRelu, x > p[0] ? x : splat(0.0f))
    F1(Mish, x * tanh(softplus(x)))
    F1(GeluErf, gelu_erf(x))
    F1(GeluTanh, gelu_tanh(x))
    F1(Swish, x * sigmoid(x * p[0]))
    F1(ClipConst, clamp_high(clamp_low(x, splat(p[0])), splat(p[1])))
    F1(ScaleShift, x * p[0] + p[1])
    F1(Square, x * x)
    F1(Cube, x * x * x)
    F2(Add, x + y)
    F2(Sub, x - y)
    F2(Mul, x * y)
    F2(Div, x / y)
    F2(Max, x != x ? x : y != y ? y : max(x, y))
    F2(Min, x != x ? x : y != y ? y : min(x, y))
    F2(PRelu, x < 0.0f ? x * y : x)
    S2(Pow, kF32, float, float, kF32, power(x, y))
    S2(FMod, kF32, float, float, kF32, ieee_mod(x, y))
    F1(Sin, sine(x, 0))
    F1(Cos, sine(x, 1))
    S1(Tan, kF32, float, float, kF32, __builtin_tanf(x))
    S1(Asin, kF32, float, float, kF32, __builtin_asinf(x))
    S1(Acos, kF32, float, float, kF32, __builtin_acosf(x))
    S1(Atan, kF32, float, float, kF32, __builtin_atanf(x))
    S1(Sinh, kF32, float, float, kF32, __builtin_sinhf(x))
    S1(Cosh, kF32, float, float, kF32, __builtin_coshf(x))
    S1(Asinh, kF32, float, float, kF32, __builtin_asinhf(x))
    S1(Acosh, kF32, float, float, kF32, __builtin_acoshf(x))
    S1(Atanh, kF32, float, float, kF32, __builtin_atanhf(x))
    S1(IsNaN, kF32, float, uint8_t, kBool, x != x)
    COMPARE(kF32, float)
    S2(Add, kF64, double, double, kF64, x + y)
    S2(Sub, kF64, double, double, kF64, x - y)
    S2(Mul, kF64, double, double, kF64, x * y)
    S2(Div, kF64, double, double, kF64, x / y)
    COMPARE(kF64, double)
    SIGNED(kI64, int64_t)
    SIGNED(kI32, int32_t)
    INTEGER(kU8, uint8_t)
    SIGNED(kI8, int8_t)
    S2(And, kBool, uint8_t, uint8_t, kBool, x&& y)
    S2(Or, kBool, uint8_t, uint8_t, kBool, x || y)
    S2(Xor, kBool, uint8_t, uint8_t, kBool, (x != 0) != (y != 0))
    S1(Not, kBool, uint8_t, uint8_t, kBool, !x)
    S2(Equal, kBool, uint8_t, uint8_t, kBool, (x != 0) == (y != 0))
    { "Where", kBool, kBool, where<uint8_t>}, CASTS_FROM(kF32, float)
    CASTS_FROM(kI64, int64_t)
    CASTS_FROM(kI32, int32_t)
    CASTS_FROM(kU8, uint8_t)
    CASTS_FROM(kI8, int8_t)
    CASTS_FROM(kBool, bool)
    CASTS_FROM(kF64, double)
};
// clang-format on

}  // namespace

const BlockEntry* block_functions(int* count) {
  *count = int(sizeof kEntries / sizeof kEntries[0]);
  return kEntries;
}

void activate_row(float* x, int64_t n, int act, float a, float b) {
  switch (act) {
#define CASE(k) \
  case k: return vectors1(x, x, n, [=](vf v) { return activate(k, v, a, b); });
    // clang-format off
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11)
#undef CASE
        // clang-format on
        default : return;
  }
}

void affine(const float* in, float scale, float bias, float* out, int64_t n) {
  vectors1(out, in, n, [=](vf v) { return v * scale + bias; });
}

}  // namespace ai_vmm::cpu::AI_VMM_ISA
