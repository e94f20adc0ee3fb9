#include "kit/prepare.hpp"

#include <algorithm>
#include <unordered_map>

#include "ops/op.hpp"

namespace ai_vmm {

namespace {

// Input sizes that are expressions of symbols no input shows plainly (a region in the middle of a model) become symbols
// of their own, equal expressions the same one, and all types are inferred again.
Status bind_symbols_to_inputs(Graph& g) {
  std::vector<std::string> plain, all;
  for (ValueId v : g.inputs)
    for (const Dim& d : g.value(v).type.dims) {
      d.collect_symbols(all);
      if (d.is_symbol()) d.collect_symbols(plain);
    }
  auto is_plain = [&](const std::string& s) { return std::find(plain.begin(), plain.end(), s) != plain.end(); };
  auto resolvable = [&](const Dim& d) {
    std::vector<std::string> s;
    d.collect_symbols(s);
    return std::all_of(s.begin(), s.end(), is_plain);
  };
  bool renamed = false;
  std::unordered_map<std::string, Dim> names;
  for (ValueId v : g.inputs) {
    Value& value = g.value(v);
    for (Dim& d : value.type.dims)
      if (!resolvable(d)) {
        auto [it, fresh] = names.emplace(d.to_string(), Dim::symbol("size:" + std::to_string(names.size())));
        d = it->second;
        renamed = true;
      }
    if (value.ints && !std::all_of(value.ints->begin(), value.ints->end(), resolvable)) {
      value.ints.reset();
      renamed = true;
    }
  }
  if (!renamed) return {};
  std::vector<char> keep(g.values.size(), 0);
  for (ValueId v : g.inputs) keep[size_t(v)] = 1;
  for (size_t v = 0; v < g.values.size(); ++v)
    if (!keep[v] && !g.values[v].constant) {
      DType dtype = g.values[v].type.dtype;
      g.values[v].type = Type::tensor(dtype);
      g.values[v].ints.reset();
    }
  return infer_types(g);
}

constexpr int64_t kMaxFoldedCount = int64_t(1) << 24;

// Nodes whose inputs are all constant are evaluated once, here.
Status fold_constants(Graph& g) {
  Random random;
  std::vector<Node> kept;
  for (Node& n : g.nodes) {
    bool constant = n.def && n.def->eval && n.bodies.empty() && !(n.def->traits & (kRandom | kHostOnly));
    int64_t count = 0;
    std::vector<Data> in;
    for (ValueId v : n.inputs) {
      if (v != kAbsent && !g.is_constant(v)) constant = false;
      if (!constant) break;
      in.push_back(v == kAbsent ? Data() : Data(g.value(v).constant));
    }
    for (ValueId v : n.outputs)
      if (constant && v != kAbsent) {
        auto shape = g.value(v).type.shape();
        count = shape ? element_count(*shape).value_or(kMaxFoldedCount + 1) : kMaxFoldedCount + 1;
        if (count > kMaxFoldedCount) constant = false;
      }
    if (constant) {
      auto made = evaluate(n, in, random);
      if (made.ok()) {
        for (size_t k = 0; k < n.outputs.size(); ++k)
          if (n.outputs[k] != kAbsent && (*made)[k].is_tensor()) {
            g.value(n.outputs[k]).constant = (*made)[k].tensor();
            g.value(n.outputs[k]).type =
                Type::tensor((*made)[k].tensor().dtype(), to_dims((*made)[k].tensor().shape()));
          }
        continue;
      }
    }
    kept.push_back(std::move(n));
  }
  g.nodes = std::move(kept);
  return {};
}

// Integer contents that are plain numbers are constants.
void constants_from_ints(Graph& g) {
  for (Value& v : g.values) {
    if (v.constant || !v.ints || !v.type.ranked || v.type.rank() > 1) continue;
    if (v.type.dtype != DType::i64 && v.type.dtype != DType::i32) continue;
    auto shape = v.type.shape();
    auto values = constant_shape(*v.ints);
    if (!shape || !values || element_count(*shape) != int64_t(values->size())) continue;
    if (v.type.dtype == DType::i64)
      v.constant = Tensor::of<int64_t>(*shape, *values);
    else
      v.constant = Tensor::of<int32_t>(*shape, std::vector<int32_t>(values->begin(), values->end()));
  }
}

}  // namespace

void remove_dead_nodes(Graph& g) {
  std::vector<char> live(g.values.size(), 0);
  for (ValueId v : g.outputs) live[size_t(v)] = 1;
  std::vector<Node> kept;
  for (size_t n = g.nodes.size(); n-- > 0;) {
    Node& node = g.nodes[n];
    bool needed = false;
    for (ValueId& v : node.outputs)
      if (v != kAbsent) needed |= live[size_t(v)] && !g.is_constant(v);
    if (!needed) continue;
    for (ValueId v : node.inputs)
      if (v != kAbsent) live[size_t(v)] = 1;
    kept.push_back(std::move(node));
  }
  std::reverse(kept.begin(), kept.end());
  g.nodes = std::move(kept);
}

Status prepare(Graph& g, const char* backend) {
  AI_VMM_TRY(bind_symbols_to_inputs(g));
  constants_from_ints(g);
  for (ValueId v : g.inputs) g.value(v).constant = Tensor();
  AI_VMM_TRY(fold_constants(g));
  remove_dead_nodes(g);
  for (const Node& n : g.nodes)
    for (ValueId v : n.outputs)
      if (v != kAbsent && (!g.value(v).type.is_tensor() || g.value(v).type.dtype == DType::undefined ||
                           g.value(v).type.dtype == DType::string))
        return Status(Code::unimplemented, n.label() + " makes " + g.value(v).type.to_string() + ", which the " +
                                               backend + " backend does not hold; the host runs such operators.");
  return {};
}

}  // namespace ai_vmm
