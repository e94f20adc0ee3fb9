// The shape rule and the loops of a batched matrix product, shared by MatMul and its quantised kin.
#pragma once

#include "ops/ref.hpp"
#include "ops/rules.hpp"

namespace ai_vmm {

// Dims of numpy.matmul(a, b); fails where they cannot fit.
Result<std::vector<Dim>> matmul_output(const Infer& c, std::vector<Dim> a, std::vector<Dim> b);
// Output 0 gets the element type `dtype` and the shape of the product of inputs a and b.
Status infer_matmul(Infer& c, DType dtype, size_t a, size_t b);

// A product [batch…, m, k] × [batch…, k, n], the batch axes broadcast.
struct MatMulPlan {
  Shape output;
  int64_t m, k, n;
  Shape batch, a_strides, b_strides;  // strides over `batch`, in elements
};
Result<MatMulPlan> plan_matmul(const Eval& e, Shape a, Shape b);

template <class T>
T multiply_add(T sum, T x, T y) {
  if constexpr (std::is_integral_v<T>)
    return rules::i_add(sum, rules::i_mul(x, y));
  else
    return sum + x * y;
}

// y [m, n] = a [m, k] × b [k, n], all dense.
template <class T>
void multiply(const T* a, const T* b, T* y, int64_t m, int64_t k, int64_t n) {
  for (int64_t i = 0; i < m; ++i) {
    T* row = y + i * n;
    for (int64_t j = 0; j < n; ++j) row[j] = T(0);
    for (int64_t p = 0; p < k; ++p)
      for (int64_t j = 0; j < n; ++j) row[j] = multiply_add(row[j], a[i * k + p], b[p * n + j]);
  }
}

template <class T>
std::vector<T> multiply(const MatMulPlan& plan, const std::vector<T>& a, const std::vector<T>& b) {
  std::vector<T> y(size_t(ref::product(plan.output)));
  if (y.empty()) return y;
  T* to = y.data();
  for (ref::Index i(plan.batch); i.more(); i.next(), to += plan.m * plan.n)
    multiply(a.data() + i.offset(plan.a_strides), b.data() + i.offset(plan.b_strides), to, plan.m, plan.k, plan.n);
  return y;
}

Cost matmul_cost(const CostQuery& q, size_t a);

}  // namespace ai_vmm
