// Reductions: the rows of reduce.def, ReduceLogSumExp, ArgMax and ArgMin.
#include <algorithm>
#include <cmath>

#include "gpu/ops/ops.hpp"
#include "gpu/ops/rows.hpp"

namespace ai_vmm::gpu {

namespace {

struct Rule {
  const char *name, *start, *step, *finish;
};
constexpr Rule kRules[] = {
#define REDUCE(name, flops, types, start, step, finish, meaning) {#name, #start, #step, #finish},
#include "ops/reduce.def"
};

// One work item an output: loops over the reduced axes.
constexpr const char* kLoops = R"(
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL ${T}* RESTRICT out, ${idx} count, ${idx} n${sizes}) {
  const ${idx} o = (${idx})GID0;
  if (o >= count) return;
  ${idx} q = o, base = 0;
${walk}  ${R} a = ${start};
${loops}  { const ${R} x = LD_${E}(in, at); a = ${step}; }
${ends}  ST_${E}(out, o, ${finish});
}
)";

constexpr const char* kRows = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT in, GLOBAL float* RESTRICT out, ${idx} n) {
  ${SHARE}
  const ${idx} row = GRP0;
  in += row * n;
${reduce}  if (LID0 == 0) out[row] = ${finish};
}
)";

// The logarithm of the sum of exponentials: the greatest element comes first, so that nothing overflows.
constexpr const char* kLogSumExp = R"(
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL ${T}* RESTRICT out, ${idx} count, ${idx} n${sizes}) {
  const ${idx} o = (${idx})GID0;
  if (o >= count) return;
  ${idx} q = o, base = 0;
${walk}  ${R} m = ${start}, a = 0;
${loops}  { const ${R} x = LD_${E}(in, at); m = larger_float(m, x); }
${ends}  if (m == INFINITY || m == -INFINITY) m = 0;
${loops}  { const ${R} x = LD_${E}(in, at); a += exp(x - m); }
${ends}  ST_${E}(out, o, log(a) + m);
}
)";

std::string end_of(DType t, bool highest) {
  std::string compute = element(t).compute;
  if (compute == "float" || compute == "double") return literal(highest ? INFINITY : -INFINITY, compute);
  if (t == DType::boolean) return highest ? "1" : "0";
  int width = bits(t);
  if (!is_signed_integer(t))
    return highest ? "((" + compute + ")(~(ulong)0 >> " + std::to_string(64 - width) + "))" : "0";
  std::string high = "((long)(~(ulong)0 >> 1 >> " + std::to_string(64 - width) + "))";
  return highest ? high : "(-" + high + " - 1)";
}

std::string named(std::string text, const std::string& name, const std::string& by) {
  for (size_t at; (at = text.find(name)) != std::string::npos;) text.replace(at, name.size(), by);
  return text;
}

// The reduced axes of a node of input 0, sorted; `noop`: none, and the elements are taken one by one.
std::vector<char> reduced_axes(const Bind& b, bool has_axes, bool noop_with_empty) {
  const size_t rank = b.in(0).size();
  std::vector<char> reduced(rank, 0);
  std::vector<int64_t> axes;
  if (has_axes) axes = b.ints(1);
  if (axes.empty()) {
    if (!noop_with_empty) std::fill(reduced.begin(), reduced.end(), 1);
    return reduced;
  }
  for (int64_t a : axes) {
    a = normalise_axis(a, int64_t(rank));
    if (a >= 0 && a < int64_t(rank)) reduced[size_t(a)] = 1;
  }
  return reduced;
}

}  // namespace

