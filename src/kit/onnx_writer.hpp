// AiVmmGraph → an ONNX model, for engines that read ONNX.
//
// The operators of a graph have the meaning of our canonical version, ai.onnx 28. From opset 21 on that is also the
// meaning of every operator that the opset knows: later versions only admit more element types and optional attributes
// (import/convert_rules.cpp has no step above 21), which an engine that lacks them refuses by itself. So the model may
// be stamped with any opset from 21 to 28 that its reader takes.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ai_vmm/backend_abi.h"

namespace ai_vmm {

inline constexpr int kOldestOnnxOpset = 21, kNewestOnnxOpset = 28;

// Where the elements of large constants are; small ones, which shapes may hang on, are always inside.
enum class OnnxWeights {
  beside,      // listed in OnnxModel::weights; the reader is handed them by name
  by_address,  // the model holds their address in this process, as ONNX Runtime and OpenVINO write it: a copy of
               // nothing
};

struct OnnxWeight {  // a constant outside the model's bytes; its memory is the graph's
  std::string name;
  int32_t dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

struct OnnxPort {
  std::string name;
  int32_t dtype;
  std::optional<std::vector<int64_t>> dims;  // -1: a size known at run time
};

struct OnnxModel {
  std::string bytes;
  std::vector<OnnxWeight> weights;
  std::vector<OnnxPort> inputs, outputs;  // in the order of the graph
};

// Values keep their names. Sizes that are expressions are left open, except that an input's symbol keeps its name.
OnnxModel write_onnx(const AiVmmGraph& graph, int opset, OnnxWeights weights);

// A part of a graph as a graph: the nodes at `indices`, with what they read from outside as inputs. Outputs are what
// the whole gives back, or, of a single node, all of its outputs. Refers to the whole, which must outlive it.
class SubgraphView {
 public:
  SubgraphView(const AiVmmGraph& whole, const std::vector<uint32_t>& indices);
  SubgraphView(const SubgraphView&) = delete;
  const AiVmmGraph& get() const { return graph_; }

 private:
  AiVmmGraph graph_;
  std::vector<const AiVmmNode*> nodes_;
  std::vector<int32_t> inputs_, outputs_;
};

}  // namespace ai_vmm
