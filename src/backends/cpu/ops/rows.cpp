// Softmax, normalisation over the last axes, and reductions.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/act.hpp"
#include "backends/cpu/kernels/kernels.hpp"
#include "base/numbers.hpp"

namespace ai_vmm::cpu {

namespace {

constexpr int64_t kGrain = 1 << 13;  // elements a thread

Made softmax(const Make& m, bool log) {
  if (m.dtype(0) != DType::f32) return "only float32";
  int64_t axis = m.node.i("axis", -1);
  return Made(BindFn([=](const Bind& s) -> Result<Bound> {
           const Shape& x = s.in(0);
           if (x.empty()) return invalid("Softmax of a scalar.");
           size_t a = size_t(normalise_axis(axis, int64_t(x.size())));
           int64_t outer = product(x, 0, a), n = x[a], width = product(x, a + 1, x.size());
           return Bound{[=](Run& r) -> Status {
                          const float* in = r.in<float>(0);
                          float* out = r.out<float>(0);
                          parallel(r.threads, outer, std::max<int64_t>(1, kGrain / 4 / std::max<int64_t>(1, n * width)),
                                   [&](int64_t first, int64_t last) {
                                     for (int64_t i = first; i < last; ++i)
                                       width == 1
                                           ? kernels().softmax_row(in + i * n, nullptr, 1.0f, out + i * n, n, log)
                                           : kernels().softmax_columns(in + i * n * width, out + i * n * width, n,
                                                                       width, log);
                                   });
                          return {};
                        },
                        0, width == 1 ? "rows" : "columns", 10.0 * double(product(x))};
         }))
      .overwrites(1);
}

struct Norm {
  int scale = -1, bias = -1, add = -1, add_bias = -1;  // input numbers
  int mean = -1, inverse = -1, sum = -1;               // output numbers
  float eps;
  bool rms;
  int64_t axis;
};

Made norm(const Make& m, Norm p) {
  if (m.dtype(0) != DType::f32) return "only float32";
  for (int k : {p.scale, p.bias})
    if (k >= 0 && m.has(size_t(k)) && m.dtype(size_t(k)) != DType::f32) return "only float32";
  auto given = [&](int& k) {
    if (k >= 0 && !m.has(size_t(k))) k = -1;
  };
  given(p.scale), given(p.bias), given(p.add), given(p.add_bias);
  auto wanted = [&](int& k) {
    if (k >= 0 && !m.has_out(size_t(k))) k = -1;
  };
  wanted(p.mean), wanted(p.inverse), wanted(p.sum);
  if (p.add_bias >= 0) return "a bias before the sum";
  return Made(BindFn([p](const Bind& s) -> Result<Bound> {
           const Shape& x = s.in(0);
           size_t a = size_t(normalise_axis(p.axis, int64_t(x.size())));
           int64_t rows = product(x, 0, a), n = product(x, a, x.size());
           for (int k : {p.scale, p.bias})
             if (k >= 0 && product(s.in(size_t(k))) != n)
               return invalid("A scale of shape " + ai_vmm::to_string(s.in(size_t(k))) + " for rows of " +
                              std::to_string(n) + " elements.");
           int64_t added = p.add >= 0 ? product(s.in(size_t(p.add))) : 0;
           if (p.add >= 0 && (added == 0 || (rows * n) % added != 0))
             return invalid("The skip input does not fit the input.");
           return Bound{[=](Run& r) -> Status {
                          auto in = [&](int k) { return k < 0 ? nullptr : r.in<float>(size_t(k)); };
                          auto out = [&](int k) { return k < 0 ? nullptr : r.out<float>(size_t(k)); };
                          const float *x = r.in<float>(0), *scale = in(p.scale), *bias = in(p.bias), *add = in(p.add);
                          float *y = r.out<float>(0), *mean = out(p.mean), *inverse = out(p.inverse), *sum = out(p.sum);
                          parallel(r.threads, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(n, 1)),
                                   [&](int64_t first, int64_t last) {
                                     for (int64_t i = first; i < last; ++i)
                                       kernels().norm_row(x + i * n, add ? add + i * n % added : nullptr,
                                                          sum ? sum + i * n : nullptr, scale, bias, p.eps, p.rms,
                                                          y + i * n, n, mean ? mean + i : nullptr,
                                                          inverse ? inverse + i : nullptr);
                                   });
                          return {};
                        },
                        0, "rows", 8.0 * double(rows * n)};
         }))
      .overwrites(p.add >= 0 ? 0 : 1);
}

}  // namespace

Made make_softmax(const Make& m) { return softmax(m, false); }
Made make_log_softmax(const Make& m) { return softmax(m, true); }

