// ai.onnx.ml: linear models and support vector machines.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/all_ops.hpp"
#include "ops/ml_scores.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

std::vector<double> doubles(const std::vector<float>& v) { return {v.begin(), v.end()}; }

double dot(const double* a, const double* b, int64_t n) {
  double s = 0;
  for (int64_t i = 0; i < n; ++i) s += a[i] * b[i];
  return s;
}

DType label_type(const Node& node) { return node.strings("classlabels_strings").empty() ? DType::i64 : DType::string; }

// ---------------------------------------------------------------- LinearRegressor, LinearClassifier

Status infer_linear_regressor(Infer& c) {
  c.set(0, DType::f32, {rows_dim(c), Dim(c.node.i("targets", 1))});
  return {};
}

// x · Wᵀ + b for `outputs` rows of W.
Result<std::vector<double>> linear(const Eval& e, const Rows& x, int64_t outputs) {
  auto w = doubles(e.node.floats("coefficients")), b = doubles(e.node.floats("intercepts"));
  if (outputs < 1 || int64_t(w.size()) / outputs != x.width || int64_t(w.size()) % outputs != 0 ||
      (!b.empty() && int64_t(b.size()) != outputs))
    return e.error(std::to_string(w.size()) + " coefficients and " + std::to_string(b.size()) +
                   " intercepts do not make " + std::to_string(outputs) + " outputs of " + std::to_string(x.width) +
                   " features.");
  std::vector<double> y;
  for (int64_t r = 0; r < x.count; ++r)
    for (int64_t o = 0; o < outputs; ++o)
      y.push_back(dot(x.row(r), w.data() + o * x.width, x.width) + (b.empty() ? 0 : b[size_t(o)]));
  return y;
}

Status eval_linear_regressor(Eval& e) {
  Rows x = AI_VMM_TAKE(rows_of(e, e.in(0)));
  PostTransform transform = AI_VMM_TAKE(post_transform(e));
  int64_t targets = e.node.i("targets", 1);
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::f32, {x.count, targets}));
  auto scores = AI_VMM_TAKE(linear(e, x, targets));
  for (int64_t r = 0; r < x.count; ++r) {
    std::vector<double> row(scores.begin() + r * targets, scores.begin() + (r + 1) * targets);
    write_scores(transform, SecondClass::none, row);
    std::copy(row.begin(), row.end(), scores.begin() + r * targets);
  }
  ref::store(*y, scores);
  return {};
}

// Classes that the model scores: one an intercept, else as many as the coefficients make.
Dim linear_scores(Infer& c) {
  int64_t n = int64_t(c.node.floats("intercepts").size()), w = int64_t(c.node.floats("coefficients").size());
  auto labels = labels_of(c.node, "classlabels_ints", "classlabels_strings").size();
  if (n == 0) {
    auto width = c.ranked(0) && c.rank(0) > 0 ? c.dims(0).back().constant() : std::nullopt;
    if (!width || *width < 1) return c.fresh();
    n = w / *width;
  }
  return n == 1 && labels == 2 ? 2 : n;
}
Status infer_linear_classifier(Infer& c) {
  Dim n = rows_dim(c);
  c.set(0, label_type(c.node), {n});
  c.set(1, DType::f32, {n, linear_scores(c)});
  return {};
}
Status eval_linear_classifier(Eval& e) {
  Rows x = AI_VMM_TAKE(rows_of(e, e.in(0)));
  PostTransform transform = AI_VMM_TAKE(post_transform(e));
  Labels labels = labels_of(e.node, "classlabels_ints", "classlabels_strings");
  int64_t n = int64_t(e.node.floats("intercepts").size());
  if (n == 0 && x.width > 0) n = int64_t(e.node.floats("coefficients").size()) / x.width;
  auto scores = AI_VMM_TAKE(linear(e, x, n));
  bool two = n == 1 && labels.size() == 2;
  Tensor* y = AI_VMM_TAKE(e.make(0, label_type(e.node), {x.count}));
  Tensor* z = AI_VMM_TAKE(e.make(1, DType::f32, {x.count, two ? 2 : n}));
  std::vector<double> all;
  for (int64_t r = 0; r < x.count; ++r) {
    std::vector<double> row(scores.begin() + r * n, scores.begin() + (r + 1) * n);
    if (n == 1)
      set_label(*y, r, labels, row[0] > 0 ? (two ? 1 : 0) : (two ? 0 : -1));
    else
      set_label(*y, r, labels, std::max_element(row.begin(), row.end()) - row.begin());
    write_scores(transform, two ? SecondClass::complement : SecondClass::none, row);
    row.resize(size_t(two ? 2 : n));
    all.insert(all.end(), row.begin(), row.end());
  }
  ref::store(*z, all);
  return {};
}

