// ONNX messages made by hand, for tests: whatever is wrong with a model can be written.
#pragma once

#include <string>
#include <vector>

#include "base/proto.hpp"
#include "import/onnx.hpp"

namespace ai_vmm::test {

inline std::string opset(int64_t version, std::string_view domain = "") {
  ProtoWriter w;
  w.bytes(1, domain);
  w.varint(2, uint64_t(version));
  return w.take();
}

struct Size {
  int64_t value = -1;
  std::string param = {};
};
inline std::string tensor_type(DType dtype, const std::vector<Size>& sizes) {
  ProtoWriter shape;
  for (const Size& s : sizes) {
    ProtoWriter d;
    if (s.value >= 0) d.varint(1, uint64_t(s.value));
    if (!s.param.empty()) d.bytes(2, s.param);
    shape.bytes(1, d.take());
  }
  ProtoWriter tensor, type;
  tensor.varint(1, uint64_t(dtype));
  tensor.bytes(2, shape.take());
  type.bytes(1, tensor.take());
  return type.take();
}
inline std::string value(std::string_view name, const std::string& type = "") {
  ProtoWriter w;
  w.bytes(1, name);
  if (!type.empty()) w.bytes(2, type);
  return w.take();
}
inline std::string f32(std::string_view name, const std::vector<Size>& sizes) {
  return value(name, tensor_type(DType::f32, sizes));
}

inline std::string graph_attribute(std::string_view name, const std::string& graph) {
  ProtoWriter w;
  w.bytes(1, name);
  w.bytes(6, graph);
  w.varint(20, 5);
  return w.take();
}
inline std::string int_attribute(std::string_view name, int64_t v) {
  ProtoWriter w;
  w.bytes(1, name);
  w.varint(3, uint64_t(v));
  w.varint(20, 2);
  return w.take();
}

struct NodeText {
  std::string op;
  std::vector<std::string> inputs, outputs;
  std::string domain = {};
  std::vector<std::string> attributes = {};
  std::string name = {};
  std::string message() const {
    ProtoWriter w;
    for (const auto& i : inputs) w.bytes(1, i);
    for (const auto& o : outputs) w.bytes(2, o);
    if (!name.empty()) w.bytes(3, name);
    w.bytes(4, op);
    for (const auto& a : attributes) w.bytes(5, a);
    if (!domain.empty()) w.bytes(7, domain);
    return w.take();
  }
};

struct GraphText {
  std::vector<NodeText> nodes;
  std::vector<std::string> inputs = {}, outputs = {};  // ValueInfoProto
  std::vector<std::string> initialisers = {};          // TensorProto
  std::vector<std::string> sparse = {};
  std::string message() const {
    ProtoWriter w;
    for (const NodeText& n : nodes) w.bytes(1, n.message());
    w.bytes(2, "g");
    for (const auto& i : initialisers) w.bytes(5, i);
    for (const auto& i : inputs) w.bytes(11, i);
    for (const auto& o : outputs) w.bytes(12, o);
    for (const auto& s : sparse) w.bytes(15, s);
    return w.take();
  }
};

struct FunctionText {
  std::string domain, name;
  std::vector<std::string> inputs, outputs;
  std::vector<NodeText> nodes;
  int64_t opset_version = 18;
  std::string message() const {
    ProtoWriter w;
    w.bytes(1, name);
    for (const auto& i : inputs) w.bytes(4, i);
    for (const auto& o : outputs) w.bytes(5, o);
    for (const NodeText& n : nodes) w.bytes(7, n.message());
    w.bytes(9, opset(opset_version));
    w.bytes(10, domain);
    return w.take();
  }
};

struct ModelText {
  GraphText graph;
  std::vector<FunctionText> functions = {};
  int64_t ir_version = 10;
  int64_t opset_version = 18;
  std::string message() const {
    ProtoWriter w;
    w.varint(1, uint64_t(ir_version));
    w.bytes(7, graph.message());
    w.bytes(8, opset(opset_version));
    for (const FunctionText& f : functions) w.bytes(25, f.message());
    return w.take();
  }
};

// The bytes must outlive the graph, so they go with it.
struct Read {
  std::string bytes;
  Result<Graph> graph;
  explicit Read(std::string message, const ImportOptions& options = {})
      : bytes(std::move(message)), graph(import_onnx(as_bytes(bytes), options)) {}
  std::string error() const { return graph.status().message(); }
};

}  // namespace ai_vmm::test
