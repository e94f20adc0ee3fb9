// ai.onnx.preview.training: one step of an optimiser on several tensors.
//
// The variadic input lists all tensors X, then all their gradients G, then all states of the first kind, and so on; the
// outputs list the new X, then the new states.
#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

template <size_t States>
Status infer_step(Infer& c) {
  size_t n = (c.inputs() - 2) / (2 + States);
  if (c.inputs() < 2 + (2 + States) || (c.inputs() - 2) % (2 + States) != 0 || c.outputs() > n * (1 + States))
    return c.error("it takes R, T and " + std::to_string(2 + States) + " tensors for each optimised one, and gives " +
                   std::to_string(1 + States) + ".");
  for (size_t k = 0; k < c.outputs(); ++k) c.set(k, c.type(2 + (k < n ? k : k + n)));  // outputs skip the gradients
  return {};
}

// rule(r, t, x, g, states): updates one element x and its states in place.
template <size_t States, class Rule>
Status step(Eval& e, Rule&& rule) {
  size_t n = (e.inputs() - 2) / (2 + States);
  if (e.in(0).count() != 1 || e.in(1).count() != 1) return e.error("R and T must be one number each.");
  double r = ref::load<double>(e.in(0))[0], t = double(ref::ints(e.in(1))[0]);
  for (size_t i = 0; i < n; ++i) {
    auto in = [&](size_t kind) -> const Tensor& { return e.in(2 + kind * n + i); };
    for (size_t kind = 1; kind < 2 + States; ++kind)
      if (in(kind).shape() != in(0).shape())
        return e.error("a tensor of shape " + to_string(in(0).shape()) + " comes with one of shape " +
                       to_string(in(kind).shape()) + ".");
    auto x = ref::load<double>(in(0)), g = ref::load<double>(in(1));
    std::vector<double> states[States];
    for (size_t s = 0; s < States; ++s) states[s] = ref::load<double>(in(2 + s));
    for (size_t k = 0; k < x.size(); ++k) {
      double here[States];
      for (size_t s = 0; s < States; ++s) here[s] = states[s][k];
      rule(r, t, x[k], g[k], here);
      for (size_t s = 0; s < States; ++s) states[s][k] = here[s];
    }
    for (size_t kind = 0; kind < 1 + States; ++kind) {
      Tensor* y = AI_VMM_TAKE(e.make(kind * n + i, in(0).dtype(), in(0).shape()));
      ref::store(*y, kind == 0 ? x : states[kind - 1]);
    }
  }
  return {};
}

Status eval_adagrad(Eval& e) {
  double decay = e.node.f("decay_factor", 0), norm = e.node.f("norm_coefficient", 0),
         epsilon = e.node.f("epsilon", 1e-6f);
  return step<1>(e, [&](double r, double t, double& x, double g, double* h) {
    g += norm * x;
    h[0] += g * g;
    x -= r / (1 + t * decay) * g / (std::sqrt(h[0]) + epsilon);
  });
}

Status eval_adam(Eval& e) {
  double alpha = e.node.f("alpha", 0.9f), beta = e.node.f("beta", 0.999f), norm = e.node.f("norm_coefficient", 0),
         after = e.node.f("norm_coefficient_post", 0), epsilon = e.node.f("epsilon", 1e-6f);
  return step<2>(e, [&](double r, double t, double& x, double g, double* vh) {
    g += norm * x;
    vh[0] = alpha * vh[0] + (1 - alpha) * g;
    vh[1] = beta * vh[1] + (1 - beta) * g * g;
    if (t > 0) r *= std::sqrt(1 - std::pow(beta, t)) / (1 - std::pow(alpha, t));
    x = (1 - after) * (x - r * vh[0] / (std::sqrt(vh[1]) + epsilon));
  });
}

Status eval_momentum(Eval& e) {
  double alpha = e.node.f("alpha"), beta = e.node.f("beta"), norm = e.node.f("norm_coefficient");
  std::string mode = e.node.s("mode");
  if (mode != "standard" && mode != "nesterov")
    return e.error("mode \"" + mode + "\" is neither standard nor nesterov.");
  bool nesterov = mode == "nesterov";
  return step<1>(e, [&](double r, double t, double& x, double g, double* v) {
    g += norm * x;
    v[0] = alpha * v[0] + (t > 0 ? beta : 1) * g;
    x -= r * (nesterov ? g + alpha * v[0] : v[0]);
  });
}

Cost cost_step(const CostQuery& q) {
  double n = 0;
  for (size_t k = 0; k < q.outputs.size(); ++k) n += q.elements_out(k);
  return {.flops = 5 * n};
}

#define STEP "R:F, T:i64, inputs:F* -> outputs:F* | F: f32 f64"
#define TRAINING "ai.onnx.preview.training"
const OpDef kOps[] = {
    {"Adagrad", TRAINING, 1, STEP, "decay_factor:float=0.0, epsilon:float=1e-6, norm_coefficient:float=0.0",
     "One step of Adagrad: moves X against the gradient, scaled by the root of the sum of squared gradients so far "
     "(H).",
     kTraining, infer_step<1>, cost_step, eval_adagrad},
    {"Adam", TRAINING, 1, STEP,
     "alpha:float=0.9, beta:float=0.999, epsilon:float=1e-6, norm_coefficient:float=0.0, "
     "norm_coefficient_post:float=0.0",
     "One step of Adam: moves X against the running mean of the gradient (V), scaled by the root of that of its square "
     "(H).",
     kTraining, infer_step<2>, cost_step, eval_adam},
    {"Momentum", TRAINING, 1, STEP, "alpha:float!, beta:float!, mode:string!, norm_coefficient:float!",
     "One step of gradient descent with momentum V, standard or Nesterov's.", kTraining, infer_step<1>, cost_step,
     eval_momentum},
};

}  // namespace

std::span<const OpDef> training_ops() { return kOps; }

}  // namespace ai_vmm
