// Where Resize reads: shared by the reference and by backends.
#pragma once

#include <vector>

#include "graph/graph.hpp"

namespace ai_vmm {

// One axis of a Resize: sizes before and after, the scale as given (not their ratio), and the region of interest.
struct ResizeAxis {
  int64_t in = 0, out = 0;
  double scale = 1, roi_start = 0, roi_end = 1;
};

// What one output position along one axis reads: the sum of in[clamp(start + k)] * weights[k], or a constant when
// `outside`.
struct ResizeTaps {
  int64_t start = 0;
  std::vector<double> weights;
  bool outside = false;
};

// One entry an output position, by the node's mode, coordinate_transformation_mode and further attributes.
Result<std::vector<ResizeTaps>> resize_taps(const Node& node, const ResizeAxis& axis);

}  // namespace ai_vmm
