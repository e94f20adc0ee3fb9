// Matrix products: MatMul, Gemm, and the determinant.

#include "ops/matmul.hpp"

#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"

namespace ai_vmm {

Result<std::vector<Dim>> matmul_output(const Infer& c, std::vector<Dim> a, std::vector<Dim> b) {
  if (a.empty() || b.empty()) return c.error("a scalar is no matrix; use Mul.");
  bool a_vector = a.size() == 1, b_vector = b.size() == 1;
  if (a_vector) a.insert(a.begin(), Dim(1));
  if (b_vector) b.emplace_back(1);
  const Dim &k = a.back(), &rows = b[b.size() - 2];
  if (known_different(k, rows))
    return c.error("the columns of A (" + k.to_string() + ") differ from the rows of B (" + rows.to_string() + ").");
  const std::vector<Dim> batches[] = {{a.begin(), a.end() - 2}, {b.begin(), b.end() - 2}};
  auto out = AI_VMM_TAKE(c.broadcast(batches));
  if (!a_vector) out.push_back(a[a.size() - 2]);
  if (!b_vector) out.push_back(b.back());
  return out;
}

Status infer_matmul(Infer& c, DType dtype, size_t a, size_t b) {
  if (!c.ranked(a) || !c.ranked(b)) {
    c.set_unranked(0, dtype);
    return {};
  }
  c.set(0, dtype, AI_VMM_TAKE(matmul_output(c, c.dims(a), c.dims(b))));
  return {};
}

Result<MatMulPlan> plan_matmul(const Eval& e, Shape a, Shape b) {
  if (a.empty() || b.empty()) return e.error("a scalar is no matrix; use Mul.");
  bool a_vector = a.size() == 1, b_vector = b.size() == 1;
  if (a_vector) a.insert(a.begin(), 1);
  if (b_vector) b.push_back(1);
  MatMulPlan p;
  p.m = a[a.size() - 2];
  p.k = a.back();
  p.n = b.back();
  if (b[b.size() - 2] != p.k)
    return e.error("the columns of A (" + std::to_string(p.k) + ") differ from the rows of B (" +
                   std::to_string(b[b.size() - 2]) + ").");
  const Shape batches[] = {{a.begin(), a.end() - 2}, {b.begin(), b.end() - 2}};
  p.batch = AI_VMM_TAKE(ref::broadcast(e, batches));
  p.a_strides = ref::broadcast_strides(batches[0], p.batch);
  p.b_strides = ref::broadcast_strides(batches[1], p.batch);
  for (int64_t& s : p.a_strides) s *= p.m * p.k;
  for (int64_t& s : p.b_strides) s *= p.k * p.n;
  p.output = p.batch;
  if (!a_vector) p.output.push_back(p.m);
  if (!b_vector) p.output.push_back(p.n);
  return p;
}

Cost matmul_cost(const CostQuery& q, size_t a) {
  Shape s = q.shape_in(a);
  return {.flops = 2 * q.elements_out(0) * (s.empty() ? 1 : double(s.back()))};
}

namespace {

Status eval_matmul(Eval& e) {
  MatMulPlan plan = AI_VMM_TAKE(plan_matmul(e, e.in(0).shape(), e.in(1).shape()));
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(0).dtype(), plan.output));
  return ref::dispatch_real(e, y->dtype(), [&]<class T>() -> Status {
    ref::store<T>(*y, multiply(plan, ref::load<T>(e.in(0)), ref::load<T>(e.in(1))));
    return {};
  });
}

// ---------------------------------------------------------------- Gemm

Status infer_gemm(Infer& c) {
  DType t = c.dtype(0);
  bool ta = c.node.i("transA") != 0, tb = c.node.i("transB") != 0;
  for (size_t k : {0, 1})
    if (c.ranked(k) && c.rank(k) != 2)
      return c.error("a matrix has rank " + std::to_string(c.rank(k)) + "; it must be 2.");
  auto dim = [&](size_t k, size_t axis) { return c.ranked(k) ? c.dims(k)[axis] : c.fresh(); };
  Dim m = dim(0, ta), n = dim(1, !tb);
  if (c.ranked(0) && c.ranked(1) && known_different(c.dims(0)[!ta], c.dims(1)[tb]))
    return c.error("the columns of A (" + c.dims(0)[!ta].to_string() + ") differ from the rows of B (" +
                   c.dims(1)[tb].to_string() + ").");
  c.set(0, t, {m, n});
  return {};
}

template <class T>
std::vector<T> transposed(const std::vector<T>& v, int64_t rows, int64_t columns) {
  std::vector<T> t(v.size());
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) t[size_t(j * rows + i)] = v[size_t(i * columns + j)];
  return t;
}

