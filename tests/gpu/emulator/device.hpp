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
