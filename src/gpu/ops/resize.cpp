// Resize: the taps of every resized axis are tables; one work item an output sums them.
#include <algorithm>
#include <cstring>

#include "gpu/ops/ops.hpp"
#include "ops/resize.hpp"

namespace ai_vmm::gpu {

namespace {

// Axes that keep their size are walked by division; for each resized axis d a table of `Kd` places and weights.
constexpr const char* kResize = R"(
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL ${T}* RESTRICT out, GLOBAL const int* RESTRICT places,
                      GLOBAL const float* RESTRICT weights, ${idx} count${sizes}) {
  const ${idx} o = (${idx})GID0;
  if (o >= count) return;
  ${idx} q = o, base = 0;
${walk}${loops}${ends}}
)";
// The same with a row of the last axis for a work item.
constexpr const char* kResizeRows = R"(
KERNEL void ${kernel}(GLOBAL const ${T}* RESTRICT in, GLOBAL ${T}* RESTRICT out, GLOBAL const int* RESTRICT places,
                      GLOBAL const float* RESTRICT weights, ${idx} count${sizes}) {
  const ${idx} row = (${idx})GID0;
  if (row >= count) return;
  ${idx} q = row, base = 0;
${walk}  for (${idx} c${last} = 0; c${last} < d${last}; ++c${last}) {
    const ${idx} o = row * d${last} + c${last};
${loops}${ends}  }
}
)";

}  // namespace

