// The attention operators of com.microsoft: Attention, MultiHeadAttention, GroupQueryAttention, RotaryEmbedding.

#include <algorithm>
#include <cmath>

#include "ops/all_ops.hpp"
#include "ops/attention.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

constexpr float kHidden = -10000;  // what ONNX Runtime adds to hidden scores when mask_filter_value says nothing

// A mask over keys in one of the forms of these operators; at() is true where a key may be seen.
class KeyMask {
 public:
  static Result<KeyMask> load(const Eval& e, size_t k, int64_t batch, int64_t queries, int64_t keys) {
    KeyMask m;
    if (!e.has(k)) return m;
    const Tensor& t = e.in(k);
    m.values_ = ref::ints(t);
    m.batch_ = batch, m.queries_ = queries, m.keys_ = keys;
    if (t.shape() == Shape{batch}) {
      m.kind_ = lengths;
    } else if (t.shape() == Shape{2 * batch}) {
      m.kind_ = ranges;
    } else if (t.shape() == Shape{batch, keys}) {
      m.kind_ = per_key;
    } else if (t.shape() == Shape{batch, queries, keys}) {
      m.kind_ = per_score;
    } else if (t.rank() == 4 && t.dim(0) == batch && t.dim(1) == 1 && t.dim(2) == t.dim(3) && t.dim(2) >= keys &&
               queries <= keys) {
      m.kind_ = square;
      m.side_ = t.dim(2);
    } else if (t.shape() == Shape{batch, 1}) {
      m.kind_ = lengths;
    } else {
      return e.error("a mask of shape " + to_string(t.shape()) + " does not fit a batch of " + std::to_string(batch) +
                     ", " + std::to_string(queries) + " queries and " + std::to_string(keys) + " keys.");
    }
    return m;
  }
  bool at(int64_t b, int64_t i, int64_t j) const {
    switch (kind_) {
      case none: return true;
      case lengths: return j < values_[size_t(b)];
      case ranges: return j < values_[size_t(b)] && j >= values_[size_t(batch_ + b)];  // ends, then starts
      case per_key: return values_[size_t(b * keys_ + j)] > 0;
      case per_score: return values_[size_t((b * queries_ + i) * keys_ + j)] > 0;
      // A mask for every position there may be; the queries are the last of the keys.
      case square: return values_[size_t((b * side_ + keys_ - queries_ + i) * side_ + j)] > 0;
    }
    return true;
  }

 private:
  enum Kind { none, lengths, ranges, per_key, per_score, square } kind_ = none;
  int64_t batch_ = 0, queries_ = 0, keys_ = 0, side_ = 0;
  std::vector<int64_t> values_;
};

// An additive bias that broadcasts to [batch, heads, queries, keys].
class ScoreBias {
 public:
  static Result<ScoreBias> load(const Eval& e, size_t k, const Shape& scores) {
    ScoreBias s;
    if (!e.has(k)) return s;
    const Shape shapes[] = {scores, e.in(k).shape()};
    Shape all = AI_VMM_TAKE(ref::broadcast(e, shapes));
    if (all != scores)
      return e.error("an attention bias of shape " + to_string(e.in(k).shape()) + " does not broadcast to " +
                     to_string(scores) + ".");
    s.strides_ = ref::broadcast_strides(e.in(k).shape(), scores);
    s.values_ = ref::load<double>(e.in(k));
    return s;
  }
  double at(int64_t b, int64_t h, int64_t i, int64_t j) const {
    if (strides_.empty()) return 0;
    return values_[size_t(b * strides_[0] + h * strides_[1] + i * strides_[2] + j * strides_[3])];
  }

 private:
  Shape strides_;
  std::vector<double> values_;
};

Result<int64_t> head_count(const Eval& e, const char* attribute = "num_heads") {
  int64_t n = e.node.i(attribute);
  if (n < 1) return e.error(std::string(attribute) + " is " + std::to_string(n) + "; it must be positive.");
  return n;
}

double scale_of(const Node& n, int64_t head_size) {
  double scale = n.f("scale");
  return scale == 0 ? 1 / std::sqrt(double(head_size)) : scale;
}

// Columns [first, first + heads * size) of rows of `width` numbers, as heads.
Result<Heads> columns(const std::vector<double>& rows, int64_t width, int64_t first, int64_t batch, int64_t length,
                      int64_t heads, int64_t size) {
  Heads h = AI_VMM_TAKE(Heads::make(batch, heads, length, size));
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t t = 0; t < length; ++t)
      for (int64_t k = 0; k < heads; ++k)
        std::copy_n(rows.data() + (b * length + t) * width + first + k * size, size, h.row(b, k, t));
  return h;
}

