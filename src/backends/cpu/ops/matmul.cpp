// Matrix products: MatMul, Gemm and what fusion makes of them, on packed panels (kernels/gemm.cpp).
//
// Operands may be read and the result written through a permutation of their axes ("perm_a", "perm_b", "perm_c" of
// domain "cpu"), so that transposes around a product cost nothing.
#include <algorithm>
#include <numeric>

#include "backends/cpu/act.hpp"
#include "backends/cpu/kernels/kernels.hpp"

namespace ai_vmm::cpu {

namespace {

struct Product {
  bool trans_a = false, trans_b = false;
  std::vector<int64_t> perm_a, perm_b, perm_c;
  float alpha = 1;
  Activation act;
  int bias = -1, residual = -1;        // input numbers
  std::shared_ptr<const void> packed;  // B, where constant: one matrix after another
  bool wide = false;                   // a Gemm: C may be any broadcast
};

// How an operand is walked: strides of the batch axes (0 where broadcast), of rows and of columns.
struct Walk {
  Shape batch_dims, batch;
  int64_t rows = 1, columns = 1, row = 0, col = 0;
};

Walk walk(Shape dims, const std::vector<int64_t>& perm, bool transposed, bool vector_as_row) {
  Shape strides = strides_of(dims);
  if (!perm.empty()) {
    Shape d, s;
    for (int64_t p : perm) d.push_back(dims[size_t(p)]), s.push_back(strides[size_t(p)]);
    dims = d, strides = s;
  }
  if (dims.size() == 1) {
    dims.insert(vector_as_row ? dims.begin() : dims.end(), 1);
    strides.insert(vector_as_row ? strides.begin() : strides.end(), 0);
  }
  Walk w;
  size_t r = dims.size();
  w.rows = dims[r - 2], w.columns = dims[r - 1], w.row = strides[r - 2], w.col = strides[r - 1];
  if (transposed) std::swap(w.rows, w.columns), std::swap(w.row, w.col);
  w.batch_dims.assign(dims.begin(), dims.end() - 2);
  w.batch.assign(strides.begin(), strides.end() - 2);
  return w;
}

struct Offsets3 {
  std::vector<int64_t> a, b, c;  // elements, one a batch
};

// Work of one thread below which waking another does not pay, in operations.
constexpr double kWorth = 4e5;

struct Task {
  Gemm g;
  Offsets3 at;
  int64_t batches, panels;
  int nr, mr;
  int64_t pack_size = 0;  // floats of one packed B, when packed at run time
  bool pack_b = false, direct = false, rows_first = false;
  int64_t b_row, b_col;
  std::shared_ptr<const void> packed;
  bool b_per_batch = false;  // several packed matrices
  int bias, residual;
  int threads;
  int64_t work = 0;  // floats of scratch a thread
};

// Scratch of a thread: gemm_scratch() floats, then (packed at run time) B.
Status run_product(const Task& t, Run& r) {
  const Kernels& k = kernels();
  const float *a = r.in<float>(0), *b = r.in<float>(1);
  float* c = r.out<float>(0);
  Gemm base = t.g;
  base.bias = t.bias >= 0 ? r.in<float>(size_t(t.bias)) : nullptr;
  const float* residual = t.residual >= 0 ? r.in<float>(size_t(t.residual)) : nullptr;
  int threads = std::min(t.threads, r.threads);
  auto* scratch = reinterpret_cast<float*>(r.scratch);
  // One batch, or a share of its rows or panels.
  auto one = [&](int64_t i, int64_t r0, int64_t r1, int64_t p0, int64_t p1, float* work, float* packed) {
    Gemm g = base;
    g.a = a + t.at.a[size_t(i)];
    g.c = c + t.at.c[size_t(i)];
    g.residual = residual ? residual + t.at.c[size_t(i)] : nullptr;
    if (t.direct) {
      int64_t last = std::min(g.n, p1 * t.nr);
      for (int64_t row = r0; row < r1; ++row)
        k.gemv(g.k, g.a + row * g.a_row, g.a_col, b + t.at.b[size_t(i)], t.b_row, t.b_col, g.c + row * g.c_row, g.alpha,
               p0 * t.nr, last);
      return;
    }
    if (t.pack_b) {
      k.gemm_pack(g.k, g.n, b + t.at.b[size_t(i)], t.b_row, t.b_col, packed, p0, p1);
      g.b = packed;
    } else {
      g.b = static_cast<const float*>(t.packed.get()) + t.at.b[size_t(i)];
    }
    k.gemm_run(&g, r0, r1, p0, p1, work);
  };
  if (t.batches >= threads && (t.batches > 1 || threads == 1)) {
    parallel(threads, t.batches, 1, [&](int64_t first, int64_t last) {
      float* work = scratch + worker_index * t.work;
      for (int64_t i = first; i < last; ++i) one(i, 0, base.m, 0, t.panels, work, work + k.gemm_scratch());
    });
    return {};
  }
  for (int64_t i = 0; i < t.batches; ++i) {
    if (t.rows_first) {
      int64_t tiles = (base.m + t.mr - 1) / t.mr;
      parallel(threads, tiles, 1, [&](int64_t first, int64_t last) {
        float* work = scratch + worker_index * t.work;
        one(i, first * t.mr, std::min(base.m, last * t.mr), 0, t.panels, work, work + k.gemm_scratch());
      });
    } else {
      parallel(threads, t.panels, 1, [&](int64_t first, int64_t last) {
        float* work = scratch + worker_index * t.work;
        one(i, 0, base.m, first, last, work, work + k.gemm_scratch());
      });
    }
  }
  return {};
}

Result<Bound> bind_product(const std::shared_ptr<const Product>& p, const Bind& s) {
  Walk a = walk(s.in(0), p->perm_a, p->trans_a, true), b = walk(s.in(1), p->perm_b, p->trans_b, false);
  if (a.columns != b.rows)
    return invalid("Matrices of shapes " + ai_vmm::to_string(s.in(0)) + " and " + ai_vmm::to_string(s.in(1)) +
                   " cannot be multiplied.");
  auto t = std::make_shared<Task>();
  Gemm& g = t->g;
  g = {a.rows,    b.columns, a.columns, nullptr, a.row,     a.col,           nullptr,  nullptr,
       b.columns, p->alpha,  nullptr,   nullptr, b.columns, int(p->act.act), p->act.a, p->act.b};
  // The result's own walk: its shape, its axes permuted back, without the axes that vectors lost.
  Shape c_shape = s.out(0);
  Walk c;
  if (s.in(0).size() == 1 || s.in(1).size() == 1) {
    c.row = b.columns, c.col = 1;
    c.batch_dims.assign(c_shape.begin(), c_shape.end() - (s.in(0).size() == 1 && s.in(1).size() == 1 ? 0 : 1));
    Shape full = c.batch_dims;
    full.insert(full.end(), {a.rows, b.columns});
    Shape strides = strides_of(full);
    c.batch.assign(strides.begin(), strides.end() - 2);
  } else {
    std::vector<int64_t> inverse;
    if (!p->perm_c.empty()) {
      inverse.resize(p->perm_c.size());
      for (size_t i = 0; i < inverse.size(); ++i) inverse[size_t(p->perm_c[i])] = int64_t(i);
    }
    c = walk(c_shape, inverse, false, true);
    if (c.rows != a.rows || c.columns != b.columns)
      return invalid("A product of " + ai_vmm::to_string(s.in(0)) + " and " + ai_vmm::to_string(s.in(1)) +
                     " does not make " + ai_vmm::to_string(c_shape) + ".");
  }
  g.c_row = g.residual_row = c.row;
  size_t rank = c.batch_dims.size();
  auto fit = [&](Walk& w) {
    while (w.batch.size() < rank) w.batch.insert(w.batch.begin(), 0), w.batch_dims.insert(w.batch_dims.begin(), 1);
    for (size_t d = 0; d < rank; ++d)
      if (w.batch_dims[d] == 1) w.batch[d] = 0;
  };
  fit(a), fit(b);
  t->batches = product(c.batch_dims);
  GemmShape shape;
  kernels().gemm_shape(&shape);
  int64_t matrix = kernels().gemm_packed_size(g.k, g.n);
  // Batches of A over one B are one tall matrix where rows follow one another.
  bool one_b = std::all_of(b.batch.begin(), b.batch.end(), [](int64_t x) { return x == 0; });
  if (one_b && t->batches > 1) {
    bool tall = true;
    int64_t rows = g.m;
    for (size_t d = rank; d-- > 0;) {
      if (c.batch_dims[d] != 1) tall &= a.batch[d] == rows * a.row && c.batch[d] == rows * c.row;
      rows *= c.batch_dims[d];
    }
    if (tall) {
      g.m = rows;
      t->batches = 1;
      rank = 0;
    }
  }
  if (g.m == 0 || g.n == 0 || t->batches == 0) return Bound{[](Run&) -> Status { return {}; }};
  // Packed constants lie one after another in the order of B's own batches.
  Shape b_order(b.batch.size(), 0);
  if (p->packed) {
    int64_t step = matrix;
    for (size_t d = b.batch.size(); d-- > 0;)
      if (b.batch[d] != 0) b_order[d] = step, step *= b.batch_dims[d];
  }
  for (int64_t i = 0; i < t->batches; ++i) {
    int64_t rest = i, ao = 0, bo = 0, co = 0;
    for (size_t d = rank; d-- > 0;) {
      int64_t x = rest % c.batch_dims[d];
      rest /= c.batch_dims[d];
      ao += x * a.batch[d], bo += x * (p->packed ? b_order[d] : b.batch[d]), co += x * c.batch[d];
    }
    t->at.a.push_back(ao), t->at.b.push_back(bo), t->at.c.push_back(co);
  }
  t->panels = (g.n + shape.nr - 1) / shape.nr;
  t->nr = shape.nr, t->mr = shape.mr;
  t->b_row = b.row, t->b_col = b.col;
  t->packed = p->packed;
  t->bias = p->bias, t->residual = p->residual;
  t->direct = !p->packed && g.m <= 3 && p->bias < 0 && p->residual < 0 && p->act.act == Act::none &&
              (b.row == 1 || b.col == 1) && g.k > 0;
  t->pack_b = !p->packed && !t->direct;
  t->pack_size = t->pack_b ? matrix : 0;
  double flops = 2.0 * double(g.m) * double(g.n) * double(g.k) * double(t->batches);
  t->threads = int(std::clamp<double>(flops / kWorth, 1, s.threads));
  if (t->batches == 1) {
    t->rows_first = g.m > 2 * g.n || (g.m > g.n && !t->pack_b) || (t->panels < t->threads && g.m >= 2 * shape.mr);
    if (t->rows_first)
      t->threads = int(std::min<int64_t>(t->threads, (g.m + shape.mr - 1) / shape.mr));
    else
      t->threads = int(std::min<int64_t>(t->threads, t->panels));
  }
  t->work = (kernels().gemm_scratch() + t->pack_size + 32 + 15) / 16 * 16;
  int64_t scratch = t->work * 4 * t->threads;
  return Bound{[t](Run& r) { return run_product(*t, r); }, scratch,
               t->direct   ? "gemv"
               : p->packed ? "packed"
                           : "packs",
               flops};
}

// B packed once: every matrix of a constant of rank 2 or more.
std::shared_ptr<const void> pack_constant(const Make& m, const Tensor& b, bool transposed,
                                          const std::vector<int64_t>& perm) {
  if (m.probe || !m.pack) return nullptr;
  std::string key = "gemm" + std::to_string(int(transposed));
  for (int64_t p : perm) key += "," + std::to_string(p);
  return m.pack->get(m.key(1, key), [&](int64_t& bytes) {
    Walk w = walk(b.shape(), perm, transposed, false);
    int64_t batches = product(w.batch_dims), size = kernels().gemm_packed_size(w.rows, w.columns);
    bytes = batches * size * 4;
    auto buffer = aligned_buffer(bytes);
    auto* to = static_cast<float*>(buffer.get());
    GemmShape shape;
    kernels().gemm_shape(&shape);
    int64_t panels = (w.columns + shape.nr - 1) / shape.nr;
    for (int64_t i = 0; i < batches; ++i) {
      int64_t rest = i, offset = 0;
      for (size_t d = w.batch_dims.size(); d-- > 0;) {
        offset += rest % w.batch_dims[d] * w.batch[d];
        rest /= w.batch_dims[d];
      }
      parallel(omp_get_max_threads(), panels, std::max<int64_t>(1, 65536 / std::max<int64_t>(1, w.rows * shape.nr)),
               [&](int64_t first, int64_t last) {
                 kernels().gemm_pack(w.rows, w.columns, b.as<float>().data() + offset, w.row, w.col, to + i * size,
                                     first, last);
               });
    }
    forget(b);
    return std::shared_ptr<const void>(buffer);
  });
}

Made finish(const Make& m, std::shared_ptr<Product> p) {
  if (m.dtype(0) != DType::f32 || m.dtype(1) != DType::f32) return "only float32 has product kernels";
  if (m.rank(0) < 1 || m.rank(1) < 1) return "operands of unknown rank";
  if (const Tensor* b = m.constant(1)) p->packed = pack_constant(m, *b, p->trans_b, p->perm_b);
  uint32_t in_place = p->residual >= 0 ? 1u << p->residual : 0;
  Made made(BindFn([p](const Bind& s) { return bind_product(p, s); }));
  return std::move(made).overwrites(in_place);
}

}  // namespace

// "cpu" MatMul: inputs A, B, bias?, residual? with the attributes above.
Made make_matmul(const Make& m) {
  auto p = std::make_shared<Product>();
  if (m.node.domain == "com.microsoft") {  // FusedMatMul
    if (m.node.i("transBatchA", 0) || m.node.i("transBatchB", 0)) return "transposed batches";
    p->trans_a = m.node.i("transA", 0) && m.rank(0) > 1;
    p->trans_b = m.node.i("transB", 0) && m.rank(1) > 1;
    p->alpha = m.node.f("alpha", 1);
  } else if (m.node.domain == "cpu") {
    p->trans_a = m.node.i("transA", 0);
    p->trans_b = m.node.i("transB", 0);
    p->perm_a = m.node.ints("perm_a");
    p->perm_b = m.node.ints("perm_b");
    p->perm_c = m.node.ints("perm_c");
    p->alpha = m.node.f("alpha", 1);
    p->act = *activation_of(m.node);
    if (m.has(2)) p->bias = 2;
    if (m.has(3)) p->residual = 3;
  }
  return finish(m, p);
}

Made make_gemm(const Make& m) {
  auto p = std::make_shared<Product>();
  p->trans_a = m.node.i("transA", 0);
  p->trans_b = m.node.i("transB", 0);
  p->alpha = m.node.f("alpha", 1);
  auto act = activation_of(m.node);
  if (!act) return "an unknown activation";
  p->act = *act;
  if (m.has(2)) {
    if (m.node.f("beta", 1) != 1) return "beta other than 1";
    if (!m.out_type(0).ranked || !m.type(2).ranked) return "operands of unknown rank";
    const auto &c = m.type(2).dims, &y = m.out_type(0).dims;
    auto same = [](const Dim& d, const Dim& e) { return d == e; };
    if (c.size() == 2 && same(c[0], y[0]) && same(c[1], y[1]) && !c[0].is(1))
      p->residual = 2;
    else if (!c.empty() && same(c.back(), y[1]) && (c.size() == 1 || c[0].is(1)))
      p->bias = 2;
    else
      return "a C that is neither a row nor the size of the result";
    if (p->residual >= 0 && p->alpha != 1) return "alpha beside a matrix C";
  }
  return finish(m, p);
}

}  // namespace ai_vmm::cpu
