// Attention without a matrix of scores: softmax(scale·Q·Kᵀ + mask)·V, keys taken in blocks, what is summed so far being
// rescaled whenever a larger score appears (Milakov and Gimelshein 2018; Dao et al. 2022).
//
// On devices with wide registers a work item takes a tile of queries, the keys lie in panels with neighbours side by
// side, and both products go through register tiles. Otherwise, and for few queries, a work item takes one query.
#include <algorithm>
#include <cmath>

#include "gpu/ops/ops.hpp"
#include "gpu/ops/tile.hpp"

namespace ai_vmm::gpu {

namespace {

struct Attention {
  int64_t q_heads, kv_heads;  // of inputs of rank 3
  float scale, softcap;       // scale 0: of the head size
  int64_t left, right;        // window; -1: none
  bool causal, mask, mask_bool, valid, key_transposed;
};

// One of the inputs as [batch, head, row, column], in elements.
struct Heads {
  int64_t batch, heads, rows, columns;
  int64_t b, h, r, c;  // strides
  Heads(const Shape& s, int64_t count) : batch(s[0]), heads(s.size() == 4 ? s[1] : count), rows(s[s.size() - 2]) {
    columns = s.size() == 4 ? s[3] : s[2] / std::max<int64_t>(count, 1);
    b = product(s, 1);
    h = s.size() == 4 ? rows * columns : columns;
    r = s.size() == 4 ? columns : s[2];
    c = 1;
  }
};

// Where keys are hidden, and what is added to scores: statements on `s`, the score of query i and key j.
std::string bias_text(const Attention& a) {
  std::string hidden;
  if (a.valid) hidden += " || j >= keys";
  if (a.causal) hidden += " || j > i + past";
  if (a.left >= 0) hidden += " || i + past - j > " + std::to_string(a.left);
  if (a.right >= 0) hidden += " || j - i - past > " + std::to_string(a.right);
  if (a.mask) hidden += " || j >= mask_keys";
  if (a.mask_bool) hidden += " || !mask[i * mi + j * mj]";
  std::string text;
  if (!hidden.empty()) text = "if (" + hidden.substr(4) + ") s = -INFINITY;\n";
  if (a.mask && !a.mask_bool)
    text += "else { const float m = mask[i * mi + j * mj]; s = m == -INFINITY ? m : s + m; }\n";
  return text;
}

// What both kernels begin with.
constexpr const char* kBegin = R"(
  const ${idx} b = z / H, h = z % H, hk = h / ${sharing};
  Q += b * qb + h * qh;
  values += b * vb + hk * vh;
  Y += b * yb + h * yh;
  ${mask_begin}${valid_begin})";
constexpr const char* kParameters =
    R"(GLOBAL const float* RESTRICT Q, GLOBAL const float* RESTRICT K, GLOBAL const float* RESTRICT values,
    GLOBAL float* RESTRICT Y, ${idx} H, ${idx} S, ${idx} T, ${idx} past, ${idx} qb, ${idx} qh, ${idx} qs, ${idx} kb, ${idx} kh,
    ${idx} kt, ${idx} kd, ${idx} vb, ${idx} vh, ${idx} vt, ${idx} yb, ${idx} yh, ${idx} ys${mask_parameters}${valid_parameters})";

// Panels of keys: [batch][head][ceil(T / NR)][D][NR], zero past T.
constexpr const char* kKeys = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT K, GLOBAL float* RESTRICT P, ${idx} H, ${idx} T, ${idx} panels,
                      ${idx} kb, ${idx} kh, ${idx} kt, ${idx} kd) {
  const ${idx} panel = (${idx})GID0, z = (${idx})GID1, t0 = panel * ${NR};
  if (panel >= panels) return;
  K += z / H * kb + z % H * kh + t0 * kt;
  P += (z * panels + panel) * ${D} * ${NR};
  const int n = t0 + ${NR} < T ? ${NR} : (int)(T - t0);
  if (kt == 1 && n == ${NR}) {
    for (int d = 0; d < ${D}; ++d)
      for (int t = 0; t < ${NR}; ++t) P[d * ${NR} + t] = K[d * kd + t];
    return;
  }
  for (int t = n; t < ${NR}; ++t)
    for (int d = 0; d < ${D}; ++d) P[d * ${NR} + t] = 0.0f;
  for (int t = 0; t < n; ++t)
    for (int d = 0; d < ${D}; ++d) P[d * ${NR} + t] = K[t * kt + d * kd];
}
)";

