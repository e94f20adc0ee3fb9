// LSTM, GRU and RNN. The product of the inputs with W is one matrix product over all steps; each step then adds the
// product of the state with R and applies the gates. Columns of W and R are reordered in chunks of units, each chunk
// with all its gates side by side, so that a thread owns the units it updates and the team meets once or twice a step.
// Two directions run side by side, one a thread.
#include <omp.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "backends/cpu/kernel.hpp"
#include "backends/cpu/kernels/kernels.hpp"

namespace ai_vmm::cpu {

namespace {

enum class Kind { lstm, gru, rnn };

struct Direction {
  std::shared_ptr<const float> w, r, r_hidden;  // packed; r_hidden: the candidate gate of a GRU
  std::vector<float> bias, bias_hidden;         // in the order of the columns; bias_hidden: inside the reset of a GRU
  bool reverse = false;
};

struct Network {
  Kind kind;
  int64_t gates, hidden, input;
  int64_t unit;            // units in a chunk: one panel of the matrix product
  int64_t chunks, padded;  // padded = chunks * unit
  bool linear_before_reset = false, batch_first = false;
  int act = 0;  // of an RNN
  std::vector<Direction> directions;

  int64_t columns() const { return padded * gates; }
  // Where column (chunk, gate, lane) of the input product lies. The candidate of a GRU follows all z and r.
  int64_t column(int64_t chunk, int64_t gate, int64_t lane) const {
    if (kind == Kind::gru) return gate < 2 ? (chunk * 2 + gate) * unit + lane : (chunks * 2 + chunk) * unit + lane;
    return (chunk * gates + gate) * unit + lane;
  }
};

struct Sizes {
  int64_t steps, batch;
};

std::shared_ptr<const float> pack(const Network& n, const float* m, int64_t depth, int64_t first_gate,
                                  int64_t last_gate, int64_t first_column, int64_t columns, int64_t& bytes) {
  std::vector<float> ordered(size_t(columns * depth), 0.0f);
  for (int64_t g = first_gate; g < last_gate; ++g)
    for (int64_t h = 0; h < n.hidden; ++h)
      std::memcpy(&ordered[size_t((n.column(h / n.unit, g, h % n.unit) - first_column) * depth)],
                  m + (g * n.hidden + h) * depth, size_t(depth) * sizeof(float));
  const Kernels& k = kernels();
  int64_t size = k.gemm_packed_size(depth, columns) * int64_t(sizeof(float));
  auto packed = std::static_pointer_cast<float>(aligned_buffer(size));
  k.gemm_pack(depth, columns, ordered.data(), 1, depth, packed.get(), 0, columns / n.unit);
  bytes += size;
  return packed;
}

void matmul(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, const float* b, float* c, int64_t c_row,
            const float* bias, const float* residual, int64_t residual_row, int64_t p0, int64_t p1, float* scratch) {
  Gemm g{};
  g.m = m;
  g.n = n;
  g.k = k;
  g.a = a;
  g.a_row = a_row;
  g.a_col = 1;
  g.b = b;
  g.c = c;
  g.c_row = c_row;
  g.alpha = 1;
  g.bias = bias;
  g.residual = residual;
  g.residual_row = residual_row;
  kernels().gemm_run(&g, 0, m, p0, p1, scratch);
}

// One direction of one run. `team` threads share it; `me` is one of them.
struct Work {
  const Network& n;
  const Direction& d;
  Sizes s;
  int64_t index, count;  // of the direction
  const float *x, *h0, *c0;
  float *y, *y_h, *y_c;
  float *product, *gates, *state, *cell, *extra;  // scratch

  int64_t row(int64_t t, int64_t b) const { return n.batch_first ? b * s.steps + t : t * s.batch + b; }
  int64_t row_step() const { return n.batch_first ? s.steps : 1; }
  int64_t last_offset(int64_t b) const { return (n.batch_first ? b * count + index : index * s.batch + b) * n.hidden; }
  float* y_row(int64_t t, int64_t b) const {
    return y + (n.batch_first ? (b * s.steps + t) * count + index : (t * count + index) * s.batch + b) * n.hidden;
  }

