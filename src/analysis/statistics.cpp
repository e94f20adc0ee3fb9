#include <algorithm>
#include <set>

#include "analysis/analyse.hpp"
#include "ops/op.hpp"

namespace ai_vmm {

namespace {

// The type with every dimension an integer, if all its symbols have a size.
std::optional<Type> sized(const Type& type, const Dim::Lookup& sizes) {
  if (!type.is_tensor() || !type.ranked) return std::nullopt;
  Type t = type;
  for (Dim& d : t.dims) {
    auto v = d.evaluate(sizes);
    if (!v || *v < 0) return std::nullopt;
    d = Dim(*v);
  }
  return t;
}

int64_t bytes_of(const Type& type) {
  auto shape = type.shape();
  auto count = shape ? element_count(*shape) : std::nullopt;
  return count && bits(type.dtype) && *count < (int64_t(1) << 56) ? bytes_for(type.dtype, *count) : 0;
}

void add(const Graph& graph, const Dim::Lookup& sizes, Analysis& a) {
  for (const Value& v : graph.values)
    if (v.constant) {
      a.parameters += v.constant.count();
      a.weight_bytes += v.constant.bytes();
    }
  const auto users = graph.users();
  std::set<ValueId> kept(graph.outputs.begin(), graph.outputs.end());  // not freed by a node of this graph
  kept.insert(graph.inputs.begin(), graph.inputs.end());
  kept.insert(graph.captures.begin(), graph.captures.end());
  int64_t live = 0;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    ++a.nodes;
    OpStatistics& op = a.operators[(node.domain.empty() ? "" : node.domain + ".") + node.op];
    ++op.count;
    bool all = true;
    auto types = [&](const std::vector<ValueId>& values) {
      std::vector<Type> list;
      for (ValueId v : values) {
        auto t = v == kAbsent ? std::optional(Type()) : sized(graph.value(v).type, sizes);
        all = all && t;
        list.push_back(t.value_or(Type()));
      }
      return list;
    };
    std::vector<Type> in = types(node.inputs), out = types(node.outputs);
    if (!all) {
      ++a.unsized;
    } else if (node.bodies.empty()) {
      Cost cost = cost_of(*node.def, CostQuery{node, in, out});
      a.flops += cost.flops;
      a.bytes += cost.bytes_read + cost.bytes_written;
      op.flops += cost.flops;
      op.bytes += cost.bytes_read + cost.bytes_written;
    }
    for (const Type& t : out) live += bytes_of(t);
    a.peak_bytes = std::max(a.peak_bytes, live);
    std::set<ValueId> ended;  // values whose last reader this node is, and its outputs that nothing reads
    for (ValueId v : node.inputs)
      if (v != kAbsent && !users[size_t(v)].empty() && users[size_t(v)].back() == int(n)) ended.insert(v);
    for (ValueId v : node.outputs)
      if (v != kAbsent && users[size_t(v)].empty()) ended.insert(v);
    for (ValueId v : ended)
      if (!kept.contains(v) && !graph.is_constant(v))
        if (auto t = sized(graph.value(v).type, sizes)) live -= bytes_of(*t);
    for (const Body& b : node.bodies) add(*b.graph, sizes, a);
  }
}

}  // namespace

Analysis analyse(const Graph& graph, const Dim::Lookup& sizes) {
  Analysis a;
  Recognised r = recognise(graph);
  a.kind = r.kind;
  a.why = std::move(r.why);
  add(graph, sizes, a);
  return a;
}

}  // namespace ai_vmm
