// Reductions, softmax, normalisation and transposition.
#include "backends/cpu/kernels/kernels.hpp"
#include "backends/cpu/kernels/simd.hpp"

namespace ai_vmm::cpu::AI_VMM_ISA {
namespace {

inline int64_t low(int64_t a, int64_t b) { return a < b ? a : b; }
inline vf nan_max(vf a, vf b) { return a != a ? a : b != b ? b : max(a, b); }
inline vf nan_min(vf a, vf b) { return a != a ? a : b != b ? b : min(a, b); }

// combine over map(x), four chains at once; `rest` is neutral.
template <class Map, class Combine>
inline vf fold(const float* in, int64_t n, float rest, Map map, Combine combine) {
  vf s[4] = {splat(rest), splat(rest), splat(rest), splat(rest)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) s[v] = combine(s[v], map(load(in + i + v * kLanes)));
  for (; i + kLanes <= n; i += kLanes) s[0] = combine(s[0], map(load(in + i)));
  if (i < n) {
    vf t = map(load_part(in + i, n - i));
    for (int j = int(n - i); j < kLanes; ++j) t[j] = rest;
    s[1] = combine(s[1], t);
  }
  return combine(combine(s[0], s[1]), combine(s[2], s[3]));
}
template <class Combine>
inline float fold_lanes(vf v, Combine combine) {
  float s[kLanes];
  __builtin_memcpy(s, &v, sizeof v);
  for (int w = kLanes / 2; w > 0; w /= 2)
    for (int i = 0; i < w; ++i) s[i] = combine(s[i], s[i + w]);
  return s[0];
}
inline float row_sum(const float* in, int64_t n) {
  return sum(fold(
      in, n, 0.0f, [](vf x) { return x; }, [](vf a, vf b) { return a + b; }));
}
inline float row_max(const float* in, int64_t n) {
  vf m = fold(
      in, n, -__builtin_inff(), [](vf x) { return x; }, nan_max);
  return fold_lanes(m, [](float a, float b) { return a != a ? a : b != b ? b : a > b ? a : b; });
}

// y[i] = f(x[i]) over n, with tails.
template <class F>
inline void each(const float* x, float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i), i, kLanes));
  if (i < n) store_part(y + i, f(load_part(x + i, n - i), i, int(n - i)), n - i);
}
inline vf load_some(const float* p, int n) { return n == kLanes ? load(p) : load_part(p, n); }

}  // namespace

float reduce_row(const float* in, int64_t n, int kind) {
  auto same = [](vf x) { return x; };
  auto add = [](vf a, vf b) { return a + b; };
  switch (kind) {
    case 1: return row_max(in, n);
    case 2: {
      vf m = fold(in, n, __builtin_inff(), same, nan_min);
      return fold_lanes(m, [](float a, float b) { return a != a ? a : b != b ? b : a < b ? a : b; });
    }
    case 3:
      return fold_lanes(fold(in, n, 1.0f, same, [](vf a, vf b) { return a * b; }),
                        [](float a, float b) { return a * b; });
    case 4:
      return sum(fold(
          in, n, 0.0f, [](vf x) { return x * x; }, add));
    case 5:
      return sum(fold(
          in, n, 0.0f, [](vf x) { return abs(x); }, add));
    default: return row_sum(in, n);
  }
}

void reduce_into(float* acc, const float* in, int64_t n, int kind) {
  switch (kind) {
    case 1: return each(acc, acc, n, [=](vf a, int64_t i, int k) { return nan_max(a, load_some(in + i, k)); });
    case 2: return each(acc, acc, n, [=](vf a, int64_t i, int k) { return nan_min(a, load_some(in + i, k)); });
    case 3: return each(acc, acc, n, [=](vf a, int64_t i, int k) { return a * load_some(in + i, k); });
    case 4:
      return each(acc, acc, n, [=](vf a, int64_t i, int k) {
        vf x = load_some(in + i, k);
        return a + x * x;
      });
    case 5: return each(acc, acc, n, [=](vf a, int64_t i, int k) { return a + abs(load_some(in + i, k)); });
    default: return each(acc, acc, n, [=](vf a, int64_t i, int k) { return a + load_some(in + i, k); });
  }
}

void moments(const float* in, int64_t n, float* mean, float* variance) {
  // Two passes: the shifted sum is exact enough where mean² dwarfs the variance.
  float m = n > 0 ? row_sum(in, n) / float(n) : 0.0f;
  vf s = fold(
      in, n, 0.0f, [=](vf x) { return (x - m) * (x - m); }, [](vf a, vf b) { return a + b; });
  *mean = m;
  *variance = n > 0 ? sum(s) / float(n) : 0.0f;
}