// ---------------------------------------------------------------- kernels

struct Kernel {
  enum Kind { linear, poly, rbf, sigmoid } kind = linear;
  double gamma = 0, coef0 = 0, degree = 0;

  double operator()(const double* a, const double* b, int64_t n) const {
    if (kind == rbf) {
      double s = 0;
      for (int64_t i = 0; i < n; ++i) s += (a[i] - b[i]) * (a[i] - b[i]);
      return std::exp(-gamma * s);
    }
    double s = dot(a, b, n);
    if (kind == poly) return std::pow(gamma * s + coef0, degree);
    if (kind == sigmoid) return std::tanh(gamma * s + coef0);
    return s;
  }
};
Result<Kernel> kernel_of(const Eval& e) {
  std::string name = e.node.s("kernel_type", "LINEAR");
  auto p = e.node.floats("kernel_params");
  Kernel k;
  if (name == "POLY")
    k.kind = Kernel::poly;
  else if (name == "RBF")
    k.kind = Kernel::rbf;
  else if (name == "SIGMOID")
    k.kind = Kernel::sigmoid;
  else if (name != "LINEAR")
    return e.error("kernel_type \"" + name + "\" is none of LINEAR, POLY, RBF, SIGMOID.");
  if (!p.empty() && p.size() != 3) return e.error("kernel_params must be gamma, coef0 and degree.");
  if (!p.empty()) {
    k.gamma = p[0];
    k.coef0 = p[1];
    k.degree = p[2];
  }
  return k;
}

// ---------------------------------------------------------------- SVMRegressor

Status infer_svm_regressor(Infer& c) {
  c.set(0, DType::f32, {rows_dim(c), Dim(1)});
  return {};
}
Status eval_svm_regressor(Eval& e) {
  Rows x = AI_VMM_TAKE(rows_of(e, e.in(0)));
  Kernel kernel = AI_VMM_TAKE(kernel_of(e));
  auto coefficients = doubles(e.node.floats("coefficients")), vectors = doubles(e.node.floats("support_vectors")),
       rho = doubles(e.node.floats("rho"));
  int64_t n = e.node.i("n_supports", 0);
  if (n <= 0) {  // one vector of coefficients: a linear model
    n = 1;
    vectors = coefficients;
    coefficients = {1};
    kernel.kind = Kernel::linear;
  }
  if (rho.empty() || int64_t(coefficients.size()) != n || int64_t(vectors.size()) % n != 0 ||
      int64_t(vectors.size()) / n != x.width)
    return e.error("its support vectors, coefficients and rho do not fit " + std::to_string(x.width) + " features.");
  bool one_class = e.node.i("one_class", 0) != 0;
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::f32, {x.count, 1}));
  std::vector<double> all;
  for (int64_t r = 0; r < x.count; ++r) {
    double s = rho[0];
    for (int64_t j = 0; j < n; ++j)
      s += coefficients[size_t(j)] * kernel(x.row(r), vectors.data() + j * x.width, x.width);
    all.push_back(one_class ? (s > 0 ? 1.0 : -1.0) : s);  // a single score has no transform, in ONNX Runtime neither
  }
  ref::store(*y, all);
  return {};
}

// ---------------------------------------------------------------- SVMClassifier

// Class probabilities from those of all pairs (r[i*k+j]: i against j), by the fixed-point iteration of Wu, Lin and
// Weng, "Probability Estimates for Multi-class Classification by Pairwise Coupling" (JMLR 5, 2004), method 2.
std::vector<double> couple(size_t k, const std::vector<double>& r) {
  std::vector<double> q(k * k, 0), p(k, 1 / double(k)), qp(k);
  for (size_t t = 0; t < k; ++t)
    for (size_t j = 0; j < k; ++j) {
      if (j == t) continue;
      q[t * k + t] += r[j * k + t] * r[j * k + t];
      q[t * k + j] = -r[j * k + t] * r[t * k + j];
    }
  for (size_t round = 0; round < std::max<size_t>(100, k); ++round) {
    double pqp = 0, worst = 0;
    for (size_t t = 0; t < k; ++t) {
      qp[t] = std::inner_product(p.begin(), p.end(), q.begin() + int64_t(t * k), 0.0);
      pqp += p[t] * qp[t];
    }
    for (size_t t = 0; t < k; ++t) worst = std::max(worst, std::fabs(qp[t] - pqp));
    if (worst < 0.005 / double(k)) break;
    for (size_t t = 0; t < k; ++t) {
      double step = (pqp - qp[t]) / q[t * k + t];
      p[t] += step;
      pqp = (pqp + step * (step * q[t * k + t] + 2 * qp[t])) / ((1 + step) * (1 + step));
      for (size_t j = 0; j < k; ++j) {
        qp[j] = (qp[j] + step * q[t * k + j]) / (1 + step);
        p[j] /= 1 + step;
      }
    }
  }
  return p;
}

