// Matrix product on packed panels. B lies in panels of kNr columns, cut into blocks of kKc rows, so that a panel block
// and the tiles of A that pass over it stay in the second-level cache; A is packed block by block in tiles of kMr rows.
#include "backends/cpu/kernels/kernels.hpp"
#include "backends/cpu/kernels/simd.hpp"

namespace ai_vmm::cpu::AI_VMM_ISA {
namespace {

constexpr int kV = 2;  // vectors in a panel row
constexpr int kNr = kV * kLanes;
#if AI_VMM_LANES == 16
constexpr int kMr = 14;
#else
constexpr int kMr = 6;
#endif
constexpr int64_t kKc = 1024;
constexpr int64_t kMc = kMr * (AI_VMM_LANES == 16 ? 10 : 16);

inline int64_t low(int64_t a, int64_t b) { return a < b ? a : b; }

// Tile of M rows and P neighbouring panels: c (+)= a · b over depth k. Rows of the packed tile of A lie interleaved
// when a_row is 1.
template <int M, int P>
inline __attribute__((always_inline)) void product(int64_t k, const float* a, int64_t a_row, int64_t a_col,
                                                   const float* b, int64_t panel_step, vf (&acc)[M][P * kV]) {
  for (int64_t p = 0; p < k; ++p) {
    vf w[P * kV];
#pragma GCC unroll 8
    for (int j = 0; j < P; ++j)
#pragma GCC unroll 8
      for (int v = 0; v < kV; ++v) w[j * kV + v] = load(b + j * panel_step + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      vf x = splat(a[i * a_row]);
#pragma GCC unroll 8
      for (int v = 0; v < P * kV; ++v) acc[i][v] += x * w[v];
    }
    a += a_col;
    b += kNr;
  }
}

struct Out {
  const Gemm* g;
  bool first, last;
};

template <int M, int P>
void tile(int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t panel_step, int64_t row,
          int64_t column, const Out& o) {
  const Gemm& g = *o.g;
  vf acc[M][P * kV] = {};
  product<M, P>(k, a, a_row, a_col, b, panel_step, acc);
  int64_t width = g.n - column;
  float* c = g.c + row * g.c_row + column;
  bool plain = g.alpha == 1.0f;
#pragma GCC unroll 8
  for (int v = 0; v < P * kV; ++v) {
    int64_t n = width - v * kLanes;
    if (n <= 0) break;
    if (n >= kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < M; ++i) {
        float* at = c + i * g.c_row + v * kLanes;
        vf x = acc[i][v];
        if (!plain) x *= g.alpha;
        // The residual may lie where the result goes: it is read before the first sum is stored.
        if (!o.first)
          x += load(at);
        else if (g.residual)
          x += load(g.residual + (row + i) * g.residual_row + column + v * kLanes);
        if (o.last) {
          if (g.bias) x += load(g.bias + column + v * kLanes);
          if (g.row_bias) x += g.row_bias[row + i];
          if (g.act == int(Act::relu)) x = clamp_low(x, splat(0.0f));
        }
        store(at, x);
      }
    } else {
      for (int i = 0; i < M; ++i) {
        float* at = c + i * g.c_row + v * kLanes;
        vf x = acc[i][v];
        if (!plain) x *= g.alpha;
        if (!o.first)
          x += load_part(at, n);
        else if (g.residual)
          x += load_part(g.residual + (row + i) * g.residual_row + column + v * kLanes, n);
        if (o.last) {
          if (g.bias) x += load_part(g.bias + column + v * kLanes, n);
          if (g.row_bias) x += g.row_bias[row + i];
          if (g.act == int(Act::relu)) x = clamp_low(x, splat(0.0f));
        }
        store_part(at, x, n);
      }
    }
  }
  if (o.last && g.act > int(Act::relu)) {
    int64_t n = low(width, P * kNr);
    for (int i = 0; i < M; ++i) activate_row(c + i * g.c_row, n, g.act, g.act_a, g.act_b);
  }
}

typedef void (*Tile)(int64_t, const float*, int64_t, int64_t, const float*, int64_t, int64_t, int64_t, const Out&);
const Tile kTiles[] = {nullptr,    tile<1, 1>, tile<2, 1>, tile<3, 1>,  tile<4, 1>,  tile<5, 1>,  tile<6, 1>,
#if AI_VMM_LANES == 16
                       tile<7, 1>, tile<8, 1>, tile<9, 1>, tile<10, 1>, tile<11, 1>, tile<12, 1>, tile<13, 1>,
                       tile<14, 1>
#endif
};

// A few rows: several panels at once, so that enough sums are in flight; A is read where it lies.
template <int M, int P>
void few_rows(const Gemm& g, int64_t r0, int64_t p0, int64_t p1) {
  int64_t padded = (g.n + kNr - 1) / kNr * kNr;
  int64_t panel = p0;
  for (; panel < p1; panel += P) {
    bool whole = panel + P <= p1;
    for (int64_t k0 = 0; k0 < g.k || k0 == 0; k0 += kKc) {
      int64_t kc = low(kKc, g.k - k0);
      Out o{&g, k0 == 0, k0 + kc >= g.k};
      const float* a = g.a + r0 * g.a_row + k0 * g.a_col;
      const float* b = g.b + k0 * padded + panel * kc * kNr;
      if (whole)
        tile<M, P>(kc, a, g.a_row, g.a_col, b, kc * kNr, r0, panel * kNr, o);
      else
        for (int64_t q = panel; q < p1; ++q)
          tile<M, 1>(kc, a, g.a_row, g.a_col, b + (q - panel) * kc * kNr, 0, r0, q * kNr, o);
    }
  }
}

}  // namespace