Made make_reduce(const Make& m) {
  const DType t = m.dtype(0);
  const Element el = element(t);
  if (!el.name) return refuse_type();
  const bool integers = std::string(el.compute).find("long") != std::string::npos;
  const std::string op = m.node.op;
  const Rule* rule = nullptr;
  for (const Rule& r : kRules)
    if (op == r.name) rule = &r;
  if (!rule && op != "ReduceLogSumExp") return {AI_VMM_REFUSED_OPERATOR, "there is no rule for this reduction"};
  if (integers && (op == "ReduceL2" || op == "ReduceLogSum" || op == "ReduceLogSumExp"))
    return refuse_type("roots and logarithms of integers");
  const bool has_axes = m.has(1), noop = m.node.i("noop_with_empty_axes") != 0;
  return Made(BindFn([=](const Bind& b) -> Result<Bound> {
           const Shape& x = b.in(0);
           const std::vector<char> reduced = reduced_axes(b, has_axes, noop);
           const Shape own = strides_of(x);
           Shape kept, kept_strides, gone, gone_strides;
           for (size_t d = 0; d < x.size(); ++d) {
             (reduced[d] ? gone : kept).push_back(x[d]);
             (reduced[d] ? gone_strides : kept_strides).push_back(own[d]);
           }
           const int64_t count = product(kept), n = product(gone);
           Bound bound;
           if (count == 0) return bound;
           const Walk outer = collapse(kept, {kept_strides}), inner = collapse(gone, {gone_strides});
           bound.flops = double(count) * double(n);
           const std::string type = el.compute;
           auto text = [&](const char* r, const std::string& as) {
             return named(named(rule_text(r, as), "lowest", end_of(t, false)), "highest", end_of(t, true));
           };
           // Rows of floats side by side.
           const bool rows = rule && t == DType::f32 && n >= 16 && inner.dims.size() == 1 && inner.strides[0][0] == 1 &&
                             outer.dims.size() == 1 && (count == 1 || outer.strides[0][0] == n);
           if (rows) {
             RowText r(b, n);
             Words w = r.words;
             // The step has the form f(a, value): f combines parts of a row, too.
             std::string step = rule->step, combine = step.substr(0, step.find('(')),
                         value = step.substr(step.find(',') + 2);
             value.pop_back();
             w["reduce"] = r.reduce("total", text(rule->start, "float"), rule_text(combine + "(a, v)", "float"),
                                    rule_text(value, "float"), "in");
             w["finish"] = "(" + rule_text(rule->finish, "float") + ")";
             std::string finish = "(" + rule_text(rule->finish, "float") + ")";
             w["reduce"] += "  const float a = total;\n";
             w["finish"] = finish;
             Launch l = launch("reduce_rows", kRows, w);
             l.in(0).out(0).scalar(b.index(n)).items({count * r.group}, {r.group});
             bound.note = "rows";
             bound.launches.push_back(std::move(l));
             return bound;
           }
           Words w;
           const std::string idx = b.idx();
           w["idx"] = idx;
           w["T"] = el.storage;
           w["E"] = el.name;
           w["R"] = type;
           w["start"] = rule ? text(rule->start, type) : literal(-INFINITY, type);
           w["step"] = rule ? rule_text(rule->step, type) : "";
           w["finish"] = rule ? rule_text(rule->finish, type) : "";
           std::string sizes, walk, loops, ends;
           for (size_t d = outer.dims.size(); d-- > 0;) {
             std::string k = std::to_string(d);
             if (d) sizes += ", " + idx + " d" + k;
             sizes += ", " + idx + " s" + k;
             walk += std::string("  base += ") + (d ? "q % d" + k : "q") + " * s" + k + ";" +
                     (d ? " q /= d" + k + ";" : "") + "\n";
           }
           std::string at = "base";
           for (size_t d = 0; d < inner.dims.size(); ++d) {
             std::string k = std::to_string(d);
             sizes += ", " + idx + " n" + k + ", " + idx + " t" + k;
             loops += "  for (" + idx + " i" + k + " = 0; i" + k + " < n" + k + "; ++i" + k + ")\n";
             at += " + i" + k + " * t" + k;
           }
           loops += "  { const " + idx + " at = " + at + ";\n";
           w["sizes"] = sizes;
           w["walk"] = walk;
           w["loops"] = loops;
           w["ends"] = "  }\n";
           Launch l = launch("reduce", rule ? kLoops : kLogSumExp, w);
           l.in(0).out(0).scalar(b.index(count)).scalar(b.index(n));
           for (size_t d = outer.dims.size(); d-- > 0;) {
             if (d) l.scalar(b.index(outer.dims[d]));
             l.scalar(b.index(outer.strides[0][d]));
           }
           for (size_t d = 0; d < inner.dims.size(); ++d)
             l.scalar(b.index(n == 0 ? 0 : inner.dims[d])).scalar(b.index(inner.strides[0][d]));
           l.items({count}, {group_for(b.traits, count)});
           bound.note = "loops";
           bound.launches.push_back(std::move(l));
           return bound;
         }))
      .needs(2);
}

// ---------------------------------------------------------------- ArgMax, ArgMin

