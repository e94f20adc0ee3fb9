// Operators that cut tensors and put them together: Concat, Split, Slice, Pad and their kin.
#include <algorithm>

#include "ops/all_ops.hpp"
#include "ops/move.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

constexpr int64_t kFar = std::numeric_limits<int32_t>::max();  // exporters write such bounds for "to the end"

// ---------------------------------------------------------------- Concat, Split

Status infer_concat(Infer& c) {
  DType dtype = DType::undefined;
  std::vector<Dim> dims;
  std::optional<std::vector<Dim>> ints(std::in_place);
  bool seen = false, ranked = true;
  int64_t axis = 0;
  for (size_t k = 0; k < c.inputs(); ++k) {
    if (!c.has(k)) return c.error("input " + std::to_string(k) + " is absent.");
    if (dtype == DType::undefined) dtype = c.dtype(k);
    if (!c.ranked(k)) {
      ranked = false;
      continue;
    }
    if (!seen) {
      dims = c.dims(k);
      axis = AI_VMM_TAKE(c.axis(c.node.i("axis"), c.rank(k)));
      seen = true;
    } else {
      if (c.rank(k) != int64_t(dims.size()))
        return c.error("the inputs differ in rank: " + to_string(dims) + " and " + to_string(c.dims(k)) + ".");
      for (size_t i = 0; i < dims.size(); ++i) {
        const Dim& d = c.dims(k)[i];
        if (int64_t(i) == axis)
          dims[i] = dims[i] + d;
        else if (dims[i].is_constant() && d.is_constant() && dims[i] != d)
          return c.error("the inputs differ outside the axis: " + to_string(dims) + " and " + to_string(c.dims(k)) +
                         ".");
        else if (d.is_constant())
          dims[i] = d;
      }
    }
    auto known = c.ints(k);
    if (ints && known)
      ints->insert(ints->end(), known->begin(), known->end());
    else
      ints.reset();
  }
  if (!ranked) {
    if (seen)
      c.set(0, dtype, c.fresh(int64_t(dims.size())));
    else
      c.set_unranked(0, dtype);
    return {};
  }
  bool vector = dims.size() == 1;
  c.set(0, dtype, std::move(dims));
  if (vector && ints) c.set_ints(0, *std::move(ints));
  return {};
}
Status eval_concat(Eval& e) {
  const Tensor& first = e.in(0);
  int64_t axis = AI_VMM_TAKE(e.axis(e.node.i("axis"), first.rank()));
  Shape shape = first.shape();
  for (size_t k = 1; k < e.inputs(); ++k) {
    const Shape& s = e.in(k).shape();
    bool fits = s.size() == shape.size() && e.in(k).dtype() == first.dtype();
    for (size_t i = 0; fits && i < s.size(); ++i) fits = int64_t(i) == axis || s[i] == shape[i];
    if (!fits)
      return e.error("shapes " + to_string(first.shape()) + " and " + to_string(s) + " do not join along axis " +
                     std::to_string(axis) + ".");
    shape[size_t(axis)] += s[size_t(axis)];
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, first.dtype(), shape));
  Shape strides = ref::strides_of(shape);
  int64_t at = 0;
  for (size_t k = 0; k < e.inputs(); ++k) {
    const Tensor& x = e.in(k);
    copy_view(*y, {at * strides[size_t(axis)], strides}, x, {0, ref::strides_of(x.shape())}, x.shape());
    at += x.dim(axis);
  }
  return {};
}

