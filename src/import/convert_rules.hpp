// The table of version steps, and what a step may use.
#pragma once

#include <climits>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "graph/graph.hpp"

namespace ai_vmm {

// One node on its way to the canonical version. A step changes `node` in place and may put nodes around it; whatever it
// emits is canonical already and passes no further steps.
class Rewrite {
 public:
  using Attributes = std::vector<Attribute>;
  Rewrite(Graph& graph, Node node, const std::vector<char>& used, std::unordered_set<std::string>& names)
      : graph(graph), node(std::move(node)), used_(used), names_(names) {}

  Graph& graph;
  Node node;
  std::vector<Node> before, after;

  // An attribute of the model, checked: invalid_argument when it has another type.
  template <class T>
  Result<T> get(std::string_view name, T fallback) const;
  Result<int64_t> i(std::string_view name, int64_t fallback) const { return get<int64_t>(name, fallback); }
  Result<float> f(std::string_view name, float fallback) const { return get<float>(name, fallback); }
  Result<std::string> s(std::string_view name, std::string fallback) const {
    return get<std::string>(name, std::move(fallback));
  }
  Result<std::vector<int64_t>> ints(std::string_view name) const { return get<std::vector<int64_t>>(name, {}); }
  Result<std::vector<float>> floats(std::string_view name) const { return get<std::vector<float>>(name, {}); }
  // Moves an attribute that holds a list of integers to input `k`; an absent one is left absent.
  Status ints_to_input(std::string_view name, size_t k);

  ValueId input(size_t k) const { return node.has_input(k) ? node.inputs[k] : kAbsent; }
  void set_input(size_t k, ValueId v);
  void drop_outputs_from(size_t k);
  bool used(size_t k) const;  // somebody reads output k
  const Type& type(ValueId v) const { return graph.value(v).type; }
  const Tensor* constant(ValueId v) const { return graph.is_constant(v) ? &graph.value(v).constant : nullptr; }

  ValueId constant(Tensor tensor);
  ValueId constant(const std::vector<int64_t>& values) { return constant(Tensor::vector(values)); }
  ValueId scalar_like(float value, ValueId x);  // a scalar of the element type of x, be that known or not
  ValueId emit(std::string_view op, std::vector<ValueId> inputs, Attributes attributes = {});  // before the node
  // Output k of the node becomes a new value; `op` makes the old one, after the node, from `inputs`, in which kAbsent
  // stands for the new value.
  void finish(size_t k, std::string_view op, std::vector<ValueId> inputs, Attributes attributes = {});
  // The node becomes another operator with the same outputs.
  void become(std::string_view op, std::vector<ValueId> inputs, Attributes attributes = {});

  Status error(Code code, const std::string& what) const;
  Status require_inputs(size_t count) const;  // invalid_argument when one of the first `count` inputs is absent

 private:
  ValueId fresh(std::string_view suffix);
  const std::vector<char>& used_;
  std::unordered_set<std::string>& names_;
};

// Takes nodes of the operators in `ops` (names, separated by spaces) from any version below `below` to version `below`.
struct VersionStep {
  const char* domain;
  const char* ops;
  int below;
  Status (*apply)(Rewrite&);
};
inline constexpr int kEveryVersion = INT_MAX;  // a spelling that exporters use at every version

std::span<const VersionStep> version_steps();

Status expand_flex_attention(Rewrite& r);  // ai.onnx.preview

template <class T>
Result<T> Rewrite::get(std::string_view name, T fallback) const {
  const AttrValue* v = node.find(name);
  if (!v) return fallback;
  if (const T* t = std::get_if<T>(v)) return *t;
  // An empty list carries no type of its own.
  if constexpr (requires(T t) { t.push_back({}); })
    if (std::visit(
            [](const auto& x) {
              if constexpr (requires { x.empty(); })
                return x.empty();
              else
                return false;
            },
            *v))
      return T();
  return error(Code::invalid_argument, "attribute \"" + std::string(name) + "\" has the wrong type.");
}

}  // namespace ai_vmm
