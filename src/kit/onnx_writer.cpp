#include "kit/onnx_writer.hpp"

#include <algorithm>
#include <map>

#include "ai_vmm/compute_backend.hpp"
#include "base/numbers.hpp"
#include "base/proto.hpp"

namespace ai_vmm {

using backend::view;

namespace {

// Shapes, axes, scales and the like stay inside the model: engines read them while they infer types.
constexpr uint64_t kInsideBytes = 1024;
// The name under which both engines take an external "file" for this process's memory.
constexpr const char* kMemoryTag = "*/_ORT_MEM_ADDR_/*";

// Field numbers are those of onnx.proto.
std::string opset_import(std::string_view domain, int version) {
  ProtoWriter w;
  w.bytes(1, domain);
  w.varint(2, uint64_t(version));
  return w.take();
}

std::string entry(std::string_view key, std::string_view value) {
  ProtoWriter w;
  w.bytes(1, key);
  w.bytes(2, value);
  return w.take();
}

enum class Elements { inside, beside, by_address };

std::string tensor(std::string_view name, const AiVmmValue& v, Elements elements) {
  ProtoWriter w;
  for (int32_t i = 0; i < v.rank; ++i) w.varint(1, uint64_t(v.dims[i]));
  w.varint(2, uint64_t(v.dtype));
  w.bytes(8, name);
  if (elements == Elements::inside) {
    w.bytes(9, {static_cast<const char*>(v.data), size_t(v.bytes)});
  } else {
    bool by_address = elements == Elements::by_address;
    w.bytes(13, entry("location", by_address ? kMemoryTag : "weights"));
    w.bytes(13, entry("offset", by_address ? std::to_string(reinterpret_cast<uintptr_t>(v.data)) : "0"));
    w.bytes(13, entry("length", std::to_string(v.bytes)));
    w.varint(14, 1);  // EXTERNAL
  }
  return w.take();
}

bool is_symbol(std::string_view expression) {
  return !expression.empty() && !(expression[0] >= '0' && expression[0] <= '9') &&
         std::all_of(expression.begin(), expression.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
         });
}

std::string value_info(const AiVmmGraph& g, const AiVmmValue& v, bool symbols) {
  ProtoWriter type;
  type.varint(1, uint64_t(v.dtype));
  if (v.rank >= 0) {
    ProtoWriter shape;
    for (int32_t i = 0; i < v.rank; ++i) {
      ProtoWriter dim;
      if (v.dims[i] >= 0) {
        dim.varint(1, uint64_t(v.dims[i]));
      } else {
        std::string_view expression = view(g.expressions[-1 - v.dims[i]]);
        if (symbols && is_symbol(expression)) dim.bytes(2, expression);
      }
      shape.bytes(1, dim.take());
    }
    type.bytes(2, shape.take());
  }
  ProtoWriter proto, w;
  proto.bytes(1, type.take());
  w.bytes(1, view(v.name));
  w.bytes(2, proto.take());
  return w.take();
}

OnnxPort port(const AiVmmValue& v) {
  OnnxPort p{std::string(view(v.name)), v.dtype, std::nullopt};
  if (v.rank >= 0) {
    p.dims.emplace(v.dims, v.dims + v.rank);
    for (int64_t& d : *p.dims) d = std::max<int64_t>(d, -1);
  }
  return p;
}

std::string attribute(const AiVmmAttribute& a) {
  enum Type { FLOAT = 1, INT, STRING, TENSOR, GRAPH, FLOATS, INTS, STRINGS };
  ProtoWriter w;
  w.bytes(1, view(a.name));
  Type type = INT;
  switch (a.kind) {
    case AI_VMM_ATTRIBUTE_INT: w.varint(3, uint64_t(a.i)); break;
    case AI_VMM_ATTRIBUTE_FLOAT: type = FLOAT, w.f32(2, a.f); break;
    case AI_VMM_ATTRIBUTE_STRING: type = STRING, w.bytes(4, view(a.s)); break;
    case AI_VMM_ATTRIBUTE_TENSOR: type = TENSOR, w.bytes(5, tensor("", *a.tensor, Elements::inside)); break;
    case AI_VMM_ATTRIBUTE_INTS:
      type = INTS;
      for (uint32_t i = 0; i < a.count; ++i) w.varint(8, uint64_t(a.ints[i]));
      break;
    case AI_VMM_ATTRIBUTE_FLOATS:
      type = FLOATS;
      for (uint32_t i = 0; i < a.count; ++i) w.f32(7, a.floats[i]);
      break;
    case AI_VMM_ATTRIBUTE_STRINGS:
      type = STRINGS;
      for (uint32_t i = 0; i < a.count; ++i) w.bytes(9, view(a.strings[i]));
      break;
  }
  w.varint(20, type);
  return w.take();
}

// A node over values by name, for what is written out in other operators.
std::string plain_node(std::string_view op, std::initializer_list<std::string_view> inputs, std::string_view output) {
  ProtoWriter w;
  for (std::string_view v : inputs) w.bytes(1, v);
  w.bytes(2, output);
  w.bytes(4, op);
  return w.take();
}

// Swish, of opset 24 and rare in kernels, is what passes/composites.cpp makes of the older x · Sigmoid(alpha · x),
// which engines know to fuse: it is written so again. Appends to a GraphProto.
void write_swish(const AiVmmGraph& g, const AiVmmNode& n, ProtoWriter& graph) {
  const AiVmmValue& x = *g.values[n.inputs[0]];
  std::string_view from = view(x.name), y = view(g.values[n.outputs[0]]->name);
  std::string gate = std::string(y) + ":gate", scaled = std::string(y) + ":scaled", factor = std::string(y) + ":alpha";
  float alpha = 1;
  for (uint32_t i = 0; i < n.attribute_count; ++i)
    if (view(n.attributes[i]->name) == "alpha") alpha = n.attributes[i]->f;
  if (alpha != 1) {
    char element[8] = {};
    write_double(static_cast<DType>(x.dtype), element, 0, alpha);
    auto v = backend::make<AiVmmValue>();
    v.dtype = x.dtype;
    v.data = element;
    v.bytes = uint64_t(backend::bytes_of(x.dtype, 0, nullptr));
    graph.bytes(5, tensor(factor, v, Elements::inside));
    graph.bytes(1, plain_node("Mul", {from, factor}, scaled));
  }
  graph.bytes(1, plain_node("Sigmoid", {alpha != 1 ? std::string_view(scaled) : from}, gate));
  graph.bytes(1, plain_node("Mul", {from, gate}, y));
}

std::string node(const AiVmmGraph& g, const AiVmmNode& n) {
  ProtoWriter w;
  for (uint32_t i = 0; i < n.input_count; ++i) w.bytes(1, n.inputs[i] < 0 ? "" : view(g.values[n.inputs[i]]->name));
  for (uint32_t i = 0; i < n.output_count; ++i) w.bytes(2, n.outputs[i] < 0 ? "" : view(g.values[n.outputs[i]]->name));
  w.bytes(3, view(n.name));
  w.bytes(4, view(n.op));
  for (uint32_t i = 0; i < n.attribute_count; ++i) w.bytes(5, attribute(*n.attributes[i]));
  w.bytes(7, view(n.domain));
  return w.take();
}

}  // namespace