void gemm_shape(GemmShape* s) { *s = {kMr, kNr, int(kKc)}; }
int64_t gemm_packed_size(int64_t k, int64_t n) { return k * ((n + kNr - 1) / kNr * kNr); }
int64_t gemm_scratch() { return kMc * kKc; }

void gemm_pack(int64_t k, int64_t n, const float* b, int64_t row, int64_t col, float* packed, int64_t first,
               int64_t last) {
  int64_t padded = (n + kNr - 1) / kNr * kNr;
  for (int64_t k0 = 0; k0 < k; k0 += kKc) {
    int64_t kc = low(kKc, k - k0);
    for (int64_t p = first; p < last; ++p) {
      float* to = packed + k0 * padded + p * kc * kNr;
      const float* from = b + k0 * row + p * kNr * col;
      int64_t w = low(kNr, n - p * kNr);
      if (col == 1 && w == kNr) {
        for (int64_t i = 0; i < kc; ++i)
          for (int v = 0; v < kV; ++v) store(to + i * kNr + v * kLanes, load(from + i * row + v * kLanes));
      } else if (col == 1) {
        for (int64_t i = 0; i < kc; ++i)
          for (int64_t j = 0; j < kNr; ++j) to[i * kNr + j] = j < w ? from[i * row + j] : 0.0f;
      } else if (row == 1 && w == kNr) {
        transpose(from, kNr, kc, col, to, kNr);
      } else {
        for (int64_t j = 0; j < kNr; ++j)
          for (int64_t i = 0; i < kc; ++i) to[i * kNr + j] = j < w ? from[i * row + j * col] : 0.0f;
      }
    }
  }
}

void gemm_run(const Gemm* gp, int64_t r0, int64_t r1, int64_t p0, int64_t p1, float* scratch) {
  const Gemm& g = *gp;
  int64_t padded = (g.n + kNr - 1) / kNr * kNr;
  switch (r1 - r0) {
    case 1: return few_rows<1, 4>(g, r0, p0, p1);
    case 2: return few_rows < 2, kLanes == 16 ? 4 : 2 > (g, r0, p0, p1);
    case 3: return few_rows < 3, kLanes == 16 ? 2 : 1 > (g, r0, p0, p1);
    case 4: return few_rows < 4, kLanes == 16 ? 2 : 1 > (g, r0, p0, p1);
    default: break;
  }
  for (int64_t k0 = 0; k0 < g.k || k0 == 0; k0 += kKc) {
    int64_t kc = low(kKc, g.k - k0);
    Out o{&g, k0 == 0, k0 + kc >= g.k};
    for (int64_t m0 = r0; m0 < r1; m0 += kMc) {
      int64_t mc = low(kMc, r1 - m0);
      if (p1 - p0 <= 4 && g.a_col == 1) {  // A is read too seldom for packing to pay
        for (int64_t i = 0; i < mc; i += kMr)
          for (int64_t p = p0; p < p1; ++p)
            kTiles[low(kMr, mc - i)](kc, g.a + (m0 + i) * g.a_row + k0, g.a_row, 1, g.b + k0 * padded + p * kc * kNr, 0,
                                     m0 + i, p * kNr, o);
        continue;
      }
      for (int64_t i = 0; i < mc; i += kMr) {
        int64_t rows = low(kMr, mc - i);
        float* to = scratch + i * kc;
        const float* from = g.a + (m0 + i) * g.a_row + k0 * g.a_col;
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t p = 0; p < kc; ++p) to[p * rows + r] = from[r * g.a_row + p * g.a_col];
      }
      for (int64_t p = p0; p < p1; ++p)
        for (int64_t i = 0; i < mc; i += kMr) {
          int64_t rows = low(kMr, mc - i);
          kTiles[rows](kc, scratch + i * kc, 1, rows, g.b + k0 * padded + p * kc * kNr, 0, m0 + i, p * kNr, o);
        }
    }
  }
}

void gemv(int64_t k, const float* x, int64_t x_col, const float* b, int64_t row, int64_t col, float* y, float alpha,
          int64_t first, int64_t last) {
  if (col == 1) {  // sums of rows of B
    int64_t j = first;
    for (; j + 4 * kLanes <= last; j += 4 * kLanes) {
      vf s[4] = {};
      for (int64_t p = 0; p < k; ++p) {
        vf w = splat(x[p * x_col]);
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) s[v] += w * load(b + p * row + j + v * kLanes);
      }
      for (int v = 0; v < 4; ++v) store(y + j + v * kLanes, s[v] * alpha);
    }
    for (; j < last; j += kLanes) {
      int64_t n = low(kLanes, last - j);
      vf s = {};
      for (int64_t p = 0; p < k; ++p)
        s += splat(x[p * x_col]) * (n == kLanes ? load(b + p * row + j) : load_part(b + p * row + j, n));
      store_part(y + j, s * alpha, n);
    }
    return;
  }
  for (int64_t j = first; j < last; ++j) {  // one dot product a column
    const float* w = b + j * col;
    float total = 0;
    int64_t p = 0;
    if (row == 1 && x_col == 1) {
      vf s[4] = {};
      for (; p + 4 * kLanes <= k; p += 4 * kLanes)
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) s[v] += load(x + p + v * kLanes) * load(w + p + v * kLanes);
      for (; p + kLanes <= k; p += kLanes) s[0] += load(x + p) * load(w + p);
      total = sum((s[0] + s[1]) + (s[2] + s[3]));
    }
    for (; p < k; ++p) total += x[p * x_col] * w[p * row];
    y[j] = total * alpha;
  }
}

}  // namespace ai_vmm::cpu::AI_VMM_ISA
