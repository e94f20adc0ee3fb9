// Operators that ask for, or change, a tensor's shape and leave its elements in order; and Identity.
#include <algorithm>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/move.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

// Writes output 0 with the element type of input 0 and, where both have rank ≤ 1, its known elements.
void set_like(Infer& c, std::vector<Dim> dims) {
  bool small = dims.size() <= 1 && c.ranked(0) && c.rank(0) <= 1;
  c.set(0, c.dtype(0), std::move(dims));
  if (auto v = c.ints(0); v && small) c.set_ints(0, *v);
}

// ---------------------------------------------------------------- Identity, Shape, Size

Status eval_identity(Eval& e) {
  if (!e.has(0)) return {};
  if (!e.data(0).is_tensor()) {
    e.set(0, e.data(0));
    return {};
  }
  return share(e, 0, e.in(0), e.in(0).shape());
}

// The half-open range of axes that Shape reports.
std::pair<int64_t, int64_t> shape_range(const Node& node, int64_t rank) {
  auto clamp = [&](int64_t v) { return std::clamp<int64_t>(v < 0 ? v + rank : v, 0, rank); };
  int64_t start = clamp(node.i("start", 0)), end = node.has("end") ? clamp(node.i("end")) : rank;
  return {start, std::max(start, end)};
}

Status infer_shape(Infer& c) {
  if (!c.ranked(0)) {
    c.set(0, DType::i64, {c.fresh()});
    return {};
  }
  auto [start, end] = shape_range(c.node, c.rank(0));
  c.set(0, DType::i64, {Dim(end - start)});
  c.set_ints(0, std::vector<Dim>(c.dims(0).begin() + start, c.dims(0).begin() + end));
  return {};
}
Status eval_shape(Eval& e) {
  const Shape& shape = e.in(0).shape();
  auto [start, end] = shape_range(e.node, e.in(0).rank());
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::i64, {end - start}));
  std::copy(shape.begin() + start, shape.begin() + end, y->as_mutable<int64_t>().begin());
  return {};
}

Status infer_size(Infer& c) {
  c.set(0, DType::i64, {});
  if (c.ranked(0)) c.set_ints(0, {product(c.dims(0))});
  return {};
}
Status eval_size(Eval& e) {
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::i64, {}));
  y->as_mutable<int64_t>()[0] = e.in(0).count();
  return {};
}

// ---------------------------------------------------------------- Reshape, Flatten

