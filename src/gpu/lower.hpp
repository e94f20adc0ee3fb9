// What compile does to a prepared graph before steps are made of it.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "gpu/kernel.hpp"
#include "graph/graph.hpp"

namespace ai_vmm::gpu {

// Rewrites operators into others that kernels serve better: the biases of Conv and Gemm, and BatchNormalization, become
// elementwise nodes, which fuse with what they follow; products and their like in half precision are computed in
// float32 where no matrix units take them.
Status lower(Graph& graph, const Traits& traits);
// What `lower` makes of one node alone, where that decides whether it has kernels; nullopt: nothing.
std::optional<Graph> lowered(const Graph& graph, const Node& node, const Traits& traits);

// One or several nodes that run as one step.
struct Group {
  Node node;  // inputs and outputs are those of the group
  std::shared_ptr<const Epilogue> epilogue;
  std::shared_ptr<const Expression> expression;  // elementwise nodes alone
};
// In an order in which they can run.
std::vector<Group> fuse(const Graph& graph, const Traits& traits);

// The output has the elements of input 0 in the same order: it shares its storage.
bool shares_storage(const Node& node);
// The elements are integers that follow from the sizes of `inputs`.
bool known_integers(const Graph& graph, std::span<const ValueId> inputs, ValueId value);

}  // namespace ai_vmm::gpu
