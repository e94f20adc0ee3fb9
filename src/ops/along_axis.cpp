// Operators along one axis: Softmax, LogSoftmax, Hardmax, CumSum, CumProd, TopK.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/ref.hpp"
#include "ops/rules.hpp"

namespace ai_vmm {

namespace {

// A tensor as [outer, n, inner] about one axis.
struct AxisView {
  int64_t outer = 1, n = 1, inner = 1;
  AxisView(const Shape& shape, int64_t axis) {
    for (size_t i = 0; i < shape.size(); ++i) (int64_t(i) < axis ? outer : int64_t(i) > axis ? inner : n) *= shape[i];
  }
  size_t at(int64_t o, int64_t k, int64_t i) const { return size_t((o * n + k) * inner + i); }
};

// A scalar counts as one row of one element.
template <class Axes>
Result<int64_t> axis_or_scalar(const Axes& c, int64_t axis, int64_t rank) {
  if (rank == 0 && (axis == 0 || axis == -1)) return int64_t(0);
  return c.axis(axis, rank);
}

Status infer_along_axis(Infer& c) {
  if (c.ranked(0)) AI_VMM_TRY(axis_or_scalar(c, c.node.i("axis", -1), c.rank(0)).status().copy());
  c.set(0, c.type(0));
  return {};
}

// Calls f(row, n) for every row along the axis; f rewrites the row in place.
template <class F>
Status each_row(Eval& e, F f) {
  const Tensor& x = e.in(0);
  int64_t axis = AI_VMM_TAKE(axis_or_scalar(e, e.node.i("axis", -1), x.rank()));
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  auto v = ref::load<double>(x);
  AxisView a(x.shape(), axis);
  std::vector<double> row(size_t(a.n), 0);
  for (int64_t o = 0; o < a.outer; ++o)
    for (int64_t i = 0; i < a.inner; ++i) {
      for (int64_t k = 0; k < a.n; ++k) row[size_t(k)] = v[a.at(o, k, i)];
      f(row);
      for (int64_t k = 0; k < a.n; ++k) v[a.at(o, k, i)] = row[size_t(k)];
    }
  ref::store(*y, v);
  return {};
}

double greatest(const std::vector<double>& row) {
  double m = -std::numeric_limits<double>::infinity();
  for (double x : row) m = x > m ? x : m;
  return m;
}

Status eval_softmax(Eval& e) {
  return each_row(e, [](std::vector<double>& row) {
    double m = greatest(row), sum = 0;
    for (double& x : row) sum += x = std::exp(x - m);
    for (double& x : row) x /= sum;
  });
}
Status eval_log_softmax(Eval& e) {
  return each_row(e, [](std::vector<double>& row) {
    double m = greatest(row), sum = 0;
    for (double x : row) sum += std::exp(x - m);
    for (double& x : row) x = x - m - std::log(sum);
  });
}
Status eval_hardmax(Eval& e) {
  return each_row(e, [](std::vector<double>& row) {
    auto best = std::max_element(row.begin(), row.end());
    std::fill(row.begin(), best, 0);
    if (best == row.end()) return;
    *best = 1;
    std::fill(best + 1, row.end(), 0);
  });
}
Cost cost_softmax(const CostQuery& q) { return {.flops = 14 * q.elements_out(0)}; }

// ---------------------------------------------------------------- CumSum, CumProd

template <class Step>
Status eval_cumulative(Eval& e, int start, Step step) {
  const Tensor& x = e.in(0);
  if (e.in(1).count() != 1) return e.error("axis has shape " + to_string(e.in(1).shape()) + "; it must be a scalar.");
  int64_t axis = AI_VMM_TAKE(e.axis(ref::ints(e.in(1))[0], x.rank()));
  bool reverse = e.node.i("reverse") != 0, exclusive = e.node.i("exclusive") != 0;
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  return ref::dispatch_real(e, x.dtype(), [&]<class T>() -> Status {
    auto v = ref::load<T>(x);
    AxisView a(x.shape(), axis);
    for (int64_t o = 0; o < a.outer; ++o)
      for (int64_t i = 0; i < a.inner; ++i) {
        T sum = T(start);
        for (int64_t k = 0; k < a.n; ++k) {
          T& element = v[a.at(o, reverse ? a.n - 1 - k : k, i)];
          T before = sum;
          sum = step(sum, element);
          element = exclusive ? before : sum;
        }
      }
    ref::store<T>(*y, v);
    return {};
  });
}
Status eval_cumsum(Eval& e) {
  return eval_cumulative(e, 0, []<class T>(T x, T y) {
    if constexpr (std::is_floating_point_v<T>)
      return x + y;
    else
      return rules::i_add(x, y);
  });
}
Status eval_cumprod(Eval& e) {
  return eval_cumulative(e, 1, []<class T>(T x, T y) {
    if constexpr (std::is_floating_point_v<T>)
      return x * y;
    else
      return rules::i_mul(x, y);
  });
}
Status infer_cumulative(Infer& c) {
  c.set(0, c.type(0));
  return {};
}

// ---------------------------------------------------------------- TopK

Status infer_top_k(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    c.set_unranked(1, DType::i64);
    return {};
  }
  int64_t axis = AI_VMM_TAKE(c.axis(c.node.i("axis", -1), c.rank(0)));
  auto dims = c.dims(0);
  auto k = c.ints(1);
  if (k && k->size() == 1) {
    if (auto count = (*k)[0].constant(); count && *count < 0) return c.error("K is " + std::to_string(*count) + ".");
    dims[size_t(axis)] = (*k)[0];
  } else {
    dims[size_t(axis)] = c.fresh();
  }
  c.set(0, c.dtype(0), dims);
  c.set(1, DType::i64, std::move(dims));
  return {};
}

Status eval_top_k(Eval& e) {
  const Tensor& x = e.in(0);
  int64_t axis = AI_VMM_TAKE(e.axis(e.node.i("axis", -1), x.rank()));
  if (e.in(1).count() != 1) return e.error("K has shape " + to_string(e.in(1).shape()) + "; it must hold one number.");
  int64_t k = ref::ints(e.in(1))[0];
  AxisView a(x.shape(), axis);
  if (k < 0 || k > a.n)
    return e.error("K is " + std::to_string(k) + ", but the axis has " + std::to_string(a.n) + " elements.");
  bool largest = e.node.i("largest", 1) != 0;
  Shape shape = x.shape();
  shape[size_t(axis)] = k;
  Tensor* values = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  Tensor* indices = AI_VMM_TAKE(e.make(1, DType::i64, shape));
  auto index = indices->as_mutable<int64_t>();
  AxisView out(shape, axis);
  return ref::dispatch_real(e, x.dtype(), [&]<class T>() -> Status {
    auto v = ref::load<T>(x);
    std::vector<int64_t> order(size_t(a.n), 0);
    for (int64_t o = 0; o < a.outer; ++o)
      for (int64_t i = 0; i < a.inner; ++i) {
        std::iota(order.begin(), order.end(), 0);
        // A strict order: NaN is greater than every number, and the lower index goes first among equals.
        std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int64_t p, int64_t q) {
          T x = v[a.at(o, p, i)], y = v[a.at(o, q, i)];
          bool x_nan = x != x, y_nan = y != y;
          if (x_nan != y_nan) return x_nan == largest;
          if (!x_nan && x != y) return largest ? x > y : x < y;
          return p < q;
        });
        for (int64_t r = 0; r < k; ++r) {
          index[out.at(o, r, i)] = order[size_t(r)];
          ref::copy_element(*values, int64_t(out.at(o, r, i)), x, int64_t(a.at(o, order[size_t(r)], i)));
        }
      }
    return {};
  });
}
Cost cost_top_k(const CostQuery& q) { return {.flops = 4 * q.elements_in(0)}; }

