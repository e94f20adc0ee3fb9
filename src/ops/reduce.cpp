// Reductions over axes: the rows of reduce.def, ReduceLogSumExp, ArgMax and ArgMin.

#include <algorithm>
#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/ref.hpp"
#include "ops/rules.hpp"

namespace ai_vmm {

namespace {

inline double plus(double x, double y) { return x + y; }
inline double times(double x, double y) { return x * y; }
inline double magnitude(double x) { return std::fabs(x); }
inline double quotient(double x, double y) { return x / y; }
inline double root(double x) { return std::sqrt(x); }
inline double logarithm(double x) { return std::log(x); }
template <std::integral I>
I plus(I x, I y) {
  return rules::i_add(x, y);
}
template <std::integral I>
I times(I x, I y) {
  return rules::i_mul(x, y);
}
template <std::integral I>
I magnitude(I x) {
  return rules::i_abs(x);
}
template <std::integral I>
I quotient(I x, I y) {
  return rules::i_div(x, y);
}
template <std::integral I>
I root(I x) {
  return x > 0 ? I(std::sqrt(double(x))) : I(0);
}
template <std::integral I>
I logarithm(I x) {
  return x > 0 ? I(std::log(double(x))) : I(0);
}
template <class T>
T larger(T x, T y) {
  return x < y || y != y ? y : x;
}
template <class T>
T smaller(T x, T y) {
  return y < x || y != y ? y : x;
}

// The ends of an element type in its computing domain.
template <class T>
std::pair<T, T> ends(DType t) {
  if constexpr (std::is_same_v<T, double>) {
    return {-std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity()};
  } else {
    if (t == DType::boolean) return {T(0), T(1)};
    int width = bits(t);
    if (!is_signed_integer(t)) return {T(0), T(~uint64_t(0) >> (64 - width))};
    int64_t high = int64_t(~uint64_t(0) >> 1 >> (64 - width));
    return {T(-high - 1), T(high)};
  }
}

namespace rule {
#define REDUCE(name, flops, types, start_, step_, finish_, meaning)         \
  struct name {                                                             \
    template <class R>                                                      \
    static R start([[maybe_unused]] R lowest, [[maybe_unused]] R highest) { \
      return start_;                                                        \
    }                                                                       \
    template <class R>                                                      \
    static R step(R a, R x) {                                               \
      return step_;                                                         \
    }                                                                       \
    template <class R>                                                      \
    static R finish(R a, [[maybe_unused]] int64_t n) {                      \
      return finish_;                                                       \
    }                                                                       \
  };
#include "ops/reduce.def"
}  // namespace rule

// ---------------------------------------------------------------- axes

Status infer_reduce(Infer& c) {
  DType t = c.dtype(0);
  bool keep = c.node.i("keepdims", 1) != 0, noop = c.node.i("noop_with_empty_axes") != 0;
  if (!c.ranked(0)) {
    c.set_unranked(0, t);
    return {};
  }
  int64_t rank = c.rank(0);
  std::vector<int64_t> axes;
  if (c.has(1)) {
    const Tensor* known = c.constant(1);
    if (!known) {
      auto count = c.ranked(1) && c.rank(1) == 1 ? c.dims(1)[0].constant() : std::nullopt;
      if (keep)
        c.set(0, t, c.fresh(rank));
      else if (count && *count > 0 && *count <= rank)
        c.set(0, t, c.fresh(rank - *count));
      else
        c.set_unranked(0, t);
      return {};
    }
    axes = AI_VMM_TAKE(c.axes(ref::ints(*known), rank));
  }
  bool all = axes.empty() && !noop;
  std::vector<Dim> dims;
  for (int64_t i = 0; i < rank; ++i) {
    if (!all && !std::binary_search(axes.begin(), axes.end(), i))
      dims.push_back(c.dims(0)[size_t(i)]);
    else if (keep)
      dims.emplace_back(1);
  }
  c.set(0, t, std::move(dims));
  // The product of a shape is a size.
  if (auto v = c.ints(0); v && rank == 1 && (all || !axes.empty())) {
    const std::string& op = c.node.op;
    if (op != "ReduceProd" && op != "ReduceSum" && op != "ReduceMax" && op != "ReduceMin") return {};
    if (v->empty() && op != "ReduceProd" && op != "ReduceSum") return {};
    Dim r = v->empty() ? Dim(op == "ReduceProd") : (*v)[0];
    for (size_t i = 1; i < v->size(); ++i) {
      const Dim& x = (*v)[i];
      r = op == "ReduceProd" ? r * x : op == "ReduceSum" ? r + x : op == "ReduceMax" ? max(r, x) : min(r, x);
    }
    c.set_ints(0, {r});
  }
  return {};
}

// Where each element of input 0 goes.
struct Groups {
  Shape shape;       // of the output
  Shape strides;     // over the input's index: 0 along reduced axes
  int64_t size = 1;  // elements of one group
};

Result<Groups> groups_of(const Eval& e) {
  const Shape& x = e.in(0).shape();
  int64_t rank = e.in(0).rank();
  bool keep = e.node.i("keepdims", 1) != 0;
  std::vector<int64_t> axes;
  if (e.has(1)) axes = ref::ints(e.in(1));
  std::vector<bool> reduced(x.size(), axes.empty() && e.node.i("noop_with_empty_axes") == 0);
  for (int64_t a : axes) {
    a = AI_VMM_TAKE(e.axis(a, rank));
    if (reduced[size_t(a)]) return e.error("axis " + std::to_string(a) + " is named twice.");
    reduced[size_t(a)] = true;
  }
  Groups g;
  Shape kept = x;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!reduced[i]) {
      g.shape.push_back(x[i]);
      continue;
    }
    g.size *= x[i];
    kept[i] = 1;
    if (keep) g.shape.push_back(1);
  }
  g.strides = ref::broadcast_strides(kept, x);
  for (size_t i = 0; i < x.size(); ++i)
    if (reduced[i]) g.strides[i] = 0;
  return g;
}

