// Small graphs of one operator each, with inputs, for every operator that has a row in cases.cpp or is elementwise.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.hpp"

namespace ai_vmm::certify {

struct Case {
  std::string name;  // "MatMul f32[3,4] f32[4,5]"
  std::string op;
  Graph graph;
  std::vector<Tensor> inputs;
};

// Built once; the expected results come from the reference functions when a case is run.
const std::vector<Case>& cases();

// Numbers that suit the graph's inputs: floats about 0, small positive integers.
std::vector<Tensor> make_inputs(const Graph& graph, uint64_t seed, int64_t symbol_size = 5);

// A graph from "f32[3,4] f32[4,5] = MatMul", as the rows of cases.cpp are written. Empty name on failure.
Result<Graph> graph_of(const std::string& row);

}  // namespace ai_vmm::certify
