#pragma once

#include <cstddef>
#include <cstdint>

// Conversion between float32 and bfloat16, and the sums of compressed collectives. Rounding is to nearest, ties to
// even; a NaN stays a NaN of the same sign with its upper payload, made quiet; subnormals are kept; what is above the
// largest bfloat16 becomes infinite.
namespace AIRamp::Interposer::bf16 {

inline std::uint16_t round(std::uint32_t bits) {
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

struct Kernels {
  const char* name;
  void (*pack_bf16_v4)(const float* from, std::uint16_t* to, std::size_t count);
  void (*unpack_bf16_v4)(const std::uint16_t* from, float* to, std::size_t count);
  // to += from, in float32.
  void (*add_bf16_v4)(const std::uint16_t* from, float* to, std::size_t count);
};

// The kernels for an instruction set, "avx512", "avx2" or "generic"; nullptr if this processor lacks it.
const Kernels* kernels_for(const char* isa);

// The best that this processor has.
const Kernels& kernels();

}  // namespace AIRamp::Interposer::bf16
