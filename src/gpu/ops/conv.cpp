// Convolutions of one or two axes as products without a matrix of patches.
//
// On devices with wide registers the picture is first brought into padded planes, one for each phase of the stride, so
// that under every tap the inputs of neighbouring outputs are neighbours; a tile of output channels by positions is
// then a product whose columns are loaded from the planes. Positions run over the padded width; what lies between rows
// is computed and not stored. A 1×1 kernel without padding reads the picture itself. On other devices groups of work
// items gather patches into group memory.
#include <algorithm>

#include "gpu/ops/conv.hpp"
#include "gpu/ops/library.hpp"
#include "gpu/ops/matrix_unit.hpp"
#include "gpu/ops/ops.hpp"
#include "gpu/ops/tile.hpp"
#include "gpu/ops/winograd.hpp"

namespace ai_vmm::gpu {

namespace {

struct ConvNode {
  std::shared_ptr<const Epilogue> epilogue;
  int64_t groups;
  std::vector<int64_t> kernel, stride, dilation, pads;
  std::string auto_pad;
  bool integer = false;           // of whole numbers below 256, the result exact and of ints
  DType type = DType::f32;        // of picture and weights; of the result, unless `integer`
  std::optional<Tensor> filters;  // where they are constant
  std::string key;
};

// Sizes along two axes; a picture of one axis has height 1.
struct Sizes {
  int64_t n, c, o, groups;  // images, channels in and out
  int64_t h, w, oh, ow, kh, kw, sh, sw, dh, dw, top, left;
};

Result<Sizes> sizes_of(const ConvNode& c, const Bind& b) {
  const Shape &x = b.in(0), &w = b.in(1), &y = b.out(0);
  const bool flat = x.size() == 3;
  Sizes s{x[0], x[1], w[0], c.groups, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0};
  auto at = [&](const std::vector<int64_t>& list, size_t d) { return list.empty() ? int64_t(1) : list[d]; };
  for (size_t d = 0; d + 2 < x.size(); ++d) {
    bool wide = flat || d == 1;
    int64_t in = x[d + 2], out = y[d + 2], k = w[d + 2], stride = at(c.stride, d), dilation = at(c.dilation, d);
    int64_t total = std::max<int64_t>((out - 1) * stride + (k - 1) * dilation + 1 - in, 0), before = 0;
    if (c.auto_pad == "SAME_UPPER")
      before = total / 2;
    else if (c.auto_pad == "SAME_LOWER")
      before = total - total / 2;
    else if (c.auto_pad != "VALID" && !c.pads.empty())
      before = c.pads[d];
    (wide ? s.w : s.h) = in;
    (wide ? s.ow : s.oh) = out;
    (wide ? s.kw : s.kh) = k;
    (wide ? s.sw : s.sh) = stride;
    (wide ? s.dw : s.dh) = dilation;
    (wide ? s.left : s.top) = before;
  }
  if (s.c % s.groups || s.o % s.groups || w[1] * s.groups != s.c)
    return invalid("A convolution of " + std::to_string(s.c) + " channels in " + std::to_string(s.groups) +
                   " groups does not fit weights of shape " + ai_vmm::to_string(w) + ".");
  return s;
}

// Padded planes of a picture: [images × channels][phases of the stride][ph][pw].
constexpr const char* kPlanes = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT x, GLOBAL float* RESTRICT p, ${idx} count, ${idx} h, ${idx} w,
                      ${idx} ph, ${idx} pw, ${idx} top, ${idx} left, ${idx} tail) {
  const ${idx} row = (${idx})GID0;
  if (row == count) {
    for (${idx} j = 0; j < tail; ++j) p[count * pw + j] = 0.0f;
  }
  if (row >= count) return;
  const ${idx} r = row % ph, f = row / ph % (${sh} * ${sw}), plane = row / ph / (${sh} * ${sw});
  const ${idx} i = r * ${sh} + f / ${sw} - top, j0 = f % ${sw} - left;
  GLOBAL float* to = p + row * pw;
  if (i < 0 || i >= h) {
    for (${idx} j = 0; j < pw; ++j) to[j] = 0.0f;
    return;
  }
  GLOBAL const float* from = x + (plane * h + i) * w;
  ${idx} first = j0 < 0 ? (-j0 + ${sw} - 1) / ${sw} : 0, last = w > j0 ? (w - j0 + ${sw} - 1) / ${sw} : 0;
  if (first > pw) first = pw;
  if (last > pw) last = pw;
  if (last < first) last = first;
  for (${idx} j = 0; j < first; ++j) to[j] = 0.0f;
  for (${idx} j = first; j < last; ++j) to[j] = from[j * ${sw} + j0];
  for (${idx} j = last; j < pw; ++j) to[j] = 0.0f;
}
)";

