// Padded planes, which convolutions on devices with wide registers read.
#pragma once

#include "gpu/kernel.hpp"

namespace ai_vmm::gpu {

// [images × channels][phases of the stride][ph][pw], and `tail` zeros after them.
struct Planes {
  int64_t count;  // images × channels × phases
  int64_t h, w;   // of the picture
  int64_t ph, pw, top, left, tail;
  int64_t floats() const { return count * ph * pw + tail; }
};
// From input 0 into scratch memory from byte 0 on. `words`: idx, and the strides sh and sw.
Launch planes_launch(const Planes& planes, const Words& words, const Bind& b);

}  // namespace ai_vmm::gpu
