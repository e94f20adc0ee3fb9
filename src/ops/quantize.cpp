// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.

#include "ops/quantize.hpp"

#include <algorithm>
#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"

namespace ai_vmm {

Result<Grain> Grain::of(const Eval& e, const Shape& x, const Shape& scale, int64_t axis, int64_t block) {
  Grain g;
  int64_t count = ref::product(scale);
  if (block < 0) return e.error("block_size is " + std::to_string(block) + ".");
  if (block == 0 && count == 1) return g;
  auto misfit = [&] {
    return e.error("a scale or zero point of shape " + to_string(scale) + " does not fit an input of shape " +
                   to_string(x) + ".");
  };
  axis = AI_VMM_TAKE(e.axis(axis, int64_t(x.size())));
  g.axis_ = size_t(axis);
  if (block == 0) {
    if (scale.size() != 1 || scale[0] != x[g.axis_]) return misfit();
    g.strides_.assign(x.size(), 0);
    g.strides_[g.axis_] = 1;
    return g;
  }
  if (scale.size() != x.size()) return misfit();
  for (size_t d = 0; d < x.size(); ++d)
    if (scale[d] != (d == g.axis_ ? (x[d] + block - 1) / block : x[d])) return misfit();
  g.block_ = block;
  g.strides_ = ref::strides_of(scale);
  return g;
}

double round_to(DType type, double v) {
  switch (type) {
    case DType::f32: return double(float(v));
    case DType::f16: return decode(kF16, encode(kF16, v, false));
    case DType::bf16: return decode(kBF16, encode(kBF16, v, false));
    default: return v;
  }
}

double quantized(DType type, double scaled, double zero_point) {
  if (!is_integer(type)) return scaled + zero_point;
  int width = bits(type);
  double low = is_signed_integer(type) ? -std::ldexp(1.0, width - 1) : 0;
  double high = std::ldexp(1.0, is_signed_integer(type) ? width - 1 : width) - 1;
  double q = std::nearbyint(scaled) + zero_point;
  return q > high ? high : q >= low ? q : low;  // NaN becomes the least value
}

void write_quantized(Tensor& y, int64_t i, double scaled, double zero_point, bool saturate) {
  ref::write_narrow(y, i, quantized(y.dtype(), scaled, zero_point), {.saturate = saturate});
}

Result<std::vector<double>> per_line(const Eval& e, size_t k, int64_t lines, double fallback) {
  if (!e.has(k)) return std::vector<double>{fallback};
  int64_t n = e.in(k).count();
  if (e.in(k).dtype() == DType::string || is_complex(e.in(k).dtype()))
    return e.error("input " + std::to_string(k) + " does not hold real numbers.");
  if (n != 1 && n != lines)
    return e.error("input " + std::to_string(k) + " of shape " + to_string(e.in(k).shape()) +
                   " holds neither one number nor " + std::to_string(lines) + ".");
  return ref::load<double>(e.in(k));
}

namespace {

template <class Context>
Result<DType> attribute_type(const Context& c, const char* attribute) {
  int64_t t = c.node.i(attribute);
  if (t < 0 || t >= kDTypeCount)
    return c.error(std::string(attribute) + " " + std::to_string(t) + " is not a known element type.");
  return DType(t);
}

Status set_like(Infer& c, DType t) {
  if (c.ranked(0))
    c.set(0, t, c.dims(0));
  else
    c.set_unranked(0, t);
  return {};
}

// ---------------------------------------------------------------- QuantizeLinear

template <class Context>
Result<DType> quantized_type(const Context& c, bool has_zero_point, DType zero_point) {
  DType t = AI_VMM_TAKE(attribute_type(c, "output_dtype"));
  if (has_zero_point) {
    if (t != DType::undefined && zero_point != DType::undefined && t != zero_point)
      return c.error(std::string("output_dtype is ") + name(t) + ", but the zero point is " + name(zero_point) + ".");
    return zero_point;
  }
  return t == DType::undefined ? DType::u8 : t;
}

Status infer_quantize(Infer& c) { return set_like(c, AI_VMM_TAKE(quantized_type(c, c.has(2), c.dtype(2)))); }

Status eval_quantize(Eval& e) {
  const Tensor &x = e.in(0), &scale = e.in(1);
  DType t = AI_VMM_TAKE(quantized_type(e, e.has(2), e.has(2) ? e.in(2).dtype() : DType::undefined));
  if (!is_integer(t) && !is_float(t)) return e.error(std::string("there is no quantised type ") + name(t) + ".");
  DType precision = AI_VMM_TAKE(attribute_type(e, "precision"));
  if (precision == DType::undefined)
    precision = scale.dtype() == DType::f8e8m0 ? DType::f32 : is_float(scale.dtype()) ? scale.dtype() : DType::f64;
  Grain grain = AI_VMM_TAKE(Grain::of(e, x.shape(), scale.shape(), e.node.i("axis", 1), e.node.i("block_size")));
  if (e.has(2) && e.in(2).count() != scale.count())
    return e.error("the zero point of shape " + to_string(e.in(2).shape()) + " differs from the scale's " +
                   to_string(scale.shape()) + ".");
  bool saturate = e.node.i("saturate", 1) != 0;
  Tensor* y = AI_VMM_TAKE(e.make(0, t, x.shape()));
  auto v = ref::load<double>(x), s = ref::load<double>(scale);
  std::vector<double> zero(s.size(), 0);
  if (e.has(2)) zero = ref::load<double>(e.in(2));
  int64_t k = 0;
  for (ref::Index i(x.shape()); i.more(); i.next(), ++k) {
    size_t at = grain.at(i);
    double scaled = round_to(precision, round_to(precision, v[size_t(k)]) / round_to(precision, s[at]));
    write_quantized(*y, k, scaled, zero[at], saturate);
  }
  return {};
}

// ---------------------------------------------------------------- DequantizeLinear

template <class Context>
Result<DType> dequantized_type(const Context& c, DType scale) {
  DType t = AI_VMM_TAKE(attribute_type(c, "output_dtype"));
  if (t == DType::undefined) t = scale == DType::f8e8m0 ? DType::f32 : scale;
  if (t != DType::undefined && !is_float(t))
    return c.error(std::string("output_dtype ") + name(t) + " is not a float type.");
  return t;
}

Status infer_dequantize(Infer& c) { return set_like(c, AI_VMM_TAKE(dequantized_type(c, c.dtype(1)))); }

Status eval_dequantize(Eval& e) {
  const Tensor &x = e.in(0), &scale = e.in(1);
  DType t = AI_VMM_TAKE(dequantized_type(e, scale.dtype()));
  Grain grain = AI_VMM_TAKE(Grain::of(e, x.shape(), scale.shape(), e.node.i("axis", 1), e.node.i("block_size")));
  if (e.has(2) && e.in(2).count() != scale.count())
    return e.error("the zero point of shape " + to_string(e.in(2).shape()) + " differs from the scale's " +
                   to_string(scale.shape()) + ".");
  Tensor* y = AI_VMM_TAKE(e.make(0, t, x.shape()));
  auto v = ref::load<double>(x), s = ref::load<double>(scale);
  std::vector<double> zero(s.size(), 0);
  if (e.has(2)) zero = ref::load<double>(e.in(2));
  size_t k = 0;
  for (ref::Index i(x.shape()); i.more(); i.next(), ++k) {
    size_t at = grain.at(i);
    v[k] = (v[k] - zero[at]) * s[at];
  }
  ref::store(*y, v);
  return {};
}

// ---------------------------------------------------------------- DynamicQuantizeLinear

Status infer_dynamic_quantize(Infer& c) {
  AI_VMM_TRY(set_like(c, DType::u8));
  c.set(1, DType::f32, {});
  c.set(2, DType::u8, {});
  return {};
}

Status eval_dynamic_quantize(Eval& e) {
  const Tensor& x = e.in(0);
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::u8, x.shape()));
  Tensor* y_scale = AI_VMM_TAKE(e.make(1, DType::f32, {}));
  Tensor* y_zero = AI_VMM_TAKE(e.make(2, DType::u8, {}));
  auto q = dynamic_quantization(x.as<float>());
  y_scale->as_mutable<float>()[0] = q.scale;
  y_zero->as_mutable<uint8_t>()[0] = q.zero_point;
  auto v = x.as<float>();
  for (size_t i = 0; i < v.size(); ++i) write_quantized(*y, int64_t(i), double(v[i] / q.scale), q.zero_point);
  return {};
}

