// Elementwise operators: the rows of elementwise.def.

#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/map.hpp"
#include "ops/rules.hpp"

namespace ai_vmm {

namespace {

constexpr ref::NotAvailable NA{};

// The rules, compiled. A rule that says NA yields a NotAvailable, which the loops turn into an error.
namespace rule {
using namespace std;    // NOLINT: so that rules read `exp(x)`
using namespace rules;  // NOLINT
#define R(c) double(c)
#define UNARY(name, flops, types, fr, ir, meaning)                                \
  [[maybe_unused]] inline auto name##_f([[maybe_unused]] double x) { return fr; } \
  template <class I>                                                              \
  auto name##_i([[maybe_unused]] I x) {                                           \
    return ir;                                                                    \
  }
#define BINARY(name, flops, types, fr, ir, meaning)                                                          \
  [[maybe_unused]] inline auto name##_f([[maybe_unused]] double x, [[maybe_unused]] double y) { return fr; } \
  template <class I>                                                                                         \
  auto name##_i([[maybe_unused]] I x, [[maybe_unused]] I y) {                                                \
    return ir;                                                                                               \
  }
#define PREDICATE_UNARY UNARY
#define PREDICATE_BINARY BINARY
#define ACTIVATION1(name, flops, aname, adefault, rule, meaning) \
  inline double name##_f(double x, double a) { return rule; }
#define ACTIVATION2(name, flops, aname, adefault, bname, bdefault, rule, meaning) \
  inline double name##_f(double x, double a, double b) { return rule; }
#include "ops/elementwise.def"
#undef R
}  // namespace rule

template <class Float, class Int>
Status eval_unary(Eval& e, bool predicate, Float f, Int g) {
  DType t = e.in(0).dtype(), out = predicate ? DType::boolean : t;
  return ref::dispatch_real(e, t, [&]<class T>() -> Status {
    if constexpr (std::is_same_v<T, double>)
      return ref::map1<T>(e, out, f);
    else
      return ref::map1<T>(e, out, g);
  });
}

template <class Float, class Int>
Status eval_binary(Eval& e, bool predicate, Float f, Int g) {
  DType t = e.in(0).dtype(), out = predicate ? DType::boolean : t;
  return ref::dispatch_real(e, t, [&]<class T>() -> Status {
    if constexpr (std::is_same_v<T, double>)
      return ref::map2<T, T>(e, out, f);
    else
      return ref::map2<T, T>(e, out, g);
  });
}

template <class Float, class Int>
Status eval_comparison(Eval& e, Float f, Int g) {
  if (e.in(0).dtype() == DType::string) return ref::map2<std::string, std::string>(e, DType::boolean, g);
  return eval_binary(e, true, f, g);
}

Status infer_predicate(Infer& c) {
  AI_VMM_TRY(infer_broadcast(c, DType::boolean));
  // Equal of known integers, as in `Where(Equal(target, -1), shape, target)` before an Expand.
  if (c.node.op != "Equal" || c.output_type(0).rank() > 1) return {};
  auto a = c.ints(0), b = c.ints(1);
  if (!a || !b || a->empty() || b->empty() || (a->size() != b->size() && a->size() != 1 && b->size() != 1)) return {};
  std::vector<Dim> out;
  for (size_t i = 0; i < std::max(a->size(), b->size()); ++i) {
    const Dim &x = (*a)[a->size() == 1 ? 0 : i], &y = (*b)[b->size() == 1 ? 0 : i];
    auto negative = [](const Dim& d) { return d.constant() && *d.constant() < 0; };
    if (known_equal(x, y))
      out.emplace_back(1);
    else if (known_different(x, y) || (negative(x) && known_non_negative(y)) || (negative(y) && known_non_negative(x)))
      out.emplace_back(0);
    else
      return {};
  }
  c.set_ints(0, std::move(out));
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

// Integers are computed as doubles and truncated: Shrink is the one activation that takes them.
template <class F>
Status eval_activation(Eval& e, F f) {
  return ref::map1<double>(e, e.in(0).dtype(), f);
}

const OpDef kOps[] = {
#define UNARY(name, flops, types, fr, ir, meaning)                                                     \
  {#name, "", 1, SIG1(types), "", meaning, kElementwise, infer_elementwise, cost<flops>, [](Eval& e) { \
     return eval_unary(e, false, rule::name##_f, [](auto x) { return rule::name##_i(x); });            \
   }},
#define BINARY(name, flops, types, fr, ir, meaning)                                                     \
  {#name, "", 1, SIG2(types), "", meaning, kElementwise, infer_elementwise, cost<flops>, [](Eval& e) {  \
     return eval_binary(e, false, rule::name##_f, [](auto x, auto y) { return rule::name##_i(x, y); }); \
   }},
#define PREDICATE_UNARY(name, flops, types, fr, ir, meaning)                                          \
  {#name, "", 1, PRED1(types), "", meaning, kElementwise, infer_predicate, cost<flops>, [](Eval& e) { \
     return eval_unary(e, true, rule::name##_f, [](auto x) { return rule::name##_i(x); });            \
   }},
#define PREDICATE_BINARY(name, flops, types, fr, ir, meaning)                                         \
  {#name, "", 1, PRED2(types), "", meaning, kElementwise, infer_predicate, cost<flops>, [](Eval& e) { \
     return eval_comparison(e, rule::name##_f, [](auto x, auto y) { return rule::name##_i(x, y); });  \
   }},
#define ACTIVATION1(name, flops, aname, adefault, rule_, meaning)               \
  {#name,                                                                       \
   "",                                                                          \
   1,                                                                           \
   SIG1("numeric"),                                                             \
   aname ":float=" #adefault,                                                   \
   meaning,                                                                     \
   kElementwise,                                                                \
   infer_elementwise,                                                           \
   cost<flops>,                                                                 \
   [](Eval& e) {                                                                \
     double a = e.node.f(aname, float(adefault));                               \
     return eval_activation(e, [a](double x) { return rule::name##_f(x, a); }); \
   }},
#define ACTIVATION2(name, flops, aname, adefault, bname, bdefault, rule_, meaning)      \
  {#name,                                                                               \
   "",                                                                                  \
   1,                                                                                   \
   SIG1("numeric"),                                                                     \
   aname ":float=" #adefault ", " bname ":float=" #bdefault,                            \
   meaning,                                                                             \
   kElementwise,                                                                        \
   infer_elementwise,                                                                   \
   cost<flops>,                                                                         \
   [](Eval& e) {                                                                        \
     double a = e.node.f(aname, float(adefault)), b = e.node.f(bname, float(bdefault)); \
     return eval_activation(e, [a, b](double x) { return rule::name##_f(x, a, b); });   \
   }},
#include "ops/elementwise.def"
};

}  // namespace

std::span<const OpDef> elementwise_ops() { return kOps; }

}  // namespace ai_vmm
