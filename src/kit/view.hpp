// Graph ⇄ the flat view of backend_abi.h.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "ai_vmm/backend_abi.h"
#include "graph/graph.hpp"

namespace ai_vmm {

// A flat view of a graph without bodies. Owns what it points to, except the constants' elements and names, which are
// the graph's: the graph must outlive the view and stay unchanged.
class GraphView {
 public:
  explicit GraphView(const Graph& graph);
  GraphView(const GraphView&) = delete;
  const AiVmmGraph* get() const { return &graph_; }

 private:
  int64_t code(const Dim& dim);
  const AiVmmValue* value(std::string_view name, const Type& type, const Tensor& constant,
                          const std::vector<Dim>* ints);
  template <class T>
  const T* keep(std::vector<T> list);

  AiVmmGraph graph_;
  std::deque<AiVmmValue> values_;
  std::deque<AiVmmNode> nodes_;
  std::deque<AiVmmAttribute> attributes_;
  std::deque<std::shared_ptr<const void>> lists_;
  std::deque<std::string> texts_;
  std::vector<AiVmmText> expressions_;
};

// A Graph of our own from a view, with operator definitions bound and types as given. Fails on an operator this build
// does not know. Constants are views of the view's elements.
Result<Graph> graph_from_view(const AiVmmGraph& view);

}  // namespace ai_vmm
