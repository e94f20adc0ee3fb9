#include "ops/ml_scores.hpp"

#include <algorithm>
#include <cmath>

#include "ops/ref.hpp"

namespace ai_vmm {

Result<PostTransform> post_transform(const Eval& e) {
  std::string name = e.node.s("post_transform", "NONE");
  if (name == "NONE") return PostTransform::none;
  if (name == "SOFTMAX") return PostTransform::softmax;
  if (name == "LOGISTIC") return PostTransform::logistic;
  if (name == "SOFTMAX_ZERO") return PostTransform::softmax_zero;
  if (name == "PROBIT") return PostTransform::probit;
  return e.error("post_transform \"" + name + "\" is none of NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO, PROBIT.");
}

namespace {
double logistic(double x) { return 1 / (1 + std::exp(-x)); }
double probit(double p) {
  double x = 2 * p - 1, log = std::log((1 - x) * (1 + x));
  double v = 2 / (3.14159265358979323846 * 0.147) + 0.5 * log;
  double r = std::sqrt(std::sqrt(v * v - log / 0.147) - v);
  return 1.41421356 * (x < 0 ? -r : r);
}
}  // namespace

void apply(PostTransform transform, std::vector<double>& scores) {
  if (scores.empty()) return;
  double top = *std::max_element(scores.begin(), scores.end()), sum = 0;
  switch (transform) {
    case PostTransform::none: return;
    case PostTransform::logistic:
      for (double& s : scores) s = logistic(s);
      return;
    case PostTransform::probit:
      for (double& s : scores) s = probit(s);
      return;
    case PostTransform::softmax:
    case PostTransform::softmax_zero:
      for (double& s : scores) {
        bool zero = transform == PostTransform::softmax_zero && std::fabs(s) <= 1e-7;
        s = zero ? s * std::exp(-top) : std::exp(s - top);
        sum += s;
      }
      for (double& s : scores) s = sum == 0 ? 0.5 : s / sum;
  }
}

void write_scores(PostTransform transform, SecondClass second, std::vector<double>& scores) {
  if (scores.size() != 1) return apply(transform, scores);
  if (transform == PostTransform::probit) return apply(transform, scores);
  if (second == SecondClass::none) return;
  double s = scores[0];
  if (transform == PostTransform::logistic)
    scores = {logistic(-s), logistic(s)};
  else if (transform == PostTransform::none && second == SecondClass::negation)
    scores = {-s, s};
  else
    scores = {1 - s, s};
}

Labels labels_of(const Node& node, const char* ints, const char* strings) {
  Labels l{node.ints(ints), node.strings(strings), false};
  l.is_string = !l.strings.empty();
  return l;
}

void set_label(Tensor& y, int64_t row, const Labels& labels, int64_t index) {
  bool known = index >= 0 && index < int64_t(labels.size());
  if (labels.is_string)
    y.as_mutable<std::string>()[size_t(row)] = known ? labels.strings[size_t(index)] : std::to_string(index);
  else
    y.as_mutable<int64_t>()[size_t(row)] = known ? labels.ints[size_t(index)] : index;
}

Result<Rows> rows_of(const Eval& e, const Tensor& x) {
  if (x.rank() < 1 || x.rank() > 2)
    return e.error("the input must be [F] or [N, F]; it is " + to_string(x.shape()) + ".");
  return Rows{x.rank() == 2 ? x.dim(0) : 1, x.shape().back(), ref::load<double>(x)};
}

Dim rows_dim(Infer& c) { return !c.ranked(0) ? c.fresh() : c.rank(0) == 2 ? c.dims(0)[0] : Dim(1); }

}  // namespace ai_vmm
