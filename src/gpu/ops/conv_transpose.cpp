// Transposed convolutions: a product of the weights with the picture gives what every input adds to every tap; each
// output then sums the taps that reach it.
#include <algorithm>

#include "gpu/ops/ops.hpp"
#include "gpu/ops/product.hpp"

namespace ai_vmm::gpu {

namespace {

// Columns [image, group][channel, taps][H·W]; one work item an output.
constexpr const char* kGatherTaps = R"(${functions}
KERNEL void ${kernel}(GLOBAL const float* RESTRICT columns, GLOBAL float* RESTRICT Y, ${idx} count, ${idx} C,
                      ${idx} H, ${idx} W, ${idx} OH, ${idx} OW, ${idx} top, ${idx} left${parameters}) {
  const ${idx} o = (${idx})GID0;
  if (o >= count) return;
  const ${idx} ow = o % OW, oh = o / OW % OH, plane = o / (OW * OH), c = plane % C;
  GLOBAL const float* from = columns + plane * ${taps} * H * W;
  float v = 0.0f;
  for (int a = 0; a < ${kh}; ++a) {
    const ${idx} i = oh + top - a * ${dh};
    if (i < 0 || i % ${sh} != 0 || i / ${sh} >= H) continue;
    for (int b = 0; b < ${kw}; ++b) {
      const ${idx} j = ow + left - b * ${dw};
      if (j < 0 || j % ${sw} != 0 || j / ${sw} >= W) continue;
      v += from[((a * ${kw} + b) * H + i / ${sh}) * W + j / ${sw}];
    }
  }
  ${body}  Y[o] = ${result};
}
)";

// The same, one work item a row of the output: a tap's inputs are neighbours.
constexpr const char* kAddTaps = R"(${functions}
KERNEL void ${kernel}(GLOBAL const float* RESTRICT columns, GLOBAL float* RESTRICT Y, ${idx} rows, ${idx} C,
                      ${idx} H, ${idx} W, ${idx} OH, ${idx} OW, ${idx} top, ${idx} left${parameters}) {
  const ${idx} row = (${idx})GID0;
  if (row >= rows) return;
  const ${idx} oh = row % OH, plane = row / OH, c = plane % C;
  GLOBAL const float* from = columns + plane * ${taps} * H * W;
  GLOBAL float* y = Y + row * OW;
  for (${idx} ow = 0; ow < OW; ++ow) y[ow] = 0.0f;
  for (int a = 0; a < ${kh}; ++a) {
    const ${idx} i = oh + top - a * ${dh};
    if (i < 0 || i % ${sh} != 0 || i / ${sh} >= H) continue;
    for (int b = 0; b < ${kw}; ++b) {
      GLOBAL const float* x = from + ((a * ${kw} + b) * H + i / ${sh}) * W;
      const ${idx} shift = b * ${dw} - left;
      ${idx} first = shift < 0 ? (-shift + ${sw} - 1) / ${sw} : 0, last = OW > shift ? (OW - shift + ${sw} - 1) / ${sw} : 0;
      if (last > W) last = W;
      for (${idx} j = first; j < last; ++j) y[j * ${sw} + shift] += x[j];
    }
  }
${finish}}
)";
constexpr const char* kFinishRow = R"(  for (${idx} ow = 0; ow < OW; ++ow) {
    const ${idx} o = row * OW + ow;
    float v = y[ow];
    ${body}    y[ow] = ${result};
  }
)";

}  // namespace

Made make_conv_transpose(const Make& m) {
  if (m.dtype(0) != DType::f32) return refuse_type("only float32 has convolution kernels");
  if (m.rank(0) < 3 || m.rank(0) > 4) return {AI_VMM_REFUSED_RANK, "pictures have one or two axes"};
  auto epilogue = m.epilogue;
  auto stride = m.node.ints("strides"), dilation = m.node.ints("dilations"), pads = m.node.ints("pads"),
       extra = m.node.ints("output_padding");
  bool asked = m.node.has("output_shape");
  std::string auto_pad = m.node.s("auto_pad", "NOTSET");
  int64_t groups = m.node.i("group", 1);
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape &x = b.in(0), &f = b.in(1), &y = b.out(0);
    const bool flat = x.size() == 3;
    if (!product(y)) return Bound{};
    if (!product(x)) return invalid("A convolution reads an empty tensor of shape " + ai_vmm::to_string(x) + ".");
    int64_t in[2] = {1, 1}, out[2] = {1, 1}, k[2] = {1, 1}, s[2] = {1, 1}, l[2] = {1, 1}, before[2] = {0, 0};
    for (size_t d = 0; d + 2 < x.size(); ++d) {
      size_t t = flat ? 1 : d;
      in[t] = x[d + 2];
      out[t] = y[d + 2];
      k[t] = f[d + 2];
      s[t] = stride.empty() ? 1 : stride[d];
      l[t] = dilation.empty() ? 1 : dilation[d];
      // What the taps make beyond the output is cut off: by the pads, or in halves where only the size is given.
      int64_t total =
          std::max<int64_t>(0, (in[t] - 1) * s[t] + (k[t] - 1) * l[t] + 1 + (extra.empty() ? 0 : extra[d]) - out[t]);
      if (auto_pad == "SAME_UPPER" || (asked && auto_pad != "SAME_LOWER"))
        before[t] = auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      else if (auto_pad == "SAME_LOWER")
        before[t] = total - total / 2;
      else if (auto_pad != "VALID" && !pads.empty())
        before[t] = pads[d];
    }
    if (x[1] % groups || f[0] != x[1]) return invalid("The weights of a convolution do not fit its input.");
    const int64_t c = x[1] / groups, o = f[1], taps = k[0] * k[1], hw = in[0] * in[1];
    Product p{1, 0, o * taps, hw, c, 1, o * taps, hw, 1, {x[0], groups}, {0, c * o * taps}, {x[1] * hw, c * hw}};
    int64_t at = 0;
    Bound bound = AI_VMM_TAKE(product_to_scratch(b, p, &at));
    EpilogueText e = epilogue_text(epilogue.get(), 1, false);
    Words w{{"idx", b.idx()},
            {"functions", e.functions},
            {"parameters", e.parameters},
            {"body", e.body},
            {"result", e.result},
            {"taps", std::to_string(taps)},
            {"kh", std::to_string(k[0])},
            {"kw", std::to_string(k[1])},
            {"sh", std::to_string(s[0])},
            {"sw", std::to_string(s[1])},
            {"dh", std::to_string(l[0])},
            {"dw", std::to_string(l[1])}};
    const bool rows = b.traits.wide;
    const int64_t items = rows ? product(y) / out[1] : product(y);
    w["finish"] = e.body.empty() ? "" : fill(kFinishRow, w);
    Launch launched = launch(rows ? "add_taps" : "gather_taps", rows ? kAddTaps : kGatherTaps, w);
    launched.scratch(at).out(0).scalar(b.index(items));
    for (int64_t v : {o * groups, in[0], in[1], out[0], out[1], before[0], before[1]}) launched.scalar(b.index(v));
    add_epilogue(launched, epilogue.get());
    launched.items({items}, {rows ? 1 : group_for(b.traits, items)});
    bound.launches.push_back(std::move(launched));
    bound.note += " + taps";
    return bound;
  });
}

}  // namespace ai_vmm::gpu
