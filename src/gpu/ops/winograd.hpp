// Winograd's convolution with 3×3 filters (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015).
#pragma once

#include "gpu/kernel.hpp"

namespace ai_vmm::gpu {

// Of stride and dilation 1, in one group, of float32, with constant filters.
struct Winograd {
  int64_t n, c, o;  // images, channels in and out
  int64_t h, w, oh, ow, top, left;
  const Epilogue* epilogue;
  const float* filters;  // [o][c][3][3]
  std::string key;       // of the filters
};

// Outputs along an edge of a tile, 4 or 2: what leaves the fewest products, padding counted. F(4×4, 3×3) is well within
// the accuracy of float32 that docs/accuracy.md states, so that exactness is no reason for the smaller tile.
int winograd_edge(const Winograd& task, const Traits& traits);
std::string winograd_note(int edge);
// Of Bind::pack, under which the transformed filters lie.
std::string winograd_key(const Winograd& task, int edge, const Traits& traits);

// On devices with wide registers.
Result<Bound> bind_winograd(const Winograd& task, const Bind& b, int edge);

}  // namespace ai_vmm::gpu
