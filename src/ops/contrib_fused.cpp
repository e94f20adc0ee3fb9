// Fused operators of com.microsoft that ONNX Runtime's optimisers leave in models: products, GELUs and skip
// normalisations.

#include <algorithm>
#include <cmath>

#include "ops/activation.hpp"
#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/norm.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

// ---------------------------------------------------------------- FusedMatMul

// Dims (or strides) of an operand as the product sees them. transBatch says that the rows are the first axis:
// [rows, batch…, columns] is read as [batch…, rows, columns]; trans then swaps the last two. Vectors stay.
template <class T>
std::vector<T> arranged(std::vector<T> d, bool trans, bool trans_batch) {
  if (d.size() < 2) return d;
  if (trans_batch) std::rotate(d.begin(), d.begin() + 1, d.end() - 1);
  if (trans) std::swap(d[d.size() - 1], d[d.size() - 2]);
  return d;
}

Status infer_fused_matmul(Infer& c) {
  if (!c.ranked(0) || !c.ranked(1)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  if (c.rank(0) == 0 || c.rank(1) == 0) return c.error("a scalar has no matrix product.");
  auto a = arranged(c.dims(0), c.node.i("transA"), c.node.i("transBatchA")),
       b = arranged(c.dims(1), c.node.i("transB"), c.node.i("transBatchB"));
  bool row = a.size() == 1, column = b.size() == 1;
  if (row) a.insert(a.begin(), Dim(1));
  if (column) b.push_back(1);
  if (known_different(a.back(), b[b.size() - 2]))
    return c.error("a matrix of " + a.back().to_string() + " columns does not go with one of " +
                   b[b.size() - 2].to_string() + " rows.");
  const std::vector<Dim> batches[] = {{a.begin(), a.end() - 2}, {b.begin(), b.end() - 2}};
  auto y = AI_VMM_TAKE(c.broadcast(batches));
  if (!row) y.push_back(a[a.size() - 2]);
  if (!column) y.push_back(b.back());
  c.set(0, c.dtype(0), std::move(y));
  return {};
}

Status eval_fused_matmul(Eval& e) {
  struct Operand {
    Shape shape, strides;
    std::vector<double> v;
  };
  auto operand = [&](size_t k, const char* trans, const char* batch) {
    const Tensor& t = e.in(k);
    bool swap = e.node.i(trans) != 0, rotate = e.node.i(batch) != 0;
    return Operand{arranged(t.shape(), swap, rotate), arranged(ref::strides_of(t.shape()), swap, rotate),
                   ref::load<double>(t)};
  };
  if (e.in(0).rank() == 0 || e.in(1).rank() == 0) return e.error("a scalar has no matrix product.");
  Operand a = operand(0, "transA", "transBatchA"), b = operand(1, "transB", "transBatchB");
  bool row = a.shape.size() == 1, column = b.shape.size() == 1;
  if (row) a.shape.insert(a.shape.begin(), 1), a.strides.insert(a.strides.begin(), 0);
  if (column) b.shape.push_back(1), b.strides.push_back(0);
  size_t ra = a.shape.size(), rb = b.shape.size();
  int64_t m = a.shape[ra - 2], k = a.shape[ra - 1], n = b.shape[rb - 1];
  if (b.shape[rb - 2] != k)
    return e.error("a matrix of " + std::to_string(k) + " columns does not go with one of " +
                   std::to_string(b.shape[rb - 2]) + " rows.");
  const Shape batches[] = {{a.shape.begin(), a.shape.end() - 2}, {b.shape.begin(), b.shape.end() - 2}};
  Shape batch = AI_VMM_TAKE(ref::broadcast(e, batches)), shape = batch;
  if (!row) shape.push_back(m);
  if (!column) shape.push_back(n);
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(0).dtype(), shape));
  // Strides over the common batch axes; 0 where an operand repeats.
  auto batch_strides = [&](const Operand& o) {
    Shape s(batch.size(), 0);
    size_t own = o.shape.size() - 2;
    for (size_t i = 0; i < own; ++i)
      if (o.shape[i] != 1) s[batch.size() - own + i] = o.strides[i];
    return s;
  };
  Shape sa = batch_strides(a), sb = batch_strides(b);
  double alpha = e.node.f("alpha", 1.0f);
  std::vector<double> out;
  out.reserve(size_t(y->count()));
  for (ref::Index p(batch); p.more(); p.next()) {
    const double *pa = a.v.data() + p.offset(sa), *pb = b.v.data() + p.offset(sb);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t t = 0; t < k; ++t)
          sum += pa[i * a.strides[ra - 2] + t * a.strides[ra - 1]] * pb[t * b.strides[rb - 2] + j * b.strides[rb - 1]];
        out.push_back(alpha * sum);
      }
  }
  ref::store<double>(*y, out);
  return {};
}