Status infer_split(Infer& c) {
  size_t n = c.outputs();
  if (!c.ranked(0)) {
    for (size_t k = 0; k < n; ++k) c.set_unranked(k, c.dtype(0));
    return {};
  }
  int64_t axis = AI_VMM_TAKE(c.axis(c.node.i("axis", 0), c.rank(0)));
  const Dim& size = c.dims(0)[size_t(axis)];
  std::optional<std::vector<Dim>> sizes;
  if (c.has(1)) {
    sizes = c.ints(1);
    if (sizes && sizes->size() != n)
      return c.error("it has " + std::to_string(n) + " outputs and " + std::to_string(sizes->size()) + " sizes.");
  } else {
    int64_t parts = c.node.i("num_outputs", int64_t(n));
    if (parts < int64_t(n) || parts < 1)
      return c.error("it has " + std::to_string(n) + " outputs; num_outputs is " + std::to_string(parts) + ".");
    Dim chunk = ceil_div(size, parts);
    sizes.emplace(n, chunk);
    if (parts == int64_t(n)) sizes->back() = size - chunk * (parts - 1);
  }
  auto known = c.ints(0);
  auto constant = sizes ? constant_shape(*sizes) : std::nullopt;
  int64_t at = 0;
  for (size_t k = 0; k < n; ++k) {
    std::vector<Dim> dims = c.dims(0);
    dims[size_t(axis)] = sizes ? (*sizes)[k] : c.fresh();
    // Too many parts are an error of the run: the node may stand in a branch that is never taken.
    if (auto part = dims[size_t(axis)].constant(); part && *part < 0) {
      dims[size_t(axis)] = c.fresh();
      constant.reset();
    }
    c.set(k, c.dtype(0), std::move(dims));
    if (known && constant && c.rank(0) == 1 && at + (*constant)[k] <= int64_t(known->size()))
      c.set_ints(k, {known->begin() + at, known->begin() + at + (*constant)[k]});
    if (constant) at += (*constant)[k];
  }
  return {};
}
Status eval_split(Eval& e) {
  const Tensor& x = e.in(0);
  int64_t axis = AI_VMM_TAKE(e.axis(e.node.i("axis", 0), x.rank())), size = x.dim(axis);
  size_t n = e.node.outputs.size();
  std::vector<int64_t> sizes;
  if (e.has(1)) {
    sizes = ref::ints(e.in(1));
  } else {
    int64_t parts = e.node.i("num_outputs", int64_t(n));
    if (parts < 1 || parts > (1 << 20)) return e.error("num_outputs is " + std::to_string(parts) + ".");
    int64_t chunk = (size + parts - 1) / parts;
    sizes.assign(size_t(parts), chunk);
    sizes.back() = size - chunk * (parts - 1);
  }
  if (sizes.size() < n)
    return e.error("it has " + std::to_string(n) + " outputs and " + std::to_string(sizes.size()) + " sizes.");
  int64_t at = 0;
  Shape strides = ref::strides_of(x.shape());
  for (size_t k = 0; k < sizes.size(); ++k) {
    if (sizes[k] < 0 || sizes[k] > size - at)
      return e.error("sizes " + to_string(sizes) + " do not divide a dimension of size " + std::to_string(size) + ".");
    if (k < n) {
      Shape shape = x.shape();
      shape[size_t(axis)] = sizes[k];
      Tensor* y = AI_VMM_TAKE(e.make(k, x.dtype(), shape));
      copy_view(*y, {0, ref::strides_of(shape)}, x, {at * strides[size_t(axis)], strides}, shape);
    }
    at += sizes[k];
  }
  if (at != size) return e.error("sizes " + to_string(sizes) + " do not add up to " + std::to_string(size) + ".");
  return {};
}

// ---------------------------------------------------------------- Slice

// A bound v of an axis of size d as NumPy reads it: negative ones count from the end, then clamped to [low, high].
Dim bound(const Dim& v, const Dim& d, const Dim& low, const Dim& high) {
  if (auto k = v.constant()) {
    if (!d.is_constant() && *k >= kFar) return high;
    if (!d.is_constant() && *k <= -kFar) return low;
    return *k >= 0 ? min(v, high) : max(v + d, low);
  }
  if (known_non_negative(v)) return min(v, high);
  // The sign is not known: min(1, max(0, -v)) is 1 where v is negative, else 0.
  return max(low, min(high, v + d * min(Dim(1), max(Dim(0), Dim(0) - v))));
}

