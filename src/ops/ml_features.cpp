// ai.onnx.ml: preparing features — encoders, scalers, and conversions between tensors and maps.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <unordered_map>

#include "ops/all_ops.hpp"
#include "ops/move.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

Status infer_as_input(Infer& c) {
  c.set(0, c.type(0));
  return {};
}
// The shape of input 0 with another element type.
Status set_typed(Infer& c, DType dtype) {
  Type t = c.type(0);
  t.kind = Type::Kind::tensor;
  t.dtype = dtype;
  c.set(0, std::move(t));
  return {};
}
Status infer_f32(Infer& c) { return set_typed(c, DType::f32); }

// ---------------------------------------------------------------- ArrayFeatureExtractor, Binarizer

Status infer_extract(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    return {};
  }
  if (c.rank(0) == 0) return c.error("the input is a scalar.");
  std::vector<Dim> dims(c.dims(0).begin(), c.dims(0).end() - 1);
  if (dims.empty()) dims.emplace_back(1);
  dims.push_back(c.ranked(1) ? product(c.dims(1)) : c.fresh());
  c.set(0, c.dtype(0), std::move(dims));
  return {};
}
Status eval_extract(Eval& e) {
  const Tensor& x = e.in(0);
  if (x.rank() == 0) return e.error("the input is a scalar.");
  auto at = ref::ints(e.in(1));
  Shape shape(x.shape().begin(), x.shape().end() - 1);
  if (shape.empty()) shape.push_back(1);
  int64_t rows = ref::product(shape), width = x.shape().back(), n = int64_t(at.size());
  shape.push_back(n);
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), shape));
  for (int64_t k = 0; k < n; ++k) {
    if (at[size_t(k)] < 0 || at[size_t(k)] >= width)
      return e.error("index " + std::to_string(at[size_t(k)]) + " is outside a row of " + std::to_string(width) + ".");
    copy_view(*y, {k, {n}}, x, {at[size_t(k)], {width}}, {rows});
  }
  return {};
}

Status eval_binarizer(Eval& e) {
  const Tensor& x = e.in(0);
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  auto v = ref::load<double>(x);
  double threshold = e.node.f("threshold", 0);
  for (double& d : v) d = d > threshold;
  ref::store(*y, v);
  return {};
}

// ---------------------------------------------------------------- maps and tensors

DType cast_map_type(const Node& node) {
  std::string to = node.s("cast_to", "TO_FLOAT");
  return to == "TO_FLOAT"    ? DType::f32
         : to == "TO_STRING" ? DType::string
         : to == "TO_INT64"  ? DType::i64
                             : DType::undefined;
}
Status infer_cast_map(Infer& c) {
  if (cast_map_type(c.node) == DType::undefined)
    return c.error("cast_to \"" + c.node.s("cast_to") + "\" is none of TO_FLOAT, TO_STRING, TO_INT64.");
  c.set(0, cast_map_type(c.node),
        {Dim(1), c.node.s("map_form", "DENSE") == "SPARSE" ? Dim(c.node.i("max_map", 1)) : c.fresh()});
  return {};
}
// One element of a map's values in another type: text is parsed, numbers are printed.
Status cast_value(const Eval& e, Tensor& to, int64_t i, const Tensor& from, int64_t j) {
  if (from.dtype() == to.dtype()) {
    ref::copy_element(to, i, from, j);
  } else if (from.dtype() == DType::string) {
    const std::string& text = from.as<std::string>()[size_t(j)];
    char* end = nullptr;
    double v = std::strtod(text.c_str(), &end);
    if (end == text.c_str()) return e.error("\"" + text + "\" is not a number.");
    write_double(to.dtype(), to.mutable_data(), i, to.dtype() == DType::i64 ? std::trunc(v) : v);
    if (to.dtype() == DType::i64) to.as_mutable<int64_t>()[size_t(i)] = std::strtoll(text.c_str(), nullptr, 10);
  } else if (to.dtype() == DType::string) {
    to.as_mutable<std::string>()[size_t(i)] = std::to_string(float(read_double(from.dtype(), from.data(), j)));
  } else if (to.dtype() == DType::i64) {
    to.as_mutable<int64_t>()[size_t(i)] = to_int64(read_double(from.dtype(), from.data(), j));
  } else {
    write_double(to.dtype(), to.mutable_data(), i, read_double(from.dtype(), from.data(), j));
  }
  return {};
}
Status eval_cast_map(Eval& e) {
  if (!e.has(0) || !e.data(0).is_map()) return e.error("the input is not a map.");
  const MapData& map = e.data(0).map();
  if (map.keys.dtype() == DType::string || map.keys.count() != map.values.count())
    return e.error("the map must have integer keys, one for each value.");
  auto keys = ref::ints(map.keys);
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return keys[a] < keys[b]; });
  bool sparse = e.node.s("map_form", "DENSE") == "SPARSE";
  int64_t width = sparse ? e.node.i("max_map", 1) : int64_t(keys.size());
  if (width < 0) return e.error("max_map is " + std::to_string(width) + ".");
  DType dtype = cast_map_type(e.node);
  Tensor* y = AI_VMM_TAKE(e.make(0, dtype, {1, width}));
  fill_zero(*y);
  if (sparse && dtype == DType::string)
    for (std::string& s : y->as_mutable<std::string>()) s = "0";
  int64_t at = 0;
  for (size_t k : order) {
    if (sparse && (keys[k] < 0 || keys[k] >= width))
      return e.error("the key " + std::to_string(keys[k]) + " is outside max_map " + std::to_string(width) + ".");
    AI_VMM_TRY(cast_value(e, *y, sparse ? keys[k] : at++, map.values, int64_t(k)));
  }
  return {};
}