Made make_layer_norm(const Make& m) {
  Norm p;
  p.scale = 1, p.bias = 2, p.mean = 1, p.inverse = 2;
  p.eps = m.node.f("epsilon", 1e-5f);
  p.rms = false;
  p.axis = m.node.i("axis", -1);
  return norm(m, p);
}
Made make_rms_norm(const Make& m) {
  Norm p;
  p.scale = 1, p.inverse = m.node.op == "SimplifiedLayerNormalization" ? 1 : -1;
  p.eps = m.node.f("epsilon", 1e-5f);
  p.rms = true;
  p.axis = m.node.i("axis", -1);
  return norm(m, p);
}
Made make_skip_norm(const Make& m) {
  Norm p;
  p.rms = m.node.op == "SkipSimplifiedLayerNormalization";
  p.add = 1, p.scale = 2, p.bias = p.rms ? -1 : 3, p.add_bias = p.rms ? 3 : 4;
  p.mean = 1, p.inverse = 2, p.sum = 3;
  p.eps = m.node.f("epsilon", p.rms ? 1e-5f : 1e-12f);
  p.axis = -1;
  return norm(m, p);
}

// ---------------------------------------------------------------- reductions

namespace {

enum Kind { kSum, kMax, kMin, kProd, kSquares, kMagnitudes };

// Axes merged: alternating kept and reduced ranges.
struct Ranges {
  Shape dims;
  std::vector<char> reduced;
};
Ranges merge(const Shape& x, const std::vector<char>& reduce) {
  Ranges r;
  for (size_t d = 0; d < x.size(); ++d) {
    if (x[d] == 1) continue;
    if (!r.dims.empty() && r.reduced.back() == reduce[d])
      r.dims.back() *= x[d];
    else
      r.dims.push_back(x[d]), r.reduced.push_back(reduce[d]);
  }
  if (r.dims.empty()) r.dims.push_back(1), r.reduced.push_back(0);
  return r;
}

struct Reduction {
  Ranges ranges;
  Shape in, out;  // strides of the merged dimensions; 0 on the writing side where reduced
  int kind;
  float scale;
  int finish;  // 0 nothing, 1 square root, 2 logarithm
  int64_t out_count;

  void walk(size_t d, const float* x, float* y) const {
    int64_t n = ranges.dims[d];
    if (d + 1 == ranges.dims.size()) {
      if (ranges.reduced[d]) {
        float v = kernels().reduce_row(x, n, kind), *at = y;
        switch (kind) {
          case kMax: *at = *at != *at || v != v ? NAN : std::max(*at, v); break;
          case kMin: *at = *at != *at || v != v ? NAN : std::min(*at, v); break;
          case kProd: *at *= v; break;
          default: *at += v;
        }
      } else {
        kernels().reduce_into(y, x, n, kind);
      }
      return;
    }
    for (int64_t i = 0; i < n; ++i) walk(d + 1, x + i * in[d], y + i * out[d]);
  }
  // The part of the result that belongs to [first, last) of the outermost kept dimension.
  void run(const float* x, float* y, int threads) const {
    float start = kind == kMax ? -INFINITY : kind == kMin ? INFINITY : kind == kProd ? 1.0f : 0.0f;
    size_t kept = 0;
    while (kept < ranges.dims.size() && ranges.reduced[kept]) ++kept;
    std::fill(y, y + out_count, start);
    int64_t total = product(ranges.dims);
    auto post = [&](float* at, int64_t n) {
      if (scale != 1.0f) kernels().affine(at, scale, 0, at, n);
      if (finish == 1)
        for (int64_t i = 0; i < n; ++i) at[i] = std::sqrt(at[i]);
      if (finish == 2)
        for (int64_t i = 0; i < n; ++i) at[i] = std::log(at[i]);
    };
    if (total == 0) return post(y, out_count);
    if (kept == 0 && ranges.dims.size() > 1) {
      int64_t n = ranges.dims[0], inner = out_count / n;
      parallel(threads, n, std::max<int64_t>(1, kGrain * n / total), [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          walk(1, x + i * in[0], y + i * out[0]);
          post(y + i * out[0], inner);
        }
      });
    } else if (kept == 1 && ranges.dims.size() == 2) {
      // Columns: each thread takes a stripe.
      int64_t n = ranges.dims[0], width = ranges.dims[1];
      parallel(threads, (width + 63) / 64, std::max<int64_t>(1, kGrain / (64 * n)), [&](int64_t first, int64_t last) {
        int64_t a = first * 64, b = std::min(width, last * 64);
        for (int64_t i = 0; i < n; ++i) kernels().reduce_into(y + a, x + i * in[0] + a, b - a, kind);
        post(y + a, b - a);
      });
    } else if (kept == 0) {
      kernels().reduce_into(y, x, ranges.dims[0], kind);
      post(y, out_count);
    } else {
      walk(0, x, y);
      post(y, out_count);
    }
  }
};

