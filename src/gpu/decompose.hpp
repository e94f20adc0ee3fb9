// Operators that are several simpler ones: quantised operators, and fused ones of com.microsoft.
#pragma once

#include "graph/graph.hpp"

namespace ai_vmm::gpu {

// Puts their parts in their place; false: there are none in the graph. What has a form without parts stays. Products of
// whole numbers become gpu.IntegerMatMul and gpu.IntegerConv, of whole numbers below 256 in float32.
bool decompose(Graph& graph);

}  // namespace ai_vmm::gpu