Status infer_dict(Infer& c) {
  size_t n = std::max(c.node.ints("int64_vocabulary").size(), c.node.strings("string_vocabulary").size());
  DType dtype = c.type(0).element ? c.type(0).element->dtype : DType::undefined;
  c.set(0, dtype, {Dim(1), Dim(int64_t(n))});
  return {};
}
template <class K>
Status fill_from_map(const Eval& e, Tensor& y, const MapData& map, const std::vector<K>& vocabulary) {
  std::map<K, int64_t> found;
  auto keys = ref::load<K>(map.keys);
  for (size_t k = 0; k < keys.size(); ++k) found[keys[k]] = int64_t(k);
  if (map.values.count() != int64_t(keys.size())) return e.error("keys and values of the map differ in number.");
  for (size_t i = 0; i < vocabulary.size(); ++i)
    if (auto it = found.find(vocabulary[i]); it != found.end())
      ref::copy_element(y, int64_t(i), map.values, it->second);
  return {};
}
Status eval_dict(Eval& e) {
  if (!e.has(0) || !e.data(0).is_map()) return e.error("the input is not a map.");
  const MapData& map = e.data(0).map();
  auto numbers = e.node.ints("int64_vocabulary");
  auto words = e.node.strings("string_vocabulary");
  if ((map.keys.dtype() == DType::string) == words.empty())
    return e.error("the vocabulary and the keys of the map differ in type.");
  Tensor* y = AI_VMM_TAKE(e.make(0, map.values.dtype(), {1, int64_t(std::max(numbers.size(), words.size()))}));
  fill_zero(*y);
  return words.empty() ? fill_from_map(e, *y, map, numbers) : fill_from_map(e, *y, map, words);
}

Status infer_zip_map(Infer& c) {
  DType key =
      c.node.has("classlabels_strings") && !c.node.strings("classlabels_strings").empty() ? DType::string : DType::i64;
  c.set(0, Type::sequence(Type::map(key, Type::tensor(DType::f32))));
  return {};
}
Status eval_zip_map(Eval& e) {
  const Tensor& x = e.in(0);
  if (x.rank() < 1 || x.rank() > 2)
    return e.error("the input must be [C] or [N, C]; it is " + to_string(x.shape()) + ".");
  auto numbers = e.node.ints("classlabels_int64s");
  auto words = e.node.strings("classlabels_strings");
  int64_t width = x.shape().back(), rows = x.rank() == 2 ? x.dim(0) : 1;
  if (width != int64_t(words.empty() ? numbers.size() : words.size()))
    return e.error("there are " + std::to_string(width) + " columns; the class labels differ in number.");
  Tensor keys = words.empty() ? Tensor::vector(numbers) : Tensor::vector(words);
  Sequence out;
  for (int64_t r = 0; r < rows; ++r) {
    auto map = std::make_shared<MapData>();
    map->keys = keys;
    map->values = AI_VMM_TAKE(Tensor::make(x.dtype(), {width}));
    copy_view(map->values, {0, {1}}, x, {r * width, {1}}, {width});
    out.emplace_back(std::move(map));
  }
  e.set(0, Data(std::make_shared<Sequence>(std::move(out))));
  return {};
}

