// Pooling over windows.
#include "backends/cpu/kernels/kernels.hpp"
#include "backends/cpu/kernels/simd.hpp"

namespace ai_vmm::cpu::AI_VMM_ISA {
namespace {

// The part of a window inside the picture along one axis.
struct Span {
  int64_t first, last, step, counted;
};
inline Span span_of(const PoolShape& p, int d, int64_t o) {
  int64_t start = o * p.stride[d] - p.before[d], step = p.dilation[d], n = p.kernel[d];
  int64_t first = start, last = start + (n - 1) * step + 1;
  int64_t low = first < 0 ? first + (-first + step - 1) / step * step : first;
  int64_t high = last > p.in[d] ? p.in[d] : last;
  // Positions an average counts when it includes the padding: those up to the padded end.
  int64_t padded_end = p.in[d] + p.after[d], counted = 0;
  for (int64_t i = first; i < last; i += step) counted += i < padded_end;
  return {low, high, step, counted};
}

}  // namespace

void pool_plane(const PoolShape* pp, const float* in, float* out, int block, int max_kind) {
  const PoolShape& p = *pp;
  for (int64_t d = 0; d < p.out[0]; ++d) {
    Span sd = span_of(p, 0, d);
    for (int64_t h = 0; h < p.out[1]; ++h) {
      Span sh = span_of(p, 1, h);
      for (int64_t w = 0; w < p.out[2]; ++w) {
        Span sw = span_of(p, 2, w);
        float* to = out + ((d * p.out[1] + h) * p.out[2] + w) * block;
        int64_t count = 0;
        if (block == 1) {
          float v = max_kind ? -__builtin_inff() : 0.0f;
          for (int64_t z = sd.first; z < sd.last; z += sd.step)
            for (int64_t y = sh.first; y < sh.last; y += sh.step) {
              const float* row = in + (z * p.in[1] + y) * p.in[2];
              for (int64_t x = sw.first; x < sw.last; x += sw.step, ++count) {
                float e = row[x];
                if (max_kind)
                  v = e > v || e != e ? e : v;
                else
                  v += e;
              }
            }
          *to = max_kind ? v : v / float(p.count_padding ? sd.counted * sh.counted * sw.counted : count);
          continue;
        }
        for (int c = 0; c < block; c += kLanes) {
          vf v = max_kind ? splat(-__builtin_inff()) : vf{};
          count = 0;
          for (int64_t z = sd.first; z < sd.last; z += sd.step)
            for (int64_t y = sh.first; y < sh.last; y += sh.step) {
              const float* row = in + (z * p.in[1] + y) * p.in[2] * block + c;
              for (int64_t x = sw.first; x < sw.last; x += sw.step, ++count) {
                vf e = load(row + x * block);
                v = max_kind ? (e > v ? e : e != e ? e : v) : v + e;
              }
            }
          if (!max_kind) v = v / float(p.count_padding ? sd.counted * sh.counted * sw.counted : count);
          store(to + c, v);
        }
      }
    }
  }
}

// out[c] = mean or maximum over n positions of a block of channels.
void pool_all(const float* in, int64_t n, float* out, int block, int max_kind) {
  for (int c = 0; c < block; c += kLanes) {
    vf s[4] = {};
    if (max_kind)
      for (auto& v : s) v = splat(-__builtin_inff());
    int64_t i = 0;
    for (; i < n; ++i) {
      vf e = load(in + i * block + c);
      vf& v = s[i & 3];
      v = max_kind ? (e > v ? e : e != e ? e : v) : v + e;
    }
    vf r;
    if (max_kind) {
      r = s[0];
      for (int k = 1; k < 4; ++k) r = s[k] > r || s[k] != s[k] ? s[k] : r;
    } else {
      r = ((s[0] + s[1]) + (s[2] + s[3])) / float(n);
    }
    store(out + c, r);
  }
}

}  // namespace ai_vmm::cpu::AI_VMM_ISA
