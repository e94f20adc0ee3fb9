#include "gpu/lower.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "gpu/decompose.hpp"
#include "gpu/ops/matrix_unit.hpp"
#include "ops/op.hpp"

namespace ai_vmm::gpu {

namespace {

constexpr size_t kMaxInputs = 12, kMaxCode = 40;

ValueId node_value(Graph& g, std::vector<Node>& nodes, const char* op, std::vector<ValueId> inputs, Type type,
                   const std::string& name) {
  ValueId v = g.add_value("", std::move(type));
  Node n;
  n.op = op;
  n.name = name;
  n.def = find_op("", op);
  n.inputs = std::move(inputs);
  n.outputs = {v};
  nodes.push_back(std::move(n));
  return v;
}

// A vector of channels in a shape that broadcasts against rank `rank` with channels at axis 1.
ValueId as_channels(Graph& g, std::vector<Node>& nodes, ValueId v, int64_t rank, const std::string& name) {
  std::vector<Dim> dims(size_t(rank) - 1, Dim(1));
  dims[0] = g.value(v).type.dims[0];
  DType dtype = g.value(v).type.dtype;
  if (g.is_constant(v)) {
    Tensor t = g.value(v).constant.reshaped(*constant_shape(dims));
    return g.add_constant("", std::move(t));
  }
  return node_value(g, nodes, "Unsqueeze", {v}, Type::tensor(dtype, dims), name);
}

bool is_float_kind(DType t) { return t == DType::f32 || t == DType::f16 || t == DType::bf16 || t == DType::f64; }

bool takes_bias(const Graph& g, const Node& n) {
  return n.domain.empty() && n.has_input(2) && (n.op == "Conv" || n.op == "ConvTranspose") &&
         g.value(n.inputs[2]).type.rank() == 1 && g.value(n.outputs[0]).type.rank() >= 2;
}

bool plain_batch_norm(const Graph& g, const Node& n) {
  if (n.op != "BatchNormalization" || !n.domain.empty() || n.outputs.size() != 1 || n.i("training_mode")) return false;
  const Type& x = g.value(n.inputs[0]).type;
  if (x.rank() < 2) return false;
  for (size_t k = 0; k < 5; ++k)
    if (!n.has_input(k) || !is_float_kind(g.value(n.inputs[k]).type.dtype) ||
        (k && (g.value(n.inputs[k]).type.rank() != 1 || g.value(n.inputs[k]).type.dtype != x.dtype)))
      return false;
  return true;
}

void lower_batch_norm(Graph& g, std::vector<Node>& nodes, Node n) {
  const Type type = g.value(n.inputs[0]).type;
  const int64_t rank = type.rank();
  float epsilon = n.f("epsilon", 1e-5f);
  bool constant = type.dtype == DType::f32;
  for (size_t k = 1; k < 5; ++k) constant &= g.is_constant(n.inputs[k]);
  ValueId scale, shift;
  if (constant) {
    auto data = [&](size_t k) { return g.value(n.inputs[k]).constant.as<float>(); };
    std::vector<float> a(data(1).size()), b(a.size());
    for (size_t c = 0; c < a.size(); ++c) {
      a[c] = float(data(1)[c] / std::sqrt(double(data(4)[c]) + epsilon));
      b[c] = float(data(2)[c] - double(data(3)[c]) * a[c]);
    }
    Shape shape(size_t(rank) - 1, 1);
    shape[0] = int64_t(a.size());
    scale = g.add_constant("", Tensor::of<float>(shape, a));
    shift = g.add_constant("", Tensor::of<float>(shape, b));
  } else {
    auto channels = [&](size_t k) { return as_channels(g, nodes, n.inputs[k], rank, n.name); };
    auto op = [&](const char* name, std::vector<ValueId> in) {
      Type t = g.value(in[0]).type;
      return node_value(g, nodes, name, std::move(in), std::move(t), n.name);
    };
    ValueId gamma = channels(1), beta = channels(2), mean = channels(3), variance = channels(4);
    Tensor e = Tensor::scalar<float>(epsilon);
    ValueId eps = g.add_constant("", e);
    if (type.dtype != DType::f32) {
      ValueId cast = node_value(g, nodes, "Cast", {eps}, Type::tensor(type.dtype, {}), n.name);
      nodes.back().set("to", int64_t(type.dtype));
      eps = cast;
    }
    scale = op("Div", {gamma, op("Sqrt", {op("Add", {variance, eps})})});
    shift = op("Sub", {beta, op("Mul", {mean, scale})});
  }
  ValueId product = node_value(g, nodes, "Mul", {n.inputs[0], scale}, type, n.name);
  ValueId y = n.outputs[0];
  node_value(g, nodes, "Add", {product, shift}, type, n.name);
  nodes.back().outputs = {y};
}

// Conv and ConvTranspose without their bias, which an Add brings.
void lower_bias(Graph& g, std::vector<Node>& nodes, Node n) {
  ValueId y = n.outputs[0], bias = as_channels(g, nodes, n.inputs[2], g.value(y).type.rank(), n.name);
  ValueId without = g.add_value("", g.value(y).type);
  n.inputs.resize(2);
  n.outputs = {without};
  std::string name = n.name;
  nodes.push_back(std::move(n));
  node_value(g, nodes, "Add", {without, bias}, g.value(y).type, name);
  nodes.back().outputs = {y};
}

void lower_gemm(Graph& g, std::vector<Node>& nodes, Node n) {
  ValueId y = n.outputs[0], c = n.inputs[2], without = g.add_value("", g.value(y).type);
  float beta = n.f("beta", 1);
  n.inputs.resize(2);
  n.outputs = {without};
  std::string name = n.name;
  nodes.push_back(std::move(n));
  if (beta != 1)
    c = node_value(g, nodes, "Mul", {c, g.add_constant("", Tensor::scalar<float>(beta))}, g.value(c).type, name);
  node_value(g, nodes, "Add", {without, c}, g.value(y).type, name);
  nodes.back().outputs = {y};
}

bool gemm_with_bias(const Graph& g, const Node& n) {
  return n.op == "Gemm" && n.domain.empty() && n.has_input(2) && g.value(n.outputs[0]).type.dtype == DType::f32;
}

// Operators whose kernels are made for float32: half precision is read and written around them, and computed in
// float32.
bool computes_in_f32(const Graph& g, const Node& n, const Traits& traits) {
  static const std::set<std::string_view> kOps = {"AveragePool",
                                                  "Conv",
                                                  "ConvTranspose",
                                                  "Gemm",
                                                  "GlobalAveragePool",
                                                  "GlobalMaxPool",
                                                  "GroupNormalization",
                                                  "GRU",
                                                  "InstanceNormalization",
                                                  "LayerNormalization",
                                                  "LogSoftmax",
                                                  "LRN",
                                                  "LSTM",
                                                  "MatMul",
                                                  "MaxPool",
                                                  "Resize",
                                                  "RMSNormalization",
                                                  "RNN",
                                                  "Softmax"};
  const bool attention = n.domain == "gpu" && n.op == "Attention";
  if (!(attention || (n.domain.empty() && kOps.count(n.op))) || n.inputs.empty() || n.inputs[0] == kAbsent)
    return false;
  DType t = g.value(n.inputs[0]).type.dtype;
  if (t != DType::f16 && t != DType::bf16) return false;
  if (traits.wide || !matrix_arithmetic(traits, t)) return true;
  const bool on_matrix_units = n.op == "MatMul" || (n.op == "Gemm" && !n.has_input(2)) ||
                               (n.op == "Conv" && n.i("group", 1) == 1 && g.value(n.inputs[0]).type.rank() <= 4);
  return !on_matrix_units;
}

void lower_half(Graph& g, std::vector<Node>& nodes, Node n) {
  auto half = [&](ValueId v) {
    DType t = v == kAbsent ? DType::undefined : g.value(v).type.dtype;
    return t == DType::f16 || t == DType::bf16;
  };
  auto as = [](Type t, DType dtype) {
    t.dtype = dtype;
    return t;
  };
  for (ValueId& v : n.inputs)
    if (half(v)) {
      v = node_value(g, nodes, "Cast", {v}, as(g.value(v).type, DType::f32), n.name);
      nodes.back().set("to", int64_t(DType::f32));
    }
  std::vector<std::pair<ValueId, ValueId>> results;  // wide, as the model has it
  for (ValueId& v : n.outputs)
    if (half(v)) {
      ValueId wide = g.add_value("", as(g.value(v).type, DType::f32));
      results.emplace_back(wide, v);
      v = wide;
    }
  std::string name = n.name;
  nodes.push_back(std::move(n));
  for (auto [wide, v] : results) {
    node_value(g, nodes, "Cast", {wide}, g.value(v).type, name);
    nodes.back().set("to", int64_t(g.value(v).type.dtype));
    nodes.back().outputs = {v};
  }
}

std::optional<Epilogue::Access> access_of(const Graph& g, ValueId v, ValueId out, int channel) {
  const Type &t = g.value(v).type, &o = g.value(out).type;
  if (t.dtype != DType::f32 || !t.ranked || t.dims.size() > o.dims.size()) return std::nullopt;
  if (t.dims == o.dims) return Epilogue::Access::full;
  size_t skip = o.dims.size() - t.dims.size(), axis = channel == 1 ? 1 : o.dims.size() - 1;
  bool scalar = true, along = axis >= skip && t.dims.size() + skip > axis;
  for (size_t d = 0; d < t.dims.size(); ++d) {
    scalar &= t.dims[d].is(1);
    along &= d + skip == axis ? t.dims[d] == o.dims[axis] : t.dims[d].is(1);
  }
  if (scalar) return Epilogue::Access::scalar;
  if (along) return Epilogue::Access::channel;
  return std::nullopt;
}

class Fuse {
 public:
  Fuse(const Graph& g, const Traits& traits) : g_(g), traits_(traits) {}