constexpr const char* kTiles = R"(
KERNEL __attribute__((reqd_work_group_size(1, 1, 1))) void ${kernel}(${parameters}) {
  typedef ${V} V;
  const ${idx} z = GRP2, m0 = GRP0 * ${MR};
${begin}  const ${idx} panels = (T + ${NR} - 1) / ${NR};
  K += (b * (H / ${sharing}) + hk) * panels * ${D} * ${NR};
  float out[${MR} * ${DV}], top[${MR}], total[${MR}], t[${MR} * ${NR}];
  for (int l = 0; l < ${MR} * ${DV}; ++l) out[l] = 0.0f;
  for (int l = 0; l < ${MR}; ++l) top[l] = -INFINITY, total[l] = 0.0f;
${rows}  for (${idx} panel = 0; panel < panels; ++panel, K += ${D} * ${NR}) {
    const ${idx} t0 = panel * ${NR};
    const int n = t0 + ${NR} < T ? ${NR} : (int)(T - t0);
    {
      GLOBAL const float* p = K;
      ${declare}      for (int d = 0; d < ${D}; ++d, p += ${NR}) {
        ${scores}      }
      ${spill}    }
    NO_UNROLL for (int l = 0; l < ${MR}; ++l) {
      const ${idx} i = m0 + l < S ? m0 + l : S - 1;
      float* row = t + l * ${NR};
      NO_UNROLL for (int j = 0; j < ${NR}; j += ${W}) {
        V x = ${load_row} * ${scale};
        ${softcap}${store_row};
      }
      for (int j = n; j < ${NR}; ++j) row[j] = -INFINITY;
      ${bias}
      V most = ${load_first};
      for (int j = ${W}; j < ${NR}; j += ${W}) most = fmax(most, ${load_row});
      float lanes[${W}];
      ${store_most};
      float peak = top[l];
      for (int j = 0; j < ${W}; ++j) peak = fmax(peak, lanes[j]);
      if (peak == -INFINITY) {
        for (int j = 0; j < ${NR}; ++j) row[j] = 0.0f;
        continue;
      }
      const float shrink = exp(top[l] - peak);
      V sum = (V)(0.0f);
      for (int j = 0; j < ${NR}; j += ${W}) {
        const V x = exp(${load_row} - peak);
        sum += x;
        ${store_row};
      }
      ${store_sum};
      float added = 0.0f;
      for (int j = 0; j < ${W}; ++j) added += lanes[j];
      total[l] = total[l] * shrink + added;
      top[l] = peak;
      if (shrink != 1.0f)
        for (int c = 0; c < ${DV}; ++c) out[l * ${DV} + c] *= shrink;
    }
    NO_UNROLL for (int c = 0; c < ${DV}; c += ${VC}) {
      ${declare_out}      ${load_out}      for (int j = 0; j < n; ++j) {
        ${seen}GLOBAL const float* v = values + (t0 + j) * vt + c;
        ${values}      }
      ${store_out}    }
  }
  for (int l = 0; l < ${MR} && m0 + l < S; ++l) {
    const float scale = total[l] > 0.0f ? 1.0f / total[l] : 0.0f;
    for (int c = 0; c < ${DV}; ++c) Y[(m0 + l) * ys + c] = out[l * ${DV} + c] * scale;
  }
}
)";

// One work item a query.
constexpr const char* kQueries = R"(
KERNEL void ${kernel}(${parameters}) {
  const ${idx} q = (${idx})GID0, z = q / S, i = q % S;
  if (z >= (${idx})${batches}) return;
${begin}  K += b * kb + hk * kh;
  Q += i * qs;
  ${V} out[${DV} / ${W}];
  for (int c = 0; c < ${DV} / ${W}; ++c) out[c] = (${V})(0.0f);
  float top = -INFINITY, total = 0.0f;
  for (${idx} j = 0; j < T; ++j) {
    ${V} sum = (${V})(0.0f);
    for (int d = 0; d < ${D}; d += ${W}) sum = fma(${load_q}, ${load_k}, sum);
    float lanes[${W}];
    ${store_sum};
    float s = lanes[0];
    for (int l = 1; l < ${W}; ++l) s += lanes[l];
    s *= ${scale};
    ${softcap_one}${bias_one}
    if (s == -INFINITY) continue;
    const float peak = fmax(top, s), shrink = exp(top - peak), p = exp(s - peak);
    total = total * shrink + p;
    top = peak;
    for (int c = 0; c < ${DV} / ${W}; ++c) out[c] = out[c] * shrink + p * ${load_v};
  }
  const float factor = total > 0.0f ? 1.0f / total : 0.0f;
  for (int c = 0; c < ${DV} / ${W}; ++c) { ${store_y}; }
}
)";