Cost cost_product(const CostQuery& q) {
  Shape a = q.shape_in(0);
  bool trans = q.node.i("transA") != 0;
  if (a.empty()) return {};
  double k = double(a.size() == 1 || !trans ? a.back() : q.node.i("transBatchA") ? a[0] : a[a.size() - 2]);
  return {.flops = 2 * k * q.elements_out(0)};
}

// ---------------------------------------------------------------- FusedGemm

Status infer_fused_gemm(Infer& c) {
  std::vector<Dim> a = c.ranked(0) ? c.dims(0) : c.fresh(2), b = c.ranked(1) ? c.dims(1) : c.fresh(2);
  if (a.size() != 2 || b.size() != 2) return c.error("A and B must be matrices.");
  bool ta = c.node.i("transA") != 0, tb = c.node.i("transB") != 0;
  if (known_different(a[ta ? 0 : 1], b[tb ? 1 : 0]))
    return c.error("A of shape " + to_string(a) + " does not go with B of shape " + to_string(b) + ".");
  c.set(0, c.dtype(0), {a[ta ? 1 : 0], b[tb ? 0 : 1]});
  return {};
}

Status eval_fused_gemm(Eval& e) {
  const Tensor &a = e.in(0), &b = e.in(1);
  bool ta = e.node.i("transA") != 0, tb = e.node.i("transB") != 0;
  if (a.rank() != 2 || b.rank() != 2 || a.dim(ta ? 0 : 1) != b.dim(tb ? 1 : 0))
    return e.error("A of shape " + to_string(a.shape()) + " does not go with B of shape " + to_string(b.shape()) + ".");
  int64_t m = a.dim(ta ? 1 : 0), k = a.dim(ta ? 0 : 1), n = b.dim(tb ? 0 : 1);
  auto optional = [&](const char* name) {
    return e.node.has(name) ? std::optional<float>(e.node.f(name)) : std::nullopt;
  };
  std::string kind = e.node.s("activation");
  Activation f = [](double x) { return x; };
  if (!kind.empty())
    f = AI_VMM_TAKE(activation(e.node, kind, optional("activation_alpha"),
                               optional(kind == "Selu" ? "activation_gamma" : "activation_beta")));
  Shape shape{m, n}, sc(2, 0);
  std::vector<double> c(1, 0.0);
  if (e.has(2)) {
    const Shape shapes[] = {shape, e.in(2).shape()};
    Shape all = AI_VMM_TAKE(ref::broadcast(e, shapes));
    if (all != shape)
      return e.error("C of shape " + to_string(e.in(2).shape()) + " does not broadcast to " + to_string(shape) + ".");
    c = ref::load<double>(e.in(2));
    sc = ref::broadcast_strides(e.in(2).shape(), shape);
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, a.dtype(), shape));
  double alpha = e.node.f("alpha", 1.0f), beta = e.node.f("beta", 1.0f);
  auto av = ref::load<double>(a), bv = ref::load<double>(b);
  std::vector<double> out;
  out.reserve(size_t(y->count()));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < k; ++t)
        sum += av[size_t(ta ? t * m + i : i * k + t)] * bv[size_t(tb ? j * k + t : t * n + j)];
      out.push_back(f(alpha * sum + beta * c[size_t(i * sc[0] + j * sc[1])]));
    }
  ref::store<double>(*y, out);
  return {};
}