Status infer_reshape(Infer& c) {
  bool zero_is_zero = c.node.i("allowzero", 0) != 0;
  auto target = c.ints(1);
  if (!target) {
    auto n = c.ranked(1) && c.rank(1) == 1 ? c.dims(1)[0].constant() : std::nullopt;
    if (!n || *n < 0 || *n > 64)
      c.set_unranked(0, c.dtype(0));
    else if (*n == 1 && c.ranked(0))
      set_like(c, {product(c.dims(0))});
    else
      set_like(c, c.fresh(*n));
    return {};
  }
  std::vector<Dim> dims;
  size_t inferred = target->size();
  for (size_t i = 0; i < target->size(); ++i) {
    const Dim& t = (*target)[i];
    if (t.is(-1)) {
      if (inferred != target->size()) return c.error("the target shape has -1 twice.");
      inferred = i;
      dims.emplace_back(1);
    } else if (t.is(0) && !zero_is_zero) {
      if (c.ranked(0) && int64_t(i) >= c.rank(0))
        return c.error("the target shape copies dimension " + std::to_string(i) + " of a tensor of rank " +
                       std::to_string(c.rank(0)) + ".");
      dims.push_back(c.ranked(0) ? c.dims(0)[i] : c.fresh());
    } else if (t.constant() && *t.constant() < 0) {
      return c.error("the target shape has the size " + t.to_string() + ".");
    } else {
      dims.push_back(t);
    }
  }
  if (inferred != target->size()) {
    // Sizes copied from the same axis cancel, whatever they are.
    Dim rest = 1, all = 1;
    if (c.ranked(0)) {
      for (size_t i = 0; i < size_t(c.rank(0)); ++i)
        if (!(i < target->size() && (*target)[i].is(0) && !zero_is_zero)) all = all * c.dims(0)[i];
      for (size_t i = 0; i < dims.size(); ++i)
        if (i != inferred && !((*target)[i].is(0) && !zero_is_zero)) rest = rest * dims[i];
      if (rest.is(0))
        dims[inferred] = c.fresh();
      else if (auto a = all.constant(), r = rest.constant(); a && r && *a % *r != 0)
        return c.error("shape " + to_string(c.dims(0)) + " does not fit the target " + to_string(*target) + ".");
      else
        dims[inferred] = exact_div(all, rest);
    } else {
      dims[inferred] = c.fresh();
    }
  } else if (c.ranked(0)) {
    auto from = element_count(c.type(0).shape().value_or(Shape{-1})),
         to = element_count(constant_shape(dims).value_or(Shape{-1}));
    if (from && to && *from != *to)
      return c.error("shape " + to_string(c.dims(0)) + " does not have as many elements as " + to_string(dims) + ".");
  }
  set_like(c, std::move(dims));
  return {};
}
Status eval_reshape(Eval& e) {
  const Tensor& x = e.in(0);
  if (e.in(1).rank() > 1) return e.error("the target shape must be a vector.");
  std::vector<int64_t> target = ref::ints(e.in(1));
  bool zero_is_zero = e.node.i("allowzero", 0) != 0;
  Shape shape;
  int64_t inferred = -1, rest = 1;
  for (size_t i = 0; i < target.size(); ++i) {
    int64_t t = target[i];
    if (t == 0 && !zero_is_zero) {
      if (int64_t(i) >= x.rank())
        return e.error("the target shape copies dimension " + std::to_string(i) + " of shape " + to_string(x.shape()) +
                       ".");
      t = x.dim(int64_t(i));
    }
    if (t == -1) {
      if (inferred >= 0) return e.error("the target shape has -1 twice.");
      inferred = int64_t(i);
      t = 1;
    }
    if (t < 0 || __builtin_mul_overflow(rest, t, &rest))
      return e.error("the target shape " + to_string(target) + " is impossible.");
    shape.push_back(t);
  }
  if (inferred >= 0) {
    if (rest == 0 ? x.count() != 0 : x.count() % rest != 0)
      return e.error("shape " + to_string(x.shape()) + " does not fit the target " + to_string(target) + ".");
    // Without elements, the sizes copied from the input cancel; what is left of the input is the answer.
    if (rest == 0) {
      int64_t left = 1;
      for (int64_t i = 0; i < x.rank(); ++i)
        if (!(size_t(i) < target.size() && target[size_t(i)] == 0)) left *= x.dim(i);
      for (size_t i = 0; i < target.size(); ++i)
        if (target[i] > 0) left = left / target[i];
      shape[size_t(inferred)] = left;
    } else {
      shape[size_t(inferred)] = x.count() / rest;
    }
  }
  return share(e, 0, x, std::move(shape));
}

Status infer_flatten(Infer& c) {
  if (!c.ranked(0)) {
    c.set(0, c.dtype(0), c.fresh(2));
    return {};
  }
  int64_t rank = c.rank(0), axis = c.node.i("axis", 1);
  if (axis < -rank || axis > rank)
    return c.error("axis " + std::to_string(axis) + " is outside a tensor of rank " + std::to_string(rank) + ".");
  if (axis < 0) axis += rank;
  auto split = c.dims(0).begin() + axis;
  c.set(0, c.dtype(0), {product({c.dims(0).begin(), split}), product({split, c.dims(0).end()})});
  return {};
}
Status eval_flatten(Eval& e) {
  const Tensor& x = e.in(0);
  int64_t axis = e.node.i("axis", 1);
  if (axis < -x.rank() || axis > x.rank())
    return e.error("axis " + std::to_string(axis) + " is outside shape " + to_string(x.shape()) + ".");
  if (axis < 0) axis += x.rank();
  std::span<const int64_t> s = x.shape();
  return share(e, 0, x, {ref::product(s.subspan(0, size_t(axis))), ref::product(s.subspan(size_t(axis)))});
}

// ---------------------------------------------------------------- Squeeze, Unsqueeze

