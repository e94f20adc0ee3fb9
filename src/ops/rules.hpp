// Integer arithmetic that never traps and never is undefined, for the integer rules of elementwise.def.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

namespace ai_vmm::rules {

template <class I>
using U = std::make_unsigned_t<I>;

template <class I>
I i_add(I x, I y) {
  return I(U<I>(x) + U<I>(y));
}
template <class I>
I i_sub(I x, I y) {
  return I(U<I>(x) - U<I>(y));
}
template <class I>
I i_mul(I x, I y) {
  return I(U<I>(x) * U<I>(y));
}
template <class I>
I i_neg(I x) {
  return I(U<I>(0) - U<I>(x));
}
template <class I>
I i_abs(I x) {
  if constexpr (std::is_signed_v<I>) return x < 0 ? i_neg(x) : x;
  return x;
}
// Truncates toward zero.
template <class I>
I i_div(I x, I y) {
  if (y == 0) return 0;
  if constexpr (std::is_signed_v<I>)
    if (y == -1) return i_neg(x);
  return x / y;
}
// The remainder that goes with i_div: the sign of x.
template <class I>
I i_rem(I x, I y) {
  if (y == 0) return 0;
  if constexpr (std::is_signed_v<I>)
    if (y == -1) return 0;
  return x % y;
}
// The remainder of a floored division: the sign of y.
template <class I>
I i_mod(I x, I y) {
  I r = i_rem(x, y);
  if constexpr (std::is_signed_v<I>)
    if (r != 0 && (r < 0) != (y < 0)) r = i_add(r, y);
  return r;
}
template <class I>
I i_pow(I x, I y) {
  if constexpr (std::is_signed_v<I>)
    if (y < 0) return x == 1 ? 1 : x == -1 ? (y % 2 ? -1 : 1) : 0;
  I r = 1;
  for (; y; y /= 2) {
    if (y % 2) r = i_mul(r, x);
    x = i_mul(x, x);
  }
  return r;
}
// Shifts by a negative count, or by the width or more, leave only the fill: 0, or the sign for a right shift.
template <class I>
I i_shl(I x, I y) {
  return U<I>(y) >= U<I>(8 * sizeof(I)) ? I(0) : I(U<I>(x) << U<I>(y));
}
template <class I>
I i_shr(I x, I y) {
  return U<I>(y) >= U<I>(8 * sizeof(I)) ? (x < 0 ? I(-1) : I(0)) : I(x >> U<I>(y));
}

}  // namespace ai_vmm::rules