// A tile of sums into the output, channels m0 … of group g; positions between rows are left out.
constexpr const char* kStoreTile = R"(    ${R} t[${MR} * ${NR}];
    ${spill}    NO_UNROLL for (int i = 0; i < ${MR} && m0 + i < end; ++i) {
      const ${idx} c = g * O + m0 + i;
      GLOBAL ${R}* y = Y + (image * groups * O + c) * OH * OW;
      ${idx} row = row0, column = column0;
      NO_UNROLL for (int j = 0; j < ${NR} && row < OH; j += ${W}) {
        const bool partial = column + ${W} > OW;
        // Where the lanes' offsets count from: the first lane, or where it may lie between rows, the row's beginning.
        const ${idx} first = row * OW + (partial ? 0 : column), o = (image * groups * O + c) * OH * OW + first;
        int at[${W}];
        if (partial) {
          NO_UNROLL for (int l = 0; l < ${W}; ++l) {
            at[l] = column < OW && row < OH ? (int)(row * OW + column - first) : -1;
            if (++column == pw) { column = 0; ++row; }
          }
        } else {
          column += ${W};
          if (column == pw) { column = 0; ++row; }
        }
        ${VR} v = ${load_t};
        ${body}        if (partial) {
          ${R} part[${W}];
          ${store_part};
          NO_UNROLL for (int l = 0; l < ${W}; ++l)
            if (at[l] >= 0) y[first + at[l]] = part[l];
        } else {
          ${store}
        }
      }
    }
)";

// One tile of positions; the output channels of a group, or a part of them, by tiles of MR.
constexpr const char* kWide = R"(${functions}
KERNEL __attribute__((reqd_work_group_size(1, 1, 1))) void ${kernel}(GLOBAL const float* RESTRICT X,
    GLOBAL const float* RESTRICT F, GLOBAL ${R}* RESTRICT Y, ${idx} C, ${idx} O, ${idx} groups, ${idx} plane,
    ${idx} pw, ${idx} OH, ${idx} OW, ${idx} positions, ${idx} part, ${idx} passes${parameters}) {
  typedef ${V} V;
  const ${idx} z = GRP2, g = z % groups, image = z / groups, end = (GRP1 + 1) * part < O ? (GRP1 + 1) * part : O;
  X += z * C * plane * ${phases};
  F += g * O * C * ${taps};
  for (${idx} pass = 0; pass < passes; ++pass) {
  const ${idx} p0 = (GRP0 * passes + pass) * ${NR};
  if (p0 >= positions) return;
  const ${idx} row0 = p0 / pw, column0 = p0 - row0 * pw;
  for (${idx} m0 = GRP1 * part; m0 < end; m0 += ${MR}) {
${rows}    ${idx} k = 0;
    ${declare}    ${sum_begin}GLOBAL const float* x0 = X + p0;
    for (${idx} i = 0; i < C; ++i, x0 += plane * ${phases}) {
${taps_begin}      ${multiply}      ++k;
${taps_end}${sum_step}    }
${store_tile}  }
  }
}
)";