  std::vector<Group> run() {
    uses_.assign(g_.values.size(), 0);
    for (const Node& n : g_.nodes) {
      std::set<ValueId> once(n.inputs.begin(), n.inputs.end());
      for (ValueId v : once)
        if (v != kAbsent) ++uses_[size_t(v)];
    }
    for (ValueId v : g_.outputs) uses_[size_t(v)] += 2;
    maker_.assign(g_.values.size(), -1);
    for (const Node& n : g_.nodes) add(n);
    std::vector<Group> kept;
    for (size_t i = 0; i < groups_.size(); ++i)
      if (alive_[i]) kept.push_back(finish(i));
    return kept;
  }

 private:
  struct Draft {
    Node node;
    std::optional<Expression> expression;  // elementwise
    Expression after;                      // of a node with a kernel; input 0 is its result
    std::vector<Epilogue::Access> access;
    int channel = 0;
  };

  void add(const Node& n) {
    Draft d;
    d.node = n;
    bool integers = n.outputs.size() == 1 && n.outputs[0] != kAbsent && known_integers(g_, g_.inputs, n.outputs[0]);
    if (!integers && !shares_storage(n) && n.outputs.size() == 1 && g_.value(n.outputs[0]).type.ranked)
      d.expression = expression_of(g_, n);
    if (d.expression) {
      while (take_elementwise(d)) {
      }
      if (append_to_kernel(d)) return;
    } else if (const KernelEntry* e = find_kernel(n.domain, n.op);
               e && n.outputs.size() == 1 && g_.value(n.outputs[0]).type.dtype == DType::f32) {
      d.channel = e->channel;
    }
    push(std::move(d));
  }