Dim slice_size(const Dim& start, const Dim& end, int64_t step, const Dim& d) {
  auto s = start.constant(), f = end.constant();
  if (step == 1 && s && f && *s < 0 && *s > -kFar && *f >= kFar && !d.is_constant())
    return min(Dim(-*s), d);  // the last few
  if (step > 0) return max(Dim(0), ceil_div(bound(end, d, 0, d) - bound(start, d, 0, d), step));
  return max(Dim(0), ceil_div(bound(start, d, -1, d - 1) - bound(end, d, -1, d - 1), step < -kFar ? kFar : -step));
}

Status infer_slice(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  std::vector<Dim> dims = c.dims(0);
  auto starts = c.ints(1), ends = c.ints(2), axes = c.ints(3), steps = c.ints(4);
  auto listed = [&](size_t k) { return c.ranked(k) && c.rank(k) == 1 ? c.dims(k)[0].constant() : std::nullopt; };
  auto n = starts      ? std::optional(int64_t(starts->size()))
           : ends      ? std::optional(int64_t(ends->size()))
           : listed(1) ? listed(1)
                       : listed(2);
  std::vector<int64_t> on;
  if (auto named = axes ? constant_shape(*axes) : std::nullopt) {
    for (int64_t a : *named) on.push_back(AI_VMM_TAKE(c.axis(a, c.rank(0))));
  } else if (!c.has(3) && n && *n <= c.rank(0)) {
    for (int64_t i = 0; i < *n; ++i) on.push_back(i);
  } else {
    c.set(0, c.dtype(0), c.fresh(c.rank(0)));
    return {};
  }
  if ((starts && starts->size() != on.size()) || (ends && ends->size() != on.size()) ||
      (steps && steps->size() != on.size()))
    return c.error("starts, ends, axes and steps differ in length.");
  for (size_t i = 0; i < on.size(); ++i) {
    Dim& d = dims[size_t(on[i])];
    auto step = !c.has(4) ? std::optional<int64_t>(1) : steps ? (*steps)[i].constant() : std::nullopt;
    if (step && *step == 0) return c.error("a step is 0.");
    d = starts && ends && step ? slice_size((*starts)[i], (*ends)[i], *step, d) : c.fresh();
  }
  auto known = c.ints(0);
  std::optional<int64_t> size = dims.size() == 1 ? dims[0].constant() : std::nullopt;
  c.set(0, c.dtype(0), std::move(dims));
  if (known && size && starts && on.size() == 1) {
    int64_t step = steps ? *(*steps)[0].constant() : 1, d = int64_t(known->size());
    auto first = bound((*starts)[0], d, step > 0 ? 0 : -1, step > 0 ? d : d - 1).constant();
    if (!first) return {};
    std::vector<Dim> out;
    for (int64_t i = 0, at = *first; i < *size && at >= 0 && at < d; ++i, at += step)
      out.push_back((*known)[size_t(at)]);
    if (int64_t(out.size()) == *size) c.set_ints(0, std::move(out));
  } else if (known && c.rank(0) == 1 && on.empty()) {
    c.set_ints(0, *known);
  }
  return {};
}
Status eval_slice(Eval& e) {
  const Tensor& x = e.in(0);
  auto starts = ref::ints(e.in(1)), ends = ref::ints(e.in(2)),
       axes = e.has(3) ? ref::ints(e.in(3)) : std::vector<int64_t>();
  auto steps = e.has(4) ? ref::ints(e.in(4)) : std::vector<int64_t>(starts.size(), 1);
  if (!e.has(3))
    for (size_t i = 0; i < starts.size(); ++i) axes.push_back(int64_t(i));
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    return e.error("starts, ends, axes and steps differ in length.");
  Shape shape = x.shape();
  View view{0, ref::strides_of(x.shape())};
  std::vector<bool> seen(shape.size());
  for (size_t k = 0; k < axes.size(); ++k) {
    size_t a = size_t(AI_VMM_TAKE(e.axis(axes[k], x.rank())));
    if (seen[a]) return e.error("an axis is named twice.");
    seen[a] = true;
    constexpr int64_t kHuge = int64_t(1) << 61;
    int64_t d = shape[a], step = std::clamp(steps[k], -kHuge, kHuge);
    if (step == 0) return e.error("a step is 0.");
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? d : d - 1;
    auto at = [&](int64_t v) {
      v = std::clamp(v, -kHuge, kHuge);
      return std::clamp(v < 0 ? v + d : v, low, std::max(low, high));
    };
    int64_t start = at(starts[k]), end = at(ends[k]);
    int64_t n = step > 0 ? (end - start + step - 1) / step : (start - end - step - 1) / -step;
    n = (step > 0 ? end > start : start > end) ? n : 0;
    shape[a] = n;
    if (n > 0) view.start += start * view.strides[a];
    view.strides[a] = n > 1 ? view.strides[a] * step : 0;
  }
  return eval_view(e, x, view, shape, shape);
}

