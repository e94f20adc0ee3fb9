// Operators on strings, and TfIdfVectorizer, which also takes integers.
#include <locale.h>
#include <re2/re2.h>
#include <wctype.h>

#include <algorithm>
#include <map>
#include <set>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

// ---------------------------------------------------------------- StringConcat

Status eval_concat(Eval& e) {
  const Tensor &a = e.in(0), &b = e.in(1);
  const Shape shapes[] = {a.shape(), b.shape()};
  Shape shape = AI_VMM_TAKE(ref::broadcast(e, shapes));
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::string, shape));
  Shape sa = ref::broadcast_strides(a.shape(), shape), sb = ref::broadcast_strides(b.shape(), shape);
  auto x = a.as<std::string>(), z = b.as<std::string>();
  auto out = y->as_mutable<std::string>();
  size_t k = 0;
  for (ref::Index i(shape); i.more(); i.next()) out[k++] = x[size_t(i.offset(sa))] + z[size_t(i.offset(sb))];
  return {};
}

// ---------------------------------------------------------------- StringSplit

constexpr std::string_view kBlank = " \t\n\r\f\v";

// At most `most` cuts; an empty delimiter stands for runs of white space, which are also dropped at the start and end.
std::vector<std::string> split_string(std::string_view text, std::string_view delimiter, int64_t most) {
  std::vector<std::string> parts;
  if (delimiter.empty()) {
    for (;;) {
      text.remove_prefix(std::min(text.find_first_not_of(kBlank), text.size()));
      if (text.empty()) return parts;
      if (int64_t(parts.size()) == most) break;
      size_t n = std::min(text.find_first_of(kBlank), text.size());
      parts.emplace_back(text.substr(0, n));
      text.remove_prefix(n);
    }
  } else {
    while (int64_t(parts.size()) != most) {
      size_t n = text.find(delimiter);
      if (n == text.npos) break;
      parts.emplace_back(text.substr(0, n));
      text.remove_prefix(n + delimiter.size());
    }
  }
  parts.emplace_back(text);
  return parts;
}

Status infer_split(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, DType::string);
    c.set_unranked(1, DType::i64);
    return {};
  }
  std::vector<Dim> dims = c.dims(0);
  c.set(1, DType::i64, dims);
  dims.push_back(c.fresh());
  c.set(0, DType::string, std::move(dims));
  return {};
}
Status eval_split(Eval& e) {
  const Tensor& x = e.in(0);
  std::string delimiter = e.node.s("delimiter");
  int64_t most = e.node.i("maxsplit", -1);
  std::vector<std::vector<std::string>> all;
  size_t widest = 0;
  for (const std::string& s : x.as<std::string>()) {
    all.push_back(split_string(s, delimiter, most));
    widest = std::max(widest, all.back().size());
  }
  Shape shape = x.shape();
  Tensor* counts = AI_VMM_TAKE(e.make(1, DType::i64, shape));
  shape.push_back(int64_t(widest));
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::string, shape));
  auto out = y->as_mutable<std::string>();
  for (size_t k = 0; k < all.size(); ++k) {
    counts->as_mutable<int64_t>()[k] = int64_t(all[k].size());
    std::move(all[k].begin(), all[k].end(), out.begin() + int64_t(k * widest));
  }
  return {};
}

// ---------------------------------------------------------------- StringNormalizer

// Case mapping of UTF-8 text by a locale of the C library; bytes that are not UTF-8 stay as they are.
class CaseMap {
 public:
  explicit CaseMap(const std::string& name) {
    for (const char* n : {name.c_str(), "C.UTF-8", "C"})
      if (*n && (locale_ = newlocale(LC_CTYPE_MASK, n, nullptr))) break;
  }
  ~CaseMap() {
    if (locale_) freelocale(locale_);
  }
  CaseMap(const CaseMap&) = delete;

  std::string lower(const std::string& s) const { return map(s, towlower_l); }
  std::string upper(const std::string& s) const { return map(s, towupper_l); }

