// What can be computed before the run: sizes, constant subgraphs, branches with a constant condition.
#include <algorithm>
#include <memory>

#include "base/memory_budget.hpp"
#include "passes/edit.hpp"
#include "passes/list.hpp"

namespace ai_vmm {

namespace {

// ---------------------------------------------------------------- known sizes

Tensor int_tensor(const Type& type, const std::vector<Dim>& elements) {
  if (!type.is_tensor() || !type.ranked || type.dims.size() > 1) return {};
  if (type.dims.size() == 1 ? !type.dims[0].is(int64_t(elements.size())) : elements.size() != 1) return {};
  std::vector<int64_t> values;
  for (const Dim& d : elements) {
    if (!d.is_constant()) return {};
    values.push_back(*d.constant());
  }
  Shape shape = type.dims.empty() ? Shape{} : Shape{int64_t(values.size())};
  if (type.dtype == DType::i64) return Tensor::of<int64_t>(shape, values);
  if (type.dtype == DType::i32) return Tensor::of<int32_t>(shape, std::vector<int32_t>(values.begin(), values.end()));
  return {};
}

Result<int64_t> known_sizes_here(Graph& graph) {
  Edit edit(graph);
  for (size_t n = 0; n < edit.size(); ++n) {
    Node& node = edit.visit(n);
    if (!node.bodies.empty()) continue;
    for (ValueId v : std::vector<ValueId>(node.outputs)) {
      if (v == kAbsent || edit.uses(v) == 0 || !graph.value(v).ints) continue;
      Tensor t = int_tensor(graph.value(v).type, *graph.value(v).ints);
      if (!t) continue;
      if (graph.nodes[n].outputs.size() == 1) {
        graph.value(v).constant = std::move(t);
        graph.nodes[n].outputs.clear();
        edit.remove(n);
        break;
      }
      if (!edit.is_output(v)) edit.forward(n, v, edit.add_constant(graph.value(v).name, std::move(t)));
    }
  }
  return edit.finish();
}

// ---------------------------------------------------------------- constant folding

constexpr int64_t kGrowthLimit = 16 << 20;  // bytes that folding one node may add to the model
constexpr double kWorkLimit = 1e8;          // of one node; the reference does some 10^7 to 10^8 operations a second

// What one round of the pass may still spend: a hostile model has any number of nodes that are each just small enough.
struct Allowance {
  int64_t bytes = 64 << 20;
  double work = 1e9;
};

// Operators whose constant form says more than their result: a backend multiplies quantised weights as they are.
bool keeps_meaning(const Node& node) {
  return node.op == "DequantizeLinear" || node.op == "QuantizeLinear" || node.op == "MatMulNBits";
}

bool worth_folding(const Graph& graph, const Node& node, Allowance& allowance) {
  if (!node.def || !node.def->eval || (node.def->traits & (kRandom | kControlFlow | kHostOnly)) ||
      !node.bodies.empty() || keeps_meaning(node))
    return false;
  int64_t in = 0, out = 0;
  std::vector<Type> types[2];
  for (ValueId v : node.inputs) {
    types[0].push_back(v == kAbsent ? Type() : graph.value(v).type);
    if (v == kAbsent) continue;
    if (!graph.is_constant(v)) return false;
    in += graph.value(v).constant.bytes();
  }
  bool known = true;
  for (ValueId v : node.outputs) {
    types[1].push_back(v == kAbsent ? Type() : graph.value(v).type);
    if (v == kAbsent) continue;
    auto shape = graph.value(v).type.shape();
    auto count = shape ? element_count(*shape) : std::nullopt;
    if (!count) {
      known = false;
    } else {
      if (*count > INT64_MAX / 32) return false;
      if (__builtin_add_overflow(out, bytes_for(graph.value(v).type.dtype, *count), &out)) return false;
    }
  }
  double work = double(in) / 32 + double(out) / 32;  // bytes are moved some 32 times faster than numbers are computed
  if (known) work += cost_of(*node.def, {node, types[0], types[1]}).flops;
  if (out - in > std::min(kGrowthLimit, allowance.bytes) || work > std::min(kWorkLimit, allowance.work)) return false;
  allowance.work -= work;
  return true;
}

Result<int64_t> fold_here(Graph& graph, Allowance& allowance) {
  int64_t inside = 0;
  for (Node& node : graph.nodes)
    for (Body& body : node.bodies) inside += AI_VMM_TAKE(fold_here(*body.graph, allowance));
  Edit edit(graph);
  for (size_t n = 0; n < edit.size(); ++n) {
    Node& node = edit.visit(n);
    if (!worth_folding(graph, node, allowance)) continue;
    std::vector<Data> inputs;
    int64_t bytes = 0;
    for (ValueId v : node.inputs) {
      inputs.push_back(v == kAbsent ? Data() : Data(graph.value(v).constant));
      if (v != kAbsent) bytes += graph.value(v).constant.bytes();
    }
    Random random;
    auto result = [&] {
      // Outputs of unknown size must not take the machine: a few copies of the inputs are enough for any operator.
      MemoryBudget::Scope scope(std::make_shared<MemoryBudget>(4 * bytes + 4 * kGrowthLimit));
      return evaluate(node, inputs, random);
    }();
    if (!result.ok()) continue;  // the run will say what is wrong, if it gets there
    bool tensors = true;
    for (size_t k = 0; k < node.outputs.size(); ++k)
      tensors = tensors && (node.outputs[k] == kAbsent || (k < (*result).size() && (*result)[k].is_tensor()));
    if (!tensors) continue;
    for (size_t k = 0; k < node.outputs.size(); ++k) {
      if (node.outputs[k] == kAbsent) continue;
      Value& v = graph.value(node.outputs[k]);
      // Storage made under the scope's budget stays charged to it, and to nothing else.
      v.constant = (*result)[k].tensor();
      bytes -= v.constant.bytes();
      v.type = Type::tensor(v.constant.dtype(), to_dims(v.constant.shape()));
    }
    allowance.bytes += std::min<int64_t>(bytes, 0);
    node.outputs.clear();
    edit.remove(n);
  }
  return inside + edit.finish();
}

// ---------------------------------------------------------------- constant branches

// Moves the nodes of a body into the graph around it, before `node`, whose outputs they make.
void inline_body(Graph& graph, const Node& node, const Body& body, std::vector<Node>& out) {
  Graph inner = body.graph->clone();
  std::vector<ValueId> to(inner.values.size(), kAbsent);
  for (size_t k = 0; k < inner.captures.size(); ++k) to[static_cast<size_t>(inner.captures[k])] = body.captures[k];
  std::vector<char> made(inner.values.size(), 0);
  for (const Node& n : inner.nodes)
    for (ValueId v : n.outputs)
      if (v != kAbsent) made[static_cast<size_t>(v)] = 1;
  std::vector<std::pair<ValueId, ValueId>> copies;  // inner value → output of the node
  for (size_t k = 0; k < node.outputs.size() && k < inner.outputs.size(); ++k) {
    if (node.outputs[k] == kAbsent) continue;
    auto v = static_cast<size_t>(inner.outputs[k]);
    if (made[v] && to[v] == kAbsent)
      to[v] = node.outputs[k];
    else
      copies.emplace_back(inner.outputs[k], node.outputs[k]);
  }
  for (size_t v = 0; v < to.size(); ++v) {
    if (to[v] != kAbsent) continue;
    Value& value = inner.values[v];
    to[v] = graph.add_value(node.outputs.empty() ? value.name : value.name + "/" + body.attribute, value.type);
    graph.value(to[v]).constant = std::move(value.constant);
    graph.value(to[v]).ints = std::move(value.ints);
  }
  auto renumber = [&](std::vector<ValueId>& list) {
    for (ValueId& v : list)
      if (v != kAbsent) v = to[static_cast<size_t>(v)];
  };
  for (Node& n : inner.nodes) {
    renumber(n.inputs);
    renumber(n.outputs);
    for (Body& b : n.bodies) renumber(b.captures);
    out.push_back(std::move(n));
  }
  for (auto [from, to_output] : copies) {
    Node copy;
    copy.op = "Identity";
    copy.def = find_op("", "Identity");
    copy.inputs = {to[static_cast<size_t>(from)]};
    copy.outputs = {to_output};
    out.push_back(std::move(copy));
  }
}

Result<int64_t> branches_here(Graph& graph) {
  int64_t changes = 0;
  std::vector<Node> nodes = std::move(graph.nodes), kept;
  graph.nodes.clear();
  for (Node& node : nodes) {
    if (node.op == "If" && node.domain.empty() && node.has_input(0) && graph.is_constant(node.inputs[0])) {
      const Tensor& cond = graph.value(node.inputs[0]).constant;
      if (cond.dtype() == DType::boolean && cond.count() == 1)
        if (const Body* body = node.body(cond.as<bool>()[0] ? "then_branch" : "else_branch")) {
          inline_body(graph, node, *body, kept);
          ++changes;
          continue;
        }
    }
    kept.push_back(std::move(node));
  }
  graph.nodes = std::move(kept);
  return changes;
}

}  // namespace

Result<int64_t> known_sizes(Graph& graph) { return over_bodies(graph, known_sizes_here); }
Result<int64_t> fold_constants(Graph& graph) {
  Allowance allowance;
  return fold_here(graph, allowance);
}
Result<int64_t> constant_branches(Graph& graph) { return over_bodies(graph, branches_here); }

}  // namespace ai_vmm