void add_bias(Heads& h, const std::vector<double>& bias, int64_t first) {
  for (int64_t b = 0; b < h.batch; ++b)
    for (int64_t k = 0; k < h.heads; ++k)
      for (int64_t t = 0; t < h.length; ++t)
        for (int64_t d = 0; d < h.size; ++d) h.row(b, k, t)[d] += bias[size_t(first + k * h.size + d)];
}

// ---------------------------------------------------------------- Attention

// Columns of Q, K and V in the packed weights.
std::vector<int64_t> hidden_sizes(const Node& n, int64_t columns) {
  auto sizes = n.ints("qkv_hidden_sizes");
  if (sizes.size() != 3) sizes.assign(3, columns / 3);
  return sizes;
}

Status infer_packed_attention(Infer& c) {
  if (!c.ranked(0) || !c.ranked(1)) {
    c.set_unranked(0, c.dtype(0));
    c.set_unranked(1, c.dtype(0));
    return {};
  }
  if (c.rank(0) != 3 || c.rank(1) != 2) return c.error("input must have rank 3 and weights rank 2.");
  const auto& x = c.dims(0);
  auto sizes = c.node.ints("qkv_hidden_sizes");
  Dim value = sizes.size() == 3 ? Dim(sizes[2]) : exact_div(c.dims(1)[1], 3);
  c.set(0, c.dtype(0), {x[0], x[1], value});
  int64_t heads = c.node.i("num_heads");
  if (heads < 1) return c.error("num_heads is " + std::to_string(heads) + "; it must be positive.");
  Dim total = x[1];
  if (c.has(4)) total = c.ranked(4) && c.rank(4) == 5 ? c.dims(4)[3] + x[1] : c.fresh();
  c.set(1, c.dtype(0), {Dim(2), x[0], heads, total, exact_div(value, heads)});
  return {};
}

Status eval_packed_attention(Eval& e) {
  const Node& n = e.node;
  const Tensor &x = e.in(0), &w = e.in(1);
  if (n.i("do_rotary") || n.i("past_present_share_buffer"))
    return e.error("do_rotary and past_present_share_buffer are not supported.");
  int64_t heads = AI_VMM_TAKE(head_count(e));
  if (x.rank() != 3 || w.rank() != 2 || w.dim(0) != x.dim(2))
    return e.error("an input of shape " + to_string(x.shape()) + " does not go with weights of shape " +
                   to_string(w.shape()) + ".");
  int64_t batch = x.dim(0), length = x.dim(1), in = x.dim(2), width = w.dim(1);
  auto sizes = hidden_sizes(n, width);
  for (int64_t s : sizes)
    if (s < 0 || s % heads != 0)
      return e.error(std::to_string(s) + " columns do not divide into " + std::to_string(heads) + " heads.");
  if (sizes[0] != sizes[1] || sizes[0] + sizes[1] + sizes[2] != width)
    return e.error("weights of shape " + to_string(w.shape()) + " do not hold Q, K and V of sizes " + to_string(sizes) +
                   ".");
  if (e.has(2) && e.in(2).count() != width)
    return e.error("the bias has shape " + to_string(e.in(2).shape()) + "; it must hold " + std::to_string(width) +
                   " numbers.");
  auto xv = ref::load<double>(x), wv = ref::load<double>(w);
  auto bias = e.has(2) ? ref::load<double>(e.in(2)) : std::vector<double>(size_t(width), 0.0);
  AI_VMM_TRY(ref::affordable({batch, length, width}));
  std::vector<double> rows;
  rows.reserve(size_t(batch * length * width));
  for (int64_t r = 0; r < batch * length; ++r) {
    rows.insert(rows.end(), bias.begin(), bias.end());
    double* to = rows.data() + r * width;
    for (int64_t i = 0; i < in; ++i)
      for (int64_t j = 0; j < width; ++j) to[j] += xv[size_t(r * in + i)] * wv[size_t(i * width + j)];
  }
  Heads q = AI_VMM_TAKE(columns(rows, width, 0, batch, length, heads, sizes[0] / heads));
  Heads k = AI_VMM_TAKE(columns(rows, width, sizes[0], batch, length, heads, sizes[1] / heads));
  Heads v = AI_VMM_TAKE(columns(rows, width, sizes[0] + sizes[1], batch, length, heads, sizes[2] / heads));
  if (e.has(4)) {  // [2, batch, heads, past, size]: keys, then values
    const Tensor& past = e.in(4);
    if (past.rank() != 5 || past.dim(0) != 2 || past.dim(1) != batch || past.dim(2) != heads || past.dim(4) != k.size ||
        k.size != v.size)
      return e.error("past has shape " + to_string(past.shape()) + ", which does not fit.");
    Heads pk = AI_VMM_TAKE(Heads::make(batch, heads, past.dim(3), k.size)), pv = pk;
    auto values = ref::load<double>(past);
    std::copy_n(values.begin(), pk.v.size(), pk.v.begin());
    std::copy_n(values.begin() + int64_t(pk.v.size()), pv.v.size(), pv.v.begin());
    k = AI_VMM_TAKE(append(e, pk, k));
    v = AI_VMM_TAKE(append(e, pv, v));
  }
  KeyMask mask = AI_VMM_TAKE(KeyMask::load(e, 3, batch, length, k.length));
  ScoreBias score = AI_VMM_TAKE(ScoreBias::load(e, 5, {batch, heads, length, k.length}));
  double hidden = n.f("mask_filter_value", kHidden);
  bool causal = n.i("unidirectional") != 0;
  AttentionCall call{q, k, v, scale_of(n, q.size), 0, {}, {}, {}};
  call.bias = [&](int64_t b, int64_t h, int64_t i, int64_t j) -> double {
    if (causal && j > k.length - length + i) return -INFINITY;
    return (mask.at(b, i, j) ? 0 : hidden) + score.at(b, h, i, j);
  };
  Heads y = AI_VMM_TAKE(attend(call));
  AI_VMM_TRY(store_heads(e, 0, x.dtype(), y, true));
  if (e.wants(1)) {
    if (k.size != v.size) return e.error("keys and values of different sizes have no common present.");
    Tensor* present = AI_VMM_TAKE(e.make(1, x.dtype(), {2, batch, heads, k.length, k.size}));
    k.v.insert(k.v.end(), v.v.begin(), v.v.end());
    ref::store<double>(*present, k.v);
  }
  return {};
}