 private:
  std::string map(const std::string& s, wint_t (*f)(wint_t, locale_t)) const {
    std::string out;
    for (size_t i = 0; i < s.size();) {
      auto byte = [&](size_t k) { return i + k < s.size() ? unsigned(uint8_t(s[i + k])) : 0u; };
      unsigned b = byte(0);
      size_t n = b < 0x80 ? 1 : b >= 0xc2 && b < 0xe0 ? 2 : b >= 0xe0 && b < 0xf0 ? 3 : b >= 0xf0 && b < 0xf5 ? 4 : 0;
      bool valid = n > 0;
      for (size_t k = 1; k < n; ++k) valid = valid && (byte(k) & 0xc0) == 0x80;
      if (!valid) {
        out += s[i++];
        continue;
      }
      unsigned code = n == 1 ? b : b & (0x7fu >> n);
      for (size_t k = 1; k < n; ++k) code = code << 6 | (byte(k) & 0x3f);
      append(out, locale_ ? unsigned(f(wint_t(code), locale_)) : code);
      i += n;
    }
    return out;
  }
  static void append(std::string& out, unsigned code) {
    if (code < 0x80) {
      out += char(code);
      return;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    out += char((0xf00u >> more & 0xff) | code >> (6 * more));
    while (more-- > 0) out += char(0x80 | (code >> (6 * more) & 0x3f));
  }

  locale_t locale_ = nullptr;
};

Status infer_normalizer(Infer& c) {
  if (!c.ranked(0)) {
    c.set_unranked(0, DType::string);
    return {};
  }
  if (c.rank(0) != 1 && !(c.rank(0) == 2 && !known_different(c.dims(0)[0], 1)))
    return c.error("the input must be [C] or [1, C]; it is " + to_string(c.dims(0)) + ".");
  if (c.rank(0) == 1)
    c.set(0, DType::string, {c.fresh()});
  else
    c.set(0, DType::string, {Dim(1), c.fresh()});
  return {};
}
Status eval_normalizer(Eval& e) {
  const Tensor& x = e.in(0);
  if (x.rank() < 1 || x.rank() > 2 || (x.rank() == 2 && x.dim(0) != 1))
    return e.error("the input must be [C] or [1, C]; it is " + to_string(x.shape()) + ".");
  std::string action = e.node.s("case_change_action", "NONE");
  if (action != "NONE" && action != "LOWER" && action != "UPPER")
    return e.error("case_change_action \"" + action + "\" is none of LOWER, UPPER, NONE.");
  CaseMap map(e.node.s("locale"));
  bool exact = e.node.i("is_case_sensitive", 0) != 0;
  std::set<std::string> stop;
  for (const std::string& s : e.node.strings("stopwords")) stop.insert(exact ? s : map.lower(s));
  std::vector<std::string> kept;
  for (const std::string& s : x.as<std::string>())
    if (!stop.count(exact ? s : map.lower(s)))
      kept.push_back(action == "LOWER" ? map.lower(s) : action == "UPPER" ? map.upper(s) : s);
  if (kept.empty()) kept.emplace_back();
  Shape shape = x.shape();
  shape.back() = int64_t(kept.size());
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::string, shape));
  ref::store(*y, kept);
  return {};
}

// ---------------------------------------------------------------- RegexFullMatch

Status infer_regex(Infer& c) {
  Type t = c.type(0);
  t.dtype = DType::boolean;
  c.set(0, std::move(t));
  return {};
}
Status eval_regex(Eval& e) {
  re2::RE2::Options options;
  options.set_log_errors(false);
  re2::RE2 pattern(e.node.s("pattern"), options);
  if (!pattern.ok())
    return e.error("the pattern \"" + e.node.s("pattern") + "\" is not a regular expression: " + pattern.error() + ".");
  const Tensor& x = e.in(0);
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::boolean, x.shape()));
  auto* out = static_cast<uint8_t*>(y->mutable_data());
  for (const std::string& s : x.as<std::string>()) *out++ = re2::RE2::FullMatch(s, pattern);
  return {};
}

// ---------------------------------------------------------------- TfIdfVectorizer

Result<int64_t> tfidf_width(const auto& c) {
  int64_t width = 0;
  for (int64_t i : c.node.ints("ngram_indexes")) {
    if (i < 0 || i > (int64_t(1) << 40)) return c.error("ngram_indexes has the entry " + std::to_string(i) + ".");
    width = std::max(width, i + 1);
  }
  return width;
}
Status infer_tfidf(Infer& c) {
  int64_t width = AI_VMM_TAKE(tfidf_width(c));
  if (!c.ranked(0))
    c.set_unranked(0, DType::f32);
  else if (c.rank(0) == 2)
    c.set(0, DType::f32, {c.dims(0)[0], width});
  else if (c.rank(0) == 1)
    c.set(0, DType::f32, {width});
  else
    return c.error("the input must have rank 1 or 2.");
  return {};
}