void softmax_row(const float* in, const float* mask, float scale, float* out, int64_t n, int log) {
  if (n <= 0) return;
  if (mask || scale != 1.0f) {
    each(in, out, n, [=](vf x, int64_t i, int k) { return mask ? x * scale + load_some(mask + i, k) : x * scale; });
    in = out;
  }
  float m = row_max(in, n);
  if (m == -__builtin_inff()) m = 0.0f;
  vf total = {};
  if (log) {
    total = fold(
        in, n, 0.0f, [=](vf x) { return exp(x - m); }, [](vf a, vf b) { return a + b; });
    vf sums = splat(sum(total));
    float shift = m + ai_vmm::cpu::AI_VMM_ISA::log(sums)[0];
    each(in, out, n, [=](vf x, int64_t, int) { return x - shift; });
    return;
  }
  int64_t i = 0;
  vf more = {};
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    vf e = exp(load(in + i) - m), f = exp(load(in + i + kLanes) - m);
    store(out + i, e);
    store(out + i + kLanes, f);
    total += e;
    more += f;
  }
  for (; i < n; i += kLanes) {
    int k = int(low(kLanes, n - i));
    vf e = exp(load_some(in + i, k) - m);
    for (int j = k; j < kLanes; ++j) e[j] = 0.0f;
    store_part(out + i, e, k);
    total += e;
  }
  float inverse = 1.0f / sum(total + more);
  each(out, out, n, [=](vf x, int64_t, int) { return x * inverse; });
}

void softmax_columns(const float* in, float* out, int64_t n, int64_t width, int logarithm) {
  for (int64_t c = 0; c < width; c += kLanes) {
    int k = int(low(kLanes, width - c));
    vf m = splat(-__builtin_inff()), total = {};
    for (int64_t i = 0; i < n; ++i) m = nan_max(m, load_some(in + i * width + c, k));
    m = m == -__builtin_inff() ? splat(0.0f) : m;
    for (int64_t i = 0; i < n; ++i) {
      vf e = exp(load_some(in + i * width + c, k) - m);
      total += e;
      if (!logarithm) store_part(out + i * width + c, e, k);
    }
    vf f = logarithm ? m + log(total) : 1.0f / total;
    for (int64_t i = 0; i < n; ++i) {
      float* at = out + i * width + c;
      store_part(at, logarithm ? load_some(in + i * width + c, k) - f : load_some(at, k) * f, k);
    }
  }
}

void norm_row(const float* in, const float* add, float* sum_out, const float* scale, const float* bias, float eps,
              int rms, float* out, int64_t n, float* mean, float* inv) {
  if (add) {
    float* to = sum_out ? sum_out : out;
    each(in, to, n, [=](vf x, int64_t i, int k) { return x + load_some(add + i, k); });
    in = to;
  }
  float m = 0, v;
  if (rms) {
    v = n > 0 ? reduce_row(in, n, 4) / float(n) : 0.0f;
  } else {
    moments(in, n, &m, &v);
  }
  float r = 1.0f / __builtin_sqrtf(v + eps);
  if (mean) *mean = m;
  if (inv) *inv = r;
  float shift = -m * r;
  if (scale && bias)
    each(in, out, n,
         [=](vf x, int64_t i, int k) { return (x * r + shift) * load_some(scale + i, k) + load_some(bias + i, k); });
  else if (scale)
    each(in, out, n, [=](vf x, int64_t i, int k) { return (x * r + shift) * load_some(scale + i, k); });
  else
    each(in, out, n,
         [=](vf x, int64_t i, int k) { return bias ? x * r + shift + load_some(bias + i, k) : x * r + shift; });
}

void transpose(const float* in, int64_t rows, int64_t columns, int64_t in_row, float* out, int64_t out_row) {
  constexpr int64_t kTile = 16;
  for (int64_t i0 = 0; i0 < rows; i0 += kTile)
    for (int64_t j0 = 0; j0 < columns; j0 += kTile) {
      int64_t i1 = low(i0 + kTile, rows), j1 = low(j0 + kTile, columns);
      if (i1 - i0 == kTile && j1 - j0 == kTile) {
        float t[kTile][kTile];
        for (int64_t i = 0; i < kTile; ++i) __builtin_memcpy(t[i], in + (i0 + i) * in_row + j0, sizeof t[i]);
        for (int64_t j = 0; j < kTile; ++j) {
          float* to = out + (j0 + j) * out_row + i0;
          for (int64_t i = 0; i < kTile; ++i) to[i] = t[i][j];
        }
      } else {
        for (int64_t j = j0; j < j1; ++j)
          for (int64_t i = i0; i < i1; ++i) out[j * out_row + i] = in[i * in_row + j];
      }
    }
}

}  // namespace ai_vmm::cpu::AI_VMM_ISA