Cost cost_packed_attention(const CostQuery& q) {
  Shape x = q.shape_in(0), w = q.shape_in(1), past = q.shape_in(4);
  if (x.size() != 3 || w.size() != 2) return {};
  auto sizes = hidden_sizes(q.node, w[1]);
  double heads = double(std::max<int64_t>(q.node.i("num_heads"), 1)),
         keys = double(x[1]) + (past.size() == 5 ? double(past[3]) : 0);
  return {.flops = 2 * double(x[0]) * double(x[1]) * double(w[0]) * double(w[1]) +
                   attention_flops(double(x[0]), heads, double(x[1]), keys, double(sizes[0]) / heads,
                                   double(sizes[2]) / heads)};
}

// ---------------------------------------------------------------- MultiHeadAttention

// Keys and values stand apart ([batch, length, hidden]), as the heads of another layer ([batch, heads, length, size]),
// packed with each other ([batch, length, heads, 2, size] as key) or with the queries ([batch, length, heads, 3,
// size]).
Status infer_multi_head(Infer& c) {
  int64_t heads = c.node.i("num_heads");
  if (heads < 1) return c.error("num_heads is " + std::to_string(heads) + "; it must be positive.");
  if (!c.ranked(0) || (c.has(1) && !c.ranked(1)) || (c.has(2) && !c.ranked(2))) {
    for (size_t k = 0; k < 4; ++k) c.set_unranked(k, c.dtype(0));
    return {};
  }
  const auto& q = c.dims(0);
  Dim length, value, size;  // of the keys; of all value heads; of one key head
  if (q.size() == 5) {
    length = q[1], size = q[4], value = q[4] * heads;
  } else if (q.size() != 3 || !c.has(1)) {
    return c.error("query must have rank 3 with a key, or rank 5.");
  } else {
    const auto& k = c.dims(1);
    size = exact_div(q[2], heads);
    if (k.size() == 5) {
      length = k[1], value = k[4] * heads;
    } else if (k.size() < 3) {
      return c.error("key has rank " + std::to_string(k.size()) + ".");
    } else {
      length = k.size() == 4 ? k[2] : k[1];
      if (!c.has(2) || c.rank(2) < 3) return c.error("a value of rank 3 or 4 is needed.");
      value = c.rank(2) == 4 ? c.dims(2)[3] * heads : c.dims(2)[2];
    }
  }
  if (c.has(6)) length = c.ranked(6) && c.rank(6) == 4 ? c.dims(6)[2] + length : c.fresh();
  c.set(0, c.dtype(0), {q[0], q[1], value});
  c.set(1, c.dtype(0), {q[0], heads, length, size});
  c.set(2, c.dtype(0), {q[0], heads, length, exact_div(value, heads)});
  c.set(3, c.dtype(0), {q[0], heads, q[1], length});
  return {};
}

