// What a kernel of the dialects cuda and hip is compiled with by the emulator, in place of a GPU's language: the words
// of CUDA C++ that kernels use, for the host's compiler. A work item is a fiber where the kernel has collective calls,
// and a turn of a loop otherwise; groups run one after the other.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace emulator {
struct Index {
  unsigned x, y, z;
};
// Of one thread of the host that runs a kernel; the emulator's side of it is in emulator.cpp.
struct State {
  Index item, group, size, groups;
  void (*barrier)(State*);
  // All lanes of a warp bring `bytes` (at most 64) each; the table of all of them, 64 bytes a lane, is good until the
  // lane's second call after this one.
  const void* (*exchange)(State*, const void* mine, int bytes);
  int (*known)(State*, const void*);  // whether an address lies in memory of the device
  int bad_argument;
};
static thread_local State* state;

template <unsigned... I>
struct List {};
template <unsigned N, unsigned... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <unsigned... I>
struct Count<0, I...> {
  using Type = List<I...>;
};
inline bool fine(State* s, const void* p) { return s->known(s, p); }
template <class T>
bool fine(State*, const T&) {
  return true;
}
template <class T>
bool fine(State* s, T* p) {
  return s->known(s, p);
}
template <class... A, unsigned... I>
void call(void (*kernel)(A...), void** arguments, List<I...>) {
  kernel(*static_cast<A*>(arguments[I])...);
}
template <class... A, unsigned... I>
bool check(State* s, void (*)(A...), void** arguments, List<I...>) {
  return (fine(s, *static_cast<A*>(arguments[I])) && ...);
}
template <class... A>
void run(State* s, void (*kernel)(A...), void** arguments, int check_only) {
  state = s;
  using All = typename Count<sizeof...(A)>::Type;
  if (check_only)
    s->bad_argument = !check(s, kernel, arguments, All());
  else
    call(kernel, arguments, All());
}
}  // namespace emulator

#define __global__ __attribute__((visibility("default")))
#define __device__
#define __shared__ static thread_local
#define threadIdx (emulator::state->item)
#define blockIdx (emulator::state->group)
#define blockDim (emulator::state->size)
#define gridDim (emulator::state->groups)
#define __syncthreads() emulator::state->barrier(emulator::state)
#define __launch_bounds__(n)

static inline float __uint_as_float(unsigned u) { return __builtin_bit_cast(float, u); }
static inline float __int_as_float(int i) { return __builtin_bit_cast(float, i); }
static inline unsigned __float_as_uint(float f) { return __builtin_bit_cast(unsigned, f); }
#undef INFINITY
#undef NAN

// The matrix units, by what their manuals say of where lanes hold which elements.
#define AI_VMM_MATRIX_UNIT
namespace emulator {
struct Fragment {
  unsigned a[4], b[4];
};
inline float tf32(unsigned u) { return __builtin_bit_cast(float, u & 0xffffe000u); }
inline float f32(unsigned u) { return __builtin_bit_cast(float, u); }
inline float bf16(unsigned u) { return __builtin_bit_cast(float, u << 16); }
inline float f16(unsigned h) {
  const int exponent = h >> 10 & 31;
  const float fraction = float(h & 1023), magnitude = exponent == 31
                                                          ? (fraction != 0 ? __builtin_nanf("") : __builtin_inff())
                                                      : exponent == 0 ? fraction * 0x1p-24f
                                                                      : ldexpf(1024 + fraction, exponent - 25);
  return h & 0x8000 ? -magnitude : magnitude;
}
// d += a · b over `words` words of `per` numbers; `A(row, word)` and `B(column, word)` say who holds a word: a lane and
// its register.
struct Place {
  int lane, q;
};
template <class A, class B, class Row, class Column>
void multiply(float* d, const unsigned* a, int as, const unsigned* b, int bs, int words, int per,
              float (*number)(unsigned), A where_a, B where_b, Row row, Column column) {
  Fragment mine{};
  memcpy(mine.a, a, 4 * as);
  memcpy(mine.b, b, 4 * bs);
  const char* all = static_cast<const char*>(state->exchange(state, &mine, sizeof mine));
  auto of = [&](Place p) { return reinterpret_cast<const Fragment*>(all + 64 * p.lane); };
  for (int e = 0; e < 4; ++e) {
    double sum = d[e];
    for (int w = 0; w < words; ++w) {
      const Place x = where_a(row(e), w), y = where_b(column(e), w);
      const unsigned u = of(x)->a[x.q], v = of(y)->b[y.q];
      for (int q = 0; q < per; ++q) {
        const unsigned shift = 32 / per * q % 32, mask = per == 2 ? 0xffff : 0xffffffff;
        sum += double(number(u >> shift & mask)) * number(v >> shift & mask);
      }
    }
    d[e] = float(sum);
  }
}
inline void mma(float* d, const unsigned* a, const unsigned* b, int per, float (*number)(unsigned)) {
  const int lane = int(state->item.x) % 32;
  multiply(
      d, a, 4, b, 2, 8, per, number,
      [](int row, int w) {
        return Place{row % 8 * 4 + w % 4, row / 8 + w / 4 * 2};
      },
      [](int column, int w) {
        return Place{column * 4 + w % 4, w / 4};
      },
      [=](int e) { return lane / 4 + e / 2 * 8; }, [=](int e) { return lane % 4 * 2 + e % 2; });
}
inline void mfma(float* d, const unsigned* a, const unsigned* b, int per, float (*number)(unsigned)) {
  const int lane = int(state->item.x) % 64, held = per;  // registers of a lane: four halves, or one number
  multiply(
      d, a, held, b, held, 4 * held, per, number,
      [=](int row, int w) {
        return Place{w / held * 16 + row, w % held};
      },
      [=](int column, int w) {
        return Place{w / held * 16 + column, w % held};
      },
      [=](int e) { return lane / 16 * 4 + e; }, [=](int) { return lane % 16; });
}
}  // namespace emulator
static inline void mma_tf32(float* d, const unsigned* a, const unsigned* b) {
  emulator::mma(d, a, b, 1, emulator::tf32);
}
static inline void mma_f16(float* d, const unsigned* a, const unsigned* b) { emulator::mma(d, a, b, 2, emulator::f16); }
static inline void mma_bf16(float* d, const unsigned* a, const unsigned* b) {
  emulator::mma(d, a, b, 2, emulator::bf16);
}
static inline void mfma_f32(float* d, const unsigned* a, const unsigned* b) {
  emulator::mfma(d, a, b, 1, emulator::f32);
}
static inline void mfma_f16(float* d, const unsigned* a, const unsigned* b) {
  emulator::mfma(d, a, b, 2, emulator::f16);
}
static inline void mfma_bf16(float* d, const unsigned* a, const unsigned* b) {
  emulator::mfma(d, a, b, 2, emulator::bf16);
}
