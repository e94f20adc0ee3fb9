// Runs a graph by the operators' reference functions, one node after another: what reference, sim and null have in
// common. Slow and obvious.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "ai_vmm/backend_abi.h"
#include "graph/graph.hpp"

namespace ai_vmm {

// Immutable, shared by threads.
class Interpreter {
 public:
  explicit Interpreter(Graph graph);
  const Graph& graph() const { return graph_; }

  // Called after each node with what it read and made.
  using Observer = std::function<void(const Node& node, std::span<const Data> inputs, std::span<const Data> outputs)>;

  // The graph's outputs for dense inputs. Looks at run.cancel between nodes.
  Result<std::vector<Tensor>> run(std::span<const AiVmmTensor* const> inputs, const AiVmmRun& run,
                                  const Observer& observe = {}) const;

 private:
  Graph graph_;
  std::vector<int> last_use_;  // of each value: node index; nodes.size() for outputs
};

Tensor view_of(const AiVmmTensor& tensor);  // of dense host memory

// Hands results over: into the caller's memory where the shape fits, else through run.allocate.
Status deliver(const Graph& graph, std::span<const Tensor> results, std::span<const AiVmmTensor* const> outputs,
               const AiVmmRun& run);

}  // namespace ai_vmm
