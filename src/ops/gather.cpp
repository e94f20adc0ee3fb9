// Operators that pick and place elements by index: Gather, Scatter and their kin.
#include <algorithm>

#include "ops/all_ops.hpp"
#include "ops/move.hpp"
#include "ops/ref.hpp"
#include "ops/rules.hpp"

namespace ai_vmm {

namespace {

// ---------------------------------------------------------------- Gather, GatherElements, GatherND

Status infer_gather(Infer& c) {
  if (!c.ranked(0) || !c.ranked(1)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  int64_t axis = AI_VMM_TAKE(c.axis(c.node.i("axis", 0), c.rank(0)));
  const auto& d = c.dims(0);
  std::vector<Dim> dims(d.begin(), d.begin() + axis);
  dims.insert(dims.end(), c.dims(1).begin(), c.dims(1).end());
  dims.insert(dims.end(), d.begin() + axis + 1, d.end());
  c.set(0, c.dtype(0), std::move(dims));
  auto known = c.ints(0), indices = c.ints(1);
  auto constant = indices ? constant_shape(*indices) : std::nullopt;
  if (known && constant && c.rank(0) == 1) {
    std::vector<Dim> out;
    for (int64_t i : *constant) out.push_back((*known)[size_t(AI_VMM_TAKE(c.axis(i, int64_t(known->size()))))]);
    c.set_ints(0, std::move(out));
  }
  return {};
}
Status eval_gather(Eval& e) {
  const Tensor &x = e.in(0), &indices = e.in(1);
  int64_t axis = AI_VMM_TAKE(e.axis(e.node.i("axis", 0), x.rank()));
  auto s = x.shape();
  Shape shape(s.begin(), s.begin() + axis);
  int64_t outer = ref::product(shape), inner = ref::product(std::span(s).subspan(size_t(axis) + 1));
  shape.insert(shape.end(), indices.shape().begin(), indices.shape().end());
  shape.insert(shape.end(), s.begin() + axis + 1, s.end());
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  std::vector<int64_t> at = ref::ints(indices);
  int64_t n = int64_t(at.size()), size = s[size_t(axis)];
  for (int64_t k = 0; k < n; ++k) {
    int64_t i = AI_VMM_TAKE(checked_index(e, at[size_t(k)], size));
    copy_view(*y, {k * inner, {n * inner, 1}}, x, {i * inner, {size * inner, 1}}, {outer, inner});
  }
  return {};
}

Status infer_gather_elements(Infer& c) {
  if (c.ranked(0)) AI_VMM_TAKE(c.axis(c.node.i("axis", 0), c.rank(0)));
  if (c.ranked(0) && c.ranked(1) && c.rank(0) != c.rank(1)) return c.error("data and indices differ in rank.");
  if (c.ranked(1))
    c.set(0, c.dtype(0), c.dims(1));
  else
    c.set_unranked(0, c.dtype(0));
  return {};
}
// Calls f(position among the indices, offset in data) for the elements that Gather- and ScatterElements address.
template <class F>
Status for_each_element(Eval& e, const Tensor& data, const Tensor& indices, F&& f) {
  int64_t axis = AI_VMM_TAKE(e.axis(e.node.i("axis", 0), data.rank()));
  bool fits = indices.rank() == data.rank();
  for (int64_t i = 0; fits && i < data.rank(); ++i) fits = i == axis || indices.dim(i) <= data.dim(i);
  if (!fits)
    return e.error("indices of shape " + to_string(indices.shape()) + " do not fit data of shape " +
                   to_string(data.shape()) + ".");
  auto at = ref::ints(indices);
  Shape strides = ref::strides_of(data.shape());
  size_t k = 0;
  for (ref::Index i(indices.shape()); i.more(); i.next(), ++k) {
    int64_t j = AI_VMM_TAKE(checked_index(e, at[k], data.dim(axis)));
    f(int64_t(k), i.offset(strides) + (j - i[size_t(axis)]) * strides[size_t(axis)]);
  }
  return {};
}
Status eval_gather_elements(Eval& e) {
  Tensor* y = AI_VMM_TAKE(e.make(0, e.in(0).dtype(), e.in(1).shape()));
  return for_each_element(e, e.in(0), e.in(1), [&](int64_t k, int64_t at) { ref::copy_element(*y, k, e.in(0), at); });
}

// Where the tuples of GatherND and ScatterND point: `slices` offsets of blocks of `block` elements.
struct Tuples {
  int64_t block = 1;
  Shape block_shape;
  std::vector<int64_t> offsets;
};
Result<Tuples> tuples(const Eval& e, const Tensor& data, const Tensor& indices, int64_t batch) {
  if (indices.rank() < 1 || batch < 0 || batch >= indices.rank() || batch > data.rank())
    return e.error("indices of shape " + to_string(indices.shape()) + " do not fit data of shape " +
                   to_string(data.shape()) + ".");
  int64_t n = indices.shape().back();
  bool fits = n >= 0 && batch + n <= data.rank();
  for (int64_t i = 0; fits && i < batch; ++i) fits = indices.dim(i) == data.dim(i);
  if (!fits)
    return e.error("indices of shape " + to_string(indices.shape()) + " do not fit data of shape " +
                   to_string(data.shape()) + ".");
  Tuples t;
  t.block_shape.assign(data.shape().begin() + batch + n, data.shape().end());
  t.block = ref::product(t.block_shape);
  Shape strides = ref::strides_of(data.shape());
  auto at = ref::ints(indices);
  int64_t count = ref::product(std::span(indices.shape()).subspan(0, size_t(indices.rank() - 1)));
  int64_t batches = ref::product(std::span(data.shape()).subspan(0, size_t(batch)));
  int64_t per_batch = batches ? count / batches : 0;
  int64_t batch_stride = batch > 0 ? strides[size_t(batch) - 1] : 0;
  for (int64_t k = 0; k < count; ++k) {
    int64_t offset = per_batch ? k / per_batch * batch_stride : 0;
    for (int64_t j = 0; j < n; ++j) {
      int64_t axis = batch + j, i = AI_VMM_TAKE(checked_index(e, at[size_t(k * n + j)], data.dim(axis)));
      offset += i * strides[size_t(axis)];
    }
    t.offsets.push_back(offset);
  }
  return t;
}

Status infer_gather_nd(Infer& c) {
  int64_t batch = c.node.i("batch_dims", 0);
  auto n = c.ranked(1) && c.rank(1) > 0 ? c.dims(1).back().constant() : std::nullopt;
  if (!c.ranked(0) || !n) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  if (batch < 0 || batch >= c.rank(1) || *n < 0 || batch + *n > c.rank(0))
    return c.error("indices of shape " + to_string(c.dims(1)) + " do not fit data of shape " + to_string(c.dims(0)) +
                   ".");
  std::vector<Dim> dims(c.dims(1).begin(), c.dims(1).end() - 1);
  dims.insert(dims.end(), c.dims(0).begin() + batch + *n, c.dims(0).end());
  c.set(0, c.dtype(0), std::move(dims));
  return {};
}
Status eval_gather_nd(Eval& e) {
  const Tensor &x = e.in(0), &indices = e.in(1);
  Tuples t = AI_VMM_TAKE(tuples(e, x, indices, e.node.i("batch_dims", 0)));
  Shape shape(indices.shape().begin(), indices.shape().end() - 1);
  shape.insert(shape.end(), t.block_shape.begin(), t.block_shape.end());
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  for (size_t k = 0; k < t.offsets.size(); ++k)
    copy_view(*y, {int64_t(k) * t.block, {1}}, x, {t.offsets[k], {1}}, {t.block});
  return {};
}

// ---------------------------------------------------------------- ScatterElements, ScatterND, TensorScatter

Status infer_scatter(Infer& c) {
  c.set(0, c.type(0));
  return {};
}

// One update x := reduce(x, y), by the name of the reduction; "none" replaces.
template <class T>
T reduce(char kind, T x, T y) {
  if constexpr (std::is_same_v<T, std::string>) {
    return y;
  } else {
    if constexpr (std::is_integral_v<T>) {
      if (kind == 'a') return rules::i_add(x, y);
      if (kind == 'm') return rules::i_mul(x, y);
    } else {
      if (kind == 'a') return x + y;
      if (kind == 'm') return x * y;
    }
    if constexpr (!std::is_same_v<T, ref::Complex>) {
      if (kind == '<') return y < x || y != y ? y : x;
      if (kind == '>') return y > x || y != y ? y : x;
    }
    return y;
  }
}

// Copies `data` to the output and applies the updates: visit(f) calls f(position in updates, offset in the output).
template <class Visit>
Status scatter(Eval& e, const Tensor& data, const Tensor& updates, Visit&& visit) {
  std::string name = e.node.s("reduction", "none");
  char kind = name == "add"    ? 'a'
              : name == "mul"  ? 'm'
              : name == "min"  ? '<'
              : name == "max"  ? '>'
              : name == "none" ? ' '
                               : '?';
  if (kind == '?') return e.error("reduction \"" + name + "\" is none of none, add, mul, min, max.");
  if (kind != ' ' && (data.dtype() == DType::string || (is_complex(data.dtype()) && (kind == '<' || kind == '>'))))
    return e.error("reduction \"" + name + "\" is not defined for elements of type " + ai_vmm::name(data.dtype()) +
                   ".");
  if (updates.dtype() != data.dtype()) return e.error("data and updates differ in type.");
  Tensor* y = AI_VMM_TAKE(e.make(0, data.dtype(), data.shape()));
  copy_view(*y, {0, {1}}, data, {0, {1}}, {data.count()});
  if (kind == ' ') return visit([&](int64_t k, int64_t at) { ref::copy_element(*y, at, updates, k); });
  return ref::dispatch(data.dtype(), [&]<class T>() -> Status {
    auto values = ref::load<T>(data), more = ref::load<T>(updates);
    AI_VMM_TRY(visit(
        [&](int64_t k, int64_t at) { values[size_t(at)] = reduce<T>(kind, values[size_t(at)], more[size_t(k)]); }));
    ref::store<T>(*y, values);
    return {};
  });
}

Status eval_scatter_elements(Eval& e) {
  const Tensor &data = e.in(0), &indices = e.in(1), &updates = e.in(2);
  if (indices.shape() != updates.shape())
    return e.error("indices " + to_string(indices.shape()) + " and updates " + to_string(updates.shape()) +
                   " differ in shape.");
  return scatter(e, data, updates, [&](auto&& f) { return for_each_element(e, data, indices, f); });
}

Status eval_scatter_nd(Eval& e) {
  const Tensor &data = e.in(0), &indices = e.in(1), &updates = e.in(2);
  Tuples t = AI_VMM_TAKE(tuples(e, data, indices, 0));
  if (updates.count() != int64_t(t.offsets.size()) * t.block)
    return e.error("updates of shape " + to_string(updates.shape()) + " do not fit indices of shape " +
                   to_string(indices.shape()) + ".");
  return scatter(e, data, updates, [&](auto&& f) -> Status {
    for (size_t k = 0; k < t.offsets.size(); ++k)
      for (int64_t j = 0; j < t.block; ++j) f(int64_t(k) * t.block + j, t.offsets[k] + j);
    return {};
  });
}

Status eval_tensor_scatter(Eval& e) {
  const Tensor &cache = e.in(0), &update = e.in(1);
  std::string mode = e.node.s("mode", "linear");
  if (mode != "linear" && mode != "circular") return e.error("mode \"" + mode + "\" is neither linear nor circular.");
  int64_t axis = AI_VMM_TAKE(e.axis(e.node.i("axis", -2), cache.rank()));
  bool fits = axis > 0 && update.rank() == cache.rank() && update.dtype() == cache.dtype();
  for (int64_t i = 0; fits && i < cache.rank(); ++i)
    fits = i == axis ? update.dim(i) <= cache.dim(i) : update.dim(i) == cache.dim(i);
  if (!fits)
    return e.error("an update of shape " + to_string(update.shape()) + " does not fit a cache of shape " +
                   to_string(cache.shape()) + " on axis " + std::to_string(axis) + ".");
  int64_t batch = cache.dim(0), longest = cache.dim(axis), n = update.dim(axis);
  std::vector<int64_t> at(size_t(batch), 0);
  if (e.has(2)) {
    at = ref::ints(e.in(2));
    if (int64_t(at.size()) != batch)
      return e.error("there are " + std::to_string(at.size()) + " write indices for a batch of " +
                     std::to_string(batch) + ".");
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, cache.dtype(), cache.shape()));
  copy_view(*y, {0, {1}}, cache, {0, {1}}, {cache.count()});
  if (update.count() == 0) return {};
  auto s = std::span<const int64_t>(cache.shape());
  int64_t outer = ref::product(s.subspan(1, size_t(axis) - 1)), inner = ref::product(s.subspan(size_t(axis) + 1));
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t k = 0; k < n; ++k) {
      int64_t to = at[size_t(b)];
      if (to < 0 || to > longest || (mode == "linear" && to + n > longest))
        return e.error("the write index " + std::to_string(to) + " leaves a cache of length " +
                       std::to_string(longest) + ".");
      to = (to + k) % longest;
      copy_view(*y, {(b * outer * longest + to) * inner, {longest * inner, 1}}, update,
                {(b * outer * n + k) * inner, {n * inner, 1}}, {outer, inner});
    }
  return {};
}

// ---------------------------------------------------------------- OneHot, Compress, NonZero

Status infer_one_hot(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(2));
    return {};
  }
  int64_t axis = AI_VMM_TAKE(c.axis(c.node.i("axis", -1), c.rank(0) + 1));
  Dim depth = c.fresh();
  if (auto known = c.ints(1); known && known->size() == 1)
    depth = known->front();
  else if (auto t = c.constant(1); t && t->count() == 1 && t->dtype() != DType::string && !is_complex(t->dtype()))
    depth = ref::ints(*t)[0];
  if (depth.constant() && *depth.constant() < 0) return c.error("the depth is " + depth.to_string() + ".");
  std::vector<Dim> dims = c.dims(0);
  dims.insert(dims.begin() + axis, depth);
  c.set(0, c.dtype(2), std::move(dims));
  return {};
}
Status eval_one_hot(Eval& e) {
  const Tensor &indices = e.in(0), &values = e.in(2);
  int64_t depth = AI_VMM_TAKE(scalar_int(e, e.in(1), "the depth"));
  int64_t axis = AI_VMM_TAKE(e.axis(e.node.i("axis", -1), indices.rank() + 1));
  if (values.count() != 2) return e.error("values must be the two elements [off, on].");
  Shape shape = indices.shape();
  shape.insert(shape.begin() + axis, depth);
  Tensor* y = AI_VMM_TAKE(e.make(0, values.dtype(), shape));
  copy_view(*y, {0, {1}}, values, {0, {0}}, {y->count()});
  auto at = ref::load<double>(indices);
  int64_t inner = ref::product(std::span<const int64_t>(indices.shape()).subspan(size_t(axis)));
  for (size_t k = 0; k < at.size(); ++k) {
    double i = std::floor(at[k]) < 0 ? at[k] + double(depth) : at[k];
    if (!(i >= 0 && i < double(depth)) || i != std::floor(i)) continue;
    int64_t o = int64_t(k) / inner, r = int64_t(k) % inner;
    ref::copy_element(*y, (o * depth + int64_t(i)) * inner + r, values, 1);
  }
  return {};
}

