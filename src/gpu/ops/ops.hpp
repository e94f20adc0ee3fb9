// The Makers of ops.def, and what several of them share.
#pragma once

#include "gpu/kernel.hpp"

namespace ai_vmm::gpu {

Made make_elementwise(const Make& m);
// A Maker may serve several rows.
#define KERNEL(domain, op, make) Made make(const Make& m);
#define FUSED(domain, op, make, channel) Made make(const Make& m);
#include "gpu/ops/ops.def"

// Axes of `shape` merged where every operand walks through them as through one; axes of size 1 dropped. `strides[k]`
// are operand k's, in elements. At least one axis is left.
struct Walk {
  Shape dims;
  std::vector<Shape> strides;
};
Walk collapse(const Shape& shape, std::vector<Shape> strides);
// Strides of a tensor of shape `from` read as one of shape `to` (numpy broadcasting).
Shape broadcast_strides(const Shape& from, const Shape& to);

// out[walk by out_strides + out_base] = in[walk by in_strides + in_base] for every position of `shape`; elements of
// `bytes` bytes; `in` and `out` number the node's tensors.
Launch copy_launch(const Bind& b, size_t in, size_t out, int bytes, const Shape& shape, const Shape& in_strides,
                   int64_t in_base, const Shape& out_strides, int64_t out_base);
// Storage type of elements of so many bytes.
const char* raw_type(int bytes);

}  // namespace ai_vmm::gpu