Status eval_multi_head(Eval& e) {
  const Node& n = e.node;
  int64_t heads = AI_VMM_TAKE(head_count(e));
  if (e.has(8) || e.has(9)) return e.error("past_sequence_length and cache_indirection are not supported.");
  const Tensor& query = e.in(0);
  Heads q, k, v;
  // Part `which` of `parts` packed ones: [batch, length, heads, parts, size].
  auto unpack = [&](const Tensor& t, int64_t parts, int64_t which) -> Result<Heads> {
    if (t.rank() != 5 || t.dim(2) != heads || t.dim(3) != parts)
      return e.error("a packed tensor of shape " + to_string(t.shape()) + " is not [batch, length, heads, " +
                     std::to_string(parts) + ", size].");
    Heads h = AI_VMM_TAKE(Heads::make(t.dim(0), heads, t.dim(1), t.dim(4)));
    auto values = ref::load<double>(t);
    for (int64_t b = 0; b < h.batch; ++b)
      for (int64_t i = 0; i < h.length; ++i)
        for (int64_t m = 0; m < heads; ++m)
          std::copy_n(values.data() + (((b * h.length + i) * heads + m) * parts + which) * h.size, h.size,
                      h.row(b, m, i));
    return h;
  };
  bool from_heads = false;  // K and V come as heads of another layer and have had their bias
  if (query.rank() == 5) {
    q = AI_VMM_TAKE(unpack(query, 3, 0));
    k = AI_VMM_TAKE(unpack(query, 3, 1));
    v = AI_VMM_TAKE(unpack(query, 3, 2));
  } else {
    if (!e.has(1)) return e.error("a key is needed.");
    q = AI_VMM_TAKE(load_heads(e, query, heads));
    if (e.in(1).rank() == 5) {
      k = AI_VMM_TAKE(unpack(e.in(1), 2, 0));
      v = AI_VMM_TAKE(unpack(e.in(1), 2, 1));
    } else {
      if (!e.has(2)) return e.error("a value is needed.");
      from_heads = e.in(1).rank() == 4;
      k = AI_VMM_TAKE(load_heads(e, e.in(1), heads));
      v = AI_VMM_TAKE(load_heads(e, e.in(2), heads));
    }
  }
  if (e.has(3)) {
    auto bias = ref::load<double>(e.in(3));
    int64_t width = heads * q.size;
    if (int64_t(bias.size()) != width + heads * (k.size + v.size))
      return e.error("the bias has shape " + to_string(e.in(3).shape()) + ".");
    add_bias(q, bias, 0);
    if (!from_heads) {
      add_bias(k, bias, width);
      add_bias(v, bias, width + heads * k.size);
    }
  }
  if (e.has(6) != e.has(7)) return e.error("past_key and past_value must be given together.");
  if (e.has(6)) {
    Heads pk = AI_VMM_TAKE(load_heads(e, e.in(6), heads));
    Heads pv = AI_VMM_TAKE(load_heads(e, e.in(7), heads));
    k = AI_VMM_TAKE(append(e, pk, k));
    v = AI_VMM_TAKE(append(e, pv, v));
  }
  if (q.heads != heads || k.heads != heads || v.heads != heads || k.batch != q.batch || v.batch != q.batch ||
      k.size != q.size || k.length != v.length)
    return e.error("queries " + to_string(q.shape()) + ", keys " + to_string(k.shape()) + " and values " +
                   to_string(v.shape()) + " do not go together.");
  Shape scores{q.batch, heads, q.length, k.length};
  KeyMask mask = AI_VMM_TAKE(KeyMask::load(e, 4, q.batch, q.length, k.length));
  ScoreBias score = AI_VMM_TAKE(ScoreBias::load(e, 5, scores));
  double hidden = n.f("mask_filter_value", kHidden);
  bool causal = n.i("unidirectional") != 0;
  std::vector<double> raw;
  AttentionCall call{q, k, v, scale_of(n, q.size), 0, {}, {}, {}};
  call.bias = [&](int64_t b, int64_t h, int64_t i, int64_t j) -> double {
    if (causal && j > k.length - q.length + i) return -INFINITY;
    return (mask.at(b, i, j) ? 0 : hidden) + score.at(b, h, i, j);
  };
  if (e.wants(3)) {
    AI_VMM_TRY(ref::affordable(scores));
    call.observe = [&](int64_t, int64_t, int64_t, int step, std::span<const double> row) {
      if (step == 0) raw.insert(raw.end(), row.begin(), row.end());
    };
  }
  Heads y = AI_VMM_TAKE(attend(call));
  AI_VMM_TRY(store_heads(e, 0, query.dtype(), y, true));
  if (e.wants(1)) AI_VMM_TRY(store_heads(e, 1, query.dtype(), k, false));
  if (e.wants(2)) AI_VMM_TRY(store_heads(e, 2, query.dtype(), v, false));
  if (e.wants(3)) {
    Tensor* t = AI_VMM_TAKE(e.make(3, query.dtype(), scores));
    ref::store<double>(*t, raw);
  }
  return {};
}