Result<Bound> bind(const Attention& a, const Bind& b) {
  Heads q(b.in(0), a.q_heads), k(b.in(1), a.kv_heads), v(b.in(2), a.kv_heads), y(b.out(0), a.q_heads);
  if (a.key_transposed) std::swap(k.rows, k.columns), k.r = 1, k.c = k.rows;
  if (k.batch != q.batch || v.batch != q.batch || k.columns != q.columns || k.rows != v.rows || k.heads != v.heads ||
      k.heads < 1 || q.heads % k.heads)
    return invalid("Queries " + ai_vmm::to_string(b.in(0)) + ", keys " + ai_vmm::to_string(b.in(1)) + " and values " +
                   ai_vmm::to_string(b.in(2)) + " do not go together.");
  Bound bound;
  if (!product(b.out(0))) return bound;
  const Traits& t = b.traits;
  const int64_t batches = q.batch * q.heads, past = b.has(5) ? b.in(5)[2] : 0, d = q.columns, dv = v.columns;
  bound.flops = double(batches * q.rows) * double(k.rows) * double(2 * d + 2 * dv + 12);
  const bool vectors = d % t.vector() == 0 && dv % t.vector() == 0 && k.c == 1;
  const bool tiles = t.wide && q.rows >= 4 && dv % t.vector() == 0;

  Words w{{"idx", b.idx()}, {"D", std::to_string(d)}, {"DV", std::to_string(dv)}};
  w["sharing"] = std::to_string(q.heads / k.heads);
  w["scale"] = literal(a.scale != 0 ? double(a.scale) : 1 / std::sqrt(double(d)), "float");
  const std::string cap = literal(a.softcap, "float");
  w["softcap"] = a.softcap > 0 ? "x = " + cap + " * tanh(x / " + cap + "); " : "";
  w["softcap_one"] = a.softcap > 0 ? "s = " + cap + " * tanh(s / " + cap + ");\n    " : "";
  std::string bias = bias_text(a);
  w["bias_one"] = bias;
  if (!bias.empty())
    bias = "for (int l_ = 0; l_ < n; ++l_) {\nconst " + std::string(b.idx()) + " j = t0 + l_;\nfloat s = row[l_];\n" +
           bias + "row[l_] = s;\n}";
  w["bias"] = bias;
  const std::string idx = b.idx();
  w["mask_parameters"] = w["mask_begin"] = w["valid_parameters"] = w["valid_begin"] = "";
  if (a.mask) {
    w["mask_parameters"] = std::string(", GLOBAL const ") + (a.mask_bool ? "uchar" : "float") + "* RESTRICT mask, " +
                           idx + " mask_keys, " + idx + " mb, " + idx + " mh, " + idx + " mi, " + idx + " mj";
    w["mask_begin"] = "mask += b * mb + h * mh;\n  ";
  }
  if (a.valid) {
    w["valid_parameters"] = ", GLOBAL const long* RESTRICT valid";
    w["valid_begin"] = "const " + idx + " keys = (" + idx + ")valid[b];\n  past = keys - S;\n";
  }
  w["begin"] = fill(kBegin, w);
  w["parameters"] = fill(kParameters, w);

  const int mr = 8, width = tiles || vectors ? t.vector() : 1;
  const Tile scores{mr, 3, t.vector()};
  int across = 1;
  for (int n : {2, 3})
    if (dv % (n * t.vector()) == 0) across = n;
  const Tile values{mr, across, t.vector()};
  w["V"] = vector_type(width);
  w["W"] = std::to_string(width);
  w["batches"] = std::to_string(batches);
  Launch l;
  const int64_t nr = scores.columns(), panels = divide_up(k.rows, nr);
  if (tiles) {
    w["MR"] = std::to_string(mr);
    w["NR"] = std::to_string(nr);
    w["VC"] = std::to_string(values.columns());
    Launch keys = launch("keys", kKeys, w);
    keys.in(1).scratch(0);
    for (int64_t n : {k.heads, k.rows, panels, k.b, k.h, k.r, k.c}) keys.scalar(b.index(n));
    keys.items({panels, k.batch * k.heads});
    bound.launches.push_back(std::move(keys));
    bound.scratch = round_up(k.batch * k.heads * panels * d * nr * 4, t.alignment);
    std::string rows, seen;
    for (int i = 0; i < mr; ++i) {
      const std::string n = std::to_string(i);
      rows += "  GLOBAL const float* q" + n + " = Q + (m0 + " + n + " < S ? m0 + " + n + " : S - 1) * qs;\n";
      seen += (i ? " && t[" : "t[") + std::to_string(i * nr) + " + j] == 0.0f";
    }
    w["rows"] = rows;
    // A key that no query of the tile sees does not count, were its value infinite.
    w["seen"] = bias.empty() ? "" : "if (" + seen + ") continue;\n";
    w["declare"] = scores.declare();
    w["scores"] = scores.multiply([](int i) { return "q" + std::to_string(i) + "[d]"; },
                                  [&](int j) { return vector_load(width, "p + " + std::to_string(j * width)); });
    w["spill"] = scores.spill("t");
    w["declare_out"] = values.declare();
    w["load_out"] = values.load("out + c", dv);
    w["values"] = values.multiply([&](int i) { return "t[" + std::to_string(i * nr) + " + j]"; },
                                  [&](int j) { return vector_load(width, "v + " + std::to_string(j * width)); });
    w["store_out"] = values.store("out + c", dv);
    w["load_row"] = vector_load(width, "row + j");
    w["load_first"] = vector_load(width, "row");
    w["store_row"] = vector_store(width, "x", "row + j");
    w["store_most"] = vector_store(width, "most", "lanes");
    w["store_sum"] = vector_store(width, "sum", "lanes");
    l = launch("attention", kTiles, w);
    bound.note = "tiles";
  } else {
    const std::string columns = k.c == 1 ? "d" : "d * kd";
    w["load_q"] = vector_load(width, "Q + d");
    w["load_k"] = vector_load(width, "K + j * kt + " + columns);
    w["load_v"] = vector_load(width, "values + j * vt + c * " + std::to_string(width));
    w["store_sum"] = vector_store(width, "sum", "lanes");
    w["store_y"] = vector_store(width, "out[c] * factor", "Y + i * ys + c * " + std::to_string(width));
    l = launch("attention_query", kQueries, w);
    bound.note = "queries";
  }
  l.in(0);
  if (tiles)
    l.scratch(0);
  else
    l.in(1);
  l.in(2).out(0);
  for (int64_t n : {q.heads, q.rows, k.rows, past, q.b, q.h, q.r, k.b, k.h, k.r, k.c, v.b, v.h, v.r, y.b, y.h, y.r})
    l.scalar(b.index(n));
  if (a.mask) {
    const Shape& m = b.in(3);
    if (m.empty() || m.size() > 4 || m.back() > k.rows)
      return invalid("A mask of shape " + ai_vmm::to_string(m) + " does not fit " + std::to_string(k.rows) + " keys.");
    const Shape all{q.batch, q.heads, q.rows, m.back()};
    for (size_t i = 0; i < m.size(); ++i)
      if (m[i] != 1 && m[i] != all[4 - m.size() + i])
        return invalid("A mask of shape " + ai_vmm::to_string(m) + " does not fit scores of shape " +
                       ai_vmm::to_string(all) + ".");
    const Shape s = broadcast_strides(m, all);
    l.in(3).scalar(b.index(m.back()));
    for (int64_t n : s) l.scalar(b.index(n));
  }
  if (a.valid) l.in(4);
  if (tiles)
    l.items({divide_up(q.rows, mr), 1, batches});
  else
    l.items({batches * q.rows}, {t.wide ? 1 : group_for(t, batches * q.rows)});
  bound.launches.push_back(std::move(l));
  return bound;
}

}  // namespace

