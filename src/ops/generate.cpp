// Operators that make tensors from little: constants, ranges, identity matrices, windows, mel filters.

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/ref.hpp"
#include "ops/rules.hpp"

namespace ai_vmm {

namespace {

// The element type that an integer attribute names; `Context` is Infer or Eval.
template <class Context>
Result<DType> named_type(const Context& c, const char* attribute, DType fallback) {
  int64_t t = c.node.i(attribute, int64_t(fallback));
  if (t <= 0 || t >= kDTypeCount || DType(t) == DType::string || is_complex(DType(t)))
    return c.error(std::string(attribute) + " " + std::to_string(t) + " is no numeric element type.");
  return DType(t);
}

// ---------------------------------------------------------------- Constant, ConstantOfShape

template <class Context>
Result<Tensor> constant_value(const Context& c) {
  const Node& n = c.node;
  for (const char* a : {"value", "sparse_value"})
    if (const Tensor* t = n.tensor(a)) return *t;
  if (n.has("value_float")) return Tensor::scalar(n.f("value_float"));
  if (n.has("value_int")) return Tensor::scalar(n.i("value_int"));
  if (n.has("value_string")) return Tensor::scalar(n.s("value_string"));
  if (n.has("value_floats")) return Tensor::vector(n.floats("value_floats"));
  if (n.has("value_ints")) return Tensor::vector(n.ints("value_ints"));
  if (n.has("value_strings")) return Tensor::vector(n.strings("value_strings"));
  return c.error("no attribute holds the value.");
}

Status infer_constant(Infer& c) {
  Tensor t = AI_VMM_TAKE(constant_value(c));
  c.set(0, t.dtype(), to_dims(t.shape()));
  if ((t.dtype() == DType::i64 || t.dtype() == DType::i32) && t.rank() <= 1 && t.count() <= 1024) {
    auto v = ref::ints(t);
    c.set_ints(0, {v.begin(), v.end()});
  }
  return {};
}
Status eval_constant(Eval& e) {
  e.set(0, AI_VMM_TAKE(constant_value(e)));
  return {};
}

Status infer_constant_of_shape(Infer& c) {
  const Tensor* value = c.node.tensor("value");
  if (value && value->count() != 1)
    return c.error("value has " + std::to_string(value->count()) + " elements; it must have one.");
  DType t = value ? value->dtype() : DType::f32;
  if (auto shape = c.ints(0)) {
    for (const Dim& d : *shape)
      if (d.constant() && *d.constant() < 0) return c.error("the shape " + to_string(*shape) + " has a negative size.");
    if (t == DType::i64 && shape->size() <= 1) {
      auto count = shape->empty() ? 1 : (*shape)[0].constant();
      if (count && *count <= 1024)
        c.set_ints(0, std::vector<Dim>(size_t(*count), Dim(value ? ref::ints(*value)[0] : 0)));
    }
    c.set(0, t, std::move(*shape));
  } else if (auto rank = c.ranked(0) && c.rank(0) == 1 ? c.dims(0)[0].constant() : std::nullopt; rank && *rank <= 64) {
    c.set(0, t, c.fresh(*rank));
  } else {
    c.set_unranked(0, t);
  }
  return {};
}

Status eval_constant_of_shape(Eval& e) {
  const Tensor* value = e.node.tensor("value");
  Shape shape = ref::ints(e.in(0));
  if (!element_count(shape)) return e.error("the shape " + to_string(shape) + " is negative or too large.");
  DType t = value ? value->dtype() : DType::f32;
  Tensor* y = AI_VMM_TAKE(e.make(0, t, shape));
  if (!value) {
    if (y->bytes()) std::memset(y->mutable_data(), 0, size_t(y->bytes()));
    return {};
  }
  for (int64_t i = 0; i < y->count(); ++i) ref::copy_element(*y, i, *value, 0);
  return {};
}

// ---------------------------------------------------------------- Range

// Elements of start, start + delta, … before limit.
template <class T>
Result<int64_t> range_count(const auto& context, T start, T limit, T delta) {
  if (delta == 0) return context.error("delta is 0.");
  if constexpr (std::is_integral_v<T>) {
    if (delta > 0 ? limit <= start : limit >= start) return int64_t(0);
    uint64_t from = uint64_t(start), to = uint64_t(limit), step = uint64_t(delta);
    uint64_t n = delta > 0 ? (to - from - 1) / step + 1 : (from - to - 1) / (0 - step) + 1;
    return n > uint64_t(INT64_MAX) ? INT64_MAX : int64_t(n);
  } else {
    double n = std::ceil((limit - start) / delta);
    if (!(n > 0)) {
      if (std::isnan(n)) return context.error("the bounds do not give a number of elements.");
      return int64_t(0);
    }
    return n < 0x1p62 ? int64_t(n) : INT64_MAX;
  }
}

Status infer_range(Infer& c) {
  DType t = c.dtype(0);
  if (t == DType::undefined) t = c.dtype(1);
  auto start = c.ints(0), limit = c.ints(1), delta = c.ints(2);
  const Tensor *s = c.constant(0), *l = c.constant(1), *d = c.constant(2);
  if (s && l && d && s->count() == 1 && l->count() == 1 && d->count() == 1 && is_float(t)) {
    auto n = range_count(c, ref::load<double>(*s)[0], ref::load<double>(*l)[0], ref::load<double>(*d)[0]);
    c.set(0, t, {Dim(AI_VMM_TAKE(std::move(n)))});
    return {};
  }
  if (!start || !limit || !delta || start->size() != 1 || limit->size() != 1 || delta->size() != 1 ||
      !(*delta)[0].is_constant() || (*delta)[0].is(0)) {
    c.set(0, t, {c.fresh()});
    return {};
  }
  int64_t step = *(*delta)[0].constant();
  Dim span = step > 0 ? (*limit)[0] - (*start)[0] : (*start)[0] - (*limit)[0];
  Dim n = step == INT64_MIN ? c.fresh() : ceil_div(span, Dim(step > 0 ? step : -step));
  if (!known_non_negative(n)) n = max(n, Dim(0));
  if (auto count = n.constant(); count && *count <= 1024 && is_integer(t)) {
    std::vector<Dim> elements;
    for (int64_t i = 0; i < *count; ++i) elements.push_back((*start)[0] + (*delta)[0] * Dim(i));
    c.set_ints(0, std::move(elements));
  }
  c.set(0, t, {n});
  return {};
}

Status eval_range(Eval& e) {
  for (size_t k : {0, 1, 2})
    if (e.in(k).count() != 1)
      return e.error("an input has shape " + to_string(e.in(k).shape()) + "; it must be a scalar.");
  DType t = e.in(0).dtype();
  return ref::dispatch_real(e, t, [&]<class T>() -> Status {
    T start = ref::load<T>(e.in(0))[0], delta = ref::load<T>(e.in(2))[0];
    int64_t n = AI_VMM_TAKE(range_count(e, start, ref::load<T>(e.in(1))[0], delta));
    Tensor* y = AI_VMM_TAKE(e.make(0, t, {n}));
    std::vector<T> v(size_t(n), T(0));
    for (int64_t i = 0; i < n; ++i) {
      if constexpr (std::is_integral_v<T>)
        v[size_t(i)] = rules::i_add(start, rules::i_mul(T(i), delta));
      else
        v[size_t(i)] = start + double(i) * delta;
    }
    ref::store<T>(*y, v);
    return {};
  });
}

// ---------------------------------------------------------------- EyeLike

Status infer_eye_like(Infer& c) {
  DType t = AI_VMM_TAKE(named_type(c, "dtype", c.dtype(0) == DType::undefined ? DType::f32 : c.dtype(0)));
  if (!c.node.has("dtype")) t = c.dtype(0);
  if (c.ranked(0) && c.rank(0) != 2)
    return c.error("the input has rank " + std::to_string(c.rank(0)) + "; it must be 2.");
  if (c.ranked(0))
    c.set(0, t, c.dims(0));
  else
    c.set_unranked(0, t);
  return {};
}
Status eval_eye_like(Eval& e) {
  const Tensor& x = e.in(0);
  DType t = AI_VMM_TAKE(named_type(e, "dtype", x.dtype()));
  if (x.rank() != 2) return e.error("the input has rank " + std::to_string(x.rank()) + "; it must be 2.");
  Tensor* y = AI_VMM_TAKE(e.make(0, t, x.shape()));
  int64_t rows = x.dim(0), columns = x.dim(1), k = e.node.i("k");
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) write_int64(t, y->mutable_data(), i * columns + j, j - i == k);
  return {};
}

// ---------------------------------------------------------------- windows

Status infer_window(Infer& c) {
  DType t = AI_VMM_TAKE(named_type(c, "output_datatype", DType::f32));
  auto size = c.ints(0);
  if (size && size->size() == 1 && (*size)[0].constant() && *(*size)[0].constant() < 0)
    return c.error("the size is " + (*size)[0].to_string() + ".");
  c.set(0, t, {size && size->size() == 1 ? (*size)[0] : c.fresh()});
  return {};
}

// f(angle) with angle running over one turn.
template <class F>
Status eval_window(Eval& e, F f) {
  DType t = AI_VMM_TAKE(named_type(e, "output_datatype", DType::f32));
  if (e.in(0).count() != 1) return e.error("size has shape " + to_string(e.in(0).shape()) + "; it must be a scalar.");
  int64_t n = ref::ints(e.in(0))[0];
  if (n < 0) return e.error("the size is " + std::to_string(n) + ".");
  Tensor* y = AI_VMM_TAKE(e.make(0, t, {n}));
  int64_t turn = e.node.i("periodic", 1) ? n : n - 1;
  std::vector<double> v(size_t(n), 1);  // a symmetric window of one element is 1
  if (turn > 0)
    for (int64_t i = 0; i < n; ++i) v[size_t(i)] = f(2 * std::numbers::pi * double(i) / double(turn));
  ref::store(*y, v);
  return {};
}
Status eval_hann(Eval& e) {
  return eval_window(e, [](double a) { return 0.5 - 0.5 * std::cos(a); });
}
Status eval_hamming(Eval& e) {
  constexpr double kAlpha = 25.0 / 46;
  return eval_window(e, [](double a) { return kAlpha - (1 - kAlpha) * std::cos(a); });
}
Status eval_blackman(Eval& e) {
  return eval_window(e, [](double a) { return 0.42 - 0.5 * std::cos(a) + 0.08 * std::cos(2 * a); });
}

// ---------------------------------------------------------------- MelWeightMatrix

Status infer_mel(Infer& c) {
  DType t = AI_VMM_TAKE(named_type(c, "output_datatype", DType::f32));
  auto bands = c.ints(0), length = c.ints(1);
  auto one = [&](const std::optional<std::vector<Dim>>& v) {
    return v && v->size() == 1 && known_non_negative((*v)[0]);
  };
  c.set(0, t, {one(length) ? floor_div((*length)[0], 2) + 1 : c.fresh(), one(bands) ? (*bands)[0] : c.fresh()});
  return {};
}

// Triangles whose corners are equally spaced on the mel scale, mel(f) = 2595 log10(1 + f / 700).
Status eval_mel(Eval& e) {
  DType t = AI_VMM_TAKE(named_type(e, "output_datatype", DType::f32));
  for (size_t k = 0; k < 5; ++k)
    if (e.in(k).count() != 1)
      return e.error("an input has shape " + to_string(e.in(k).shape()) + "; it must be a scalar.");
  int64_t bands = ref::ints(e.in(0))[0], length = ref::ints(e.in(1))[0], rate = ref::ints(e.in(2))[0];
  double low = ref::load<double>(e.in(3))[0], high = ref::load<double>(e.in(4))[0];
  if (bands < 0 || length < 0 || rate <= 0 || length > (int64_t(1) << 40) || bands > (int64_t(1) << 40) ||
      !(low >= 0) || !(high >= low))
    return e.error("num_mel_bins " + std::to_string(bands) + ", dft_length " + std::to_string(length) +
                   ", sample_rate " + std::to_string(rate) + " and the edges " + std::to_string(low) + " and " +
                   std::to_string(high) + " make no filters.");
  int64_t rows = length / 2 + 1;
  Tensor* y = AI_VMM_TAKE(e.make(0, t, {rows, bands}));
  auto mel = [](double f) { return 2595 * std::log10(1 + f / 700); };
  double step = (mel(high) - mel(low)) / double(bands + 2);
  std::vector<int64_t> corner(size_t(bands + 2), 0);
  for (int64_t i = 0; i < bands + 2; ++i) {
    double hertz = 700 * (std::pow(10, (double(i) * step + mel(low)) / 2595) - 1);
    double bin = std::floor(double(length + 1) * hertz / double(rate));
    if (!(bin < double(rows)))
      return e.error("the upper edge " + std::to_string(high) + " Hz lies above the spectrum.");
    corner[size_t(i)] = int64_t(bin);
  }
  std::vector<double> v(size_t(rows * bands), 0);
  for (int64_t i = 0; i < bands; ++i) {
    int64_t left = corner[size_t(i)], centre = corner[size_t(i + 1)], right = corner[size_t(i + 2)];
    for (int64_t j = left; j < centre; ++j) v[size_t(j * bands + i)] = double(j - left) / double(centre - left);
    v[size_t(centre * bands + i)] = 1;
    for (int64_t j = centre + 1; j < right; ++j) v[size_t(j * bands + i)] = double(right - j) / double(right - centre);
  }
  ref::store(*y, v);
  return {};
}

constexpr const char* kWindowSignature = "size:I -> output:any | I: i32 i64";
constexpr const char* kWindowAttributes = "periodic:int=1, output_datatype:int=1";

const OpDef kOps[] = {
    {"Constant", "", 25, "-> output:any",
     "value_strings:strings, value_string:string, value_floats:floats, value_float:float, value_ints:ints, "
     "value_int:int, "
     "sparse_value:tensor, value:tensor",
     "The tensor that one of the attributes holds; a sparse one is given dense.", kMovesData, infer_constant, nullptr,
     eval_constant},
    {"ConstantOfShape", "", 25, "input:i64 -> output:any", "value:tensor",
     "A tensor of the given shape filled with the one element of value, or with float 0.", kMovesData,
     infer_constant_of_shape, nullptr, eval_constant_of_shape},
    {"Range", "", 27, "start:T, limit:T, delta:T -> output:T | T: f16 bf16 f32 f64 i16 i32 i64", "stash_type:int=1",
     "start, start + delta, ... up to but not including limit, computed in double for every float type, which holds "
     "what "
     "either stash_type asks for.",
     kDataDependent, infer_range, nullptr, eval_range},
    {"EyeLike", "", 22, "input:any -> output:any", "dtype:int, k:int=0",
     "A matrix of the input's shape with ones on diagonal k (above the main one where positive) and zeros elsewhere.",
     kNoTrait, infer_eye_like, nullptr, eval_eye_like},
    {"HannWindow", "", 17, kWindowSignature, kWindowAttributes, "Hann window: (1 - cos(2 pi n / N)) / 2.",
     kDataDependent, infer_window, nullptr, eval_hann},
    {"HammingWindow", "", 17, kWindowSignature, kWindowAttributes, "Hamming window: 25/46 - 21/46 cos(2 pi n / N).",
     kDataDependent, infer_window, nullptr, eval_hamming},
    {"BlackmanWindow", "", 17, kWindowSignature, kWindowAttributes,
     "Blackman window: 0.42 - 0.5 cos(2 pi n / N) + 0.08 cos(4 pi n / N).", kDataDependent, infer_window, nullptr,
     eval_blackman},
    {"MelWeightMatrix", "", 17,
     "num_mel_bins:I, dft_length:I, sample_rate:I, lower_edge_hertz:F, upper_edge_hertz:F -> output:any | I: i32 i64, "
     "F: float",
     "output_datatype:int=1",
     "Triangular filters that turn a spectrum of dft_length / 2 + 1 bins into mel bands: [bins, bands], each of peak "
     "1.",
     kDataDependent, infer_mel, nullptr, eval_mel},
};

}  // namespace

std::span<const OpDef> generate_ops() { return kOps; }

}  // namespace ai_vmm