// A NaN is preferred to every number.
constexpr const char* kArg = R"(
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL long* RESTRICT out, ${idx} rows, ${idx} n, ${idx} inner) {
  const ${idx} row = (${idx})GID0;
  if (row >= rows) return;
  const ${idx} base = row / inner * n * inner + row % inner;
  ${idx} found = 0;
  ${R} best = LD_${E}(in, base);
  for (${idx} k = 1; k < n; ++k) {
    const ${R} x = LD_${E}(in, base + k * inner);
    if ((best == best && (x != x || x ${better} best)) || (${last} && (x == best || (x != x && best != best)))) {
      found = k;
      best = x;
    }
  }
  out[row] = found;
}
)";

static Made make_arg(const Make& m, const char* better) {
  const Element el = element(m.dtype(0));
  if (!el.name) return refuse_type();
  int64_t axis = m.node.i("axis");
  Words w;
  w["T"] = el.storage;
  w["E"] = el.name;
  w["R"] = el.compute;
  w["better"] = better;
  w["last"] = m.node.i("select_last_index") ? "1" : "0";
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    size_t a = x.empty() ? 0 : size_t(normalise_axis(axis, int64_t(x.size())));
    int64_t n = x.empty() ? 1 : x[a], inner = x.empty() ? 1 : product(x, a + 1), rows = product(b.out(0));
    Bound bound;
    if (!rows) return bound;
    if (!n) return invalid("An axis of size 0 has no greatest or least element.");
    Words words = w;
    words["idx"] = b.idx();
    Launch l = launch("arg", kArg, words);
    l.in(0).out(0).scalar(b.index(rows)).scalar(b.index(n)).scalar(b.index(inner));
    l.items({rows}, {group_for(b.traits, rows)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}
Made make_arg_max(const Make& m) { return make_arg(m, ">"); }
Made make_arg_min(const Make& m) { return make_arg(m, "<"); }

// ---------------------------------------------------------------- TopK

// One work item a row: each pass finds the next element in order, the lower index first among equals; NaN is greatest.
constexpr const char* kTopK = R"(
#undef BEFORE
#define BEFORE(x, i, y, j) (${better} || (!(${worse}) && i < j))
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL ${T}* RESTRICT values, GLOBAL long* RESTRICT indices,
                      ${idx} rows, ${idx} n, ${idx} inner, ${idx} count) {
  const ${idx} row = (${idx})GID0;
  if (row >= rows) return;
  const ${idx} base = row / inner * n * inner + row % inner, to = row / inner * count * inner + row % inner;
  ${R} last = 0;
  ${idx} last_index = -1;
  for (${idx} k = 0; k < count; ++k) {
    ${R} best = 0;
    ${idx} best_index = -1;
    for (${idx} i = 0; i < n; ++i) {
      const ${R} x = LD_${E}(in, base + i * inner);
      if (last_index >= 0 && !BEFORE(last, last_index, x, i)) continue;
      if (best_index < 0 || BEFORE(x, i, best, best_index)) {
        best = x;
        best_index = i;
      }
    }
    ST_${E}(values, to + k * inner, best);
    indices[to + k * inner] = best_index;
    last = best;
    last_index = best_index;
  }
}
)";

Made make_top_k(const Make& m) {
  const Element el = element(m.dtype(0));
  if (!el.name) return refuse_type();
  if (!m.has_out(0) || !m.has_out(1)) return {AI_VMM_REFUSED_ATTRIBUTE, "one of the two outputs is not wanted"};
  int64_t axis = m.node.i("axis", -1);
  bool largest = m.node.i("largest", 1) != 0;
  Words w;
  w["T"] = el.storage;
  w["E"] = el.name;
  w["R"] = el.compute;
  // NaN counts as greater than every number.
  std::string greater = "((x) > (y) || ((x) != (x) && (y) == (y)))", less = "((y) > (x) || ((y) != (y) && (x) == (x)))";
  w["better"] = largest ? greater : less;
  w["worse"] = largest ? less : greater;
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    Bound bound;
    if (!product(b.out(0))) return bound;
    size_t a = size_t(normalise_axis(axis, int64_t(x.size())));
    int64_t n = x[a], inner = product(x, a + 1), rows = product(x) / n, count = b.out(0)[a];
    if (count > n) return invalid("TopK asks for more elements than the axis has.");
    Words words = w;
    words["idx"] = b.idx();
    Launch l = launch("top", kTopK, words);
    l.in(0).out(0).out(1).scalar(b.index(rows)).scalar(b.index(n)).scalar(b.index(inner)).scalar(b.index(count));
    l.items({rows}, {b.traits.wide ? 1 : 64});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

}  // namespace ai_vmm::gpu
