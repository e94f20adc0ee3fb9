// gpu.Patches(X) of convolutions over volumes: [image, group, channel · taps, positions], zero outside the volume. The
// attributes are those of Conv; the number of groups is the output's.
#include <algorithm>

#include "gpu/ops/ops.hpp"

namespace ai_vmm::gpu {

namespace {

// One work item a row of positions of one tap of one channel.
constexpr const char* kPatches = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT x, GLOBAL float* RESTRICT y, ${idx} rows, ${idx} D0, ${idx} D1,
    ${idx} D2, ${idx} O0, ${idx} O1, ${idx} O2, ${idx} B0, ${idx} B1, ${idx} B2) {
  const ${idx} q = (${idx})GID0, o1 = q % O1, o0 = q / O1 % O0, row = q / (O1 * O0);
  if (q >= rows) return;
  const ${idx} tap = row % ${taps}, plane = row / ${taps};
  const ${idx} i0 = o0 * ${S0} - B0 + tap / ${K12} * ${L0}, i1 = o1 * ${S1} - B1 + tap / ${K2} % ${K1} * ${L1},
               first = tap % ${K2} * ${L2} - B2;
  y += q * O2;
  if (i0 < 0 || i0 >= D0 || i1 < 0 || i1 >= D1) {
    for (${idx} o = 0; o < O2; ++o) y[o] = 0.0f;
    return;
  }
  x += ((plane * D0 + i0) * D1 + i1) * D2;
  for (${idx} o = 0; o < O2; ++o) {
    const ${idx} i = first + o * ${S2};
    y[o] = i >= 0 && i < D2 ? x[i] : 0.0f;
  }
}
)";

}  // namespace

Made make_patches(const Make& m) {
  if (m.dtype(0) != DType::f32) return refuse_type();
  const auto kernel = m.node.ints("kernel_shape"), strides = m.node.ints("strides", {1, 1, 1}),
             dilations = m.node.ints("dilations", {1, 1, 1}), pads = m.node.ints("pads", {0, 0, 0, 0, 0, 0});
  const std::string auto_pad = m.node.s("auto_pad", "NOTSET");
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& x = b.in(0);
    Words w{{"idx", b.idx()}};
    int64_t before[3], out[3];
    for (size_t d = 0; d < 3; ++d) {
      const std::string n = std::to_string(d);
      const int64_t in = x[d + 2], reach = (kernel[d] - 1) * dilations[d] + 1;
      const bool same = auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER";
      if (same) {
        out[d] = divide_up(in, strides[d]);
        const int64_t total = std::max<int64_t>(0, (out[d] - 1) * strides[d] + reach - in);
        before[d] = auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      } else {
        before[d] = auto_pad == "VALID" ? 0 : pads[d];
        out[d] = (in + (auto_pad == "VALID" ? 0 : pads[d] + pads[d + 3]) - reach) / strides[d] + 1;
      }
      w["S" + n] = std::to_string(strides[d]);
      w["L" + n] = std::to_string(dilations[d]);
    }
    const int64_t taps = kernel[0] * kernel[1] * kernel[2], rows = x[0] * x[1] * taps * out[0] * out[1];
    Bound bound;
    if (!product(b.out(0))) return bound;
    if (rows * out[2] != product(b.out(0))) return invalid("The sizes of a convolution do not fit together.");
    w["taps"] = std::to_string(taps);
    w["K12"] = std::to_string(kernel[1] * kernel[2]);
    w["K1"] = std::to_string(kernel[1]);
    w["K2"] = std::to_string(kernel[2]);
    Launch l = launch("patches", kPatches, w);
    l.in(0).out(0).scalar(b.index(rows));
    for (size_t d = 2; d < 5; ++d) l.scalar(b.index(x[d]));
    for (int64_t n : out) l.scalar(b.index(n));
    for (int64_t n : before) l.scalar(b.index(n));
    l.items({rows}, {group_for(b.traits, rows)});
    bound.launches.push_back(std::move(l));
    return bound;
  });
}

}  // namespace ai_vmm::gpu