OnnxModel write_onnx(const AiVmmGraph& g, int opset, OnnxWeights weights) {
  OnnxModel model;
  ProtoWriter graph;
  std::map<std::string_view, int> opsets = {{"", opset}};
  std::vector<char> written(g.value_count, 0);
  for (uint32_t i = 0; i < g.input_count; ++i) written[size_t(g.inputs[i])] = 1;
  for (uint32_t n = 0; n < g.node_count; ++n) {
    const AiVmmNode& from = *g.nodes[n];
    if (view(from.op) == "Swish" && view(from.domain).empty())
      write_swish(g, from, graph);
    else
      graph.bytes(1, node(g, from));
    if (!view(from.domain).empty()) opsets[view(from.domain)] = std::max(opsets[view(from.domain)], from.version);
    for (uint32_t i = 0; i < from.input_count; ++i) {
      if (from.inputs[i] < 0 || written[size_t(from.inputs[i])]) continue;
      const AiVmmValue& v = *g.values[from.inputs[i]];
      if (!v.data) continue;
      written[size_t(from.inputs[i])] = 1;
      Elements elements = v.bytes <= kInsideBytes              ? Elements::inside
                          : weights == OnnxWeights::by_address ? Elements::by_address
                                                               : Elements::beside;
      graph.bytes(5, tensor(view(v.name), v, elements));
      if (elements != Elements::inside)
        model.weights.push_back({std::string(view(v.name)),
                                 v.dtype,
                                 {v.dims, v.dims + v.rank},
                                 {static_cast<const std::byte*>(v.data), size_t(v.bytes)}});
    }
  }
  graph.bytes(2, "region");
  for (uint32_t i = 0; i < g.input_count; ++i) {
    graph.bytes(11, value_info(g, *g.values[g.inputs[i]], true));
    model.inputs.push_back(port(*g.values[g.inputs[i]]));
  }
  for (uint32_t i = 0; i < g.output_count; ++i) {
    graph.bytes(12, value_info(g, *g.values[g.outputs[i]], false));
    model.outputs.push_back(port(*g.values[g.outputs[i]]));
  }
  ProtoWriter w;
  w.varint(1, 10);  // the IR version of opset 21; nothing of a later one is used
  for (auto [domain, version] : opsets) w.bytes(8, opset_import(domain, version));
  w.bytes(7, graph.take());
  model.bytes = w.take();
  return model;
}

SubgraphView::SubgraphView(const AiVmmGraph& whole, const std::vector<uint32_t>& indices) : graph_(whole) {
  std::vector<char> made(whole.value_count, 0), leaves(whole.value_count, indices.size() == 1 ? 1 : 0);
  for (uint32_t i = 0; i < whole.output_count; ++i) leaves[size_t(whole.outputs[i])] = 1;
  for (uint32_t n : indices) {
    nodes_.push_back(whole.nodes[n]);
    for (uint32_t k = 0; k < whole.nodes[n]->output_count; ++k)
      if (int32_t v = whole.nodes[n]->outputs[k]; v >= 0) made[size_t(v)] = 1;
  }
  std::vector<char> read(whole.value_count, 0);
  for (const AiVmmNode* n : nodes_)
    for (uint32_t k = 0; k < n->input_count; ++k)
      if (int32_t v = n->inputs[k]; v >= 0 && !made[size_t(v)] && !whole.values[v]->data && !read[size_t(v)]) {
        read[size_t(v)] = 1;
        inputs_.push_back(v);
      }
  for (uint32_t v = 0; v < whole.value_count; ++v)
    if (made[v] && leaves[v]) outputs_.push_back(int32_t(v));
  graph_.nodes = nodes_.data();
  graph_.node_count = uint32_t(nodes_.size());
  graph_.inputs = inputs_.data();
  graph_.input_count = uint32_t(inputs_.size());
  graph_.outputs = outputs_.data();
  graph_.output_count = uint32_t(outputs_.size());
}

}  // namespace ai_vmm