Status infer_compress(Infer& c) {
  if (!c.node.has("axis")) {
    c.set(0, c.dtype(0), {c.fresh()});
    return {};
  }
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  std::vector<Dim> dims = c.dims(0);
  dims[size_t(AI_VMM_TAKE(c.axis(c.node.i("axis"), c.rank(0))))] = c.fresh();
  c.set(0, c.dtype(0), std::move(dims));
  return {};
}
Status eval_compress(Eval& e) {
  const Tensor& x = e.in(0);
  auto condition = ref::ints(e.in(1));
  int64_t outer = 1, size = x.count(), inner = 1, axis = 0;
  Shape shape{size};
  if (e.node.has("axis")) {
    axis = AI_VMM_TAKE(e.axis(e.node.i("axis"), x.rank()));
    shape = x.shape();
    auto s = std::span<const int64_t>(x.shape());
    outer = ref::product(s.subspan(0, size_t(axis)));
    size = x.dim(axis);
    inner = ref::product(s.subspan(size_t(axis) + 1));
  }
  std::vector<int64_t> keep;
  for (size_t i = 0; i < condition.size(); ++i)
    if (condition[i]) keep.push_back(int64_t(i));
  if (!keep.empty() && keep.back() >= size)
    return e.error("the condition is longer than the axis, which has size " + std::to_string(size) + ".");
  int64_t n = int64_t(keep.size());
  shape[size_t(axis)] = n;
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  for (int64_t k = 0; k < n; ++k)
    copy_view(*y, {k * inner, {n * inner, 1}}, x, {keep[size_t(k)] * inner, {size * inner, 1}}, {outer, inner});
  return {};
}

