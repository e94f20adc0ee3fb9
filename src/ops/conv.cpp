// Convolutions: Conv, ConvTranspose, DeformConv, CausalConvWithState and FusedConv.

#include <cmath>

#include "ops/activation.hpp"
#include "ops/all_ops.hpp"
#include "ops/conv.hpp"
#include "ops/ref.hpp"
#include "ops/window.hpp"

namespace ai_vmm {

namespace {

// ---------------------------------------------------------------- the inner step

// A window over two images: position p of the coarse one and tap k touch position p * stride + k * dilation - before of
// the fine one. A convolution gathers from fine to coarse; its transpose scatters from coarse to fine.
struct Sliding {
  Shape coarse, fine, strides, dilations, before;

  // For one tap: coarse[p] += weight * fine[at(p)] (gather), or fine[at(p)] += weight * coarse[p] (scatter).
  template <bool kScatter, class Coarse, class Fine>
  void tap(const ref::Index& k, double weight, Coarse* c, Fine* f) const {
    size_t n = coarse.size();
    if (n == 0) {
      step<kScatter>(weight, *c, *f);
      return;
    }
    int64_t shift = k[n - 1] * dilations[n - 1] - before[n - 1], stride = strides[n - 1];
    int64_t low = shift < 0 ? (-shift + stride - 1) / stride : 0;
    int64_t high = fine[n - 1] - shift <= 0 ? 0 : std::min(coarse[n - 1], (fine[n - 1] - shift - 1) / stride + 1);
    Shape rows(coarse.begin(), coarse.end() - 1);
    int64_t row = 0;
    for (ref::Index p(rows); p.more(); p.next(), ++row) {
      int64_t source = 0;
      bool inside = true;
      for (size_t i = 0; i + 1 < n && inside; ++i) {
        int64_t x = p[i] * strides[i] + k[i] * dilations[i] - before[i];
        inside = x >= 0 && x < fine[i];
        source = source * fine[i] + x;
      }
      if (!inside) continue;
      Coarse* to = c + row * coarse[n - 1];
      Fine* from = f + source * fine[n - 1] + shift;
      for (int64_t j = low; j < high; ++j) step<kScatter>(weight, to[j], from[j * stride]);
    }
  }
  template <bool kScatter, class Coarse, class Fine>
  static void step(double weight, Coarse& c, Fine& f) {
    if constexpr (kScatter)
      f += weight * c;
    else
      c += weight * f;
  }
};

Shape spatial(const Shape& s) { return {s.begin() + std::min<int64_t>(2, int64_t(s.size())), s.end()}; }

// Bias of `channels` channels as input k, zeros when absent.
Result<std::vector<double>> bias(const Eval& e, size_t k, int64_t channels) {
  if (!e.has(k)) return std::vector<double>(size_t(channels), 0.0);
  if (e.in(k).count() != channels)
    return e.error("a bias of shape " + to_string(e.in(k).shape()) + " does not fit " + std::to_string(channels) +
                   " channels.");
  return ref::load<double>(e.in(k));
}

// ---------------------------------------------------------------- Conv

}  // namespace

Status infer_conv(Infer& c, DType dtype, size_t xk, size_t wk) {
  if (!c.ranked(wk) && !c.ranked(xk)) {
    c.set_unranked(0, dtype);
    return {};
  }
  std::vector<Dim> w = c.ranked(wk) ? c.dims(wk) : c.fresh(c.rank(xk));
  if (w.size() < 2) return c.error("weights of rank " + std::to_string(w.size()) + " cannot convolve.");
  std::vector<Dim> x = c.ranked(xk) ? c.dims(xk) : c.fresh(int64_t(w.size()));
  if (!c.ranked(xk)) x[1] = w[1] * c.node.i("group", 1);
  auto y = AI_VMM_TAKE(conv_output(c.node, x, w));
  if (y.empty()) {
    y = c.fresh(int64_t(x.size()));
    y[0] = x[0];
    y[1] = w[0];
  }
  c.set(0, dtype, std::move(y));
  return {};
}

Result<std::vector<double>> convolve(const Node& node, const Image& x, const Image& w, const std::vector<double>& bias,
                                     const Shape& shape) {
  Window window = AI_VMM_TAKE(window_of(node, spatial(w.shape)));
  Sliding slide{spatial(shape), spatial(x.shape), window.strides, window.dilations, {}};
  for (size_t i = 0; i < window.axes(); ++i) slide.before.push_back(window.before(i, slide.fine[i]));

  int64_t group = node.i("group", 1), in_group = w.shape[1], out_group = shape[1] / group;
  int64_t in_size = ref::product(slide.fine), out_size = ref::product(slide.coarse), taps = ref::product(window.kernel);
  std::vector<double> y(size_t(ref::product(shape)));
  for (int64_t n = 0; n < shape[0]; ++n)
    for (int64_t m = 0; m < shape[1]; ++m) {
      double* to = y.data() + (n * shape[1] + m) * out_size;
      std::fill(to, to + out_size, bias[size_t(m)]);
      for (int64_t c = 0; c < in_group; ++c) {
        const double* from = x.values.data() + (n * x.shape[1] + m / out_group * in_group + c) * in_size;
        const double* weight = w.values.data() + (m * in_group + c) * taps;
        for (ref::Index k(window.kernel); k.more(); k.next()) slide.tap<false>(k, *weight++, to, from);
      }
    }
  return y;
}

namespace {

Status infer_conv(Infer& c) { return infer_conv(c, c.dtype(0), 0, 1); }

// Inputs 0 and 1 convolved plus the bias, in double.
Result<std::vector<double>> convolve(Eval& e, const Shape& shape) {
  auto b = AI_VMM_TAKE(bias(e, 2, shape[1]));
  return convolve(e.node, {e.in(0).shape(), ref::load<double>(e.in(0))}, {e.in(1).shape(), ref::load<double>(e.in(1))},
                  b, shape);
}

Result<Shape> conv_shape(const Eval& e) {
  auto dims = AI_VMM_TAKE(conv_output(e.node, to_dims(e.in(0).shape()), to_dims(e.in(1).shape())));
  return *constant_shape(dims);
}

Status eval_conv(Eval& e) {
  Shape shape = AI_VMM_TAKE(conv_shape(e));
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(0).dtype(), shape));
  auto v = AI_VMM_TAKE(convolve(e, shape));
  ref::store<double>(*y, v);
  return {};
}

