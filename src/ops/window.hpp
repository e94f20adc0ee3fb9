// Geometry of operators that slide a window over spatial axes: convolutions and pools.
#pragma once

#include "ops/op.hpp"

namespace ai_vmm {

// One entry a spatial axis; `pads` holds all begins, then all ends, and is zero under auto_pad.
struct Window {
  enum class Auto { notset, same_upper, same_lower, valid };
  Shape kernel, strides, dilations, pads;
  Auto auto_pad = Auto::notset;
  bool ceil = false;

  size_t axes() const { return kernel.size(); }
  int64_t extent(size_t i) const { return (kernel[i] - 1) * dilations[i] + 1; }
  // Output size along axis i. With ceil, a last window that would start in the padding after the input is dropped.
  Dim output(size_t i, const Dim& input) const;
  // Pads before axis i. Under SAME they depend on the input size.
  int64_t before(size_t i, int64_t input) const;
};

// Reads strides, dilations, pads, auto_pad and ceil_mode of `node` and checks them against the kernel.
Result<Window> window_of(const Node& node, Shape kernel);
// The same for pools, whose kernel is the attribute kernel_shape; `axes` is the number of spatial axes.
Result<Window> pool_window(const Node& node, size_t axes);

// A failure that names the node, as Infer::error and Eval::error make it.
Status node_error(const Node& node, const std::string& what);

// Output dims of a convolution of X [N, C, spatial…] with W [M, C/group, kernel…]; checks what is known of both.
Result<std::vector<Dim>> conv_output(const Node& node, const std::vector<Dim>& x, const std::vector<Dim>& w);

// ConvTranspose: output spatial sizes and the pads before each axis (known where the input sizes are).
struct TransposedWindow {
  Window window;
  Shape output_padding;
  std::vector<Dim> output;  // spatial
  std::vector<Dim> before;
};
Result<TransposedWindow> transposed_window(const Node& node, Shape kernel, std::span<const Dim> spatial);

}  // namespace ai_vmm
