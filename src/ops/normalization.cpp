// Normalisations, SwiGLU and Dropout.

#include "ops/norm.hpp"

#include <algorithm>
#include <cmath>

#include "ops/activation.hpp"
#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

RowMoments normalize_row(std::span<const double> x, std::span<double> y, std::span<const double> scale,
                         std::span<const double> bias, double epsilon, bool centered) {
  double mean = 0, variance = 0, n = double(x.size());
  if (centered) {
    for (double v : x) mean += v;
    mean /= n;
  }
  for (double v : x) variance += (v - mean) * (v - mean);
  double inverse = 1 / std::sqrt(variance / n + epsilon);
  for (size_t i = 0; i < x.size(); ++i) {
    double v = (x[i] - mean) * inverse;
    if (!scale.empty()) v *= scale[i % scale.size()];
    if (!bias.empty()) v += bias[i % bias.size()];
    y[i] = v;
  }
  return {mean, inverse};
}

namespace {

// Input k as `count` numbers, or an error.
Result<std::vector<double>> channel_values(const Eval& e, size_t k, int64_t count) {
  if (e.in(k).count() != count)
    return e.error("an input of shape " + to_string(e.in(k).shape()) + " does not hold one number for each of " +
                   std::to_string(count) + " channels.");
  return ref::load<double>(e.in(k));
}

// X seen as [batch, channels, size].
struct Channels {
  int64_t batch = 1, channels = 1, size = 1;
};
Result<Channels> channels_of(const Eval& e, const Tensor& x, int64_t least_rank) {
  if (x.rank() < least_rank) return e.error("an input of shape " + to_string(x.shape()) + " has no channels.");
  Channels c{x.dim(0), x.rank() > 1 ? x.dim(1) : 1, 1};
  for (int64_t i = 2; i < x.rank(); ++i) c.size *= x.dim(i);
  return c;
}

// ---------------------------------------------------------------- BatchNormalization

Status infer_batch_norm(Infer& c) {
  c.set(0, c.type(0));
  for (size_t k = 1; k < 3; ++k) c.set(k, c.type(k + 2));
  return {};
}

Status eval_batch_norm(Eval& e) {
  const Tensor& x = e.in(0);
  Channels s = AI_VMM_TAKE(channels_of(e, x, 1));
  auto scale = AI_VMM_TAKE(channel_values(e, 1, s.channels));
  auto bias = AI_VMM_TAKE(channel_values(e, 2, s.channels));
  auto mean = AI_VMM_TAKE(channel_values(e, 3, s.channels));
  auto variance = AI_VMM_TAKE(channel_values(e, 4, s.channels));
  bool training = e.node.i("training_mode") != 0;
  double epsilon = e.node.f("epsilon", 1e-5f), momentum = e.node.f("momentum", 0.9f);
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  auto v = ref::load<double>(x);
  auto each = [&](int64_t c, auto f) {
    for (int64_t b = 0; b < s.batch; ++b)
      for (int64_t i = 0; i < s.size; ++i) f(v[size_t((b * s.channels + c) * s.size + i)]);
  };
  if (training) {
    double n = double(s.batch * s.size);
    auto running_mean = mean, running_variance = variance;
    for (size_t c = 0; c < mean.size(); ++c) {
      double sum = 0, squares = 0;
      each(int64_t(c), [&](double a) { sum += a; });
      mean[c] = sum / n;
      each(int64_t(c), [&](double a) { squares += (a - mean[c]) * (a - mean[c]); });
      variance[c] = squares / n;
      running_mean[c] = running_mean[c] * momentum + mean[c] * (1 - momentum);
      running_variance[c] = running_variance[c] * momentum + variance[c] * (1 - momentum);
    }
    if (e.wants(1)) {
      Tensor* m = AI_VMM_TAKE(e.make(1, e.in(3).dtype(), e.in(3).shape()));
      ref::store<double>(*m, running_mean);
    }
    if (e.wants(2)) {
      Tensor* r = AI_VMM_TAKE(e.make(2, e.in(4).dtype(), e.in(4).shape()));
      ref::store<double>(*r, running_variance);
    }
  }
  for (size_t c = 0; c < mean.size(); ++c) {
    double factor = scale[c] / std::sqrt(variance[c] + epsilon);
    each(int64_t(c), [&](double& a) { a = (a - mean[c]) * factor + bias[c]; });
  }
  ref::store<double>(*y, v);
  return {};
}

Cost per_element(const CostQuery& q, double flops) { return {.flops = flops * q.elements_in(0)}; }

// ---------------------------------------------------------------- InstanceNormalization, GroupNormalization

Status eval_instance_norm(Eval& e) {
  const Tensor& x = e.in(0);
  Channels s = AI_VMM_TAKE(channels_of(e, x, 2));
  auto scale = AI_VMM_TAKE(channel_values(e, 1, s.channels));
  auto bias = AI_VMM_TAKE(channel_values(e, 2, s.channels));
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  auto v = ref::load<double>(x);
  std::span<double> all(v);
  for (int64_t r = 0; r < s.batch * s.channels; ++r) {
    auto row = all.subspan(size_t(r * s.size), size_t(s.size));
    size_t c = size_t(r % s.channels);
    normalize_row(row, row, {&scale[c], 1}, {&bias[c], 1}, e.node.f("epsilon", 1e-5f), true);
  }
  ref::store<double>(*y, v);
  return {};
}

Status eval_group_norm(Eval& e) {
  const Tensor& x = e.in(0);
  Channels s = AI_VMM_TAKE(channels_of(e, x, 2));
  int64_t groups = e.node.i("num_groups");
  if (groups < 1 || s.channels % groups != 0)
    return e.error(std::to_string(s.channels) + " channels do not divide into " + std::to_string(groups) + " groups.");
  auto scale = AI_VMM_TAKE(channel_values(e, 1, s.channels));
  auto bias = AI_VMM_TAKE(channel_values(e, 2, s.channels));
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  auto v = ref::load<double>(x);
  std::span<double> all(v);
  int64_t size = s.channels / groups * s.size;
  for (int64_t r = 0; r < s.batch * groups; ++r) {
    auto row = all.subspan(size_t(r * size), size_t(size));
    normalize_row(row, row, {}, {}, e.node.f("epsilon", 1e-5f), true);
    for (int64_t i = 0; i < size; ++i) {
      size_t c = size_t(r % groups * (s.channels / groups) + i / s.size);
      row[size_t(i)] = row[size_t(i)] * scale[c] + bias[c];
    }
  }
  ref::store<double>(*y, v);
  return {};
}

// ---------------------------------------------------------------- LayerNormalization, RMSNormalization

DType stash(const Node& n) {
  int64_t t = n.i("stash_type", 1);
  return t == int64_t(DType::bf16) || t == int64_t(DType::f64) ? DType(t) : DType::f32;
}

Status infer_layer_norm(Infer& c) {
  Type y = c.type(0);
  // RMSNormalization's output has the type of its scale.
  if (c.node.op == "RMSNormalization" || c.node.op == "SimplifiedLayerNormalization") y.dtype = c.dtype(1);
  c.set(0, y);
  if (!c.ranked(0)) {
    c.set_unranked(1, stash(c.node));
    c.set_unranked(2, stash(c.node));
    return {};
  }
  int64_t axis = AI_VMM_TAKE(c.axis(c.node.i("axis", -1), c.rank(0)));
  std::vector<Dim> reduced = c.dims(0);
  for (size_t i = size_t(axis); i < reduced.size(); ++i) reduced[i] = 1;
  c.set(1, stash(c.node), reduced);
  c.set(2, stash(c.node), std::move(reduced));
  return {};
}

// Input k broadcast to `shape`, as numbers; when it repeats every `row` numbers, only those are returned.
Result<std::vector<double>> spread(const Eval& e, size_t k, const Shape& shape, int64_t row) {
  const Tensor& t = e.in(k);
  auto v = ref::load<double>(t);
  // Leading ones apart, the shape is a tail of `shape` that is not longer than a row.
  size_t ones = 0;
  while (ones < t.shape().size() && t.shape()[ones] == 1) ++ones;
  std::span<const int64_t> core = std::span(t.shape()).subspan(ones);
  bool tail = core.size() <= shape.size() && std::equal(core.begin(), core.end(), shape.end() - int64_t(core.size()));
  if (tail && t.count() > 0 && t.count() <= row && t.rank() <= int64_t(shape.size())) return v;
  const Shape shapes[] = {shape, t.shape()};
  Shape all = AI_VMM_TAKE(ref::broadcast(e, shapes));
  if (all != shape)
    return e.error("an input of shape " + to_string(t.shape()) + " does not broadcast to " + to_string(shape) + ".");
  Shape strides = ref::broadcast_strides(t.shape(), shape);
  std::vector<double> r;
  r.reserve(size_t(ref::product(shape)));
  for (ref::Index i(shape); i.more(); i.next()) r.push_back(v[size_t(i.offset(strides))]);
  return r;
}

Status eval_rows(Eval& e, bool centered) {
  const Tensor& x = e.in(0);
  int64_t axis = AI_VMM_TAKE(e.axis(e.node.i("axis", -1), x.rank()));
  Shape outer(x.shape().begin(), x.shape().begin() + axis), reduced = x.shape();
  std::fill(reduced.begin() + axis, reduced.end(), 1);
  int64_t rows = ref::product(outer), size = ref::product({x.shape().begin() + axis, x.shape().end()});
  Tensor* y = AI_VMM_TAKE(e.make(0, centered ? x.dtype() : e.in(1).dtype(), x.shape()));
  auto scale = AI_VMM_TAKE(spread(e, 1, x.shape(), size));
  std::vector<double> bias;
  if (e.has(2)) bias = AI_VMM_TAKE(spread(e, 2, x.shape(), size));
  auto v = ref::load<double>(x);
  std::vector<double> mean, inverse;
  // A scale or bias with one value an element of X is sliced by row; a shorter one repeats.
  auto part = [&](const std::vector<double>& all, int64_t r) {
    std::span<const double> s(all);
    return int64_t(all.size()) > size ? s.subspan(size_t(r * size), size_t(size)) : s;
  };
  for (int64_t r = 0; r < rows; ++r) {
    auto row = std::span(v).subspan(size_t(r * size), size_t(size));
    RowMoments m = normalize_row(row, row, part(scale, r), part(bias, r), e.node.f("epsilon", 1e-5f), centered);
    mean.push_back(m.mean);
    inverse.push_back(m.inverse_deviation);
  }
  ref::store<double>(*y, v);
  // SimplifiedLayerNormalization has no mean: its second output is the inverse deviation.
  size_t second = centered ? 2 : 1;
  if (centered && e.wants(1)) {
    Tensor* m = AI_VMM_TAKE(e.make(1, stash(e.node), reduced));
    ref::store<double>(*m, mean);
  }
  if (e.wants(second)) {
    Tensor* d = AI_VMM_TAKE(e.make(second, stash(e.node), reduced));
    ref::store<double>(*d, inverse);
  }
  return {};
}

// ---------------------------------------------------------------- LRN, LpNormalization, MeanVarianceNormalization

Status eval_lrn(Eval& e) {
  const Tensor& x = e.in(0);
  Channels s = AI_VMM_TAKE(channels_of(e, x, 2));
  int64_t size = e.node.i("size");
  if (size < 1) return e.error("size is " + std::to_string(size) + "; it must be positive.");
  double alpha = e.node.f("alpha", 1e-4f), beta = e.node.f("beta", 0.75f), bias = e.node.f("bias", 1.0f);
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  auto v = ref::load<double>(x);
  std::vector<double> out(v.size());
  int64_t before = (size - 1) / 2, after = size - 1 - before;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t i = 0; i < s.size; ++i) {
        auto at = [&](int64_t channel) { return size_t((b * s.channels + channel) * s.size + i); };
        double squares = 0;
        for (int64_t k = std::max<int64_t>(0, c - before); k <= std::min(s.channels - 1, c + after); ++k)
          squares += v[at(k)] * v[at(k)];
        out[at(c)] = v[at(c)] / std::pow(bias + alpha / double(size) * squares, beta);
      }
  ref::store<double>(*y, out);
  return {};
}

