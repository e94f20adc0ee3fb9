// Pools over sliding windows and over whole images, MaxUnpool, and ONNX Runtime's NhwcMaxPool.

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/ref.hpp"
#include "ops/window.hpp"

namespace ai_vmm {

namespace {

// An image batch [N, C, spatial…], or [N, spatial…, C] when `last` is set.
struct Layout {
  bool last;
  size_t axis(size_t i) const { return i + (last ? 1 : 2); }  // dimension of spatial axis i
  size_t channel(size_t rank) const { return last ? rank - 1 : 1; }
};

Status infer_pool(Infer& c, Layout layout) {
  if (!c.ranked(0)) {
    size_t rank = c.node.ints("kernel_shape").size() + 2;
    c.set(0, c.dtype(0), c.fresh(int64_t(rank)));
    c.set(1, DType::i64, infer_output_type(c, 0).dims);
    return {};
  }
  std::vector<Dim> y = c.dims(0);
  if (y.size() < 2) return c.error("an input of rank " + std::to_string(y.size()) + " has no channels.");
  Window w = AI_VMM_TAKE(pool_window(c.node, y.size() - 2));
  for (size_t i = 0; i < w.axes(); ++i) {
    Dim& d = y[layout.axis(i)];
    d = w.output(i, d);
    if (auto n = d.constant(); n && *n < 0)
      return c.error("the kernel is larger than the padded input along spatial axis " + std::to_string(i) + ".");
  }
  c.set(0, c.dtype(0), y);
  c.set(1, DType::i64, std::move(y));
  return {};
}
Status infer_pool(Infer& c) { return infer_pool(c, {false}); }

// Calls visit(image, position, inside, counted) for every window: `image` numbers (n, channel), `position` the output
// position, `inside` lists the flat spatial offsets of the taps that lie in the image, `counted` the taps that lie in
// the image or its pads (a window of ceil_mode may reach beyond both).
template <class F>
void for_each_window(const Window& w, const Shape& in, const Shape& out, int64_t images, F visit) {
  size_t n = w.axes();
  Shape strides = ref::strides_of(in);
  std::vector<int64_t> inside, wider;
  int64_t position = 0;
  for (ref::Index p(out); p.more(); p.next(), ++position) {
    inside.assign(1, 0);
    int64_t counted = 1;
    for (size_t i = 0; i < n; ++i) {
      int64_t start = p[i] * w.strides[i] - w.before(i, in[i]), reach = 0;
      // Under SAME no window reaches beyond the pads, which then are just large enough.
      int64_t end = w.auto_pad == Window::Auto::notset ? in[i] + w.pads[n + i] : std::numeric_limits<int64_t>::max();
      wider.clear();
      for (int64_t k = 0; k < w.kernel[i]; ++k) {
        int64_t x = start + k * w.dilations[i];
        reach += x < end;
        if (x < 0 || x >= in[i]) continue;
        for (int64_t base : inside) wider.push_back(base + x * strides[i]);
      }
      counted *= reach;
      // `wider` is ordered by the newest axis first; the order of taps matters only for ties, which want row-major.
      inside.swap(wider);
    }
    std::sort(inside.begin(), inside.end());
    for (int64_t image = 0; image < images; ++image) visit(image, position, inside, counted);
  }
}

struct PoolShapes {
  Window window;
  Shape in, out, result;  // spatial sizes of input and output; the output's shape
  int64_t images = 0, in_size = 0, out_size = 0;
};

Result<PoolShapes> pool_shapes(const Eval& e, Layout layout) {
  const Tensor& x = e.in(0);
  if (x.rank() < 2) return e.error("an input of rank " + std::to_string(x.rank()) + " has no channels.");
  PoolShapes s;
  s.window = AI_VMM_TAKE(pool_window(e.node, size_t(x.rank() - 2)));
  s.result = x.shape();
  for (size_t i = 0; i < s.window.axes(); ++i) {
    int64_t in = x.shape()[layout.axis(i)], out = *s.window.output(i, in).constant();
    if (out < 0)
      return e.error("the kernel is larger than the padded input along spatial axis " + std::to_string(i) + ".");
    s.in.push_back(in);
    s.out.push_back(out);
    s.result[layout.axis(i)] = out;
  }
  s.images = x.dim(0) * x.shape()[layout.channel(x.shape().size())];
  s.in_size = ref::product(s.in);
  s.out_size = ref::product(s.out);
  return s;
}

// ---------------------------------------------------------------- MaxPool

template <class T>
T lowest(DType type) {
  if constexpr (std::is_same_v<T, double>)
    return -INFINITY;
  else
    return is_signed_integer(type) ? std::numeric_limits<T>::min() >> (64 - bits(type)) : T(0);
}

Status eval_max_pool(Eval& e, Layout layout) {
  PoolShapes s = AI_VMM_TAKE(pool_shapes(e, layout));
  const Tensor& x = e.in(0);
  bool by_column = e.node.i("storage_order") != 0;
  int64_t channels = layout.last ? x.shape().back() : 1;
  // Row-major offset of a spatial position → its offset when the first axis runs fastest.
  Shape strides = ref::strides_of(s.in), columns(s.in.size(), 1);
  for (size_t i = 1; i < s.in.size(); ++i) columns[i] = columns[i - 1] * s.in[i - 1];
  auto index_of = [&](int64_t offset) {
    if (!by_column) return offset;
    int64_t r = 0;
    for (size_t i = 0; i < s.in.size(); ++i) r += offset / strides[i] % s.in[i] * columns[i];
    return r;
  };
  auto place = [&](int64_t image, int64_t size, int64_t offset) {
    return layout.last ? (image / channels * size + offset) * channels + image % channels : image * size + offset;
  };
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), s.result));
  Tensor* indices = nullptr;
  if (e.wants(1)) indices = AI_VMM_TAKE(e.make(1, DType::i64, s.result));
  return ref::dispatch_real(e, x.dtype(), [&]<class T>() -> Status {
    auto v = ref::load<T>(x);
    std::vector<T> best(size_t(y->count()));
    for_each_window(s.window, s.in, s.out, s.images,
                    [&](int64_t image, int64_t position, const std::vector<int64_t>& inside, int64_t) {
                      T top = lowest<T>(x.dtype());
                      int64_t at = inside.empty() ? 0 : inside[0];
                      for (int64_t i : inside) {
                        T candidate = v[size_t(place(image, s.in_size, i))];
                        if (candidate > top || candidate != candidate) top = candidate, at = i;
                      }
                      int64_t to = place(image, s.out_size, position);
                      best[size_t(to)] = top;
                      if (indices) indices->as_mutable<int64_t>()[size_t(to)] = image * s.in_size + index_of(at);
                    });
    ref::store<T>(*y, best);
    return {};
  });
}

