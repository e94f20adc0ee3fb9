// Every operator of the table meets random nodes, most of them wrong: inference and the reference function must refuse
// or succeed, never crash, and where both succeed the inferred types must be those of the tensors made.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <random>

#include "base/memory_budget.hpp"
#include "ops/op.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {
namespace {

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}

  int64_t pick(int64_t low, int64_t high) { return low + int64_t(random_() % uint64_t(high - low + 1)); }
  bool chance(int percent) { return pick(1, 100) <= percent; }

  int64_t wild() {
    static constexpr int64_t kWild[] = {INT64_MAX, INT64_MIN, INT32_MAX, INT32_MIN, int64_t(1) << 62, 1 << 20, -1000};
    return kWild[pick(0, 6)];
  }

  Tensor tensor(DType type, Shape shape) {
    bool tame = chance(80);
    Tensor t = *Tensor::make(type, std::move(shape), true);
    for (int64_t i = 0; i < t.count(); ++i) {
      if (type == DType::string)
        t.as_mutable<std::string>()[size_t(i)] = std::string(size_t(pick(0, 3)), char('a' + pick(0, 3)));
      else if (is_float(type) || is_complex(type))
        write_double(type, t.mutable_data(), i,
                     tame || chance(80) ? double(pick(-40, 40)) / 8
                     : chance(50)       ? NAN
                                        : double(wild()) * 1e12);
      else if (!tame && type != DType::boolean && chance(20))
        write_int64(type, t.mutable_data(), i, wild());
      else
        write_int64(type, t.mutable_data(), i,
                    type == DType::boolean ? pick(0, 1) : pick(is_signed_integer(type) ? -3 : 0, 5));
    }
    return t;
  }
  Tensor tensor(DType type) {
    Shape shape;
    int64_t rank = chance(70) ? rank_ : pick(0, 4);
    for (int64_t i = 0; i < rank; ++i) shape.push_back(chance(60) ? size_ : pick(0, 4));
    return tensor(type, std::move(shape));
  }

  // A value for a formal: a sequence or a map where its type says so, else a tensor.
  Data value(const Schema& s, const std::string& formal) {
    std::string kind = formal;
    for (const auto& [variable, types] : s.types)
      if (variable == formal) kind = types[0];
    if (kind == "seq") {
      Sequence list;
      for (int64_t n = pick(0, 3); n > 0; --n) list.emplace_back(tensor(DType::f32));
      return Data(std::make_shared<Sequence>(std::move(list)));
    }
    if (kind == "map") {
      auto map = std::make_shared<MapData>();
      int64_t n = pick(0, 3);
      map->keys = tensor(chance(50) ? DType::i64 : DType::string, {n});
      map->values = tensor(chance(50) ? DType::f32 : chance(50) ? DType::i64 : DType::string, {n});
      return Data(std::move(map));
    }
    return Data(tensor(type(s, formal)));
  }

  // A type that the formal admits; a type variable keeps the type it was given before, mostly.
  DType type(const Schema& s, const std::string& formal) {
    if (auto known = bound_.find(formal); known != bound_.end() && chance(95)) return known->second;
    DType t = DType::f32;
    std::vector<std::string> admitted;
    for (const auto& [variable, types] : s.types)
      if (variable == formal) admitted = types;
    std::string one = admitted.empty() ? formal : admitted[size_t(pick(0, int64_t(admitted.size()) - 1))];
    auto among = [&](bool (*test)(DType)) {
      do t = DType(pick(1, kDTypeCount - 1));
      while (!test(t));
    };
    if (one == "float")
      chance(50) ? void(t = DType::f32) : among(is_float);
    else if (one == "int")
      among(is_integer);
    else if (one == "numeric")
      among([](DType d) { return is_float(d) || is_integer(d); });
    else if (auto named = dtype_from_name(one))
      t = *named;
    else if (chance(60))
      among([](DType) { return true; });
    if (!admitted.empty()) bound_[formal] = t;
    return t;
  }

  AttrValue attribute(const AttrDef& a) {
    auto numbers = [&] {
      std::vector<int64_t> v(size_t(chance(60) ? std::max<int64_t>(rank_ - pick(0, 2), 0) : pick(0, 5)), 0);
      bool plain = chance(60);
      for (int64_t& x : v) x = plain ? pick(1, 2) : chance(5) ? wild() : pick(-3, 4);
      return v;
    };
    if (a.type == "int")
      return chance(4)                             ? wild()
             : chance(10)                          ? pick(-100, 100)
             : a.name == "to" || a.name == "dtype" ? pick(1, 16)
                                                   : pick(-2, 3);
    if (a.type == "float") return float(pick(-8, 16)) / 4;
    if (a.type == "string") {
      const char* words[] = {"bogus", "",     "constant",  "linear", "SAME_UPPER", "reverse", "bidirectional",
                             "LEFT",  "tanh", "ij,jk->ik", "SUM",    "sum",        "add"};
      return std::string(a.has_fallback && chance(50) ? a.fallback : words[pick(0, 12)]);
    }
    if (a.type == "ints") return numbers();
    if (a.type == "floats") {
      std::vector<float> v;
      for (int64_t x : numbers()) v.push_back(float(x));
      return v;
    }
    if (a.type == "strings") return std::vector<std::string>(size_t(pick(0, 3)), "Relu");
    if (a.type == "tensor") return tensor(chance(50) ? DType::f32 : DType::i64);
    if (a.type == "tensors") return std::vector<Tensor>{tensor(DType::f32)};
    return Type::tensor(DType::f32);
  }

  Node node(const OpDef& op, std::vector<Data>& inputs) {
    rank_ = pick(0, 5);
    size_ = pick(1, 4);
    bound_.clear();
    const Schema& s = schema(op);
    Node n;
    n.op = op.name;
    n.domain = op.domain;
    n.def = &op;
    size_t count = std::min<size_t>(s.max_inputs, s.inputs.size() + 3);
    count = s.min_inputs + size_t(pick(0, int64_t(count - s.min_inputs)));
    for (size_t k = 0; k < count; ++k) {
      const Formal& f = s.inputs[std::min(k, s.inputs.size() - 1)];
      if (f.optional && chance(30))
        inputs.emplace_back();
      else
        inputs.push_back(value(s, f.type));
    }
    while (!inputs.empty() && inputs.back().empty()) inputs.pop_back();
    for (const AttrDef& a : s.attributes)
      if (a.type != "graph" && (a.required || chance(40))) n.set(a.name, attribute(a));
    size_t outputs = std::min<size_t>(s.max_outputs, s.outputs.size() + 2);
    outputs = std::max<size_t>(s.min_outputs, size_t(pick(1, int64_t(std::max<size_t>(outputs, 1)))));
    n.outputs.assign(outputs, 0);
    return n;
  }

 private:
  std::mt19937_64 random_;
  std::map<std::string, DType> bound_;
  int64_t rank_ = 2, size_ = 2;
};

