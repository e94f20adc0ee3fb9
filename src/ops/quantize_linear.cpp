// Matrix products and convolutions of quantised tensors.

#include <algorithm>
#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/conv.hpp"
#include "ops/matmul.hpp"
#include "ops/quantize.hpp"
#include "ops/window.hpp"

namespace ai_vmm {

namespace {

// Subtracts zero points of the rows of A: one, one a row, or one a row of every matrix.
Status subtract_rows(const Eval& e, size_t k, std::vector<double>& v, int64_t rows, int64_t columns) {
  if (!e.has(k) || v.empty()) return {};
  int64_t lines = int64_t(v.size()) / columns;
  auto zero = AI_VMM_TAKE(per_line(e, k, e.in(k).count() == rows ? rows : lines, 0));
  for (int64_t i = 0; i < lines; ++i)
    for (int64_t j = 0; j < columns; ++j) v[size_t(i * columns + j)] -= line(zero, i % int64_t(zero.size()));
  return {};
}
// Subtracts zero points of the columns of B: one, one a column, or one a column of every matrix.
Status subtract_columns(const Eval& e, size_t k, std::vector<double>& v, int64_t rows, int64_t columns) {
  if (!e.has(k) || v.empty()) return {};
  int64_t matrices = int64_t(v.size()) / (rows * columns);
  auto zero = AI_VMM_TAKE(per_line(e, k, e.in(k).count() == columns ? columns : matrices * columns, 0));
  for (int64_t m = 0; m < matrices; ++m)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j)
        v[size_t((m * rows + i) * columns + j)] -= line(zero, (m * columns + j) % int64_t(zero.size()));
  return {};
}

// The product of inputs a and b without their zero points; exact for integers.
Result<std::vector<double>> product(const Eval& e, const MatMulPlan& plan, size_t a, size_t a_zero, size_t b,
                                    size_t b_zero) {
  auto va = ref::load<double>(e.in(a)), vb = ref::load<double>(e.in(b));
  AI_VMM_TRY(subtract_rows(e, a_zero, va, plan.m, plan.k));
  AI_VMM_TRY(subtract_columns(e, b_zero, vb, plan.k, plan.n));
  return multiply(plan, va, vb);
}

// Exact sums beyond 32 bits keep their low bits.
Status store_wrapped(Tensor& y, const std::vector<double>& v) {
  ref::store(y, std::vector<int64_t>(v.begin(), v.end()));
  return {};
}

Status infer_matmul_integer(Infer& c) { return infer_matmul(c, DType::i32, 0, 1); }
Status eval_matmul_integer(Eval& e) {
  MatMulPlan plan = AI_VMM_TAKE(plan_matmul(e, e.in(0).shape(), e.in(1).shape()));
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::i32, plan.output));
  return store_wrapped(*y, AI_VMM_TAKE(product(e, plan, 0, 2, 1, 3)));
}

Status infer_qlinear_matmul(Infer& c) { return infer_matmul(c, c.dtype(7), 0, 3); }
Status eval_qlinear_matmul(Eval& e) {
  MatMulPlan plan = AI_VMM_TAKE(plan_matmul(e, e.in(0).shape(), e.in(3).shape()));
  DType t = e.in(7).dtype();
  Tensor* y = AI_VMM_TAKE(e.make(0, t, plan.output));
  auto v = AI_VMM_TAKE(product(e, plan, 0, 2, 3, 5));
  int64_t rows = plan.n ? int64_t(v.size()) / plan.n : 0, columns = plan.m ? int64_t(v.size()) / plan.m : 0;
  auto lines = [&](size_t k, int64_t one, int64_t all) {
    return per_line(e, k, e.in(k).count() == one ? one : all, 1);
  };
  auto a_scale = AI_VMM_TAKE(lines(1, plan.m, rows)), b_scale = AI_VMM_TAKE(lines(4, plan.n, columns)),
       y_scale = AI_VMM_TAKE(lines(6, plan.m, rows)), y_zero = AI_VMM_TAKE(lines(7, plan.m, rows));
  auto row_of = [&](const std::vector<double>& s, int64_t r) { return s[size_t(r % int64_t(s.size()))]; };
  for (int64_t i = 0; i < int64_t(v.size()); ++i) {
    int64_t row = i / plan.n, column = row / plan.m * plan.n + i % plan.n;
    float factor = float(row_of(a_scale, row)) * float(row_of(b_scale, column)) / float(row_of(y_scale, row));
    write_quantized(*y, i, double(float(v[size_t(i)]) * factor), row_of(y_zero, row));
  }
  return {};
}

// ---------------------------------------------------------------- convolutions

// Inputs x and w convolved without their zero points, plus `bias`.
Result<std::vector<double>> convolution(const Eval& e, size_t x, size_t x_zero, size_t w, size_t w_zero,
                                        const std::vector<double>& bias, const Shape& shape) {
  Image xi{e.in(x).shape(), ref::load<double>(e.in(x))}, wi{e.in(w).shape(), ref::load<double>(e.in(w))};
  auto xz = AI_VMM_TAKE(per_line(e, x_zero, 1, 0)), wz = AI_VMM_TAKE(per_line(e, w_zero, wi.shape[0], 0));
  for (double& v : xi.values) v -= xz[0];
  int64_t taps = wi.shape[0] ? int64_t(wi.values.size()) / wi.shape[0] : 0;
  for (int64_t i = 0; i < int64_t(wi.values.size()); ++i) wi.values[size_t(i)] -= line(wz, i / taps);
  return convolve(e.node, xi, wi, bias, shape);
}