// ---------------------------------------------------------------- Pad, CenterCropPad

Status infer_pad(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  auto pads = c.ints(1);
  std::vector<int64_t> axes;
  if (c.has(3)) {
    auto named = c.ints(3);
    auto constant = named ? constant_shape(*named) : std::nullopt;
    if (!constant) {
      c.set(0, c.dtype(0), c.fresh(c.rank(0)));
      return {};
    }
    for (int64_t a : *constant) axes.push_back(AI_VMM_TAKE(c.axis(a, c.rank(0))));
  } else {
    for (int64_t i = 0; i < c.rank(0); ++i) axes.push_back(i);
  }
  if (pads && pads->size() != 2 * axes.size())
    return c.error("there are " + std::to_string(pads->size()) + " pads for " + std::to_string(axes.size()) +
                   " axes; it takes two an axis.");
  std::vector<Dim> dims = c.dims(0);
  for (size_t i = 0; i < axes.size(); ++i) {
    Dim& d = dims[size_t(axes[i])];
    d = pads ? d + (*pads)[i] + (*pads)[i + axes.size()] : c.fresh();
    if (d.constant() && *d.constant() < 0)
      return c.error("the pads leave axis " + std::to_string(axes[i]) + " with the size " + d.to_string() + ".");
  }
  c.set(0, c.dtype(0), std::move(dims));
  return {};
}

// Which input position an output position of one padded axis shows; -1: the constant.
int64_t pad_source(const std::string& mode, int64_t at, int64_t first, int64_t last) {
  int64_t n = last - first, i = at - first;  // what is left of the axis after negative pads is [first, last)
  if (i >= 0 && i < n) return at;
  if (mode == "constant") return -1;
  if (mode == "edge") return i < 0 ? first : last - 1;
  if (mode == "wrap") return first + ((i % n) + n) % n;
  int64_t period = 2 * (n - 1);
  if (period == 0) return first;
  i = ((i % period) + period) % period;
  return first + (i < n ? i : period - i);
}