// Infers the types of one node; `known` says how much of its inputs inference sees.
enum class Known { values, shapes, element_types };
Status infer(Graph& g, Node node, const std::vector<Data>& inputs, Known known) {
  for (size_t k = 0; k < inputs.size(); ++k) {
    if (inputs[k].empty()) {
      node.inputs.push_back(kAbsent);
      continue;
    }
    Type type;
    if (inputs[k].is_tensor()) {
      const Tensor& t = inputs[k].tensor();
      type = known == Known::element_types ? Type::tensor(t.dtype()) : Type::tensor(t.dtype(), to_dims(t.shape()));
    } else {
      type = inputs[k].is_map()
                 ? Type::map(inputs[k].map().keys.dtype(), Type::tensor(inputs[k].map().values.dtype(), {}))
                 : Type::sequence(Type::tensor(DType::f32));
    }
    ValueId v = g.add_value("x", type);
    if (known == Known::values && inputs[k].is_tensor()) g.value(v).constant = inputs[k].tensor();
    node.inputs.push_back(v);
  }
  for (ValueId& v : node.outputs) v = g.add_value("y");
  g.nodes.push_back(std::move(node));
  return infer_types(g);
}

std::string describe(const Node& node, const std::vector<Data>& inputs) {
  std::string s = node.op + "(";
  for (const Data& d : inputs)
    s += d.empty()        ? "-, "
         : !d.is_tensor() ? "…, "
                          : std::string(name(d.tensor().dtype())) + to_string(d.tensor().shape()) + ", ";
  s += ")";
  for (const Attribute& a : node.attributes) s += " " + a.name;
  return s;
}

class EveryOperator : public ::testing::TestWithParam<const OpDef*> {};

std::vector<const OpDef*> evaluated() {
  auto ops = all_ops();
  std::erase_if(ops, [](const OpDef* op) { return !op->eval || (op->traits & kControlFlow); });
  return ops;
}
std::string test_name(const ::testing::TestParamInfo<const OpDef*>& info) {
  std::string domain = info.param->domain;
  std::replace(domain.begin(), domain.end(), '.', '_');
  return (domain.empty() ? "" : domain + "_") + info.param->name;
}
INSTANTIATE_TEST_SUITE_P(Is, EveryOperator, ::testing::ValuesIn(evaluated()), test_name);

// What inference said of output k against the tensor that was made.
void compare(const Type& t, const Tensor& y, size_t k) {
  if (t.kind == Type::Kind::tensor && t.dtype != DType::undefined) {
    EXPECT_EQ(t.dtype, y.dtype()) << "output " << k;
  }
  if (!t.ranked) return;
  std::string both = t.to_string() + " against " + to_string(y.shape());
  EXPECT_EQ(t.rank(), y.rank()) << "output " << k << ": " << both;
  for (int64_t i = 0; i < std::min(t.rank(), y.rank()); ++i) {
    auto d = t.dims[size_t(i)].constant();
    EXPECT_EQ(d.value_or(y.dim(i)), y.dim(i)) << "output " << k << ": " << both;
  }
}

TEST_P(EveryOperator, RefusesOrSucceeds) {
  const OpDef& op = *GetParam();
  auto budget = std::make_shared<MemoryBudget>(int64_t(64) << 20);
  Generator generate(std::hash<std::string>()(std::string(op.domain) + op.name));
  const char* longer = std::getenv("AI_VMM_ROUNDS");
  for (int round = 0, rounds = longer ? std::atoi(longer) : 300; round < rounds; ++round) {
    std::vector<Data> inputs;
    Node node = generate.node(op, inputs);
    SCOPED_TRACE(describe(node, inputs));
    Graph known, shaped, typed;
    bool values_ok = infer(known, node, inputs, Known::values).ok();
    bool shapes_ok = infer(shaped, node, inputs, Known::shapes).ok();
    if (!infer(typed, node, inputs, Known::element_types).ok()) continue;  // refused before any run
    MemoryBudget::Scope scope(budget);
    Random random;
    auto made = evaluate(typed.nodes[0], inputs, random);
    if (!made.ok()) continue;
    for (const Graph* g : {values_ok ? &known : nullptr, shapes_ok ? &shaped : nullptr, &typed})
      for (size_t k = 0; g && k < made->size() && k < node.outputs.size(); ++k)
        if ((*made)[k].is_tensor()) compare(g->value(g->nodes[0].outputs[k]).type, (*made)[k].tensor(), k);
  }
}

}  // namespace
}  // namespace ai_vmm
