// Attention, RotaryEmbedding and LinearAttention.

#include "ops/attention.hpp"

#include <algorithm>
#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

// ---------------------------------------------------------------- shared

Result<Heads> Heads::make(int64_t batch, int64_t heads, int64_t length, int64_t size) {
  AI_VMM_TRY(ref::affordable({batch, heads, length, size}));
  return Heads{batch, heads, length, size, std::vector<double>(size_t(batch * heads * length * size), 0.0)};
}

Result<Heads> load_heads(const Eval& e, const Tensor& t, int64_t heads) {
  if (t.rank() == 4) {
    Heads h;
    h.batch = t.dim(0), h.heads = t.dim(1), h.length = t.dim(2), h.size = t.dim(3);
    h.v = ref::load<double>(t);
    return h;
  }
  if (t.rank() != 3 || heads < 1 || t.dim(2) % heads != 0)
    return e.error("a tensor of shape " + to_string(t.shape()) + " does not divide into " + std::to_string(heads) +
                   " heads.");
  Heads h = AI_VMM_TAKE(Heads::make(t.dim(0), heads, t.dim(1), t.dim(2) / heads));
  auto v = ref::load<double>(t);
  for (int64_t b = 0; b < h.batch; ++b)
    for (int64_t i = 0; i < h.length; ++i)
      for (int64_t k = 0; k < heads; ++k)
        std::copy_n(v.data() + ((b * h.length + i) * heads + k) * h.size, h.size, h.row(b, k, i));
  return h;
}

Result<Heads> append(const Eval& e, const Heads& past, const Heads& next) {
  if (past.batch != next.batch || past.heads != next.heads || past.size != next.size)
    return e.error("a past of shape " + to_string(past.shape()) + " does not go before " + to_string(next.shape()) +
                   ".");
  Heads all = AI_VMM_TAKE(Heads::make(next.batch, next.heads, past.length + next.length, next.size));
  for (int64_t b = 0; b < all.batch; ++b)
    for (int64_t h = 0; h < all.heads; ++h) {
      std::copy_n(past.row(b, h, 0), past.length * past.size, all.row(b, h, 0));
      std::copy_n(next.row(b, h, 0), next.length * next.size, all.row(b, h, past.length));
    }
  return all;
}

Status store_heads(Eval& e, size_t output, DType type, const Heads& h, bool packed) {
  Tensor* t = AI_VMM_TAKE(e.make(output, type, packed ? Shape{h.batch, h.length, h.heads * h.size} : h.shape()));
  if (!packed) {
    ref::store<double>(*t, h.v);
    return {};
  }
  std::vector<double> v;
  v.reserve(h.v.size());
  for (int64_t b = 0; b < h.batch; ++b)
    for (int64_t i = 0; i < h.length; ++i)
      for (int64_t k = 0; k < h.heads; ++k) v.insert(v.end(), h.row(b, k, i), h.row(b, k, i) + h.size);
  ref::store<double>(*t, v);
  return {};
}

Result<Heads> attend(const AttentionCall& c) {
  const Heads &q = c.q, &k = c.k, &v = c.v;
  Heads y = AI_VMM_TAKE(Heads::make(q.batch, q.heads, q.length, v.size));
  AI_VMM_TRY(ref::affordable({k.length}));
  int64_t sharing = k.heads ? q.heads / k.heads : 1;
  std::vector<double> row(static_cast<size_t>(k.length));
  for (int64_t b = 0; b < q.batch; ++b)
    for (int64_t h = 0; h < q.heads; ++h)
      for (int64_t i = 0; i < q.length; ++i) {
        auto seen = [&](int step) {
          if (c.observe) c.observe(b, h, i, step, row);
        };
        const double* qi = q.row(b, h, i);
        for (int64_t j = 0; j < k.length; ++j) {
          const double* kj = k.row(b, h / sharing, j);
          double sum = 0;
          for (int64_t d = 0; d < q.size; ++d) sum += qi[d] * kj[d];
          row[size_t(j)] = sum * c.scale;
        }
        seen(0);
        if (c.softcap > 0)
          for (double& s : row) s = c.softcap * std::tanh(s / c.softcap);
        seen(1);
        double top = -INFINITY, total = 0;
        bool sees_a_key = false;
        for (int64_t j = 0; j < k.length; ++j) {
          double bias = c.bias ? c.bias(b, h, i, j) : 0;
          // A hidden key is -infinity whatever its score, NaN included.
          row[size_t(j)] = bias == -INFINITY ? -INFINITY : row[size_t(j)] + bias;
          sees_a_key |= bias != -INFINITY;
          top = std::max(top, row[size_t(j)]);
        }
        seen(2);
        if (!sees_a_key || top == -INFINITY) {
          std::fill(row.begin(), row.end(), 0.0);
          seen(3);
          continue;  // the output row stays zero
        }
        if (c.sink) {
          double s = (*c.sink)[size_t(h)];
          top = std::max(top, s);
          total = std::exp(s - top);
        }
        for (double& s : row) total += s = std::exp(s - top);
        for (double& s : row) s /= total;
        seen(3);
        double* yi = y.row(b, h, i);
        for (int64_t j = 0; j < k.length; ++j) {
          if (row[size_t(j)] == 0) continue;  // a hidden value does not count, were it infinite
          const double* vj = v.row(b, h / sharing, j);
          for (int64_t d = 0; d < v.size; ++d) yi[d] += row[size_t(j)] * vj[d];
        }
      }
  return y;
}