Status eval_pad(Eval& e) {
  const Tensor& x = e.in(0);
  std::string mode = e.node.s("mode", "constant");
  if (mode != "constant" && mode != "reflect" && mode != "edge" && mode != "wrap")
    return e.error("mode \"" + mode + "\" is none of constant, reflect, edge, wrap.");
  auto pads = ref::ints(e.in(1)), axes = e.has(3) ? ref::ints(e.in(3)) : std::vector<int64_t>();
  if (!e.has(3))
    for (int64_t i = 0; i < x.rank(); ++i) axes.push_back(i);
  if (pads.size() != 2 * axes.size())
    return e.error("there are " + std::to_string(pads.size()) + " pads for " + std::to_string(axes.size()) +
                   " axes; it takes two an axis.");
  Shape before(size_t(x.rank()), 0), after = before, shape = x.shape();
  for (size_t k = 0; k < axes.size(); ++k) {
    size_t a = size_t(AI_VMM_TAKE(e.axis(axes[k], x.rank())));
    before[a] = pads[k];
    after[a] = pads[k + axes.size()];
    if (__builtin_add_overflow(x.shape()[a], before[a], &shape[a]) ||
        __builtin_add_overflow(shape[a], after[a], &shape[a]) || shape[a] < 0)
      return e.error("the pads " + to_string(pads) + " do not fit shape " + to_string(x.shape()) + ".");
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  if (y->count() == 0) return {};
  std::vector<Shape> source(shape.size());  // per axis and output position: offset in the input, or -1
  Shape strides = ref::strides_of(x.shape());
  for (size_t a = 0; a < shape.size(); ++a) {
    int64_t first = std::max<int64_t>(0, -before[a]), last = x.shape()[a] - std::max<int64_t>(0, -after[a]);
    if (mode != "constant" && last <= first)
      return e.error("axis " + std::to_string(a) + " has no element to continue with mode " + mode + ".");
    for (int64_t i = 0; i < shape[a]; ++i) {
      int64_t at = pad_source(mode, i - before[a], first, last);
      source[a].push_back(at < 0 ? -1 : at * strides[a]);
    }
  }
  Tensor value;
  if (e.has(2)) {
    value = e.in(2);
    if (value.count() != 1 || value.dtype() != x.dtype())
      return e.error("constant_value must be one element of the data's type.");
  } else {
    value = AI_VMM_TAKE(Tensor::make(x.dtype(), {}, true));
  }
  int64_t k = 0;
  for (ref::Index i(shape); i.more(); i.next(), ++k) {
    int64_t at = 0;
    for (size_t a = 0; a < shape.size() && at >= 0; ++a) {
      int64_t o = source[a][size_t(i[a])];
      at = o < 0 ? -1 : at + o;
    }
    at < 0 ? ref::copy_element(*y, k, value, 0) : ref::copy_element(*y, k, x, at);
  }
  return {};
}

Status infer_center_crop_pad(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  std::vector<int64_t> axes = c.node.ints("axes");
  if (!c.node.has("axes"))
    for (int64_t i = 0; i < c.rank(0); ++i) axes.push_back(i);
  auto target = c.ints(1);
  if (target && target->size() != axes.size()) return c.error("shape and axes differ in length.");
  std::vector<Dim> dims = c.dims(0);
  for (size_t i = 0; i < axes.size(); ++i) {
    int64_t a = AI_VMM_TAKE(c.axis(axes[i], c.rank(0)));
    dims[size_t(a)] = target ? (*target)[i] : c.fresh();
  }
  c.set(0, c.dtype(0), std::move(dims));
  return {};
}
Status eval_center_crop_pad(Eval& e) {
  const Tensor& x = e.in(0);
  std::vector<int64_t> axes = e.node.ints("axes"), target = ref::ints(e.in(1));
  if (!e.node.has("axes"))
    for (int64_t i = 0; i < x.rank(); ++i) axes.push_back(i);
  if (axes.size() != target.size()) return e.error("shape and axes differ in length.");
  Shape shape = x.shape(), part = shape, from(shape.size(), 0), to = from;
  for (size_t k = 0; k < axes.size(); ++k) {
    size_t a = size_t(AI_VMM_TAKE(e.axis(axes[k], x.rank())));
    if (target[k] < 0) return e.error("the target size " + std::to_string(target[k]) + " is negative.");
    shape[a] = target[k];
    part[a] = std::min(target[k], x.shape()[a]);
    from[a] = (x.shape()[a] - part[a]) / 2;
    to[a] = (shape[a] - part[a]) / 2;
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  fill_zero(*y);
  View v{0, ref::strides_of(shape)}, w{0, ref::strides_of(x.shape())};
  for (size_t a = 0; a < shape.size(); ++a) {
    v.start += to[a] * v.strides[a];
    w.start += from[a] * w.strides[a];
  }
  copy_view(*y, v, x, w, part);
  return {};
}

// ---------------------------------------------------------------- Trilu, ReverseSequence, DepthToSpace, SpaceToDepth

Status infer_like_input(Infer& c) {
  c.set(0, c.type(0));
  return {};
}
Status eval_trilu(Eval& e) {
  const Tensor& x = e.in(0);
  if (x.rank() < 2) return e.error("a tensor of rank " + std::to_string(x.rank()) + " has no triangle.");
  int64_t k = 0;
  if (e.has(1)) k = AI_VMM_TAKE(scalar_int(e, e.in(1), "k"));
  bool upper = e.node.i("upper", 1) != 0;
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  fill_zero(*y);
  int64_t rows = x.dim(x.rank() - 2), columns = x.dim(x.rank() - 1);
  k = std::clamp(k, -rows - 1, columns + 1);
  int64_t matrices = x.count() == 0 ? 0 : x.count() / (rows * columns);
  for (int64_t m = 0; m < matrices * rows; ++m) {
    // Row r keeps the columns c with c - r ≥ k (upper) or ≤ k (lower).
    int64_t r = m % rows, edge = std::clamp<int64_t>(r + k + !upper, 0, columns);
    int64_t first = upper ? edge : 0, last = upper ? columns : edge;
    copy_view(*y, {m * columns + first, {1}}, x, {m * columns + first, {1}}, {last - first});
  }
  return {};
}

Status infer_reverse_sequence(Infer& c) {
  if (c.ranked(0) && c.rank(0) < 2) return c.error("the input must have rank 2 or more.");
  return infer_like_input(c);
}
Status eval_reverse_sequence(Eval& e) {
  const Tensor& x = e.in(0);
  int64_t batch = AI_VMM_TAKE(e.axis(e.node.i("batch_axis", 1), x.rank()));
  int64_t time = AI_VMM_TAKE(e.axis(e.node.i("time_axis", 0), x.rank()));
  if (batch == time) return e.error("batch_axis and time_axis are the same.");
  auto lengths = ref::ints(e.in(1));
  if (int64_t(lengths.size()) != x.dim(batch))
    return e.error("there are " + std::to_string(lengths.size()) + " lengths for " + std::to_string(x.dim(batch)) +
                   " sequences.");
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  Shape strides = ref::strides_of(x.shape()), part = x.shape();
  part[size_t(batch)] = 1;
  for (int64_t b = 0; b < x.dim(batch); ++b) {
    int64_t n = lengths[size_t(b)];
    if (n < 0 || n > x.dim(time))
      return e.error("the length " + std::to_string(n) + " is outside a time axis of size " +
                     std::to_string(x.dim(time)) + ".");
    int64_t at = b * strides[size_t(batch)];
    part[size_t(time)] = n;
    View back{at + (n - 1) * strides[size_t(time)], strides};
    back.strides[size_t(time)] *= -1;
    copy_view(*y, {at, strides}, x, back, part);
    part[size_t(time)] = x.dim(time) - n;
    View rest{at + n * strides[size_t(time)], strides};
    copy_view(*y, rest, x, rest, part);
  }
  return {};
}

template <bool ToSpace>
Status infer_depth_space(Infer& c) {
  int64_t b = c.node.i("blocksize");
  if (b < 1 || b > (1 << 20)) return c.error("blocksize " + std::to_string(b) + " is not possible.");
  if (!c.ranked(0)) {
    c.set(0, c.dtype(0), c.fresh(4));
    return {};
  }
  if (c.rank(0) != 4) return c.error("the input must have rank 4; it has shape " + to_string(c.dims(0)) + ".");
  const auto& d = c.dims(0);
  if (ToSpace)
    c.set(0, c.dtype(0), {d[0], exact_div(d[1], b * b), d[2] * b, d[3] * b});
  else
    c.set(0, c.dtype(0), {d[0], d[1] * (b * b), exact_div(d[2], b), exact_div(d[3], b)});
  return {};
}
template <bool ToSpace>
Status eval_depth_space(Eval& e) {
  const Tensor& x = e.in(0);
  int64_t b = e.node.i("blocksize");
  std::string mode = e.node.s("mode", "DCR");
  if (mode != "DCR" && mode != "CRD") return e.error("mode \"" + mode + "\" is neither DCR nor CRD.");
  if (b < 1 || b > (1 << 20) || x.rank() != 4) return e.error("it takes a tensor of rank 4 and a positive blocksize.");
  int64_t n = x.dim(0), c = x.dim(1), h = x.dim(2), w = x.dim(3);
  bool divides = ToSpace ? c % (b * b) == 0 : h % b == 0 && w % b == 0;
  if (!divides)
    return e.error("blocksize " + std::to_string(b) + " does not divide shape " + to_string(x.shape()) + ".");
  // The walk over the output, as axes of the input seen with its blocks split off.
  if (ToSpace) {
    c /= b * b;
    Shape s = ref::strides_of(mode == "DCR" ? Shape{n, b, b, c, h, w} : Shape{n, c, b, b, h, w});
    Shape strides =
        mode == "DCR" ? Shape{s[0], s[3], s[4], s[1], s[5], s[2]} : Shape{s[0], s[1], s[4], s[2], s[5], s[3]};
    return eval_view(e, x, {0, strides}, {n, c, h, b, w, b}, {n, c, h * b, w * b});
  }
  Shape s = ref::strides_of({n, c, h / b, b, w / b, b});
  if (mode == "DCR")
    return eval_view(e, x, {0, {s[0], s[3], s[5], s[1], s[2], s[4]}}, {n, b, b, c, h / b, w / b},
                     {n, c * b * b, h / b, w / b});
  return eval_view(e, x, {0, {s[0], s[1], s[3], s[5], s[2], s[4]}}, {n, c, b, b, h / b, w / b},
                   {n, c * b * b, h / b, w / b});
}

const OpDef kOps[] = {
    {"Concat", "", 13, "inputs:T* -> concat_result:T | T: tensor", "axis:int!",
     "Joins tensors along one axis; all other sizes are equal.", kMovesData, infer_concat, nullptr, eval_concat},
    {"Split", "", 18, "input:T, split:i64? -> outputs:T* | T: tensor", "axis:int=0, num_outputs:int",
     "Cuts a tensor along one axis into parts of the given sizes, or into num_outputs equal parts of which the last "
     "may be smaller.",
     kMovesData, infer_split, nullptr, eval_split},
    {"Slice", "", 13, "data:T, starts:I, ends:I, axes:I?, steps:I? -> output:T | T: tensor, I: i32 i64", "",
     "A regular part of each named axis, from start (included) to end (excluded) in steps that may be negative. "
     "Negative bounds count from the end; bounds outside are clamped.",
     kMovesData, infer_slice, nullptr, eval_slice},
    {"Pad", "", 25, "data:T, pads:i64, constant_value:T?, axes:I? -> output:T | T: tensor, I: i32 i64",
     "mode:string=constant",
     "Adds pads[i] positions before and pads[i + n] after the i-th of n axes, filled with a constant, by mirroring "
     "(reflect), with the border (edge) or periodically (wrap). Negative pads remove positions.",
     kMovesData, infer_pad, nullptr, eval_pad},
    {"CenterCropPad", "", 18, "input_data:T, shape:I -> output_data:T | T: tensor, I: i32 i64", "axes:ints",
     "Crops or pads with zeros the named axes to the given sizes, keeping the centre; an odd position goes to the end.",
     kMovesData | kComposite, infer_center_crop_pad, nullptr, eval_center_crop_pad},
    {"Trilu", "", 14, "input:T, k:i64? -> output:T | T: tensor", "upper:int=1",
     "The upper (or lower) triangle of each matrix in the last two axes, bounded by the k-th diagonal; the rest is "
     "zero.",
     kMovesData, infer_like_input, nullptr, eval_trilu},
    {"ReverseSequence", "", 28, "input:T, sequence_lens:i64 -> Y:T | T: tensor", "batch_axis:int=1, time_axis:int=0",
     "Reverses the first sequence_lens[b] positions of the time axis for every batch index b.", kMovesData,
     infer_reverse_sequence, nullptr, eval_reverse_sequence},
    {"DepthToSpace", "", 28, "input:T -> output:T | T: tensor", "blocksize:int!, mode:string=DCR",
     "Moves channels into blocks of space; in mode DCR the block is the outer part of the channel axis, in CRD the "
     "inner one.",
     kMovesData, infer_depth_space<true>, nullptr, eval_depth_space<true>},
    {"SpaceToDepth", "", 28, "input:T -> output:T | T: tensor", "blocksize:int!, mode:string=DCR",
     "Moves blocks of space into channels: the inverse of DepthToSpace in the same mode.", kMovesData,
     infer_depth_space<false>, nullptr, eval_depth_space<false>},
};

}  // namespace

std::span<const OpDef> slice_ops() { return kOps; }

}  // namespace ai_vmm