// Work from the output [batch, queries, hidden] and the keys of the first input that tells.
Cost cost_multi_head(const CostQuery& q) {
  Shape y = q.shape_out(0), query = q.shape_in(0), key = q.shape_in(1), past = q.shape_in(6);
  if (y.size() != 3) return {};
  double heads = double(std::max<int64_t>(q.node.i("num_heads"), 1));
  double keys = double(query.size() == 5 ? query[1]
                       : key.size() == 4 ? key[2]
                       : key.size() >= 3 ? key[1]
                                         : 0) +
                (past.size() == 4 ? double(past[2]) : 0);
  double size = double(y[2]) / heads;
  return {.flops = attention_flops(double(y[0]), heads, double(y[1]), keys, size, size)};
}

// ---------------------------------------------------------------- GroupQueryAttention

// Keys and values live in a buffer that may be longer than what is in it: sample b holds seqlens_k[b] + 1 tokens after
// the call. A call whose queries are all of total_sequence_length is a prompt and starts from nothing.
Status infer_group_query(Infer& c) {
  int64_t heads = c.node.i("num_heads"), kv_heads = c.node.i("kv_num_heads");
  if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0)
    return c.error("num_heads " + std::to_string(heads) + " must be a positive multiple of kv_num_heads " +
                   std::to_string(kv_heads) + ".");
  DType cache = c.has(3) ? c.dtype(3) : c.dtype(0);
  if (!c.ranked(0)) {
    c.set_unranked(0, c.dtype(0));
    c.set_unranked(1, cache);
    c.set_unranked(2, cache);
    return {};
  }
  const auto& q = c.dims(0);
  if (q.size() != 3) return c.error("query must have rank 3, it has " + std::to_string(q.size()) + ".");
  Dim size = c.has(1) ? exact_div(q[2], heads) : exact_div(q[2], heads + 2 * kv_heads);
  c.set(0, c.dtype(0), {q[0], q[1], size * heads});
  auto total = c.ints(6);
  Dim length = total && total->size() == 1 ? (*total)[0] : c.fresh();
  if (c.has(3))
    length = c.ranked(3) && c.rank(3) == 4 && total && total->size() == 1 ? max(c.dims(3)[2], length) : c.fresh();
  for (size_t k = 1; k < 3; ++k) c.set(k, cache, {q[0], kv_heads, length, size});
  c.set(3, c.dtype(0), {q[0], heads, q[1], total && total->size() == 1 ? (*total)[0] : c.fresh()});
  return {};
}