Cost cost_pool(const CostQuery& q) {
  double taps = 1;
  for (int64_t k : q.node.ints("kernel_shape")) taps *= double(k);
  return {.flops = q.elements_out(0) * taps};
}

// ---------------------------------------------------------------- AveragePool, LpPool

Status eval_average_pool(Eval& e) {
  PoolShapes s = AI_VMM_TAKE(pool_shapes(e, {false}));
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(0).dtype(), s.result));
  bool pads_count = e.node.i("count_include_pad") != 0;
  auto x = ref::load<double>(e.in(0));
  std::vector<double> mean(size_t(y->count()));
  for_each_window(s.window, s.in, s.out, s.images,
                  [&](int64_t image, int64_t position, const std::vector<int64_t>& inside, int64_t counted) {
                    double sum = 0;
                    for (int64_t i : inside) sum += x[size_t(image * s.in_size + i)];
                    double n = double(pads_count ? counted : int64_t(inside.size()));
                    mean[size_t(image * s.out_size + position)] = n > 0 ? sum / n : 0;
                  });
  ref::store<double>(*y, mean);
  return {};
}

Result<double> norm_order(const Eval& e) {
  int64_t p = e.node.i("p", 2);
  if (p < 1) return e.error("p is " + std::to_string(p) + "; it must be positive.");
  return double(p);
}

