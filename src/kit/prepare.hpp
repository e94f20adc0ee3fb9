// What a compiling backend does to a region before its own passes.
#pragma once

#include "graph/graph.hpp"

namespace ai_vmm {

// Makes every size follow from the shapes of the region's inputs, or fresh inside the region; folds constants; drops
// what nothing needs. Fails when a node makes what `backend` cannot hold: strings, sequences, optionals, maps.
Status prepare(Graph& graph, const char* backend);
// Drops nodes whose outputs nothing reads, and those that only make constants.
void remove_dead_nodes(Graph& graph);

}  // namespace ai_vmm