Status eval_group_query(Eval& e) {
  const Node& n = e.node;
  for (size_t k : {12, 13, 14, 15})
    if (e.has(k)) return e.error("quantised caches and normalised queries or keys are not supported.");
  if (n.i("sliding_window_cache") || !n.i("causal", 1))
    return e.error("sliding_window_cache and causal 0 are not supported.");
  int64_t heads = AI_VMM_TAKE(head_count(e)), kv_heads = AI_VMM_TAKE(head_count(e, "kv_num_heads"));
  const Tensor& query = e.in(0);
  if (heads % kv_heads != 0)
    return e.error("num_heads " + std::to_string(heads) + " is not a multiple of kv_num_heads " +
                   std::to_string(kv_heads) + ".");
  if (query.rank() != 3) return e.error("query must have rank 3, its shape is " + to_string(query.shape()) + ".");
  int64_t batch = query.dim(0), length = query.dim(1);
  Heads q, k, v;
  if (e.has(1)) {
    if (!e.has(2) || e.in(1).rank() != 3 || e.in(2).rank() != 3)
      return e.error("key and value must both be given, with rank 3.");
    q = AI_VMM_TAKE(load_heads(e, query, heads));
    k = AI_VMM_TAKE(load_heads(e, e.in(1), kv_heads));
    v = AI_VMM_TAKE(load_heads(e, e.in(2), kv_heads));
  } else {
    int64_t width = query.dim(2), size = width / (heads + 2 * kv_heads);
    if (width != size * (heads + 2 * kv_heads))
      return e.error("a packed query of shape " + to_string(query.shape()) + " does not divide into heads.");
    auto rows = ref::load<double>(query);
    q = AI_VMM_TAKE(columns(rows, width, 0, batch, length, heads, size));
    k = AI_VMM_TAKE(columns(rows, width, heads * size, batch, length, kv_heads, size));
    v = AI_VMM_TAKE(columns(rows, width, (heads + kv_heads) * size, batch, length, kv_heads, size));
  }
  if (k.size != q.size || v.size != q.size || k.length != length || v.length != length || k.batch != batch ||
      v.batch != batch)
    return e.error("queries " + to_string(q.shape()) + ", keys " + to_string(k.shape()) + " and values " +
                   to_string(v.shape()) + " do not go together.");
  if (e.in(5).count() != batch || e.in(6).count() != 1)
    return e.error("seqlens_k must hold a number a sample, total_sequence_length one.");
  auto lengths = ref::ints(e.in(5));
  int64_t total = ref::ints(e.in(6))[0];
  if (e.has(3) != e.has(4)) return e.error("past_key and past_value must be given together.");
  Heads past_k{batch, kv_heads, 0, k.size, {}}, past_v = past_k;
  if (e.has(3)) {
    past_k = AI_VMM_TAKE(load_heads(e, e.in(3), kv_heads));
    past_v = AI_VMM_TAKE(load_heads(e, e.in(4), kv_heads));
    if (past_k.batch != batch || past_k.heads != kv_heads || past_k.size != k.size || past_v.shape() != past_k.shape())
      return e.error("a past of shape " + to_string(past_k.shape()) + " does not fit keys of shape " +
                     to_string(k.shape()) + ".");
  }
  if (total < length)
    return e.error("total_sequence_length " + std::to_string(total) + " is less than the " + std::to_string(length) +
                   " new tokens.");
  bool prompt = length == total;
  int64_t capacity = std::max(past_k.length, total);
  std::vector<int64_t> past(lengths.size());  // tokens of each sample before this call
  for (int64_t b = 0; b < batch; ++b) {
    int64_t after = lengths[size_t(b)] + 1;
    past[size_t(b)] = prompt ? 0 : after - length;
    if (after < 1 || after > total || past[size_t(b)] < 0 || past[size_t(b)] > past_k.length)
      return e.error("seqlens_k " + std::to_string(lengths[size_t(b)]) + " does not fit a total of " +
                     std::to_string(total) + " and a past of " + std::to_string(past_k.length) + ".");
  }
  if (n.i("do_rotary")) {
    if (!e.has(7) || !e.has(8) || e.in(7).rank() != 2 || e.in(8).shape() != e.in(7).shape() ||
        2 * e.in(7).dim(1) > q.size)
      return e.error("do_rotary needs cos_cache and sin_cache [positions, at most half a head].");
    auto cos = ref::load<double>(e.in(7)), sin = ref::load<double>(e.in(8));
    int64_t half = e.in(7).dim(1), rows = e.in(7).dim(0);
    std::vector<int64_t> ids;
    if (e.has(9)) {
      ids = ref::ints(e.in(9));
      if (int64_t(ids.size()) != batch * length)
        return e.error("position_ids has shape " + to_string(e.in(9).shape()) + ".");
    }
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t t = 0; t < length; ++t) {
        int64_t at = ids.empty() ? past[size_t(b)] + t : ids[size_t(b * length + t)];
        if (at < 0 || at >= rows)
          return e.error("position " + std::to_string(at) + " is outside the cache of " + std::to_string(rows) + ".");
        auto c = std::span(cos).subspan(size_t(at * half), size_t(half)),
             s = std::span(sin).subspan(size_t(at * half), size_t(half));
        for (int64_t h = 0; h < heads; ++h) rotate(q.row(b, h, t), c, s, n.i("rotary_interleaved") != 0);
        for (int64_t h = 0; h < kv_heads; ++h) rotate(k.row(b, h, t), c, s, n.i("rotary_interleaved") != 0);
      }
  }
  // The new tokens go right behind the past of each sample; the rest of the buffer is zero.
  auto present = [&](const Heads& old, const Heads& fresh) -> Result<Heads> {
    Heads p = AI_VMM_TAKE(Heads::make(batch, kv_heads, capacity, fresh.size));
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t h = 0; h < kv_heads; ++h) {
        std::copy_n(old.row(b, h, 0), past[size_t(b)] * old.size, p.row(b, h, 0));
        std::copy_n(fresh.row(b, h, 0), length * fresh.size, p.row(b, h, past[size_t(b)]));
      }
    return p;
  };
  Heads all_k = AI_VMM_TAKE(present(past_k, k));
  Heads all_v = AI_VMM_TAKE(present(past_v, v));

  std::vector<double> sink;
  if (e.has(11)) {
    sink = ref::load<double>(e.in(11));
    if (int64_t(sink.size()) != heads) return e.error("head_sink must hold a number a head.");
  } else if (n.i("smooth_softmax", -1) > 0) {
    sink.assign(size_t(heads), 0.0);
  }
  Heads seen_k = AI_VMM_TAKE(Heads::make(batch, kv_heads, total, k.size));
  Heads seen_v = seen_k;
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t h = 0; h < kv_heads; ++h) {
      std::copy_n(all_k.row(b, h, 0), total * k.size, seen_k.row(b, h, 0));
      std::copy_n(all_v.row(b, h, 0), total * v.size, seen_v.row(b, h, 0));
    }
  ScoreBias score = AI_VMM_TAKE(ScoreBias::load(e, 10, {batch, heads, length, total}));
  int64_t window = n.i("local_window_size", -1);
  AttentionCall call{q, seen_k, seen_v, scale_of(n, q.size), n.f("softcap"), {}, {}, {}};
  if (!sink.empty()) call.sink = sink;
  call.bias = [&](int64_t b, int64_t h, int64_t i, int64_t j) -> double {
    int64_t position = past[size_t(b)] + i;
    if (j > position || (window > 0 && position - j >= window)) return -INFINITY;
    return score.at(b, h, i, j);
  };
  int kind = int(n.i("qk_output"));  // 0 none, 1 before softmax, 2 after
  std::vector<double> observed;
  AI_VMM_TRY(ref::affordable({batch, heads, length, total}));
  if (e.wants(3) && kind != 0)
    call.observe = [&](int64_t, int64_t, int64_t, int step, std::span<const double> row) {
      if (step == (kind == 1 ? 2 : 3)) observed.insert(observed.end(), row.begin(), row.end());
    };
  DType cache = e.has(3) ? e.in(3).dtype() : query.dtype();
  Heads y = AI_VMM_TAKE(attend(call));
  AI_VMM_TRY(store_heads(e, 0, query.dtype(), y, true));
  if (e.wants(1)) AI_VMM_TRY(store_heads(e, 1, cache, all_k, false));
  if (e.wants(2)) AI_VMM_TRY(store_heads(e, 2, cache, all_v, false));
  if (e.wants(3)) {
    if (kind == 0) return e.error("output_qk is wanted but qk_output is 0.");
    Tensor* t = AI_VMM_TAKE(e.make(3, query.dtype(), {batch, heads, length, total}));
    ref::store<double>(*t, observed);
  }
  return {};
}