Made reduce(const Make& m, int kind, bool mean, int finish) {
  if (m.dtype(0) != DType::f32) return "only float32";
  bool has_axes = m.has(1), noop = m.node.i("noop_with_empty_axes", 0);
  auto attribute = m.node.ints("axes");
  return Made(BindFn([=](const Bind& s) -> Result<Bound> {
           const Shape& x = s.in(0);
           auto axes = has_axes ? s.ints(1) : attribute;
           std::vector<char> reduced(x.size(), axes.empty() && !noop);
           for (int64_t a : axes) {
             a = normalise_axis(a, int64_t(x.size()));
             if (a < 0 || a >= int64_t(x.size())) return invalid("An axis is outside " + ai_vmm::to_string(x) + ".");
             reduced[size_t(a)] = 1;
           }
           auto r = std::make_shared<Reduction>();
           r->ranges = merge(x, reduced);
           r->in = strides_of(r->ranges.dims);
           r->out.assign(r->in.size(), 0);
           int64_t step = 1, count = 1;
           for (size_t d = r->in.size(); d-- > 0;)
             if (!r->ranges.reduced[d])
               r->out[d] = step, step *= r->ranges.dims[d];
             else
               count *= r->ranges.dims[d];
           r->kind = kind;
           r->scale = mean ? 1.0f / float(count) : 1.0f;
           r->finish = finish;
           r->out_count = product(s.out(0));
           return Bound{[r](Run& run) -> Status {
                          r->run(run.in<float>(0), run.out<float>(0), run.threads);
                          return {};
                        },
                        0, "", double(product(x))};
         }))
      .needs(2);
}

}  // namespace

Made make_reduce_sum(const Make& m) { return reduce(m, kSum, false, 0); }
Made make_reduce_mean(const Make& m) { return reduce(m, kSum, true, 0); }
Made make_reduce_max(const Make& m) { return reduce(m, kMax, false, 0); }
Made make_reduce_min(const Make& m) { return reduce(m, kMin, false, 0); }
Made make_reduce_prod(const Make& m) { return reduce(m, kProd, false, 0); }
Made make_reduce_sum_square(const Make& m) { return reduce(m, kSquares, false, 0); }
Made make_reduce_l1(const Make& m) { return reduce(m, kMagnitudes, false, 0); }
Made make_reduce_l2(const Make& m) { return reduce(m, kSquares, false, 1); }
Made make_reduce_log_sum(const Make& m) { return reduce(m, kSum, false, 2); }

// ---------------------------------------------------------------- gather

Made make_gather(const Make& m) {
  int b = bits(m.dtype(0));
  if (b % 8 || b == 0) return "packed elements";
  DType index = m.dtype(1);
  if (index != DType::i64 && index != DType::i32) return "this index type";
  int64_t axis = m.node.i("axis", 0);
  std::string label = m.node.label();
  return BindFn([=](const Bind& s) -> Result<Bound> {
    const Shape& x = s.in(0);
    size_t a = size_t(normalise_axis(axis, int64_t(x.size())));
    int64_t outer = product(x, 0, a), n = x[a], row = product(x, a + 1, x.size()) * b / 8, count = product(s.in(1));
    return Bound{[=](Run& r) -> Status {
                   auto at = [&](int64_t i) {
                     int64_t v = index == DType::i64 ? r.in<int64_t>(1)[i] : r.in<int32_t>(1)[i];
                     return v < 0 ? v + n : v;
                   };
                   for (int64_t i = 0; i < count; ++i)
                     if (at(i) < 0 || at(i) >= n)
                       return Status(Code::out_of_range, label + ": index " + std::to_string(at(i)) +
                                                             " is outside an axis of " + std::to_string(n) + ".");
                   const std::byte* from = r.in<std::byte>(0);
                   std::byte* to = r.out<std::byte>(0);
                   parallel(r.threads, outer * count, std::max<int64_t>(1, 65536 / std::max<int64_t>(row, 1)),
                            [&](int64_t first, int64_t last) {
                              for (int64_t i = first; i < last; ++i) {
                                const std::byte* src = from + (i / count * n + at(i % count)) * row;
                                if (row == 4)
                                  std::memcpy(to + i * 4, src, 4);
                                else if (row == 8)
                                  std::memcpy(to + i * 8, src, 8);
                                else
                                  std::memcpy(to + i * row, src, size_t(row));
                              }
                            });
                   return {};
                 },
                 0, "", 0};
  });
}

}  // namespace ai_vmm::cpu
