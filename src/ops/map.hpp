// Loops over broadcast elements, for reference functions of elementwise operators.
#pragma once

#include <vector>

#include "ops/ref.hpp"

namespace ai_vmm::ref {

// A domain that an elementwise rule does not have; the loops turn it into an error.
struct NotAvailable {};

template <class Out>
using StoredAs = std::conditional_t<std::is_same_v<Out, bool>, int64_t, Out>;

// Output 0 of type `out` = f(x) over input 0, read as X.
template <class X, class F>
Status map1(Eval& e, DType out, F f) {
  const Tensor& x = e.in(0);
  using Out = decltype(f(X{}));
  if constexpr (std::is_same_v<Out, NotAvailable>) {
    return e.error(std::string("element type ") + name(x.dtype()) + " is not supported.");
  } else {
    Tensor* y = AI_VMM_TAKE(e.make(0, out, x.shape()));
    auto v = load<X>(x);
    std::vector<StoredAs<Out>> w(v.size());
    for (size_t i = 0; i < v.size(); ++i) w[i] = StoredAs<Out>(f(v[i]));
    store<StoredAs<Out>>(*y, w);
    return {};
  }
}

// Output 0 of type `out` = f(x, y) over inputs 0 and 1 broadcast together, read as X and Y.
template <class X, class Y, class F>
Status map2(Eval& e, DType out, F f) {
  using Out = decltype(f(X{}, Y{}));
  if constexpr (std::is_same_v<Out, NotAvailable>) {
    return e.error(std::string("element type ") + name(e.in(0).dtype()) + " is not supported.");
  } else {
    const Tensor &a = e.in(0), &b = e.in(1);
    const Shape shapes[] = {a.shape(), b.shape()};
    Shape shape = AI_VMM_TAKE(broadcast(e, shapes));
    Tensor* y = AI_VMM_TAKE(e.make(0, out, shape));
    auto v = load<X>(a);
    auto w = load<Y>(b);
    std::vector<StoredAs<Out>> r(size_t(y->count()));
    if (a.shape() == b.shape()) {
      for (size_t i = 0; i < r.size(); ++i) r[i] = StoredAs<Out>(f(v[i], w[i]));
    } else {
      Shape sa = broadcast_strides(a.shape(), shape), sb = broadcast_strides(b.shape(), shape);
      size_t k = 0;
      for (Index i(shape); i.more(); i.next())
        r[k++] = StoredAs<Out>(f(v[size_t(i.offset(sa))], w[size_t(i.offset(sb))]));
    }
    store<StoredAs<Out>>(*y, r);
    return {};
  }
}

}  // namespace ai_vmm::ref
