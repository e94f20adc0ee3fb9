// Pooling.
#include <algorithm>

#include "gpu/ops/ops.hpp"

namespace ai_vmm::gpu {

namespace {

// Windows over up to three axes: D, H, W of the input, O the output's, K, S, L the kernel, stride, dilation, B the
// pads.
constexpr const char* kPool = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT x, GLOBAL float* RESTRICT y, ${idx} count, ${idx} D0, ${idx} D1,
    ${idx} D2, ${idx} O0, ${idx} O1, ${idx} O2, ${idx} B0, ${idx} B1, ${idx} B2, ${idx} A0, ${idx} A1, ${idx} A2) {
  ${idx} q = (${idx})GID0;
  if (q >= count) return;
  const ${idx} o = q, o2 = q % O2, o1 = q / O2 % O1, o0 = q / (O2 * O1) % O0, plane = q / (O2 * O1 * O0);
  x += plane * D0 * D1 * D2;
  float a = ${start};
  int n = 0;
  for (int k0 = 0; k0 < ${K0}; ++k0) {
    const ${idx} i0 = o0 * ${S0} - B0 + k0 * ${L0};
    for (int k1 = 0; k1 < ${K1}; ++k1) {
      const ${idx} i1 = o1 * ${S1} - B1 + k1 * ${L1};
      for (int k2 = 0; k2 < ${K2}; ++k2) {
        const ${idx} i2 = o2 * ${S2} - B2 + k2 * ${L2};
        if (${inside_pads}) ++n;
        if (i0 < 0 || i0 >= D0 || i1 < 0 || i1 >= D1 || i2 < 0 || i2 >= D2) continue;
        const float v = x[(i0 * D1 + i1) * D2 + i2];
        ${step}
      }
    }
  }
  y[o] = ${finish};
}
)";

// The same for processors: one work item a row of outputs, W of them at once where their windows lie inside the row.
constexpr const char* kPoolRows = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT x, GLOBAL float* RESTRICT y, ${idx} rows, ${idx} D0, ${idx} D1,
    ${idx} D2, ${idx} O0, ${idx} O1, ${idx} O2, ${idx} B0, ${idx} B1, ${idx} B2, ${idx} A0, ${idx} A1, ${idx} A2) {
  const ${idx} q = (${idx})GID0, o1 = q % O1, o0 = q / O1 % O0, plane = q / (O1 * O0);
  if (q >= rows) return;
  x += plane * D0 * D1 * D2;
  y += q * O2;
  for (${idx} o2 = 0; o2 < O2;) {
    const ${idx} left = o2 * ${S2} - B2;
    if (left >= 0 && left + (${K2} - 1) * ${L2} + ${S2} * ${W} <= D2 && o2 + ${W} <= O2) {
      ${V} a = (${V})(${start});
      int n = 0;
      for (int k0 = 0; k0 < ${K0}; ++k0) {
        const ${idx} i0 = o0 * ${S0} - B0 + k0 * ${L0};
        for (int k1 = 0; k1 < ${K1}; ++k1) {
          const ${idx} i1 = o1 * ${S1} - B1 + k1 * ${L1};
          for (int k2 = 0; k2 < ${K2}; ++k2) {
            const ${idx} i2 = left + k2 * ${L2};
            if (${inside_pads}) ++n;
            if (i0 < 0 || i0 >= D0 || i1 < 0 || i1 >= D1) continue;
            GLOBAL const float* p = x + (i0 * D1 + i1) * D2 + i2;
            const ${V} v = ${load};
            ${step}
          }
        }
      }
      ${store};
      o2 += ${W};
      continue;
    }
    float a = ${start};
    int n = 0;
    for (int k0 = 0; k0 < ${K0}; ++k0) {
      const ${idx} i0 = o0 * ${S0} - B0 + k0 * ${L0};
      for (int k1 = 0; k1 < ${K1}; ++k1) {
        const ${idx} i1 = o1 * ${S1} - B1 + k1 * ${L1};
        for (int k2 = 0; k2 < ${K2}; ++k2) {
          const ${idx} i2 = left + k2 * ${L2};
          if (${inside_pads}) ++n;
          if (i0 < 0 || i0 >= D0 || i1 < 0 || i1 >= D1 || i2 < 0 || i2 >= D2) continue;
          const float v = x[(i0 * D1 + i1) * D2 + i2];
          ${step}
        }
      }
    }
    y[o2] = ${finish};
    ++o2;
  }
}
)";

struct PoolNode {
  bool average, include_pad;
  std::vector<int64_t> kernel, stride, dilation, pads;
  std::string auto_pad;
};