std::optional<std::vector<int64_t>> constants(const std::optional<std::vector<Dim>>& ints) {
  if (!ints) return std::nullopt;
  return constant_shape(*ints);
}
// How many axes an input that lists axes names, where only its length is known.
std::optional<int64_t> listed(const Infer& c, size_t k) {
  if (!c.ranked(k)) return std::nullopt;
  if (c.rank(k) == 0) return 1;
  return c.rank(k) == 1 ? c.dims(k)[0].constant() : std::nullopt;
}

Status infer_squeeze(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  std::vector<int64_t> axes;
  if (!c.has(1)) {
    for (int64_t i = 0; i < c.rank(0); ++i) {
      if (!c.dims(0)[size_t(i)].is_constant()) {  // 1 or not: the rank of the result is not known
        c.set_unranked(0, c.dtype(0));
        return {};
      }
      if (c.dims(0)[size_t(i)].is(1)) axes.push_back(i);
    }
  } else if (auto named = constants(c.ints(1))) {
    axes = AI_VMM_TAKE(c.axes(*named, c.rank(0)));
  } else {
    if (auto n = listed(c, 1); n && *n <= c.rank(0))
      c.set(0, c.dtype(0), c.fresh(c.rank(0) - *n));
    else
      c.set_unranked(0, c.dtype(0));
    return {};
  }
  std::vector<Dim> dims;
  for (int64_t i = 0; i < c.rank(0); ++i) {
    const Dim& d = c.dims(0)[size_t(i)];
    if (!std::binary_search(axes.begin(), axes.end(), i))
      dims.push_back(d);
    else if (d.constant() && !d.is(1))
      return c.error("axis " + std::to_string(i) + " has size " + d.to_string() +
                     "; only axes of size 1 can be dropped.");
  }
  set_like(c, std::move(dims));
  return {};
}
Status eval_squeeze(Eval& e) {
  const Tensor& x = e.in(0);
  std::vector<bool> drop(size_t(x.rank()));
  if (e.has(1)) {
    for (int64_t a : ref::ints(e.in(1))) {
      a = AI_VMM_TAKE(e.axis(a, x.rank()));
      if (drop[size_t(a)]) return e.error("an axis is named twice.");
      if (x.dim(a) != 1)
        return e.error("axis " + std::to_string(a) + " has size " + std::to_string(x.dim(a)) +
                       "; only axes of size 1 can be dropped.");
      drop[size_t(a)] = true;
    }
  } else {
    for (int64_t i = 0; i < x.rank(); ++i) drop[size_t(i)] = x.dim(i) == 1;
  }
  Shape shape;
  for (size_t i = 0; i < drop.size(); ++i)
    if (!drop[i]) shape.push_back(x.shape()[i]);
  return share(e, 0, x, std::move(shape));
}

Status infer_unsqueeze(Infer& c) {
  auto axes = constants(c.ints(1));
  auto n = axes ? int64_t(axes->size()) : listed(c, 1);
  if (!c.ranked(0) || !n || *n < 0 || *n > 64) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  int64_t rank = c.rank(0) + *n;
  if (!axes) {
    c.set(0, c.dtype(0), c.fresh(rank));
    return {};
  }
  auto ones = AI_VMM_TAKE(c.axes(*axes, rank));
  std::vector<Dim> dims;
  size_t next = 0;
  for (int64_t i = 0; i < rank; ++i)
    dims.push_back(std::binary_search(ones.begin(), ones.end(), i) ? Dim(1) : c.dims(0)[next++]);
  set_like(c, std::move(dims));
  return {};
}
Status eval_unsqueeze(Eval& e) {
  const Tensor& x = e.in(0);
  auto axes = ref::ints(e.in(1));
  int64_t rank = x.rank() + int64_t(axes.size());
  std::vector<bool> one(static_cast<size_t>(rank), false);
  for (int64_t a : axes) {
    a = AI_VMM_TAKE(e.axis(a, rank));
    if (one[size_t(a)]) return e.error("an axis is named twice.");
    one[size_t(a)] = true;
  }
  Shape shape;
  size_t next = 0;
  for (bool o : one) shape.push_back(o ? 1 : x.shape()[next++]);
  return share(e, 0, x, std::move(shape));
}

