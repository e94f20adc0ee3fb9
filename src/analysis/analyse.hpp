// What a model is and what it costs, from its graph alone.
#pragma once

#include <map>
#include <string>

#include "graph/graph.hpp"

namespace ai_vmm {

enum class ModelKind {
  unknown,
  llm_transformer,        // attention over token embeddings: decoders and encoders of text
  vision_cnn,             // 2- or 3-D convolutions
  vision_transformer,     // attention over image patches
  speech_rnn,             // recurrent layers, or attention over 1-D convolutions of a signal: audio transformers too
  recommendation_system,  // large embedding tables and dense layers
  scientific_ml,          // message passing, spectral or smooth dense networks over plain numbers
};
const char* name(ModelKind kind);  // "LLM_TRANSFORMER"; "UNKNOWN"

struct OpStatistics {
  int64_t count = 0;
  double flops = 0, bytes = 0;
};

struct Analysis {
  ModelKind kind = ModelKind::unknown;
  std::string why;         // the structure that decided the kind: "12 attentions over token embeddings"
  int64_t nodes = 0;       // bodies included, as in all that follows
  int64_t parameters = 0;  // elements of constants
  int64_t weight_bytes = 0;
  double flops = 0, bytes = 0;  // of nodes of known sizes, without those that control flow repeats
  int64_t unsized = 0;          // nodes whose sizes are known only at run time
  int64_t peak_bytes = 0;       // most bytes of intermediate values alive at once, in the order of the nodes
  std::map<std::string, OpStatistics> operators;  // by "domain.Name", without "ai.onnx."
};

// `sizes` gives the symbols of the inputs; symbols without a size leave nodes unsized. The kind does not depend on it.
Analysis analyse(const Graph& graph, const Dim::Lookup& sizes);

// Only the kind and why.
struct Recognised {
  ModelKind kind;
  std::string why;
};
Recognised recognise(const Graph& graph);

}  // namespace ai_vmm