Status eval_gemm(Eval& e) {
  const Tensor &a = e.in(0), &b = e.in(1);
  if (a.rank() != 2 || b.rank() != 2)
    return e.error("shapes " + to_string(a.shape()) + " and " + to_string(b.shape()) + " are not two matrices.");
  bool ta = e.node.i("transA") != 0, tb = e.node.i("transB") != 0;
  double alpha = e.node.f("alpha", 1), beta = e.node.f("beta", 1);
  int64_t m = a.dim(ta), k = a.dim(!ta), n = b.dim(!tb);
  if (b.dim(tb) != k)
    return e.error("the columns of A (" + std::to_string(k) + ") differ from the rows of B (" +
                   std::to_string(b.dim(tb)) + ").");
  Shape shape{m, n};
  if (e.has(2)) {
    const Shape shapes[] = {e.in(2).shape(), shape};
    Shape both = AI_VMM_TAKE(ref::broadcast(e, shapes));
    if (both != shape)
      return e.error("C of shape " + to_string(e.in(2).shape()) + " does not broadcast to " + to_string(shape) + ".");
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, a.dtype(), shape));
  return ref::dispatch_real(e, a.dtype(), [&]<class T>() -> Status {
    auto va = ref::load<T>(a), vb = ref::load<T>(b);
    if (ta) va = transposed(va, k, m);
    if (tb) vb = transposed(vb, n, k);
    std::vector<T> r(size_t(m * n));
    multiply(va.data(), vb.data(), r.data(), m, k, n);
    std::vector<T> c(1, T(0));
    Shape strides(2, 0);
    if (e.has(2)) {
      c = ref::load<T>(e.in(2));
      strides = ref::broadcast_strides(e.in(2).shape(), shape);
    }
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        T &x = r[size_t(i * n + j)], z = c[size_t(i * strides[0] + j * strides[1])];
        if (alpha == 1 && (beta == 1 || !e.has(2)))
          x = multiply_add(x, T(1), z);
        else if constexpr (std::is_integral_v<T>)
          x = T(to_int64(alpha * double(x) + beta * double(z)));
        else
          x = alpha * x + beta * z;
      }
    ref::store<T>(*y, r);
    return {};
  });
}
Cost cost_gemm(const CostQuery& q) {
  Shape a = q.shape_in(0);
  double k = a.size() == 2 ? double(a[q.node.i("transA") ? 0 : 1]) : 0;
  return {.flops = 2 * q.elements_out(0) * k + (q.elements_in(2) > 0 ? q.elements_out(0) : 0)};
}

// ---------------------------------------------------------------- Det

Status infer_det(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  auto dims = c.dims(0);
  if (dims.size() < 2) return c.error("the input has rank " + std::to_string(dims.size()) + "; it must be 2 or more.");
  if (known_different(dims[dims.size() - 1], dims[dims.size() - 2])) return c.error("the matrices are not square.");
  dims.resize(dims.size() - 2);
  c.set(0, c.dtype(0), std::move(dims));
  return {};
}

// Gaussian elimination with partial pivoting; destroys the matrix.
double determinant(double* a, int64_t n) {
  double det = 1;
  for (int64_t c = 0; c < n; ++c) {
    int64_t pivot = c;
    for (int64_t r = c + 1; r < n; ++r)
      if (std::fabs(a[r * n + c]) > std::fabs(a[pivot * n + c])) pivot = r;
    if (a[pivot * n + c] == 0) return 0;
    if (pivot != c) {
      std::swap_ranges(a + pivot * n, a + pivot * n + n, a + c * n);
      det = -det;
    }
    det *= a[c * n + c];
    for (int64_t r = c + 1; r < n; ++r) {
      double f = a[r * n + c] / a[c * n + c];
      for (int64_t j = c; j < n; ++j) a[r * n + j] -= f * a[c * n + j];
    }
  }
  return det;
}

Status eval_det(Eval& e) {
  const Tensor& x = e.in(0);
  if (x.rank() < 2 || x.dim(x.rank() - 1) != x.dim(x.rank() - 2))
    return e.error("shape " + to_string(x.shape()) + " does not end in square matrices.");
  int64_t n = x.dim(x.rank() - 1);
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), Shape(x.shape().begin(), x.shape().end() - 2)));
  auto v = ref::load<double>(x);
  std::vector<double> d(size_t(y->count()));
  for (size_t i = 0; i < d.size(); ++i) d[i] = determinant(v.data() + int64_t(i) * n * n, n);
  ref::store(*y, d);
  return {};
}
Cost cost_det(const CostQuery& q) {
  Shape s = q.shape_in(0);
  return {.flops = s.empty() ? 0 : q.elements_in(0) * double(s.back()) * 2 / 3};
}

const OpDef kOps[] = {
    {"MatMul", "", 13, "A:T, B:T -> Y:T | T: numeric", "",
     "Product of matrices, with leading axes broadcast; a vector is a row on the left and a column on the right.",
     kNoTrait, [](Infer& c) { return infer_matmul(c, c.dtype(0), 0, 1); },
     [](const CostQuery& q) { return matmul_cost(q, 0); }, eval_matmul},
    {"Gemm", "", 13, "A:T, B:T, C:T? -> Y:T | T: numeric",
     "beta:float=1.0, transB:int=0, alpha:float=1.0, transA:int=0",
     "alpha * A' * B' + beta * C, where ' is a transposition if transA or transB asks for it, and C broadcasts.",
     kNoTrait, infer_gemm, cost_gemm, eval_gemm},
    {"Det", "", 22, "X:T -> Y:T | T: float", "", "Determinants of the square matrices in the last two axes.", kNoTrait,
     infer_det, cost_det, eval_det},
};

}  // namespace

std::span<const OpDef> matmul_ops() { return kOps; }

}  // namespace ai_vmm
