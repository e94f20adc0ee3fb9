// Normalisation of rows, shared by the ONNX operators and those of com.microsoft.
#pragma once

#include <optional>
#include <span>

namespace ai_vmm {

// y = (x - mean) / sqrt(variance + epsilon), or x / sqrt(mean square + epsilon) when not `centered`; times scale, plus
// bias, where they are not empty. `scale` and `bias` may be shorter than x: then they repeat. Returns mean and 1 /
// deviation.
struct RowMoments {
  double mean, inverse_deviation;
};
RowMoments normalize_row(std::span<const double> x, std::span<double> y, std::span<const double> scale,
                         std::span<const double> bias, double epsilon, bool centered);

}  // namespace ai_vmm
