// Softmax and normalisations along the last axes.
#include "gpu/ops/rows.hpp"

#include <algorithm>

#include "gpu/ops/ops.hpp"

namespace ai_vmm::gpu {

RowText::RowText(const Bind& b, int64_t n) {
  const Traits& t = b.traits;
  width = n >= t.vector() ? t.vector() : 1;
  group = 1;
  while (!t.wide && group < 256 && group * 2 <= t.max_group && group < n) group *= 2;
  words["idx"] = b.idx();
  words["V"] = vector_type(width);
  words["W"] = std::to_string(width);
  words["L"] = std::to_string(group);
  words["SHARE"] = group > 1 ? "SHARED float share[" + std::to_string(group) + "];" : "";
}

std::string RowText::reduce(const std::string& name, const std::string& start, const std::string& combine,
                            const std::string& value, const std::string& at) const {
  Words w = words;
  w["name"] = name;
  w["start"] = start;
  w["combine"] = combine;
  w["value"] = value;
  w["at"] = at;
  w["load"] = vector_load(width, at + " + i");
  w["spill"] = vector_store(width, "a", "parts");
  std::string s = fill(R"(  float ${name};
  {
    ${V} a = (${V})(${start});
    for (${idx} i = LID0 * ${W}; i + ${W} <= n; i += ${L} * ${W}) {
      const ${V} x = ${load};
      const ${V} v = ${value};
      a = ${combine};
    }
    float parts[${W}];
    ${spill};
    float r = parts[0];
    for (int l = 1; l < ${W}; ++l) { const float a = r, v = parts[l]; r = ${combine}; }
    for (${idx} i = n / ${W} * ${W} + LID0; i < n; i += ${L}) {
      const float x = ${at}[i], a = r;
      const float v = ${value};
      r = ${combine};
    }
    ${name} = r;
  }
)",
                       w);
  if (group > 1)
    s += fill(R"(  share[LID0] = ${name};
  BARRIER;
  for (int step = ${L} / 2; step > 0; step /= 2) {
    if (LID0 < step) { const float a = share[LID0], v = share[LID0 + step]; share[LID0] = ${combine}; }
    BARRIER;
  }
  ${name} = share[0];
  BARRIER;
)",
              w);
  return s;
}

std::string RowText::map(const std::string& at, const std::string& to, const std::string& value,
                         const std::vector<std::string>& along) const {
  Words w = words;
  w["at"] = at;
  w["to"] = to;
  w["value"] = value;
  w["load"] = vector_load(width, at + " + i");
  w["store"] = vector_store(width, "v", to + " + i");
  std::string vectors, scalars;
  for (const std::string& p : along) {
    vectors += "const " + vector_type(width) + " _" + p + " = " + vector_load(width, p + " + i") + "; ";
    scalars += "const float _" + p + " = " + p + "[i]; ";
  }
  w["vectors"] = vectors;
  w["scalars"] = scalars;
  return fill(R"(  for (${idx} i = LID0 * ${W}; i + ${W} <= n; i += ${L} * ${W}) {
    const ${V} x = ${load};
    ${vectors}const ${V} v = ${value};
    ${store};
  }
  for (${idx} i = n / ${W} * ${W} + LID0; i < n; i += ${L}) {
    const float x = ${at}[i];
    ${scalars}const float v = ${value};
    ${to}[i] = v;
  }
)",
              w);
}

namespace {

// ---------------------------------------------------------------- softmax

constexpr const char* kSoftmaxRows = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT in, GLOBAL float* RESTRICT out, ${idx} n) {
  ${SHARE}
  const ${idx} row = GRP0;
  in += row * n;
  out += row * n;
${most}${body}}
)";

// One work item a row, or W rows side by side, whose elements lie `inner` apart.
constexpr const char* kSoftmaxApart = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT in, GLOBAL float* RESTRICT out, ${idx} n, ${idx} inner,
                      ${idx} across, ${idx} items) {
  const ${idx} item = (${idx})GID0;
  if (item >= items) return;
  const ${idx} first = item % across * ${W};
  const ${idx} base = item / across * n * inner + (first + ${W} > inner ? inner - ${W} : first);
  in += base;
  out += base;
  ${V} m = (${V})(-INFINITY), s = (${V})(0.0f);
  for (${idx} i = 0; i < n; ++i) m = fmax(m, ${load});
  for (${idx} i = 0; i < n; ++i) s += exp(${load} - m);
  for (${idx} i = 0; i < n; ++i) {
    const ${V} v = ${value};
    ${store};
  }
}
)";