template <class Rule>
Status eval_reduce(Eval& e) {
  const Tensor& x = e.in(0);
  Groups g = AI_VMM_TAKE(groups_of(e));
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), g.shape));
  return ref::dispatch_real(e, x.dtype(), [&]<class T>() -> Status {
    auto [lowest, highest] = ends<T>(x.dtype());
    auto v = ref::load<T>(x);
    std::vector<T> r(size_t(y->count()), Rule::start(lowest, highest));
    size_t k = 0;
    for (ref::Index i(x.shape()); i.more(); i.next(), ++k) {
      T& a = r[size_t(i.offset(g.strides))];
      a = Rule::step(a, v[k]);
    }
    for (T& a : r) a = Rule::finish(a, g.size);
    ref::store<T>(*y, r);
    return {};
  });
}

// log(sum(exp(x - m))) + m with m the greatest element, so that exp never overflows.
Status eval_log_sum_exp(Eval& e) {
  const Tensor& x = e.in(0);
  Groups g = AI_VMM_TAKE(groups_of(e));
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), g.shape));
  auto v = ref::load<double>(x);
  size_t count = size_t(y->count());
  std::vector<double> greatest(count, -std::numeric_limits<double>::infinity()), sum(count, 0);
  size_t k = 0;
  for (ref::Index i(x.shape()); i.more(); i.next(), ++k) {
    double& m = greatest[size_t(i.offset(g.strides))];
    m = larger(m, v[k]);
  }
  for (double& m : greatest)
    if (std::isinf(m)) m = 0;
  k = 0;
  for (ref::Index i(x.shape()); i.more(); i.next(), ++k) {
    size_t to = size_t(i.offset(g.strides));
    sum[to] += std::exp(v[k] - greatest[to]);
  }
  for (size_t i = 0; i < count; ++i) sum[i] = std::log(sum[i]) + greatest[i];
  ref::store(*y, sum);
  return {};
}

template <int Flops>
Cost cost(const CostQuery& q) {
  return {.flops = Flops * q.elements_in(0)};
}

// ---------------------------------------------------------------- ArgMax, ArgMin