// The same where filters lie in tiles [group][ceil(O / MR)][C · taps][MR] and there are several of them: what lies
// under the tile of positions is first brought into a panel [C · taps][NR] of the work item's own.
constexpr const char* kPanels = R"(${functions}
KERNEL __attribute__((reqd_work_group_size(1, 1, 1))) void ${kernel}(GLOBAL const float* RESTRICT X,
    GLOBAL const float* RESTRICT F, GLOBAL ${R}* RESTRICT Y, GLOBAL float* RESTRICT panels, ${idx} C, ${idx} O,
    ${idx} groups, ${idx} plane, ${idx} pw, ${idx} OH, ${idx} OW, ${idx} positions, ${idx} part, ${idx} passes,
    ${idx} columns, ${idx} parts${parameters}) {
  typedef ${V} V;
  const ${idx} z = GRP2, g = z % groups, image = z / groups, end = (GRP1 + 1) * part < O ? (GRP1 + 1) * part : O;
  const ${idx} K = C * ${taps};
  GLOBAL float* panel = panels + ((z * parts + GRP1) * columns + GRP0) * K * ${NR};
  X += z * C * plane * ${phases};
  F += g * ((O + ${MR} - 1) / ${MR}) * K * ${MR};
  for (${idx} pass = 0; pass < passes; ++pass) {
  const ${idx} p0 = (GRP0 * passes + pass) * ${NR};
  if (p0 >= positions) return;
  const ${idx} row0 = p0 / pw, column0 = p0 - row0 * pw;
  {
    GLOBAL const float* x0 = X + p0;
    GLOBAL float* to = panel;
    for (${idx} i = 0; i < C; ++i, x0 += plane * ${phases}) {
${taps_begin}      ${gather}      to += ${NR};
${taps_end}    }
  }
  for (${idx} m0 = GRP1 * part; m0 < end; m0 += ${MR}) {
    GLOBAL const float* f = F + m0 * K;
    GLOBAL const float* x = panel;
    ${declare}    ${sum_begin}for (${idx} k = 0; k < K; ++k, f += ${MR}, x += ${NR}) {
      ${multiply_panel}${sum_panel}    }
${store_tile}  }
  }
}
)";

void pack_filters(const float* from, float* to, int64_t groups, int64_t o, int64_t k, int64_t mr) {
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t m0 = 0; m0 < o; m0 += mr)
      for (int64_t i = 0; i < k; ++i)
        for (int64_t m = m0; m < m0 + mr; ++m, ++to) *to = m < o ? from[(g * o + m) * k + i] : 0.0f;
}

// Any device: 64 output channels by 64 positions by 16 of the inner axis in group memory.
constexpr const char* kBlocks = R"(${functions}
KERNEL void ${kernel}(GLOBAL const float* RESTRICT X, GLOBAL const float* RESTRICT F, GLOBAL ${R}* RESTRICT Y,
    ${idx} C, ${idx} O, ${idx} groups, ${idx} H, ${idx} W, ${idx} OH, ${idx} OW, ${idx} top,
    ${idx} left${parameters}) {
  SHARED float a[16][65];
  SHARED float b[16][65];
  const int id = LID0, x = id % 16, y = id / 16;
  const ${idx} z = GRP2, g = z % groups, n0 = GRP0 * 64, m0 = GRP1 * 64, K = C * ${taps}, N = OH * OW;
  X += z * C * H * W;
  F += g * O * K;
  float r[4][4];
  ${R} sum[4][4];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) r[i][j] = 0.0f, sum[i][j] = 0;
  for (${idx} k0 = 0; k0 < K; k0 += 16) {
    for (int s = id; s < 1024; s += 256) {
      const ${idx} m = m0 + s / 16, ka = k0 + s % 16;
      a[s % 16][s / 16] = m < O && ka < K ? F[m * K + ka] : 0.0f;
      const ${idx} n = n0 + s % 64, kb = k0 + s / 64;
      const ${idx} i = n / OW * ${sh} - top + kb % ${taps} / ${kw} * ${dh},
                   j = n % OW * ${sw} - left + kb % ${kw} * ${dw};
      b[s / 64][s % 64] = n < N && kb < K && i >= 0 && i < H && j >= 0 && j < W
                              ? X[(kb / ${taps} * H + i) * W + j] : 0.0f;
    }
    BARRIER;
    for (int k = 0; k < 16; ++k)
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) r[i][j] = fma(a[k][y + 16 * i], b[k][x + 16 * j], r[i][j]);
    ${flush}BARRIER;
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const ${idx} m = m0 + y + 16 * i, n = n0 + x + 16 * j, c = g * O + m, o = (z / groups * groups * O + c) * N + n;
      if (m >= O || n >= N) continue;
      ${R} v = ${result};
      ${tail_body}      Y[o] = ${tail_result};
    }
}
)";