Made softmax(const Make& m, bool logarithm) {
  if (m.dtype(0) != DType::f32) return refuse_type();
  int64_t axis = m.node.i("axis", -1);
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    Bound bound;
    if (!product(x)) return bound;
    size_t a = x.empty() ? 0 : size_t(normalise_axis(axis, int64_t(x.size())));
    const int64_t n = x.empty() ? 1 : x[a], inner = x.empty() ? 1 : product(x, a + 1), rows = product(x) / n;
    bound.flops = 12.0 * double(product(x));
    if (inner == 1) {
      RowText t(b, n);
      Words w = t.words;
      w["most"] = t.reduce("m", "-INFINITY", "fmax(a, v)", "x", "in");
      if (logarithm)
        w["body"] = t.reduce("s", "0.0f", "a + v", "exp(x - m)", "in") + "  const float shift = m + log(s);\n" +
                    t.map("in", "out", "x - shift");
      else
        w["body"] = t.map("in", "out", "exp(x - m)") + t.reduce("s", "0.0f", "a + v", "x", "out") +
                    "  const float scale = 1.0f / s;\n" + t.map("out", "out", "x * scale");
      Launch l = launch("softmax", kSoftmaxRows, w);
      l.in(0).out(0).scalar(b.index(n)).items({rows * t.group}, {t.group});
      bound.launches.push_back(std::move(l));
    } else {
      const int width = inner >= b.traits.vector() ? b.traits.vector() : 1;
      const std::string load = vector_load(width, "in + i * inner");
      Words w{{"idx", b.idx()}, {"V", vector_type(width)}, {"W", std::to_string(width)}, {"load", load}};
      w["value"] = logarithm ? load + " - m - log(s)" : "exp(" + load + " - m) / s";
      w["store"] = vector_store(width, "v", "out + i * inner");
      const int64_t across = divide_up(inner, width), items = product(x) / (n * inner) * across;
      Launch l = launch("softmax_apart", kSoftmaxApart, w);
      l.in(0).out(0).scalar(b.index(n)).scalar(b.index(inner)).scalar(b.index(across)).scalar(b.index(items));
      l.items({items}, {width > 1 ? 1 : group_for(b.traits, items)});
      bound.launches.push_back(std::move(l));
    }
    return bound;
  });
}

// ---------------------------------------------------------------- normalisation

constexpr const char* kNorm = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT in, GLOBAL float* RESTRICT out, ${idx} n,
                      float epsilon${parameters}) {
  ${SHARE}
  const ${idx} row = GRP0;
${begin}${mean}${spread}  const float inverse = 1.0f / sqrt(square / n + epsilon);
${extras}${body}}
)";

struct Norm {
  bool centre = true, scale = true, bias = false;
  float epsilon = 1e-5f;
};

// Rows of `n`; operands: in, out, [mean output, inverse output], [scale], [bias].
Bound bind_norm(const Bind& b, const Norm& k, int64_t rows, int64_t n, const std::function<void(Launch&)>& operands,
                const std::string& parameters, const std::string& begin, const std::string& extras,
                const std::string& body_at, const std::string& value, const std::vector<std::string>& along) {
  RowText t(b, n);
  Words w = t.words;
  w["parameters"] = parameters;
  w["begin"] = begin;
  w["mean"] = k.centre ? t.reduce("sum", "0.0f", "a + v", "x", body_at) + "  const float mean = sum / n;\n" : "";
  w["spread"] = t.reduce("square", "0.0f", "a + v", k.centre ? "(x - mean) * (x - mean)" : "x * x", body_at);
  w["extras"] = extras;
  w["body"] = t.map(body_at, "out", value, along);
  Launch l = launch("norm", kNorm, w);
  l.in(0).out(0).scalar(b.index(n)).scalar(k.epsilon);
  operands(l);
  l.items({rows * t.group}, {t.group});
  Bound bound;
  bound.flops = 8.0 * double(rows * n);
  bound.launches.push_back(std::move(l));
  return bound;
}

