// Quantised operators of com.microsoft.

#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/conv.hpp"
#include "ops/matmul.hpp"
#include "ops/quantize.hpp"

namespace ai_vmm {

namespace {

// Scale and zero point by tensor: inputs k and k + 1.
struct Quantum {
  float scale = 1, zero = 0;
  double real(double v) const { return (v - double(zero)) * double(scale); }
};
Result<Quantum> quantum(const Eval& e, size_t k) {
  auto scale = AI_VMM_TAKE(per_line(e, k, 1, 1)), zero = AI_VMM_TAKE(per_line(e, k + 1, 1, 0));
  return Quantum{float(scale[0]), float(zero[0])};
}

Result<Tensor> dequantized(const Tensor& x, Quantum q) {
  Tensor y = AI_VMM_TAKE(Tensor::make(DType::f64, x.shape()));
  auto v = ref::load<double>(x);
  for (double& d : v) d = q.real(d);
  ref::store(y, v);
  return y;
}

// Output 0 of the type of input `like`: the real values y, quantised.
Status quantize(Eval& e, size_t like, const Tensor& real, Quantum q) {
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(like).dtype(), real.shape()));
  auto v = real.as<double>();
  for (size_t i = 0; i < v.size(); ++i) write_quantized(*y, int64_t(i), v[i] / double(q.scale), double(q.zero));
  return {};
}

// Runs a float operator of the default domain, with this node's attributes, on real inputs.
Result<Tensor> run_float(Eval& e, const char* op, const std::vector<Data>& inputs) {
  Node node = e.node;
  node.op = op;
  node.domain.clear();
  node.def = find_op("", op);
  node.inputs.resize(inputs.size());
  node.outputs.resize(1);
  auto out = AI_VMM_TAKE(evaluate(node, inputs, e.random));
  return out[0].tensor();
}

// Moves axis `from` of a dense tensor to `to`.
Result<Tensor> moved_axis(const Tensor& x, size_t from, size_t to) {
  std::vector<size_t> order;
  for (size_t i = 0; i < x.shape().size(); ++i)
    if (i != from) order.push_back(i);
  order.insert(order.begin() + int64_t(to), from);
  Shape shape, strides, own = ref::strides_of(x.shape());
  for (size_t i : order) {
    shape.push_back(x.shape()[i]);
    strides.push_back(own[i]);
  }
  Tensor y = AI_VMM_TAKE(Tensor::make(x.dtype(), shape));
  int64_t k = 0;
  for (ref::Index i(shape); i.more(); i.next()) ref::copy_element(y, k++, x, i.offset(strides));
  return y;
}

// ---------------------------------------------------------------- elementwise

// Output 0 has input 0's type; inputs a and b broadcast.
Status infer_qlinear_binary(Infer& c) {
  if (!c.ranked(0) || !c.ranked(3)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  const std::vector<Dim> shapes[] = {c.dims(0), c.dims(3)};
  c.set(0, c.dtype(0), AI_VMM_TAKE(c.broadcast(shapes)));
  return {};
}

// f(a, b) of every pair of stored values, to the nearest and held to the output's range; f includes the output's zero
// point.
template <class F>
Status each_pair(Eval& e, F f) {
  const Shape shapes[] = {e.in(0).shape(), e.in(3).shape()};
  Shape shape = AI_VMM_TAKE(ref::broadcast(e, shapes));
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(0).dtype(), shape));
  auto v = ref::load<double>(e.in(0)), w = ref::load<double>(e.in(3));
  Shape sa = ref::broadcast_strides(shapes[0], shape), sb = ref::broadcast_strides(shapes[1], shape);
  int64_t k = 0;
  for (ref::Index i(shape); i.more(); i.next())
    write_quantized(*y, k++, double(f(float(v[size_t(i.offset(sa))]), float(w[size_t(i.offset(sb))]))), 0);
  return {};
}
// Ties go where ONNX Runtime's f32 arithmetic sends them: the zero points are folded into one term, and steps are
// fused.
Status eval_qlinear_add(Eval& e) {
  Quantum a = AI_VMM_TAKE(quantum(e, 1)), b = AI_VMM_TAKE(quantum(e, 4)), c = AI_VMM_TAKE(quantum(e, 6));
  float a_ratio = a.scale / c.scale, b_ratio = b.scale / c.scale,
        shift = c.zero - (a_ratio * a.zero + b_ratio * b.zero);
  return each_pair(e, [&](float x, float y) { return std::fma(x, a_ratio, std::fma(y, b_ratio, shift)); });
}
Status eval_qlinear_mul(Eval& e) {
  Quantum a = AI_VMM_TAKE(quantum(e, 1)), b = AI_VMM_TAKE(quantum(e, 4)), c = AI_VMM_TAKE(quantum(e, 6));
  float ratio = a.scale * b.scale / c.scale;
  return each_pair(e, [&](float x, float y) { return std::nearbyint((x - a.zero) * (y - b.zero) * ratio) + c.zero; });
}