Status eval_fused_conv(Eval& e) {
  Shape shape = AI_VMM_TAKE(conv_shape(e));
  std::vector<float> params = e.node.floats("activation_params");
  std::string kind = e.node.s("activation");
  Activation f = [](double x) { return x; };
  if (!kind.empty()) {
    auto at = [&](size_t i) { return i < params.size() ? std::optional<float>(params[i]) : std::nullopt; };
    f = AI_VMM_TAKE(activation(e.node, kind, at(0), at(1)));
  }
  if (e.has(3) && e.in(3).shape() != shape)
    return e.error("the addend Z of shape " + to_string(e.in(3).shape()) + " differs from the output's " +
                   to_string(shape) + ".");
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(0).dtype(), shape));
  auto v = AI_VMM_TAKE(convolve(e, shape));
  if (e.has(3)) {
    auto z = ref::load<double>(e.in(3));
    for (size_t i = 0; i < v.size(); ++i) v[i] += z[i];
  }
  for (double& x : v) x = f(x);
  ref::store<double>(*y, v);
  return {};
}

Cost cost_conv(const CostQuery& q) {
  Shape w = q.shape_in(1);
  double taps = w.empty() || w[0] == 0 ? 0 : q.elements_in(1) / double(w[0]);
  return {.flops = 2 * q.elements_out(0) * taps};
}

// ---------------------------------------------------------------- ConvTranspose

// Dims of the output; W is [C, M/group, kernel…].
Result<std::vector<Dim>> transposed_output(const Node& node, const std::vector<Dim>& x, const std::vector<Dim>& w,
                                           const Shape& kernel) {
  int64_t group = node.i("group", 1);
  if (group < 1) return node_error(node, "group is " + std::to_string(group) + "; it must be positive.");
  if (known_different(x[1], w[0]))
    return node_error(node, "the input has " + x[1].to_string() + " channels; weights " + to_string(w) + " take " +
                                w[0].to_string() + ".");
  if (auto c = w[0].constant(); c && *c % group != 0)
    return node_error(node, std::to_string(*c) + " channels do not divide into " + std::to_string(group) + " groups.");
  auto t = AI_VMM_TAKE(transposed_window(node, kernel, std::span(x).subspan(2)));
  std::vector<Dim> y = {x[0], w[1] * group};
  y.insert(y.end(), t.output.begin(), t.output.end());
  return y;
}

