// Resize, GridSample and AffineGrid: reading an image between its elements.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/all_ops.hpp"
#include "ops/ref.hpp"
#include "ops/resize.hpp"

namespace ai_vmm {

namespace {

// Weights of the four neighbours at distances 1+t, t, 1-t, 2-t (Keys 1981).
void cubic_weights(double t, double a, double* w) {
  w[0] = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a;
  w[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
  w[2] = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1;
  w[3] = ((a * (2 - t) - 5 * a) * (2 - t) + 8 * a) * (2 - t) - 4 * a;
}

double cubic_kernel(double x, double a) {
  x = std::fabs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

// ---------------------------------------------------------------- Resize

// The axes that roi, scales and sizes speak of.
Result<std::vector<int64_t>> resized_axes(const Infer* c, const Eval* e, const Node& node, int64_t rank) {
  std::vector<int64_t> axes = node.ints("axes");
  if (axes.empty()) {
    axes.resize(size_t(rank));
    std::iota(axes.begin(), axes.end(), 0);
  }
  for (int64_t& a : axes) {
    if (c)
      a = AI_VMM_TAKE(c->axis(a, rank));
    else
      a = AI_VMM_TAKE(e->axis(a, rank));
  }
  std::vector<int64_t> sorted = axes;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
    return c ? c->error("an axis is named twice.") : e->error("an axis is named twice.");
  return axes;
}

// Sizes under a keep_aspect_ratio_policy: one scale for all axes, the smallest or the largest of those asked for.
void keep_aspect_ratio(const std::string& policy, const std::vector<int64_t>& in, std::vector<int64_t>& sizes,
                       double* scale) {
  bool larger = policy == "not_smaller";
  double s = larger ? 0 : INFINITY;
  for (size_t i = 0; i < in.size(); ++i) {
    double ratio = in[i] ? double(sizes[i]) / double(in[i]) : 1;
    s = larger ? std::max(s, ratio) : std::min(s, ratio);
  }
  for (size_t i = 0; i < in.size(); ++i) sizes[i] = int64_t(std::floor(s * double(in[i]) + 0.5));
  *scale = s;
}

Dim scaled(const Dim& d, float scale, Infer& c) {
  if (auto n = d.constant()) return int64_t(std::floor(float(*n) * scale));
  if (scale >= 1 && scale == std::floor(scale)) return d * int64_t(scale);
  if (float inverse = 1 / scale; inverse == std::floor(inverse)) return floor_div(d, int64_t(inverse));
  return c.fresh();
}

bool plausible(float scale) { return scale > 0 && scale < 1e9f; }

Status infer_resize(Infer& c) {
  const Tensor* scales = c.has(2) ? c.constant(2) : nullptr;
  auto sizes = c.has(3) ? c.ints(3) : std::nullopt;
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  std::vector<Dim> y = c.dims(0);
  auto axes = AI_VMM_TAKE(resized_axes(&c, nullptr, c.node, c.rank(0)));
  if (scales && scales->count() > 0 && scales->dtype() == DType::f32) {
    if (scales->count() != int64_t(axes.size()))
      return c.error("scales holds " + std::to_string(scales->count()) + " numbers for " + std::to_string(axes.size()) +
                     " axes.");
    for (size_t i = 0; i < axes.size(); ++i) {
      float s = scales->as<float>()[i];
      if (!plausible(s)) return c.error("a scale of " + std::to_string(s) + " cannot be; it must be positive.");
      y[size_t(axes[i])] = scaled(y[size_t(axes[i])], s, c);
    }
  } else if (sizes && !sizes->empty()) {
    if (sizes->size() != axes.size())
      return c.error("sizes holds " + std::to_string(sizes->size()) + " numbers for " + std::to_string(axes.size()) +
                     " axes.");
    std::string policy = c.node.s("keep_aspect_ratio_policy", "stretch");
    if (policy == "stretch") {
      for (size_t i = 0; i < axes.size(); ++i) y[size_t(axes[i])] = (*sizes)[i];
    } else {
      std::vector<Dim> of;
      for (int64_t a : axes) of.push_back(y[size_t(a)]);
      auto in = constant_shape(of), out = constant_shape(*sizes);
      double scale;
      if (in && out) keep_aspect_ratio(policy, *in, *out, &scale);
      for (size_t i = 0; i < axes.size(); ++i) y[size_t(axes[i])] = in && out ? Dim((*out)[i]) : c.fresh();
    }
  } else {
    for (int64_t a : axes) y[size_t(a)] = c.fresh();
  }
  c.set(0, c.dtype(0), std::move(y));
  return {};
}

Status resize_error(const Node& node, const std::string& what) {
  return Status(Code::invalid_argument, "The " + node.label() + ": " + what);
}

Result<double> original_coordinate(const Node& n, const std::string& mode, const ResizeAxis& a, double x) {
  double width = a.scale * double(a.in);  // of the output, not rounded
  double last = double(a.in - 1);
  if (mode == "half_pixel") return (x + 0.5) / a.scale - 0.5;
  if (mode == "asymmetric") return x / a.scale;
  if (mode == "align_corners") return width == 1 ? 0.0 : x * last / (width - 1);
  if (mode == "pytorch_half_pixel") return a.out == 1 ? 0.0 : (x + 0.5) / a.scale - 0.5;
  if (mode == "half_pixel_symmetric") return double(a.in) / 2 * (1 - double(a.out) / width) + (x + 0.5) / a.scale - 0.5;
  if (mode == "tf_crop_and_resize") {
    double length = a.roi_end - a.roi_start;
    return a.roi_start * last + (width == 1 ? length * last / 2 : x * length * last / (width - 1));
  }
  return resize_error(n, "coordinate_transformation_mode \"" + mode + "\" is not known.");
}

}  // namespace

Result<std::vector<ResizeTaps>> resize_taps(const Node& n, const ResizeAxis& a) {
  std::string mode = n.s("mode", "nearest"), coordinates = n.s("coordinate_transformation_mode", "half_pixel");
  std::string nearest = n.s("nearest_mode", "round_prefer_floor");
  bool antialias = n.i("antialias") != 0, exclude = n.i("exclude_outside") != 0;
  double cubic = n.f("cubic_coeff_a", -0.75f), stretch = antialias ? std::min(a.scale, 1.0) : 1.0;
  std::vector<ResizeTaps> all(size_t(a.out));
  for (int64_t i = 0; i < a.out; ++i) {
    ResizeTaps& t = all[size_t(i)];
    double x = AI_VMM_TAKE(original_coordinate(n, coordinates, a, double(i)));
    if (!(std::fabs(x) < 1e15)) return resize_error(n, "a coordinate is not finite; check scales and roi.");
    t.outside = coordinates == "tf_crop_and_resize" && (x < 0 || x > double(a.in - 1));
    double base = std::floor(x), ratio = x - base;
    t.start = int64_t(base);
    if (mode == "nearest") {
      if (nearest == "round_prefer_floor")
        t.start += ratio > 0.5;
      else if (nearest == "round_prefer_ceil")
        t.start += ratio >= 0.5;
      else if (nearest == "ceil")
        t.start += ratio > 0;
      else if (nearest != "floor")
        return resize_error(n, "nearest_mode \"" + nearest + "\" is not known.");
      t.weights = {1};
      continue;
    }
    if (mode != "linear" && mode != "cubic")
      return resize_error(n, "mode \"" + mode + "\" is not one of nearest, linear, cubic.");
    // The filter reaches 1 (linear) or 2 (cubic) elements of the coarser of the two grids to each side.
    double reach = (mode == "linear" ? 1 : 2) / stretch;
    int64_t first = int64_t(std::floor(-reach)) + 1;
    double sum = 0;
    for (int64_t k = first; k < 2 - first; ++k) {
      double d = (double(k) - ratio) * stretch;
      double w = mode == "linear" ? std::max(0.0, 1 - std::fabs(d)) : cubic_kernel(d, cubic);
      int64_t at = t.start + k;
      if (exclude && (at < 0 || at >= a.in)) w = 0;
      t.weights.push_back(w);
      sum += w;
    }
    if ((antialias || exclude) && sum != 0)
      for (double& w : t.weights) w /= sum;
    t.start += first;
  }
  return all;
}

namespace {

Status eval_resize(Eval& e) {
  const Tensor& x = e.in(0);
  auto axes = AI_VMM_TAKE(resized_axes(nullptr, &e, e.node, x.rank()));
  std::vector<ResizeAxis> plan(x.shape().size());
  for (size_t i = 0; i < plan.size(); ++i) plan[i].in = plan[i].out = x.shape()[i];
  bool by_scale = e.has(2) && e.in(2).count() > 0, by_size = e.has(3) && e.in(3).count() > 0;
  if (by_scale == by_size) return e.error("exactly one of scales and sizes must be given.");
  const Tensor& given = e.in(by_scale ? 2 : 3);
  if (given.count() != int64_t(axes.size()))
    return e.error(std::to_string(given.count()) + " scales or sizes are given for " + std::to_string(axes.size()) +
                   " axes.");
  if (by_scale) {
    for (size_t i = 0; i < axes.size(); ++i) {
      ResizeAxis& a = plan[size_t(axes[i])];
      float s = given.as<float>()[i];
      if (!plausible(s)) return e.error("a scale of " + std::to_string(s) + " cannot be; it must be positive.");
      a.scale = s;
      a.out = int64_t(std::floor(float(a.in) * s));
    }
  } else {
    std::vector<int64_t> sizes = ref::ints(given), in;
    for (int64_t s : sizes)
      if (s < 0) return e.error("a size of " + std::to_string(s) + " cannot be.");
    for (int64_t a : axes) in.push_back(plan[size_t(a)].in);
    std::string policy = e.node.s("keep_aspect_ratio_policy", "stretch");
    double common = 0;
    if (policy != "stretch") keep_aspect_ratio(policy, in, sizes, &common);
    for (size_t i = 0; i < axes.size(); ++i) {
      ResizeAxis& a = plan[size_t(axes[i])];
      a.out = sizes[i];
      a.scale = policy != "stretch" ? common : a.in ? double(a.out) / double(a.in) : 1;
    }
  }
  if (e.node.s("coordinate_transformation_mode") == "tf_crop_and_resize") {
    if (!e.has(1) || e.in(1).count() != 2 * int64_t(axes.size()))
      return e.error("tf_crop_and_resize needs a roi of two numbers an axis.");
    auto roi = ref::load<double>(e.in(1));
    for (size_t i = 0; i < axes.size(); ++i) {
      plan[size_t(axes[i])].roi_start = roi[i];
      plan[size_t(axes[i])].roi_end = roi[axes.size() + i];
    }
  }
  Shape shape;
  for (const ResizeAxis& a : plan) shape.push_back(a.out);
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  if (y->count() == 0) return {};
  if (x.count() == 0) return e.error("an empty input cannot be enlarged to " + to_string(shape) + ".");

  std::vector<std::vector<ResizeTaps>> taps;
  for (const ResizeAxis& a : plan) taps.push_back(AI_VMM_TAKE(resize_taps(e.node, a)));
  auto clamp = [](int64_t i, int64_t n) { return std::clamp<int64_t>(i, 0, n - 1); };
  double fill = e.node.f("extrapolation_value");

  if (e.node.s("mode", "nearest") == "nearest") {  // moves elements of any type
    Shape strides = ref::strides_of(x.shape());
    bool extrapolates = std::any_of(taps.begin(), taps.end(), [](auto& axis) {
      return std::any_of(axis.begin(), axis.end(), [](const ResizeTaps& t) { return t.outside; });
    });
    bool number = x.dtype() != DType::string && !is_complex(x.dtype());
    if (extrapolates && !number)
      return e.error(std::string("extrapolation is not defined for ") + name(x.dtype()) + ".");
    int64_t to = 0;
    for (ref::Index i(shape); i.more(); i.next(), ++to) {
      int64_t from = 0;
      bool outside = false;
      for (size_t d = 0; d < shape.size(); ++d) {
        const ResizeTaps& t = taps[d][size_t(i[d])];
        from += clamp(t.start, plan[d].in) * strides[d];
        outside |= t.outside;
      }
      if (outside)
        write_double(x.dtype(), y->mutable_data(), to, fill);
      else
        ref::copy_element(*y, to, x, from);
    }
    return {};
  }
  if (x.dtype() == DType::string || is_complex(x.dtype()))
    return e.error(std::string("element type ") + name(x.dtype()) + " cannot be interpolated.");

  // Separable: one axis after the other, each as [outer, in, inner] → [outer, out, inner].
  auto v = ref::load<double>(x);
  for (size_t d = 0; d < plan.size(); ++d) {
    const ResizeAxis& a = plan[d];
    if (a.scale == 1 && a.in == a.out && a.roi_start == 0 && a.roi_end == 1) continue;
    int64_t outer = 1, inner = 1;
    for (size_t i = 0; i < d; ++i) outer *= plan[i].out;
    for (size_t i = d + 1; i < plan.size(); ++i) inner *= plan[i].in;
    std::vector<double> w(size_t(outer * a.out * inner), 0.0);
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t i = 0; i < a.out; ++i) {
        const ResizeTaps& t = taps[d][size_t(i)];
        double* to = w.data() + (o * a.out + i) * inner;
        if (t.outside) {
          std::fill(to, to + inner, fill);
          continue;
        }
        for (size_t k = 0; k < t.weights.size(); ++k) {
          const double* from = v.data() + (o * a.in + clamp(t.start + int64_t(k), a.in)) * inner;
          if (t.weights[k] == 0) continue;
          for (int64_t j = 0; j < inner; ++j) to[j] += t.weights[k] * from[j];
        }
      }
    v = std::move(w);
  }
  if (!is_float(x.dtype())) {  // integers round to nearest even and saturate
    double low =
        x.dtype() == DType::boolean || !is_signed_integer(x.dtype()) ? 0 : -std::ldexp(1.0, bits(x.dtype()) - 1);
    double high =
        x.dtype() == DType::boolean ? 1 : std::ldexp(1.0, bits(x.dtype()) - (is_signed_integer(x.dtype()) ? 1 : 0)) - 1;
    for (double& r : v) r = std::clamp(std::nearbyint(r), low, high);
  }
  ref::store<double>(*y, v);
  return {};
}

Cost cost_resize(const CostQuery& q) {
  std::string mode = q.node.s("mode", "nearest");
  if (mode == "nearest") return {};
  size_t axes = 0;
  Shape in = q.shape_in(0), out = q.shape_out(0);
  for (size_t i = 0; i < in.size() && i < out.size(); ++i) axes += in[i] != out[i];
  return {.flops = (mode == "linear" ? 4.0 : 8.0) * double(axes) * q.elements_out(0)};
}

// ---------------------------------------------------------------- GridSample

Status infer_grid_sample(Infer& c) {
  if (!c.ranked(0) || !c.ranked(1)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  const auto &x = c.dims(0), &g = c.dims(1);
  if (x.size() < 3 || g.size() != x.size())
    return c.error("an input of rank " + std::to_string(x.size()) + " does not go with a grid of rank " +
                   std::to_string(g.size()) + ".");
  if (known_different(g.back(), int64_t(x.size()) - 2))
    return c.error("the grid's last dimension is " + g.back().to_string() + "; it must be " +
                   std::to_string(x.size() - 2) + ".");
  std::vector<Dim> y = {x[0], x[1]};
  y.insert(y.end(), g.begin() + 1, g.end() - 1);
  c.set(0, c.dtype(0), std::move(y));
  return {};
}

double reflect(double x, double low, double high) {
  double range = high - low;
  if (range <= 0) return low;
  double t = std::fmod(std::fabs(x - low), 2 * range);
  return low + (t <= range ? t : 2 * range - t);
}

Status eval_grid_sample(Eval& e) {
  const Tensor &x = e.in(0), &grid = e.in(1);
  size_t n = size_t(std::max<int64_t>(x.rank() - 2, 0));
  if (n == 0 || grid.rank() != x.rank() || grid.dim(grid.rank() - 1) != int64_t(n) || grid.dim(0) != x.dim(0))
    return e.error("a grid of shape " + to_string(grid.shape()) + " does not fit an input of shape " +
                   to_string(x.shape()) + ".");
  std::string mode = e.node.s("mode", "linear"), padding = e.node.s("padding_mode", "zeros");
  if (mode == "bilinear") mode = "linear";
  if (mode == "bicubic") mode = "cubic";
  if (mode != "linear" && mode != "nearest" && mode != "cubic")
    return e.error("mode \"" + mode + "\" is not one of linear, nearest, cubic.");
  if (padding != "zeros" && padding != "border" && padding != "reflection")
    return e.error("padding_mode \"" + padding + "\" is not one of zeros, border, reflection.");
  bool align = e.node.i("align_corners") != 0;
  Shape space(x.shape().begin() + 2, x.shape().end()), out_space(grid.shape().begin() + 1, grid.shape().end() - 1);
  Shape shape{x.dim(0), x.dim(1)};
  shape.insert(shape.end(), out_space.begin(), out_space.end());
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  if (y->count() == 0) return {};
  if (x.count() == 0) return e.error("an empty input cannot be sampled.");
  if (x.dtype() == DType::string || is_complex(x.dtype()))
    return e.error(std::string("element type ") + name(x.dtype()) + " is not a number.");
  auto v = ref::load<double>(x), g = ref::load<double>(grid);
  Shape strides = ref::strides_of(space);
  int64_t in_size = ref::product(space), out_size = ref::product(out_space), channels = x.dim(1);
  std::vector<double> out(size_t(y->count()));

  // Index i along axis d as the padding mode sees it; nullopt reads zero.
  auto padded = [&](int64_t i, size_t d) -> std::optional<int64_t> {
    int64_t last = space[d] - 1;
    if (i >= 0 && i <= last) return i;
    if (padding == "zeros") return std::nullopt;
    if (padding == "border") return std::clamp<int64_t>(i, 0, last);
    double low = align ? 0 : -0.5;
    return std::clamp<int64_t>(int64_t(reflect(double(i), low, double(last) - low)), 0, last);
  };
  std::vector<int64_t> at(n);  // first tap along each axis
  std::vector<std::vector<double>> weight(n);
  for (int64_t b = 0; b < x.dim(0); ++b)
    for (int64_t p = 0; p < out_size; ++p) {
      for (size_t d = 0; d < n; ++d) {
        double s = g[size_t((b * out_size + p) * int64_t(n)) + n - 1 - d],
               length = double(space[d]);  // the grid lists x first
        double c = align ? (s + 1) / 2 * (length - 1) : ((s + 1) * length - 1) / 2;
        if (grid.dtype() == DType::f32)
          c = align ? (float(s) + 1) / 2.0f * float(length - 1) : ((float(s) + 1) * float(length) - 1) / 2.0f;
        if (mode == "nearest") c = std::nearbyint(c);
        double low = align ? 0 : -0.5, high = length - 1 - low;
        if (c < low || c > high) {
          if (padding == "border") c = std::clamp(c, 0.0, length - 1);
          if (padding == "reflection") c = reflect(c, low, high);
        }
        // Beyond any image, and NaN, is one place far outside.
        if (!(c > -1e9)) c = -1e9;
        c = std::min(c, 1e9);
        double t = c - std::floor(c);
        at[d] = int64_t(std::floor(c));
        if (mode == "nearest") {
          weight[d] = {1};
        } else if (mode == "linear") {
          weight[d] = {1 - t, t};
        } else {
          weight[d].resize(4);
          cubic_weights(t, -0.75, weight[d].data());
          --at[d];
        }
      }
      Shape window(n, int64_t(weight[0].size()));
      for (ref::Index k(window); k.more(); k.next()) {
        double w = 1;
        int64_t offset = 0;
        bool zero = false;
        for (size_t d = 0; d < n && !zero; ++d) {
          auto i = padded(at[d] + k[d], d);
          zero = !i;
          if (i) offset += *i * strides[d];
          w *= weight[d][size_t(k[d])];
        }
        if (zero) continue;
        for (int64_t c = 0; c < channels; ++c)
          out[size_t((b * channels + c) * out_size + p)] += w * v[size_t((b * channels + c) * in_size + offset)];
      }
    }
  ref::store<double>(*y, out);
  return {};
}

Cost cost_grid_sample(const CostQuery& q) {
  double taps = 1, side = q.node.s("mode", "linear") == "cubic" ? 4 : q.node.s("mode", "linear") == "nearest" ? 1 : 2;
  for (size_t i = 2; i < q.shape_in(0).size(); ++i) taps *= side;
  return {.flops = 2 * taps * q.elements_out(0) + 10 * q.elements_in(1)};
}

// ---------------------------------------------------------------- AffineGrid

Status infer_affine_grid(Infer& c) {
  auto size = c.ints(1);
  if (!size) {
    // N,C,H,W or N,C,D,H,W: theta's rows tell which.
    auto rows = c.ranked(0) && c.rank(0) == 3 ? c.dims(0)[1].constant() : std::nullopt;
    if (!rows || *rows < 2 || *rows > 3) {
      c.set_unranked(0, c.dtype(0));
      return {};
    }
    auto y = c.fresh(*rows + 2);
    y[0] = c.dims(0)[0];
    y.back() = *rows;
    c.set(0, c.dtype(0), std::move(y));
    return {};
  }
  if (size->size() != 4 && size->size() != 5)
    return c.error("size must hold 4 or 5 numbers, it holds " + std::to_string(size->size()) + ".");
  std::vector<Dim> y = {(*size)[0]};
  y.insert(y.end(), size->begin() + 2, size->end());
  y.push_back(int64_t(size->size()) - 2);
  c.set(0, c.dtype(0), std::move(y));
  return {};
}

Status eval_affine_grid(Eval& e) {
  const Tensor& theta = e.in(0);
  auto size = ref::ints(e.in(1));
  if (size.size() != 4 && size.size() != 5)
    return e.error("size must hold 4 or 5 numbers, it holds " + std::to_string(size.size()) + ".");
  int64_t n = int64_t(size.size()) - 2;
  if (theta.shape() != Shape{size[0], n, n + 1})
    return e.error("theta has shape " + to_string(theta.shape()) + "; it must be " +
                   to_string(Shape{size[0], n, n + 1}) + ".");
  Shape space(size.begin() + 2, size.end()), shape{size[0]};
  shape.insert(shape.end(), space.begin(), space.end());
  shape.push_back(n);
  bool align = e.node.i("align_corners") != 0;
  Tensor* y = AI_VMM_TAKE(e.make(0, theta.dtype(), shape));
  auto t = ref::load<double>(theta);
  std::vector<double> out;
  out.reserve(size_t(y->count()));
  auto coordinate = [&](int64_t i, int64_t length) {
    if (align) return length == 1 ? 0.0 : -1 + 2 * double(i) / double(length - 1);
    return -1 + (2 * double(i) + 1) / double(length);
  };
  for (int64_t b = 0; b < size[0]; ++b)
    for (ref::Index p(space); p.more(); p.next())
      for (int64_t r = 0; r < n; ++r) {
        const double* row = t.data() + (b * n + r) * (n + 1);
        double sum = row[n];
        for (int64_t c = 0; c < n; ++c)
          sum += row[c] * coordinate(p[size_t(n - 1 - c)], space[size_t(n - 1 - c)]);  // x first
        out.push_back(sum);
      }
  ref::store<double>(*y, out);
  return {};
}

const OpDef kOps[] = {
    {"Resize", "", 19, "X:T1, roi:T2?, scales:f32?, sizes:i64? -> Y:T1 | T1: tensor, T2: f16 f32 f64",
     "antialias:int=0, axes:ints, coordinate_transformation_mode:string=half_pixel, cubic_coeff_a:float=-0.75, "
     "exclude_outside:int=0, extrapolation_value:float=0.0, keep_aspect_ratio_policy:string=stretch, "
     "mode:string=nearest, "
     "nearest_mode:string=round_prefer_floor",
     "Samples X on a grid of another size, by scales or sizes along some axes, with the nearest element, linear or "
     "cubic "
     "interpolation. Integers round to nearest even and saturate.",
     kNoTrait, infer_resize, cost_resize, eval_resize},
    {"GridSample", "", 22, "X:T1, grid:T2 -> Y:T1 | T1: tensor, T2: f16 f32 f64 bf16",
     "align_corners:int=0, mode:string=linear, padding_mode:string=zeros",
     "Reads X [N, C, spatial...] at the positions that grid [N, out..., axes] gives in [-1, 1], innermost axis first.",
     kNoTrait, infer_grid_sample, cost_grid_sample, eval_grid_sample},
    {"AffineGrid", "", 20, "theta:T1, size:T2 -> grid:T1 | T1: f16 f32 f64 bf16, T2: i64", "align_corners:int=0",
     "The grid for GridSample that an affine map theta [N, axes, axes + 1] makes of an image of the given size.",
     kNoTrait, infer_affine_grid, [](const CostQuery& q) { return Cost{.flops = 8 * q.elements_out(0)}; },
     eval_affine_grid},
};

}  // namespace

std::span<const OpDef> resize_ops() { return kOps; }

}  // namespace ai_vmm
