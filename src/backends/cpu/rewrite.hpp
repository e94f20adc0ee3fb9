// What the passes need to see of a graph while they change it.
#pragma once

#include <algorithm>
#include <vector>

#include "backends/cpu/program_impl.hpp"

namespace ai_vmm::cpu {

class Rewriter {
 public:
  explicit Rewriter(Graph& graph) : g(graph) { refresh(); }

  void refresh() {
    producer = g.producers();
    uses.assign(g.values.size(), 0);
    user.assign(g.values.size(), -1);
    for (size_t n = 0; n < g.nodes.size(); ++n)
      for (ValueId v : g.nodes[n].inputs)
        if (v != kAbsent) ++uses[size_t(v)], user[size_t(v)] = int(n);
    for (ValueId v : g.outputs) uses[size_t(v)] += 2;  // never anybody's alone
  }
  // The node that alone reads v, once; -1 when there is none.
  int sole_user(ValueId v) const { return uses[size_t(v)] == 1 ? user[size_t(v)] : -1; }
  Node* made_by(ValueId v) {
    return v == kAbsent || producer[size_t(v)] < 0 ? nullptr : &g.nodes[size_t(producer[size_t(v)])];
  }
  static void kill(Node& n) {
    n.op.clear();
    n.inputs.clear();
    n.outputs.clear();
  }
  void sweep() {
    std::erase_if(g.nodes, [](const Node& n) { return n.op.empty(); });
    refresh();
  }
  const Type& type(ValueId v) const { return g.value(v).type; }
  bool is_f32(ValueId v) const { return type(v).dtype == DType::f32 && type(v).ranked; }
  bool same_dims(ValueId a, ValueId b) const {
    return type(a).ranked && type(b).ranked && type(a).dims == type(b).dims;
  }

  Graph& g;
  std::vector<int> producer, uses, user;
};

// The value of a constant with one element.
std::optional<float> scalar_constant(const Graph& g, ValueId v);
// Reshape and its like: the same elements in the same order.
bool is_reshape(const Node& n);

Status expand_batch_norm(Lowering& l);
Status fuse_convolutions(Lowering& l);
Status fuse_products(Lowering& l);
Status fuse_elementwise(Lowering& l);
Status assign_layouts(Lowering& l);

}  // namespace ai_vmm::cpu
