// Elementwise operators that are no row of elementwise.def: with several element types, more than two inputs, or
// attributes that are not numbers.

#include <algorithm>
#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/map.hpp"
#include "ops/rules.hpp"

namespace ai_vmm {

namespace {

// ---------------------------------------------------------------- two inputs

Status eval_pow(Eval& e) {
  DType t = e.in(0).dtype();
  bool float_exponent = is_float(e.in(1).dtype());
  return ref::dispatch_real(e, t, [&]<class X>() -> Status {
    auto power = [](X x, double y) { return std::pow(double(x), y); };
    if (std::is_same_v<X, double> || float_exponent) return ref::map2<X, double>(e, t, power);
    if constexpr (std::is_same_v<X, double>)
      return {};
    else
      return ref::map2<X, X>(e, t, rules::i_pow<X>);
  });
}

double floored_mod(double x, double y) {
  double r = std::fmod(x, y);
  if (r == 0) return std::copysign(0.0, y);
  return (r < 0) != (y < 0) ? r + y : r;
}

Status eval_mod(Eval& e) {
  DType t = e.in(0).dtype();
  bool truncated = e.node.i("fmod") != 0;
  return ref::dispatch_real(e, t, [&]<class X>() -> Status {
    if constexpr (std::is_same_v<X, double>)
      return ref::map2<X, X>(e, t, [&](X x, X y) { return truncated ? std::fmod(x, y) : floored_mod(x, y); });
    else
      return ref::map2<X, X>(e, t, [&](X x, X y) { return truncated ? rules::i_rem(x, y) : rules::i_mod(x, y); });
  });
}

Status eval_shift(Eval& e) {
  DType t = e.in(0).dtype();
  std::string direction = e.node.s("direction");
  if (direction != "LEFT" && direction != "RIGHT")
    return e.error("direction \"" + direction + "\" is unknown; it must be LEFT or RIGHT.");
  bool left = direction == "LEFT";
  return ref::dispatch_real(e, t, [&]<class X>() -> Status {
    if constexpr (std::is_same_v<X, double>)
      return e.error("floats cannot be shifted.");
    else
      return ref::map2<X, X>(e, t, [&](X x, X y) { return left ? rules::i_shl(x, y) : rules::i_shr(x, y); });
  });
}

// ---------------------------------------------------------------- one input

Status eval_gelu(Eval& e) {
  std::string approximate = e.node.s("approximate", "none");
  if (approximate != "none" && approximate != "tanh")
    return e.error("approximate \"" + approximate + "\" is unknown; it must be none or tanh.");
  bool tanh_form = approximate == "tanh";
  constexpr double kSqrtHalf = 0.70710678118654752440, kSqrtTwoOverPi = 0.79788456080286535588;
  return ref::map1<double>(e, e.in(0).dtype(), [&](double x) {
    return 0.5 * x *
           (1 + (tanh_form ? std::tanh(kSqrtTwoOverPi * (x + 0.044715 * x * x * x)) : std::erf(x * kSqrtHalf)));
  });
}

Status eval_is_inf(Eval& e) {
  bool positive = e.node.i("detect_positive", 1), negative = e.node.i("detect_negative", 1);
  return ref::map1<double>(e, DType::boolean, [&](double x) { return std::isinf(x) && (x > 0 ? positive : negative); });
}
Status infer_is_inf(Infer& c) { return infer_broadcast(c, DType::boolean); }

// ---------------------------------------------------------------- Clip, Max, Min, Sum, Mean

// NaN wins over numbers.
template <class T>
T larger(T x, T y) {
  return x < y || y != y ? y : x;
}
template <class T>
T smaller(T x, T y) {
  return y < x || y != y ? y : x;
}

Status eval_clip(Eval& e) {
  for (size_t k : {1, 2})
    if (e.has(k) && e.in(k).count() != 1)
      return e.error("a bound has shape " + to_string(e.in(k).shape()) + "; it must be a scalar.");
  return ref::dispatch_real(e, e.in(0).dtype(), [&]<class X>() -> Status {
    std::optional<X> low, high;
    if (e.has(1)) low = ref::load<X>(e.in(1))[0];
    if (e.has(2)) high = ref::load<X>(e.in(2))[0];
    return ref::map1<X>(e, e.in(0).dtype(), [&](X x) {
      if (low && x < *low) x = *low;
      return high && *high < x ? *high : x;
    });
  });
}

Status infer_clip(Infer& c) {
  c.set(0, c.type(0));
  return {};
}

template <class F>
Status fold_inputs(Eval& e, F f, bool divide_by_count = false) {
  std::vector<Shape> shapes;
  for (size_t k = 0; k < e.inputs(); ++k) {
    if (!e.has(k)) return e.error("input " + std::to_string(k) + " is absent.");
    shapes.push_back(e.in(k).shape());
  }
  Shape shape = AI_VMM_TAKE(ref::broadcast(e, shapes));
  DType t = e.in(0).dtype();
  Tensor* y = AI_VMM_TAKE(e.make(0, t, shape));
  return ref::dispatch_real(e, t, [&]<class X>() -> Status {
    std::vector<X> r(size_t(y->count()));
    for (size_t n = 0; n < e.inputs(); ++n) {
      auto v = ref::load<X>(e.in(n));
      Shape strides = ref::broadcast_strides(shapes[n], shape);
      size_t k = 0;
      for (ref::Index i(shape); i.more(); i.next(), ++k) {
        X x = v[size_t(i.offset(strides))];
        r[k] = n ? f(r[k], x) : x;
      }
    }
    if (divide_by_count)
      for (X& x : r) x = x / X(e.inputs());
    ref::store<X>(*y, r);
    return {};
  });
}

Status eval_max(Eval& e) {
  return fold_inputs(e, [](auto x, auto y) { return larger(x, y); });
}
Status eval_min(Eval& e) {
  return fold_inputs(e, [](auto x, auto y) { return smaller(x, y); });
}
Status eval_sum(Eval& e) {
  return fold_inputs(e, [](auto x, auto y) { return x + y; });
}
Status eval_mean(Eval& e) {
  return fold_inputs(
      e, [](auto x, auto y) { return x + y; }, true);
}
Cost cost_variadic(const CostQuery& q) { return {.flops = double(q.inputs.size()) * q.elements_out(0)}; }

// ---------------------------------------------------------------- Where

Status infer_where(Infer& c) {
  AI_VMM_TRY(infer_broadcast(c, c.dtype(1) != DType::undefined ? c.dtype(1) : c.dtype(2)));
  if (c.output_type(0).rank() > 1) return {};
  auto condition = c.ints(0), x = c.ints(1), y = c.ints(2);
  if (!condition || !x || !y) return {};
  size_t count = std::max({condition->size(), x->size(), y->size()});
  for (const auto* v : {&*condition, &*x, &*y})
    if (v->size() != count && v->size() != 1) return {};
  std::vector<Dim> out;
  for (size_t i = 0; i < count; ++i) {
    auto at = [&](const std::vector<Dim>& v) { return v[v.size() == 1 ? 0 : i]; };
    if (!at(*condition).is_constant()) return {};
    out.push_back(at(*condition).is(0) ? at(*y) : at(*x));
  }
  c.set_ints(0, std::move(out));
  return {};
}

Status eval_where(Eval& e) {
  const Tensor &condition = e.in(0), &x = e.in(1), &y = e.in(2);
  const Shape shapes[] = {condition.shape(), x.shape(), y.shape()};
  Shape shape = AI_VMM_TAKE(ref::broadcast(e, shapes));
  Tensor* out = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  Shape sc = ref::broadcast_strides(shapes[0], shape), sx = ref::broadcast_strides(shapes[1], shape),
        sy = ref::broadcast_strides(shapes[2], shape);
  auto take_x = condition.as<uint8_t>();
  int64_t k = 0;
  for (ref::Index i(shape); i.more(); i.next(), ++k) {
    if (take_x[size_t(i.offset(sc))])
      ref::copy_element(*out, k, x, i.offset(sx));
    else
      ref::copy_element(*out, k, y, i.offset(sy));
  }
  return {};
}

template <int Flops>
Cost cost(const CostQuery& q) {
  return {.flops = Flops * q.elements_out(0)};
}

const OpDef kOps[] = {
    {"Pow", "", 15, "X:T, Y:T1 -> Z:T | T: numeric, T1: numeric", "",
     "X to the power Y. An integer X with a negative integer Y gives the truncated quotient 1 / X^|Y|.", kElementwise,
     infer_elementwise, cost<20>, eval_pow},
    {"Mod", "", 28, "A:T, B:T -> C:T | T: numeric", "fmod:int=0",
     "Remainder of A / B: of the floored quotient, with the sign of B, or with fmod = 1 of the truncated one, with the "
     "sign of A. An integer remainder by zero is 0.",
     kElementwise, infer_elementwise, cost<4>, eval_mod},
    {"BitShift", "", 28, "X:T, Y:T -> Z:T | T: int", "direction:string!",
     "X shifted by Y bits in the direction LEFT or RIGHT; the right shift of a signed type keeps the sign. A negative "
     "count, or one of the width or more, leaves only the fill.",
     kElementwise, infer_elementwise, cost<1>, eval_shift},
    {"Gelu", "", 20, "X:T -> Y:T | T: float", "approximate:string=none",
     "x / 2 * (1 + erf(x / sqrt(2))), or with approximate = tanh the form "
     "x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).",
     kElementwise, infer_elementwise, cost<15>, eval_gelu},
    {"IsInf", "", 20, "X:T -> Y:bool | T: float", "detect_negative:int=1, detect_positive:int=1",
     "True where x is infinite with a sign that is looked for.", kElementwise, infer_is_inf, cost<1>, eval_is_inf},
    {"Clip", "", 13, "input:T, min:T?, max:T? -> output:T | T: numeric", "",
     "x held between two scalars: max(min, ...) first, then min(max, ...). NaN stays NaN.", kElementwise, infer_clip,
     cost<2>, eval_clip},
    {"Max", "", 13, "data_0:T* -> max:T | T: numeric", "", "The largest of the inputs; NaN wins.",
     kElementwise | kCommutative, infer_elementwise, cost_variadic, eval_max},
    {"Min", "", 13, "data_0:T* -> min:T | T: numeric", "", "The smallest of the inputs; NaN wins.",
     kElementwise | kCommutative, infer_elementwise, cost_variadic, eval_min},
    {"Sum", "", 13, "data_0:T* -> sum:T | T: float", "", "The sum of the inputs.", kElementwise | kCommutative,
     infer_elementwise, cost_variadic, eval_sum},
    {"Mean", "", 13, "data_0:T* -> mean:T | T: float", "", "The mean of the inputs.", kElementwise | kCommutative,
     infer_elementwise, cost_variadic, eval_mean},
    {"Where", "", 16, "condition:bool, X:T, Y:T -> output:T | T: any", "", "X where the condition holds, otherwise Y.",
     kElementwise, infer_where, nullptr, eval_where},
};

}  // namespace

std::span<const OpDef> mixed_ops() { return kOps; }

}  // namespace ai_vmm
