// Activations that a product, convolution or normalisation applies to its results.
#pragma once

#include <optional>

#include "backends/cpu/kernel.hpp"
#include "backends/cpu/kernels/kernels.hpp"

namespace ai_vmm::cpu {

struct Activation {
  Act act = Act::none;
  float a = 0, b = 0;
};
// From the attributes "act", "act_a", "act_b" of a node of domain "cpu", or ONNX Runtime's "activation"; nullopt:
// unknown.
std::optional<Activation> activation_of(const Node& node);
// A single-input elementwise node as an activation; nullopt: it is none.
std::optional<Activation> as_activation(const Graph& graph, const Node& node);
void set_activation(Node& node, Activation a);

}  // namespace ai_vmm::cpu