Status infer_conv_transpose(Infer& c) {
  if (!c.ranked(0) || !c.ranked(1)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  const auto &x = c.dims(0), &w = c.dims(1);
  if (x.size() < 2 || w.size() != x.size())
    return c.error("an input of rank " + std::to_string(x.size()) + " does not go with weights of rank " +
                   std::to_string(w.size()) + ".");
  auto kernel = constant_shape({w.begin() + 2, w.end()});
  if (!kernel) {
    auto y = c.fresh(int64_t(x.size()));
    y[0] = x[0];
    y[1] = w[1] * c.node.i("group", 1);
    c.set(0, c.dtype(0), std::move(y));
    return {};
  }
  c.set(0, c.dtype(0), AI_VMM_TAKE(transposed_output(c.node, x, w, *kernel)));
  return {};
}

Status eval_conv_transpose(Eval& e) {
  const Tensor &x = e.in(0), &w = e.in(1);
  if (x.rank() < 2 || w.rank() != x.rank())
    return e.error("an input of rank " + std::to_string(x.rank()) + " does not go with weights of rank " +
                   std::to_string(w.rank()) + ".");
  Shape kernel = spatial(w.shape());
  auto dims = AI_VMM_TAKE(transposed_output(e.node, to_dims(x.shape()), to_dims(w.shape()), kernel));
  Shape shape = *constant_shape(dims);
  auto in_dims = to_dims(spatial(x.shape()));
  auto t = AI_VMM_TAKE(transposed_window(e.node, kernel, in_dims));
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  auto b = AI_VMM_TAKE(bias(e, 2, shape[1]));

  Sliding slide{spatial(x.shape()), spatial(shape), t.window.strides, t.window.dilations, *constant_shape(t.before)};
  int64_t group = e.node.i("group", 1), in_group = x.dim(1) / group, out_group = w.dim(1);
  int64_t in_size = ref::product(slide.coarse), out_size = ref::product(slide.fine), taps = ref::product(kernel);
  auto xv = ref::load<double>(x), wv = ref::load<double>(w);
  std::vector<double> yv(size_t(y->count()));
  for (int64_t n = 0; n < shape[0]; ++n)
    for (int64_t m = 0; m < shape[1]; ++m) {
      double* to = yv.data() + (n * shape[1] + m) * out_size;
      std::fill(to, to + out_size, b[size_t(m)]);
      int64_t g = m / out_group;
      for (int64_t c = g * in_group; c < (g + 1) * in_group; ++c) {
        const double* from = xv.data() + (n * x.dim(1) + c) * in_size;
        const double* weight = wv.data() + (c * out_group + m % out_group) * taps;
        for (ref::Index k(kernel); k.more(); k.next()) slide.tap<true>(k, *weight++, from, to);
      }
    }
  ref::store<double>(*y, yv);
  return {};
}

Cost cost_conv_transpose(const CostQuery& q) {
  Shape w = q.shape_in(1);
  double taps = w.empty() || w[0] == 0 ? 0 : q.elements_in(1) / double(w[0]);
  return {.flops = 2 * q.elements_in(0) * taps};
}

// ---------------------------------------------------------------- DeformConv

// Bilinear reading of an image of h x w at (y, x); what lies outside is zero.
double bilinear(const double* image, int64_t h, int64_t w, double y, double x) {
  if (!(y > -1 && y < double(h) && x > -1 && x < double(w))) return 0;
  int64_t y0 = int64_t(std::floor(y)), x0 = int64_t(std::floor(x));
  double fy = y - double(y0), fx = x - double(x0), sum = 0;
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t j = 0; j < 2; ++j) {
      int64_t yi = y0 + i, xj = x0 + j;
      if (yi < 0 || yi >= h || xj < 0 || xj >= w) continue;
      sum += (i ? fy : 1 - fy) * (j ? fx : 1 - fx) * image[yi * w + xj];
    }
  return sum;
}