Status infer_like_first(Infer& c) {
  c.set(0, c.type(0));
  return {};
}
template <const char* Op>
Status eval_qlinear_unary(Eval& e) {
  Tensor x = AI_VMM_TAKE(dequantized(e.in(0), AI_VMM_TAKE(quantum(e, 1))));
  Tensor y = AI_VMM_TAKE(run_float(e, Op, {Data(x)}));
  return quantize(e, 0, y, AI_VMM_TAKE(quantum(e, 3)));
}
constexpr char kSigmoid[] = "Sigmoid", kLeakyRelu[] = "LeakyRelu", kSoftmax[] = "Softmax";

// ---------------------------------------------------------------- QLinearConcat: Y_scale, Y_zero_point, (x, scale,
// zero)…

Status infer_qlinear_concat(Infer& c) {
  if ((c.inputs() - 2) % 3) return c.error("each tensor needs a scale and a zero point.");
  std::vector<Dim> dims;
  for (size_t k = 2; k < c.inputs(); k += 3) {
    if (!c.ranked(k)) {
      c.set_unranked(0, c.dtype(1));
      return {};
    }
    int64_t axis = AI_VMM_TAKE(c.axis(c.node.i("axis"), c.rank(k)));
    if (k == 2) {
      dims = c.dims(k);
      continue;
    }
    if (c.rank(k) != int64_t(dims.size())) return c.error("the inputs differ in rank.");
    dims[size_t(axis)] = dims[size_t(axis)] + c.dims(k)[size_t(axis)];
  }
  c.set(0, c.dtype(1), std::move(dims));
  return {};
}
Status eval_qlinear_concat(Eval& e) {
  if (e.inputs() < 5 || (e.inputs() - 2) % 3) return e.error("each tensor needs a scale and a zero point.");
  std::vector<Data> parts;
  for (size_t k = 2; k < e.inputs(); k += 3) {
    if (bits(e.in(k).dtype()) != 8 || !is_integer(e.in(k).dtype()))
      return e.error("its tensors must be of type u8 or i8.");
    parts.emplace_back(AI_VMM_TAKE(dequantized(e.in(k), AI_VMM_TAKE(quantum(e, k + 1)))));
  }
  Tensor y = AI_VMM_TAKE(run_float(e, "Concat", parts));
  return quantize(e, 1, y, AI_VMM_TAKE(quantum(e, 0)));
}

// ---------------------------------------------------------------- pools

