#include "graph/graph.hpp"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/check.hpp"

namespace ai_vmm {

std::string Type::to_string() const {
  switch (kind) {
    case Kind::unknown: return "?";
    case Kind::tensor:
      return std::string(dtype == DType::undefined ? "?" : ai_vmm::name(dtype)) +
             (ranked ? ai_vmm::to_string(dims) : "[...]");
    case Kind::sequence: return "seq(" + (element ? element->to_string() : "?") + ")";
    case Kind::optional: return "optional(" + (element ? element->to_string() : "?") + ")";
    case Kind::map:
      return std::string("map(") + ai_vmm::name(dtype) + ", " + (element ? element->to_string() : "?") + ")";
  }
  return "?";
}

bool operator==(const Type& a, const Type& b) {
  if (a.kind != b.kind || a.dtype != b.dtype || a.ranked != b.ranked || a.dims != b.dims) return false;
  if (!a.element || !b.element) return !a.element && !b.element;
  return *a.element == *b.element;
}

// ---------------------------------------------------------------- Node

const AttrValue* Node::find(std::string_view attribute) const {
  for (const Attribute& a : attributes)
    if (a.name == attribute) return &a.value;
  return nullptr;
}

namespace {
template <class T, class Fallback>
T get(const Node& node, std::string_view attribute, Fallback&& fallback) {
  const AttrValue* v = node.find(attribute);
  if (!v) return T(std::forward<Fallback>(fallback));
  const T* t = std::get_if<T>(v);
  AI_VMM_CHECK(t, node.label() + ": attribute " + std::string(attribute) + " has another type");
  return *t;
}
}  // namespace

int64_t Node::i(std::string_view a, int64_t fallback) const { return get<int64_t>(*this, a, fallback); }
float Node::f(std::string_view a, float fallback) const { return get<float>(*this, a, fallback); }
std::string Node::s(std::string_view a, std::string_view fallback) const {
  return get<std::string>(*this, a, fallback);
}
std::vector<int64_t> Node::ints(std::string_view a, std::vector<int64_t> fallback) const {
  return get<std::vector<int64_t>>(*this, a, std::move(fallback));
}
std::vector<float> Node::floats(std::string_view a, std::vector<float> fallback) const {
  return get<std::vector<float>>(*this, a, std::move(fallback));
}
std::vector<std::string> Node::strings(std::string_view a, std::vector<std::string> fallback) const {
  return get<std::vector<std::string>>(*this, a, std::move(fallback));
}
const Tensor* Node::tensor(std::string_view a) const {
  const AttrValue* v = find(a);
  return v ? std::get_if<Tensor>(v) : nullptr;
}
void Node::set(std::string_view attribute, AttrValue value) {
  for (Attribute& a : attributes)
    if (a.name == attribute) {
      a.value = std::move(value);
      return;
    }
  attributes.push_back({std::string(attribute), std::move(value)});
}
void Node::remove(std::string_view attribute) {
  std::erase_if(attributes, [&](const Attribute& a) { return a.name == attribute; });
}
const Body* Node::body(std::string_view attribute) const {
  for (const Body& b : bodies)
    if (b.attribute == attribute) return &b;
  return nullptr;
}
std::string Node::label() const {
  std::string s = "operator \"" + (domain.empty() ? op : domain + "." + op) + "\"";
  return name.empty() ? s : s + " (node " + name + ")";
}

// ---------------------------------------------------------------- Graph

Graph Graph::clone() const {
  Graph g;
  g.name = name;
  g.values = values;
  g.nodes = nodes;
  g.inputs = inputs;
  g.outputs = outputs;
  g.captures = captures;
  g.metadata = metadata;
  g.overridable = overridable;
  g.files = files;
  g.symbols = symbols;
  for (Node& n : g.nodes)
    for (Body& b : n.bodies) b.graph = std::make_shared<Graph>(b.graph->clone());
  return g;
}

ValueId Graph::add_value(std::string name, Type type) {
  // Unique names are a contract of the text form; passes rarely add values, so a scan on clash is enough.
  if (name.empty()) name = "v" + std::to_string(values.size());
  if (find(name) != kAbsent) {
    std::string base = name + "_";
    int k = static_cast<int>(values.size());
    do name = base + std::to_string(k++);
    while (find(name) != kAbsent);
  }
  values.push_back({std::move(name), std::move(type), {}, {}});
  return static_cast<ValueId>(values.size() - 1);
}

ValueId Graph::add_constant(std::string name, Tensor tensor) {
  ValueId v = add_value(std::move(name), Type::tensor(tensor.dtype(), to_dims(tensor.shape())));
  value(v).constant = std::move(tensor);
  return v;
}

Node& Graph::add_node(std::string_view op, std::vector<ValueId> in, std::vector<ValueId> out, std::string_view domain) {
  Node n;
  n.op = op;
  n.domain = domain;
  n.inputs = std::move(in);
  n.outputs = std::move(out);
  nodes.push_back(std::move(n));
  return nodes.back();
}

ValueId Graph::find(std::string_view value_name) const {
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i].name == value_name) return static_cast<ValueId>(i);
  return kAbsent;
}

std::vector<int> Graph::producers() const {
  std::vector<int> p(values.size(), -1);
  for (size_t n = 0; n < nodes.size(); ++n)
    for (ValueId v : nodes[n].outputs)
      if (v != kAbsent) p[static_cast<size_t>(v)] = static_cast<int>(n);
  return p;
}

namespace {
template <class F>
void for_each_use(const Node& node, F&& f) {
  for (ValueId v : node.inputs)
    if (v != kAbsent) f(v);
  for (const Body& b : node.bodies)
    for (ValueId v : b.captures) f(v);
}
}  // namespace