// ---------------------------------------------------------------- Transpose

// The permutation, checked.
template <class Context>
Result<std::vector<int64_t>> permutation(const Context& c, int64_t rank) {
  std::vector<int64_t> perm = c.node.ints("perm");
  if (!c.node.has("perm"))
    for (int64_t i = rank; i-- > 0;) perm.push_back(i);
  std::vector<bool> seen(size_t(rank), false);
  for (int64_t& p : perm) {
    p = AI_VMM_TAKE(c.axis(p, rank));
    if (seen[size_t(p)]) return c.error("perm names an axis twice.");
    seen[size_t(p)] = true;
  }
  if (int64_t(perm.size()) != rank)
    return c.error("perm has " + std::to_string(perm.size()) + " axes for a tensor of rank " + std::to_string(rank) +
                   ".");
  return perm;
}

Status infer_transpose(Infer& c) {
  if (!c.ranked(0)) {
    if (c.node.has("perm"))
      c.set(0, c.dtype(0), c.fresh(int64_t(c.node.ints("perm").size())));
    else
      c.set_unranked(0, c.dtype(0));
    return {};
  }
  auto perm = AI_VMM_TAKE(permutation(c, c.rank(0)));
  std::vector<Dim> dims;
  for (int64_t p : perm) dims.push_back(c.dims(0)[size_t(p)]);
  set_like(c, std::move(dims));
  return {};
}
Status eval_transpose(Eval& e) {
  const Tensor& x = e.in(0);
  auto perm = AI_VMM_TAKE(permutation(e, x.rank()));
  Shape strides = ref::strides_of(x.shape()), shape;
  View view;
  for (int64_t p : perm) {
    shape.push_back(x.dim(p));
    view.strides.push_back(strides[size_t(p)]);
  }
  return eval_view(e, x, view, shape, shape);
}

// ---------------------------------------------------------------- Expand, Tile

Status infer_expand(Infer& c) {
  auto target = c.ints(1);
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  if (!target) {
    if (auto n = listed(c, 1); n && *n >= 0 && *n <= 64)
      c.set(0, c.dtype(0), c.fresh(std::max(*n, c.rank(0))));
    else
      c.set_unranked(0, c.dtype(0));
    return {};
  }
  for (const Dim& d : *target)
    if (d.constant() && *d.constant() < 0) return c.error("the target shape has the size " + d.to_string() + ".");
  const std::vector<Dim> shapes[] = {c.dims(0), *target};
  auto dims = AI_VMM_TAKE(c.broadcast(shapes));
  auto known = c.ints(0);
  auto n = dims.size() == 1 ? dims[0].constant() : std::nullopt;
  c.set(0, c.dtype(0), std::move(dims));
  if (known && known->size() == 1 && n && *n <= 64) c.set_ints(0, std::vector<Dim>(size_t(*n), known->front()));
  return {};
}
Status eval_expand(Eval& e) {
  const Tensor& x = e.in(0);
  const Shape shapes[] = {x.shape(), ref::ints(e.in(1))};
  for (int64_t d : shapes[1])
    if (d < 0) return e.error("the target shape " + to_string(shapes[1]) + " has a negative size.");
  Shape shape = AI_VMM_TAKE(ref::broadcast(e, shapes));
  return eval_view(e, x, {0, ref::broadcast_strides(x.shape(), shape)}, shape, shape);
}