Cost cost_group_query(const CostQuery& q) {
  Shape y = q.shape_out(0), present = q.shape_out(1);
  if (y.size() != 3) return {};
  double heads = double(std::max<int64_t>(q.node.i("num_heads"), 1)), size = double(y[2]) / heads;
  return {.flops = attention_flops(double(y[0]), heads, double(y[1]), double(present.size() == 4 ? present[2] : y[1]),
                                   size, size)};
}

// ---------------------------------------------------------------- RotaryEmbedding

Status infer_first(Infer& c) {
  c.set(0, c.type(0));
  return {};
}

Status eval_rotary(Eval& e) {
  const Tensor &x = e.in(0), &cos = e.in(2), &sin = e.in(3);
  if (cos.rank() != 2 || sin.shape() != cos.shape())
    return e.error("caches of shapes " + to_string(cos.shape()) + " and " + to_string(sin.shape()) +
                   " are not matrices of one shape.");
  int64_t half = cos.dim(1), heads = e.node.i("num_heads");
  // Without num_heads the cache tells the head size, which is then rotated whole.
  if (heads == 0 && x.rank() == 3 && half > 0) heads = x.dim(2) / (2 * half);
  Heads h = AI_VMM_TAKE(load_heads(e, x, heads));
  if (2 * half > h.size)
    return e.error("the caches rotate " + std::to_string(2 * half) + " numbers; heads have " + std::to_string(h.size) +
                   ".");
  auto ids = ref::ints(e.in(1));
  bool common = ids.size() == 1;  // the position of the first token of every sample
  if (!common && int64_t(ids.size()) != h.batch * h.length)
    return e.error("position_ids has shape " + to_string(e.in(1).shape()) + ".");
  auto c = ref::load<double>(cos), s = ref::load<double>(sin);
  double scale = e.node.f("scale", 1.0f);
  for (int64_t b = 0; b < h.batch; ++b)
    for (int64_t i = 0; i < h.length; ++i) {
      int64_t at = common ? ids[0] + i : ids[size_t(b * h.length + i)];
      if (at < 0 || at >= cos.dim(0))
        return e.error("position " + std::to_string(at) + " is outside the cache of " + std::to_string(cos.dim(0)) +
                       ".");
      for (int64_t k = 0; k < h.heads; ++k) {
        rotate(h.row(b, k, i), std::span(c).subspan(size_t(at * half), size_t(half)),
               std::span(s).subspan(size_t(at * half), size_t(half)), e.node.i("interleaved") != 0);
        if (scale != 0) std::for_each_n(h.row(b, k, i), h.size, [&](double& a) { a *= scale; });
      }
    }
  return store_heads(e, 0, x.dtype(), h, x.rank() == 3);
}