Status eval_lp_norm(Eval& e) {
  const Tensor& x = e.in(0);
  int64_t axis = AI_VMM_TAKE(e.axis(e.node.i("axis", -1), x.rank())), p = e.node.i("p", 2);
  if (p != 1 && p != 2) return e.error("p is " + std::to_string(p) + "; it must be 1 or 2.");
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  auto v = ref::load<double>(x);
  int64_t n = x.dim(axis), inner = ref::strides_of(x.shape())[size_t(axis)],
          outer = n && inner ? x.count() / (n * inner) : 0;
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t i = 0; i < inner; ++i) {
      auto at = [&](int64_t k) -> double& { return v[size_t((o * n + k) * inner + i)]; };
      double sum = 0;
      for (int64_t k = 0; k < n; ++k) sum += p == 1 ? std::fabs(at(k)) : at(k) * at(k);
      double norm = p == 1 ? sum : std::sqrt(sum);
      for (int64_t k = 0; k < n; ++k) at(k) = norm == 0 ? 0 : at(k) / norm;
    }
  ref::store<double>(*y, v);
  return {};
}

Status eval_mvn(Eval& e) {
  const Tensor& x = e.in(0);
  std::vector<bool> reduced(x.shape().size(), false);
  for (int64_t a : e.node.ints("axes", {0, 2, 3})) reduced[size_t(AI_VMM_TAKE(e.axis(a, x.rank())))] = true;
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  // Strides into the array of groups: reduced axes do not move.
  Shape kept = x.shape();
  for (size_t i = 0; i < kept.size(); ++i)
    if (reduced[i]) kept[i] = 1;
  Shape strides = ref::broadcast_strides(kept, x.shape());
  size_t groups = size_t(ref::product(kept));
  std::vector<double> v = ref::load<double>(x), mean(groups, 0.0), variance(groups, 0.0);
  double n = groups ? double(x.count()) / double(groups) : 1;
  auto each = [&](auto f) {
    size_t k = 0;
    for (ref::Index i(x.shape()); i.more(); i.next(), ++k) f(v[k], size_t(i.offset(strides)));
  };
  each([&](double a, size_t g) { mean[g] += a / n; });
  each([&](double a, size_t g) { variance[g] += (a - mean[g]) * (a - mean[g]) / n; });
  each([&](double& a, size_t g) { a = (a - mean[g]) / (std::sqrt(variance[g]) + 1e-9); });
  ref::store<double>(*y, v);
  return {};
}