Status infer_arg(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, DType::i64);
    return {};
  }
  int64_t axis = c.node.i("axis");
  if (c.rank(0) == 0 && (axis == 0 || axis == -1)) {
    c.set(0, DType::i64, {});
    return {};
  }
  axis = AI_VMM_TAKE(c.axis(axis, c.rank(0)));
  auto dims = c.dims(0);
  if (c.node.i("keepdims", 1))
    dims[size_t(axis)] = 1;
  else
    dims.erase(dims.begin() + axis);
  c.set(0, DType::i64, std::move(dims));
  return {};
}

// `better(x, y)`: x is to be preferred to y. A NaN is preferred to every number.
template <class Better>
Status eval_arg(Eval& e, Better better) {
  const Tensor& x = e.in(0);
  int64_t axis = e.node.i("axis");
  bool last = e.node.i("select_last_index") != 0;
  int64_t outer = 1, n = 1, inner = 1;
  Shape shape = x.shape();
  if (x.rank() > 0 || (axis != 0 && axis != -1)) {
    axis = AI_VMM_TAKE(e.axis(axis, x.rank()));
    n = shape[size_t(axis)];
    for (int64_t i = 0; i < x.rank(); ++i)
      if (i != axis) (i < axis ? outer : inner) *= shape[size_t(i)];
    if (e.node.i("keepdims", 1))
      shape[size_t(axis)] = 1;
    else
      shape.erase(shape.begin() + axis);
  }
  if (n == 0 && outer * inner > 0) return e.error("an axis of size 0 has no greatest or least element.");
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::i64, shape));
  auto indices = y->as_mutable<int64_t>();
  return ref::dispatch_real(e, x.dtype(), [&]<class T>() -> Status {
    auto v = ref::load<T>(x);
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t i = 0; i < inner; ++i) {
        int64_t found = 0;
        for (int64_t k = 1; k < n; ++k) {
          T candidate = v[size_t((o * n + k) * inner + i)], best = v[size_t((o * n + found) * inner + i)];
          bool both_nan = candidate != candidate && best != best;
          bool wins = best == best && (candidate != candidate || better(candidate, best));
          if (wins || (last && (candidate == best || both_nan))) found = k;
        }
        indices[size_t(o * inner + i)] = found;
      }
    return {};
  });
}
Status eval_arg_max(Eval& e) {
  return eval_arg(e, [](auto x, auto y) { return x > y; });
}
Status eval_arg_min(Eval& e) {
  return eval_arg(e, [](auto x, auto y) { return x < y; });
}

#define REDUCE_SIGNATURE(types) "data:T, axes:i64? -> reduced:T | T: " types
constexpr const char* kReduceAttributes = "noop_with_empty_axes:int=0, keepdims:int=1";
constexpr const char* kArgAttributes = "select_last_index:int=0, keepdims:int=1, axis:int=0";

const OpDef kOps[] = {
#define REDUCE(name, flops, types, start, step, finish, meaning)                                  \
  {#name,                                                                                         \
   "",                                                                                            \
   18,                                                                                            \
   REDUCE_SIGNATURE(types),                                                                       \
   kReduceAttributes,                                                                             \
   meaning " Over the given axes, over all without any, or over none with noop_with_empty_axes.", \
   kReduces,                                                                                      \
   infer_reduce,                                                                                  \
   cost<flops>,                                                                                   \
   eval_reduce<rule::name>},
#include "ops/reduce.def"
    {"ReduceLogSumExp", "", 28, REDUCE_SIGNATURE("float"), kReduceAttributes,
     "Logarithm of the sum of exponentials, without overflow; minus infinity of nothing. Over the given axes, over all "
     "without any, or over none with noop_with_empty_axes.",
     kReduces, infer_reduce, cost<12>, eval_log_sum_exp},
    {"ArgMax", "", 13, "data:T -> reduced:i64 | T: numeric", kArgAttributes,
     "Index of the greatest element along an axis: of equal ones the first, or the last with select_last_index. NaN is "
     "the greatest.",
     kReduces, infer_arg, nullptr, eval_arg_max},
    {"ArgMin", "", 13, "data:T -> reduced:i64 | T: numeric", kArgAttributes,
     "Index of the least element along an axis: of equal ones the first, or the last with select_last_index. NaN is "
     "the "
     "least.",
     kReduces, infer_arg, nullptr, eval_arg_min},
};

}  // namespace

std::span<const OpDef> reduce_ops() { return kOps; }

}  // namespace ai_vmm