Made layer_norm(const Make& m, bool centre) {
  if (m.dtype(0) != DType::f32 || (m.has(1) && m.dtype(1) != DType::f32) || (m.has(2) && m.dtype(2) != DType::f32))
    return refuse_type();
  int64_t axis = normalise_axis(m.node.i("axis", -1), m.rank(0));
  for (size_t k : {size_t(1), size_t(2)})
    if (m.has(k)) {
      const auto &x = m.type(0).dims, &s = m.type(k).dims;
      if (!std::equal(x.begin() + axis, x.end(), s.begin(), s.end()))
        return {AI_VMM_REFUSED_ATTRIBUTE, "the scale of a normalisation must have the sizes that are normalised"};
    }
  Norm k{centre, m.has(1), m.has(2), m.node.f("epsilon", 1e-5f)};
  bool mean = m.has_out(1), inverse = m.has_out(2);
  if (!centre && (mean || inverse)) return {AI_VMM_REFUSED_ATTRIBUTE, "the statistics as outputs"};
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    if (!product(x)) return Bound{};
    int64_t n = product(x, size_t(axis)), rows = product(x) / n;
    std::string parameters, extras, value = centre ? "(x - mean) * inverse" : "x * inverse";
    std::vector<std::string> along;
    if (mean) parameters += ", GLOBAL float* means", extras += "  if (LID0 == 0) means[row] = mean;\n";
    if (inverse) parameters += ", GLOBAL float* inverses", extras += "  if (LID0 == 0) inverses[row] = inverse;\n";
    if (k.scale) {
      parameters += ", GLOBAL const float* RESTRICT scale";
      value += " * _scale";
      along.push_back("scale");
    }
    if (k.bias) {
      parameters += ", GLOBAL const float* RESTRICT bias";
      value += " + _bias";
      along.push_back("bias");
    }
    return bind_norm(
        b, k, rows, n,
        [&](Launch& l) {
          if (mean) l.out(1);
          if (inverse) l.out(2);
          if (k.scale) l.in(1);
          if (k.bias) l.in(2);
        },
        parameters, "  in += row * n;\n  out += row * n;\n", extras, "in", value, along);
  });
}

}  // namespace

Made make_softmax(const Make& m) { return softmax(m, false); }
Made make_log_softmax(const Make& m) { return softmax(m, true); }
Made make_layer_norm(const Make& m) { return layer_norm(m, true); }
Made make_rms_norm(const Make& m) { return layer_norm(m, false); }

// Each channel of each picture is a row with one scale and one bias.
Made make_instance_norm(const Make& m) {
  for (size_t k = 0; k < 3; ++k)
    if (m.dtype(k) != DType::f32) return refuse_type();
  Norm k{true, true, true, m.node.f("epsilon", 1e-5f)};
  return BindFn([k](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    if (!product(x)) return Bound{};
    int64_t channels = x[1], n = product(x, 2);
    return bind_norm(
        b, k, x[0] * channels, n, [&](Launch& l) { l.in(1).in(2).scalar(b.index(channels)); },
        std::string(", GLOBAL const float* RESTRICT scale, GLOBAL const float* RESTRICT bias, ") + b.idx() + " C",
        "  in += row * n;\n  out += row * n;\n",
        "  const float a = inverse * scale[row % C], c = bias[row % C] - mean * a;\n", "in", "x * a + c", {});
  });
}

// A row is the channels of a group, each with a scale and a bias of its own.
constexpr const char* kGroupNorm = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT in, GLOBAL float* RESTRICT out, GLOBAL const float* RESTRICT scale,
                      GLOBAL const float* RESTRICT bias, ${idx} size, ${idx} per, ${idx} groups, float epsilon) {
  ${SHARE}
  const ${idx} row = GRP0, all = size * per;
  in += row * all;
  out += row * all;
  ${idx} n = all;
${mean}${spread}  const float inverse = 1.0f / sqrt(square / all + epsilon);
  n = size;
  for (${idx} c = 0; c < per; ++c, in += size, out += size) {
    const float a = inverse * scale[row % groups * per + c], shift = bias[row % groups * per + c] - mean * a;
${body}  }
}
)";

Made make_group_norm(const Make& m) {
  for (size_t k = 0; k < 3; ++k)
    if (m.dtype(k) != DType::f32) return refuse_type();
  float epsilon = m.node.f("epsilon", 1e-5f);
  int64_t groups = m.node.i("num_groups");
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    if (!product(x)) return Bound{};
    if (groups < 1 || x[1] % groups) return invalid("The channels do not divide into the groups.");
    int64_t size = product(x, 2), per = x[1] / groups;
    RowText t(b, size);
    Words w = t.words;
    w["mean"] = t.reduce("sum", "0.0f", "a + v", "x", "in") + "  const float mean = sum / all;\n";
    w["spread"] = t.reduce("square", "0.0f", "a + v", "(x - mean) * (x - mean)", "in");
    w["body"] = t.map("in", "out", "x * a + shift");
    Launch l = launch("group_norm", kGroupNorm, w);
    l.in(0).out(0).in(1).in(2).scalar(b.index(size)).scalar(b.index(per)).scalar(b.index(groups)).scalar(epsilon);
    l.items({x[0] * groups * t.group}, {t.group});
    Bound bound;
    bound.flops = 8.0 * double(product(x));
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

}  // namespace ai_vmm::gpu
