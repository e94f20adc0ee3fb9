// Model-local functions are inlined: a call is replaced by the body of its function, read with the call's attributes
// and converted from the function's own operator versions.
#include <algorithm>

#include "import/convert.hpp"
#include "import/model_reader.hpp"

namespace ai_vmm {

namespace {
constexpr size_t kMaxCallDepth = 64;
// What a call, and a node that a level of calls moves outward, count against the bytes that expansion may read: their
// work is bounded with them.
constexpr int64_t kCallBytes = 128, kNodeBytes = 32;

// Body input `inner` has no value outside: its uses become absent inputs. Fails where something must be given.
Status drop_capture(Graph& body, ValueId inner, const std::string& function) {
  if (std::find(body.outputs.begin(), body.outputs.end(), inner) != body.outputs.end())
    return Status(Code::invalid_argument, "The function \"" + function + "\" returns its input \"" +
                                              body.value(inner).name + "\", which the call does not give.");
  for (Node& n : body.nodes) {
    std::replace(n.inputs.begin(), n.inputs.end(), inner, kAbsent);
    while (!n.inputs.empty() && n.inputs.back() == kAbsent) n.inputs.pop_back();
    for (Body& b : n.bodies)
      for (size_t i = b.captures.size(); i-- > 0;)
        if (b.captures[i] == inner) {
          AI_VMM_TRY(drop_capture(*b.graph, b.graph->captures[i], function));
          b.captures.erase(b.captures.begin() + ptrdiff_t(i));
          b.graph->captures.erase(b.graph->captures.begin() + ptrdiff_t(i));
        }
  }
  return {};
}
}  // namespace

std::string ModelReader::function_key(std::string_view domain, std::string_view name, std::string_view overload) {
  std::string key(domain == "ai.onnx" ? std::string_view() : domain);
  key.append("::").append(name);
  if (!overload.empty()) key.append("::").append(overload);
  return key;
}

Status ModelReader::read_function(Bytes bytes) {
  Function f;
  std::string_view domain, overload;
  ProtoReader r(bytes);
  while (r.next()) {
    switch (r.field()) {
      case 1: f.name = r.text(); break;
      case 4: f.inputs.push_back(r.text()); break;
      case 5: f.outputs.push_back(r.text()); break;
      case 7: f.nodes.push_back(r.bytes()); break;
      case 9: AI_VMM_TRY(read_opset(r.bytes(), f.opsets)); break;
      case 10: domain = r.text(); break;
      case 11: f.defaults.push_back(r.bytes()); break;
      case 12: f.value_info.push_back(r.bytes()); break;
      case 13: overload = r.text(); break;
      default: break;
    }
  }
  AI_VMM_TRY(r.status("FunctionProto"));
  f.bytes = int64_t(bytes.size());
  std::string key = function_key(domain, f.name, overload);
  if (f.name.empty()) return Status(Code::invalid_argument, "A function of the model has no name.");
  if (!functions_.emplace(key, std::move(f)).second)
    return Status(Code::invalid_argument, "The model defines the function \"" + key + "\" twice.");
  return {};
}

Result<Graph> ModelReader::instantiate(const Function& f, const Node& call, const Graph& caller) {
  auto bad = [&](const std::string& what) {
    return Status(Code::invalid_argument,
                  "The call of function \"" + std::string(f.name) + "\" (node " + call.name + ") " + what + ".");
  };
  if (call.inputs.size() > f.inputs.size())
    return bad("gives " + std::to_string(call.inputs.size()) + " inputs; the function takes " +
               std::to_string(f.inputs.size()));
  if (call.outputs.size() > f.outputs.size())
    return bad("takes " + std::to_string(call.outputs.size()) + " outputs; the function gives " +
               std::to_string(f.outputs.size()));
  if (!call.bodies.empty())
    return Status(Code::unimplemented, bad("gives a graph as an attribute, which is not supported").message());
  Graph g;
  g.name = f.name;
  Scope scope{.graph = g, .call = &call, .function = &f};
  for (size_t i = 0; i < f.inputs.size(); ++i) {
    ValueId v = AI_VMM_TAKE(declare(scope, f.inputs[i], {}));
    if (g.value(v).name.empty()) return bad("names a function with an unnamed input");
    g.inputs.push_back(v);
    if (call.has_input(i)) {  // what conversions may want to know
      g.value(v).type = caller.value(call.inputs[i]).type;
      g.value(v).constant = caller.value(call.inputs[i]).constant;
    }
  }
  AI_VMM_TRY(read_nodes(scope, f.nodes, f.value_info));
  for (std::string_view name : f.outputs) {
    ValueId v = resolve(scope, name);
    if (v == kAbsent) return bad("finds nothing in the function that makes its output \"" + std::string(name) + "\"");
    g.outputs.push_back(v);
  }
  return g;
}

Status ModelReader::expand_calls(Graph& graph, std::vector<std::string>& stack) {
  for (Node& n : graph.nodes)
    for (Body& b : n.bodies) AI_VMM_TRY(expand_calls(*b.graph, stack));
  auto is_call = [](const Node& n) { return n.domain == kLocalFunctionDomain; };
  if (std::none_of(graph.nodes.begin(), graph.nodes.end(), is_call)) return {};
  Names names;
  for (const Value& v : graph.values) names.values.insert(v.name);
  std::vector<Node> nodes = std::move(graph.nodes);
  graph.nodes.clear();
  for (Node& n : nodes) {
    if (is_call(n))
      AI_VMM_TRY(expand_call(graph, std::move(n), stack, names));
    else
      graph.nodes.push_back(std::move(n));
  }
  return {};
}

Status ModelReader::expand_call(Graph& graph, Node call, std::vector<std::string>& stack, Names& names) {
  const Function& f = functions_.at(call.op);
  if (std::find(stack.begin(), stack.end(), call.op) != stack.end())
    return Status(Code::invalid_argument,
                  "The function \"" + call.op + "\" of the model calls itself, which ONNX does not allow.");
  if (stack.size() >= kMaxCallDepth)
    return Status(Code::invalid_argument, "Functions of the model call each other more than " +
                                              std::to_string(kMaxCallDepth) + " levels deep.");
  expansion_left_ -= f.bytes + kCallBytes;
  if (expansion_left_ < 0)
    return Status(Code::resource_exhausted,
                  "The functions of the model expand to more than 16 times its size (at the call of \"" + call.op +
                      "\"); flatten the model with its exporter.");
  Graph body = AI_VMM_TAKE(instantiate(f, call, graph));
  AI_VMM_TRY(body.sort());
  AI_VMM_TRY(convert_to_canonical(body, f.opsets));
  stack.push_back(call.op);
  AI_VMM_TRY(expand_calls(body, stack));
  stack.pop_back();

  expansion_left_ -= int64_t(body.nodes.size()) * kNodeBytes;

  // Values of the body → values of the graph.
  std::string prefix = call.name.empty() ? std::string(f.name) : call.name;
  if (int k = ++names.prefixes[prefix]; k > 1) prefix += "_" + std::to_string(k);
  prefix += "/";
  std::vector<ValueId> to(body.values.size(), kAbsent);
  std::vector<char> mapped(body.values.size(), 0);
  auto map = [&](ValueId inner, ValueId outer) {
    to[size_t(inner)] = outer;
    mapped[size_t(inner)] = 1;
  };
  for (size_t i = 0; i < body.inputs.size(); ++i)
    map(body.inputs[i], i < call.inputs.size() ? call.inputs[i] : kAbsent);
  std::vector<int> producers = body.producers();
  std::vector<size_t> aliases;  // outputs that are inputs, constants, or another output
  for (size_t i = 0; i < call.outputs.size(); ++i) {
    if (call.outputs[i] == kAbsent) continue;
    ValueId inner = body.outputs[i];
    if (producers[size_t(inner)] >= 0 && !mapped[size_t(inner)])
      map(inner, call.outputs[i]);
    else
      aliases.push_back(i);
  }
  for (size_t v = 0; v < body.values.size(); ++v) {
    if (mapped[v]) continue;
    std::string name = prefix + body.values[v].name;
    for (int k = 1; !names.values.insert(name).second; ++k)
      name = prefix + body.values[v].name + "_" + std::to_string(k);
    map(ValueId(v), ValueId(graph.values.size()));
    graph.values.push_back(std::move(body.values[v]));
    graph.values.back().name = std::move(name);
  }
  for (Node& n : body.nodes) {
    n.name = prefix + (n.name.empty() ? n.op : n.name);
    for (ValueId& v : n.inputs)
      if (v != kAbsent) v = to[size_t(v)];
    while (!n.inputs.empty() && n.inputs.back() == kAbsent) n.inputs.pop_back();
    for (ValueId& v : n.outputs)
      if (v != kAbsent) v = to[size_t(v)];
    for (Body& b : n.bodies)
      for (size_t i = b.captures.size(); i-- > 0;) {
        b.captures[i] = to[size_t(b.captures[i])];
        if (b.captures[i] != kAbsent) continue;
        AI_VMM_TRY(drop_capture(*b.graph, b.graph->captures[i], std::string(f.name)));
        b.captures.erase(b.captures.begin() + ptrdiff_t(i));
        b.graph->captures.erase(b.graph->captures.begin() + ptrdiff_t(i));
      }
    graph.nodes.push_back(std::move(n));
  }
  for (size_t i : aliases) {
    ValueId from = to[size_t(body.outputs[i])];
    if (from == kAbsent)
      return Status(Code::invalid_argument, "The function \"" + std::string(f.name) + "\" returns its input \"" +
                                                std::string(f.outputs[i]) + "\", which the call (node " + call.name +
                                                ") does not give.");
    graph.add_node("Identity", {from}, {call.outputs[i]}).name = prefix + "output";
  }
  return {};
}

}  // namespace ai_vmm