  void run(int me, int team, float* scratch) {
    const int64_t N = n.columns();
    auto meet = [&] {
      if (team > 1) {
#pragma omp barrier
      }
    };
    int64_t first = n.chunks * me / team, last = n.chunks * (me + 1) / team;
    int64_t panels = N / n.unit;
    matmul(s.steps * s.batch, N, n.input, x, n.input, d.w.get(), product, N, d.bias.data(), nullptr, 0,
           panels * me / team, panels * (me + 1) / team, scratch);
    if (me == 0) {
      for (int64_t b = 0; b < s.batch; ++b) {
        for (auto [to, from] : {std::pair(state, h0), std::pair(cell, c0)}) {
          if (!to) continue;
          float* at = to + b * n.padded;
          std::memset(at, 0, size_t(n.padded) * sizeof(float));
          if (from) std::memcpy(at, from + last_offset(b), size_t(n.hidden) * sizeof(float));
        }
      }
    }
    meet();
    float* now = state;
    float* next = state + s.batch * n.padded;
    for (int64_t i = 0; i < s.steps; ++i) {
      int64_t t = d.reverse ? s.steps - 1 - i : i;
      const float* in = product + row(t, 0) * N;
      if (n.kind == Kind::lstm) {
        matmul(s.batch, N, n.hidden, now, n.padded, d.r.get(), gates, N, nullptr, in, row_step() * N, first * 4,
               last * 4, scratch);
        for (int64_t b = 0; b < s.batch; ++b)
          for (int64_t c = first; c < last; ++c)
            lstm_cell(gates + b * N + c * 4 * n.unit, cell + b * n.padded + c * n.unit,
                      next + b * n.padded + c * n.unit);
      } else if (n.kind == Kind::rnn) {
        matmul(s.batch, N, n.hidden, now, n.padded, d.r.get(), next, n.padded, nullptr, in, row_step() * N, first, last,
               scratch);
        for (int64_t b = 0; b < s.batch; ++b)
          kernels().activate_row(next + b * n.padded + first * n.unit, (last - first) * n.unit, n.act, 0, 0);
      } else {
        gru_step(now, next, in, first, last, scratch, meet);
      }
      for (int64_t b = 0; y && b < s.batch; ++b) copy_units(y_row(t, b), next + b * n.padded, first, last);
      std::swap(now, next);
      meet();
    }
    for (int64_t b = 0; b < s.batch; ++b) {
      if (y_h) copy_units(y_h + last_offset(b), now + b * n.padded, first, last);
      if (y_c) copy_units(y_c + last_offset(b), cell + b * n.padded, first, last);
    }
  }

  void copy_units(float* to, const float* from, int64_t first, int64_t last) const {
    int64_t begin = first * n.unit, end = std::min(last * n.unit, n.hidden);
    if (begin < end) std::memcpy(to + begin, from + begin, size_t(end - begin) * sizeof(float));
  }

  // Gates of a chunk in ONNX's order: input, output, forget, candidate.
  void lstm_cell(float* g, float* c, float* h) const {
    const int64_t u = n.unit;
    kernels().activate_row(g, 3 * u, int(Act::sigmoid), 0, 0);
    kernels().activate_row(g + 3 * u, u, int(Act::tanh), 0, 0);
    for (int64_t q = 0; q < u; ++q) h[q] = c[q] = g[2 * u + q] * c[q] + g[q] * g[3 * u + q];
    kernels().activate_row(h, u, int(Act::tanh), 0, 0);
    for (int64_t q = 0; q < u; ++q) h[q] *= g[u + q];
  }