// ---------------------------------------------------------------- categories

Status infer_category_mapper(Infer& c) {
  return set_typed(c, c.dtype(0) == DType::string      ? DType::i64
                      : c.dtype(0) == DType::undefined ? DType::undefined
                                                       : DType::string);
}
Status eval_category_mapper(Eval& e) {
  const Tensor& x = e.in(0);
  auto words = e.node.strings("cats_strings");
  auto numbers = e.node.ints("cats_int64s");
  if (words.size() != numbers.size()) return e.error("cats_strings and cats_int64s differ in length.");
  bool to_number = x.dtype() == DType::string;
  Tensor* y = AI_VMM_TAKE(e.make(0, to_number ? DType::i64 : DType::string, x.shape()));
  std::unordered_map<std::string, int64_t> number_of;
  std::unordered_map<int64_t, std::string> word_of;
  for (size_t k = 0; k < words.size(); ++k) {
    number_of[words[k]] = numbers[k];
    word_of[numbers[k]] = words[k];
  }
  for (size_t k = 0; k < size_t(x.count()); ++k) {
    if (to_number) {
      auto it = number_of.find(x.as<std::string>()[k]);
      y->as_mutable<int64_t>()[k] = it == number_of.end() ? e.node.i("default_int64", -1) : it->second;
    } else {
      auto it = word_of.find(x.as<int64_t>()[k]);
      y->as_mutable<std::string>()[k] = it == word_of.end() ? e.node.s("default_string", "_Unused") : it->second;
    }
  }
  return {};
}

// The list that LabelEncoder has as one of four attributes: prefix "keys" or "values".
Result<Tensor> label_list(const auto& c, const std::string& prefix) {
  const Node& node = c.node;
  if (const Tensor* t = node.tensor(prefix + "_tensor")) return *t;
  if (node.has(prefix + "_strings")) return Tensor::vector(node.strings(prefix + "_strings"));
  if (node.has(prefix + "_int64s")) return Tensor::vector(node.ints(prefix + "_int64s"));
  if (node.has(prefix + "_floats")) return Tensor::vector(node.floats(prefix + "_floats"));
  return c.error("it has no list of " + prefix + ".");
}
Status infer_label_encoder(Infer& c) {
  Tensor values = AI_VMM_TAKE(label_list(c, "values"));
  return set_typed(c, values.dtype());
}
template <class K>
struct SameKey {
  bool operator()(const K& a, const K& b) const { return a == b || (a != a && b != b); }
};
template <class K>
struct KeyHash {
  size_t operator()(const K& k) const { return k != k ? 0 : std::hash<K>()(k); }  // all NaNs are one key
};
Status eval_label_encoder(Eval& e) {
  const Tensor& x = e.in(0);
  Tensor keys = AI_VMM_TAKE(label_list(e, "keys"));
  Tensor values = AI_VMM_TAKE(label_list(e, "values"));
  if (keys.count() != values.count())
    return e.error("there are " + std::to_string(keys.count()) + " keys and " + std::to_string(values.count()) +
                   " values.");
  if ((keys.dtype() == DType::string) != (x.dtype() == DType::string))
    return e.error("the keys are of type " + std::string(name(keys.dtype())) + ", the input of " + name(x.dtype()) +
                   ".");
  Tensor fallback;
  if (const Tensor* t = e.node.tensor("default_tensor")) {
    if (t->count() != 1 || t->dtype() != values.dtype())
      return e.error("default_tensor must be one element of the values' type.");
    fallback = *t;
  } else if (values.dtype() == DType::string) {
    fallback = Tensor::scalar(e.node.s("default_string", "_Unused"));
  } else {
    fallback = AI_VMM_TAKE(Tensor::make(values.dtype(), {}));
    if (is_float(values.dtype()))
      write_double(values.dtype(), fallback.mutable_data(), 0, e.node.f("default_float", -0.0f));
    else
      write_int64(values.dtype(), fallback.mutable_data(), 0, e.node.i("default_int64", -1));
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, values.dtype(), x.shape()));
  return ref::dispatch(x.dtype(), [&]<class K>() -> Status {
    if constexpr (std::is_same_v<K, ref::Complex>) {
      return e.error("complex keys are not supported.");
    } else {
      auto k = ref::load<K>(keys), v = ref::load<K>(x);
      std::unordered_map<K, int64_t, KeyHash<K>, SameKey<K>> found;
      for (size_t i = 0; i < k.size(); ++i) found[k[i]] = int64_t(i);
      for (size_t i = 0; i < v.size(); ++i) {
        auto it = found.find(v[i]);
        it == found.end() ? ref::copy_element(*y, int64_t(i), fallback, 0)
                          : ref::copy_element(*y, int64_t(i), values, it->second);
      }
      return {};
    }
  });
}