// ---------------------------------------------------------------- GELUs

Status infer_first(Infer& c) {
  c.set(0, c.type(0));
  return {};
}

// f(x + bias) where the optional input 1 is a bias along the last axis.
template <class F>
Status eval_biased(Eval& e, F f) {
  const Tensor& x = e.in(0);
  std::vector<double> bias;
  if (e.has(1)) {
    if (e.in(1).rank() != 1 || x.rank() < 1 || e.in(1).dim(0) != x.dim(x.rank() - 1))
      return e.error("a bias of shape " + to_string(e.in(1).shape()) + " does not fit an input of shape " +
                     to_string(x.shape()) + ".");
    bias = ref::load<double>(e.in(1));
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  auto v = ref::load<double>(x);
  for (size_t i = 0; i < v.size(); ++i) v[i] = f(v[i] + (bias.empty() ? 0 : bias[i % bias.size()]));
  ref::store<double>(*y, v);
  return {};
}

double tanh_gelu(double x) { return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }

Status eval_quick_gelu(Eval& e) {
  double alpha = e.node.f("alpha", 1.702f);
  return eval_biased(e, [alpha](double x) { return x * sigmoid(alpha * x); });
}

Cost cost_gelu(const CostQuery& q) { return {.flops = 16 * q.elements_out(0)}; }

// BiasSplitGelu: the last axis holds two halves; the first is multiplied by the GELU of the second.
Status infer_split_gelu(Infer& c) {
  Type y = c.type(0);
  if (y.ranked) {
    if (y.dims.empty()) return c.error("a scalar has no halves.");
    y.dims.back() = floor_div(y.dims.back(), 2);
  }
  c.set(0, y);
  return {};
}

Status eval_split_gelu(Eval& e) {
  const Tensor &x = e.in(0), &bias = e.in(1);
  if (x.rank() < 1 || x.dim(x.rank() - 1) % 2 != 0 || bias.count() != x.dim(x.rank() - 1))
    return e.error("a bias of shape " + to_string(bias.shape()) + " does not fit an input of shape " +
                   to_string(x.shape()) + ", or its last axis is odd.");
  Shape shape = x.shape();
  size_t whole = size_t(shape.back()), half = whole / 2;
  shape.back() = int64_t(half);
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  auto v = ref::load<double>(x), b = ref::load<double>(bias);
  std::vector<double> out(size_t(y->count()));
  for (size_t i = 0; i < out.size(); ++i) {
    size_t row = i / half, j = i % half;
    out[i] = (v[row * whole + j] + b[j]) * gelu(v[row * whole + half + j] + b[half + j]);
  }
  ref::store<double>(*y, out);
  return {};
}

// BiasAdd: X + bias along the last axis + skip.
Status eval_bias_add(Eval& e) {
  const Tensor &x = e.in(0), &bias = e.in(1), &skip = e.in(2);
  if (x.rank() < 1 || bias.count() != x.dim(x.rank() - 1) || skip.shape() != x.shape())
    return e.error("shapes " + to_string(x.shape()) + ", " + to_string(bias.shape()) + " and " +
                   to_string(skip.shape()) + " do not go together.");
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  auto v = ref::load<double>(x), b = ref::load<double>(bias), s = ref::load<double>(skip);
  for (size_t i = 0; i < v.size(); ++i) v[i] += b[i % b.size()] + s[i];
  ref::store<double>(*y, v);
  return {};
}

// ---------------------------------------------------------------- normalisations

Status infer_skip_norm(Infer& c) {
  c.set(0, c.type(0));
  c.set(3, c.type(0));
  Type moments = c.type(0);
  moments.dtype = DType::f32;
  if (moments.ranked && !moments.dims.empty()) moments.dims.back() = 1;
  c.set(1, moments);
  c.set(2, moments);
  return {};
}

// Normalises the rows of `v` and writes output 0, the moments and the sum where they are wanted.
Status write_normalized(Eval& e, DType type, const Shape& shape, const std::vector<double>& v, size_t gamma,
                        size_t beta, bool centered, int mean_output, int sum_output) {
  int64_t size = shape.back(), rows = size ? int64_t(v.size()) / size : 0;
  for (size_t k : {gamma, beta})
    if (e.has(k) && e.in(k).count() != size)
      return e.error("an input of shape " + to_string(e.in(k).shape()) + " does not hold " + std::to_string(size) +
                     " numbers.");
  Tensor* y = AI_VMM_TAKE(e.make(0, type, shape));
  auto g = e.has(gamma) ? ref::load<double>(e.in(gamma)) : std::vector<double>();
  auto b = e.has(beta) ? ref::load<double>(e.in(beta)) : std::vector<double>();
  std::vector<double> out(v.size()), mean, inverse;
  for (int64_t r = 0; r < rows; ++r) {
    size_t at = size_t(r * size);
    auto m = normalize_row(std::span(v).subspan(at, size_t(size)), std::span(out).subspan(at, size_t(size)), g, b,
                           e.node.f("epsilon", 1e-12f), centered);
    mean.push_back(m.mean);
    inverse.push_back(m.inverse_deviation);
  }
  ref::store<double>(*y, out);
  if (mean_output >= 0) {
    Shape reduced = shape;
    reduced.back() = 1;
    mean.resize(size_t(ref::product(reduced)));
    inverse.resize(mean.size());
    for (int k = 0; k < 2; ++k)
      if (e.wants(size_t(mean_output + k))) {
        Tensor* t = AI_VMM_TAKE(e.make(size_t(mean_output + k), DType::f32, reduced));
        ref::store<double>(*t, k ? inverse : mean);
      }
  }
  if (sum_output >= 0 && e.wants(size_t(sum_output))) {
    Tensor* t = AI_VMM_TAKE(e.make(size_t(sum_output), type, shape));
    ref::store<double>(*t, v);
  }
  return {};
}

Status eval_skip_norm(Eval& e, bool centered) {
  const Tensor &x = e.in(0), &skip = e.in(1);
  size_t bias = centered ? 4 : 3;
  if (x.rank() < 1) return e.error("the input is a scalar.");
  const Shape shapes[] = {x.shape(), skip.shape()};
  Shape all = AI_VMM_TAKE(ref::broadcast(e, shapes));
  if (all != x.shape())
    return e.error("skip of shape " + to_string(skip.shape()) + " does not broadcast to " + to_string(x.shape()) + ".");
  if (e.has(bias) && e.in(bias).count() != x.dim(x.rank() - 1))
    return e.error("the bias has shape " + to_string(e.in(bias).shape()) + ".");
  auto v = ref::load<double>(x), s = ref::load<double>(skip);
  auto b = e.has(bias) ? ref::load<double>(e.in(bias)) : std::vector<double>();
  Shape strides = ref::broadcast_strides(skip.shape(), x.shape());
  size_t k = 0;
  for (ref::Index i(x.shape()); i.more(); i.next(), ++k)
    v[k] += s[size_t(i.offset(strides))] + (b.empty() ? 0 : b[k % b.size()]);
  return write_normalized(e, x.dtype(), x.shape(), v, 2, centered ? 3 : SIZE_MAX, centered, 1, 3);
}

Status infer_embed_norm(Infer& c) {
  std::vector<Dim> ids = c.ranked(0) ? c.dims(0) : c.fresh(2);
  if (ids.size() != 2) return c.error("input_ids must have rank 2, it has " + std::to_string(ids.size()) + ".");
  Dim hidden = c.ranked(2) && c.rank(2) == 2 ? c.dims(2)[1] : c.fresh();
  c.set(0, c.dtype(2), {ids[0], ids[1], hidden});
  c.set(1, DType::i32, {ids[0]});
  c.set(2, c.dtype(2), {ids[0], ids[1], hidden});
  return {};
}

Status eval_embed_norm(Eval& e) {
  const Tensor& ids = e.in(0);
  if (ids.rank() != 2 || e.in(2).rank() != 2) return e.error("input_ids and word_embedding must be matrices.");
  int64_t batch = ids.dim(0), length = ids.dim(1), hidden = e.in(2).dim(1);
  if (e.has(1) != e.has(4)) return e.error("segment_ids and segment_embedding go together.");
  Shape shape{batch, length, hidden};
  AI_VMM_TRY(ref::affordable(shape));
  std::vector<double> sum(size_t(ref::product(shape)), 0.0);
  // Adds the rows of table `k` that index(i) names.
  auto add = [&](size_t k, auto index) -> Status {
    const Tensor& table = e.in(k);
    if (table.rank() != 2 || table.dim(1) != hidden)
      return e.error("an embedding of shape " + to_string(table.shape()) + " does not have " + std::to_string(hidden) +
                     " columns.");
    auto v = ref::load<double>(table);
    for (int64_t i = 0; i < batch * length; ++i) {
      int64_t r = index(i);
      if (r < 0 || r >= table.dim(0))
        return e.error("index " + std::to_string(r) + " is outside an embedding of " + std::to_string(table.dim(0)) +
                       " rows.");
      for (int64_t h = 0; h < hidden; ++h) sum[size_t(i * hidden + h)] += v[size_t(r * hidden + h)];
    }
    return {};
  };
  for (size_t k : {size_t(1), size_t(7)})
    if (e.has(k) && e.in(k).shape() != ids.shape())
      return e.error("input " + std::to_string(k) + " has shape " + to_string(e.in(k).shape()) + "; it must be " +
                     to_string(ids.shape()) + ".");
  auto words = ref::ints(ids);
  AI_VMM_TRY(add(2, [&](int64_t i) { return words[size_t(i)]; }));
  std::vector<int64_t> positions;
  if (e.has(8)) {
    positions = ref::ints(e.in(8));  // [batch, length], or [1, length] for all
    if (positions.empty() != words.empty() || (!words.empty() && words.size() % positions.size() != 0))
      return e.error("position_ids has shape " + to_string(e.in(8).shape()) + ".");
  }
  AI_VMM_TRY(
      add(3, [&](int64_t i) { return positions.empty() ? i % length : positions[size_t(i) % positions.size()]; }));
  if (e.has(4)) {
    auto segments = ref::ints(e.in(1));
    AI_VMM_TRY(add(4, [&](int64_t i) { return segments[size_t(i)]; }));
  }
  AI_VMM_TRY(write_normalized(e, e.in(2).dtype(), shape, sum, 5, 6, true, -1, 2));
  if (e.wants(1)) {
    Tensor* t = AI_VMM_TAKE(e.make(1, DType::i32, {batch}));
    std::vector<int64_t> counts(size_t(batch), 0);
    if (e.has(7)) {
      auto mask = ref::ints(e.in(7));
      for (int64_t i = 0; i < batch * length; ++i) counts[size_t(i / length)] += mask[size_t(i)] == 1;
    }
    ref::store<int64_t>(*t, counts);
  }
  return {};
}

#define FLOATS "f16 f32 f64 bf16"
#define MS "com.microsoft"

const OpDef kOps[] = {
    {"FusedMatMul", MS, 1, "A:T, B:T -> Y:T | T: " FLOATS,
     "alpha:float=1.0, transA:int=0, transB:int=0, transBatchA:int=0, transBatchB:int=0",
     "alpha times the matrix product of A and B, each with its last two axes swapped (trans) or its first axis as the "
     "rows (transBatch).",
     kComposite, infer_fused_matmul, cost_product, eval_fused_matmul},
    {"TransposeMatMul", MS, 1, "A:T, B:T -> Y:T | T: " FLOATS, "alpha:float=1.0, transA:int=0, transB:int=0",
     "FusedMatMul under its first name.", kComposite, infer_fused_matmul, cost_product, eval_fused_matmul},
    {"FusedGemm", MS, 1, "A:T, B:T, C:T? -> Y:T | T: " FLOATS,
     "activation:string, activation_alpha:float, activation_beta:float, activation_gamma:float, alpha:float=1.0, "
     "beta:float=1.0, transA:int=0, transB:int=0",
     "activation(alpha A B + beta C).", kComposite, infer_fused_gemm, cost_product, eval_fused_gemm},
    {"Gelu", MS, 1, "X:T -> Y:T | T: " FLOATS, "", "x times the normal distribution function of x.",
     kElementwise | kComposite, infer_first, cost_gelu, [](Eval& e) { return eval_biased(e, gelu); }},
    {"BiasGelu", MS, 1, "A:T, B:T -> C:T | T: " FLOATS, "", "Gelu of A + B, a bias along the last axis.", kComposite,
     infer_first, cost_gelu, [](Eval& e) { return eval_biased(e, gelu); }},
    {"FastGelu", MS, 1, "X:T, bias:T? -> Y:T | T: " FLOATS, "",
     "The tanh approximation of Gelu of X plus a bias along the last axis.", kComposite, infer_first, cost_gelu,
     [](Eval& e) { return eval_biased(e, tanh_gelu); }},
    {"QuickGelu", MS, 1, "X:T -> Y:T | T: " FLOATS, "alpha:float=1.702", "x * sigmoid(alpha * x).",
     kElementwise | kComposite, infer_first, cost_gelu, eval_quick_gelu},
    {"BiasSplitGelu", MS, 1, "X:T, bias:T -> Y:T | T: f16 f32", "",
     "With X + bias cut into two halves along the last axis: the first times Gelu of the second.", kComposite,
     infer_split_gelu, cost_gelu, eval_split_gelu},
    {"BiasAdd", MS, 1, "X:T, bias:T, skip:T -> Y:T | T: f16 f32", "", "X plus a bias along the last axis plus skip.",
     kComposite, infer_first, [](const CostQuery& q) { return Cost{.flops = 2 * q.elements_out(0)}; }, eval_bias_add},
    {"SkipLayerNormalization", MS, 1,
     "input:T, skip:T, gamma:T, beta:T?, bias:T? -> output:T, mean:U?, inv_std_var:U?, input_skip_bias_sum:T? | T: f32 "
     "f16 bf16, U: f32",
     "epsilon:float=1e-12",
     "LayerNormalization of input + skip + bias along the last axis; the sum is the last output.", kComposite,
     infer_skip_norm, [](const CostQuery& q) { return Cost{.flops = 9 * q.elements_in(0)}; },
     [](Eval& e) { return eval_skip_norm(e, true); }},
    {"SkipSimplifiedLayerNormalization", MS, 1,
     "input:T, skip:T, gamma:T, bias:T? -> output:T, mean:U?, inv_std_var:U?, input_skip_bias_sum:T? | T: f32 f16 "
     "bf16, U: f32",
     "epsilon:float=1e-12", "RMSNormalization of input + skip + bias along the last axis; the sum is the last output.",
     kComposite, infer_skip_norm, [](const CostQuery& q) { return Cost{.flops = 6 * q.elements_in(0)}; },
     [](Eval& e) { return eval_skip_norm(e, false); }},
    {"EmbedLayerNormalization", MS, 1,
     "input_ids:T1, segment_ids:T1?, word_embedding:T, position_embedding:T, segment_embedding:T?, gamma:T, beta:T, "
     "mask:T1?, position_ids:T1? "
     "-> output:T, mask_index:T1?, embedding_sum:T? | T1: i32, T: f32 f16",
     "epsilon:float=1e-12, mask_index_type:int=0",
     "LayerNormalization of the sum of word, position and segment embeddings; mask_index counts the ones of each row "
     "of the mask.",
     kComposite, infer_embed_norm, [](const CostQuery& q) { return Cost{.flops = 9 * q.elements_out(0)}; },
     eval_embed_norm},
};

}  // namespace

std::span<const OpDef> contrib_fused_ops() { return kOps; }

}  // namespace ai_vmm