Status eval_lp_pool(Eval& e) {
  PoolShapes s = AI_VMM_TAKE(pool_shapes(e, {false}));
  double p = AI_VMM_TAKE(norm_order(e));
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(0).dtype(), s.result));
  auto x = ref::load<double>(e.in(0));
  std::vector<double> norm(size_t(y->count()));
  for_each_window(s.window, s.in, s.out, s.images,
                  [&](int64_t image, int64_t position, const std::vector<int64_t>& inside, int64_t) {
                    double sum = 0;
                    for (int64_t i : inside) sum += std::pow(std::fabs(x[size_t(image * s.in_size + i)]), p);
                    norm[size_t(image * s.out_size + position)] = std::pow(sum, 1 / p);
                  });
  ref::store<double>(*y, norm);
  return {};
}

// ---------------------------------------------------------------- global pools

Status infer_global(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  std::vector<Dim> y = c.dims(0);
  if (y.size() < 2) return c.error("an input of rank " + std::to_string(y.size()) + " has no channels.");
  for (size_t i = 2; i < y.size(); ++i) y[i] = 1;
  c.set(0, c.dtype(0), std::move(y));
  return {};
}

// reduce(values of one image) for every image.
template <class F>
Status eval_global(Eval& e, F reduce) {
  const Tensor& x = e.in(0);
  if (x.rank() < 2) return e.error("an input of rank " + std::to_string(x.rank()) + " has no channels.");
  Shape shape(x.shape().size(), 1);
  shape[0] = x.dim(0), shape[1] = x.dim(1);
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  auto v = ref::load<double>(x);
  size_t size = y->count() ? v.size() / size_t(y->count()) : 0;
  std::vector<double> r(size_t(y->count()));
  for (size_t i = 0; i < r.size(); ++i) r[i] = reduce(std::span<const double>(v).subspan(i * size, size));
  ref::store<double>(*y, r);
  return {};
}

Status eval_global_average(Eval& e) {
  return eval_global(e, [](std::span<const double> v) {
    double sum = 0;
    for (double x : v) sum += x;
    return sum / double(v.size());
  });
}
Status eval_global_max(Eval& e) {
  return eval_global(e, [](std::span<const double> v) {
    double top = -INFINITY;
    for (double x : v)
      if (x > top || x != x) top = x;
    return top;
  });
}
Status eval_global_lp(Eval& e) {
  double p = AI_VMM_TAKE(norm_order(e));
  return eval_global(e, [p](std::span<const double> v) {
    double sum = 0;
    for (double x : v) sum += std::pow(std::fabs(x), p);
    return std::pow(sum, 1 / p);
  });
}

// ---------------------------------------------------------------- MaxUnpool

// The output size that inverts the pool, without an output_shape.
Result<std::vector<Dim>> unpooled(const Node& node, const std::vector<Dim>& x) {
  if (x.size() < 2) return node_error(node, "an input of rank " + std::to_string(x.size()) + " has no channels.");
  Window w = AI_VMM_TAKE(pool_window(node, x.size() - 2));
  std::vector<Dim> y = x;
  for (size_t i = 0; i < w.axes(); ++i)
    y[i + 2] = (x[i + 2] - 1) * w.strides[i] + w.kernel[i] - w.pads[i] - w.pads[w.axes() + i];
  return y;
}

Status infer_max_unpool(Infer& c) {
  size_t rank = c.node.ints("kernel_shape").size() + 2;
  if (c.has(2)) {
    auto given = c.ints(2);
    c.set(0, c.dtype(0), given && given->size() == rank ? *given : c.fresh(int64_t(rank)));
  } else if (c.ranked(0)) {
    c.set(0, c.dtype(0), AI_VMM_TAKE(unpooled(c.node, c.dims(0))));
  } else {
    c.set(0, c.dtype(0), c.fresh(int64_t(rank)));
  }
  return {};
}

