// Losses: NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss.

#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

enum class Reduction { none, sum, mean };

template <class Context>
Result<Reduction> reduction_of(const Context& c) {
  std::string s = c.node.s("reduction", "mean");
  if (s == "none") return Reduction::none;
  if (s == "sum") return Reduction::sum;
  if (s == "mean") return Reduction::mean;
  return c.error("reduction \"" + s + "\" is unknown; it must be none, sum or mean.");
}

Status infer_loss(Infer& c) {
  Reduction r = AI_VMM_TAKE(reduction_of(c));
  c.set(1, c.type(0));  // log_prob, where the operator has it
  if (r != Reduction::none)
    c.set(0, c.dtype(0), {});
  else if (c.ranked(1))
    c.set(0, c.dtype(0), c.dims(1));
  else
    c.set_unranked(0, c.dtype(0));
  return {};
}

// The loss of log-probabilities `p`, laid out as input 0: [N, C, spatial…], against the classes of input 1.
Status write_loss(Eval& e, const std::vector<double>& p) {
  const Tensor &x = e.in(0), &target = e.in(1);
  Reduction reduction = AI_VMM_TAKE(reduction_of(e));
  Shape expected = x.shape();
  expected.erase(expected.begin() + 1);
  if (target.shape() != expected)
    return e.error("classes of shape " + to_string(target.shape()) + " do not fit scores of shape " +
                   to_string(x.shape()) + ".");
  int64_t batch = x.dim(0), classes = x.dim(1), spatial = 1;
  for (int64_t i = 2; i < x.rank(); ++i) spatial *= x.dim(i);
  std::vector<double> weight(size_t(classes), 1);
  if (e.has(2)) {
    if (e.in(2).count() != classes)
      return e.error("weights of shape " + to_string(e.in(2).shape()) + " do not fit " + std::to_string(classes) +
                     " classes.");
    weight = ref::load<double>(e.in(2));
  }
  bool ignores = e.node.has("ignore_index");
  int64_t ignored = e.node.i("ignore_index");
  Tensor* y = AI_VMM_TAKE(e.make(0, x.dtype(), reduction == Reduction::none ? target.shape() : Shape{}));
  auto label = ref::ints(target);
  std::vector<double> loss(label.size(), 0);
  double sum = 0, weights = 0;
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t d = 0; d < spatial; ++d) {
      int64_t k = n * spatial + d, c = label[size_t(k)];
      if (ignores && c == ignored) continue;
      if (c < 0 || c >= classes)
        return e.error("class " + std::to_string(c) + " is outside the " + std::to_string(classes) + " classes.");
      loss[size_t(k)] = -p[size_t((n * classes + c) * spatial + d)] * weight[size_t(c)];
      sum += loss[size_t(k)];
      weights += weight[size_t(c)];
    }
  if (reduction == Reduction::none)
    ref::store(*y, loss);
  else
    ref::store(*y, std::vector<double>{reduction == Reduction::sum ? sum : sum / weights});
  return {};
}

Status check_rank(const Eval& e) {
  if (e.in(0).rank() < 2)
    return e.error("scores of rank " + std::to_string(e.in(0).rank()) + " have no axis of classes.");
  return {};
}

Status eval_nll(Eval& e) {
  AI_VMM_TRY(check_rank(e));
  return write_loss(e, ref::load<double>(e.in(0)));
}

Status eval_cross_entropy(Eval& e) {
  AI_VMM_TRY(check_rank(e));
  const Tensor& x = e.in(0);
  Tensor* log_prob = e.wants(1) ? AI_VMM_TAKE(e.make(1, x.dtype(), x.shape())) : nullptr;
  auto v = ref::load<double>(x);
  int64_t batch = x.dim(0), classes = x.dim(1), spatial = 1;
  for (int64_t i = 2; i < x.rank(); ++i) spatial *= x.dim(i);
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t d = 0; d < spatial; ++d) {
      auto at = [&](int64_t c) -> double& { return v[size_t((n * classes + c) * spatial + d)]; };
      double m = -std::numeric_limits<double>::infinity(), sum = 0;
      for (int64_t c = 0; c < classes; ++c) m = std::max(m, at(c));
      for (int64_t c = 0; c < classes; ++c) sum += std::exp(at(c) - m);
      for (int64_t c = 0; c < classes; ++c) at(c) -= m + std::log(sum);
    }
  if (log_prob) ref::store(*log_prob, v);
  return write_loss(e, v);
}

Cost cost_nll(const CostQuery& q) { return {.flops = 3 * q.elements_in(1)}; }
Cost cost_cross_entropy(const CostQuery& q) { return {.flops = 14 * q.elements_in(0)}; }

constexpr const char* kAttributes = "ignore_index:int, reduction:string=mean";

const OpDef kOps[] = {
    {"NegativeLogLikelihoodLoss", "", 22, "input:T, target:I, weight:T? -> loss:T | T: float, I: i32 i64", kAttributes,
     "Minus the log-probability input[n, target[n, d], d] times the class's weight, 0 where the target is "
     "ignore_index; then "
     "their sum, their mean (by the weights in use), or all of them.",
     kComposite | kTraining, infer_loss, cost_nll, eval_nll},
    {"SoftmaxCrossEntropyLoss", "", 13,
     "scores:T, labels:I, weights:T? -> output:T, log_prob:T? | T: float, I: i32 i64", kAttributes,
     "NegativeLogLikelihoodLoss of the LogSoftmax of the scores over axis 1, which is the second output.",
     kComposite | kTraining, infer_loss, cost_cross_entropy, eval_cross_entropy},
};

}  // namespace

std::span<const OpDef> loss_ops() { return kOps; }

}  // namespace ai_vmm