Status infer_one_hot_encoder(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, DType::f32);
    return {};
  }
  std::vector<Dim> dims = c.dims(0);
  dims.emplace_back(int64_t(std::max(c.node.ints("cats_int64s").size(), c.node.strings("cats_strings").size())));
  c.set(0, DType::f32, std::move(dims));
  return {};
}
template <class K>
Status fill_one_hot(const Eval& e, Tensor& y, const std::vector<K>& x, const std::vector<K>& categories) {
  std::unordered_map<K, size_t> column;
  for (size_t i = 0; i < categories.size(); ++i) column[categories[i]] = i;
  auto out = y.as_mutable<float>();
  for (size_t k = 0; k < x.size(); ++k) {
    auto it = column.find(x[k]);
    if (it != column.end())
      out[k * categories.size() + it->second] = 1;
    else if (e.node.i("zeros", 1) == 0)
      return e.error("element " + std::to_string(k) + " is in no category, and zeros is 0.");
  }
  return {};
}
Status eval_one_hot_encoder(Eval& e) {
  const Tensor& x = e.in(0);
  auto numbers = e.node.ints("cats_int64s");
  auto words = e.node.strings("cats_strings");
  Shape shape = x.shape();
  shape.push_back(int64_t(std::max(numbers.size(), words.size())));
  if ((x.dtype() == DType::string) == words.empty()) return e.error("the categories and the input differ in type.");
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::f32, shape));
  fill_zero(*y);
  if (x.dtype() == DType::string) return fill_one_hot(e, *y, ref::load<std::string>(x), words);
  return fill_one_hot(e, *y, ref::load<int64_t>(x), numbers);
}

// ---------------------------------------------------------------- numbers

Dim row_count(Infer& c, size_t k) { return !c.ranked(k) ? c.fresh() : c.rank(k) == 2 ? c.dims(k)[0] : Dim(1); }

Status infer_feature_vectorizer(Infer& c) {
  auto widths = c.node.ints("inputdimensions");
  Dim total = 0;
  for (size_t k = 0; k < c.inputs(); ++k) {
    if (k < widths.size())
      total = total + Dim(widths[k]);
    else
      total = total + (c.ranked(k) && c.rank(k) > 0 ? c.dims(k).back() : c.fresh());
  }
  c.set(0, DType::f32, {row_count(c, 0), total});
  return {};
}
Status eval_feature_vectorizer(Eval& e) {
  auto widths = e.node.ints("inputdimensions");
  std::vector<int64_t> own;
  int64_t rows = -1, total = 0;
  for (size_t k = 0; k < e.inputs(); ++k) {
    const Tensor& x = e.in(k);
    if (x.rank() < 1 || x.rank() > 2) return e.error("inputs must be [C] or [N, C].");
    int64_t n = x.rank() == 2 ? x.dim(0) : 1;
    if (rows >= 0 && n != rows)
      return e.error("the inputs differ in rows: " + std::to_string(rows) + " and " + std::to_string(n) + ".");
    rows = n;
    own.push_back(k < widths.size() ? widths[k] : x.shape().back());
    if (own.back() < 0 || __builtin_add_overflow(total, own.back(), &total))
      return e.error("inputdimensions " + to_string(widths) + " are impossible.");
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::f32, {rows, total}));
  fill_zero(*y);
  auto out = y->as_mutable<float>();
  int64_t at = 0;
  for (size_t k = 0; k < e.inputs(); ++k) {
    int64_t have = e.in(k).shape().back();
    auto v = ref::load<double>(e.in(k));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < std::min(have, own[k]); ++i)
        out[size_t(r * total + at + i)] = float(v[size_t(r * have + i)]);
    at += own[k];
  }
  return {};
}