// gpu.Attention(Q, K, V, mask?, valid?, past?): what lower() makes of attention operators. Inputs are [batch, head,
// row, column], or [batch, row, head · column]; `valid` is how many keys of each batch count; of `past` only the size
// of axis 2 counts: so many keys lie before the first query's own. Attributes are those of Attention, and
// key_transposed: K is [batch, head, column, row].
Made make_attention(const Make& m) {
  for (size_t k = 0; k < 3; ++k)
    if (m.dtype(k) != DType::f32) return refuse_type();
  if (m.has(3) && m.dtype(3) != DType::f32 && m.dtype(3) != DType::boolean) return refuse_type("the type of the mask");
  if (m.has(4) && m.dtype(4) != DType::i64) return refuse_type("the type of the lengths");
  for (size_t k = 0; k < 3; ++k)
    if (m.rank(k) != 3 && m.rank(k) != 4) return {AI_VMM_REFUSED_RANK, "heads have three or four axes"};
  Attention a{m.node.i("q_num_heads"),
              m.node.i("kv_num_heads"),
              m.node.f("scale", 0),
              m.node.f("softcap", 0),
              m.node.i("left_window_size", -1),
              m.node.i("right_window_size", -1),
              m.node.i("is_causal") != 0,
              m.has(3),
              m.dtype(3) == DType::boolean,
              m.has(4),
              m.node.i("key_transposed") != 0};
  return BindFn([a](const Bind& b) -> Result<Bound> { return bind(a, b); });
}

}  // namespace ai_vmm::gpu
