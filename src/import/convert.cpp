#include "import/convert.hpp"

#include <algorithm>
#include <unordered_map>

#include "base/text.hpp"
#include "import/convert_rules.hpp"

namespace ai_vmm {

// ---------------------------------------------------------------- Rewrite

Status Rewrite::error(Code code, const std::string& what) const {
  std::string label = node.label();
  label[0] = 'O';
  return Status(code, label + ": " + what);
}

Status Rewrite::require_inputs(size_t count) const {
  for (size_t k = 0; k < count; ++k)
    if (!node.has_input(k)) return error(Code::invalid_argument, "input " + std::to_string(k) + " is missing.");
  return {};
}

ValueId Rewrite::fresh(std::string_view suffix) {
  std::string base = "value";
  for (ValueId v : node.outputs)
    if (v != kAbsent) {
      base = graph.value(v).name;
      break;
    }
  base.append("/").append(suffix);
  std::string name = base;
  for (int k = 2; !names_.insert(name).second; ++k) name = base + "_" + std::to_string(k);
  graph.values.push_back({std::move(name), {}, {}, {}});
  return static_cast<ValueId>(graph.values.size() - 1);
}

void Rewrite::set_input(size_t k, ValueId v) {
  if (node.inputs.size() <= k) node.inputs.resize(k + 1, kAbsent);
  node.inputs[k] = v;
}

void Rewrite::drop_outputs_from(size_t k) {
  if (node.outputs.size() > k) node.outputs.resize(k);
}

bool Rewrite::used(size_t k) const {
  if (!node.has_output(k)) return false;
  auto v = static_cast<size_t>(node.outputs[k]);
  return v < used_.size() && used_[v];
}

ValueId Rewrite::constant(Tensor tensor) {
  ValueId v = fresh("const");
  graph.value(v).type = Type::tensor(tensor.dtype(), to_dims(tensor.shape()));
  graph.value(v).constant = std::move(tensor);
  return v;
}

ValueId Rewrite::scalar_like(float value, ValueId x) {
  DType dtype = type(x).dtype;
  if (dtype == DType::f64) return constant(Tensor::scalar<double>(value));
  ValueId c = constant(Tensor::scalar<float>(value));
  return dtype == DType::f32 ? c : emit("CastLike", {c, x});
}

ValueId Rewrite::emit(std::string_view op, std::vector<ValueId> inputs, Attributes attributes) {
  Node n;
  n.op = op;
  n.name = node.name;
  n.inputs = std::move(inputs);
  n.attributes = std::move(attributes);
  ValueId v = fresh(op);
  n.outputs = {v};
  before.push_back(std::move(n));
  return v;
}

void Rewrite::finish(size_t k, std::string_view op, std::vector<ValueId> inputs, Attributes attributes) {
  Node n;
  n.op = op;
  n.name = node.name;
  ValueId made = fresh(node.op);
  for (ValueId& v : inputs)
    if (v == kAbsent) v = made;
  n.inputs = std::move(inputs);
  n.outputs = {node.outputs[k]};
  n.attributes = std::move(attributes);
  node.outputs[k] = made;
  after.insert(after.begin(), std::move(n));
}

void Rewrite::become(std::string_view op, std::vector<ValueId> inputs, Attributes attributes) {
  node.op = op;
  node.inputs = std::move(inputs);
  node.attributes = std::move(attributes);
}

Status Rewrite::ints_to_input(std::string_view name, size_t k) {
  if (!node.has(name)) return {};
  auto values = AI_VMM_TAKE(ints(name));
  node.remove(name);
  if (!node.has_input(k)) set_input(k, constant(values));
  return {};
}

// ---------------------------------------------------------------- engine

namespace {

using Steps = std::unordered_map<std::string, std::vector<const VersionStep*>>;

const Steps& steps_by_op() {  // "domain.op" → steps, ascending
  static const Steps table = [] {
    Steps t;
    for (const VersionStep& step : version_steps())
      for (std::string_view op : split(step.ops, ' '))
        if (!op.empty()) t[std::string(step.domain) + "." + std::string(op)].push_back(&step);
    for (auto& [op, list] : t)
      std::stable_sort(list.begin(), list.end(), [](auto* a, auto* b) { return a->below < b->below; });
    return t;
  }();
  return table;
}

Result<int> version_of(const std::string& domain, const std::map<std::string, int>& opsets) {
  // A model without any opset import is from before they existed (IR version 2): version 1.
  if (opsets.empty()) return 1;
  auto it = opsets.find(domain);
  if (it == opsets.end() && domain.empty()) it = opsets.find("ai.onnx");
  return it == opsets.end() ? kEveryVersion - 1 : it->second;
}

// The tensor of a Constant node, whichever attribute states it; an empty one when none does.
Tensor constant_of(const Node& node) {
  for (const Attribute& a : node.attributes) {
    if (a.name == "value" || a.name == "sparse_value") {
      if (auto* t = std::get_if<Tensor>(&a.value)) return *t;
    } else if (a.name == "value_float") {
      if (auto* v = std::get_if<float>(&a.value)) return Tensor::scalar(*v);
    } else if (a.name == "value_int") {
      if (auto* v = std::get_if<int64_t>(&a.value)) return Tensor::scalar(*v);
    } else if (a.name == "value_string") {
      if (auto* v = std::get_if<std::string>(&a.value)) return Tensor::scalar(*v);
    } else if (a.name == "value_floats") {
      if (auto* v = std::get_if<std::vector<float>>(&a.value)) return Tensor::vector(*v);
    } else if (a.name == "value_ints") {
      if (auto* v = std::get_if<std::vector<int64_t>>(&a.value)) return Tensor::vector(*v);
    } else if (a.name == "value_strings") {
      if (auto* v = std::get_if<std::vector<std::string>>(&a.value)) return Tensor::vector(*v);
    }
  }
  return {};
}

// Constant nodes become constants of the graph, so that steps and inference see their values.
void hoist_constants(Graph& graph) {
  std::erase_if(graph.nodes, [&](const Node& node) {
    if (node.op != "Constant" || !node.domain.empty() || node.outputs.size() != 1 || node.outputs[0] == kAbsent)
      return false;
    Tensor t = constant_of(node);
    if (!t) return false;
    Value& v = graph.value(node.outputs[0]);
    v.type = Type::tensor(t.dtype(), to_dims(t.shape()));
    v.constant = std::move(t);
    return true;
  });
}

Status convert_node(Rewrite& rewrite, const std::map<std::string, int>& opsets) {
  int version = AI_VMM_TAKE(version_of(rewrite.node.domain, opsets));
  if (version < 6) rewrite.node.remove("consumed_inputs");  // a hint on memory of the first operator sets
  for (;;) {
    auto it = steps_by_op().find(rewrite.node.domain + "." + rewrite.node.op);
    if (it == steps_by_op().end()) return {};
    auto step = std::find_if(it->second.begin(), it->second.end(), [&](auto* s) { return s->below > version; });
    if (step == it->second.end()) return {};
    AI_VMM_TRY((*step)->apply(rewrite));
    version = (*step)->below;
  }
}

}  // namespace

Status convert_to_canonical(Graph& graph, const std::map<std::string, int>& opsets) {
  for (Node& node : graph.nodes)
    if (node.domain == "ai.onnx") node.domain.clear();
  hoist_constants(graph);

  std::unordered_set<std::string> names;
  for (const Value& v : graph.values) names.insert(v.name);
  std::vector<char> used(graph.values.size(), 0);
  auto use = [&](ValueId v) {
    if (v != kAbsent) used[static_cast<size_t>(v)] = 1;
  };
  for (ValueId v : graph.outputs) use(v);
  for (const Node& node : graph.nodes) {
    for (ValueId v : node.inputs) use(v);
    for (const Body& body : node.bodies)
      for (ValueId v : body.captures) use(v);
  }

  std::vector<Node> nodes = std::move(graph.nodes);
  graph.nodes.clear();
  for (Node& node : nodes) {
    for (Body& body : node.bodies) {
      for (size_t k = 0; k < body.captures.size() && k < body.graph->captures.size(); ++k) {
        const Value& outer = graph.value(body.captures[k]);
        Value& inner = body.graph->value(body.graph->captures[k]);
        if (outer.constant) inner.constant = outer.constant;
        if (outer.type.kind != Type::Kind::unknown) inner.type = outer.type;
      }
      AI_VMM_TRY(convert_to_canonical(*body.graph, opsets));
    }
    if (node.domain == kLocalFunctionDomain) {
      graph.nodes.push_back(std::move(node));
      continue;
    }
    Rewrite rewrite(graph, std::move(node), used, names);
    AI_VMM_TRY(convert_node(rewrite, opsets));
    while (!rewrite.node.inputs.empty() && rewrite.node.inputs.back() == kAbsent) rewrite.node.inputs.pop_back();
    while (!rewrite.node.outputs.empty() && rewrite.node.outputs.back() == kAbsent) rewrite.node.outputs.pop_back();
    for (Node& n : rewrite.before) graph.nodes.push_back(std::move(n));
    graph.nodes.push_back(std::move(rewrite.node));
    for (Node& n : rewrite.after) graph.nodes.push_back(std::move(n));
  }
  return {};
}

}  // namespace ai_vmm
