// The Graph: a typed SSA graph of ONNX operators. Everything between import and plan reads or rewrites this one noun.
//
// Values and nodes are referred to by index. Nodes stand in topological order: an input of a node is a graph input, a
// constant, a captured value of the enclosing graph, or an output of an earlier node.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ai_vmm/types.hpp"
#include "graph/dim.hpp"

namespace ai_vmm {

struct OpDef;     // ops/op.hpp
class FileBytes;  // base/file.hpp
class Graph;

// What is known of a value before it exists.
struct Type {
  enum class Kind : uint8_t { unknown, tensor, sequence, optional, map };
  Kind kind = Kind::unknown;
  DType dtype = DType::undefined;       // tensor: element type (undefined: not known); map: key type
  bool ranked = false;                  // tensor: `dims` is known
  std::vector<Dim> dims;                // tensor
  std::shared_ptr<const Type> element;  // sequence, optional: element type; map: value type

  static Type tensor(DType dtype) { return {Kind::tensor, dtype, false, {}, nullptr}; }
  static Type tensor(DType dtype, std::vector<Dim> dims) {
    return {Kind::tensor, dtype, true, std::move(dims), nullptr};
  }
  static Type sequence(Type element) {
    return {Kind::sequence, DType::undefined, false, {}, std::make_shared<Type>(std::move(element))};
  }
  static Type optional(Type element) {
    return {Kind::optional, DType::undefined, false, {}, std::make_shared<Type>(std::move(element))};
  }
  static Type map(DType key, Type value) {
    return {Kind::map, key, false, {}, std::make_shared<Type>(std::move(value))};
  }

  bool is_tensor() const { return kind == Kind::tensor; }
  int64_t rank() const { return ranked ? static_cast<int64_t>(dims.size()) : -1; }
  std::optional<Shape> shape() const { return ranked ? constant_shape(dims) : std::nullopt; }
  std::string to_string()
      const;  // "f32[N,3,224,224]", "f32[...]" unranked, "seq(f32[...])", "optional(…)", "map(i64, …)", "?"
  friend bool operator==(const Type& a, const Type& b);
};

using ValueId = int32_t;
inline constexpr ValueId kAbsent = -1;  // an optional input or output that is not given

struct Value {
  std::string name;  // unique in its graph; never empty
  Type type;
  Tensor constant;  // set: the value is this tensor (an initialiser or a folded result)
  // Elements of a small integer tensor (rank 0 or 1) as expressions, where they are known before the run.
  std::optional<std::vector<Dim>> ints;
};

// An attribute. Graph-valued attributes are Node::bodies; sparse tensors are made dense at import.
using AttrValue = std::variant<int64_t, float, std::string, Tensor, std::vector<int64_t>, std::vector<float>,
                               std::vector<std::string>, std::vector<Tensor>, Type>;
struct Attribute {
  std::string name;
  AttrValue value;
};

// A subgraph of a control-flow node. What it uses of the enclosing graph is listed, not found by name:
// inside, `graph->captures[i]` is the value that outside is `captures[i]`.
struct Body {
  std::string attribute;  // "then_branch", "body"
  std::shared_ptr<Graph> graph;
  std::vector<ValueId> captures;
};

struct Node {
  std::string name;              // as in the model; may be empty
  std::string op;                // "Conv"
  std::string domain;            // "" is ai.onnx
  const OpDef* def = nullptr;    // never null after import
  std::vector<ValueId> inputs;   // kAbsent where not given; trailing ones are dropped
  std::vector<ValueId> outputs;  // likewise
  std::vector<Attribute> attributes;
  std::vector<Body> bodies;

  const AttrValue* find(std::string_view attribute) const;
  bool has(std::string_view attribute) const { return find(attribute) != nullptr; }
  // The attribute, or the fallback when it is not there. CHECK on another type: import has verified types.
  int64_t i(std::string_view attribute, int64_t fallback = 0) const;
  float f(std::string_view attribute, float fallback = 0) const;
  std::string s(std::string_view attribute, std::string_view fallback = "") const;
  std::vector<int64_t> ints(std::string_view attribute, std::vector<int64_t> fallback = {}) const;
  std::vector<float> floats(std::string_view attribute, std::vector<float> fallback = {}) const;
  std::vector<std::string> strings(std::string_view attribute, std::vector<std::string> fallback = {}) const;
  const Tensor* tensor(std::string_view attribute) const;  // null when not there
  void set(std::string_view attribute, AttrValue value);
  void remove(std::string_view attribute);
  const Body* body(std::string_view attribute) const;

  bool has_input(size_t k) const { return k < inputs.size() && inputs[k] != kAbsent; }
  bool has_output(size_t k) const { return k < outputs.size() && outputs[k] != kAbsent; }
  std::string label() const;  // `Conv "name"` for messages
};

class Graph {
 public:
  std::string name;
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<ValueId> inputs;  // of a body: its formal parameters
  std::vector<ValueId> outputs;
  std::vector<ValueId> captures;                // of a body: values of the enclosing graph, see Body
  std::map<std::string, std::string> metadata;  // of the model: producer, description, custom properties
  // Of the model: initialisers that are inputs too, which a caller may override; they are constants here.
  std::vector<std::pair<std::string, Type>> overridable;
  std::vector<std::shared_ptr<const FileBytes>> files;  // of the model: what its constants may be views of
  int64_t symbols = 0;                                  // of the outermost graph: how many fresh symbols were made

  Graph() = default;
  Graph(Graph&&) = default;
  Graph& operator=(Graph&&) = default;
  Graph clone() const;  // deep: bodies too; constants share storage

  Value& value(ValueId v) { return values[static_cast<size_t>(v)]; }
  const Value& value(ValueId v) const { return values[static_cast<size_t>(v)]; }
  ValueId add_value(std::string name, Type type = {});  // makes the name unique
  ValueId add_constant(std::string name, Tensor tensor);
  Node& add_node(std::string_view op, std::vector<ValueId> inputs, std::vector<ValueId> outputs,
                 std::string_view domain = "");
  ValueId find(std::string_view value_name) const;  // kAbsent when there is none; linear

  bool is_constant(ValueId v) const { return v != kAbsent && bool(value(v).constant); }

  // Node index that makes each value; -1 for inputs, constants and captures.
  std::vector<int> producers() const;
  // For each value the nodes that read it (as input or captured by a body), ascending; graph outputs are not counted.
  std::vector<std::vector<int>> users() const;

  // Sorts nodes topologically, stably. Fails on a cycle and names a node of it.
  Status sort();
  // Everything that must hold of a well-formed graph: indices in range, SSA, order, names unique, bodies too.
  Status verify() const;
  // Drops values that nothing refers to and renumbers. Nodes stay.
  void compact();

  std::string to_text() const;  // graph/text.hpp says what it looks like
};

}  // namespace ai_vmm