void rotate(double* x, std::span<const double> cos, std::span<const double> sin, bool interleaved) {
  size_t half = cos.size();
  for (size_t i = 0; i < half; ++i) {
    double &a = x[interleaved ? 2 * i : i], &b = x[interleaved ? 2 * i + 1 : i + half];
    double real = a * cos[i] - b * sin[i], imaginary = a * sin[i] + b * cos[i];
    a = real, b = imaginary;
  }
}

double attention_flops(double batch, double heads, double queries, double keys, double head_size, double value_size) {
  return batch * heads * queries * keys * (2 * head_size + 2 * value_size + 12);
}

namespace {

// ---------------------------------------------------------------- Attention

// [batch, heads, length, size] of input k in either form; empty when not known.
std::vector<Dim> head_dims(const Infer& c, size_t k, const char* count) {
  if (!c.ranked(k)) return {};
  const auto& d = c.dims(k);
  if (d.size() == 4) return d;
  int64_t heads = c.node.i(count);
  if (d.size() != 3 || heads < 1) return {};
  return {d[0], heads, d[1], exact_div(d[2], heads)};
}

Status infer_attention(Infer& c) {
  if (c.has(4) != c.has(5)) return c.error("past_key and past_value must be given together.");
  auto q = head_dims(c, 0, "q_num_heads"), k = head_dims(c, 1, "kv_num_heads"), v = head_dims(c, 2, "kv_num_heads");
  if (q.empty() || k.empty() || v.empty()) {
    if (c.ranked(0) && c.rank(0) == 3 && (c.node.i("q_num_heads") < 1 || c.node.i("kv_num_heads") < 1))
      return c.error("inputs of rank 3 need positive q_num_heads and kv_num_heads.");
    for (size_t i = 0; i < 4; ++i) c.set_unranked(i, c.dtype(i == 2 ? 2 : 0));
    return {};
  }
  if (c.rank(0) == 3)
    c.set(0, c.dtype(0), {q[0], q[2], q[1] * v[3]});
  else
    c.set(0, c.dtype(0), {q[0], q[1], q[2], v[3]});
  Dim total = k[2];
  if (c.has(4)) total = c.ranked(4) && c.rank(4) == 4 ? c.dims(4)[2] + k[2] : c.fresh();
  c.set(1, c.dtype(1), {k[0], k[1], total, k[3]});
  c.set(2, c.dtype(2), {v[0], v[1], total, v[3]});
  c.set(3, c.dtype(0), {q[0], q[1], q[2], total});
  return {};
}

// Reads a mask that broadcasts to [batch, heads, queries, keys], whose last axis may be shorter than `keys`.
class Mask {
 public:
  Mask() = default;
  static Result<Mask> load(const Eval& e, const Tensor& t, const Shape& scores) {
    Mask m;
    Shape target = scores;
    if (t.rank() < 1 || t.rank() > 4)
      return e.error("attn_mask has shape " + to_string(t.shape()) + "; its rank must be 1 to 4.");
    m.keys_ = t.dim(t.rank() - 1);
    if (m.keys_ > scores[3])
      return e.error("attn_mask has shape " + to_string(t.shape()) + " for " + std::to_string(scores[3]) + " keys.");
    target[3] = m.keys_;
    const Shape shapes[] = {target, t.shape()};
    Shape all = AI_VMM_TAKE(ref::broadcast(e, shapes));
    if (all != target)
      return e.error("attn_mask has shape " + to_string(t.shape()) + ", which does not broadcast to " +
                     to_string(scores) + ".");
    m.strides_ = ref::broadcast_strides(t.shape(), target);
    m.values_ = ref::load<double>(t);
    if (t.dtype() == DType::boolean)
      for (double& v : m.values_) v = v != 0 ? 0 : -INFINITY;
    return m;
  }
  double at(int64_t b, int64_t h, int64_t i, int64_t j) const {
    if (strides_.empty()) return 0;
    return j >= keys_ ? -INFINITY
                      : values_[size_t(b * strides_[0] + h * strides_[1] + i * strides_[2] + j * strides_[3])];
  }

