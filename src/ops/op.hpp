// What an operator is, stated once: signature, attributes, documentation, type-and-shape rule, cost, and the
// reference semantics that every backend is compared with.
//
// An operator family is one .cpp file that defines a table `const OpDef kXxxOps[]` and is listed in all_ops.cpp.
// Semantics are those of the canonical version: ai.onnx opset 28, ai.onnx.ml 5, com.microsoft 1. Older models are
// converted at import, so no rule here looks at an opset.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ai_vmm/types.hpp"
#include "graph/graph.hpp"

namespace ai_vmm {

// ---------------------------------------------------------------- type and shape rule

// What an infer rule sees of one node and what it writes. Dims may be symbolic; the same rule serves both.
class Infer {
 public:
  Infer(Graph& graph, const Node& node, int64_t& symbols) : node(node), graph_(graph), symbols_(symbols) {}

  const Node& node;
  size_t inputs() const { return node.inputs.size(); }
  size_t outputs() const { return node.outputs.size(); }
  bool has(size_t k) const { return node.has_input(k); }
  const Type& type(size_t k) const;  // unknown type for an absent input
  DType dtype(size_t k) const { return type(k).dtype; }
  bool ranked(size_t k) const { return type(k).ranked; }
  int64_t rank(size_t k) const { return type(k).rank(); }  // -1 not known
  const std::vector<Dim>& dims(size_t k) const { return type(k).dims; }
  const Tensor* constant(size_t k) const;  // the input's value where it is constant, else null
  // Elements of an integer tensor input (rank ≤ 1) where they are known, perhaps symbolically.
  std::optional<std::vector<Dim>> ints(size_t k) const;

  Dim fresh();  // a new symbol: a size known only at run time
  std::vector<Dim> fresh(int64_t count);
  void set(size_t k, Type type);  // output k (ignored when the output is absent)
  void set(size_t k, DType dtype, std::vector<Dim> dims) { set(k, Type::tensor(dtype, std::move(dims))); }
  void set_unranked(size_t k, DType dtype) { set(k, Type::tensor(dtype)); }
  const Type& output_type(size_t k) const;             // what is known of output k by now
  void set_ints(size_t k, std::vector<Dim> elements);  // data propagation: the elements of output k

  // axis in [-rank, rank) → [0, rank); failure names the node.
  Result<int64_t> axis(int64_t value, int64_t rank) const;
  Result<std::vector<int64_t>> axes(std::vector<int64_t> values, int64_t rank) const;  // sorted, no duplicates allowed
  // NumPy broadcasting of several shapes. Fails where sizes are known to differ.
  Result<std::vector<Dim>> broadcast(std::span<const std::vector<Dim>> shapes) const;
  // A failure that names the node: "Operator \"Conv\" (node x): <what>".
  Status error(const std::string& what) const;

  // Bodies: type inference of a subgraph whose formal inputs have the given types; its output types come back.
  Result<std::vector<Type>> infer_body(const Body& body, std::span<const Type> formal_inputs);

 private:
  Graph& graph_;
  int64_t& symbols_;
};

// ---------------------------------------------------------------- cost

// Work of one node at known sizes. bytes_* count each element once, as if every cache were perfect.
struct Cost {
  double flops = 0;  // arithmetic operations; a multiply-add is 2
  double bytes_read = 0, bytes_written = 0;
};

// Types of a node's inputs and outputs with every dimension an integer.
struct CostQuery {
  const Node& node;
  std::span<const Type> inputs, outputs;  // absent ones have kind unknown
  double elements_in(size_t k) const;     // 0 when absent
  double elements_out(size_t k) const;
  Shape shape_in(size_t k) const;
  Shape shape_out(size_t k) const;
};

// ---------------------------------------------------------------- reference semantics

// Seeds for operators that draw random numbers: one stream per run.
struct Random {
  uint64_t state = 0x9e3779b97f4a7c15ull;
  uint64_t next();   // splitmix64
  double uniform();  // [0, 1)
  double normal();   // Box-Muller
};

// What a reference function sees and makes. Inputs are dense row-major.
class Eval {
 public:
  Eval(const Node& node, std::span<const Data> inputs, Random& random)
      : node(node), in_(inputs), random(random), out(node.outputs.size()) {}

  const Node& node;
  std::span<const Data> in_;
  Random& random;
  std::vector<Data> out;  // one per output of the node; those absent in the node are ignored

