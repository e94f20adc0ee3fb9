// Recurrent layers: RNN, GRU and LSTM.

#include <algorithm>
#include <array>
#include <cmath>

#include "ops/activation.hpp"
#include "ops/all_ops.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

int64_t gates_of(const Node& n) { return n.op == "LSTM" ? 4 : n.op == "GRU" ? 3 : 1; }
int64_t directions_of(const Node& n) { return n.s("direction", "forward") == "bidirectional" ? 2 : 1; }

Status infer_recurrent(Infer& c) {
  const Node& n = c.node;
  std::string direction = n.s("direction", "forward");
  if (direction != "forward" && direction != "reverse" && direction != "bidirectional")
    return c.error("direction \"" + direction + "\" is not one of forward, reverse, bidirectional.");
  if (c.ranked(0) && c.rank(0) != 3) return c.error("X must have rank 3, it has " + std::to_string(c.rank(0)) + ".");
  Dim hidden, directions = directions_of(n);
  if (c.ranked(2) && c.rank(2) == 3)
    hidden = c.dims(2)[2];
  else if (n.has("hidden_size"))
    hidden = n.i("hidden_size");
  else
    hidden = c.fresh();
  std::vector<Dim> x = c.ranked(0) ? c.dims(0) : c.fresh(3);
  bool batch_first = n.i("layout") != 0;
  if (batch_first) {
    c.set(0, c.dtype(0), {x[0], x[1], directions, hidden});
    for (size_t k = 1; k < 3; ++k) c.set(k, c.dtype(0), {x[0], directions, hidden});
  } else {
    c.set(0, c.dtype(0), {x[0], directions, x[1], hidden});
    for (size_t k = 1; k < 3; ++k) c.set(k, c.dtype(0), {directions, x[1], hidden});
  }
  return {};
}

Cost cost_recurrent(const CostQuery& q) {
  Shape x = q.shape_in(0), r = q.shape_in(2);
  if (x.size() != 3 || r.size() != 3) return {};
  double steps = double(x[0]) * double(x[1]), hidden = double(r[2]);
  return {.flops = steps * double(r[0]) * double(r[1]) * (2 * (double(x[2]) + hidden) + 12)};
}

// All inputs of a layer, in double. Strides turn (time, batch) into rows of X, whatever the layout.
struct Layer {
  int64_t time, batch, input, hidden, directions, gates;
  bool batch_first;
  std::vector<double> x, w, r, b, h0, c0, p;  // p: peepholes of an LSTM
  std::vector<int64_t> lengths;
  std::vector<std::array<Activation, 3>> activations;  // a direction
  double clip;

  const double* x_at(int64_t t, int64_t n) const {
    return x.data() + (batch_first ? n * time + t : t * batch + n) * input;
  }
  int64_t state_at(int64_t d, int64_t n) const { return (batch_first ? n * directions + d : d * batch + n) * hidden; }
  int64_t y_at(int64_t t, int64_t d, int64_t n) const {
    return (batch_first ? (n * time + t) * directions + d : (t * directions + d) * batch + n) * hidden;
  }
  double limited(double v) const { return std::clamp(v, -clip, clip); }
  // Row `row` of R of direction d times the vector h.
  double recur(int64_t d, int64_t row, const double* h) const {
    const double* weights = r.data() + (d * gates * hidden + row) * hidden;
    double sum = 0;
    for (int64_t i = 0; i < hidden; ++i) sum += weights[i] * h[i];
    return sum;
  }
};

