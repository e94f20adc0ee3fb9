#include "ops/op.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <mutex>
#include <unordered_map>

#include "base/check.hpp"
#include "base/numbers.hpp"
#include "base/text.hpp"
#include "ops/all_ops.hpp"

namespace ai_vmm {

// ---------------------------------------------------------------- registry

namespace {

struct Registry {
  struct Entry {
    const OpDef* def;
    Schema schema;
  };
  std::unordered_map<std::string, Entry> by_key;  // "domain.name"
  std::unordered_map<const OpDef*, const Schema*> schemas;

  static std::string key(std::string_view domain, std::string_view name) {
    return (domain == "ai.onnx" ? std::string() : std::string(domain)) + "." + std::string(name);
  }
  Registry() {
    for (std::span<const OpDef> family : op_families())
      for (const OpDef& def : family) {
        auto [it, fresh] = by_key.emplace(key(def.domain, def.name), Entry{&def, parse(def)});
        AI_VMM_CHECK(fresh, std::string("two definitions of operator ") + def.name);
        (void)it;
      }
    for (auto& [k, e] : by_key) schemas[e.def] = &e.schema;
  }

  static Schema parse(const OpDef& def) {
    Schema s;
    std::string_view text = def.signature;
    std::string_view types;
    if (auto bar = text.find('|'); bar != text.npos) {
      types = text.substr(bar + 1);
      text = text.substr(0, bar);
    }
    auto arrow = text.find("->");
    AI_VMM_CHECK(arrow != text.npos, std::string("signature of ") + def.name);
    auto formals = [&](std::string_view list, std::vector<Formal>& out, size_t& min, size_t& max) {
      for (std::string_view item : split(list, ',')) {
        item = trim(item);
        if (item.empty()) continue;
        Formal f;
        auto colon = item.find(':');
        AI_VMM_CHECK(colon != item.npos, std::string("signature of ") + def.name);
        f.name = trim(item.substr(0, colon));
        std::string_view type = trim(item.substr(colon + 1));
        while (!type.empty() && (type.back() == '?' || type.back() == '*')) {
          (type.back() == '?' ? f.optional : f.variadic) = true;
          type.remove_suffix(1);
        }
        f.type = type;
        out.push_back(f);
      }
      max = 0;
      min = 0;
      for (size_t i = 0; i < out.size(); ++i) {
        if (out[i].variadic)
          max = SIZE_MAX;
        else if (max != SIZE_MAX)
          max = i + 1;
        if (!out[i].optional) min = i + 1;
      }
    };
    formals(text.substr(0, arrow), s.inputs, s.min_inputs, s.max_inputs);
    formals(text.substr(arrow + 2), s.outputs, s.min_outputs, s.max_outputs);
    for (std::string_view item : split(types, ',')) {
      item = trim(item);
      if (item.empty()) continue;
      auto colon = item.find(':');
      AI_VMM_CHECK(colon != item.npos, std::string("type variables of ") + def.name);
      std::vector<std::string> admitted;
      for (std::string_view t : split(item.substr(colon + 1), ' '))
        if (!trim(t).empty()) admitted.emplace_back(trim(t));
      s.types.emplace_back(trim(item.substr(0, colon)), std::move(admitted));
    }
    // A default may hold commas inside brackets: "pads:ints=[0,0]".
    std::string_view attributes = def.attributes;
    size_t start = 0;
    int depth = 0;
    for (size_t i = 0; i <= attributes.size(); ++i) {
      if (i < attributes.size()) {
        depth += attributes[i] == '[';
        depth -= attributes[i] == ']';
        if (attributes[i] != ',' || depth) continue;
      }
      std::string_view item = trim(attributes.substr(start, i - start));
      start = i + 1;
      if (item.empty()) continue;
      AttrDef a;
      auto colon = item.find(':');
      AI_VMM_CHECK(colon != item.npos, std::string("attributes of ") + def.name);
      a.name = trim(item.substr(0, colon));
      std::string_view rest = trim(item.substr(colon + 1));
      if (auto eq = rest.find('='); eq != rest.npos) {
        a.has_fallback = true;
        a.fallback = trim(rest.substr(eq + 1));
        rest = trim(rest.substr(0, eq));
      }
      if (!rest.empty() && rest.back() == '!') {
        a.required = true;
        rest.remove_suffix(1);
      }
      a.type = rest;
      s.attributes.push_back(std::move(a));
    }
    return s;
  }
};

const Registry& registry() {
  static const Registry r;
  return r;
}

}  // namespace

const OpDef* find_op(std::string_view domain, std::string_view name) {
  auto it = registry().by_key.find(Registry::key(domain, name));
  return it == registry().by_key.end() ? nullptr : it->second.def;
}

std::vector<const OpDef*> all_ops() {
  std::vector<const OpDef*> ops;
  for (const auto& [k, e] : registry().by_key) ops.push_back(e.def);
  std::sort(ops.begin(), ops.end(), [](const OpDef* a, const OpDef* b) {
    int c = std::strcmp(a->domain, b->domain);
    return c ? c < 0 : std::strcmp(a->name, b->name) < 0;
  });
  return ops;
}

std::string nearest_op(std::string_view domain, std::string_view name) {
  std::vector<std::string> names;
  for (const OpDef* op : all_ops())
    if (domain == op->domain) names.push_back(op->name);
  return nearest(name, names);
}

const Schema& schema(const OpDef& op) { return *registry().schemas.at(&op); }

// ---------------------------------------------------------------- Infer

const Type& Infer::type(size_t k) const {
  static const Type unknown;
  return has(k) ? graph_.value(node.inputs[k]).type : unknown;
}
const Tensor* Infer::constant(size_t k) const {
  if (!has(k)) return nullptr;
  const Tensor& t = graph_.value(node.inputs[k]).constant;
  return t ? &t : nullptr;
}

namespace {
constexpr int64_t kMaxKnownInts = 1024;  // longer integer tensors are data, not shapes

std::optional<std::vector<Dim>> ints_of(const Tensor& t) {
  if (t.rank() > 1 || t.count() > kMaxKnownInts) return std::nullopt;
  if (t.dtype() != DType::i64 && t.dtype() != DType::i32 && t.dtype() != DType::boolean) return std::nullopt;
  std::vector<Dim> out;
  for (int64_t i = 0; i < t.count(); ++i) out.emplace_back(read_int64(t.dtype(), t.data(), i));
  return out;
}
}  // namespace

std::optional<std::vector<Dim>> Infer::ints(size_t k) const {
  if (!has(k)) return std::nullopt;
  const Value& v = graph_.value(node.inputs[k]);
  if (v.constant) return ints_of(v.constant);
  return v.ints;
}

Dim Infer::fresh() { return Dim::symbol("u" + std::to_string(symbols_++)); }
std::vector<Dim> Infer::fresh(int64_t count) {
  std::vector<Dim> d;
  for (int64_t i = 0; i < count; ++i) d.push_back(fresh());
  return d;
}

namespace {
// Merges what inference found with what was declared: inference wins; a declaration only fills gaps.
Type merge(const Type& inferred, const Type& declared) {
  if (inferred.kind == Type::Kind::unknown) return declared;
  if (declared.kind != inferred.kind) return inferred;
  Type t = inferred;
  if (t.kind == Type::Kind::tensor) {
    if (t.dtype == DType::undefined) t.dtype = declared.dtype;
    if (!t.ranked && declared.ranked) {
      t.ranked = true;
      t.dims = declared.dims;
    }
  } else if (t.element && declared.element) {
    t.element = std::make_shared<Type>(merge(*t.element, *declared.element));
  } else if (!t.element) {
    t.element = declared.element;
  }
  return t;
}
}  // namespace

void Infer::set(size_t k, Type type) {
  if (!node.has_output(k)) return;
  Value& v = graph_.value(node.outputs[k]);
  v.type = merge(type, v.type);
}
const Type& Infer::output_type(size_t k) const {
  static const Type unknown;
  return node.has_output(k) ? graph_.value(node.outputs[k]).type : unknown;
}
void Infer::set_ints(size_t k, std::vector<Dim> elements) {
  if (node.has_output(k) && int64_t(elements.size()) <= kMaxKnownInts)
    graph_.value(node.outputs[k]).ints = std::move(elements);
}

Status Infer::error(const std::string& what) const {
  std::string label = node.label();
  label[0] = 'O';
  return Status(Code::invalid_argument, label + ": " + what);
}

Result<int64_t> Infer::axis(int64_t value, int64_t rank) const {
  if (value < -rank || value >= rank)
    return error("axis " + std::to_string(value) + " is outside a tensor of rank " + std::to_string(rank) + ".");
  return value < 0 ? value + rank : value;
}
Result<std::vector<int64_t>> Infer::axes(std::vector<int64_t> values, int64_t rank) const {
  for (int64_t& v : values) v = AI_VMM_TAKE(axis(v, rank));
  std::sort(values.begin(), values.end());
  if (std::adjacent_find(values.begin(), values.end()) != values.end()) return error("an axis is named twice.");
  return values;
}

Result<std::vector<Dim>> Infer::broadcast(std::span<const std::vector<Dim>> shapes) const {
  size_t rank = 0;
  for (const auto& s : shapes) rank = std::max(rank, s.size());
  std::vector<Dim> out(rank, Dim(1));
  for (const auto& s : shapes)
    for (size_t i = 0; i < s.size(); ++i) {
      Dim& o = out[rank - s.size() + i];
      if (!o.is(1) && !s[i].is(1) && known_different(o, s[i]) && o.is_constant() && s[i].is_constant())
        return error("shapes do not broadcast: " + o.to_string() + " against " + s[i].to_string() + ".");
      o = bcast(o, s[i]);
    }
  return out;
}

Result<std::vector<Type>> Infer::infer_body(const Body& body, std::span<const Type> formal_inputs) {
  Graph& g = *body.graph;
  for (size_t i = 0; i < g.inputs.size() && i < formal_inputs.size(); ++i) {
    Value& v = g.value(g.inputs[i]);
    v.type = merge(formal_inputs[i], v.type);
  }
  for (size_t i = 0; i < g.captures.size(); ++i) {
    const Value& outer = graph_.value(body.captures[i]);
    Value& inner = g.value(g.captures[i]);
    inner.type = outer.type;
    inner.ints = outer.ints;
    inner.constant = outer.constant;
  }
  AI_VMM_TRY(detail::infer_graph(g, symbols_));
  std::vector<Type> types;
  for (ValueId v : g.outputs) types.push_back(g.value(v).type);
  return types;
}

// ---------------------------------------------------------------- schema check and engine

namespace {

bool type_matches(const Schema& s, const std::string& formal, const Type& t) {
  if (t.kind == Type::Kind::unknown || formal == "any") return true;
  for (const auto& [variable, admitted] : s.types)
    if (variable == formal) {
      for (const std::string& a : admitted)
        if (type_matches(s, a, t)) return true;
      return false;
    }
  if (formal == "seq") return t.kind == Type::Kind::sequence;
  if (formal == "optional") return true;  // a plain value passes as an optional
  if (formal == "map") return t.kind == Type::Kind::map || t.kind == Type::Kind::sequence;
  if (t.kind != Type::Kind::tensor) return false;
  if (t.dtype == DType::undefined) return true;
  if (formal == "float") return is_float(t.dtype);
  if (formal == "int") return is_integer(t.dtype);
  if (formal == "numeric") return is_integer(t.dtype) || is_float(t.dtype);
  if (formal == "tensor") return true;
  auto d = dtype_from_name(formal);
  AI_VMM_CHECK(d, "unknown type \"" + formal + "\" in a signature");
  return *d == t.dtype;
}

const char* attr_type_name(const AttrValue& v) {
  static constexpr const char* kNames[] = {"int",    "float",   "string",  "tensor", "ints",
                                           "floats", "strings", "tensors", "type"};
  return kNames[v.index()];
}

// What keeps inputs of these types from an operator, "" when nothing does. `type_of(i)` is null for an absent input.
template <class TypeOf>
std::string input_fault(const Schema& s, size_t count, TypeOf type_of) {
  std::vector<std::pair<const Formal*, DType>> bound;  // the first tensor seen of each type variable
  for (size_t i = 0; i < std::max(count, s.min_inputs); ++i) {
    const Formal& f = s.inputs[std::min(i, s.inputs.size() - 1)];
    const Type* t = i < count ? type_of(i) : nullptr;
    if (!t) {
      if (!f.optional && !f.variadic) return "lacks its input \"" + f.name + "\".";
      continue;
    }
    if (!type_matches(s, f.type, *t)) return "does not take " + t->to_string() + " as its input \"" + f.name + "\".";
    bool variable = std::any_of(s.types.begin(), s.types.end(), [&](const auto& v) { return v.first == f.type; });
    if (!variable || !t->is_tensor() || t->dtype == DType::undefined) continue;
    auto at = std::find_if(bound.begin(), bound.end(), [&](const auto& b) { return b.first->type == f.type; });
    if (at == bound.end())
      bound.emplace_back(&f, t->dtype);
    else if (at->second != t->dtype)
      return "needs its inputs \"" + at->first->name + "\" and \"" + f.name +
             "\" to be of one element type; they are " + name(at->second) + " and " + name(t->dtype) + ".";
  }
  return "";
}

Status check_schema(Graph& graph, Node& node) {
  auto error = [&](const std::string& what) {
    std::string label = node.label();
    label[0] = 'O';
    return Status(Code::invalid_argument, label + " " + what);
  };
  if (!node.def) {
    std::string near = nearest_op(node.domain, node.op);
    return Status(Code::unimplemented, error("is not known to this build").message() +
                                           (near.empty() ? "." : "; the nearest name is \"" + near + "\"."));
  }
  const Schema& s = schema(*node.def);
  if (node.inputs.size() < s.min_inputs || node.inputs.size() > s.max_inputs)
    return error("has " + std::to_string(node.inputs.size()) + " inputs; it takes " + std::to_string(s.min_inputs) +
                 (s.max_inputs == SIZE_MAX       ? " or more."
                  : s.max_inputs == s.min_inputs ? "."
                                                 : " to " + std::to_string(s.max_inputs) + "."));
  if (node.outputs.size() < s.min_outputs || node.outputs.size() > s.max_outputs)
    return error("has " + std::to_string(node.outputs.size()) + " outputs; it makes " + std::to_string(s.min_outputs) +
                 (s.max_outputs == SIZE_MAX        ? " or more."
                  : s.max_outputs == s.min_outputs ? "."
                                                   : " to " + std::to_string(s.max_outputs) + "."));
  std::string fault = input_fault(s, node.inputs.size(), [&](size_t i) {
    return node.inputs[i] == kAbsent ? nullptr : &graph.value(node.inputs[i]).type;
  });
  if (!fault.empty()) return error(fault);
  for (const AttrDef& a : s.attributes) {
    if (a.type == "graph") {
      if (a.required && !node.body(a.name)) return error("lacks its body \"" + a.name + "\".");
      continue;
    }
    const AttrValue* v = node.find(a.name);
    if (!v) {
      if (a.required) return error("lacks its attribute \"" + a.name + "\".");
      continue;
    }
    if (a.type != attr_type_name(*v)) {
      // An empty list in a model has no type of its own.
      auto empty = [&] {
        return std::visit(
            [](const auto& x) {
              if constexpr (requires {
                              x.empty();
                              x.size();
                            })
                return x.empty();
              else
                return false;
            },
            *v);
      };
      if (empty() && (a.type == "ints" || a.type == "floats" || a.type == "strings")) {
        if (a.type == "ints") node.set(a.name, std::vector<int64_t>());
        if (a.type == "floats") node.set(a.name, std::vector<float>());
        if (a.type == "strings") node.set(a.name, std::vector<std::string>());
      } else {
        return error(std::string("has attribute \"") + a.name + "\" of type " + attr_type_name(*v) + "; it must be " +
                     a.type + ".");
      }
    }
  }
  return {};
}

}  // namespace

namespace detail {
Status infer_graph(Graph& graph, int64_t& symbols) {
  for (Value& v : graph.values)
    if (v.constant) {
      v.type = Type::tensor(v.constant.dtype(), to_dims(v.constant.shape()));
      v.ints = ints_of(v.constant);
    }
  // A graph input of known rank with unnamed sizes has had them named at import; anything else stays unknown.
  for (Node& node : graph.nodes) {
    AI_VMM_TRY(check_schema(graph, node));
    Infer ctx(graph, node, symbols);
    AI_VMM_TRY(node.def->infer(ctx));
  }
  return {};
}
}  // namespace detail

Status infer_types(Graph& graph) {
  // Fresh names start after those that came in from outside, of a graph that this one is a part of.
  auto start_after = [&](const Dim& d) {
    std::vector<std::string> names;
    d.collect_symbols(names);
    for (std::string_view n : names) {
      int64_t number = 0;
      if (!n.starts_with('u')) continue;
      auto [end, error] = std::from_chars(n.data() + 1, n.data() + n.size(), number);
      if (error == std::errc() && end == n.data() + n.size()) graph.symbols = std::max(graph.symbols, number + 1);
    }
  };
  for (const auto* list : {&graph.inputs, &graph.captures})
    for (ValueId v : *list) {
      for (const Dim& d : graph.value(v).type.dims) start_after(d);
      if (graph.value(v).ints)
        for (const Dim& d : *graph.value(v).ints) start_after(d);
    }
  return detail::infer_graph(graph, graph.symbols);
}

namespace {
struct Unknown {
  int count = 0;
  std::string example;  // a node's name
};
using UnknownOps = std::map<std::pair<std::string, std::string>, Unknown>;  // by domain, operator

void define(Graph& graph, UnknownOps& unknown) {
  for (Node& n : graph.nodes) {
    n.def = find_op(n.domain, n.op);
    if (!n.def)
      if (Unknown& u = unknown[{n.domain, n.op}]; !u.count++) u.example = n.name;
    for (Body& b : n.bodies) define(*b.graph, unknown);
  }
}
}  // namespace

Status define_ops(Graph& graph) {
  constexpr size_t kShown = 20, kExplained = 5;
  UnknownOps unknown;
  define(graph, unknown);
  if (unknown.empty()) return {};
  std::string list;
  size_t shown = 0;
  for (const auto& [op, use] : unknown) {
    if (shown++ == kShown) {
      list += ", and " + std::to_string(unknown.size() - kShown) + " more";
      break;
    }
    list += (list.empty() ? "\"" : ", \"") + (op.first.empty() ? "" : op.first + ".") + op.second + "\" (" +
            std::to_string(use.count) + (use.count == 1 ? " node" : " nodes") +
            (use.example.empty() ? "" : ", for example " + use.example);
    if (shown <= kExplained)
      if (std::string near = nearest_op(op.first, op.second); !near.empty())
        list += "; the nearest known name is \"" + near + "\"";
    list += ")";
  }
  return Status(Code::unimplemented, "The model uses operators that this build does not have: " + list + ".");
}

// ---------------------------------------------------------------- cost

namespace {
double elements(const Type& t) {
  auto s = t.shape();
  if (!s) return 0;
  double n = 1;
  for (int64_t d : *s) n *= double(d);
  return t.is_tensor() ? n : 0;
}
double type_bytes(const Type& t) { return elements(t) * bits(t.dtype) / 8; }
}  // namespace

double CostQuery::elements_in(size_t k) const { return k < inputs.size() ? elements(inputs[k]) : 0; }
double CostQuery::elements_out(size_t k) const { return k < outputs.size() ? elements(outputs[k]) : 0; }
Shape CostQuery::shape_in(size_t k) const { return k < inputs.size() ? inputs[k].shape().value_or(Shape{}) : Shape{}; }
Shape CostQuery::shape_out(size_t k) const {
  return k < outputs.size() ? outputs[k].shape().value_or(Shape{}) : Shape{};
}

Cost cost_of(const OpDef& op, const CostQuery& q) {
  Cost c;
  if (op.cost) {
    c = op.cost(q);
  } else if (op.traits & kReduces) {
    c.flops = q.elements_in(0);
  } else if (!(op.traits & (kMovesData | kControlFlow | kHostOnly))) {
    c.flops = q.elements_out(0);
  }
  if (c.bytes_read == 0 && c.bytes_written == 0 && !(op.traits & kReshapes)) {
    for (const Type& t : q.inputs) c.bytes_read += type_bytes(t);
    for (const Type& t : q.outputs) c.bytes_written += type_bytes(t);
  }
  return c;
}

// ---------------------------------------------------------------- Eval

uint64_t Random::next() {
  uint64_t z = (state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
double Random::uniform() { return double(next() >> 11) * 0x1p-53; }
double Random::normal() {
  double u = 1.0 - uniform(), v = uniform();
  return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
}

Result<Tensor*> Eval::make(size_t k, DType dtype, Shape shape) {
  if (bits(dtype) == 0 && dtype != DType::string)
    return error("element type number " + std::to_string(int(dtype)) + " is not known.");
  auto t = Tensor::make(dtype, std::move(shape));
  if (!t.ok()) return std::move(t).status();
  if (k >= out.size()) out.resize(k + 1);
  out[k] = Data(*std::move(t));
  return const_cast<Tensor*>(&out[k].tensor());
}
Status Eval::error(const std::string& what) const {
  std::string label = node.label();
  label[0] = 'O';
  return Status(Code::invalid_argument, label + ": " + what);
}
Result<int64_t> Eval::axis(int64_t value, int64_t rank) const {
  if (value < -rank || value >= rank)
    return error("axis " + std::to_string(value) + " is outside a tensor of rank " + std::to_string(rank) + ".");
  return value < 0 ? value + rank : value;
}

Result<std::vector<Data>> evaluate(const Node& node, std::span<const Data> inputs, Random& random) {
  AI_VMM_CHECK(node.def && node.def->eval, node.label() + " has no reference function");
  // Types that inference did not know are checked now, so that no reference function meets what it does not expect.
  std::vector<Type> types(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].is_tensor()) types[i] = Type::tensor(inputs[i].tensor().dtype());
    if (inputs[i].is_sequence()) types[i].kind = Type::Kind::sequence;
    if (inputs[i].is_map()) types[i].kind = Type::Kind::map;
  }
  std::string fault =
      input_fault(schema(*node.def), inputs.size(), [&](size_t i) { return inputs[i].empty() ? nullptr : &types[i]; });
  Eval ctx(node, inputs, random);
  if (!fault.empty()) return ctx.error("it " + fault);
  if (Status s = node.def->eval(ctx); !s.ok()) {
    if (s.message().find("perator \"") == std::string::npos) s = std::move(s).during(node.label());
    return s;
  }
  return std::move(ctx.out);
}

}  // namespace ai_vmm
