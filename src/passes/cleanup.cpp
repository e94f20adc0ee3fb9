// Nodes that need not run: duplicates and what nobody reads.
#include <algorithm>
#include <unordered_map>

#include "passes/edit.hpp"
#include "passes/list.hpp"

namespace ai_vmm {

namespace {

// ---------------------------------------------------------------- duplicates

constexpr int64_t kSmallConstant = 4096;  // bytes; larger equal constants are rare and dear to compare

bool append_tensor(std::string& key, const Tensor& t) {
  if (t.dtype() == DType::string || t.bytes() > kSmallConstant) return false;
  key += std::string(name(t.dtype())) + to_string(t.shape());
  if (t.bytes() > 0) key.append(static_cast<const char*>(t.data()), static_cast<size_t>(t.bytes()));
  return true;
}

template <class T>
void append_bytes(std::string& key, const T& value) {
  key.append(reinterpret_cast<const char*>(&value), sizeof value);
}

bool append_attribute(std::string& key, const AttrValue& value) {
  key += char('0' + value.index());
  return std::visit(
      [&](const auto& v) -> bool {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, float>) {
          append_bytes(key, v);
        } else if constexpr (std::is_same_v<T, std::string>) {
          append_bytes(key, v.size());
          key += v;
        } else if constexpr (std::is_same_v<T, Tensor>) {
          return append_tensor(key, v);
        } else if constexpr (std::is_same_v<T, std::vector<int64_t>> || std::is_same_v<T, std::vector<float>>) {
          append_bytes(key, v.size());
          for (auto x : v) append_bytes(key, x);
        } else if constexpr (std::is_same_v<T, Type>) {
          key += v.to_string();
        } else {
          return false;
        }
        return true;
      },
      value);
}

// Text that is equal for nodes that compute the same; empty for a node that must not be merged.
std::string key_of(const Node& node) {
  if (!node.bodies.empty() || !node.def || (node.def->traits & (kRandom | kControlFlow))) return {};
  std::string key = node.domain + ":" + node.op;
  for (ValueId v : node.inputs) append_bytes(key, v);
  std::vector<const Attribute*> attributes;
  for (const Attribute& a : node.attributes) attributes.push_back(&a);
  std::sort(attributes.begin(), attributes.end(), [](auto* a, auto* b) { return a->name < b->name; });
  for (const Attribute* a : attributes) {
    key += "|" + a->name + "=";
    if (!append_attribute(key, a->value)) return {};
  }
  return key;
}

Result<int64_t> merge_here(Graph& graph) {
  Edit edit(graph);
  std::unordered_map<std::string, ValueId> constants;
  std::vector<ValueId> first_of(graph.values.size());  // for a small constant, the first equal one
  for (size_t v = 0; v < graph.values.size(); ++v) {
    first_of[v] = static_cast<ValueId>(v);
    const Tensor& t = graph.values[v].constant;
    std::string key;
    if (!t || !append_tensor(key, t)) continue;
    first_of[v] = constants.try_emplace(std::move(key), static_cast<ValueId>(v)).first->second;
  }
  std::unordered_map<std::string, size_t> seen;
  for (size_t n = 0; n < edit.size(); ++n) {
    Node& node = edit.visit(n);
    // Equal constants become one where a node is compared; merging them for their own sake gains nothing.
    for (ValueId& v : node.inputs)
      if (v != kAbsent) v = first_of[static_cast<size_t>(v)];
    std::string key = key_of(node);
    if (key.empty()) continue;
    auto [it, fresh] = seen.try_emplace(std::move(key), n);
    if (fresh) continue;
    const Node& first = graph.nodes[it->second];
    bool covered = true;
    for (size_t k = 0; k < node.outputs.size(); ++k)
      covered = covered && (!node.has_output(k) || (first.has_output(k) && !edit.is_output(node.outputs[k])));
    if (!covered) continue;
    for (size_t k = 0; k < node.outputs.size(); ++k)
      if (node.has_output(k)) edit.forward(n, node.outputs[k], first.outputs[k]);
    edit.remove(n);
  }
  return edit.finish();
}

// ---------------------------------------------------------------- dead code

Result<int64_t> dead_here(Graph& graph) {
  std::vector<char> live(graph.values.size(), 0);
  auto mark = [&](ValueId v) {
    if (v != kAbsent) live[static_cast<size_t>(v)] = 1;
  };
  for (ValueId v : graph.outputs) mark(v);
  int64_t changes = 0;
  std::vector<char> keep(graph.nodes.size(), 0);
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    Node& node = graph.nodes[n];
    for (ValueId v : node.outputs) keep[n] = keep[n] || (v != kAbsent && live[static_cast<size_t>(v)]);
    if (!keep[n]) {
      ++changes;
      continue;
    }
    // Optional outputs that nobody reads need not be made. Some operators tell their mode from the outputs they have.
    if (node.def && node.bodies.empty() && !(node.def->traits & kTraining)) {
      const Schema& s = schema(*node.def);
      while (node.outputs.size() > 1 && node.outputs.size() <= s.outputs.size() &&
             s.outputs[node.outputs.size() - 1].optional && !s.outputs[node.outputs.size() - 1].variadic &&
             (node.outputs.back() == kAbsent || !live[static_cast<size_t>(node.outputs.back())])) {
        node.outputs.pop_back();
        ++changes;
      }
    }
    for (Body& body : node.bodies) {
      changes += AI_VMM_TAKE(dead_here(*body.graph));
      // A capture that the body no longer reads keeps its source alive for nothing.
      Graph& inner = *body.graph;
      auto users = inner.users();
      size_t kept = 0;
      for (size_t k = 0; k < inner.captures.size(); ++k) {
        ValueId v = inner.captures[k];
        bool read = !users[static_cast<size_t>(v)].empty() ||
                    std::find(inner.outputs.begin(), inner.outputs.end(), v) != inner.outputs.end();
        if (!read) {
          ++changes;
          continue;
        }
        inner.captures[kept] = inner.captures[k];
        body.captures[kept++] = body.captures[k];
      }
      inner.captures.resize(kept);
      body.captures.resize(kept);
      inner.compact();
      for (ValueId v : body.captures) mark(v);
    }
    for (ValueId v : node.inputs) mark(v);
  }
  size_t n = 0;
  std::erase_if(graph.nodes, [&](const Node&) { return !keep[n++]; });
  return changes;
}

}  // namespace

Result<int64_t> merge_duplicates(Graph& graph) { return over_bodies(graph, merge_here); }

Result<int64_t> dead_code(Graph& graph) {
  int64_t changes = AI_VMM_TAKE(dead_here(graph));
  graph.compact();
  return changes;
}

}  // namespace ai_vmm