template <class T>
Status impute(Eval& e, const std::vector<T>& with, T missing) {
  const Tensor& x = e.in(0);
  size_t width = x.rank() ? size_t(x.shape().back()) : 1;
  if (with.empty() || (with.size() != 1 && with.size() != width))
    return e.error("there are " + std::to_string(with.size()) + " imputed values for " + std::to_string(width) +
                   " features; it takes 1 or as many.");
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), x.shape()));
  auto v = ref::load<T>(x);
  for (size_t k = 0; k < v.size(); ++k)
    if (v[k] == missing || (v[k] != v[k] && missing != missing)) v[k] = with[with.size() == 1 ? 0 : k % width];
  ref::store(*y, v);
  return {};
}
Status eval_imputer(Eval& e) {
  if (is_float(e.in(0).dtype())) {
    auto with = e.node.floats("imputed_value_floats");
    return impute<double>(e, {with.begin(), with.end()}, e.node.f("replaced_value_float", 0));
  }
  return impute<int64_t>(e, e.node.ints("imputed_value_int64s"), e.node.i("replaced_value_int64", 0));
}

Status eval_normalizer(Eval& e) {
  const Tensor& x = e.in(0);
  std::string norm = e.node.s("norm", "MAX");
  if (norm != "MAX" && norm != "L1" && norm != "L2") return e.error("norm \"" + norm + "\" is none of MAX, L1, L2.");
  if (x.rank() < 1 || x.rank() > 2)
    return e.error("the input must be [C] or [N, C]; it is " + to_string(x.shape()) + ".");
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::f32, x.shape()));
  auto v = ref::load<double>(x);
  size_t width = size_t(x.shape().back());
  for (size_t row = 0; row + width <= v.size() && width; row += width) {
    double by = norm == "MAX" ? -INFINITY : 0;
    for (size_t i = row; i < row + width; ++i)
      by = norm == "MAX" ? std::max(by, v[i]) : by + (norm == "L1" ? std::fabs(v[i]) : v[i] * v[i]);
    if (norm == "L2") by = std::sqrt(by);
    for (size_t i = row; i < row + width && by != 0; ++i) v[i] /= by;
  }
  ref::store(*y, v);
  return {};
}

Status eval_scaler(Eval& e) {
  const Tensor& x = e.in(0);
  auto offset = e.node.floats("offset"), scale = e.node.floats("scale");
  size_t width = x.rank() ? size_t(x.shape().back()) : 1;
  for (const auto* a : {&offset, &scale})
    if (a->size() != 1 && a->size() != width)
      return e.error("there are " + std::to_string(a->size()) + " offsets or scales for " + std::to_string(width) +
                     " features; it takes 1 or as many.");
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::f32, x.shape()));
  auto v = ref::load<double>(x);
  for (size_t k = 0; k < v.size(); ++k)
    v[k] = (v[k] - offset[offset.size() == 1 ? 0 : k % width]) * scale[scale.size() == 1 ? 0 : k % width];
  ref::store(*y, v);
  return {};
}