Status eval_deform_conv(Eval& e) {
  const Tensor &x = e.in(0), &w = e.in(1), &offset = e.in(2);
  if (x.rank() != 4)
    return e.error("only two spatial axes are defined, the input has shape " + to_string(x.shape()) + ".");
  Shape shape = AI_VMM_TAKE(conv_shape(e));
  Window window = AI_VMM_TAKE(window_of(e.node, spatial(w.shape())));
  int64_t group = e.node.i("group", 1), offset_group = e.node.i("offset_group", 1);
  int64_t taps = ref::product(window.kernel), channels = x.dim(1);
  if (offset_group < 1 || channels % offset_group != 0)
    return e.error(std::to_string(channels) + " channels do not divide into " + std::to_string(offset_group) +
                   " offset groups.");
  if (offset.shape() != Shape{x.dim(0), offset_group * taps * 2, shape[2], shape[3]})
    return e.error("offset has shape " + to_string(offset.shape()) + ", which does not fit the output " +
                   to_string(shape) + ".");
  if (e.has(4) && e.in(4).shape() != Shape{x.dim(0), offset_group * taps, shape[2], shape[3]})
    return e.error("mask has shape " + to_string(e.in(4).shape()) + ", which does not fit the output " +
                   to_string(shape) + ".");
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  auto b = AI_VMM_TAKE(bias(e, 3, shape[1]));
  auto xv = ref::load<double>(x), wv = ref::load<double>(w), ov = ref::load<double>(offset);
  auto mv = e.has(4) ? ref::load<double>(e.in(4)) : std::vector<double>();
  int64_t h = x.dim(2), wd = x.dim(3), out_size = shape[2] * shape[3];
  int64_t in_group = w.dim(1), out_group = shape[1] / group, per_offset = channels / offset_group;

  std::vector<double> yv(size_t(y->count()));
  for (int64_t n = 0; n < shape[0]; ++n)
    for (int64_t m = 0; m < shape[1]; ++m) {
      double* to = yv.data() + (n * shape[1] + m) * out_size;
      std::fill(to, to + out_size, b[size_t(m)]);
    }
  // Each sample is read once and added to every output channel of its group.
  for (int64_t n = 0; n < shape[0]; ++n)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t k = 0; k < taps; ++k)
        for (int64_t p = 0; p < out_size; ++p) {
          int64_t at = n * offset_group * taps + c / per_offset * taps + k;  // (batch, offset group, tap)
          double oy = ov[size_t((at * 2) * out_size + p)], ox = ov[size_t((at * 2 + 1) * out_size + p)];
          double row = double(p / shape[3] * window.strides[0] + k / window.kernel[1] * window.dilations[0] -
                              window.before(0, h)) +
                       oy;
          double column = double(p % shape[3] * window.strides[1] + k % window.kernel[1] * window.dilations[1] -
                                 window.before(1, wd)) +
                          ox;
          double v = bilinear(xv.data() + (n * channels + c) * h * wd, h, wd, row, column);
          if (!mv.empty()) v *= mv[size_t(at * out_size + p)];
          int64_t g = c / in_group;
          for (int64_t m = g * out_group; m < (g + 1) * out_group; ++m)
            yv[size_t((n * shape[1] + m) * out_size + p)] += v * wv[size_t((m * in_group + c % in_group) * taps + k)];
        }
  ref::store<double>(*y, yv);
  return {};
}

// ---------------------------------------------------------------- CausalConvWithState

Status infer_causal_conv(Infer& c) {
  c.set(0, c.type(0));
  if (!c.ranked(0) || !c.ranked(1)) {
    c.set_unranked(1, c.dtype(0));
    return {};
  }
  if (c.rank(0) != 3 || c.rank(1) != 3) return c.error("input and weight must have rank 3.");
  c.set(1, c.dtype(0), {c.dims(0)[0], c.dims(0)[1], c.dims(1)[2] - 1});
  return {};
}