// Of whole numbers: what a block adds is exact.
constexpr const char* kFlushBlock = R"(for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) sum[i][j] += (int)r[i][j], r[i][j] = 0.0f;
    )";

// On matrix units: 128 output channels by 128 positions.
constexpr const char* kMatrixUnit = R"(${unit}${functions}
KERNEL __launch_bounds__(${LANES}) void ${kernel}(GLOBAL const ${T}* RESTRICT X, GLOBAL const ${T}* RESTRICT F,
    GLOBAL ${RT}* RESTRICT Y, ${idx} C, ${idx} O, ${idx} groups, ${idx} H, ${idx} W, ${idx} OH, ${idx} OW, ${idx} top,
    ${idx} left${parameters}) {
${declare}  const ${idx} z = GRP2, g = z % groups, n0 = GRP0 * 128, m0 = GRP1 * 128, K = C * ${taps}, N = OH * OW;
${exact_declare}  X += z * C * H * W;
  F += g * O * K;
  for (${idx} k0 = 0; k0 < K; k0 += ${KB}) {
    for (int s = id; s < 2048; s += ${LANES}) {
      const int w = s % 16, row = s / 16;
      const ${idx} m = m0 + row, ka = k0 + w * ${PER};
      uint word = 0;
      for (int q = 0; q < ${PER}; ++q)
        if (m < O && ka + q < K) word |= word_of_${arithmetic}(LD_${type}(F, m * K + ka + q)) << (32 / ${PER} * q % 32);
      a[row][w] = word;
      const int v = s / 128, column = s % 128;
      const ${idx} n = n0 + column, i0 = n / OW * ${sh} - top, j0 = n % OW * ${sw} - left;
      word = 0;
      for (int q = 0; q < ${PER}; ++q) {
        const ${idx} kb = k0 + v * ${PER} + q, i = i0 + kb % ${taps} / ${kw} * ${dh}, j = j0 + kb % ${kw} * ${dw};
        if (n < N && kb < K && i >= 0 && i < H && j >= 0 && j < W)
          word |= word_of_${arithmetic}(LD_${type}(X, (kb / ${taps} * H + i) * W + j)) << (32 / ${PER} * q % 32);
      }
      b[column][v] = word;
    }
${multiply}${exact_flush}  }
${each}        const ${idx} m = m0 + row, n = n0 + column, c = g * O + m, o = (z / groups * groups * O + c) * N + n;
        if (m >= O || n >= N) continue;
        ${R} v = ${result};
        ${tail_body}        ST_${result_type}(Y, o, ${tail_result});
      }
}
)";

Words common_words(const ConvNode& node, const Sizes& s, const Bind& b) {
  Words w;
  w["idx"] = b.idx();
  EpilogueText tail = epilogue_text(node.epilogue.get(), 1, false);
  w["tail_body"] = tail.body;
  w["tail_result"] = tail.result;
  w["parameters"] = tail.parameters;
  w["functions"] = tail.functions;
  w["R"] = node.integer ? "int" : "float";
  w["result"] = node.integer ? "sum[i][j]" : "r[i][j]";
  w["flush"] = node.integer ? kFlushBlock : "";
  for (auto [name, value] : {std::pair("sh", s.sh),
                             {"sw", s.sw},
                             {"dh", s.dh},
                             {"dw", s.dw},
                             {"kh", s.kh},
                             {"kw", s.kw},
                             {"taps", s.kh * s.kw},
                             {"phases", s.sh * s.sw}})
    w[name] = std::to_string(value);
  return w;
}

std::string wide_note(int mr, int nr, bool panels) {
  return std::to_string(mr) + "x" + std::to_string(nr) + (panels ? " panels" : "");
}
std::string panels_key(const ConvNode& node, int mr) { return node.key + " " + std::to_string(mr); }