template <int Flops>
Cost cost(const CostQuery& q) {
  return {.flops = Flops * q.elements_out(0)};
}

const OpDef kOps[] = {
    {"QuantizeLinear", "", 28,
     "x:T, y_scale:S, y_zero_point:any? -> y:any | T: f32 f16 bf16 i32, S: f32 f16 bf16 i32 f8e8m0",
     "precision:int=0, output_dtype:int=0, block_size:int=0, saturate:int=1, axis:int=1",
     "x / y_scale to the nearest (half to even) plus the zero point, held to the range of the zero point's type. The "
     "scale is "
     "one number, one an index along the axis, or one a block of block_size elements along it; the quotient has the "
     "scale's "
     "precision, or the one named.",
     kElementwise, infer_quantize, cost<3>, eval_quantize},
    {"DequantizeLinear", "", 28, "x:T, x_scale:S, x_zero_point:T? -> y:any | T: numeric, S: f32 f16 bf16 f8e8m0",
     "output_dtype:int=0, block_size:int=0, axis:int=1",
     "(x - x_zero_point) * x_scale, with the scale by tensor, by axis or by block as in QuantizeLinear; of the scale's "
     "type, "
     "or the one named.",
     kElementwise, infer_dequantize, cost<2>, eval_dequantize},
    {"QuantizeLinear", "com.microsoft", 1, "x:T, y_scale:T, y_zero_point:any? -> y:any | T: f32 f16",
     "axis:int=1, saturate:int=1", "QuantizeLinear of the default domain, which first had no 16-bit integers.",
     kElementwise, infer_quantize, cost<3>, eval_quantize},
    {"DequantizeLinear", "com.microsoft", 1, "x:T, x_scale:S, x_zero_point:T? -> y:any | T: int, S: f32 f16",
     "axis:int=1", "DequantizeLinear of the default domain, which first had no 16-bit integers.", kElementwise,
     infer_dequantize, cost<2>, eval_dequantize},
    {"DynamicQuantizeLinear", "", 11, "x:f32 -> y:u8, y_scale:f32, y_zero_point:u8", "",
     "Quantises to u8 with the scale and zero point that just cover the values of x and zero.", kNoTrait,
     infer_dynamic_quantize, cost<6>, eval_dynamic_quantize},
};

}  // namespace

DynamicQuantization dynamic_quantization(std::span<const float> x) {
  float low = 0, high = 0;
  for (float v : x) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  DynamicQuantization q;
  q.scale = low == high ? 1.0f : (high - low) / 255.0f;
  q.zero_point = uint8_t(quantized(DType::u8, double((0.0f - low) / q.scale), 0));
  return q;
}

std::span<const OpDef> quantize_ops() { return kOps; }

}  // namespace ai_vmm