Status eval_causal_conv(Eval& e) {
  const Tensor &x = e.in(0), &w = e.in(1);
  if (x.rank() != 3 || w.rank() != 3 || w.dim(0) != x.dim(1) || w.dim(1) != 1 || w.dim(2) < 1)
    return e.error("an input of shape " + to_string(x.shape()) + " does not go with a weight of shape " +
                   to_string(w.shape()) + ".");
  int64_t n = x.dim(0), channels = x.dim(1), length = x.dim(2), k = w.dim(2), carry = k - 1;
  Shape state{n, channels, carry};
  if (e.has(3) && e.in(3).shape() != state)
    return e.error("past_state has shape " + to_string(e.in(3).shape()) + "; it must be " + to_string(state) + ".");
  std::string kind = e.node.s("activation", "none");
  if (kind != "none" && kind != "silu" && kind != "swish")
    return e.error("activation \"" + kind + "\" is not one of none, silu, swish.");
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  Tensor* present = AI_VMM_TAKE(e.make(1, x.dtype(), state));
  auto b = AI_VMM_TAKE(bias(e, 2, channels));
  auto xv = ref::load<double>(x), wv = ref::load<double>(w);
  auto past = e.has(3) ? ref::load<double>(e.in(3)) : std::vector<double>(size_t(present->count()), 0.0);
  std::vector<double> yv(xv.size()), next(past.size());
  for (int64_t row = 0; row < n * channels; ++row) {
    auto at = [&](int64_t i) {
      return i < carry ? past[size_t(row * carry + i)] : xv[size_t(row * length + i - carry)];
    };
    for (int64_t i = 0; i < length; ++i) {
      double sum = b[size_t(row % channels)];
      for (int64_t j = 0; j < k; ++j) sum += wv[size_t(row % channels * k + j)] * at(i + j);
      yv[size_t(row * length + i)] = kind == "none" ? sum : sum * sigmoid(sum);
    }
    for (int64_t i = 0; i < carry; ++i) next[size_t(row * carry + i)] = at(length + i);
  }
  ref::store<double>(*y, yv);
  ref::store<double>(*present, next);
  return {};
}

Cost cost_causal_conv(const CostQuery& q) {
  Shape w = q.shape_in(1);
  return {.flops = 2 * q.elements_out(0) * double(w.empty() ? 1 : w.back())};
}

#define CONV_ATTRIBUTES \
  "auto_pad:string=NOTSET, dilations:ints, group:int=1, kernel_shape:ints, pads:ints, strides:ints"

const OpDef kOps[] = {
    {"Conv", "", 22, "X:T, W:T, B:T? -> Y:T | T: f16 f32 f64 bf16", CONV_ATTRIBUTES,
     "Convolution of X [N, C, spatial...] with W [M, C/group, kernel...] plus a bias a channel.", kNoTrait, infer_conv,
     cost_conv, eval_conv},
    {"ConvTranspose", "", 22, "X:T, W:T, B:T? -> Y:T | T: f16 f32 f64 bf16",
     CONV_ATTRIBUTES ", output_padding:ints, output_shape:ints",
     "The adjoint of a convolution (\"deconvolution\") of X [N, C, spatial...] with W [C, M/group, kernel...] plus a "
     "bias a "
     "channel. An output_shape, or auto_pad SAME, fixes the output's size and with it the pads.",
     kNoTrait, infer_conv_transpose, cost_conv_transpose, eval_conv_transpose},
    {"DeformConv", "", 22, "X:T, W:T, offset:T, B:T?, mask:T? -> Y:T | T: f16 f32 f64 bf16",
     "dilations:ints, group:int=1, kernel_shape:ints, offset_group:int=1, pads:ints, strides:ints",
     "Convolution of images whose taps are moved by offset (a row and a column shift for each output position and tap, "
     "interpolated bilinearly) and scaled by mask.",
     kNoTrait, infer_conv, cost_conv, eval_deform_conv},
    {"CausalConvWithState", "", 27,
     "input:T, weight:T, bias:T?, past_state:T? -> output:T, present_state:T | T: f16 f32 bf16",
     "activation:string=none",
     "Depthwise convolution along the last axis that sees only the past: the k-1 values before the input come from "
     "past_state (zeros without it), and the last k-1 are handed on. The activation may be silu.",
     kComposite, infer_causal_conv, cost_causal_conv, eval_causal_conv},
    {"FusedConv", "com.microsoft", 1, "X:T, W:T, B:T?, Z:T? -> Y:T | T: f16 f32 f64",
     CONV_ATTRIBUTES ", activation:string, activation_params:floats",
     "activation(Conv(X, W, B) + Z), as ONNX Runtime's optimiser writes it.", kComposite, infer_conv, cost_conv,
     eval_fused_conv},
};

}  // namespace

std::span<const OpDef> conv_ops() { return kOps; }

}  // namespace ai_vmm