  void push(Draft d) {
    for (ValueId v : d.node.outputs)
      if (v != kAbsent) maker_[size_t(v)] = int(groups_.size());
    groups_.push_back(std::move(d));
    alive_.push_back(1);
  }

  bool joinable(ValueId v, ValueId out) const {
    return maker_[size_t(v)] >= 0 && uses_[size_t(v)] == 1 && g_.value(v).type.dims == g_.value(out).type.dims;
  }

  // The expression computes one of its inputs itself.
  bool take_elementwise(Draft& d) {
    for (ValueId v : d.expression->inputs) {
      if (!joinable(v, d.node.outputs[0])) continue;
      size_t from = size_t(maker_[size_t(v)]);
      const auto& first = groups_[from].expression;
      if (!first || first->inputs.size() + d.expression->inputs.size() > kMaxInputs ||
          first->code.size() + d.expression->code.size() > kMaxCode)
        continue;
      d.expression = join(*first, *d.expression, v);
      alive_[from] = 0;
      return true;
    }
    return false;
  }

  // The expression becomes what a kernel does to its result before storing it.
  bool append_to_kernel(Draft& d) {
    if (!d.expression->all_f32()) return false;
    ValueId out = d.node.outputs[0];
    for (ValueId v : d.expression->inputs) {
      if (!joinable(v, out)) continue;
      size_t from = size_t(maker_[size_t(v)]);
      Draft& k = groups_[from];
      if (!k.channel || k.expression) continue;
      Expression after = k.after;
      if (after.inputs.empty()) {
        after.inputs = {v};
        after.types = {DType::f32};
      }
      Expression joined = join(after, *d.expression, v);
      if (joined.inputs.size() > kMaxInputs || joined.code.size() > kMaxCode) continue;
      std::vector<Epilogue::Access> access;
      for (size_t i = 1; i < joined.inputs.size(); ++i)
        if (auto a = access_of(g_, joined.inputs[i], out, k.channel)) access.push_back(*a);
      if (access.size() + 1 != joined.inputs.size()) continue;
      Draft moved = std::move(k);
      alive_[from] = 0;
      moved.after = std::move(joined);
      moved.access = std::move(access);
      moved.node.outputs = d.node.outputs;
      push(std::move(moved));
      return true;
    }
    return false;
  }

