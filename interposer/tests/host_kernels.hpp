// bf16_kernels.cu, compiled for the host: one of the device's threads after the other.
#pragma once

#include <cstring>

namespace host_kernels {

struct Index {
  unsigned x, y, z;
};
inline thread_local Index blockIdx, blockDim, threadIdx, gridDim;
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

#define __device__
#define __global__ __attribute__((visibility("hidden"), unused))
#include "../bf16_kernels.cu"
#undef __device__
#undef __global__

// What a launch does.
template <class Kernel>
void launch(unsigned grid_x, unsigned grid_y, unsigned threads, Kernel&& kernel) {
  gridDim = {grid_x, grid_y, 1};
  blockDim = {threads, 1, 1};
  for (unsigned y = 0; y < grid_y; y++)
    for (unsigned x = 0; x < grid_x; x++)
      for (unsigned t = 0; t < threads; t++) {
        blockIdx = {x, y, 0};
        threadIdx = {t, 0, 0};
        kernel();
      }
}

}  // namespace host_kernels