const OpDef kOps[] = {
    {"Softmax", "", 13, "input:T -> output:T | T: float", "axis:int=-1",
     "exp(x) over its sum along the axis, with the greatest element subtracted first.", kComposite, infer_along_axis,
     cost_softmax, eval_softmax},
    {"LogSoftmax", "", 13, "input:T -> output:T | T: float", "axis:int=-1", "The logarithm of Softmax.", kComposite,
     infer_along_axis, cost_softmax, eval_log_softmax},
    {"Hardmax", "", 13, "input:T -> output:T | T: float", "axis:int=-1",
     "1 at the first greatest element along the axis, 0 elsewhere.", kNoTrait, infer_along_axis, nullptr, eval_hardmax},
    {"CumSum", "", 14, "x:T, axis:I -> y:T | T: numeric, I: i32 i64", "reverse:int=0, exclusive:int=0",
     "Running sums along an axis, from the end with reverse, without the element itself with exclusive.", kNoTrait,
     infer_cumulative, nullptr, eval_cumsum},
    {"CumProd", "", 26, "x:T, axis:I -> y:T | T: numeric, I: i32 i64", "reverse:int=0, exclusive:int=0",
     "Running products along an axis, from the end with reverse, without the element itself with exclusive.", kNoTrait,
     infer_cumulative, nullptr, eval_cumprod},
    {"TopK", "", 24, "X:T, K:i64 -> Values:T, Indices:i64 | T: numeric", "sorted:int=1, largest:int=1, axis:int=-1",
     "The K largest (or smallest) elements along an axis, in order, and their indices; among equals the lower index "
     "goes "
     "first.",
     kNoTrait, infer_top_k, cost_top_k, eval_top_k},
};

}  // namespace

std::span<const OpDef> along_axis_ops() { return kOps; }

}  // namespace ai_vmm