// `panels`: by kPanels, of constant filters.
Result<Bound> bind_wide(const ConvNode& node, const Sizes& s, const Bind& b, int mr, int nv, bool panels) {
  const Traits& t = b.traits;
  const int vector = t.vector(), nr = vector * nv;
  const Tile tile{mr, nv, vector};
  const int64_t c = s.c / s.groups, o = s.o / s.groups;
  Bound bound;
  bound.flops = 2.0 * double(s.n * s.o) * double(s.oh * s.ow) * double(c * s.kh * s.kw);
  bound.note = wide_note(mr, nr, panels);

  // Planes cover every input that an output reads, and what the last vectors read past it.
  const int64_t pw = divide_up((s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1, s.sw),
                ph = divide_up((s.oh - 1) * s.sh + (s.kh - 1) * s.dh + 1, s.sh), plane = ph * pw;
  const int64_t positions = (s.oh - 1) * pw + s.ow, tail = nr + (s.kw - 1) * s.dw / s.sw + 1;
  // The picture itself serves where positions are whole vectors, so that nothing past its end is read.
  const bool itself =
      s.kh * s.kw == 1 && s.sh * s.sw == 1 && !s.top && !s.left && s.oh == s.h && s.ow == s.w && positions % nr == 0;
  if (!itself) {
    const Planes planes{s.n * s.c * s.sh * s.sw, s.h, s.w, ph, pw, s.top, s.left, tail};
    bound.launches.push_back(planes_launch(planes, common_words(node, s, b), b));
    bound.scratch = round_up(planes.floats() * 4, t.alignment);
  }

  Words w = common_words(node, s, b);
  EpilogueText wide = epilogue_text(node.epilogue.get(), vector, false, "partial");
  w["functions"] = wide.functions;
  w["V"] = vector_type(vector);
  w["W"] = std::to_string(vector);
  w["NR"] = std::to_string(nr);
  w["MR"] = std::to_string(mr);
  w["declare"] = tile.declare();
  const std::string elements = std::to_string(mr * nr);
  w["spill"] = tile.spill("t");
  w["VR"] = "V";
  w["sum_begin"] = w["sum_step"] = "";
  if (node.integer) {
    const int64_t channels = std::max<int64_t>(1, kExactTerms / (s.kh * s.kw));
    w["VR"] = vector == 1 ? "int" : "int" + std::to_string(vector);
    w["sum_begin"] = "int sum[" + elements + "];\n    for (int l = 0; l < " + elements + "; ++l) sum[l] = 0;\n    ";
    w["sum_step"] =
        "      if ((i + 1) % " + std::to_string(channels) + " == 0 || i + 1 == C) {\n" + tile.flush("sum") + "}\n";
    w["spill"] = "for (int l = 0; l < " + elements + "; ++l) t[l] = sum[l];\n";
  }
  std::string begin;
  for (int i = 0; i < mr; ++i) {
    std::string n = std::to_string(i);
    begin += "    GLOBAL const float* f" + n + " = F + (m0 + " + n + " < end ? m0 + " + n + " : end - 1) * C * " +
             w["taps"] + ";\n";
  }
  w["rows"] = begin;
  if (s.kh * s.kw == 1) {
    w["taps_begin"] = "      GLOBAL const float* x = x0;\n";
    w["taps_end"] = "";
  } else {
    w["taps_begin"] = ai_vmm::gpu::fill(
        "      for (int a = 0; a < ${kh}; ++a)\n      for (int b = 0; b < ${kw}; ++b) {\n"
        "      GLOBAL const float* x = x0 + (a * ${dh} % ${sh} * ${sw} + b * ${dw} % ${sw}) * plane + a * ${dh} / "
        "${sh} "
        "* pw + b * ${dw} / ${sw};\n",
        w);
    w["taps_end"] = "      }\n";
  }
  w["multiply"] = tile.multiply([&](int i) { return "f" + std::to_string(i) + "[k]"; },
                                [&](int j) { return vector_load(vector, "x + " + std::to_string(j * vector)); });
  w["load_t"] = vector_load(vector, "t + i * " + std::to_string(nr) + " + j");
  w["body"] = wide.body;
  w["store"] = vector_store(vector, wide.result, "y + first") + ";";
  w["store_part"] = vector_store(vector, wide.result, "part");
  w["store_tile"] = ai_vmm::gpu::fill(kStoreTile, w);
  const int64_t inner = c * s.kh * s.kw;
  MemoryRef filters;
  if (panels) {
    w["multiply_panel"] =
        tile.multiply([&](int i) { return "f[" + std::to_string(i) + "]"; },
                      [&](int j) { return vector_load(vector, "x + " + std::to_string(j * vector)); });
    std::string gather;
    for (int j = 0; j < nv; ++j) {
      const std::string at = " + " + std::to_string(j * vector);
      gather += vector_store(vector, vector_load(vector, "x" + at), "to" + at) + ";\n";
    }
    w["gather"] = gather;
    w["sum_panel"] = node.integer ? "if ((k + 1) % " + std::to_string(kExactTerms) + " == 0 || k + 1 == K) {\n" +
                                        tile.flush("sum") + "}\n"
                                  : "";
    filters = AI_VMM_TAKE(b.pack(panels_key(node, mr), s.groups * round_up(o, mr) * inner * 4, [&](void* to) {
      pack_filters(node.filters->as<float>().data(), static_cast<float*>(to), s.groups, o, inner, mr);
    }));
  }
  Launch l = launch(panels ? "conv_panels" : "conv", panels ? kPanels : kWide, w);
  if (itself)
    l.in(0);
  else
    l.scratch(0);
  if (panels)
    l.packed(filters);
  else
    l.in(1);
  l.out(0);
  const int64_t tiles = divide_up(positions, nr), images = s.n * s.groups, parts_most = divide_up(o, mr);
  int64_t parts = std::clamp<int64_t>(divide_up(t.units * 4, tiles * images), 1, parts_most);
  int64_t part = divide_up(parts_most, parts) * mr;
  // A work item with little to do takes several tiles.
  double work = 2.0 * double(part * nr) * double(c * s.kh * s.kw);
  int64_t passes =
      std::clamp<int64_t>(int64_t(2e5 / work), 1, std::max<int64_t>(1, tiles * images * parts / (t.units * 4)));
  passes = std::min(passes, tiles);
  if (panels) {
    // A panel for each work item: no more of them than keep the cores busy.
    passes = std::max(passes, divide_up(tiles * images * parts, int64_t(t.units) * 16));
    parts = divide_up(o, part);
    l.scratch(bound.scratch);
    bound.scratch += round_up(images * parts * divide_up(tiles, passes) * inner * nr * 4, t.alignment);
  }
  // Without taps nothing lies between rows: they are one long row, whose vectors are all whole but the last.
  const bool one_row = s.kh * s.kw == 1 && pw == s.ow;
  for (int64_t v : {c, o, s.groups, plane, one_row ? positions : pw, one_row ? 1 : s.oh, one_row ? positions : s.ow,
                    positions, part, passes})
    l.scalar(b.index(v));
  if (panels) l.scalar(b.index(divide_up(tiles, passes))).scalar(b.index(parts));
  add_epilogue(l, node.epilogue.get());
  l.items({divide_up(tiles, passes), divide_up(o, part), images});
  bound.launches.push_back(std::move(l));
  return bound;
}

Bound bind_blocks(const ConvNode& node, const Sizes& s, const Bind& b) {
  Launch l = launch("conv_blocks", kBlocks, common_words(node, s, b));
  const int64_t c = s.c / s.groups, o = s.o / s.groups;
  l.in(0).in(1).out(0);
  for (int64_t v : {c, o, s.groups, s.h, s.w, s.oh, s.ow, s.top, s.left}) l.scalar(b.index(v));
  add_epilogue(l, node.epilogue.get());
  l.items({divide_up(s.oh * s.ow, 64) * 256, divide_up(o, 64), s.n * s.groups}, {256, 1, 1});
  Bound bound;
  bound.flops = 2.0 * double(s.n * s.o) * double(s.oh * s.ow) * double(c * s.kh * s.kw);
  bound.note = "blocks";
  bound.launches.push_back(std::move(l));
  return bound;
}

Bound bind_matrix_unit(const ConvNode& node, const Sizes& s, const Bind& b, Arithmetic arithmetic) {
  Words w = common_words(node, s, b);
  w.merge(matrix_words(b.traits.matrix, arithmetic));
  const DType result = node.integer ? DType::i32 : node.type;
  w["T"] = element(node.type).storage;
  w["type"] = element(node.type).name;
  w["RT"] = element(result).storage;
  w["result_type"] = element(result).name;
  w["result"] = node.integer ? "exact[i][j][e]" : "sum";
  if (!node.integer) w["exact_declare"] = w["exact_flush"] = "";
  Launch l = launch("conv_matrix_unit", kMatrixUnit, w);
  const int64_t c = s.c / s.groups, o = s.o / s.groups;
  l.in(0).in(1).out(0);
  for (int64_t v : {c, o, s.groups, s.h, s.w, s.oh, s.ow, s.top, s.left}) l.scalar(b.index(v));
  add_epilogue(l, node.epilogue.get());
  l.items({divide_up(s.oh * s.ow, 128) * 256, divide_up(o, 128), s.n * s.groups}, {256, 1, 1});
  Bound bound;
  bound.flops = 2.0 * double(s.n * s.o) * double(s.oh * s.ow) * double(c * s.kh * s.kw);
  bound.note = std::string("matrix unit ") + name(arithmetic);
  bound.launches.push_back(std::move(l));
  return bound;
}

// On GPUs: the first way is the one without measurement.
Result<Bound> bind_lanes(const ConvNode& node, const Sizes& s, const Bind& b) {
  auto arithmetic = node.integer && b.traits.matrix != MatrixUnit::none ? std::optional(Arithmetic::bf16)
                                                                        : matrix_arithmetic(b.traits, node.type);
  std::vector<Bound> ways;
  // A block of 128 channels is mostly empty where groups are narrow.
  if (arithmetic && (node.type != DType::f32 || s.o / s.groups >= 16))
    ways.push_back(bind_matrix_unit(node, s, b, *arithmetic));
  if (node.type == DType::f32) ways.push_back(bind_blocks(node, s, b));
  if (!node.integer) {
    LibraryConvolution task{node.type, arithmetic.value_or(Arithmetic::f32),
                            s.n,       s.c,
                            s.o,       s.groups,
                            s.h,       s.w,
                            s.oh,      s.ow,
                            s.kh,      s.kw,
                            s.sh,      s.sw,
                            s.dh,      s.dw,
                            s.top,     s.left};
    if (auto library =
            library_bound(b, task, 0, 1, node.epilogue.get(), s.n * s.o * s.oh * s.ow, s.oh * s.ow, s.o, false)) {
      library->flops = ways[0].flops;
      ways.push_back(std::move(*library));
    }
  }
  if (ways.size() == 1) return std::move(ways[0]);
  std::string key = "lanes conv " + std::string(name(arithmetic.value_or(Arithmetic::f32))) + " " +
                    element(node.type).name + (node.integer ? " int" : "") + (b.traits.libraries ? " library" : "");
  for (int64_t v : {s.n, s.c, s.o, s.groups, s.kh, s.kw, s.sh, s.sw, s.dh, s.dw, s.oh, s.ow})
    key += " " + std::to_string(v);
  size_t best = AI_VMM_TAKE(b.fastest(key, ways));
  return std::move(ways[best]);
}

// The convolution as Winograd's algorithm takes it. Where there are few channels the transforms cost more than the
// products that they save; filters grow up to fourfold.
std::optional<Winograd> winograd_of(const ConvNode& node, const Sizes& s) {
  constexpr int64_t kFewChannels = 16, kMostFilters = int64_t(1) << 25;
  if (!node.filters || node.integer || s.groups != 1 || s.kh != 3 || s.kw != 3 || s.sh != 1 || s.sw != 1 || s.dh != 1 ||
      s.dw != 1 || s.c < kFewChannels || s.o < kFewChannels || s.c * s.o > kMostFilters)
    return std::nullopt;
  return Winograd{
      s.n,     s.c, s.o, s.h, s.w, s.oh, s.ow, s.top, s.left, node.epilogue.get(), node.filters->as<float>().data(),
      node.key};
}

Result<Bound> bind_conv(const ConvNode& node, const Bind& b) {
  Sizes s = AI_VMM_TAKE(sizes_of(node, b));
  if (product(b.out(0)) == 0) return Bound{};
  if (product(b.in(0)) == 0)
    return invalid("A convolution reads an empty tensor of shape " + ai_vmm::to_string(b.in(0)) + ".");
  if (!b.traits.wide) return bind_lanes(node, s, b);
  const int64_t o = s.o / s.groups, vectors = divide_up(s.oh * s.ow, b.traits.vector());
  if (o < 8) return bind_wide(node, s, b, int(o), int(std::min<int64_t>(vectors, o == 1 ? 4 : o <= 4 ? 4 : 3)), false);
  const bool panels = node.filters && o >= 32;
  if (vectors < 3) return bind_wide(node, s, b, 12, int(vectors), panels);
  const std::optional<Winograd> winograd = winograd_of(node, s);
  std::string key = winograd ? "conv winograd" : panels ? "conv panels" : "conv";
  for (int64_t v : {s.n, s.c, s.o, s.groups, s.kh, s.kw, s.sh, s.sw, s.dh, s.dw}) key += " " + std::to_string(v);
  int bits = 0;
  while ((s.oh * s.ow) >> bits > 1) ++bits;
  key += " " + std::to_string(bits);
  // Each way keeps filters of its own: those of other ways are not made, or given up once they are measured.
  struct Tiles {
    int mr, nv;
  };
  constexpr Tiles kTiles[] = {{8, 3}, {12, 2}};
  const std::string known = b.known(key);
  for (int edge : {4, 2})
    if (winograd && known == winograd_note(edge)) return bind_winograd(*winograd, b, edge);
  for (auto [mr, nv] : kTiles)
    if (known == wide_note(mr, nv * b.traits.vector(), panels)) return bind_wide(node, s, b, mr, nv, panels);
  std::vector<Bound> ways;
  ways.push_back(AI_VMM_TAKE(bind_wide(node, s, b, kTiles[0].mr, kTiles[0].nv, panels)));
  if (b.deterministic || ways[0].flops < 1e8) return std::move(ways[0]);
  ways.push_back(AI_VMM_TAKE(bind_wide(node, s, b, kTiles[1].mr, kTiles[1].nv, panels)));
  const int edge = winograd ? winograd_edge(*winograd, b.traits) : 0;
  if (winograd) ways.push_back(AI_VMM_TAKE(bind_winograd(*winograd, b, edge)));
  const size_t best = AI_VMM_TAKE(b.fastest(key, ways));
  for (size_t k = 0; k < std::size(kTiles); ++k)
    if (k != best && panels) b.drop(panels_key(node, kTiles[k].mr));
  if (winograd && best + 1 < ways.size()) b.drop(winograd_key(*winograd, edge, b.traits));
  return std::move(ways[best]);
}

Made make(const Make& m, bool integer) {
  // Half precision has kernels on matrix units only; elsewhere it is computed in float32 (lower.hpp).
  if (m.dtype(0) != DType::f32 && (m.traits.wide || !matrix_arithmetic(m.traits, m.dtype(0))))
    return refuse_type("only float32 has convolution kernels");
  if (m.rank(0) < 3 || m.rank(0) > 4) return {AI_VMM_REFUSED_RANK, "pictures have one or two axes"};
  ConvNode c{m.epilogue,
             m.node.i("group", 1),
             m.node.ints("kernel_shape"),
             m.node.ints("strides"),
             m.node.ints("dilations"),
             m.node.ints("pads"),
             m.node.s("auto_pad", "NOTSET"),
             integer,
             m.dtype(0),
             std::nullopt,
             ""};
  if (const Tensor* f = m.constant(1)) {
    c.filters = *f;
    c.key = "filters " + std::to_string(m.node.inputs[1]);
  }
  if (integer)
    for (size_t d = 2, taps = 1; d < m.type(1).dims.size(); ++d) {
      auto size = m.type(1).dims[d].constant();
      if (!size || (taps *= size_t(*size)) > kExactTerms)
        return {AI_VMM_REFUSED_RANK, "a window of more elements than add up exactly in a float"};
    }
  return BindFn([c](const Bind& b) -> Result<Bound> { return bind_conv(c, b); });
}

}  // namespace

Launch planes_launch(const Planes& s, const Words& words, const Bind& b) {
  const int64_t rows = s.count * s.ph;
  Launch l = launch("planes", kPlanes, words);
  l.in(0).scratch(0);
  for (int64_t v : {rows, s.h, s.w, s.ph, s.pw, s.top, s.left, s.tail}) l.scalar(b.index(v));
  l.items({rows + 1}, {std::min<int64_t>(32, group_for(b.traits, rows))});
  return l;
}

Made make_conv(const Make& m) { return make(m, false); }
Made make_integer_conv(const Make& m) { return make(m, true); }

}  // namespace ai_vmm::gpu
