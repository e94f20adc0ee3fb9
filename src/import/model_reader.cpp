#include "import/model_reader.hpp"

#include <algorithm>
#include <set>

#include "import/convert.hpp"
#include "ops/op.hpp"

namespace ai_vmm {

namespace {

Status invalid(std::string text) { return Status(Code::invalid_argument, std::move(text)); }
std::string quoted(std::string_view s) { return "\"" + std::string(s) + "\""; }
std::string_view plain_domain(std::string_view domain) { return domain == "ai.onnx" ? "" : domain; }

struct Newest {
  const char* domain;
  int version;
};
constexpr Newest kNewest[] = {{"", 28}, {"ai.onnx.ml", 5}, {"com.microsoft", 1}};

}  // namespace

// ---------------------------------------------------------------- names

Result<ValueId> ModelReader::declare(Scope& scope, std::string_view name, Type type) {
  auto id = static_cast<ValueId>(scope.graph.values.size());
  if (!scope.names.emplace(name, id).second)
    return invalid("Two values of the graph " + quoted(scope.graph.name) + " have the name " + quoted(name) +
                   "; names must be unique.");
  Value v;
  v.name = name;
  v.type = std::move(type);
  scope.graph.values.push_back(std::move(v));
  return id;
}

ValueId ModelReader::resolve(Scope& scope, std::string_view name) {
  if (auto it = scope.names.find(name); it != scope.names.end()) return it->second;
  if (!scope.parent) return kAbsent;
  ValueId outer = resolve(*scope.parent, name);
  if (outer == kAbsent) return kAbsent;
  auto id = static_cast<ValueId>(scope.graph.values.size());
  Value v;
  v.name = name;
  v.type = scope.parent->graph.value(outer).type;
  v.constant = scope.parent->graph.value(outer).constant;
  scope.graph.values.push_back(std::move(v));
  scope.graph.captures.push_back(id);
  scope.captures->push_back(outer);
  scope.names.emplace(name, id);
  return id;
}

// ---------------------------------------------------------------- small messages

Status ModelReader::read_opset(Bytes bytes, Opsets& opsets) {
  std::string domain;
  int64_t version = 0;
  ProtoReader r(bytes);
  while (r.next()) {
    if (r.field() == 1) domain = plain_domain(r.text());
    if (r.field() == 2) version = r.i64();
  }
  AI_VMM_TRY(r.status("OperatorSetIdProto"));
  for (const Newest& n : kNewest)
    if (domain == n.domain && (version < 1 || version > n.version))
      return Status(version < 1 ? Code::invalid_argument : Code::unimplemented,
                    "The model uses version " + std::to_string(version) + " of the operators of " +
                        (domain.empty() ? "ai.onnx" : domain) + "; this build knows 1 to " + std::to_string(n.version) +
                        ".");
  opsets[domain] = int(std::clamp<int64_t>(version, 0, 1 << 20));
  return {};
}

Result<ModelReader::ValueInfo> ModelReader::read_value_info(Bytes bytes, bool shapes) {
  ValueInfo v;
  Bytes type;
  ProtoReader r(bytes);
  while (r.next()) {
    if (r.field() == 1) v.name = r.text();
    if (r.field() == 2) type = r.bytes();
  }
  AI_VMM_TRY(r.status("ValueInfoProto"));
  v.type = AI_VMM_TAKE(read_type_proto(type, v.name, symbols_, shapes));
  return v;
}

Result<ModelReader::NodeParts> ModelReader::read_node_parts(Bytes bytes) {
  NodeParts n;
  ProtoReader r(bytes);
  while (r.next()) {
    switch (r.field()) {
      case 1: n.inputs.push_back(r.text()); break;
      case 2: n.outputs.push_back(r.text()); break;
      case 3: n.name = r.text(); break;
      case 4: n.op = r.text(); break;
      case 5: n.attributes.push_back(r.bytes()); break;
      case 7: n.domain = plain_domain(r.text()); break;
      case 8: n.overload = r.text(); break;
      default: break;
    }
  }
  AI_VMM_TRY(r.status("NodeProto"));
  while (!n.inputs.empty() && n.inputs.back().empty()) n.inputs.pop_back();
  while (!n.outputs.empty() && n.outputs.back().empty()) n.outputs.pop_back();
  return n;
}

Status ModelReader::read_metadata(Bytes bytes, std::map<std::string, std::string>& metadata) {
  std::string key, value;
  ProtoReader r(bytes);
  while (r.next()) {
    if (r.field() == 1) key = r.text();
    if (r.field() == 2) value = r.text();
  }
  AI_VMM_TRY(r.status("StringStringEntryProto"));
  metadata[std::move(key)] = std::move(value);
  return {};
}

// ---------------------------------------------------------------- attributes

namespace {
enum AttributeKind : int64_t {
  kFloat = 1,
  kInt = 2,
  kString = 3,
  kTensor = 4,
  kGraph = 5,
  kFloats = 6,
  kInts = 7,
  kStrings = 8,
  kTensors = 9,
  kGraphs = 10,
  kSparse = 11,
  kSparses = 12,
  kType = 13,
  kTypes = 14,
};
// Field of AttributeProto → kind, for files of before the kind was written.
constexpr std::pair<uint32_t, AttributeKind> kKindOfField[] = {
    {2, kFloat},   {3, kInt},      {4, kString},  {5, kTensor}, {6, kGraph},  {7, kFloats},  {8, kInts},
    {9, kStrings}, {10, kTensors}, {11, kGraphs}, {14, kType},  {15, kTypes}, {22, kSparse}, {23, kSparses}};
}  // namespace

Status ModelReader::read_attribute(Scope& scope, Bytes bytes, Node& node) {
  std::string name, reference;
  int64_t kind = 0, seen = 0;
  int64_t i = 0;
  float f = 0;
  std::string s;
  Bytes single;  // t, g, tp, sparse_tensor
  std::vector<float> floats;
  std::vector<int64_t> ints;
  std::vector<std::string> strings;
  std::vector<Bytes> many;  // tensors, sparse_tensors
  ProtoReader r(bytes);
  while (r.next()) {
    for (auto [field, k] : kKindOfField)
      if (field == r.field()) seen = k;
    switch (r.field()) {
      case 1: name = r.text(); break;
      case 2: f = r.f32(); break;
      case 3: i = r.i64(); break;
      case 4: s = r.text(); break;
      case 5:
      case 6:
      case 14:
      case 22: single = r.bytes(); break;
      case 7: r.fixed<float>([&](float v) { floats.push_back(v); }); break;
      case 8: r.varints([&](uint64_t v) { ints.push_back(int64_t(v)); }); break;
      case 9: strings.emplace_back(r.text()); break;
      case 10:
      case 11:
      case 15:
      case 23: many.push_back(r.bytes()); break;
      case 20: kind = r.i64(); break;
      case 21: reference = r.text(); break;
      default: break;
    }
  }
  AI_VMM_TRY(r.status("AttributeProto"));
  auto bad = [&](const std::string& what, Code code = Code::invalid_argument) {
    std::string label = node.label();
    label[0] = 'O';
    return Status(code, label + ": attribute " + quoted(name) + " " + what + ".");
  };
  if (kind == 0) kind = seen;
  if (name.empty()) return bad("has no name");
  if (node.has(name) || node.body(name)) return bad("is given twice");

  if (!reference.empty()) {
    if (!scope.call)
      return bad("refers to attribute " + quoted(reference) + " of a function, but stands outside of one");
    if (const AttrValue* given = scope.call->find(reference)) {
      node.set(name, *given);
      return {};
    }
    for (Bytes b : scope.function->defaults) {
      ProtoReader d(b);
      std::string_view default_name;
      while (d.next())
        if (d.field() == 1) default_name = d.text();
      AI_VMM_TRY(d.status("AttributeProto"));
      if (default_name != reference) continue;
      Node holder;
      Graph none;
      Scope outside{.graph = none};
      AI_VMM_TRY(read_attribute(outside, b, holder));
      if (holder.attributes.empty())
        return bad("has a default that is a graph, which is not supported", Code::unimplemented);
      node.set(name, std::move(holder.attributes[0].value));
      return {};
    }
    return {};  // the caller left it out, and it has no default: so is it here
  }

  switch (kind) {
    case kFloat: node.set(name, f); return {};
    case kInt: node.set(name, i); return {};
    case kString: node.set(name, std::move(s)); return {};
    case kFloats: node.set(name, std::move(floats)); return {};
    case kInts: node.set(name, std::move(ints)); return {};
    case kStrings: node.set(name, std::move(strings)); return {};
    case kTensor:
    case kSparse: {
      NamedTensor t =
          AI_VMM_TAKE(kind == kTensor ? read_tensor_proto(single, source_) : read_sparse_tensor_proto(single, source_));
      node.set(name, std::move(t.tensor));
      return {};
    }
    case kTensors:
    case kSparses: {
      std::vector<Tensor> tensors;
      for (Bytes b : many) {
        NamedTensor t =
            AI_VMM_TAKE(kind == kTensors ? read_tensor_proto(b, source_) : read_sparse_tensor_proto(b, source_));
        tensors.push_back(std::move(t.tensor));
      }
      node.set(name, std::move(tensors));
      return {};
    }
    case kType: node.set(name, AI_VMM_TAKE(read_type_proto(single, node.name, symbols_))); return {};
    case kGraph: {
      Body body;
      body.attribute = name;
      body.graph = std::make_shared<Graph>(AI_VMM_TAKE(read_graph(single, &scope, &body.captures)));
      node.bodies.push_back(std::move(body));
      return {};
    }
    case kGraphs:
    case kTypes: return bad("is a list of graphs or types, which no operator of this build takes", Code::unimplemented);
    default: return bad("has type " + std::to_string(kind) + ", which ONNX does not define");
  }
}

// ---------------------------------------------------------------- nodes

Status ModelReader::read_node(Scope& scope, const NodeParts& parts) {
  Node node;
  node.name = parts.name;
  node.op = parts.op;
  node.domain = parts.domain;
  if (std::string key = function_key(parts.domain, parts.op, parts.overload); functions_.count(key)) {
    node.op = std::move(key);
    node.domain = kLocalFunctionDomain;
  }
  for (std::string_view name : parts.inputs) {
    ValueId v = name.empty() ? kAbsent : resolve(scope, name);
    if (v == kAbsent && !name.empty()) {
      std::string label = node.label();
      label[0] = 'O';
      return invalid(label + " reads the value " + quoted(name) + ", which nothing in the model makes.");
    }
    node.inputs.push_back(v);
  }
  for (std::string_view name : parts.outputs) node.outputs.push_back(name.empty() ? kAbsent : scope.names.at(name));
  for (Bytes b : parts.attributes) AI_VMM_TRY(read_attribute(scope, b, node));
  scope.graph.nodes.push_back(std::move(node));
  return {};
}

// A Constant node becomes the constant of its output: there is nothing to run, and conversions see the value.
Status ModelReader::read_constant(Scope& scope, const NodeParts& parts) {
  Node node;
  node.name = parts.name;
  node.op = parts.op;
  for (Bytes b : parts.attributes) AI_VMM_TRY(read_attribute(scope, b, node));
  if (node.attributes.size() != 1 || parts.outputs.size() != 1 || !parts.inputs.empty())
    return invalid("Operator \"Constant\" (node " + node.name + ") must have one attribute, one output and no input.");
  Tensor t;
  const auto& [name, value] = node.attributes[0];
  if (const auto* tensor = std::get_if<Tensor>(&value); tensor && (name == "value" || name == "sparse_value")) {
    t = *tensor;
  } else if (const auto* i = std::get_if<int64_t>(&value); i && name == "value_int") {
    t = Tensor::scalar(*i);
  } else if (const auto* f = std::get_if<float>(&value); f && name == "value_float") {
    t = Tensor::scalar(*f);
  } else if (const auto* s = std::get_if<std::string>(&value); s && name == "value_string") {
    t = Tensor::scalar(*s);
  } else if (const auto* is = std::get_if<std::vector<int64_t>>(&value); is && name == "value_ints") {
    t = Tensor::vector(*is);
  } else if (const auto* fs = std::get_if<std::vector<float>>(&value); fs && name == "value_floats") {
    t = Tensor::vector(*fs);
  } else if (const auto* ss = std::get_if<std::vector<std::string>>(&value); ss && name == "value_strings") {
    t = Tensor::vector(*ss);
  } else {
    return invalid("Operator \"Constant\" (node " + node.name + ") has an attribute " + quoted(name) +
                   " that it does not take.");
  }
  Value& v = scope.graph.value(scope.names.at(parts.outputs[0]));
  v.type = Type::tensor(t.dtype(), to_dims(t.shape()));
  v.constant = std::move(t);
  return {};
}

Status ModelReader::read_nodes(Scope& scope, const std::vector<Bytes>& nodes, const std::vector<Bytes>& value_info) {
  std::vector<NodeParts> parts;
  parts.reserve(nodes.size());
  for (Bytes b : nodes) {
    parts.push_back(AI_VMM_TAKE(read_node_parts(b)));
    for (std::string_view name : parts.back().outputs)
      if (!name.empty()) (void)AI_VMM_TAKE(declare(scope, name, {}));
  }
  for (Bytes b : value_info) {
    ValueInfo info = AI_VMM_TAKE(read_value_info(b, !scope.function));
    auto it = scope.names.find(info.name);
    if (it == scope.names.end()) continue;
    Type& type = scope.graph.value(it->second).type;
    if (type.kind == Type::Kind::unknown) type = std::move(info.type);
  }
  // Constants first: a body that captures one sees its value.
  auto is_constant = [&](const NodeParts& p) {
    return p.op == "Constant" && p.domain.empty() && !functions_.count(function_key(p.domain, p.op, p.overload));
  };
  for (const NodeParts& p : parts)
    if (is_constant(p)) AI_VMM_TRY(read_constant(scope, p));
  for (const NodeParts& p : parts)
    if (!is_constant(p)) AI_VMM_TRY(read_node(scope, p));
  return {};
}

// ---------------------------------------------------------------- graphs

Result<Graph> ModelReader::read_graph(Bytes bytes, Scope* parent, std::vector<ValueId>* captures) {
  Graph g;
  Scope scope{.graph = g, .parent = parent, .captures = captures};
  if (parent) {
    scope.call = parent->call;
    scope.function = parent->function;
    scope.depth = parent->depth + 1;
    if (scope.depth > kMaxBodyDepth)
      return invalid("The model nests bodies of control flow more than " + std::to_string(kMaxBodyDepth) +
                     " levels deep.");
  }
  std::vector<Bytes> nodes, inputs, outputs, value_info, initialisers, sparse;
  ProtoReader r(bytes);
  while (r.next()) {
    switch (r.field()) {
      case 1: nodes.push_back(r.bytes()); break;
      case 2: g.name = r.text(); break;
      case 5: initialisers.push_back(r.bytes()); break;
      case 10:
        if (!parent) g.metadata["onnx.graph_doc"] = r.text();
        break;
      case 11: inputs.push_back(r.bytes()); break;
      case 12: outputs.push_back(r.bytes()); break;
      case 13: value_info.push_back(r.bytes()); break;
      case 15: sparse.push_back(r.bytes()); break;
      default: break;
    }
  }
  AI_VMM_TRY(r.status("GraphProto"));

  std::vector<ValueId> formal;
  for (Bytes b : inputs) {
    ValueInfo info = AI_VMM_TAKE(read_value_info(b));
    if (info.name.empty()) return invalid("An input of the graph " + quoted(g.name) + " has no name.");
    formal.push_back(AI_VMM_TAKE(declare(scope, info.name, std::move(info.type))));
  }
  // An initialiser of the name of an input is its default value. It is taken as a constant unless the caller overrides
  // it. Before IR version 4 every initialiser had to be listed as an input, so there the listing says nothing.
  auto initialise = [&](Bytes b, bool dense) -> Status {
    NamedTensor t = AI_VMM_TAKE(dense ? read_tensor_proto(b, source_) : read_sparse_tensor_proto(b, source_));
    if (t.name.empty()) return invalid("An initialiser of the graph " + quoted(g.name) + " has no name.");
    ValueId v;
    if (auto it = scope.names.find(t.name); it != scope.names.end() && !g.value(it->second).constant) {
      v = it->second;
      if (!parent && ir_version_ >= 4) {
        Type type = g.value(v).type;
        if (type.dtype == DType::undefined) type = Type::tensor(t.tensor.dtype(), to_dims(t.tensor.shape()));
        g.overridable.emplace_back(t.name, type);
        if (std::find(options_.overridden.begin(), options_.overridden.end(), t.name) != options_.overridden.end()) {
          g.value(v).type = std::move(type);
          return {};
        }
      }
    } else {
      v = AI_VMM_TAKE(declare(scope, t.name, {}));
    }
    g.value(v).type = Type::tensor(t.tensor.dtype(), to_dims(t.tensor.shape()));
    g.value(v).constant = std::move(t.tensor);
    return {};
  };
  for (Bytes b : initialisers) AI_VMM_TRY(initialise(b, true));
  for (Bytes b : sparse) AI_VMM_TRY(initialise(b, false));
  for (ValueId v : formal)
    if (!g.is_constant(v)) g.inputs.push_back(v);

  // What the outputs declare counts like value_info.
  std::vector<Bytes> declared = value_info;
  declared.insert(declared.end(), outputs.begin(), outputs.end());
  AI_VMM_TRY(read_nodes(scope, nodes, declared));

  std::set<std::string_view> given;
  for (Bytes b : outputs) {
    std::string_view name;
    ProtoReader o(b);
    while (o.next())
      if (o.field() == 1) name = o.text();
    ValueId v = resolve(scope, name);
    if (v == kAbsent)
      return invalid("Nothing makes the output " + quoted(name) + " of the graph " + quoted(g.name) + ".");
    if (!given.insert(name).second && !parent)
      return invalid("The output " + quoted(name) + " of the model is listed twice.");
    g.outputs.push_back(v);
  }
  return g;
}

// ---------------------------------------------------------------- models

namespace {

Status sort_all(Graph& graph) {
  AI_VMM_TRY(graph.sort());
  for (Node& n : graph.nodes)
    for (Body& b : n.bodies) AI_VMM_TRY(sort_all(*b.graph));
  return {};
}

}  // namespace

Result<Graph> ModelReader::read(Bytes model) {
  int64_t model_version = 0;
  bool has_graph = false;
  Bytes graph_bytes;
  Opsets opsets;
  std::vector<Bytes> functions;
  std::map<std::string, std::string> metadata, standard;
  ProtoReader r(model);
  while (r.next()) {
    switch (r.field()) {
      case 1: ir_version_ = r.i64(); break;
      case 2: standard["onnx.producer_name"] = r.text(); break;
      case 3: standard["onnx.producer_version"] = r.text(); break;
      case 4: standard["onnx.domain"] = r.text(); break;
      case 5: model_version = r.i64(); break;
      case 6: standard["onnx.doc"] = r.text(); break;
      case 7:
        graph_bytes = r.bytes();
        has_graph = true;
        break;
      case 8: AI_VMM_TRY(read_opset(r.bytes(), opsets)); break;
      case 14: AI_VMM_TRY(read_metadata(r.bytes(), metadata)); break;
      case 25: functions.push_back(r.bytes()); break;
      default: break;
    }
  }
  AI_VMM_TRY(r.status("ModelProto"));
  if (!has_graph) return Status(Code::data_loss, "The file has no graph: it is not an ONNX model, or it is cut short.");
  if (ir_version_ > kMaxIrVersion)
    return Status(Code::unimplemented, "The model has IR version " + std::to_string(ir_version_) +
                                           "; this build knows 1 to " + std::to_string(kMaxIrVersion) + ".");
  if (ir_version_ < 1)
    return Status(Code::data_loss, "The model has IR version " + std::to_string(ir_version_) + "; it is damaged.");
  if (ir_version_ < 3) opsets.emplace("", 1);  // opsets came with IR version 3

  expansion_left_ = (int64_t(4) << 20) + 16 * int64_t(model.size());
  for (Bytes b : functions) AI_VMM_TRY(read_function(b));
  for (auto& [key, function] : functions_)
    function.opsets.insert(opsets.begin(), opsets.end());  // what it does not say is as in the model

  Graph g = AI_VMM_TAKE(read_graph(graph_bytes, nullptr, nullptr));
  AI_VMM_TRY(sort_all(g));
  AI_VMM_TRY(convert_to_canonical(g, opsets));
  std::vector<std::string> stack;
  AI_VMM_TRY(expand_calls(g, stack));

  standard["onnx.ir_version"] = std::to_string(ir_version_);
  if (model_version) standard["onnx.model_version"] = std::to_string(model_version);
  for (const auto& [domain, version] : opsets)
    standard[domain.empty() ? "onnx.opset" : "onnx.opset." + domain] = std::to_string(version);
  g.metadata.merge(standard);
  g.metadata.merge(metadata);
  g.symbols = symbols_.first_free();

  Status defined = define_ops(g);
  if (options_.infer) AI_VMM_TRY(std::move(defined));
  AI_VMM_TRY(sort_all(g));
  AI_VMM_TRY(g.verify());
  if (options_.infer) AI_VMM_TRY(infer_types(g));
  return g;
}

}  // namespace ai_vmm