struct Svm {
  Kernel kernel;
  std::vector<double> coefficients, vectors, rho, prob_a, prob_b;
  std::vector<int64_t> per_class, starts;
  int64_t classes = 0, supports = 0;
  bool linear = false, all_positive = false;
};

Result<Svm> svm_of(const Eval& e, int64_t width, size_t labels) {
  Svm m;
  m.kernel = AI_VMM_TAKE(kernel_of(e));
  m.coefficients = doubles(e.node.floats("coefficients"));
  m.vectors = doubles(e.node.floats("support_vectors"));
  m.rho = doubles(e.node.floats("rho"));
  m.prob_a = doubles(e.node.floats("prob_a"));
  m.prob_b = doubles(e.node.floats("prob_b"));
  m.per_class = e.node.ints("vectors_per_class");
  for (int64_t n : m.per_class) {
    if (n < 0 || n > (int64_t(1) << 40))
      return e.error("vectors_per_class " + to_string(m.per_class) + " is impossible.");
    m.starts.push_back(m.supports);
    m.supports += n;
  }
  m.linear = m.supports == 0;
  m.all_positive = std::all_of(m.coefficients.begin(), m.coefficients.end(), [](double v) { return v >= 0; });
  bool fits;
  if (m.linear) {
    m.classes = int64_t(std::max<size_t>(labels, 1));
    m.kernel.kind = Kernel::linear;
    fits = int64_t(m.coefficients.size()) == m.classes * width && !m.rho.empty();
  } else {
    m.classes = int64_t(m.per_class.size());
    int64_t pairs = m.classes * (m.classes - 1) / 2;
    fits = int64_t(m.vectors.size()) == m.supports * width &&
           int64_t(m.coefficients.size()) == m.supports * (m.classes - 1) && int64_t(m.rho.size()) >= pairs &&
           m.prob_a.size() == m.prob_b.size() && (m.prob_a.empty() || int64_t(m.prob_a.size()) >= pairs);
  }
  if (!fits)
    return e.error("its support vectors, coefficients and rho do not fit " + std::to_string(width) + " features and " +
                   std::to_string(m.classes) + " classes.");
  return m;
}

