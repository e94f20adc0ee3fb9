// Elementwise operators as little programs over blocks: what the fusion pass joins and ops/elementwise.cpp runs.
#pragma once

#include <optional>
#include <vector>

#include "backends/cpu/kernel.hpp"

namespace ai_vmm::cpu {

// Operand k < inputs.size() is an input, otherwise the result of instruction k - inputs.size(); -1: none.
struct Instruction {
  int fn;  // index into Kernels::block_functions
  int a = -1, b = -1, c = -1;
  float p0 = 0, p1 = 0;
};
struct BlockProgram {
  std::vector<ValueId> inputs;
  std::vector<Instruction> code;
  std::vector<int> results;  // instructions, one an output of the node
};

// Index of the function for `op` on elements of `in` (with result `out` where several differ by it); -1: none.
int find_block_function(const char* op, DType in, DType out = DType::undefined);
// The node as a program; nullopt where it is not elementwise or has no functions for its types.
std::optional<BlockProgram> block_program(const Graph& graph, const Node& node);
// A node (domain "cpu", operator "Elementwise") for a program; the caller appends it to a graph.
Node program_node(const BlockProgram& program, std::vector<ValueId> outputs);

}  // namespace ai_vmm::cpu