bool takes_alpha(std::string n) {
  std::transform(n.begin(), n.end(), n.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  return n == "affine" || n == "leakyrelu" || n == "thresholdedrelu" || n == "scaledtanh" || n == "hardsigmoid" ||
         n == "elu";
}
bool takes_beta(std::string n) {
  std::transform(n.begin(), n.end(), n.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  return n == "affine" || n == "scaledtanh" || n == "hardsigmoid";
}

Result<Layer> load_layer(const Eval& e) {
  const Node& n = e.node;
  const Tensor &x = e.in(0), &w = e.in(1), &r = e.in(2);
  Layer l;
  l.gates = gates_of(n);
  l.directions = directions_of(n);
  l.batch_first = n.i("layout") != 0;
  if (x.rank() != 3 || w.rank() != 3 || r.rank() != 3)
    return e.error("X, W and R must have rank 3; their shapes are " + to_string(x.shape()) + ", " +
                   to_string(w.shape()) + ", " + to_string(r.shape()) + ".");
  l.time = x.dim(l.batch_first ? 1 : 0);
  l.batch = x.dim(l.batch_first ? 0 : 1);
  l.input = x.dim(2);
  l.hidden = r.dim(2);
  Shape state = l.batch_first ? Shape{l.batch, l.directions, l.hidden} : Shape{l.directions, l.batch, l.hidden};
  AI_VMM_TRY(ref::affordable(state));
  AI_VMM_TRY(ref::affordable({l.batch}));
  // Input k must have this shape when it is there; without it, zeros stand for it.
  auto take = [&](size_t k, const char* what, const Shape& shape) -> Result<std::vector<double>> {
    if (!e.has(k)) return std::vector<double>(size_t(ref::product(shape)), 0.0);
    if (e.in(k).shape() != shape)
      return e.error(std::string(what) + " has shape " + to_string(e.in(k).shape()) + "; it must be " +
                     to_string(shape) + ".");
    return ref::load<double>(e.in(k));
  };
  int64_t rows = l.gates * l.hidden;
  l.x = ref::load<double>(x);
  l.w = AI_VMM_TAKE(take(1, "W", {l.directions, rows, l.input}));
  l.r = AI_VMM_TAKE(take(2, "R", {l.directions, rows, l.hidden}));
  l.b = AI_VMM_TAKE(take(3, "B", {l.directions, 2 * rows}));
  l.h0 = AI_VMM_TAKE(take(5, "initial_h", state));
  l.c0 = AI_VMM_TAKE(take(6, "initial_c", state));
  l.p = AI_VMM_TAKE(take(7, "P", {l.directions, 3 * l.hidden}));
  l.lengths.assign(size_t(l.batch), l.time);
  if (e.has(4)) {
    l.lengths = ref::ints(e.in(4));
    if (int64_t(l.lengths.size()) != l.batch)
      return e.error("sequence_lens holds " + std::to_string(l.lengths.size()) + " numbers for a batch of " +
                     std::to_string(l.batch) + ".");
    for (int64_t s : l.lengths)
      if (s < 0 || s > l.time)
        return e.error("a sequence length of " + std::to_string(s) + " is outside [0, " + std::to_string(l.time) +
                       "].");
  }
  l.clip = n.has("clip") ? double(n.f("clip")) : INFINITY;
  if (!(l.clip > 0)) l.clip = INFINITY;

  std::vector<std::string> defaults = l.gates == 4   ? std::vector<std::string>{"Sigmoid", "Tanh", "Tanh"}
                                      : l.gates == 3 ? std::vector<std::string>{"Sigmoid", "Tanh"}
                                                     : std::vector<std::string>{"Tanh"};
  size_t per = defaults.size();
  auto names = n.strings("activations");
  if (names.empty())
    for (int64_t d = 0; d < l.directions; ++d) names.insert(names.end(), defaults.begin(), defaults.end());
  if (names.size() < per * size_t(l.directions))
    return e.error("activations names " + std::to_string(names.size()) + " functions; " +
                   std::to_string(per * size_t(l.directions)) + " are needed.");
  // Only functions that have an alpha or a beta use up an entry of the lists.
  auto alphas = n.floats("activation_alpha"), betas = n.floats("activation_beta");
  size_t next_alpha = 0, next_beta = 0;
  l.activations.resize(size_t(l.directions));
  for (size_t i = 0; i < per * size_t(l.directions); ++i) {
    std::optional<float> alpha, beta;
    if (takes_alpha(names[i]) && next_alpha < alphas.size()) alpha = alphas[next_alpha++];
    if (takes_beta(names[i]) && next_beta < betas.size()) beta = betas[next_beta++];
    l.activations[i / per][i % per] = AI_VMM_TAKE(activation(n, names[i], alpha, beta));
  }
  return l;
}

// Runs cell(direction, wx, h, c) for each step; wx holds W x + Wb of all gates, the cell adds what comes from h and
// replaces h and c. Writes Y, Y_h and, for an LSTM, Y_c.
template <class Cell>
Status run(Eval& e, const Layer& l, Cell cell) {
  Shape state = l.batch_first ? Shape{l.batch, l.directions, l.hidden} : Shape{l.directions, l.batch, l.hidden};
  Shape all =
      l.batch_first ? Shape{l.batch, l.time, l.directions, l.hidden} : Shape{l.time, l.directions, l.batch, l.hidden};
  DType type = e.in(0).dtype();
  Tensor *y = nullptr, *y_h = nullptr, *y_c = nullptr;
  if (e.wants(0)) y = AI_VMM_TAKE(e.make(0, type, all));
  if (e.wants(1)) y_h = AI_VMM_TAKE(e.make(1, type, state));
  if (e.wants(2)) y_c = AI_VMM_TAKE(e.make(2, type, state));
  std::vector<double> out(y ? size_t(y->count()) : 0, 0.0), last_h = l.h0, last_c = l.c0;
  int64_t rows = l.gates * l.hidden;
  std::vector<double> wx(static_cast<size_t>(rows));
  std::string direction = e.node.s("direction", "forward");
  for (int64_t d = 0; d < l.directions; ++d) {
    bool reverse = direction == "reverse" || d == 1;
    for (int64_t n = 0; n < l.batch; ++n) {
      double *h = last_h.data() + l.state_at(d, n), *c = last_c.data() + l.state_at(d, n);
      int64_t length = l.lengths[size_t(n)];
      for (int64_t s = 0; s < length; ++s) {
        int64_t t = reverse ? length - 1 - s : s;
        const double* x = l.x_at(t, n);
        for (int64_t i = 0; i < rows; ++i) {
          const double* weights = l.w.data() + (d * rows + i) * l.input;
          double sum = l.b[size_t(d * 2 * rows + i)];
          for (int64_t k = 0; k < l.input; ++k) sum += weights[k] * x[k];
          wx[size_t(i)] = sum;
        }
        cell(d, wx, h, c);
        if (y) std::copy(h, h + l.hidden, out.begin() + l.y_at(t, d, n));
      }
    }
  }
  if (y) ref::store<double>(*y, out);
  if (y_h) ref::store<double>(*y_h, last_h);
  if (y_c) ref::store<double>(*y_c, last_c);
  return {};
}

Status eval_rnn(Eval& e) {
  Layer l = AI_VMM_TAKE(load_layer(e));
  std::vector<double> next(static_cast<size_t>(l.hidden));
  return run(e, l, [&](int64_t d, const std::vector<double>& wx, double* h, double*) {
    const double* rb = l.b.data() + (2 * d + 1) * l.hidden;
    for (int64_t i = 0; i < l.hidden; ++i)
      next[size_t(i)] = l.activations[size_t(d)][0](l.limited(wx[size_t(i)] + l.recur(d, i, h) + rb[i]));
    std::copy(next.begin(), next.end(), h);
  });
}

// Gates z (update), r (reset), h (candidate).
Status eval_gru(Eval& e) {
  Layer l = AI_VMM_TAKE(load_layer(e));
  bool linear = e.node.i("linear_before_reset") != 0;
  int64_t n = l.hidden;
  std::vector<double> z(static_cast<size_t>(n)), r(z), reset(z), next(z);
  return run(e, l, [&](int64_t d, const std::vector<double>& wx, double* h, double*) {
    const auto& f = l.activations[size_t(d)];
    const double* rb = l.b.data() + (2 * d + 1) * 3 * n;
    for (int64_t i = 0; i < n; ++i) {
      size_t k = size_t(i);
      z[k] = f[0](l.limited(wx[k] + l.recur(d, i, h) + rb[i]));
      r[k] = f[0](l.limited(wx[size_t(n + i)] + l.recur(d, n + i, h) + rb[n + i]));
      reset[k] = r[k] * h[i];
    }
    for (int64_t i = 0; i < n; ++i) {
      size_t k = size_t(i);
      double from_h = linear ? r[k] * (l.recur(d, 2 * n + i, h) + rb[2 * n + i])
                             : l.recur(d, 2 * n + i, reset.data()) + rb[2 * n + i];
      next[k] = (1 - z[k]) * f[1](l.limited(wx[size_t(2 * n + i)] + from_h)) + z[k] * h[i];
    }
    std::copy(next.begin(), next.end(), h);
  });
}

// Gates i (input), o (output), f (forget), c (cell); peepholes i, o, f.
Status eval_lstm(Eval& e) {
  Layer l = AI_VMM_TAKE(load_layer(e));
  bool coupled = e.node.i("input_forget") != 0;
  int64_t n = l.hidden;
  std::vector<double> next(static_cast<size_t>(n));
  return run(e, l, [&](int64_t d, const std::vector<double>& wx, double* h, double* c) {
    const auto& f = l.activations[size_t(d)];
    const double *rb = l.b.data() + (2 * d + 1) * 4 * n, *p = l.p.data() + d * 3 * n;
    for (int64_t k = 0; k < n; ++k) {
      auto gate = [&](int64_t g, double peephole) {
        int64_t row = g * n + k;
        return l.limited(wx[size_t(row)] + l.recur(d, row, h) + rb[row] + peephole);
      };
      double input = f[0](gate(0, p[k] * c[k]));
      double forget = coupled ? 1 - input : f[0](gate(2, p[2 * n + k] * c[k]));
      double cell = forget * c[k] + input * f[1](gate(3, 0));
      double output = f[0](gate(1, p[n + k] * cell));
      next[size_t(k)] = output * f[2](cell);
      c[k] = cell;  // no other element of this step reads c[k]
    }
    std::copy(next.begin(), next.end(), h);
  });
}

#define RECURRENT_ATTRIBUTES                                                                                     \
  "activation_alpha:floats, activation_beta:floats, activations:strings, clip:float, direction:string=forward, " \
  "hidden_size:int, layout:int=0"
#define FLOATS "f16 f32 f64 bf16"

const OpDef kOps[] = {
    {"RNN", "", 22, "X:T, W:T, R:T, B:T?, sequence_lens:T1?, initial_h:T? -> Y:T?, Y_h:T? | T: " FLOATS ", T1: i32",
     RECURRENT_ATTRIBUTES, "h = f(W x + R h + b) step by step, forward, in reverse or both.", kNoTrait, infer_recurrent,
     cost_recurrent, eval_rnn},
    {"GRU", "", 22, "X:T, W:T, R:T, B:T?, sequence_lens:T1?, initial_h:T? -> Y:T?, Y_h:T? | T: " FLOATS ", T1: i32",
     RECURRENT_ATTRIBUTES ", linear_before_reset:int=0",
     "Gated recurrent unit (Cho et al. 2014); gates stand in the order update, reset, candidate.", kNoTrait,
     infer_recurrent, cost_recurrent, eval_gru},
    {"LSTM", "", 22,
     "X:T, W:T, R:T, B:T?, sequence_lens:T1?, initial_h:T?, initial_c:T?, P:T? -> Y:T?, Y_h:T?, Y_c:T? | T: " FLOATS
     ", T1: i32",
     RECURRENT_ATTRIBUTES ", input_forget:int=0",
     "Long short-term memory (Hochreiter and Schmidhuber 1997) with optional peepholes; gates stand in the order "
     "input, "
     "output, forget, cell.",
     kNoTrait, infer_recurrent, cost_recurrent, eval_lstm},
};

}  // namespace

std::span<const OpDef> recurrent_ops() { return kOps; }

}  // namespace ai_vmm