  Group finish(size_t i) {
    Draft& d = groups_[i];
    Group group;
    group.node = std::move(d.node);
    if (d.expression) {
      group.node.inputs = d.expression->inputs;
      group.expression = std::make_shared<Expression>(*std::move(d.expression));
    } else if (!d.after.code.empty()) {
      auto e = std::make_shared<Epilogue>();
      // Where a node's own inputs end, those of the epilogue begin.
      e->first_input = group.node.inputs.size();
      group.node.inputs.insert(group.node.inputs.end(), d.after.inputs.begin() + 1, d.after.inputs.end());
      e->code = std::move(d.after);
      e->access = std::move(d.access);
      group.epilogue = std::move(e);
    }
    return group;
  }

  const Graph& g_;
  const Traits& traits_;
  std::vector<Draft> groups_;
  std::vector<char> alive_;
  std::vector<int> uses_, maker_;
};

}  // namespace

std::optional<Graph> lowered(const Graph& graph, const Node& node, const Traits& traits) {
  Graph g;
  g.values = graph.values;
  g.nodes = {node};
  if (!decompose(g) && !plain_batch_norm(graph, node) && !computes_in_f32(graph, node, traits)) return std::nullopt;
  if (!lower(g, traits).ok()) return std::nullopt;
  return g;
}

Status lower(Graph& g, const Traits& traits) {
  std::vector<Node> halves, nodes;
  for (Node& n : g.nodes)
    if (computes_in_f32(g, n, traits))
      lower_half(g, halves, std::move(n));
    else
      halves.push_back(std::move(n));
  for (Node& n : halves) {
    if (plain_batch_norm(g, n))
      lower_batch_norm(g, nodes, std::move(n));
    else if (takes_bias(g, n))
      lower_bias(g, nodes, std::move(n));
    else if (gemm_with_bias(g, n))
      lower_gemm(g, nodes, std::move(n));
    else
      nodes.push_back(std::move(n));
  }
  g.nodes = std::move(nodes);
  return {};
}

std::vector<Group> fuse(const Graph& graph, const Traits& traits) { return Fuse(graph, traits).run(); }

bool shares_storage(const Node& n) {
  if (!n.domain.empty() || n.outputs.size() != 1) return false;
  for (const char* op : {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
    if (n.op == op) return true;
  return false;
}

bool known_integers(const Graph& g, std::span<const ValueId> inputs, ValueId v) {
  const Value& value = g.value(v);
  if (value.constant || !value.ints || !value.type.ranked || value.type.rank() > 1) return false;
  if (value.type.dtype != DType::i64 && value.type.dtype != DType::i32) return false;
  std::vector<std::string> shown, used;
  for (ValueId in : inputs)
    for (const Dim& d : g.value(in).type.dims)
      if (d.is_symbol()) d.collect_symbols(shown);
  for (const auto* list : {&*value.ints, &value.type.dims})
    for (const Dim& d : *list) d.collect_symbols(used);
  return std::all_of(used.begin(), used.end(),
                     [&](const auto& s) { return std::find(shown.begin(), shown.end(), s) != shown.end(); });
}

}  // namespace ai_vmm::gpu