 private:
  int64_t keys_ = 0;
  Shape strides_;
  std::vector<double> values_;
};

Status eval_attention(Eval& e) {
  const Node& n = e.node;
  if (e.has(4) != e.has(5)) return e.error("past_key and past_value must be given together.");
  if (e.has(6) && e.has(4)) return e.error("nonpad_kv_seqlen cannot be combined with past_key.");
  int64_t q_heads = n.i("q_num_heads"), kv_heads = n.i("kv_num_heads");
  Heads q = AI_VMM_TAKE(load_heads(e, e.in(0), q_heads));
  Heads k = AI_VMM_TAKE(load_heads(e, e.in(1), kv_heads));
  Heads v = AI_VMM_TAKE(load_heads(e, e.in(2), kv_heads));
  int64_t past = 0;
  if (e.has(4)) {
    Heads past_k = AI_VMM_TAKE(load_heads(e, e.in(4), kv_heads)), past_v;
    past_v = AI_VMM_TAKE(load_heads(e, e.in(5), kv_heads));
    past = past_k.length;
    k = AI_VMM_TAKE(append(e, past_k, k));
    v = AI_VMM_TAKE(append(e, past_v, v));
  }
  if (k.batch != q.batch || v.batch != q.batch || k.size != q.size || k.length != v.length || k.heads != v.heads ||
      k.heads < 1 || q.heads % k.heads != 0)
    return e.error("queries " + to_string(q.shape()) + ", keys " + to_string(k.shape()) + " and values " +
                   to_string(v.shape()) + " do not go together.");
  Shape scores{q.batch, q.heads, q.length, k.length};
  Mask mask;
  if (e.has(3)) mask = AI_VMM_TAKE(Mask::load(e, e.in(3), scores));
  std::vector<int64_t> valid;
  if (e.has(6)) {
    valid = ref::ints(e.in(6));
    if (int64_t(valid.size()) != q.batch)
      return e.error("nonpad_kv_seqlen holds " + std::to_string(valid.size()) + " numbers for a batch of " +
                     std::to_string(q.batch) + ".");
    for (int64_t n_valid : valid)
      if (n_valid < 0 || n_valid > k.length)
        return e.error("nonpad_kv_seqlen " + std::to_string(n_valid) + " is outside [0, " + std::to_string(k.length) +
                       "].");
  }
  bool causal = n.i("is_causal") != 0;
  int64_t left = n.i("left_window_size", -1), right = n.i("right_window_size", -1);
  if (left < -1 || right < -1) return e.error("a window size must be -1 or more.");

  int mode = int(n.i("qk_matmul_output_mode"));
  std::vector<double> observed;
  AttentionCall call{q,  k,  v, n.has("scale") ? double(n.f("scale")) : 1 / std::sqrt(double(q.size)), n.f("softcap"),
                     {}, {}, {}};
  call.bias = [&](int64_t b, int64_t h, int64_t i, int64_t j) -> double {
    if (!valid.empty() && j >= valid[size_t(b)]) return -INFINITY;
    int64_t position = i + (valid.empty() ? past : valid[size_t(b)] - q.length);  // of the query among the keys
    if (causal && j > position) return -INFINITY;
    if (left >= 0 && position - j > left) return -INFINITY;
    if (right >= 0 && j - position > right) return -INFINITY;
    return mask.at(b, h, i, j);
  };
  if (e.wants(3)) {
    if (mode < 0 || mode > 3) return e.error("qk_matmul_output_mode " + std::to_string(mode) + " is outside [0, 3].");
    AI_VMM_TRY(ref::affordable(scores));
    call.observe = [&](int64_t, int64_t, int64_t, int step, std::span<const double> row) {
      if (step == mode) observed.insert(observed.end(), row.begin(), row.end());
    };
  }
  Heads y = AI_VMM_TAKE(attend(call));
  AI_VMM_TRY(store_heads(e, 0, e.in(0).dtype(), y, e.in(0).rank() == 3));
  if (e.wants(1)) AI_VMM_TRY(store_heads(e, 1, e.in(1).dtype(), k, false));
  if (e.wants(2)) AI_VMM_TRY(store_heads(e, 2, e.in(2).dtype(), v, false));
  if (e.wants(3)) {
    Tensor* t = AI_VMM_TAKE(e.make(3, e.in(0).dtype(), scores));
    ref::store<double>(*t, observed);
  }
  return {};
}

Cost cost_attention(const CostQuery& c) {
  Shape q = c.shape_in(0), k = c.shape_in(1), v = c.shape_in(2), past = c.shape_in(4);
  if (q.size() < 3 || k.size() != q.size() || v.size() != q.size()) return {};
  bool packed = q.size() == 3;
  double heads = double(packed ? std::max<int64_t>(c.node.i("q_num_heads"), 1) : q[1]);
  double kv = double(packed ? std::max<int64_t>(c.node.i("kv_num_heads"), 1) : k[1]);
  double keys = double(k[k.size() - 2]) + (past.size() == 4 ? double(past[2]) : 0);
  return {.flops = attention_flops(double(q[0]), heads, double(q[q.size() - 2]), keys,
                                   double(q.back()) / (packed ? heads : 1), double(v.back()) / (packed ? kv : 1))};
}

// ---------------------------------------------------------------- RotaryEmbedding

Status infer_first(Infer& c) {
  c.set(0, c.type(0));
  return {};
}

Status eval_rotary(Eval& e) {
  const Tensor &x = e.in(0), &cos = e.in(1), &sin = e.in(2);
  Heads h = AI_VMM_TAKE(load_heads(e, x, e.node.i("num_heads")));
  int64_t dim = e.node.i("rotary_embedding_dim"), half = (dim > 0 ? dim : h.size) / 2;
  if (dim > h.size)
    return e.error("rotary_embedding_dim " + std::to_string(dim) + " exceeds the head size " + std::to_string(h.size) +
                   ".");
  bool by_id = e.has(3);
  if (cos.shape() != sin.shape() || cos.rank() != (by_id ? 2 : 3) || cos.dim(cos.rank() - 1) != half ||
      (!by_id && (cos.dim(0) != h.batch || cos.dim(1) != h.length)))
    return e.error("caches of shapes " + to_string(cos.shape()) + " and " + to_string(sin.shape()) +
                   " do not fit an input of shape " + to_string(x.shape()) + ".");
  std::vector<int64_t> ids;
  if (by_id) {
    if (e.in(3).shape() != Shape{h.batch, h.length})
      return e.error("position_ids has shape " + to_string(e.in(3).shape()) + "; it must be " +
                     to_string(Shape{h.batch, h.length}) + ".");
    ids = ref::ints(e.in(3));
  }
  auto c = ref::load<double>(cos), s = ref::load<double>(sin);
  for (int64_t b = 0; b < h.batch; ++b)
    for (int64_t i = 0; i < h.length; ++i) {
      int64_t at = b * h.length + i;
      if (by_id) at = ids[size_t(at)];
      if (at < 0 || (by_id && at >= cos.dim(0)))
        return e.error("position " + std::to_string(at) + " is outside the cache of " + std::to_string(cos.dim(0)) +
                       ".");
      for (int64_t k = 0; k < h.heads; ++k)
        rotate(h.row(b, k, i), std::span(c).subspan(size_t(at * half), size_t(half)),
               std::span(s).subspan(size_t(at * half), size_t(half)), e.node.i("interleaved") != 0);
    }
  return store_heads(e, 0, x.dtype(), h, x.rank() == 3);
}

// ---------------------------------------------------------------- LinearAttention

Status infer_linear_attention(Infer& c) {
  int64_t q_heads = c.node.i("q_num_heads"), kv_heads = c.node.i("kv_num_heads");
  if (q_heads < 1 || kv_heads < 1 || q_heads % kv_heads != 0)
    return c.error("q_num_heads " + std::to_string(q_heads) + " must be a positive multiple of kv_num_heads " +
                   std::to_string(kv_heads) + ".");
  auto q = head_dims(c, 0, "q_num_heads"), v = head_dims(c, 2, "kv_num_heads");
  DType state = c.has(3) ? c.dtype(3) : c.dtype(0);
  if (q.empty() || v.empty()) {
    c.set_unranked(0, c.dtype(0));
    c.set_unranked(1, state);
    return {};
  }
  c.set(0, c.dtype(0), {q[0], q[2], v[3] * q_heads});
  c.set(1, state, {q[0], kv_heads, q[3], v[3]});
  return {};
}

Status eval_linear_attention(Eval& e) {
  const Node& n = e.node;
  int64_t q_heads = n.i("q_num_heads"), kv_heads = n.i("kv_num_heads");
  std::string rule = n.s("update_rule", "gated_delta");
  bool gated = rule == "gated" || rule == "gated_delta", delta = rule == "delta" || rule == "gated_delta";
  if (!gated && !delta && rule != "linear")
    return e.error("update_rule \"" + rule + "\" is not one of linear, gated, delta, gated_delta.");
  if (e.has(4) != gated || e.has(5) != delta)
    return e.error("update_rule \"" + rule +
                   "\" goes with other inputs: decay for the gated rules, beta for the delta rules.");
  if (q_heads < 1 || kv_heads < 1 || q_heads % kv_heads != 0)
    return e.error("q_num_heads " + std::to_string(q_heads) + " must be a positive multiple of kv_num_heads " +
                   std::to_string(kv_heads) + ".");
  for (size_t k = 0; k < 3; ++k)
    if (e.in(k).rank() != 3) return e.error("query, key and value must have rank 3.");
  Heads q = AI_VMM_TAKE(load_heads(e, e.in(0), q_heads));
  Heads k = AI_VMM_TAKE(load_heads(e, e.in(1), kv_heads));
  Heads v = AI_VMM_TAKE(load_heads(e, e.in(2), kv_heads));
  if (k.size != q.size || k.batch != q.batch || v.batch != q.batch || k.length != q.length || v.length != q.length)
    return e.error("queries " + to_string(q.shape()) + ", keys " + to_string(k.shape()) + " and values " +
                   to_string(v.shape()) + " do not go together.");
  Heads state = AI_VMM_TAKE(Heads::make(q.batch, kv_heads, k.size, v.size)), decay, beta;
  if (e.has(3)) {
    if (e.in(3).shape() != state.shape())
      return e.error("past_state has shape " + to_string(e.in(3).shape()) + "; it must be " + to_string(state.shape()) +
                     ".");
    state.v = ref::load<double>(e.in(3));
  }
  auto gate = [&](size_t input, int64_t heads) -> Result<Heads> {
    const Tensor& t = e.in(input);
    if (t.rank() != 3 || t.dim(0) != q.batch || t.dim(1) != q.length)
      return e.error("an input of shape " + to_string(t.shape()) + " does not give a number for each step.");
    return load_heads(e, t, heads);
  };
  if (gated) {
    decay = AI_VMM_TAKE(gate(4, kv_heads));
    if (decay.size != 1 && decay.size != k.size)
      return e.error("decay has shape " + to_string(e.in(4).shape()) +
                     ", neither one number a head nor one a key element.");
  }
  if (delta) {
    int64_t last = e.in(5).rank() == 3 ? e.in(5).dim(2) : 0;
    if (last != 1 && last != kv_heads)
      return e.error("beta has shape " + to_string(e.in(5).shape()) +
                     "; its last axis must be 1 or the number of key heads.");
    beta = AI_VMM_TAKE(gate(5, last));
  }
  double scale = n.f("scale");
  if (scale == 0) scale = 1 / std::sqrt(double(q.size));
  Heads y = AI_VMM_TAKE(Heads::make(q.batch, q_heads, q.length, v.size));
  std::vector<double> write(static_cast<size_t>(v.size));
  int64_t sharing = q_heads / kv_heads;
  for (int64_t b = 0; b < q.batch; ++b)
    for (int64_t h = 0; h < kv_heads; ++h)
      for (int64_t t = 0; t < q.length; ++t) {
        const double *key = k.row(b, h, t), *value = v.row(b, h, t);
        if (gated)
          for (int64_t d = 0; d < k.size; ++d) {
            double keep = std::exp(decay.row(b, h, t)[decay.size == 1 ? 0 : d]);
            for (int64_t m = 0; m < v.size; ++m) state.row(b, h, d)[m] *= keep;
          }
        std::copy_n(value, v.size, write.begin());
        if (delta) {
          for (int64_t d = 0; d < k.size; ++d)
            for (int64_t m = 0; m < v.size; ++m) write[size_t(m)] -= state.row(b, h, d)[m] * key[d];
          for (double& w : write) w *= *beta.row(b, beta.heads == 1 ? 0 : h, t);
        }
        for (int64_t d = 0; d < k.size; ++d)
          for (int64_t m = 0; m < v.size; ++m) state.row(b, h, d)[m] += key[d] * write[size_t(m)];
        for (int64_t s = 0; s < sharing; ++s) {
          const double* query = q.row(b, h * sharing + s, t);
          double* out = y.row(b, h * sharing + s, t);
          for (int64_t d = 0; d < k.size; ++d)
            for (int64_t m = 0; m < v.size; ++m) out[m] += scale * query[d] * state.row(b, h, d)[m];
        }
      }
  AI_VMM_TRY(store_heads(e, 0, e.in(0).dtype(), y, true));
  return store_heads(e, 1, e.has(3) ? e.in(3).dtype() : e.in(0).dtype(), state, false);
}

#define FLOATS "f16 f32 f64 bf16"

const OpDef kOps[] = {
    {"Attention", "", 25,
     "Q:T1, K:T1, V:T2, attn_mask:U?, past_key:T1?, past_value:T2?, nonpad_kv_seqlen:i64? -> Y:T1, present_key:T1?, "
     "present_value:T2?, qk_matmul_output:T1? | T1: " FLOATS ", T2: " FLOATS ", U: numeric bool",
     "is_causal:int=0, kv_num_heads:int, left_window_size:int=-1, q_num_heads:int, qk_matmul_output_mode:int=0, "
     "right_window_size:int=-1, scale:float, softcap:float=0.0, softmax_precision:int",
     "softmax(scale * Q K^T, capped and masked) V for each head; keys and values may have fewer heads than queries and "
     "may "
     "follow a past, which is handed on. A query that sees no key yields zeros.",
     kComposite, infer_attention, cost_attention, eval_attention},
    {"RotaryEmbedding", "", 23, "X:T, cos_cache:T, sin_cache:T, position_ids:M? -> Y:T | T: f32 f16 bf16, M: i64",
     "interleaved:int=0, num_heads:int, rotary_embedding_dim:int=0",
     "Rotates pairs of each head's numbers by angles that depend on the position (Su et al. 2021).", kComposite,
     infer_first, [](const CostQuery& q) { return Cost{.flops = 3 * q.elements_in(0)}; }, eval_rotary},
    {"LinearAttention", "", 27,
     "query:T, key:T, value:T, past_state:S?, decay:T?, beta:T? -> output:T, present_state:S | T: f16 bf16 f32, S: f16 "
     "bf16 f32",
     "chunk_size:int=64, kv_num_heads:int!, q_num_heads:int!, scale:float=0.0, update_rule:string=gated_delta",
     "Attention with a recurrent state of outer products of keys and values, optionally decaying (gated) and corrected "
     "by "
     "what the state already holds (delta).",
     kComposite, infer_linear_attention,
     [](const CostQuery& q) {
       Shape k = q.shape_in(1), state = q.shape_out(1);
       if (k.size() != 3 || state.size() != 4) return Cost{};
       double group = double(q.node.i("q_num_heads", 1)) / double(std::max<int64_t>(q.node.i("kv_num_heads", 1), 1));
       return Cost{.flops = double(k[1]) * q.elements_out(1) * (6 + 3 * group)};
     },
     eval_linear_attention},
};

}  // namespace

std::span<const OpDef> attention_ops() { return kOps; }

}  // namespace ai_vmm