// ---------------------------------------------------------------- SwiGLU

Status infer_swiglu(Infer& c) {
  if (c.ranked(0) && c.ranked(1)) {
    bool differ = c.rank(0) != c.rank(1);
    for (size_t i = 0; !differ && i < c.dims(0).size(); ++i) differ = known_different(c.dims(0)[i], c.dims(1)[i]);
    if (differ)
      return c.error("A and B have different shapes, " + to_string(c.dims(0)) + " and " + to_string(c.dims(1)) + ".");
  }
  c.set(0, c.ranked(0) ? c.type(0) : c.type(1));
  return {};
}

Status eval_swiglu(Eval& e) {
  if (e.in(0).shape() != e.in(1).shape())
    return e.error("A and B have different shapes, " + to_string(e.in(0).shape()) + " and " +
                   to_string(e.in(1).shape()) + ".");
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(0).dtype(), e.in(0).shape()));
  auto a = ref::load<double>(e.in(0)), b = ref::load<double>(e.in(1));
  double alpha = e.node.f("alpha", 1.0f);
  for (size_t i = 0; i < a.size(); ++i) a[i] = a[i] * sigmoid(alpha * a[i]) * b[i];
  ref::store<double>(*y, a);
  return {};
}

// ---------------------------------------------------------------- Dropout

