// The functions behind the list in pass.cpp; each works on one graph and its bodies and returns the number of changes.
#pragma once

#include "passes/pass.hpp"

namespace ai_vmm {

Result<int64_t> known_sizes(Graph& graph);
Result<int64_t> fold_constants(Graph& graph);
Result<int64_t> constant_branches(Graph& graph);
Result<int64_t> simplify(Graph& graph);
Result<int64_t> merge_duplicates(Graph& graph);
Result<int64_t> fold_into_weights(Graph& graph);
Result<int64_t> recognise_composites(Graph& graph);
Result<int64_t> dead_code(Graph& graph);

}  // namespace ai_vmm