Status infer_tile(Infer& c) {
  auto repeats = c.ints(1);
  if (!c.ranked(0)) {
    if (repeats)
      c.set(0, c.dtype(0), c.fresh(int64_t(repeats->size())));
    else
      c.set_unranked(0, c.dtype(0));
    return {};
  }
  if (!repeats) {
    c.set(0, c.dtype(0), c.fresh(c.rank(0)));
    return {};
  }
  if (int64_t(repeats->size()) != c.rank(0))
    return c.error("there are " + std::to_string(repeats->size()) + " repeats for a tensor of rank " +
                   std::to_string(c.rank(0)) + ".");
  std::vector<Dim> dims;
  for (size_t i = 0; i < repeats->size(); ++i) dims.push_back(c.dims(0)[i] * (*repeats)[i]);
  auto known = c.ints(0);
  auto n = repeats->size() == 1 ? (*repeats)[0].constant() : std::nullopt;
  c.set(0, c.dtype(0), std::move(dims));
  if (known && n && *n >= 0 && *n * int64_t(known->size()) <= 64) {
    std::vector<Dim> out;
    for (int64_t i = 0; i < *n; ++i) out.insert(out.end(), known->begin(), known->end());
    c.set_ints(0, std::move(out));
  }
  return {};
}
Status eval_tile(Eval& e) {
  const Tensor& x = e.in(0);
  auto repeats = ref::ints(e.in(1));
  if (int64_t(repeats.size()) != x.rank())
    return e.error("there are " + std::to_string(repeats.size()) + " repeats for shape " + to_string(x.shape()) + ".");
  // The result is [r0, d0, r1, d1, …] with stride 0 along each r.
  Shape strides = ref::strides_of(x.shape()), walk, shape;
  View view;
  for (size_t i = 0; i < repeats.size(); ++i) {
    int64_t size;
    if (repeats[i] < 0 || __builtin_mul_overflow(repeats[i], x.shape()[i], &size))
      return e.error("repeats " + to_string(repeats) + " are impossible.");
    shape.push_back(size);
    walk.insert(walk.end(), {repeats[i], x.shape()[i]});
    view.strides.insert(view.strides.end(), {0, strides[i]});
  }
  return eval_view(e, x, view, walk, shape);
}

const OpDef kOps[] = {
    {"Identity", "", 25, "input:V -> output:V | V: any", "", "The input itself: tensor, sequence or optional.",
     kMovesData | kReshapes, infer_same, nullptr, eval_identity},
    {"Shape", "", 25, "data:tensor -> shape:i64", "start:int=0, end:int",
     "The sizes of the input as a vector, of the axes from start (included) to end (excluded); negative ones count "
     "from the last axis and both are clamped.",
     kMovesData, infer_shape, nullptr, eval_shape},
    {"Size", "", 25, "data:tensor -> size:i64", "", "The number of elements, as a scalar.", kMovesData, infer_size,
     nullptr, eval_size},
    {"Reshape", "", 25, "data:T, shape:i64 -> reshaped:T | T: tensor", "allowzero:int=0",
     "The elements in the same order in another shape. One size may be -1: it follows from the others. A size 0 copies "
     "the input's size on that axis, unless allowzero is set.",
     kMovesData | kReshapes, infer_reshape, nullptr, eval_reshape},
    {"Flatten", "", 25, "input:T -> output:T | T: tensor", "axis:int=1",
     "A matrix: the axes before `axis` become the rows, the others the columns.", kMovesData | kReshapes, infer_flatten,
     nullptr, eval_flatten},
    {"Squeeze", "", 25, "data:T, axes:i64? -> squeezed:T | T: tensor", "",
     "Drops the named axes of size 1; without axes, all of them.", kMovesData | kReshapes, infer_squeeze, nullptr,
     eval_squeeze},
    {"Unsqueeze", "", 25, "data:T, axes:i64 -> expanded:T | T: tensor", "",
     "Inserts axes of size 1; the names refer to the result.", kMovesData | kReshapes, infer_unsqueeze, nullptr,
     eval_unsqueeze},
    {"Transpose", "", 25, "data:T -> transposed:T | T: tensor", "perm:ints",
     "Permutes the axes: axis i of the result is axis perm[i] of the input. Without perm the order is reversed.",
     kMovesData, infer_transpose, nullptr, eval_transpose},
    {"Expand", "", 13, "input:T, shape:i64 -> output:T | T: tensor", "",
     "Broadcasts the input and the given shape together: axes of size 1 are repeated.", kMovesData, infer_expand,
     nullptr, eval_expand},
    {"Tile", "", 13, "input:T, repeats:i64 -> output:T | T: tensor", "",
     "Repeats the whole tensor repeats[i] times along each axis i.", kMovesData, infer_tile, nullptr, eval_tile},
};

}  // namespace

std::span<const OpDef> shape_ops() { return kOps; }

}  // namespace ai_vmm