Result<Shape> output_shape(const Eval& e, size_t x, size_t w) {
  auto dims = AI_VMM_TAKE(conv_output(e.node, to_dims(e.in(x).shape()), to_dims(e.in(w).shape())));
  return *constant_shape(dims);
}

Status infer_conv_integer(Infer& c) { return infer_conv(c, DType::i32, 0, 1); }
Status eval_conv_integer(Eval& e) {
  Shape shape = AI_VMM_TAKE(output_shape(e, 0, 1));
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::i32, shape));
  std::vector<double> none(size_t(shape[1]), 0);
  return store_wrapped(*y, AI_VMM_TAKE(convolution(e, 0, 2, 1, 3, none, shape)));
}

Status infer_qlinear_conv(Infer& c) { return infer_conv(c, c.dtype(7), 0, 3); }
Status eval_qlinear_conv(Eval& e) {
  Shape shape = AI_VMM_TAKE(output_shape(e, 0, 3));
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(7).dtype(), shape));
  std::vector<double> bias(size_t(shape[1]), 0);
  if (e.has(8)) {
    bias = ref::load<double>(e.in(8));
    if (int64_t(bias.size()) != shape[1])
      return e.error("B of shape " + to_string(e.in(8).shape()) + " does not fit the output.");
  }
  auto v = AI_VMM_TAKE(convolution(e, 0, 2, 3, 5, bias, shape));
  auto x_scale = AI_VMM_TAKE(per_line(e, 1, 1, 1)), w_scale = AI_VMM_TAKE(per_line(e, 4, shape[1], 1)),
       y_scale = AI_VMM_TAKE(per_line(e, 6, 1, 1)), y_zero = AI_VMM_TAKE(per_line(e, 7, 1, 0));
  int64_t plane = ref::product(shape) ? ref::product(shape) / (shape[0] * shape[1]) : 1;
  for (int64_t i = 0; i < int64_t(v.size()); ++i) {
    float factor = float(x_scale[0]) * float(line(w_scale, i / plane % shape[1])) / float(y_scale[0]);
    write_quantized(*y, i, double(float(v[size_t(i)]) * factor), y_zero[0]);
  }
  return {};
}

Cost cost_conv(const CostQuery& q, size_t w) {
  Shape s = q.shape_in(w);
  double taps = !s.empty() && s[0] ? q.elements_in(w) / double(s[0]) : 0;
  return {.flops = 2 * taps * q.elements_out(0)};
}

constexpr const char* kConvAttributes =
    "group:int=1, pads:ints, strides:ints, dilations:ints, kernel_shape:ints, auto_pad:string=NOTSET";

const OpDef kOps[] = {
    {"MatMulInteger", "", 10, "A:T1, B:T2, a_zero_point:T1?, b_zero_point:T2? -> Y:i32 | T1: i8 u8, T2: i8 u8", "",
     "The exact product of A and B less their zero points, which are one number, one a row of A or one a column of B.",
     kNoTrait, infer_matmul_integer, [](const CostQuery& q) { return matmul_cost(q, 0); }, eval_matmul_integer},
    {"QLinearMatMul", "", 21,
     "a:T1, a_scale:S, a_zero_point:T1, b:T2, b_scale:S, b_zero_point:T2, y_scale:S, y_zero_point:T3 -> y:T3 | "
     "T1: i8 u8 f8e4m3fn f8e4m3fnuz f8e5m2 f8e5m2fnuz, T2: i8 u8 f8e4m3fn f8e4m3fnuz f8e5m2 f8e5m2fnuz, "
     "T3: i8 u8 f8e4m3fn f8e4m3fnuz f8e5m2 f8e5m2fnuz, S: f32 f16 bf16",
     "",
     "The product of the dequantised a and b, quantised to y. Scales are one number, one a row of a, or one a column "
     "of b.",
     kNoTrait, infer_qlinear_matmul, [](const CostQuery& q) { return matmul_cost(q, 0); }, eval_qlinear_matmul},
    {"ConvInteger", "", 10, "x:T1, w:T2, x_zero_point:T1?, w_zero_point:T2? -> y:i32 | T1: i8 u8, T2: i8 u8",
     kConvAttributes,
     "The exact convolution of x with w less their zero points, w's by tensor or by output channel; pads count as zero "
     "after "
     "the subtraction.",
     kNoTrait, infer_conv_integer, [](const CostQuery& q) { return cost_conv(q, 1); }, eval_conv_integer},
    {"QLinearConv", "", 10,
     "x:T1, x_scale:f32, x_zero_point:T1, w:T2, w_scale:f32, w_zero_point:T2, y_scale:f32, y_zero_point:T3, B:i32? -> "
     "y:T3 | "
     "T1: i8 u8, T2: i8 u8, T3: i8 u8",
     kConvAttributes,
     "The convolution of the dequantised x and w plus the bias, which has the scale x_scale * w_scale, quantised to y. "
     "w's "
     "scale is by tensor or by output channel.",
     kNoTrait, infer_qlinear_conv, [](const CostQuery& q) { return cost_conv(q, 3); }, eval_qlinear_conv},
};

}  // namespace

std::span<const OpDef> quantize_linear_ops() { return kOps; }

}  // namespace ai_vmm
