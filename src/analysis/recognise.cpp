// The kind of a model, by what its graph is made of. Sizes that are known only at run time play no part, so a model is
// of one kind at every batch size and length.
#include <algorithm>
#include <set>
#include <string_view>

#include "analysis/analyse.hpp"
#include "ops/op.hpp"

namespace ai_vmm {

const char* name(ModelKind kind) {
  switch (kind) {
    case ModelKind::unknown: return "UNKNOWN";
    case ModelKind::llm_transformer: return "LLM_TRANSFORMER";
    case ModelKind::vision_cnn: return "VISION_CNN";
    case ModelKind::vision_transformer: return "VISION_TRANSFORMER";
    case ModelKind::speech_rnn: return "SPEECH_RNN";
    case ModelKind::recommendation_system: return "RECOMMENDATION_SYSTEM";
    case ModelKind::scientific_ml: return "SCIENTIFIC_ML";
  }
  return "UNKNOWN";
}

namespace {

bool is_one_of(std::string_view op, std::initializer_list<std::string_view> ops) {
  return std::find(ops.begin(), ops.end(), op) != ops.end();
}

struct Structure {
  int64_t attentions = 0;    // a Softmax that weighs another computed value by MatMul, or an attention operator
  int64_t recurrences = 0;   // RNN, GRU, LSTM
  int64_t signal_convs = 0;  // convolutions over one axis
  int64_t image_convs = 0;   // over two or three
  int64_t embeddings = 0;    // Gather of rows of a constant table
  int64_t scatters = 0;      // sums over computed indices: message passing
  int64_t spectra = 0;       // Fourier transforms
  int64_t dense = 0;         // MatMul or Gemm with a constant
  int64_t smooth = 0;        // Tanh, Sin, Cos, Softplus, Erf: activations with derivatives
  bool float_inputs_are_plain = true;  // every float input has at most two axes
  bool tokens = false;                 // an input of 32- or 64-bit integers
};

// Rows below this are positions and token types rather than a vocabulary or a catalogue.
constexpr int64_t kTableRows = 64;

// Whether the softmax's result, moved or masked on the way, is multiplied as a matrix with another computed value.
bool weighs_values(const Graph& graph, const std::vector<std::vector<int>>& users, ValueId v, int depth) {
  for (int n : users[size_t(v)]) {
    const Node& node = graph.nodes[size_t(n)];
    if (is_one_of(node.op, {"MatMul", "FusedMatMul", "Einsum"}))
      return std::none_of(node.inputs.begin(), node.inputs.end(), [&](ValueId i) { return graph.is_constant(i); });
    bool passes_on = is_one_of(node.op, {"Dropout", "Cast", "Where", "Mul", "Reshape", "Transpose", "Identity"});
    if (passes_on && depth > 0 && node.has_output(0) && weighs_values(graph, users, node.outputs[0], depth - 1))
      return true;
  }
  return false;
}

void collect(const Graph& graph, Structure& s) {
  const auto users = graph.users();
  for (const Node& node : graph.nodes) {
    auto constant = [&](size_t k) { return node.has_input(k) && graph.is_constant(node.inputs[k]); };
    auto rank = [&](size_t k) { return node.has_input(k) ? graph.value(node.inputs[k]).type.rank() : -1; };
    const std::string& op = node.op;
    if (op == "Softmax" && node.has_output(0)) s.attentions += weighs_values(graph, users, node.outputs[0], 3);
    if (op.find("Attention") != std::string::npos) ++s.attentions;
    if (is_one_of(op, {"RNN", "GRU", "LSTM"})) ++s.recurrences;
    if (is_one_of(op, {"Conv", "ConvTranspose", "FusedConv", "ConvInteger", "QLinearConv", "DeformConv"})) {
      // QLinearConv has its weight fourth, the others second.
      int64_t axes = rank(op == "QLinearConv" ? 3 : 1) - 2;
      if (axes == 1) ++s.signal_convs;
      if (axes >= 2) ++s.image_convs;
    }
    if (op == "Gather" && constant(0) && !constant(1)) {
      const Tensor& table = graph.value(node.inputs[0]).constant;
      if (is_float(table.dtype()) && table.rank() == 2 && table.dim(0) >= kTableRows) ++s.embeddings;
    }
    if (op == "EmbedLayerNormalization") ++s.embeddings;
    if (is_one_of(op, {"ScatterElements", "ScatterND"})) {
      std::string reduction = node.s("reduction", "none");
      s.scatters += reduction != "none";
    }
    if (is_one_of(op, {"DFT", "STFT", "MelWeightMatrix"})) ++s.spectra;
    if (is_one_of(op, {"MatMul", "Gemm", "FusedGemm", "FusedMatMul", "MatMulNBits"}))
      s.dense += constant(0) || constant(1);
    if (is_one_of(op, {"Tanh", "Sin", "Cos", "Softplus", "Erf", "Mish"})) ++s.smooth;
    for (const Body& b : node.bodies) collect(*b.graph, s);
  }
}

std::string several(int64_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

}  // namespace

Recognised recognise(const Graph& graph) {
  Structure s;
  collect(graph, s);
  for (ValueId v : graph.inputs) {
    const Type& t = graph.value(v).type;
    if (!t.is_tensor()) continue;
    if (t.dtype == DType::i32 || t.dtype == DType::i64) s.tokens = true;
    if (is_float(t.dtype) && t.rank() > 2) s.float_inputs_are_plain = false;
  }
  if (s.recurrences > 0) return {ModelKind::speech_rnn, several(s.recurrences, "recurrent layer")};
  if (s.attentions > 0) {
    std::string attentions = several(s.attentions, "attention");
    if (s.embeddings > 0 && s.tokens) return {ModelKind::llm_transformer, attentions + " over token embeddings"};
    if (s.signal_convs > s.image_convs)
      return {ModelKind::speech_rnn, attentions + " over " + several(s.signal_convs, "convolution") + " of a signal"};
    // Convolutional networks with a few attentions at the end stay convolutional.
    if (s.image_convs > 0 && 4 * s.attentions >= s.image_convs)
      return {ModelKind::vision_transformer, attentions + " over image patches"};
    if (s.image_convs == 0) return {ModelKind::llm_transformer, attentions + " without convolutions"};
  }
  if (s.image_convs > 0 && !(s.tokens && s.float_inputs_are_plain))
    return {ModelKind::vision_cnn, several(s.image_convs, "convolution") + " over images"};
  if (s.embeddings > 0 && s.tokens && s.dense > 0 && s.signal_convs == 0)
    return {ModelKind::recommendation_system,
            several(s.embeddings, "embedding table") + " under " + several(s.dense, "dense layer")};
  if (s.signal_convs > 1) return {ModelKind::speech_rnn, several(s.signal_convs, "convolution") + " of a signal"};
  if (s.scatters > 0 && s.dense > 0)
    return {ModelKind::scientific_ml, "message passing: " + several(s.scatters, "sum") + " over indices"};
  if (s.spectra > 0) return {ModelKind::scientific_ml, several(s.spectra, "Fourier transform")};
  if (s.signal_convs == 0 && s.dense > 1 && s.smooth > 0 && s.float_inputs_are_plain && !s.tokens)
    return {ModelKind::scientific_ml, several(s.dense, "dense layer") + " with smooth activations over plain numbers"};
  return {ModelKind::unknown, "no structure of the six kinds"};
}

}  // namespace ai_vmm
