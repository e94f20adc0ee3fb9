// The shape rule and the loops of a convolution, shared by Conv and its quantised kin.
#pragma once

#include <vector>

#include "ops/op.hpp"

namespace ai_vmm {

struct Image {
  Shape shape;  // [N, C, spatial…]; of weights [M, C/group, kernel…]
  std::vector<double> values;
};

// Output 0 gets the element type `dtype` and the shape of input x convolved with input w.
Status infer_conv(Infer& c, DType dtype, size_t x, size_t w);

// x convolved with w under the window attributes of `node`, plus one bias a channel; `shape` is the output's.
Result<std::vector<double>> convolve(const Node& node, const Image& x, const Image& w, const std::vector<double>& bias,
                                     const Shape& shape);

}  // namespace ai_vmm