// Counts the n-grams of `pool` in the rows of `x`, into columns.
template <class T>
Status count_ngrams(const Eval& e, const std::vector<T>& pool, const std::vector<T>& x, int64_t rows, int64_t width,
                    std::vector<double>& counts) {
  auto starts = e.node.ints("ngram_counts"), columns = e.node.ints("ngram_indexes");
  int64_t shortest = e.node.i("min_gram_length"), longest = e.node.i("max_gram_length"),
          skips = e.node.i("max_skip_count");
  if (shortest < 1 || longest < shortest || skips < 0 || int64_t(starts.size()) < longest)
    return e.error("its n-gram lengths, counts and skips do not fit together.");
  std::map<std::vector<T>, int64_t> column_of;
  size_t id = 0;
  for (size_t n = 1; n <= starts.size(); ++n) {
    int64_t begin = starts[n - 1], end = n < starts.size() ? starts[n] : int64_t(pool.size());
    if (begin < 0 || end < begin || end > int64_t(pool.size()) || (end - begin) % int64_t(n) != 0)
      return e.error("ngram_counts " + to_string(starts) + " do not fit the pool.");
    for (int64_t i = begin; i < end; i += int64_t(n), ++id) {
      if (id >= columns.size()) return e.error("ngram_indexes has fewer entries than the pool has n-grams.");
      if (int64_t(n) >= shortest && int64_t(n) <= longest)
        column_of[{pool.begin() + i, pool.begin() + i + int64_t(n)}] = columns[id];
    }
  }
  int64_t length = rows ? int64_t(x.size()) / rows : 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t step = 1; step <= skips + 1; ++step)
      for (int64_t first = 0; first < length; ++first) {
        std::vector<T> gram;
        for (int64_t at = first; at < length && int64_t(gram.size()) < longest; at += step) {
          gram.push_back(x[size_t(r * length + at)]);
          if (gram.size() == 1 && step > 1) continue;  // a single token has no gap: counted once
          if (auto it = column_of.find(gram); it != column_of.end()) counts[size_t(r * width + it->second)] += 1;
        }
      }
  return {};
}

Status eval_tfidf(Eval& e) {
  const Tensor& x = e.in(0);
  int64_t width = AI_VMM_TAKE(tfidf_width(e));
  if (x.rank() < 1 || x.rank() > 2) return e.error("the input must have rank 1 or 2.");
  std::string mode = e.node.s("mode");
  if (mode != "TF" && mode != "IDF" && mode != "TFIDF")
    return e.error("mode \"" + mode + "\" is none of TF, IDF, TFIDF.");
  int64_t rows = x.rank() == 2 ? x.dim(0) : 1;
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::f32, x.rank() == 2 ? Shape{rows, width} : Shape{width}));
  std::vector<double> counts(size_t(y->count()), 0.0);
  if (x.dtype() == DType::string)
    AI_VMM_TRY(count_ngrams(e, e.node.strings("pool_strings"), ref::load<std::string>(x), rows, width, counts));
  else
    AI_VMM_TRY(count_ngrams(e, e.node.ints("pool_int64s"), ref::load<int64_t>(x), rows, width, counts));
  auto weights = e.node.floats("weights");
  for (size_t k = 0; k < counts.size(); ++k) {
    size_t column = k % size_t(width);
    double w = column < weights.size() ? weights[column] : 1;
    if (mode != "TF") counts[k] = w * (mode == "IDF" ? double(counts[k] > 0) : counts[k]);
  }
  ref::store(*y, counts);
  return {};
}

const OpDef kOps[] = {
    {"StringConcat", "", 20, "X:string, Y:string -> Z:string", "", "Joins strings elementwise, with broadcasting.",
     kHostOnly, infer_elementwise, nullptr, eval_concat},
    {"StringSplit", "", 20, "X:string -> Y:string, Z:i64", "delimiter:string, maxsplit:int",
     "Cuts every string at the delimiter (without one, at white space), at most maxsplit times; the parts fill a new "
     "last axis, padded with empty strings, and Z says how many there are.",
     kHostOnly | kDataDependent, infer_split, nullptr, eval_split},
    {"StringNormalizer", "", 10, "X:string -> Y:string",
     "case_change_action:string=NONE, is_case_sensitive:int=0, locale:string, stopwords:strings",
     "Drops stop words and changes the case of the others; when nothing is left, one empty string is.",
     kHostOnly | kDataDependent, infer_normalizer, nullptr, eval_normalizer},
    {"RegexFullMatch", "", 20, "X:string -> Y:bool", "pattern:string",
     "Whether a regular expression (RE2 syntax) matches the whole of each string.", kHostOnly, infer_regex, nullptr,
     eval_regex},
    {"TfIdfVectorizer", "", 9, "X:T -> Y:f32 | T: string i32 i64",
     "max_gram_length:int!, max_skip_count:int!, min_gram_length:int!, mode:string!, ngram_counts:ints!, "
     "ngram_indexes:ints!, pool_int64s:ints, pool_strings:strings, weights:floats",
     "Counts the n-grams of a pool in each row, with up to max_skip_count tokens skipped between neighbours; IDF gives "
     "the weight where there is one, TFIDF count times weight.",
     kNoTrait, infer_tfidf, nullptr, eval_tfidf},
};

}  // namespace

std::span<const OpDef> string_ops() { return kOps; }

}  // namespace ai_vmm