Status infer_qlinear_average_pool(Infer& c) {
  const OpDef* kin = c.node.i("channels_last") ? find_op("com.microsoft", "NhwcMaxPool") : find_op("", "AveragePool");
  return kin->infer(c);
}
Status eval_qlinear_average_pool(Eval& e) {
  bool last = e.node.i("channels_last") != 0;
  size_t rank = e.in(0).shape().size();
  if (rank < 3) return e.error("an input of rank " + std::to_string(rank) + " has no image.");
  Tensor x = AI_VMM_TAKE(dequantized(e.in(0), AI_VMM_TAKE(quantum(e, 1))));
  if (last) x = AI_VMM_TAKE(moved_axis(x, rank - 1, 1));
  Tensor y = AI_VMM_TAKE(run_float(e, "AveragePool", {Data(x)}));
  if (last) y = AI_VMM_TAKE(moved_axis(y, 1, rank - 1));
  Quantum to = AI_VMM_TAKE(quantum(e, 3));
  Tensor* out = AI_VMM_TAKE(e.make(0, e.in(0).dtype(), y.shape()));
  auto v = y.as<double>();
  // Ties go where ONNX Runtime sends them: it adds the zero point in f32 before it rounds.
  for (size_t i = 0; i < v.size(); ++i) write_quantized(*out, int64_t(i), double(float(v[i]) / to.scale + to.zero), 0);
  return {};
}

Status infer_qlinear_global_pool(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  auto dims = c.dims(0);
  if (dims.size() < 3) return c.error("an input of rank " + std::to_string(dims.size()) + " has no image.");
  bool last = c.node.i("channels_last") != 0;
  for (size_t i = 1; i < dims.size(); ++i)
    if (i != (last ? dims.size() - 1 : 1)) dims[i] = 1;
  c.set(0, c.dtype(0), std::move(dims));
  return {};
}
Status eval_qlinear_global_pool(Eval& e) {
  const Tensor& x = e.in(0);
  if (x.rank() < 3) return e.error("an input of rank " + std::to_string(x.rank()) + " has no image.");
  Quantum from = AI_VMM_TAKE(quantum(e, 1)), to = AI_VMM_TAKE(quantum(e, 3));
  size_t channel = e.node.i("channels_last") ? x.shape().size() - 1 : 1;
  Shape shape = x.shape();
  for (size_t i = 1; i < shape.size(); ++i)
    if (i != channel) shape[i] = 1;
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  auto v = ref::load<double>(x);
  std::vector<double> sum(size_t(y->count()), 0);
  Shape strides = ref::broadcast_strides(shape, x.shape());
  size_t k = 0;
  for (ref::Index i(x.shape()); i.more(); i.next()) sum[size_t(i.offset(strides))] += v[k++] - double(from.zero);
  float n = sum.empty() ? 1.0f : float(v.size() / sum.size());
  for (size_t i = 0; i < sum.size(); ++i)
    write_quantized(*y, int64_t(i), double(float(sum[i]) * (from.scale / (to.scale * n))), double(to.zero));
  return {};
}

// ---------------------------------------------------------------- products

// B's zero point and scale by tensor or by column.
struct Columns {
  std::vector<double> scale, zero;
};
Result<Columns> columns(const Eval& e, size_t scale, size_t zero, int64_t n) {
  auto scales = AI_VMM_TAKE(per_line(e, scale, n, 1));
  auto zeros = AI_VMM_TAKE(per_line(e, zero, n, 0));
  return Columns{std::move(scales), std::move(zeros)};
}
void subtract(std::vector<double>& v, const std::vector<double>& zero, int64_t n) {
  for (int64_t i = 0; i < int64_t(v.size()); ++i) v[size_t(i)] -= line(zero, i % n);
}
Status check_bias(const Eval& e, size_t k, int64_t n) {
  if (e.has(k) && e.in(k).count() != n)
    return e.error("the bias of shape " + to_string(e.in(k).shape()) + " does not fit " + std::to_string(n) +
                   " columns.");
  return {};
}

// Output 0 = a × b scaled by a_scale and b's scale by column, plus the bias in input `bias`.
Status write_real_product(Eval& e, const MatMulPlan& plan, const std::vector<double>& a, const std::vector<double>& b,
                          const std::vector<double>& a_scale, const std::vector<double>& b_scale, size_t bias,
                          DType t) {
  AI_VMM_TRY(check_bias(e, bias, plan.n));
  Tensor* y = AI_VMM_TAKE(e.make(0, t, plan.output));
  auto v = multiply(plan, a, b);
  std::vector<double> added(1, 0);
  if (e.has(bias)) added = ref::load<double>(e.in(bias));
  for (int64_t i = 0; i < int64_t(v.size()); ++i) {
    int64_t column = i % plan.n;
    double& x = v[size_t(i)];
    x = x * line(a_scale, i / plan.n % plan.m) * line(b_scale, column) + line(added, column);
  }
  ref::store(*y, v);
  return {};
}

