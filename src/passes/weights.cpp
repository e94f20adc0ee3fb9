// Per-channel arithmetic after a linear operator is folded into its weights, and zero padding before it into its pads.
#include <algorithm>
#include <cmath>

#include "ops/ref.hpp"
#include "passes/edit.hpp"
#include "passes/list.hpp"

namespace ai_vmm {

namespace {

// A linear operator with constant weights.
struct Linear {
  Node* node = nullptr;
  int64_t channels = 0;
  int64_t weight_axis = 0;  // of the output channels in the weights
  int64_t output_axis = 1;  // of the channels in the output
  bool bias = true;         // has a place for a bias
};

Linear linear_before(Edit& edit, ValueId y) {
  Linear l;
  Node* node = edit.maker(y);
  if (!node || !node->domain.empty() || edit.uses(y) != 1 || node->inputs.size() < 2 || node->outputs.size() != 1)
    return l;
  const Tensor* w = edit.constant(node->inputs[1]);
  if (!w ||
      (w->dtype() != DType::f32 && w->dtype() != DType::f64 && w->dtype() != DType::f16 && w->dtype() != DType::bf16))
    return l;
  if (node->has_input(2) && !edit.constant(node->inputs[2])) return l;
  int64_t rank = edit.type(y).rank();
  if (node->op == "Conv" && w->rank() >= 3) {
    l.weight_axis = 0;
  } else if (node->op == "ConvTranspose" && w->rank() >= 3 && node->i("group", 1) == 1) {
    l.weight_axis = 1;
  } else if (node->op == "Gemm" && w->rank() == 2 && node->f("alpha", 1) == 1 && node->f("beta", 1) == 1) {
    l.weight_axis = node->i("transB", 0) ? 0 : 1;
    // Gemm's C may be a whole matrix; only one value a column scales like a bias.
    if (node->has_input(2) && !(edit.constant(node->inputs[2])->rank() == 1 &&
                                edit.constant(node->inputs[2])->count() == w->dim(l.weight_axis)))
      return l;
  } else if (node->op == "BatchNormalization" && w->rank() == 1 && node->inputs.size() == 5 && node->has_input(2) &&
             !node->i("training_mode", 0)) {
    l.weight_axis = 0;  // its scale and bias are what a diagonal matrix and its bias are
  } else if (node->op == "MatMul" && w->rank() == 2 && rank >= 2) {
    l.weight_axis = 1;
    l.output_axis = rank - 1;
    l.bias = false;
  } else {
    return l;
  }
  l.channels = w->dim(l.weight_axis);
  l.node = node;
  return l;
}

// A constant that holds one value a channel (or one for all), seen by a tensor of `rank` with channels at `axis`.
std::optional<std::vector<double>> per_channel(Edit& edit, ValueId v, int64_t rank, const Linear& l) {
  const Tensor* c = edit.constant(v);
  if (!c || !is_float(c->dtype()) || rank < 0 || c->rank() > rank) return std::nullopt;
  auto values = ref::load<double>(*c);
  if (c->count() == 1) return std::vector<double>(static_cast<size_t>(l.channels), values[0]);
  int64_t at = l.output_axis - (rank - c->rank());
  if (c->count() != l.channels || at < 0 || c->dim(at) != l.channels) return std::nullopt;
  return values;
}

// `w` with every slice along `axis` multiplied by its scale.
Result<Tensor> scaled_weights(const Tensor& w, int64_t axis, const std::vector<double>& scale) {
  Tensor out = AI_VMM_TAKE(Tensor::make(w.dtype(), w.shape()));
  int64_t inner = 1;
  for (int64_t k = axis + 1; k < w.rank(); ++k) inner *= w.dim(k);
  if (w.dtype() == DType::f32) {  // by far the most common, and weights are large
    const float* from = w.as<float>().data();
    float* to = out.as_mutable<float>().data();
    for (int64_t i = 0, c = 0; i < w.count(); i += inner, c = (c + 1) % w.dim(axis))
      for (int64_t k = i; k < i + inner; ++k) to[k] = static_cast<float>(from[k] * scale[static_cast<size_t>(c)]);
    return out;
  }
  auto values = ref::load<double>(w);
  for (size_t i = 0; i < values.size(); ++i) values[i] *= scale[static_cast<size_t>(int64_t(i) / inner % w.dim(axis))];
  ref::store<double>(out, values);
  return out;
}

// y = linear(x) * scale + shift, into the weights. `later` is the node whose output the linear operator takes over.
Status fold(Edit& edit, const Linear& l, const std::vector<double>& scale, const std::vector<double>& shift,
            size_t later) {
  Node& node = *l.node;
  const Tensor w = *edit.constant(node.inputs[1]);
  std::string base = edit.graph.value(node.inputs[1]).name;
  if (std::any_of(scale.begin(), scale.end(), [](double s) { return s != 1; })) {
    Tensor scaled = AI_VMM_TAKE(scaled_weights(w, l.weight_axis, scale));
    edit.set_input(node, 1, edit.add_constant(base + "/scaled", std::move(scaled)));
  }
  bool any_shift = node.has_input(2);
  for (double s : shift) any_shift = any_shift || s != 0;
  if (l.bias && any_shift) {
    std::vector<double> bias(static_cast<size_t>(l.channels), 0);
    if (node.has_input(2)) bias = ref::load<double>(*edit.constant(node.inputs[2]));
    for (size_t c = 0; c < bias.size(); ++c) bias[c] = bias[c] * scale[c] + shift[c];
    Tensor b = AI_VMM_TAKE(Tensor::make(w.dtype(), {l.channels}));
    ref::store<double>(b, bias);
    edit.set_input(node, 2, edit.add_constant(base + "/bias", std::move(b)));
  }
  edit.take_output(node, 0, later);
  return {};
}

Status fold_batch_norm(Edit& edit, Node& node, size_t n) {
  if (node.inputs.size() != 5 || node.outputs.size() != 1 || node.i("training_mode", 0)) return {};
  Linear l = linear_before(edit, node.inputs[0]);
  if (!l.node || !l.bias) return {};
  std::vector<double> p[4];
  for (size_t k = 0; k < 4; ++k) {
    const Tensor* t = edit.constant(node.inputs[k + 1]);
    if (!t || !is_float(t->dtype()) || t->count() != l.channels) return {};
    p[k] = ref::load<double>(*t);
  }
  double epsilon = node.f("epsilon", 1e-5f);
  std::vector<double> scale, shift;
  for (size_t c = 0; c < size_t(l.channels); ++c) {
    scale.push_back(p[0][c] / std::sqrt(p[3][c] + epsilon));
    shift.push_back(p[1][c] - p[2][c] * scale.back());
    if (!std::isfinite(scale.back()) || !std::isfinite(shift.back())) return {};
  }
  return fold(edit, l, scale, shift, n);
}

Status fold_arithmetic(Edit& edit, Node& node, size_t n) {
  if (node.inputs.size() != 2 || node.inputs[0] == node.inputs[1]) return {};
  const std::string& op = node.op;
  for (size_t side = 0; side < 2; ++side) {
    if (side == 1 && (op == "Div" || op == "Sub")) return {};  // c / y is not linear; c - y is rare
    ValueId y = node.inputs[side];
    Linear l = linear_before(edit, y);
    if (!l.node || !edit.same_shape(y, node.outputs[0])) continue;
    bool adds = op == "Add" || op == "Sub";
    if (adds && !l.bias) continue;
    auto c = per_channel(edit, node.inputs[1 - side], edit.type(y).rank(), l);
    if (!c) continue;
    std::vector<double> scale(c->size(), 1), shift(c->size(), 0);
    bool finite = true;
    for (size_t k = 0; k < c->size(); ++k) {
      (adds ? shift : scale)[k] = op == "Sub" ? -(*c)[k] : op == "Div" ? 1 / (*c)[k] : (*c)[k];
      finite = finite && std::isfinite(scale[k]) && std::isfinite(shift[k]);
    }
    return finite ? fold(edit, l, scale, shift, n) : Status();
  }
  return {};
}

// Zeros around an image, cut off the convolution's own padding otherwise.
void fold_pad(Edit& edit, Node& conv) {
  Node* pad = edit.maker(conv.inputs[0], "Pad");
  std::string auto_pad = conv.s("auto_pad", "NOTSET");
  if (!pad || edit.uses(conv.inputs[0]) != 1 || (auto_pad != "NOTSET" && auto_pad != "VALID") ||
      pad->s("mode", "constant") != "constant")
    return;
  if (!pad->has_input(1) || pad->has_input(3) || (pad->has_input(2) && edit.scalar(pad->inputs[2]) != 0.0)) return;
  auto pads = edit.ints(pad->inputs[1]);
  if (!pads || pads->size() < 6 || pads->size() % 2) return;
  size_t rank = pads->size() / 2, spatial = rank - 2;
  auto own = conv.ints("pads", std::vector<int64_t>(2 * spatial, 0));
  if (auto_pad == "VALID") own.assign(2 * spatial, 0);
  if (own.size() != 2 * spatial) return;
  for (size_t side = 0; side < 2; ++side)
    for (size_t k = 0; k < rank; ++k) {
      int64_t p = (*pads)[side * rank + k];
      if (p < 0 || (k < 2 && p != 0)) return;
      if (k >= 2 && __builtin_add_overflow(own[side * spatial + k - 2], p, &own[side * spatial + k - 2])) return;
    }
  conv.remove("auto_pad");
  conv.set("pads", own);
  edit.set_input(conv, 0, pad->inputs[0]);
  ++edit.changes;
}

Result<int64_t> weights_here(Graph& graph) {
  Edit edit(graph);
  for (size_t n = 0; n < edit.size(); ++n) {
    Node& node = edit.visit(n);
    if (edit.removed(n) || !node.domain.empty() || !node.has_output(0)) continue;
    if (node.op == "Conv") fold_pad(edit, node);
    if (node.op == "BatchNormalization") AI_VMM_TRY(fold_batch_norm(edit, node, n));
    if (node.op == "Mul" || node.op == "Add" || node.op == "Sub" || node.op == "Div")
      AI_VMM_TRY(fold_arithmetic(edit, node, n));
  }
  return edit.finish();
}

}  // namespace

Result<int64_t> fold_into_weights(Graph& graph) { return over_bodies(graph, weights_here); }

}  // namespace ai_vmm