std::vector<std::vector<int>> Graph::users() const {
  std::vector<std::vector<int>> u(values.size());
  for (size_t n = 0; n < nodes.size(); ++n)
    for_each_use(nodes[n], [&](ValueId v) {
      auto& list = u[static_cast<size_t>(v)];
      if (list.empty() || list.back() != static_cast<int>(n)) list.push_back(static_cast<int>(n));
    });
  return u;
}

Status Graph::sort() {
  auto producer = producers();
  std::vector<int> waiting(nodes.size(), 0);
  std::vector<std::vector<int>> next(nodes.size());
  for (size_t n = 0; n < nodes.size(); ++n)
    for_each_use(nodes[n], [&](ValueId v) {
      if (int p = producer[static_cast<size_t>(v)]; p >= 0) {
        ++waiting[n];
        next[static_cast<size_t>(p)].push_back(static_cast<int>(n));
      }
    });
  // A min-heap of ready nodes keeps the original order wherever it is already right.
  std::vector<int> ready;
  auto later = std::greater<int>();
  for (size_t n = 0; n < nodes.size(); ++n)
    if (waiting[n] == 0) ready.push_back(static_cast<int>(n));
  std::make_heap(ready.begin(), ready.end(), later);
  std::vector<Node> sorted;
  sorted.reserve(nodes.size());
  std::vector<char> done(nodes.size(), 0);
  while (!ready.empty()) {
    std::pop_heap(ready.begin(), ready.end(), later);
    auto n = static_cast<size_t>(ready.back());
    ready.pop_back();
    done[n] = 1;
    for (int m : next[n])
      if (--waiting[static_cast<size_t>(m)] == 0) {
        ready.push_back(m);
        std::push_heap(ready.begin(), ready.end(), later);
      }
    sorted.push_back(std::move(nodes[n]));
  }
  if (sorted.size() != nodes.size()) {
    std::string who;
    for (size_t n = 0; n < nodes.size() && who.empty(); ++n)
      if (!done[n]) who = nodes[n].label();
    return Status(Code::invalid_argument,
                  "The graph \"" + name + "\" has a cycle through " + who + "; a model must be acyclic.");
  }
  nodes = std::move(sorted);
  return {};
}

Status Graph::verify() const {
  auto bad = [&](const std::string& what) {
    return Status(Code::invalid_argument, "The graph \"" + name + "\" is not well formed: " + what + ".");
  };
  std::unordered_set<std::string_view> names;
  for (const Value& v : values) {
    if (v.name.empty()) return bad("a value has no name");
    if (!names.insert(v.name).second) return bad("the name \"" + v.name + "\" is used by two values");
  }
  auto in_range = [&](ValueId v) { return v >= 0 && static_cast<size_t>(v) < values.size(); };
  std::vector<char> defined(values.size(), 0);
  for (size_t i = 0; i < values.size(); ++i) defined[i] = bool(values[i].constant);
  for (const auto* list : {&inputs, &captures})
    for (ValueId v : *list) {
      if (!in_range(v)) return bad("an input refers to value " + std::to_string(v) + ", which does not exist");
      defined[static_cast<size_t>(v)] = 1;
    }
  for (const Node& n : nodes) {
    Status s;
    for_each_use(n, [&](ValueId v) {
      if (!s.ok()) return;
      if (!in_range(v))
        s = bad(n.label() + " reads value " + std::to_string(v) + ", which does not exist");
      else if (!defined[static_cast<size_t>(v)])
        s = bad(n.label() + " reads \"" + value(v).name + "\" before anything makes it");
    });
    AI_VMM_TRY(std::move(s));
    for (ValueId v : n.outputs) {
      if (v == kAbsent) continue;
      if (!in_range(v)) return bad(n.label() + " writes value " + std::to_string(v) + ", which does not exist");
      if (defined[static_cast<size_t>(v)])
        return bad("\"" + value(v).name + "\" is made twice, the second time by " + n.label());
      defined[static_cast<size_t>(v)] = 1;
    }
    for (const Body& b : n.bodies) {
      if (!b.graph) return bad(n.label() + " has an empty body \"" + b.attribute + "\"");
      if (b.captures.size() != b.graph->captures.size())
        return bad(n.label() + ": captures of \"" + b.attribute + "\" do not pair up");
      AI_VMM_TRY(b.graph->verify());
    }
  }
  for (ValueId v : outputs) {
    if (!in_range(v)) return bad("an output refers to value " + std::to_string(v) + ", which does not exist");
    if (!defined[static_cast<size_t>(v)]) return bad("nothing makes the output \"" + value(v).name + "\"");
  }
  return {};
}

void Graph::compact() {
  std::vector<char> used(values.size(), 0);
  auto mark = [&](ValueId v) {
    if (v != kAbsent) used[static_cast<size_t>(v)] = 1;
  };
  for (const auto* list : {&inputs, &outputs, &captures})
    for (ValueId v : *list) mark(v);
  for (const Node& n : nodes) {
    for_each_use(n, mark);
    for (ValueId v : n.outputs) mark(v);
  }
  std::vector<ValueId> to(values.size(), kAbsent);
  std::vector<Value> kept;
  for (size_t i = 0; i < values.size(); ++i)
    if (used[i]) {
      to[i] = static_cast<ValueId>(kept.size());
      kept.push_back(std::move(values[i]));
    }
  values = std::move(kept);
  auto renumber = [&](std::vector<ValueId>& list) {
    for (ValueId& v : list)
      if (v != kAbsent) v = to[static_cast<size_t>(v)];
  };
  renumber(inputs);
  renumber(outputs);
  renumber(captures);
  for (Node& n : nodes) {
    renumber(n.inputs);
    renumber(n.outputs);
    for (Body& b : n.bodies) renumber(b.captures);
  }
}

}  // namespace ai_vmm
