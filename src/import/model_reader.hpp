// The state of reading one model: ModelProto → Graph, see model_reader.cpp (structure) and functions.cpp (inlining).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/proto.hpp"
#include "import/onnx.hpp"
#include "import/tensor_proto.hpp"
#include "import/type_proto.hpp"

namespace ai_vmm {

inline constexpr int kMaxBodyDepth = 64;
inline constexpr int kMaxIrVersion = 14;

class ModelReader {
 public:
  ModelReader(const ImportOptions& options, TensorSource source) : options_(options), source_(std::move(source)) {}
  Result<Graph> read(Bytes model);

 private:
  using Opsets = std::map<std::string, int>;  // domain → version

  // A NodeProto, taken apart. Views of the file.
  struct NodeParts {
    std::vector<std::string_view> inputs, outputs;
    std::string_view name, op, domain, overload;
    std::vector<Bytes> attributes;
  };
  // A FunctionProto. Its body is read anew for each call, since attributes differ.
  struct Function {
    std::string_view name;
    std::vector<std::string_view> inputs, outputs;
    std::vector<Bytes> nodes, value_info, defaults;
    Opsets opsets;
    int64_t bytes = 0;
  };
  // The names of the graph being read and of those around it.
  struct Scope {
    Graph& graph;
    Scope* parent = nullptr;
    std::vector<ValueId>* captures = nullptr;  // of the Body: values of the parent's graph
    const Node* call = nullptr;                // inside a function: where attribute references lead
    const Function* function = nullptr;
    int depth = 0;
    std::unordered_map<std::string_view, ValueId> names = {};
  };
  struct ValueInfo {
    std::string_view name;
    Type type;
  };

  // --- structure
  Status read_opset(Bytes bytes, Opsets& opsets);
  Result<NodeParts> read_node_parts(Bytes bytes);
  Result<ValueInfo> read_value_info(Bytes bytes, bool shapes = true);
  Result<Graph> read_graph(Bytes bytes, Scope* parent, std::vector<ValueId>* captures);
  Status read_nodes(Scope& scope, const std::vector<Bytes>& nodes, const std::vector<Bytes>& value_info);
  Status read_node(Scope& scope, const NodeParts& parts);
  Status read_constant(Scope& scope, const NodeParts& parts);
  Status read_attribute(Scope& scope, Bytes bytes, Node& node);
  Result<ValueId> declare(Scope& scope, std::string_view name, Type type);
  ValueId resolve(Scope& scope, std::string_view name);  // kAbsent when nothing has the name
  Status read_metadata(Bytes bytes, std::map<std::string, std::string>& metadata);

  // --- functions
  Status read_function(Bytes bytes);
  static std::string function_key(std::string_view domain, std::string_view name, std::string_view overload);
  Result<Graph> instantiate(const Function& function, const Node& call, const Graph& caller);
  Status expand_calls(Graph& graph, std::vector<std::string>& stack);
  struct Names {  // of a graph that calls are expanded in
    std::unordered_set<std::string> values;
    std::unordered_map<std::string, int> prefixes;  // → how often it was used
  };
  Status expand_call(Graph& graph, Node call, std::vector<std::string>& stack, Names& names);

  const ImportOptions& options_;
  TensorSource source_;
  Symbols symbols_;
  std::unordered_map<std::string, Function> functions_;
  int64_t ir_version_ = 0;
  int64_t expansion_left_ = 0;  // bytes of function bodies that may still be read
};

}  // namespace ai_vmm