Status infer_dropout(Infer& c) {
  c.set(0, c.type(0));
  Type mask = c.type(0);
  mask.dtype = DType::boolean;
  c.set(1, mask);
  return {};
}

Status eval_dropout(Eval& e) {
  const Tensor& x = e.in(0);
  double ratio = e.has(1) && e.in(1).count() == 1 ? ref::load<double>(e.in(1))[0] : 0.5;
  bool training = e.has(2) && e.in(2).count() == 1 && ref::load<int64_t>(e.in(2))[0] != 0;
  if (!(ratio >= 0 && ratio < 1)) return e.error("a ratio of " + std::to_string(ratio) + " is outside [0, 1).");
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  std::vector<int64_t> mask(size_t(x.count()), 1);
  auto v = ref::load<double>(x);
  if (training && ratio > 0) {
    Random seeded{uint64_t(e.node.i("seed"))};
    Random& random = e.node.has("seed") ? seeded : e.random;
    for (size_t i = 0; i < v.size(); ++i) {
      mask[i] = random.uniform() >= ratio;
      v[i] = mask[i] ? v[i] / (1 - ratio) : 0;
    }
  }
  ref::store<double>(*y, v);
  if (e.wants(1)) {
    Tensor* m = AI_VMM_TAKE(e.make(1, DType::boolean, x.shape()));
    ref::store<int64_t>(*m, mask);
  }
  return {};
}

#define FLOATS "f16 f32 f64 bf16"

