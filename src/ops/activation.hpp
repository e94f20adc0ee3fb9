// Scalar activation functions that are named by attributes: of recurrent layers and of fused operators.
#pragma once

#include <functional>
#include <optional>

#include "ops/op.hpp"

namespace ai_vmm {

using Activation = std::function<double(double)>;

// `name` in any case: Relu, Tanh, Sigmoid, Affine, LeakyRelu, ThresholdedRelu, ScaledTanh, HardSigmoid, Elu, Softsign,
// Softplus, Selu (beta stands for gamma), Clip (alpha: low, beta: high). Without alpha and beta the function has its
// ONNX defaults.
Result<Activation> activation(const Node& node, const std::string& name, std::optional<float> alpha = {},
                              std::optional<float> beta = {});

inline double sigmoid(double x) { return 1 / (1 + __builtin_exp(-x)); }
inline double gelu(double x) { return 0.5 * x * (1 + __builtin_erf(x * 0.70710678118654752440)); }

}  // namespace ai_vmm