Made make_pool(const Make& m, bool average) {
  if (m.dtype(0) != DType::f32) return refuse_type("only float32 has pooling kernels");
  if (m.rank(0) < 3 || m.rank(0) > 5) return {AI_VMM_REFUSED_RANK, "pictures have one to three axes"};
  if (m.has_out(1)) return {AI_VMM_REFUSED_ATTRIBUTE, "the indices of the maxima"};
  PoolNode p{average,
             m.node.i("count_include_pad") != 0,
             m.node.ints("kernel_shape"),
             m.node.ints("strides"),
             m.node.ints("dilations"),
             m.node.ints("pads"),
             m.node.s("auto_pad", "NOTSET")};
  return BindFn([p](const Bind& b) -> Result<Bound> {
    const Shape &x = b.in(0), &y = b.out(0);
    Bound bound;
    if (!product(y)) return bound;
    int64_t in[3] = {1, 1, 1}, out[3] = {1, 1, 1}, k[3] = {1, 1, 1}, s[3] = {1, 1, 1}, l[3] = {1, 1, 1},
            before[3] = {0, 0, 0}, after[3] = {0, 0, 0};
    const size_t axes = x.size() - 2;
    for (size_t d = 0; d < axes; ++d) {
      size_t t = 3 - axes + d;
      in[t] = x[d + 2];
      out[t] = y[d + 2];
      k[t] = p.kernel[d];
      s[t] = p.stride.empty() ? 1 : p.stride[d];
      l[t] = p.dilation.empty() ? 1 : p.dilation[d];
      int64_t total = std::max<int64_t>((out[t] - 1) * s[t] + (k[t] - 1) * l[t] + 1 - in[t], 0);
      if (p.auto_pad == "SAME_UPPER")
        before[t] = total / 2, after[t] = total - total / 2;
      else if (p.auto_pad == "SAME_LOWER")
        before[t] = total - total / 2, after[t] = total / 2;
      else if (p.auto_pad != "VALID" && !p.pads.empty())
        before[t] = p.pads[d], after[t] = p.pads[d + axes];
    }
    Words w;
    w["idx"] = b.idx();
    for (size_t d = 0; d < 3; ++d) {
      std::string n = std::to_string(d);
      w["K" + n] = std::to_string(k[d]);
      w["S" + n] = std::to_string(s[d]);
      w["L" + n] = std::to_string(l[d]);
    }
    w["start"] = p.average ? "0.0f" : "-INFINITY";
    w["step"] = p.average ? "a += v;" : "a = v > a || v != v ? v : a;";
    w["finish"] = p.average ? "a / n" : "a";
    // What counts for the mean: the picture, with its pads where they are asked for.
    w["inside_pads"] = p.include_pad ? "i0 < D0 + A0 && i1 < D1 + A1 && i2 < D2 + A2"
                                     : "i0 >= 0 && i0 < D0 && i1 >= 0 && i1 < D1 && i2 >= 0 && i2 < D2";
    const int width = b.traits.vector();
    const bool rows = b.traits.wide && s[2] <= 2;
    const int64_t items = rows ? product(y) / out[2] : product(y);
    w["V"] = vector_type(width);
    w["W"] = std::to_string(width);
    w["load"] = s[2] == 1 ? vector_load(width, "p")
                          : "(" + vector_type(width) + ")(" + vector_load(width, "p") + ".even, " +
                                vector_load(width, "p + " + std::to_string(width)) + ".even)";
    w["store"] = vector_store(width, w["finish"], "y + o2");
    Launch launched = launch(rows ? "pool_rows" : "pool", rows ? kPoolRows : kPool, w);
    launched.in(0).out(0).scalar(b.index(items));
    for (const auto* list : {&in, &out, &before, &after})
      for (int64_t v : *list) launched.scalar(b.index(v));
    launched.items({items}, {rows ? 1 : group_for(b.traits, items)});
    bound.flops = double(product(y)) * double(k[0] * k[1] * k[2]);
    bound.launches.push_back(std::move(launched));
    return bound;
  });
}

// One work item, or one group, a plane of `n` elements.
constexpr const char* kGlobal = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT x, GLOBAL float* RESTRICT y, ${idx} n, ${idx} planes) {
  const ${idx} plane = (${idx})GID0;
  if (plane >= planes) return;
  x += plane * n;
  ${V} a = (${V})(${start});
  ${idx} i = 0;
  for (; i + ${W} <= n; i += ${W}) {
    const ${V} v = ${load};
    a = ${step};
  }
  float parts[${W}];
  ${spill};
  float r = parts[0];
  for (int l = 1; l < ${W}; ++l) { const float a = r, v = parts[l]; r = ${step}; }
  for (; i < n; ++i) { const float a = r, v = x[i]; r = ${step}; }
  y[plane] = ${finish};
}
)";

Made make_global(const Make& m, bool average) {
  if (m.dtype(0) != DType::f32) return refuse_type("only float32 has pooling kernels");
  if (m.rank(0) < 3) return {AI_VMM_REFUSED_RANK, "pictures have axes"};
  return BindFn([average](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    int64_t planes = x[0] * x[1], n = product(x, 2);
    Bound bound;
    if (!planes) return bound;
    int width = n >= b.traits.vector() ? b.traits.vector() : 1;
    Words w;
    w["idx"] = b.idx();
    w["V"] = vector_type(width);
    w["W"] = std::to_string(width);
    w["start"] = average ? "0.0f" : "-INFINITY";
    w["step"] = average ? "a + v" : "(v > a || v != v ? v : a)";
    w["finish"] = average ? "r / n" : "r";
    w["load"] = vector_load(width, "x + i");
    w["spill"] = vector_store(width, "a", "parts");
    Launch l = launch("global_pool", kGlobal, w);
    l.in(0).out(0).scalar(b.index(n)).scalar(b.index(planes)).items({planes}, {b.traits.wide ? 1 : 64});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

}  // namespace

Made make_average_pool(const Make& m) { return make_pool(m, true); }
Made make_max_pool(const Make& m) { return make_pool(m, false); }
Made make_global_average_pool(const Make& m) { return make_global(m, true); }
Made make_global_max_pool(const Make& m) { return make_global(m, false); }

}  // namespace ai_vmm::gpu