  size_t inputs() const { return in_.size(); }
  bool has(size_t k) const { return k < in_.size() && !in_[k].empty(); }
  const Tensor& in(size_t k) const { return in_[k].tensor(); }
  const Data& data(size_t k) const { return in_[k]; }
  bool wants(size_t k) const { return node.has_output(k); }
  // Allocates output k (uninitialised) and returns it for writing. Fails on the memory limit.
  Result<Tensor*> make(size_t k, DType dtype, Shape shape);
  void set(size_t k, Data value) {
    if (k < out.size()) out[k] = std::move(value);
  }
  Result<int64_t> axis(int64_t value, int64_t rank) const;
  Status error(const std::string& what) const;
};

// ---------------------------------------------------------------- OpDef

enum Trait : uint32_t {
  kNoTrait = 0,
  kElementwise = 1 << 0,  // output element i depends on (broadcast) input elements i only
  kCommutative = 1 << 1,
  kRandom = 1 << 2,         // two runs differ: never folded, never merged
  kControlFlow = 1 << 3,    // has bodies, run by the host
  kHostOnly = 1 << 4,       // works on sequences, optionals, maps or strings by nature; never crosses to a backend
  kDataDependent = 1 << 5,  // an output's shape depends on input values even when all input shapes are known
  kMovesData = 1 << 6,      // no arithmetic: copies elements (Reshape, Transpose, Gather…)
  kReshapes = 1 << 7,       // output 0 is input 0's elements in the same order: storage may be shared
  kReduces = 1 << 8,
  kComposite = 1 << 9,  // a backend may refuse it and take its parts (see `expand`)
  kTraining = 1 << 10,
};

// Stated by braces in a table; all strings are literals.
struct OpDef {
  const char* name;
  const char* domain;  // "" | "ai.onnx.ml" | "com.microsoft"
  int since;           // the canonical version's first opset, for documents
  // "X:T, W:T, B:T? -> Y:T" — '?' optional, '*' variadic, and type variables explained after '|':
  // "| T: f16 f32 f64 bf16, I: i64". A concrete type stands for itself ("axes:i64"). "any" is every tensor type.
  const char* signature;
  // "strides:ints, group:int=1, auto_pad:string=NOTSET, alpha:float=1.0"; types int, float, string, tensor, ints,
  // floats, strings, tensors, graph, type. No "=": no default. A trailing '!' marks a required attribute.
  const char* attributes;
  const char* doc;  // what it computes, one to five sentences
  uint32_t traits;
  Status (*infer)(Infer&);
  Cost (*cost)(const CostQuery&);  // null: elementwise-like, one operation an output element
  Status (*eval)(Eval&);           // null only for control flow, which the host runs
};

// Every operator known. Built once, immutable, thread-safe.
const OpDef* find_op(std::string_view domain, std::string_view name);  // null when there is none; "ai.onnx" is ""
std::vector<const OpDef*> all_ops();                                   // sorted by domain, name
// The nearest known name, for messages; "" when nothing is near.
std::string nearest_op(std::string_view domain, std::string_view name);

// A signature, parsed.
struct Formal {
  std::string name;
  std::string type;  // a type variable or a concrete type
  bool optional = false, variadic = false;
};
struct AttrDef {
  std::string name;
  std::string type;
  std::string fallback;
  bool has_fallback = false, required = false;
};
struct Schema {
  std::vector<Formal> inputs, outputs;
  std::vector<std::pair<std::string, std::vector<std::string>>> types;  // variable → admitted types
  std::vector<AttrDef> attributes;
  size_t min_inputs = 0, max_inputs = 0;  // SIZE_MAX when variadic
  size_t min_outputs = 0, max_outputs = 0;
};
const Schema& schema(const OpDef& op);

// Cost of a node, by its rule or by the default.
Cost cost_of(const OpDef& op, const CostQuery& query);

// ---------------------------------------------------------------- engine

// Sets Node::def of every node, bodies included. Fails with unimplemented and a list of all operators that there are
// not.
Status define_ops(Graph& graph);

// Checks every node against its schema (counts, attribute names and types, element types) and infers all types,
// bodies included. Types already on values (the model's value_info) are used only where inference knows less.
Status infer_types(Graph& graph);

// Runs the reference semantics of one node without control flow. The result holds one Data per output.
Result<std::vector<Data>> evaluate(const Node& node, std::span<const Data> inputs, Random& random);

}  // namespace ai_vmm
