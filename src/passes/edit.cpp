#include "passes/edit.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

Edit::Edit(Graph& g)
    : graph(g),
      count_(g.nodes.size()),
      producer_(g.producers()),
      uses_(g.values.size(), 0),
      output_(g.values.size(), 0),
      removed_(g.nodes.size(), 0),
      to_(g.values.size()) {
  auto use = [&](ValueId v) {
    if (v != kAbsent) ++uses_[static_cast<size_t>(v)];
  };
  for (const Node& node : g.nodes) {
    for (ValueId v : node.inputs) use(v);
    for (const Body& body : node.bodies)
      for (ValueId v : body.captures) use(v);
  }
  for (ValueId v : g.outputs) {
    use(v);
    output_[static_cast<size_t>(v)] = 1;
  }
  for (size_t v = 0; v < to_.size(); ++v) to_[v] = static_cast<ValueId>(v);
}

ValueId Edit::resolve(ValueId v) const {
  while (v != kAbsent && to_[static_cast<size_t>(v)] != v) v = to_[static_cast<size_t>(v)];
  return v;
}

Node& Edit::visit(size_t n) {
  Node& node = graph.nodes[n];
  for (ValueId& v : node.inputs) v = resolve(v);
  for (Body& body : node.bodies)
    for (ValueId& v : body.captures) v = resolve(v);
  return node;
}

Node* Edit::maker(ValueId v) {
  if (v == kAbsent || producer_[static_cast<size_t>(v)] < 0) return nullptr;
  auto n = static_cast<size_t>(producer_[static_cast<size_t>(v)]);
  return removed_[n] ? nullptr : &visit(n);
}
Node* Edit::maker(ValueId v, std::string_view op) {
  Node* node = maker(v);
  return node && node->op == op && node->domain.empty() ? node : nullptr;
}

std::optional<double> Edit::scalar(ValueId v) const {
  const Tensor* t = constant(v);
  if (!t || t->count() != 1 || !(is_float(t->dtype()) || is_integer(t->dtype()))) return std::nullopt;
  return ref::load<double>(*t)[0];
}

std::optional<std::vector<int64_t>> Edit::ints(ValueId v) const {
  const Tensor* t = constant(v);
  if (!t || (t->dtype() != DType::i64 && t->dtype() != DType::i32)) return std::nullopt;
  return ref::ints(*t);
}

bool Edit::same_shape(ValueId a, ValueId b) const {
  const Type &s = type(a), &t = type(b);
  return s.is_tensor() && t.is_tensor() && s.dtype != DType::undefined && s.dtype == t.dtype && s.ranked && t.ranked &&
         s.dims == t.dims;
}

ValueId Edit::add_constant(const std::string& name, Tensor tensor) {
  ValueId v = graph.add_constant(name, std::move(tensor));
  producer_.push_back(-1);
  uses_.push_back(0);
  output_.push_back(0);
  to_.push_back(v);
  return v;
}

bool Edit::forward(size_t n, ValueId from, ValueId to) {
  AI_VMM_CHECK(from != to, "a value forwarded to itself");
  auto f = static_cast<size_t>(from), t = static_cast<size_t>(to);
  if (output_[f]) {
    // The graph's output keeps its name: whoever makes `to` makes `from` instead.
    Node& node = graph.nodes[n];
    if (graph.value(to).constant && producer_[t] < 0) {
      if (node.outputs.size() != 1 ||
          std::find(graph.captures.begin(), graph.captures.end(), to) != graph.captures.end())
        return false;
      graph.value(from).constant = graph.value(to).constant;
      node.outputs.clear();
      removed_[n] = 1;
      producer_[f] = -1;
      ++changes;
      return true;
    }
    if (producer_[t] < 0 || output_[t] || node.outputs.size() != 1) return false;
    auto p = static_cast<size_t>(producer_[t]);
    for (ValueId& v : graph.nodes[p].outputs)
      if (v == to) v = from;
    node.outputs.clear();
    removed_[n] = 1;
    producer_[f] = static_cast<int>(p);
    producer_[t] = -1;
    to_[t] = from;
    uses_[f] += uses_[t];
    Value &kept = graph.value(from), &gone = graph.value(to);
    if (!kept.type.ranked) kept.type = gone.type;
    if (!kept.ints) kept.ints = gone.ints;
    ++changes;
    return true;
  }
  to_[f] = to;
  uses_[t] += uses_[f];
  ++changes;
  return true;
}

void Edit::take_output(Node& node, size_t k, size_t later) {
  Node& gone = graph.nodes[later];
  ValueId v = gone.outputs[0];
  int self = producer_[static_cast<size_t>(node.outputs[k])];
  producer_[static_cast<size_t>(node.outputs[k])] = -1;
  node.outputs[k] = v;
  producer_[static_cast<size_t>(v)] = self;
  gone.outputs.clear();
  removed_[later] = 1;
  ++changes;
}

void Edit::become(Node& node, std::string_view op, std::vector<ValueId> inputs, std::vector<Attribute> attributes,
                  std::string_view domain) {
  node.op = op;
  node.domain = domain;
  node.def = find_op(domain, op);
  node.inputs = std::move(inputs);
  node.attributes = std::move(attributes);
  for (ValueId v : node.inputs)
    if (v != kAbsent) ++uses_[static_cast<size_t>(v)];
  ++changes;
}

void Edit::set_input(Node& node, size_t k, ValueId v) {
  if (node.inputs.size() <= k) node.inputs.resize(k + 1, kAbsent);
  node.inputs[k] = v;
  if (v != kAbsent) ++uses_[static_cast<size_t>(v)];
}

void Edit::remove(size_t n) {
  removed_[n] = 1;
  ++changes;
}

int64_t Edit::finish() {
  if (changes == 0) return 0;
  std::vector<Node> kept;
  kept.reserve(graph.nodes.size());
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    if (n < count_ && removed_[n]) continue;
    visit(n);
    kept.push_back(std::move(graph.nodes[n]));
  }
  graph.nodes = std::move(kept);
  return changes;
}

Result<int64_t> over_bodies(Graph& graph, Result<int64_t> (*pass)(Graph&)) {
  int64_t sum = 0;
  for (Node& node : graph.nodes)
    for (Body& body : node.bodies) sum += AI_VMM_TAKE(over_bodies(*body.graph, pass));
  return sum + AI_VMM_TAKE(pass(graph));
}

}  // namespace ai_vmm
