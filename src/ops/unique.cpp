// Unique: the distinct elements, or slices, of a tensor.
#include <algorithm>
#include <numeric>

#include "ops/all_ops.hpp"
#include "ops/move.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

Status infer_unique(Infer& c) {
  Dim n = c.fresh();
  if (!c.node.has("axis")) {
    c.set(0, c.dtype(0), {n});
  } else if (c.ranked(0)) {
    std::vector<Dim> dims = c.dims(0);
    int64_t axis = AI_VMM_TAKE(c.axis(c.node.i("axis"), c.rank(0)));
    c.set(2, DType::i64, {dims[size_t(axis)]});
    dims[size_t(axis)] = n;
    c.set(0, c.dtype(0), std::move(dims));
  } else {
    c.set_unranked(0, c.dtype(0));
    c.set(2, DType::i64, {c.fresh()});
  }
  c.set(1, DType::i64, {n});
  if (!c.node.has("axis")) c.set(2, DType::i64, {c.ranked(0) ? product(c.dims(0)) : c.fresh()});
  c.set(3, DType::i64, {n});
  return {};
}

// -1, 0, 1; a NaN equals a NaN and is greater than every number.
template <class T>
int compare(const T& a, const T& b) {
  if constexpr (std::is_same_v<T, ref::Complex>) {
    if (int c = compare(a.real(), b.real())) return c;
    return compare(a.imag(), b.imag());
  } else {
    if (a < b) return -1;
    if (b < a) return 1;
    return int(a != a) - int(b != b);
  }
}

Status eval_unique(Eval& e) {
  const Tensor& x = e.in(0);
  int64_t axis = 0;
  Shape shape{x.count()};
  if (e.node.has("axis")) {
    axis = AI_VMM_TAKE(e.axis(e.node.i("axis"), x.rank()));
    shape = x.shape();
  }
  auto s = std::span<const int64_t>(shape);
  int64_t outer = ref::product(s.subspan(0, size_t(axis))), size = shape[size_t(axis)],
          inner = ref::product(s.subspan(size_t(axis) + 1));
  std::vector<int64_t> order(static_cast<size_t>(size)), group(order.size()), first, counts;
  std::iota(order.begin(), order.end(), 0);
  AI_VMM_TRY(ref::dispatch(x.dtype(), [&]<class T>() -> Status {
    auto v = ref::load<T>(x);
    auto compare_slices = [&](int64_t a, int64_t b) {
      for (int64_t o = 0; o < outer; ++o)
        for (int64_t i = 0; i < inner; ++i)
          if (int c = compare(v[size_t((o * size + a) * inner + i)], v[size_t((o * size + b) * inner + i)])) return c;
      return 0;
    };
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return compare_slices(a, b) < 0; });
    for (size_t k = 0; k < order.size(); ++k) {
      if (k == 0 || compare_slices(order[k - 1], order[k]) != 0) {
        first.push_back(order[k]);
        counts.push_back(0);
      }
      ++counts.back();
      group[size_t(order[k])] = int64_t(first.size()) - 1;
    }
    return {};
  }));
  if (e.node.i("sorted", 1) == 0) {  // in the order of first occurrence
    std::vector<int64_t> by_first(first.size()), rank(first.size());
    std::iota(by_first.begin(), by_first.end(), 0);
    std::sort(by_first.begin(), by_first.end(),
              [&](int64_t a, int64_t b) { return first[size_t(a)] < first[size_t(b)]; });
    auto old_first = first, old_counts = counts;
    for (size_t k = 0; k < by_first.size(); ++k) {
      first[k] = old_first[size_t(by_first[k])];
      counts[k] = old_counts[size_t(by_first[k])];
      rank[size_t(by_first[k])] = int64_t(k);
    }
    for (int64_t& g : group) g = rank[size_t(g)];
  }
  int64_t n = int64_t(first.size());
  shape[size_t(axis)] = n;
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  for (int64_t k = 0; k < n; ++k)
    copy_view(*y, {k * inner, {n * inner, 1}}, x, {first[size_t(k)] * inner, {size * inner, 1}}, {outer, inner});
  const std::vector<int64_t>* lists[] = {&first, &group, &counts};
  for (size_t k = 1; k <= 3; ++k) {
    if (!e.wants(k)) continue;
    Tensor* t = AI_VMM_TAKE(e.make(k, DType::i64, {int64_t(lists[k - 1]->size())}));
    std::copy(lists[k - 1]->begin(), lists[k - 1]->end(), t->as_mutable<int64_t>().begin());
  }
  return {};
}

Cost cost_unique(const CostQuery& q) {
  double n = q.elements_in(0);
  return {.flops = n * std::log2(n + 2)};
}

const OpDef kOps[] = {
    {"Unique", "", 28, "X:T -> Y:T, indices:i64?, inverse_indices:i64?, counts:i64? | T: tensor",
     "axis:int, sorted:int=1",
     "The distinct elements of the flattened input, or the distinct slices along an axis, ascending or in the order of "
     "their first occurrence; also where each occurs first, "
     "which one each input element is, and how often each occurs.",
     kDataDependent, infer_unique, cost_unique, eval_unique},
};

}  // namespace

std::span<const OpDef> unique_ops() { return kOps; }

}  // namespace ai_vmm
