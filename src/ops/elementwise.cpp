// Elementwise operators: the rows of elementwise.def.


#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/ref.hpp"
#include "ops/rules.hpp"

namespace ai_vmm {

namespace {

struct NotAvailable {};
constexpr NotAvailable NA{};

// The rules, compiled. A rule that says NA yields a NotAvailable, which `eval_*` turns into an error.
namespace rule {
using namespace std;    // NOLINT: so that rules read `exp(x)`
using namespace rules;  // NOLINT
#define R(c) double(c)
#define UNARY(name, flops, types, fr, ir, meaning)                          \
  [[maybe_unused]] inline auto name##_f(double x) { (void)x; return fr; }   \
  template <class I> auto name##_i(I x) { (void)x; return ir; }
#define BINARY(name, flops, types, fr, ir, meaning)                                            \
  [[maybe_unused]] inline auto name##_f(double x, double y) { (void)x; (void)y; return fr; }   \
  template <class I> auto name##_i(I x, I y) { (void)x; (void)y; return ir; }
#define PREDICATE_UNARY UNARY
#define PREDICATE_BINARY BINARY
#include "ops/elementwise.def"
#undef R
}  // namespace rule

template <class T, class F>
Status map1(Eval& e, DType out, F f) {
  const Tensor& x = e.in(0);
  using Out = decltype(f(T{}));
  if constexpr (std::is_same_v<Out, NotAvailable>) {
    return e.error(std::string("element type ") + name(x.dtype()) + " is not supported.");
  } else {
    using Domain = std::conditional_t<std::is_same_v<Out, bool>, int64_t, Out>;
    Tensor* y = AI_VMM_TAKE(e.make(0, out, x.shape()));
    auto v = ref::load<T>(x);
    std::vector<Domain> w(v.size());
    for (size_t i = 0; i < v.size(); ++i) w[i] = Domain(f(v[i]));
    ref::store<Domain>(*y, w);
    return {};
  }
}

template <class T, class F>
Status map2(Eval& e, DType out, F f) {
  using Out = decltype(f(T{}, T{}));
  if constexpr (std::is_same_v<Out, NotAvailable>) {
    return e.error(std::string("element type ") + name(e.in(0).dtype()) + " is not supported.");
  } else {
    using Domain = std::conditional_t<std::is_same_v<Out, bool>, int64_t, Out>;
    const Tensor &a = e.in(0), &b = e.in(1);
    const Shape shapes[] = {a.shape(), b.shape()};
    Shape shape = AI_VMM_TAKE(ref::broadcast(e, shapes));
    Tensor* y = AI_VMM_TAKE(e.make(0, out, shape));
    auto v = ref::load<T>(a), w = ref::load<T>(b);
    Shape sa = ref::broadcast_strides(a.shape(), shape), sb = ref::broadcast_strides(b.shape(), shape);
    std::vector<Domain> r(size_t(y->count()));
    size_t k = 0;
    for (ref::Index i(shape); i.more(); i.next()) r[k++] = Domain(f(v[size_t(i.offset(sa))], w[size_t(i.offset(sb))]));
    ref::store<Domain>(*y, r);
    return {};
  }
}

template <class Float, class Int>
Status eval_unary(Eval& e, bool predicate, Float f, Int g) {
  DType t = e.in(0).dtype(), out = predicate ? DType::boolean : t;
  return ref::dispatch_real(e, t, [&]<class T>() -> Status {
    if constexpr (std::is_same_v<T, double>)
      return map1<T>(e, out, f);
    else
      return map1<T>(e, out, g);
  });
}

template <class Float, class Int>
Status eval_binary(Eval& e, bool predicate, Float f, Int g) {
  DType t = e.in(0).dtype(), out = predicate ? DType::boolean : t;
  return ref::dispatch_real(e, t, [&]<class T>() -> Status {
    if constexpr (std::is_same_v<T, double>)
      return map2<T>(e, out, f);
    else
      return map2<T>(e, out, g);
  });
}

Status infer_predicate(Infer& c) {
  AI_VMM_TRY(infer_elementwise(c));
  if (c.node.has_output(0)) c.set(0, [&] {
    Type t = infer_output_type(c, 0);
    t.dtype = DType::boolean;
    return t;
  }());
  return {};
}

#define SIG1(types) "X:T -> Y:T | T: " types
#define SIG2(types) "A:T, B:T -> C:T | T: " types
#define PRED1(types) "X:T -> Y:bool | T: " types
#define PRED2(types) "A:T, B:T -> C:bool | T: " types

template <int Flops>
Cost cost(const CostQuery& q) {
  return {.flops = Flops * q.elements_out(0)};
}

const OpDef kOps[] = {
#define UNARY(name, flops, types, fr, ir, meaning)                                            \
  {#name, "", 1, SIG1(types), "", meaning, kElementwise, infer_elementwise, cost<flops>,      \
   [](Eval& e) { return eval_unary(e, false, rule::name##_f, [](auto x) { return rule::name##_i(x); }); }},
#define BINARY(name, flops, types, fr, ir, meaning)                                           \
  {#name, "", 1, SIG2(types), "", meaning, kElementwise, infer_elementwise, cost<flops>,      \
   [](Eval& e) { return eval_binary(e, false, rule::name##_f, [](auto x, auto y) { return rule::name##_i(x, y); }); }},
#define PREDICATE_UNARY(name, flops, types, fr, ir, meaning)                                  \
  {#name, "", 1, PRED1(types), "", meaning, kElementwise, infer_predicate, cost<flops>,       \
   [](Eval& e) { return eval_unary(e, true, rule::name##_f, [](auto x) { return rule::name##_i(x); }); }},
#define PREDICATE_BINARY(name, flops, types, fr, ir, meaning)                                 \
  {#name, "", 1, PRED2(types), "", meaning, kElementwise, infer_predicate, cost<flops>,       \
   [](Eval& e) { return eval_binary(e, true, rule::name##_f, [](auto x, auto y) { return rule::name##_i(x, y); }); }},
#include "ops/elementwise.def"
};

}  // namespace

std::span<const OpDef> elementwise_ops() { return kOps; }

}  // namespace ai_vmm