Status infer_dynamic_matmul(Infer& c) { return infer_matmul(c, c.dtype(0), 0, 1); }
Status eval_dynamic_matmul(Eval& e) {
  MatMulPlan plan = AI_VMM_TAKE(plan_matmul(e, e.in(0).shape(), e.in(1).shape()));
  Columns b = AI_VMM_TAKE(columns(e, 2, 3, plan.n));
  auto x = e.in(0).as<float>();
  DynamicQuantization q = dynamic_quantization(x);
  std::vector<double> va(x.size()), vb = ref::load<double>(e.in(1));
  for (size_t i = 0; i < x.size(); ++i)
    va[i] = quantized(DType::u8, double(x[i] / q.scale), q.zero_point) - q.zero_point;
  if (plan.n) subtract(vb, b.zero, plan.n);
  return write_real_product(e, plan, va, vb, {double(q.scale)}, b.scale, 4, DType::f32);
}

Status infer_integer_to_float(Infer& c) { return infer_matmul(c, c.dtype(2), 0, 1); }
Status eval_integer_to_float(Eval& e) {
  MatMulPlan plan = AI_VMM_TAKE(plan_matmul(e, e.in(0).shape(), e.in(1).shape()));
  Columns b = AI_VMM_TAKE(columns(e, 3, 5, plan.n));
  auto a_scale = AI_VMM_TAKE(per_line(e, 2, plan.m, 1)), a_zero = AI_VMM_TAKE(per_line(e, 4, plan.m, 0));
  auto va = ref::load<double>(e.in(0)), vb = ref::load<double>(e.in(1));
  for (int64_t i = 0; i < int64_t(va.size()); ++i) va[size_t(i)] -= line(a_zero, i / plan.k % plan.m);
  if (plan.n) subtract(vb, b.zero, plan.n);
  return write_real_product(e, plan, va, vb, a_scale, b.scale, 6, e.in(2).dtype());
}

// ---------------------------------------------------------------- QGemm

DType gemm_type(bool has_scale, bool has_zero, DType zero) {
  return !has_scale ? DType::f32 : has_zero ? zero : DType::u8;
}
Status infer_qgemm(Infer& c) {
  bool ta = c.node.i("transA") != 0, tb = c.node.i("transB") != 0;
  for (size_t k : {0, 3})
    if (c.ranked(k) && c.rank(k) != 2)
      return c.error("a matrix has rank " + std::to_string(c.rank(k)) + "; it must be 2.");
  DType t = gemm_type(c.has(7), c.has(8), c.dtype(8));
  c.set(0, t, {c.ranked(0) ? c.dims(0)[ta] : c.fresh(), c.ranked(3) ? c.dims(3)[!tb] : c.fresh()});
  return {};
}
Status eval_qgemm(Eval& e) {
  const Tensor &a = e.in(0), &b = e.in(3);
  if (a.rank() != 2 || b.rank() != 2)
    return e.error("shapes " + to_string(a.shape()) + " and " + to_string(b.shape()) + " are not two matrices.");
  bool ta = e.node.i("transA") != 0, tb = e.node.i("transB") != 0;
  int64_t m = a.dim(ta), k = a.dim(!ta), n = b.dim(!tb);
  if (b.dim(tb) != k)
    return e.error("the columns of A (" + std::to_string(k) + ") differ from the rows of B (" +
                   std::to_string(b.dim(tb)) + ").");
  Quantum qa = AI_VMM_TAKE(quantum(e, 1));
  Columns qb = AI_VMM_TAKE(columns(e, 4, 5, n));
  Shape shape{m, n}, strides(2, 0);
  std::vector<double> c(1, 0);
  if (e.has(6)) {
    const Shape shapes[] = {e.in(6).shape(), shape};
    if (AI_VMM_TAKE(ref::broadcast(e, shapes)) != shape)
      return e.error("C of shape " + to_string(e.in(6).shape()) + " does not broadcast to " + to_string(shape) + ".");
    c = ref::load<double>(e.in(6));
    strides = ref::broadcast_strides(e.in(6).shape(), shape);
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, gemm_type(e.has(7), e.has(8), e.has(8) ? e.in(8).dtype() : DType::u8), shape));
  Quantum qy = AI_VMM_TAKE(quantum(e, 7));
  auto va = ref::load<double>(a), vb = ref::load<double>(b);
  float alpha = e.node.f("alpha", 1);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = c[size_t(i * strides[0] + j * strides[1])];
      for (int64_t p = 0; p < k; ++p)
        sum += (va[size_t(ta ? p * m + i : i * k + p)] - double(qa.zero)) *
               (vb[size_t(tb ? j * k + p : p * n + j)] - line(qb.zero, j));
      float scale = alpha * qa.scale * float(line(qb.scale, j));
      if (e.has(7))
        write_quantized(*y, i * n + j, double(float(sum) * (scale / qy.scale)), double(qy.zero));
      else
        write_double(DType::f32, y->mutable_data(), i * n + j, double(float(sum) * scale));
    }
  return {};
}