#define NUMBERS "f32 f64 i64 i32"
const OpDef kOps[] = {
    {"ArrayFeatureExtractor", "ai.onnx.ml", 1, "X:T, Y:i64 -> Z:T | T: f32 f64 i64 i32 string", "",
     "Picks columns (the last axis) by index; a vector counts as one row.", kMovesData, infer_extract, nullptr,
     eval_extract},
    {"Binarizer", "ai.onnx.ml", 1, "X:T -> Y:T | T: " NUMBERS, "threshold:float=0.0",
     "1 where greater than the threshold, else 0.", kElementwise, infer_as_input, nullptr, eval_binarizer},
    {"CastMap", "ai.onnx.ml", 1, "X:map -> Y:T | T: f32 i64 string",
     "cast_to:string=TO_FLOAT, map_form:string=DENSE, max_map:int=1",
     "The values of a map in the order of its integer keys, or (SPARSE) at the columns that the keys name, as one row "
     "of another type.",
     kHostOnly, infer_cast_map, nullptr, eval_cast_map},
    {"CategoryMapper", "ai.onnx.ml", 1, "X:T1 -> Y:T2 | T1: string i64, T2: string i64",
     "cats_int64s:ints, cats_strings:strings, default_int64:int=-1, default_string:string=_Unused",
     "Strings to integers, or integers to strings, by a table of both; what is not in the table becomes the default.",
     kHostOnly, infer_category_mapper, nullptr, eval_category_mapper},
    {"DictVectorizer", "ai.onnx.ml", 1, "X:map -> Y:T | T: f32 f64 i64 string",
     "int64_vocabulary:ints, string_vocabulary:strings",
     "A map as one row: column i holds the value of the i-th key of the vocabulary, or zero.", kHostOnly, infer_dict,
     nullptr, eval_dict},
    {"FeatureVectorizer", "ai.onnx.ml", 1, "X:T* -> Y:f32 | T: " NUMBERS, "inputdimensions:ints",
     "Joins matrices along the columns, each cut or padded with zeros to its given width.", kMovesData,
     infer_feature_vectorizer, nullptr, eval_feature_vectorizer},
    {"Imputer", "ai.onnx.ml", 1, "X:T -> Y:T | T: " NUMBERS,
     "imputed_value_floats:floats, imputed_value_int64s:ints, replaced_value_float:float=0.0, "
     "replaced_value_int64:int=0",
     "Replaces one value (which may be NaN) by another, given once or per column.", kNoTrait, infer_as_input, nullptr,
     eval_imputer},
    {"LabelEncoder", "ai.onnx.ml", 4, "X:T1 -> Y:T2 | T1: string i64 f32 i32 i16 f64, T2: string i64 f32 i32 i16 f64",
     "default_float:float=-0.0, default_int64:int=-1, default_string:string=_Unused, default_tensor:tensor, "
     "keys_floats:floats, keys_int64s:ints, keys_strings:strings, keys_tensor:tensor, "
     "values_floats:floats, values_int64s:ints, values_strings:strings, values_tensor:tensor",
     "Replaces every key by its value; what is no key becomes the default. NaN matches NaN; of equal keys the last "
     "counts.",
     kNoTrait, infer_label_encoder, nullptr, eval_label_encoder},
    {"Normalizer", "ai.onnx.ml", 1, "X:T -> Y:f32 | T: " NUMBERS, "norm:string=MAX",
     "Divides each row by its largest value, its sum of magnitudes (L1) or its length (L2), unless that is 0.",
     kNoTrait, infer_f32, nullptr, eval_normalizer},
    {"OneHotEncoder", "ai.onnx.ml", 1, "X:T -> Y:f32 | T: string " NUMBERS,
     "cats_int64s:ints, cats_strings:strings, zeros:int=1",
     "A new last axis with 1 at the element's category; an unknown one gives zeros, or an error when zeros is 0.",
     kNoTrait, infer_one_hot_encoder, nullptr, eval_one_hot_encoder},
    {"Scaler", "ai.onnx.ml", 1, "X:T -> Y:f32 | T: " NUMBERS, "offset:floats, scale:floats",
     "(X - offset) * scale, per column or the same for all.", kNoTrait, infer_f32, nullptr, eval_scaler},
    {"ZipMap", "ai.onnx.ml", 1, "X:f32 -> Z:S | S: seq", "classlabels_int64s:ints, classlabels_strings:strings",
     "Each row as a map from class label to value.", kHostOnly, infer_zip_map, nullptr, eval_zip_map},
};

}  // namespace

std::span<const OpDef> ml_features_ops() { return kOps; }

}  // namespace ai_vmm