#define MS "com.microsoft"
#define T "T: f32 f16 bf16"

const OpDef kOps[] = {
    {"Attention", MS, 1,
     "input:T, weights:T, bias:T?, mask_index:M?, past:T?, attention_bias:T?, past_sequence_length:M? -> output:T, "
     "present:T? | " T ", M: i32",
     "do_rotary:int=0, mask_filter_value:float=-10000, num_heads:int!, past_present_share_buffer:int=0, "
     "qkv_hidden_sizes:ints, rotary_embedding_dim:int=0, "
     "scale:float, unidirectional:int=0",
     "Self attention with the projections to queries, keys and values packed in one matrix. mask_index gives lengths, "
     "ranges or a mask of keys.",
     kComposite, infer_packed_attention, cost_packed_attention, eval_packed_attention},
    {"MultiHeadAttention", MS, 1,
     "query:T, key:T?, value:T?, bias:T?, key_padding_mask:M?, attention_bias:T?, past_key:T?, past_value:T?, "
     "past_sequence_length:M?, cache_indirection:M? "
     "-> output:T, present_key:T?, present_value:T?, qk:T? | " T ", M: i32",
     "mask_filter_value:float=-10000, num_heads:int!, scale:float, unidirectional:int=0",
     "Attention of projected queries, keys and values, apart or packed, with a bias, a mask of keys and a past.",
     kComposite, infer_multi_head, cost_multi_head, eval_multi_head},
    {"GroupQueryAttention", MS, 1,
     "query:T, key:T?, value:T?, past_key:C?, past_value:C?, seqlens_k:M, total_sequence_length:M, cos_cache:T?, "
     "sin_cache:T?, position_ids:i64?, "
     "attention_bias:T?, head_sink:T?, k_scale:f32?, v_scale:f32?, q_norm_weight:T?, k_norm_weight:T? -> output:T, "
     "present_key:C?, present_value:C?, "
     "output_qk:T? | " T ", C: f32 f16 bf16 u8 i8 f8e4m3fn, M: i32",
     "causal:int=1, do_rotary:int=0, k_quant_type:string=NONE, kv_cache_bit_width:int, kv_num_heads:int!, "
     "local_window_size:int=-1, num_heads:int!, "
     "qk_norm_epsilon:float=1e-6, qk_output:int=0, rotary_interleaved:int=0, scale:float, sliding_window_cache:int=0, "
     "smooth_softmax:int=-1, softcap:float, "
     "v_quant_type:string=NONE",
     "Causal attention whose query heads share key and value heads, with a buffer of past keys and values, rotary "
     "positions and an optional window.",
     kComposite, infer_group_query, cost_group_query, eval_group_query},
    {"RotaryEmbedding", MS, 1, "input:T, position_ids:M, cos_cache:T, sin_cache:T -> output:T | " T ", M: i64",
     "interleaved:int=0, is_packed_batching:int=0, num_heads:int=0, rotary_embedding_dim:int=0, scale:float=1.0",
     "Rotates pairs of each head's numbers by angles that depend on the position (Su et al. 2021).", kComposite,
     infer_first, [](const CostQuery& q) { return Cost{.flops = 3 * q.elements_in(0)}; }, eval_rotary},
};

}  // namespace

std::span<const OpDef> contrib_attention_ops() { return kOps; }

}  // namespace ai_vmm