// ---------------------------------------------------------------- MatMulNBits

Status infer_matmul_nbits(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  auto dims = c.dims(0);
  if (dims.empty()) return c.error("A is a scalar; it must end in an axis of K elements.");
  if (known_different(dims.back(), Dim(c.node.i("K"))))
    return c.error("A has " + dims.back().to_string() + " columns, but K is " + std::to_string(c.node.i("K")) + ".");
  dims.back() = c.node.i("N");
  c.set(0, c.dtype(0), std::move(dims));
  return {};
}

// Element i of a row of values of `bits` bits each, the first in the low bits of each byte.
inline double packed(const uint8_t* row, int64_t i, int bits) {
  int64_t at = i * bits;
  return double((row[at / 8] >> (at % 8)) & ((1 << bits) - 1));
}

Status eval_matmul_nbits(Eval& e) {
  int64_t k = e.node.i("K"), n = e.node.i("N"), block = e.node.i("block_size"), bits = e.node.i("bits", 4);
  if (k < 1 || n < 1 || block < 1 || block > (1 << 20) || k > (int64_t(1) << 40) || n > (int64_t(1) << 40) ||
      (bits != 2 && bits != 4 && bits != 8) || block * bits % 8)
    return e.error("K " + std::to_string(k) + ", N " + std::to_string(n) + ", block_size " + std::to_string(block) +
                   " and bits " + std::to_string(bits) +
                   " describe no matrix; bits is 2, 4 or 8, and a block fills whole bytes.");
  if (e.node.i("weight_prepacked")) return e.error("weights that are packed for another device cannot be read.");
  const Tensor& a = e.in(0);
  if (a.rank() < 1 || a.shape().back() != k)
    return e.error("A of shape " + to_string(a.shape()) + " does not end in K = " + std::to_string(k) + " elements.");
  int64_t blocks = (k + block - 1) / block, blob = block * bits / 8, zero_bytes = (blocks * bits + 7) / 8;
  auto expect = [&](size_t input, __int128_t count) -> Status {
    if (__int128_t(e.in(input).count()) == count) return {};
    return e.error("input " + std::to_string(input) + " has shape " + to_string(e.in(input).shape()) +
                   ", which does not fit the attributes.");
  };
  AI_VMM_TRY(expect(1, __int128_t(n) * blocks * blob));
  AI_VMM_TRY(expect(2, __int128_t(n) * blocks));
  bool packed_zeros = e.has(3) && e.in(3).dtype() == DType::u8;
  if (e.has(3)) AI_VMM_TRY(expect(3, __int128_t(n) * (packed_zeros ? zero_bytes : blocks)));
  AI_VMM_TRY(check_bias(e, 5, n));
  std::vector<int64_t> group(size_t(k), 0);
  for (int64_t p = 0; p < k; ++p) group[size_t(p)] = p / block;
  if (e.has(4)) {
    auto given = ref::ints(e.in(4));
    if (int64_t(given.size()) < k)
      return e.error("g_idx has " + std::to_string(given.size()) + " entries for K = " + std::to_string(k) + ".");
    for (int64_t p = 0; p < k; ++p) {
      group[size_t(p)] = given[size_t(p)];
      if (given[size_t(p)] < 0 || given[size_t(p)] >= blocks)
        return e.error("g_idx " + std::to_string(given[size_t(p)]) + " is outside the " + std::to_string(blocks) +
                       " groups.");
    }
  }
  Shape shape = a.shape();
  shape.back() = n;
  Tensor* y = AI_VMM_TAKE(e.make(0, a.dtype(), shape));
  auto va = ref::load<double>(a), scales = ref::load<double>(e.in(2));
  std::vector<double> zeros(size_t(n * blocks), double(1 << (bits - 1))), bias(1, 0), column(size_t(k), 0);
  if (e.has(3) && !packed_zeros) zeros = ref::load<double>(e.in(3));
  if (packed_zeros)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t b = 0; b < blocks; ++b)
        zeros[size_t(j * blocks + b)] = packed(e.in(3).as<uint8_t>().data() + j * zero_bytes, b, int(bits));
  if (e.has(5)) bias = ref::load<double>(e.in(5));
  const uint8_t* weights = e.in(1).as<uint8_t>().data();
  int64_t rows = a.count() / k;
  std::vector<double> r(size_t(rows * n), 0);
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t p = 0; p < k; ++p) {
      size_t g = size_t(j * blocks + group[size_t(p)]);
      column[size_t(p)] = (packed(weights + j * blocks * blob, p, int(bits)) - zeros[g]) * scales[g];
    }
    for (int64_t i = 0; i < rows; ++i) {
      double sum = line(bias, j);
      for (int64_t p = 0; p < k; ++p) sum += va[size_t(i * k + p)] * column[size_t(p)];
      r[size_t(i * n + j)] = sum;
    }
  }
  ref::store(*y, r);
  return {};
}
Cost cost_matmul_nbits(const CostQuery& q) { return {.flops = 2 * q.elements_out(0) * double(q.node.i("K"))}; }

