// What passes share: finding patterns in one graph and rewriting it in a sweep from first node to last.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.hpp"
#include "ops/op.hpp"

namespace ai_vmm {

// A sweep visits nodes in order; `visit` brings a node's inputs up to date with what was forwarded so far. Use counts
// may be too high after rewrites, never too low. Nothing is erased, and earlier readers are not updated, before
// `finish`.
class Edit {
 public:
  explicit Edit(Graph& graph);
  Graph& graph;
  int64_t changes = 0;

  size_t size() const { return count_; }
  Node& visit(size_t n);
  bool removed(size_t n) const { return removed_[n]; }

  // The node of ai.onnx that makes v, if it is an `op`; null for other operators, inputs, constants and captures.
  Node* maker(ValueId v, std::string_view op);
  Node* maker(ValueId v);
  int uses(ValueId v) const { return v == kAbsent ? 0 : uses_[static_cast<size_t>(v)]; }  // graph outputs count
  bool is_output(ValueId v) const { return output_[static_cast<size_t>(v)]; }
  const Type& type(ValueId v) const { return graph.value(v).type; }
  const Tensor* constant(ValueId v) const { return graph.is_constant(v) ? &graph.value(v).constant : nullptr; }
  std::optional<double> scalar(ValueId v) const;              // a real constant of one element
  std::optional<std::vector<int64_t>> ints(ValueId v) const;  // an i64 or i32 constant
  bool same_shape(ValueId a, ValueId b) const;                // provably, and of the same element type

  ValueId add_constant(const std::string& name, Tensor tensor);
  // Readers of `from`, an output of node n, read `to` instead. False, with nothing done, where `from` is an output of
  // the graph and its name cannot be given to `to`. The node stays for dead-code elimination.
  bool forward(size_t n, ValueId from, ValueId to);
  // Node `n` takes over output `from` of a later node, which is removed.
  void take_output(Node& node, size_t k, size_t later);
  void become(Node& node, std::string_view op, std::vector<ValueId> inputs, std::vector<Attribute> attributes = {},
              std::string_view domain = "");
  void set_input(Node& node, size_t k, ValueId v);
  void remove(size_t n);

  int64_t finish();  // returns `changes`

 private:
  ValueId resolve(ValueId v) const;
  size_t count_;
  std::vector<int> producer_, uses_;
  std::vector<char> output_, removed_;
  std::vector<ValueId> to_;
};

// Runs `pass` on the bodies inside `graph` and on itself; returns the sum.
Result<int64_t> over_bodies(Graph& graph, Result<int64_t> (*pass)(Graph&));

}  // namespace ai_vmm
