// The one list of operator families. A new family file adds its table here and to CMakeLists.txt, nothing else.
#pragma once

#include <span>
#include <vector>

#include "ops/op.hpp"

namespace ai_vmm {

std::vector<std::span<const OpDef>> op_families();

namespace detail {
// infer_types for a graph or body whose fresh symbols are numbered from `symbols`.
Status infer_graph(Graph& graph, int64_t& symbols);
}  // namespace detail

}  // namespace ai_vmm
