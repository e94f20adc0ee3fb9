#include "summary.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <vector>

#include "base/numbers.hpp"
#include "base/text.hpp"

namespace ai_vmm::cli {

namespace {
std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.5g", v);
  return text;
}

std::string element(const Tensor& t, int64_t i) {
  if (t.dtype() == DType::string) {
    std::string s = t.as<std::string>()[static_cast<size_t>(i)];
    return "\"" + (s.size() > 40 ? s.substr(0, 40) + "…" : s) + "\"";
  }
  if (is_complex(t.dtype())) {
    DType part = t.dtype() == DType::c64 ? DType::f32 : DType::f64;
    double imaginary = read_double(part, t.data(), 2 * i + 1);
    return number(read_double(part, t.data(), 2 * i)) + (imaginary < 0 ? "" : "+") + number(imaginary) + "i";
  }
  if (t.dtype() == DType::u64) return std::to_string(static_cast<uint64_t>(read_int64(t.dtype(), t.data(), i)));
  if (is_integer(t.dtype()) || t.dtype() == DType::boolean) return std::to_string(read_int64(t.dtype(), t.data(), i));
  return number(read_double(t.dtype(), t.data(), i));
}

std::string describe(const Tensor& t) {
  if (t.count() == 0) return "empty";
  std::string s;
  bool real = t.dtype() != DType::string && !is_complex(t.dtype());
  if (real && t.count() > 1) {
    double low = INFINITY, high = -INFINITY, sum = 0;
    int64_t finite = 0;
    for (int64_t i = 0; i < t.count(); ++i) {
      double v = read_double(t.dtype(), t.data(), i);
      if (!std::isfinite(v)) continue;
      low = std::min(low, v);
      high = std::max(high, v);
      sum += v;
      ++finite;
    }
    if (finite) s = "min " + number(low) + ", mean " + number(sum / double(finite)) + ", max " + number(high) + "; ";
    if (finite < t.count()) s += std::to_string(t.count() - finite) + " not finite; ";
  }
  constexpr int64_t kShown = 8;
  s += "values";
  for (int64_t i = 0; i < std::min(kShown, t.count()); ++i) s += " " + element(t, i);
  if (t.count() > kShown) s += " …";

  // Class scores: one vector of 10 to 100,000 floats.
  int64_t classes = t.rank() ? *std::max_element(t.shape().begin(), t.shape().end()) : 1;
  if (real && is_float(t.dtype()) && classes == t.count() && classes >= 10 && classes <= 100'000) {
    std::vector<int64_t> order(static_cast<size_t>(classes));
    std::iota(order.begin(), order.end(), 0);
    auto score = [&](int64_t i) {
      double v = read_double(t.dtype(), t.data(), i);
      return std::isnan(v) ? -INFINITY : v;
    };
    std::partial_sort(order.begin(), order.begin() + 5, order.end(),
                      [&](int64_t a, int64_t b) { return score(a) != score(b) ? score(a) > score(b) : a < b; });
    s += "; largest";
    for (size_t i = 0; i < 5; ++i) s += " [" + std::to_string(order[i]) + "] " + element(t, order[i]);
  }
  return s;
}
}  // namespace

std::string type_text(const Data& data) {
  if (data.empty()) return "nothing";
  if (data.is_tensor()) return name(data.tensor().dtype()) + to_string(data.tensor().shape());
  if (data.is_sequence()) return "sequence of " + std::to_string(data.sequence().size());
  return "map of " + std::to_string(data.map().keys.count());
}

std::string summary(const Data& data) {
  if (data.empty()) return "";
  if (data.is_tensor()) return describe(data.tensor());
  if (data.is_map()) return "keys: " + describe(data.map().keys) + "; values: " + describe(data.map().values);
  std::string s;
  constexpr size_t kShown = 4;
  for (size_t i = 0; i < std::min(kShown, data.sequence().size()); ++i)
    s += (i ? " | " : "") + type_text(data.sequence()[i]) + ": " + summary(data.sequence()[i]);
  return s + (data.sequence().size() > kShown ? " | …" : "");
}

std::optional<ReadText> decode_ctc(const std::map<std::string, std::string>& metadata, const Data& scores) {
  auto it = metadata.find("character");
  if (it == metadata.end() || !scores.is_tensor()) return std::nullopt;
  const Tensor& t = scores.tensor();
  if (t.dtype() != DType::f32 || t.rank() != 3 || t.dim(0) != 1 || t.dim(2) < 2) return std::nullopt;
  auto characters = split(it->second, '\n');
  if (!characters.empty() && characters.back().empty()) characters.pop_back();
  auto known = static_cast<int64_t>(characters.size());
  if (t.dim(2) != known + 1 && t.dim(2) != known + 2) return std::nullopt;

  ReadText read;
  int64_t before = 0, taken = 0;
  auto values = t.as<float>();
  for (int64_t step = 0; step < t.dim(1); ++step) {
    auto row = values.subspan(static_cast<size_t>(step * t.dim(2)), static_cast<size_t>(t.dim(2)));
    auto best = std::max_element(row.begin(), row.end());
    auto k = static_cast<int64_t>(best - row.begin());
    if (k != 0 && k != before) {
      read.text += k <= known ? std::string(characters[static_cast<size_t>(k - 1)]) : " ";
      read.confidence += double(*best);
      ++taken;
    }
    before = k;
  }
  if (taken) read.confidence /= double(taken);
  return read;
}

}  // namespace ai_vmm::cli