const OpDef kOps[] = {
    {"BatchNormalization", "", 15,
     "X:T, scale:T1, B:T1, input_mean:T2, input_var:T2 -> Y:T, running_mean:T2?, running_var:T2? | T: " FLOATS
     ", T1: " FLOATS ", T2: " FLOATS,
     "epsilon:float=1e-5, momentum:float=0.9, training_mode:int=0",
     "(X - mean) / sqrt(variance + epsilon) * scale + B for each channel, with the given moments, or with those of the "
     "batch "
     "in training mode, which also moves the running moments.",
     kNoTrait, infer_batch_norm, [](const CostQuery& q) { return per_element(q, q.node.i("training_mode") ? 6 : 2); },
     eval_batch_norm},
    {"InstanceNormalization", "", 22, "input:T, scale:T, B:T -> output:T | T: " FLOATS, "epsilon:float=1e-5",
     "Each channel of each sample to mean 0 and variance 1, then scaled and shifted.", kNoTrait, infer_same,
     [](const CostQuery& q) { return per_element(q, 7); }, eval_instance_norm},
    {"GroupNormalization", "", 21, "X:T, scale:T, bias:T -> Y:T | T: " FLOATS,
     "epsilon:float=1e-5, num_groups:int!, stash_type:int=1",
     "Each group of channels of each sample to mean 0 and variance 1, then scaled and shifted a channel.", kComposite,
     infer_same, [](const CostQuery& q) { return per_element(q, 7); }, eval_group_norm},
    {"LayerNormalization", "", 17, "X:T, Scale:T, B:T? -> Y:T, Mean:U?, InvStdDev:U? | T: " FLOATS ", U: f32 f64 bf16",
     "axis:int=-1, epsilon:float=1e-5, stash_type:int=1",
     "All axes from `axis` on to mean 0 and variance 1, then scaled and shifted.", kComposite, infer_layer_norm,
     [](const CostQuery& q) { return per_element(q, 7); }, [](Eval& e) { return eval_rows(e, true); }},
    {"RMSNormalization", "", 23, "X:T, scale:V -> Y:V | T: " FLOATS ", V: " FLOATS,
     "axis:int=-1, epsilon:float=1e-5, stash_type:int=1",
     "X / sqrt(mean of squares over the axes from `axis` on + epsilon) * scale.", kComposite, infer_layer_norm,
     [](const CostQuery& q) { return per_element(q, 4); }, [](Eval& e) { return eval_rows(e, false); }},
    {"SimplifiedLayerNormalization", "", 1,
     "X:T, scale:V -> Y:V, inv_std_var:U? | T: " FLOATS ", V: " FLOATS ", U: f32 f64 bf16",
     "axis:int=-1, epsilon:float=1e-5, stash_type:int=1",
     "RMSNormalization as ONNX Runtime wrote it before ONNX had it; the second output is 1 / sqrt(mean square + "
     "epsilon).",
     kComposite, infer_layer_norm, [](const CostQuery& q) { return per_element(q, 4); },
     [](Eval& e) { return eval_rows(e, false); }},
    {"LRN", "", 13, "X:T -> Y:T | T: " FLOATS, "alpha:float=0.0001, beta:float=0.75, bias:float=1.0, size:int!",
     "X / (bias + alpha / size * sum of squares over `size` neighbouring channels) ^ beta.", kNoTrait, infer_same,
     [](const CostQuery& q) { return per_element(q, 2.0 * double(q.node.i("size", 1)) + 20); }, eval_lrn},
    {"LpNormalization", "", 22, "input:T -> output:T | T: " FLOATS, "axis:int=-1, p:int=2",
     "The input over its p-norm along an axis; 0 where the norm is 0.", kNoTrait, infer_same,
     [](const CostQuery& q) { return per_element(q, 3); }, eval_lp_norm},
    {"MeanVarianceNormalization", "", 13, "X:T -> Y:T | T: " FLOATS, "axes:ints=[0,2,3]",
     "(X - mean) / standard deviation over the given axes.", kComposite, infer_same,
     [](const CostQuery& q) { return per_element(q, 6); }, eval_mvn},
    {"SwiGLU", "", 28, "A:T, B:T -> Y:T | T: " FLOATS, "alpha:float=1.0",
     "A * sigmoid(alpha * A) * B, without broadcasting.", kElementwise | kComposite, infer_swiglu,
     [](const CostQuery& q) { return per_element(q, 15); }, eval_swiglu},
    {"Dropout", "", 22, "data:T, ratio:T1?, training_mode:T2? -> output:T, mask:T2? | T: float, T1: float, T2: bool",
     "seed:int",
     "In training mode zeroes each element with probability `ratio` and scales the others by 1 / (1 - ratio); "
     "otherwise a "
     "copy. The mask is true where an element was kept.",
     kRandom, infer_dropout, [](const CostQuery&) { return Cost{}; }, eval_dropout},
};

}  // namespace

std::span<const OpDef> normalization_ops() { return kOps; }

}  // namespace ai_vmm