Status eval_max_unpool(Eval& e) {
  const Tensor &x = e.in(0), &indices = e.in(1);
  auto dims = AI_VMM_TAKE(unpooled(e.node, to_dims(x.shape())));
  Shape natural = *constant_shape(dims), shape = e.has(2) ? ref::ints(e.in(2)) : natural;
  if (indices.shape() != x.shape())
    return e.error("indices of shape " + to_string(indices.shape()) + " do not match the input's " +
                   to_string(x.shape()) + ".");
  if (shape.size() != natural.size())
    return e.error("output_shape " + to_string(shape) + " has another rank than the input.");
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  auto total = element_count(natural);
  if (!total) return e.error("the unpooled shape " + to_string(natural) + " cannot be.");
  auto v = ref::load<double>(x);
  auto at = indices.as<int64_t>();
  std::vector<double> r(size_t(y->count()), 0.0);
  Shape from = ref::strides_of(natural), to = ref::strides_of(shape);
  // Indices count in the natural shape; a larger output_shape holds it in its corner at the origin.
  for (size_t i = 0; i < v.size(); ++i) {
    if (at[i] < 0 || at[i] >= *total)
      return e.error("index " + std::to_string(at[i]) + " is outside the output " + to_string(natural) + ".");
    int64_t offset = 0;
    for (size_t d = 0; d < shape.size(); ++d) {
      int64_t p = at[i] / from[d] % natural[d];
      if (p >= shape[d])
        return e.error("index " + std::to_string(at[i]) + " is outside output_shape " + to_string(shape) + ".");
      offset += p * to[d];
    }
    r[size_t(offset)] = v[i];
  }
  ref::store<double>(*y, r);
  return {};
}

#define POOL_ATTRIBUTES \
  "auto_pad:string=NOTSET, ceil_mode:int=0, dilations:ints, kernel_shape:ints!, pads:ints, strides:ints"
#define FLOATS "f16 f32 f64 bf16"

const OpDef kOps[] = {
    {"MaxPool", "", 22, "X:T -> Y:T, Indices:I? | T: " FLOATS " i8 u8, I: i64", POOL_ATTRIBUTES ", storage_order:int=0",
     "Largest element of each window of X [N, C, spatial...], pads left out, and optionally its flat index in X "
     "(storage_order 1: counted with the first spatial axis running fastest).",
     kNoTrait, infer_pool, cost_pool, [](Eval& e) { return eval_max_pool(e, {false}); }},
    {"AveragePool", "", 22, "X:T -> Y:T | T: " FLOATS, POOL_ATTRIBUTES ", count_include_pad:int=0",
     "Mean of each window of X [N, C, spatial...]; pads count as zeros or not at all.", kNoTrait, infer_pool, cost_pool,
     eval_average_pool},
    {"LpPool", "", 22, "X:T -> Y:T | T: " FLOATS, POOL_ATTRIBUTES ", p:int=2",
     "p-norm of each window of X [N, C, spatial...].", kNoTrait, infer_pool,
     [](const CostQuery& q) { return Cost{.flops = 2 * cost_pool(q).flops}; }, eval_lp_pool},
    {"GlobalAveragePool", "", 22, "X:T -> Y:T | T: " FLOATS, "", "Mean over all spatial axes, which become 1.",
     kReduces, infer_global, nullptr, eval_global_average},
    {"GlobalMaxPool", "", 22, "X:T -> Y:T | T: " FLOATS, "", "Largest element over all spatial axes, which become 1.",
     kReduces, infer_global, nullptr, eval_global_max},
    {"GlobalLpPool", "", 22, "X:T -> Y:T | T: " FLOATS, "p:int=2", "p-norm over all spatial axes, which become 1.",
     kReduces, infer_global, [](const CostQuery& q) { return Cost{.flops = 2 * q.elements_in(0)}; }, eval_global_lp},
    {"MaxUnpool", "", 22, "X:T1, I:T2, output_shape:T2? -> output:T1 | T1: " FLOATS ", T2: i64",
     "kernel_shape:ints!, pads:ints, strides:ints",
     "Writes each element of X at its index (as MaxPool gave it) into a tensor of zeros.", kMovesData, infer_max_unpool,
     nullptr, eval_max_unpool},
    {"NhwcMaxPool", "com.microsoft", 1, "x:T -> y:T | T: i8 u8", POOL_ATTRIBUTES, "MaxPool of X [N, spatial..., C].",
     kNoTrait, [](Infer& c) { return infer_pool(c, {true}); }, cost_pool,
     [](Eval& e) { return eval_max_pool(e, {true}); }},
};

}  // namespace

std::span<const OpDef> pooling_ops() { return kOps; }

}  // namespace ai_vmm