Status infer_non_zero(Infer& c) {
  c.set(0, DType::i64, {c.ranked(0) ? Dim(c.rank(0)) : c.fresh(), c.fresh()});
  return {};
}
Status eval_non_zero(Eval& e) {
  const Tensor& x = e.in(0);
  std::vector<int64_t> found;
  AI_VMM_TRY(ref::dispatch(x.dtype(), [&]<class T>() -> Status {
    auto v = ref::load<T>(x);
    for (size_t k = 0; k < v.size(); ++k)
      if (v[k] != T()) found.push_back(int64_t(k));
    return {};
  }));
  int64_t n = int64_t(found.size());
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::i64, {x.rank(), n}));
  auto out = y->as_mutable<int64_t>();
  Shape strides = ref::strides_of(x.shape());
  for (int64_t a = 0; a < x.rank(); ++a)
    for (int64_t k = 0; k < n; ++k) out[size_t(a * n + k)] = found[size_t(k)] / strides[size_t(a)] % x.dim(a);
  return {};
}

const OpDef kOps[] = {
    {"Gather", "", 13, "data:T, indices:I -> output:T | T: tensor, I: i32 i64", "axis:int=0",
     "Picks slices of the data along one axis; the shape of the indices takes that axis's place. Negative indices "
     "count from the end.",
     kMovesData, infer_gather, nullptr, eval_gather},
    {"GatherElements", "", 13, "data:T, indices:I -> output:T | T: tensor, I: i32 i64", "axis:int=0",
     "For every position of the indices the element at that position, with the coordinate on the axis replaced by the "
     "index.",
     kMovesData, infer_gather_elements, nullptr, eval_gather_elements},
    {"GatherND", "", 13, "data:T, indices:i64 -> output:T | T: tensor", "batch_dims:int=0",
     "Picks blocks of the data: each vector in the last axis of the indices is the leading coordinates of a block, "
     "after batch_dims shared axes.",
     kMovesData, infer_gather_nd, nullptr, eval_gather_nd},
    {"ScatterElements", "", 18, "data:T, indices:I, updates:T -> output:T | T: tensor, I: i32 i64",
     "axis:int=0, reduction:string=none",
     "A copy of the data with each update stored at its own position, the coordinate on the axis replaced by the "
     "index; reduction add, mul, min or max combines it with what is there.",
     kMovesData, infer_scatter, nullptr, eval_scatter_elements},
    {"ScatterND", "", 18, "data:T, indices:i64, updates:T -> output:T | T: tensor", "reduction:string=none",
     "A copy of the data with blocks replaced, or combined by reduction add, mul, min or max; each vector in the last "
     "axis of the indices addresses a block.",
     kMovesData, infer_scatter, nullptr, eval_scatter_nd},
    {"TensorScatter", "", 24, "past_cache:T, update:T, write_indices:i64? -> present_cache:T | T: tensor",
     "axis:int=-2, mode:string=linear",
     "Writes the update into a cache along the sequence axis, for each batch entry from its write index on; mode "
     "circular wraps around the end.",
     kMovesData, infer_scatter, nullptr, eval_tensor_scatter},
    {"OneHot", "", 28, "indices:T1, depth:T2, values:T3 -> output:T3 | T1: numeric, T2: numeric, T3: tensor",
     "axis:int=-1",
     "Inserts an axis of size depth that holds values[1] at the index and values[0] elsewhere; negative indices count "
     "from the end, others outside match nothing.",
     kMovesData, infer_one_hot, nullptr, eval_one_hot},
    {"Compress", "", 28, "input:T, condition:bool -> output:T | T: tensor", "axis:int",
     "Keeps the slices along the axis whose condition is true; without axis, elements of the flattened input.",
     kMovesData | kDataDependent, infer_compress, nullptr, eval_compress},
    {"NonZero", "", 13, "X:T -> Y:i64 | T: tensor", "",
     "The coordinates of the elements that are not zero, one column each, in row-major order.", kDataDependent,
     infer_non_zero, nullptr, eval_non_zero},
};

}  // namespace

std::span<const OpDef> gather_ops() { return kOps; }

}  // namespace ai_vmm