#define MS "com.microsoft"
#define Q8 " | T: i8 u8"

const OpDef kOps[] = {
    {"QLinearAdd", MS, 1,
     "A:T, A_scale:f32, A_zero_point:T?, B:T, B_scale:f32, B_zero_point:T?, C_scale:f32, C_zero_point:T? -> C:T" Q8, "",
     "The sum of the dequantised inputs, quantised.", kNoTrait, infer_qlinear_binary, nullptr, eval_qlinear_add},
    {"QLinearMul", MS, 1,
     "A:T, A_scale:f32, A_zero_point:T?, B:T, B_scale:f32, B_zero_point:T?, C_scale:f32, C_zero_point:T? -> C:T" Q8, "",
     "The product of the dequantised inputs, quantised.", kNoTrait, infer_qlinear_binary, nullptr, eval_qlinear_mul},
    {"QLinearSigmoid", MS, 1, "X:T, X_scale:f32, X_zero_point:T?, Y_scale:f32, Y_zero_point:T? -> Y:T" Q8, "",
     "Sigmoid of the dequantised input, quantised.", kNoTrait, infer_like_first, nullptr, eval_qlinear_unary<kSigmoid>},
    {"QLinearLeakyRelu", MS, 1, "X:T, X_scale:f32, X_zero_point:T?, Y_scale:f32, Y_zero_point:T? -> Y:T" Q8,
     "alpha:float=0.01", "LeakyRelu of the dequantised input, quantised.", kNoTrait, infer_like_first, nullptr,
     eval_qlinear_unary<kLeakyRelu>},
    {"QLinearSoftmax", MS, 1, "X:T, X_scale:f32, x_zero_point:T?, y_scale:f32, y_zero_point:T -> Y:T" Q8,
     "opset:int!, axis:int=-1", "Softmax of the dequantised input along the axis, quantised.", kNoTrait,
     infer_like_first, nullptr, eval_qlinear_unary<kSoftmax>},
    {"QLinearConcat", MS, 1, "Y_scale:f32, Y_zero_point:T, inputs:any* -> Y:T" Q8, "axis:int!",
     "Tensors, each followed by its scale and zero point, dequantised, joined along the axis and quantised.", kNoTrait,
     infer_qlinear_concat, nullptr, eval_qlinear_concat},
    {"QLinearAveragePool", MS, 1, "X:T, x_scale:f32, x_zero_point:T?, y_scale:f32, y_zero_point:T? -> Y:T" Q8,
     "ceil_mode:int=0, pads:ints, auto_pad:string=NOTSET, strides:ints, kernel_shape:ints!, channels_last:int=0, "
     "count_include_pad:int=0",
     "AveragePool of the dequantised input, quantised; channels are axis 1, or the last with channels_last.", kNoTrait,
     infer_qlinear_average_pool, nullptr, eval_qlinear_average_pool},
    {"QLinearGlobalAveragePool", MS, 1, "X:T, x_scale:f32, x_zero_point:T, y_scale:f32, y_zero_point:T -> Y:T" Q8,
     "channels_last:int=0",
     "The mean of each channel's image, quantised; channels are axis 1, or the last with channels_last.", kNoTrait,
     infer_qlinear_global_pool, nullptr, eval_qlinear_global_pool},
    {"DynamicQuantizeMatMul", MS, 1, "A:f32, B:T, b_scale:f32, b_zero_point:T?, bias:f32? -> Y:f32" Q8, "",
     "A quantised as DynamicQuantizeLinear does, times B, whose scale is by tensor or by column, plus a bias by "
     "column.",
     kNoTrait, infer_dynamic_matmul, [](const CostQuery& q) { return matmul_cost(q, 0); }, eval_dynamic_matmul},
    {"MatMulIntegerToFloat", MS, 1,
     "A:T1, B:T2, a_scale:F, b_scale:F, a_zero_point:T1?, b_zero_point:T2?, bias:F? -> Y:F | T1: i8 u8, T2: i8 u8, F: "
     "f32 f16",
     "", "The product of the dequantised A and B, whose scale is by tensor or by column, plus a bias by column.",
     kNoTrait, infer_integer_to_float, [](const CostQuery& q) { return matmul_cost(q, 0); }, eval_integer_to_float},
    {"QGemm", MS, 1,
     "A:TA, a_scale:f32, a_zero_point:TA, B:TB, b_scale:f32, b_zero_point:TB, C:i32?, y_scale:f32?, y_zero_point:TY? "
     "-> Y:any | "
     "TA: i8 u8, TB: i8 u8, TY: i8 u8",
     "transB:int=0, alpha:float=1.0, transA:int=0",
     "alpha times the product of the dequantised A and B plus C, which has the product's scale; quantised if y_scale "
     "is given, "
     "otherwise f32.",
     kNoTrait, infer_qgemm, nullptr, eval_qgemm},
    {"MatMulNBits", MS, 1, "A:T, B:u8, scales:T, zero_points:any?, g_idx:i32?, bias:T? -> Y:T | T: f32 f16 bf16",
     "weight_prepacked:int=0, accuracy_level:int=0, block_size:int!, bits:int=4, N:int!, K:int!",
     "A times the matrix whose columns B holds as blocks of 2, 4 or 8 bits along K, (value - zero point) * scale by "
     "block; the zero "
     "points are packed like B, or floats, or the middle of the range; g_idx names the group of each k instead of its "
     "block.",
     kNoTrait, infer_matmul_nbits, cost_matmul_nbits, eval_matmul_nbits},
};

}  // namespace

std::span<const OpDef> contrib_quantize_ops() { return kOps; }

}  // namespace ai_vmm