Made make_resize(const Make& m) {
  const Node& n = m.node;
  std::string mode = n.s("mode", "nearest");
  if (n.s("coordinate_transformation_mode") == "tf_crop_and_resize")
    return {AI_VMM_REFUSED_ATTRIBUTE, "regions of interest"};
  if (n.s("keep_aspect_ratio_policy", "stretch") != "stretch")
    return {AI_VMM_REFUSED_ATTRIBUTE, "aspect ratio policies"};
  const Tensor* scales = m.constant(2);
  bool by_scale = m.has(2) && (!scales || scales->count() > 0);
  if (by_scale && (!scales || scales->dtype() != DType::f32))
    return {AI_VMM_REFUSED_DYNAMIC, "scales are not constant"};
  const int bytes = bits(m.dtype(0)) / 8;
  const bool nearest = mode == "nearest";
  if (bits(m.dtype(0)) % 8 || bytes > 8 || !bytes || (!nearest && m.dtype(0) != DType::f32))
    return refuse_type("interpolation of types other than float32");
  std::vector<float> factors;
  if (by_scale) factors.assign(scales->as<float>().begin(), scales->as<float>().end());
  auto node = std::make_shared<Node>(n);
  std::string attributes = mode + n.s("coordinate_transformation_mode", "half_pixel") +
                           n.s("nearest_mode", "round_prefer_floor") + std::to_string(n.i("antialias")) +
                           std::to_string(n.i("exclude_outside")) + std::to_string(n.f("cubic_coeff_a", -0.75f));
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape &in = b.in(0), &out = b.out(0);
    Bound bound;
    bound.note = mode;
    if (!product(out)) return bound;
    if (!product(in)) return invalid("Resize cannot enlarge an empty input.");
    auto axes = node->ints("axes");
    std::vector<double> scale(in.size());
    for (size_t a = 0; a < in.size(); ++a) scale[a] = double(out[a]) / double(in[a]);
    for (size_t i = 0; by_scale && i < factors.size(); ++i) {
      size_t a = axes.empty() ? i : size_t(normalise_axis(axes.at(i), int64_t(in.size())));
      if (a >= in.size()) return invalid("Resize has more scales than axes.");
      scale[a] = double(factors[i]);
    }
    // Tables of all resized axes, one after the other.
    std::vector<int32_t> places;
    std::vector<float> weights;
    std::string key = "resize " + attributes, idx = b.idx(), sizes, walk, loops, ends, at = "base", weight;
    Shape own = strides_of(in);
    std::vector<int64_t> arguments;
    for (size_t d = in.size(); d-- > 0;) {
      std::string k = std::to_string(d);
      sizes += ", " + idx + " d" + k + ", " + idx + " s" + k;
      arguments.insert(arguments.end(), {out[d], own[d]});
      const bool looped = b.traits.wide && d + 1 == in.size();
      if (!looped) walk += "  const " + idx + " c" + k + " = q % d" + k + "; q /= d" + k + ";\n";
      if (in[d] == out[d] && scale[d] == 1) {
        if (looped)
          at += " + c" + k + " * s" + k;
        else
          walk += "  base += c" + k + " * s" + k + ";\n";
        continue;
      }
      auto taps = AI_VMM_TAKE(resize_taps(*node, ResizeAxis{in[d], out[d], scale[d], 0, 1}));
      size_t width = 0;
      for (const auto& t : taps) width = std::max(width, t.weights.size());
      key += " " + k + ":" + std::to_string(in[d]) + ":" + std::to_string(out[d]) + ":" + std::to_string(scale[d]);
      std::string start = std::to_string(places.size()), w = std::to_string(width);
      for (const auto& t : taps)
        for (size_t j = 0; j < width; ++j) {
          bool real = j < t.weights.size();
          places.push_back(int32_t(std::clamp<int64_t>(t.start + int64_t(real ? j : 0), 0, in[d] - 1)));
          weights.push_back(real ? float(t.weights[j]) : 0.0f);
        }
      sizes += ", int from" + k;
      arguments.push_back(std::stoll(start));
      loops += "  for (int k" + k + " = 0; k" + k + " < " + w + "; ++k" + k + ") {\n  const int p" + k + " = from" + k +
               " + (int)c" + k + " * " + w + " + k" + k + ";\n";
      ends += "  }\n";
      at += " + places[p" + k + "] * s" + k;
      weight += (weight.empty() ? "weights[p" : " * weights[p") + k + "]";
    }
    Words w{{"idx", idx}, {"sizes", sizes}, {"walk", walk}, {"last", std::to_string(in.size() - 1)}};
    w["T"] = nearest ? raw_type(bytes) : "float";
    if (nearest || weight.empty()) {
      w["loops"] = loops + "  out[o] = in[" + at + "];\n";
      w["ends"] = ends;
    } else {
      w["loops"] = "  float sum = 0.0f;\n" + loops + "  sum += " + weight + " * in[" + at + "];\n";
      w["ends"] = ends + "  out[o] = sum;\n";
    }
    if (places.empty()) {
      places.push_back(0);
      weights.push_back(0);
    }
    auto table = [&](const char* what, const void* data) {
      return b.pack(key + what, int64_t(places.size()) * 4,
                    [&](void* to) { std::memcpy(to, data, places.size() * 4); });
    };
    MemoryRef p = AI_VMM_TAKE(table(" places", places.data())), f = AI_VMM_TAKE(table(" weights", weights.data()));
    const bool rows = b.traits.wide && !in.empty();
    const int64_t items = rows ? product(out) / out.back() : product(out);
    Launch l = launch(rows ? "resize_rows" : "resize", rows ? kResizeRows : kResize, w);
    l.in(0).out(0).packed(p).packed(f).scalar(b.index(items));
    size_t next = 0;
    for (size_t d = in.size(); d-- > 0;) {
      l.scalar(b.index(arguments[next])).scalar(b.index(arguments[next + 1]));
      next += 2;
      if (in[d] == out[d] && scale[d] == 1) continue;
      l.scalar(int32_t(arguments[next++]));
    }
    l.items({items}, {rows ? 1 : group_for(b.traits, items)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

// ---------------------------------------------------------------- LRN

// Squares of the neighbouring channels.
static constexpr const char* kLrn = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT in, GLOBAL float* RESTRICT out, ${idx} count, ${idx} C,
                      ${idx} inner, int before, int after, float alpha, float beta, float bias) {
  const ${idx} o = (${idx})GID0;
  if (o >= count) return;
  const ${idx} c = o / inner % C, first = c > before ? c - before : 0, last = c + after < C ? c + after : C - 1;
  float s = 0.0f;
  for (${idx} k = first; k <= last; ++k) {
    const float x = in[o + (k - c) * inner];
    s = fma(x, x, s);
  }
  out[o] = in[o] * exp(-beta * log(bias + alpha * s));
}
)";

Made make_lrn(const Make& m) {
  if (m.dtype(0) != DType::f32) return refuse_type();
  if (m.rank(0) < 2) return {AI_VMM_REFUSED_RANK, "there are no channels"};
  int64_t size = m.node.i("size");
  float alpha = m.node.f("alpha", 0.0001f) / float(size), beta = m.node.f("beta", 0.75f), bias = m.node.f("bias", 1.0f);
  if (!(bias > 0) || alpha < 0) return {AI_VMM_REFUSED_ATTRIBUTE, "a base that may not be positive"};
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    Bound bound;
    if (!product(x)) return bound;
    Launch l = launch("lrn", kLrn, {{"idx", b.idx()}});
    l.in(0).out(0).scalar(b.index(product(x))).scalar(b.index(x[1])).scalar(b.index(product(x, 2)));
    l.scalar(int32_t((size - 1) / 2)).scalar(int32_t(size / 2)).scalar(alpha).scalar(beta).scalar(bias);
    l.items({product(x)}, {group_for(b.traits, product(x))});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

}  // namespace ai_vmm::gpu
