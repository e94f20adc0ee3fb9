// ONNX files → Graph.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "ai_vmm/types.hpp"
#include "graph/graph.hpp"

namespace ai_vmm {

struct ImportOptions {
  bool copy_weights = false;            // weights live in memory of our own instead of the mapped file
  bool allow_links = false;             // external-data files may be links that leave the model's folder
  std::vector<std::string> overridden;  // of Graph::overridable: those that become inputs instead of constants
  bool infer = true;  // off: structure only, for `inspect` of broken models; unknown operators have no Node::def
};

// Reads a model file (mapped; weights are views into the mapping, which lives as long as they do), converts every
// operator to its canonical version, inlines model-local functions, resolves captures of bodies, names unknown sizes of
// inputs, sorts, verifies and infers types. Graph::metadata holds ir_version, producer, opset, custom properties.
// Damaged or hostile files fail with invalid_argument, data_loss or resource_exhausted in bounded time and memory.
Result<Graph> import_onnx(const std::string& path, const ImportOptions& options = {});
// The same from bytes, which must outlive the graph unless copy_weights. External data is refused.
Result<Graph> import_onnx(std::span<const std::byte> bytes, const ImportOptions& options = {});

// A serialized TensorProto, SequenceProto or OptionalProto, as the ONNX test data has them; `type` says which.
Result<Data> read_onnx_data(std::span<const std::byte> bytes, const Type& type);
Result<Tensor> read_onnx_tensor(std::span<const std::byte> bytes);                // a TensorProto
std::string write_onnx_tensor(const Tensor& tensor, std::string_view name = "");  // a TensorProto
// The proto that `type` asks for: TensorProto, SequenceProto, OptionalProto or MapProto.
std::string write_onnx_data(const Data& data, const Type& type, std::string_view name = "");

// Whether the files that the constants of `graph` are views of still hold what was loaded: before weights are read
// again.
Status verify_files(const Graph& graph);

}  // namespace ai_vmm