int64_t svm_columns(int64_t classes, bool linear, bool probabilities) {
  if (linear || probabilities) return classes;
  return classes == 2 ? 2 : classes * (classes - 1) / 2;
}
Status infer_svm_classifier(Infer& c) {
  Dim n = rows_dim(c);
  c.set(0, label_type(c.node), {n});
  auto per_class = c.node.ints("vectors_per_class");
  bool linear = std::all_of(per_class.begin(), per_class.end(), [](int64_t v) { return v == 0; });
  auto labels = labels_of(c.node, "classlabels_ints", "classlabels_strings").size();
  int64_t classes = linear ? int64_t(std::max<size_t>(labels, 1)) : int64_t(per_class.size());
  if (classes < (int64_t(1) << 20))
    c.set(1, DType::f32, {n, Dim(svm_columns(classes, linear, !c.node.floats("prob_a").empty()))});
  else
    return c.error("it has " + std::to_string(classes) + " classes.");
  return {};
}
Status eval_svm_classifier(Eval& e) {
  Rows x = AI_VMM_TAKE(rows_of(e, e.in(0)));
  PostTransform transform = AI_VMM_TAKE(post_transform(e));
  Labels labels = labels_of(e.node, "classlabels_ints", "classlabels_strings");
  Svm m = AI_VMM_TAKE(svm_of(e, x.width, labels.size()));
  bool probabilities = !m.linear && !m.prob_a.empty();
  size_t k = size_t(m.classes);
  int64_t columns = svm_columns(m.classes, m.linear, probabilities);
  Tensor* y = AI_VMM_TAKE(e.make(0, label_type(e.node), {x.count}));
  Tensor* z = AI_VMM_TAKE(e.make(1, DType::f32, {x.count, columns}));
  std::vector<double> all;
  for (int64_t r = 0; r < x.count; ++r) {
    std::vector<double> scores, votes;
    if (m.linear) {
      for (int64_t j = 0; j < m.classes; ++j)
        scores.push_back(m.rho[0] + dot(x.row(r), m.coefficients.data() + j * x.width, x.width));
    } else {
      std::vector<double> similar;
      for (int64_t j = 0; j < m.supports; ++j)
        similar.push_back(m.kernel(x.row(r), m.vectors.data() + j * x.width, x.width));
      votes.assign(k, 0);
      for (size_t i = 0; i < k; ++i)
        for (size_t j = i + 1; j < k; ++j) {
          // The coefficients of class i against j stand in row j - 1 at i's vectors, those of j against i in row i at
          // j's.
          double s = m.rho[scores.size()];
          s += dot(m.coefficients.data() + int64_t(j - 1) * m.supports + m.starts[i], similar.data() + m.starts[i],
                   m.per_class[i]);
          s += dot(m.coefficients.data() + int64_t(i) * m.supports + m.starts[j], similar.data() + m.starts[j],
                   m.per_class[j]);
          scores.push_back(s);
          votes[s > 0 ? i : j] += 1;
        }
    }
    if (probabilities) {
      std::vector<double> pairs(k * k, 0);
      size_t p = 0;
      for (size_t i = 0; i < k; ++i)
        for (size_t j = i + 1; j < k; ++j, ++p) {
          double v = 1 / (1 + std::exp(scores[p] * m.prob_a[p] + m.prob_b[p]));
          pairs[i * k + j] = std::clamp(v, 1e-7, 1 - 1e-7);
          pairs[j * k + i] = 1 - pairs[i * k + j];
        }
      scores = couple(k, pairs);
    }
    const std::vector<double>& judged = m.linear ? scores : votes;  // probabilities do not change the label
    int64_t best = std::max_element(judged.begin(), judged.end()) - judged.begin();
    set_label(*y, r, labels, best);
    write_scores(transform, SecondClass::negation, scores);
    scores.resize(size_t(columns));
    all.insert(all.end(), scores.begin(), scores.end());
  }
  ref::store(*z, all);
  return {};
}

Cost cost_linear(const CostQuery& q) {
  double rows = q.outputs.empty()
                    ? 0
                    : q.elements_in(0) / std::max<double>(1, q.shape_in(0).empty() ? 1 : double(q.shape_in(0).back()));
  return {.flops = 2 * rows * double(q.node.floats("coefficients").size() + q.node.floats("support_vectors").size())};
}

#define NUMBERS "f32 f64 i64 i32"
#define TRANSFORM "post_transform:string=NONE"
#define LABELS "classlabels_ints:ints, classlabels_strings:strings, "
#define SVM "coefficients:floats, kernel_params:floats, kernel_type:string=LINEAR, rho:floats, support_vectors:floats, "
const OpDef kOps[] = {
    {"LinearRegressor", "ai.onnx.ml", 1, "X:T -> Y:f32 | T: " NUMBERS,
     "coefficients:floats, intercepts:floats, targets:int=1, " TRANSFORM,
     "One linear function of the features a target, then a transform.", kNoTrait, infer_linear_regressor, cost_linear,
     eval_linear_regressor},
    {"LinearClassifier", "ai.onnx.ml", 1, "X:T -> Y:L, Z:f32 | T: " NUMBERS ", L: string i64",
     LABELS "coefficients:floats!, intercepts:floats, multi_class:int=0, " TRANSFORM,
     "One linear function of the features a class; the label of the greatest, and all scores after a transform.",
     kNoTrait, infer_linear_classifier, cost_linear, eval_linear_classifier},
    {"SVMRegressor", "ai.onnx.ml", 1, "X:T -> Y:f32 | T: " NUMBERS, SVM "n_supports:int=0, one_class:int=0, " TRANSFORM,
     "A support vector machine's value for each row; one_class gives 1 inside and -1 outside.", kNoTrait,
     infer_svm_regressor, cost_linear, eval_svm_regressor},
    {"SVMClassifier", "ai.onnx.ml", 1, "X:T -> Y:L, Z:f32 | T: " NUMBERS ", L: string i64",
     LABELS SVM "prob_a:floats, prob_b:floats, vectors_per_class:ints, " TRANSFORM,
     "A support vector machine for each pair of classes: the label with most votes (or the greatest probability), and "
     "the scores of the pairs or the probabilities.",
     kNoTrait, infer_svm_classifier, cost_linear, eval_svm_classifier},
};

}  // namespace

std::span<const OpDef> ml_linear_ops() { return kOps; }

}  // namespace ai_vmm