  template <class Meet>
  void gru_step(const float* now, float* next, const float* in, int64_t first, int64_t last, float* scratch,
                Meet& meet) {
    const int64_t N = n.columns(), u = n.unit, zr = 2 * n.padded;
    float* candidate = extra;                   // [batch, padded]
    float* reset = extra + s.batch * n.padded;  // r * h
    matmul(s.batch, zr, n.hidden, now, n.padded, d.r.get(), gates, zr, nullptr, in, row_step() * N, first * 2, last * 2,
           scratch);
    for (int64_t b = 0; b < s.batch; ++b)
      kernels().activate_row(gates + b * zr + first * 2 * u, (last - first) * 2 * u, int(Act::sigmoid), 0, 0);
    auto each = [&](auto f) {
      for (int64_t b = 0; b < s.batch; ++b)
        for (int64_t c = first; c < last; ++c) {
          const float *z = gates + b * zr + c * 2 * u, *r = z + u;
          int64_t at = b * n.padded + c * u;
          f(z, r, at, in + b * row_step() * N + zr + c * u);
        }
    };
    if (n.linear_before_reset) {
      matmul(s.batch, n.padded, n.hidden, now, n.padded, d.r_hidden.get(), candidate, n.padded, d.bias_hidden.data(),
             nullptr, 0, first, last, scratch);
      each([&](const float*, const float* r, int64_t at, const float* input) {
        for (int64_t q = 0; q < u; ++q) candidate[at + q] = input[q] + r[q] * candidate[at + q];
      });
    } else {
      each([&](const float*, const float* r, int64_t at, const float*) {
        for (int64_t q = 0; q < u; ++q) reset[at + q] = r[q] * now[at + q];
      });
      meet();
      matmul(s.batch, n.padded, n.hidden, reset, n.padded, d.r_hidden.get(), candidate, n.padded, nullptr, in + zr,
             row_step() * N, first, last, scratch);
    }
    for (int64_t b = 0; b < s.batch; ++b)
      kernels().activate_row(candidate + b * n.padded + first * u, (last - first) * u, int(Act::tanh), 0, 0);
    each([&](const float* z, const float*, int64_t at, const float*) {
      for (int64_t q = 0; q < u; ++q) next[at + q] = (1 - z[q]) * candidate[at + q] + z[q] * now[at + q];
    });
  }
};

// The activations ONNX gives a cell when the node names none, a direction.
bool default_activations(const Node& node, size_t directions, std::initializer_list<const char*> names) {
  auto given = node.strings("activations");
  if (given.empty()) return true;
  if (given.size() != directions * names.size()) return false;
  for (size_t i = 0; i < given.size(); ++i)
    if (given[i] != names.begin()[i % names.size()]) return false;
  return true;
}

Made recurrent(const Make& m, Kind kind) {
  const Node& node = m.node;
  const Tensor *w = m.constant(1), *r = m.constant(2), *bias = m.constant(3);
  if (m.dtype(0) != DType::f32) return "only f32";
  if (!w || !r || (m.has(3) && !bias)) return "weights are not constant";
  if (w->rank() != 3 || r->rank() != 3 || r->dim(2) == 0) return "weights must have rank 3";
  if (m.has(4)) return "sequences of different lengths";
  if (kind == Kind::lstm && m.has(7)) return "peepholes";
  if (node.f("clip", 0) != 0 || node.i("input_forget", 0) != 0) return "clip or coupled gates";
  auto n = std::make_shared<Network>();
  n->kind = kind;
  n->gates = kind == Kind::lstm ? 4 : kind == Kind::gru ? 3 : 1;
  n->hidden = r->dim(2);
  n->input = w->dim(2);
  n->batch_first = node.i("layout", 0) != 0;
  n->linear_before_reset = node.i("linear_before_reset", 0) != 0;
  size_t count = size_t(w->dim(0));
  if (w->dim(1) != n->gates * n->hidden || r->dim(1) != n->gates * n->hidden || r->dim(0) != w->dim(0) ||
      (bias && bias->count() != int64_t(count) * 2 * n->gates * n->hidden))
    return "weights do not fit together";
  if (kind == Kind::lstm && !default_activations(node, count, {"Sigmoid", "Tanh", "Tanh"})) return "activations";
  if (kind == Kind::gru && !default_activations(node, count, {"Sigmoid", "Tanh"})) return "activations";
  if (kind == Kind::rnn) {
    auto names = node.strings("activations", std::vector<std::string>(count, "Tanh"));
    if (names.empty()) names.assign(count, "Tanh");
    for (const auto& a : names)
      if (a != names[0]) return "activations";
    n->act = names[0] == "Tanh"      ? int(Act::tanh)
             : names[0] == "Relu"    ? int(Act::relu)
             : names[0] == "Sigmoid" ? int(Act::sigmoid)
                                     : -1;
    if (n->act < 0) return "activations";
  }
  if (m.probe) return Made(BindFn([](const Bind&) -> Result<Bound> { return Bound{}; }));

  GemmShape shape;
  kernels().gemm_shape(&shape);
  n->unit = shape.nr;
  n->chunks = (n->hidden + n->unit - 1) / n->unit;
  n->padded = n->chunks * n->unit;
  std::string direction = node.s("direction", "forward");
  const int64_t G = n->gates * n->hidden;
  auto packed = [&](size_t d, const char* what, auto make) {
    return std::static_pointer_cast<const float>(
        m.pack->get(m.key(std::strcmp(what, "w") == 0 ? 1 : 2, "recurrent" + std::to_string(d) + what), make));
  };
  for (size_t k = 0; k < count; ++k) {
    Direction d;
    d.reverse = direction == "reverse" || k == 1;
    const float* wk = w->as<float>().data() + int64_t(k) * G * n->input;
    const float* rk = r->as<float>().data() + int64_t(k) * G * n->hidden;
    d.w = packed(k, "w", [&](int64_t& bytes) { return pack(*n, wk, n->input, 0, n->gates, 0, n->columns(), bytes); });
    if (kind == Kind::gru) {
      d.r = packed(k, "zr", [&](int64_t& bytes) { return pack(*n, rk, n->hidden, 0, 2, 0, 2 * n->padded, bytes); });
      d.r_hidden = packed(
          k, "h", [&](int64_t& bytes) { return pack(*n, rk, n->hidden, 2, 3, 2 * n->padded, n->padded, bytes); });
    } else {
      d.r =
          packed(k, "r", [&](int64_t& bytes) { return pack(*n, rk, n->hidden, 0, n->gates, 0, n->columns(), bytes); });
    }
    d.bias.assign(size_t(n->columns()), 0.0f);
    d.bias_hidden.assign(size_t(n->padded), 0.0f);
    if (bias) {
      const float* b = bias->as<float>().data() + int64_t(k) * 2 * G;
      for (int64_t g = 0; g < n->gates; ++g)
        for (int64_t h = 0; h < n->hidden; ++h) {
          float wb = b[g * n->hidden + h], rb = b[G + g * n->hidden + h];
          bool inside = kind == Kind::gru && g == 2 && n->linear_before_reset;
          d.bias[size_t(n->column(h / n->unit, g, h % n->unit))] = inside ? wb : wb + rb;
          if (inside) d.bias_hidden[size_t(h)] = rb;
        }
    }
    n->directions.push_back(std::move(d));
  }

  return BindFn([n](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    if (x.size() != 3 || x[2] != n->input)
      return invalid("The input has shape " + ai_vmm::to_string(x) + "; the weights take " + std::to_string(n->input) +
                     " features.");
    Sizes s{n->batch_first ? x[1] : x[0], n->batch_first ? x[0] : x[1]};
    const int64_t N = n->columns();
    const int64_t product_size = s.steps * s.batch * N, state_size = s.batch * n->padded;
    const int64_t per_direction = product_size + s.batch * N + 5 * state_size;
    const int64_t gemm_scratch = kernels().gemm_scratch();
    const auto count = int64_t(n->directions.size());
    // Below this a meeting of threads costs more than the step.
    const bool big = s.batch * n->hidden * N >= 100000;
    const int team = big ? int(std::min<int64_t>(b.threads, n->chunks)) : 1;
    const bool side_by_side = count == 2 && b.threads >= 2 && s.steps * s.batch * n->hidden * N >= 200000;
    const int threads = side_by_side ? 2 : team;
    Bound bound;
    bound.scratch = (count * per_direction + threads * gemm_scratch) * int64_t(sizeof(float));
    bound.flops = 2.0 * double(count * s.steps * s.batch * N) * double(n->input + n->hidden);
    bound.note = side_by_side ? "a direction a thread" : std::to_string(threads) + " threads";
    constexpr size_t kInitialState = 5;
    bound.run = [=](Run& r) -> Status {
      auto* scratch = reinterpret_cast<float*>(r.scratch);
      auto work = [&](int64_t k) {
        float* at = scratch + k * per_direction;
        Work w{*n,
               n->directions[size_t(k)],
               s,
               k,
               count,
               r.in<float>(0),
               r.in_ids.size() > kInitialState ? r.in<float>(kInitialState) : nullptr,
               n->kind == Kind::lstm && r.in_ids.size() > 6 ? r.in<float>(6) : nullptr,
               r.out<float>(0),
               r.out_ids.size() > 1 ? r.out<float>(1) : nullptr,
               r.out_ids.size() > 2 ? r.out<float>(2) : nullptr,
               at,
               at + product_size,
               at + product_size + s.batch * N,
               nullptr,
               nullptr};
        float* rest = at + product_size + s.batch * N + 2 * state_size;
        w.cell = n->kind == Kind::lstm ? rest : nullptr;
        w.extra = rest + state_size;
        return w;
      };
      float* gemm = scratch + count * per_direction;
      if (threads == 1) {
        for (int64_t k = 0; k < count; ++k) work(k).run(0, 1, gemm);
        return {};
      }
#pragma omp parallel num_threads(threads)
      {
        int me = omp_get_thread_num(), all = omp_get_num_threads();
        if (side_by_side) {
          for (int64_t k = me; k < count; k += all) work(k).run(0, 1, gemm + me * gemm_scratch);
        } else {
          for (int64_t k = 0; k < count; ++k) {
            work(k).run(me, all, gemm + me * gemm_scratch);
#pragma omp barrier
          }
        }
      }
      return {};
    };
    return bound;
  });
}

}  // namespace

Made make_lstm(const Make& m) { return recurrent(m, Kind::lstm); }
Made make_gru(const Make& m) { return recurrent(m, Kind::gru); }
Made make_rnn(const Make& m) { return recurrent(m, Kind::rnn); }

}  // namespace ai_vmm::cpu
