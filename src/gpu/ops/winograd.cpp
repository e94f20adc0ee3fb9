// Three kernels: tiles of the padded picture are transformed into panels of columns, one set for each point of the
// tile; each point is a product of its filters and its columns; the sums are transformed back. Columns are tiles of all
// images, in order, so that a vector holds the same element of neighbouring tiles. The panels pass through in parts
// that stay in cache.
#include "gpu/ops/winograd.hpp"

#include <algorithm>
#include <cmath>

#include "gpu/ops/conv.hpp"
#include "gpu/ops/ops.hpp"
#include "gpu/ops/tile.hpp"

namespace ai_vmm::gpu {

namespace {

// Rows of Bᵀ, G and Aᵀ: y = Aᵀ[(G g Gᵀ) ∘ (Bᵀ d B)]A. Points 0, ±1, ±2, ∞ and 0, ±1, ∞.
struct Transforms {
  std::vector<std::vector<double>> picture, filter, result;
};
const Transforms& transforms(int edge) {
  static const Transforms four{{{4, 0, -5, 0, 1, 0},
                                {0, -4, -4, 1, 1, 0},
                                {0, 4, -4, -1, 1, 0},
                                {0, -2, -1, 2, 1, 0},
                                {0, 2, -1, -2, 1, 0},
                                {0, 4, 0, -5, 0, 1}},
                               {{1.0 / 4, 0, 0},
                                {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                {0, 0, 1}},
                               {{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}}};
  static const Transforms two{{{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}},
                              {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}},
                              {{1, 1, 1, 0}, {0, 1, -1, -1}}};
  return edge == 4 ? four : two;
}

// Sums of the vectors that `term(k)` names, by one row of a transform.
template <class Term>
std::string sum_text(const std::vector<double>& row, Term term) {
  std::string s;
  for (size_t k = 0; k < row.size(); ++k) {
    if (row[k] == 0) continue;
    const double size = std::fabs(row[k]);
    const std::string factor = size == 1 ? "" : std::to_string(int(size)) + ".0f * ";
    s += (row[k] < 0 ? (s.empty() ? "-" : " - ") : (s.empty() ? "" : " + ")) + factor + term(int(k));
  }
  return s;
}

struct Config {
  int edge, mr, nv;
  int points() const { return (edge + 2) * (edge + 2); }
};

int64_t tiles_of(const Winograd& t, int edge) { return t.n * divide_up(t.oh, edge) * divide_up(t.ow, edge); }

// The tile of registers that leaves the fewest products, and how many those are.
std::pair<Config, int64_t> config_of(const Winograd& t, int edge, const Traits& traits) {
  const int64_t tiles = tiles_of(t, edge), vectors = divide_up(tiles, traits.vector());
  auto products = [&](const Config& c) {
    return c.points() * round_up(t.o, c.mr) * round_up(tiles, c.nv * traits.vector());
  };
  Config best{edge, 12, int(std::min<int64_t>(vectors, 2))};
  if (Config other{edge, 8, 3}; vectors >= 3 && products(other) < products(best)) best = other;
  return {best, products(best)};
}

// Tiles into columns: [point][panel][C][NR].
constexpr const char* kPicture = R"(
KERNEL __attribute__((reqd_work_group_size(1, 1, 1))) void ${kernel}(GLOBAL const float* RESTRICT X,
    GLOBAL float* RESTRICT U, ${idx} C, ${idx} plane, ${idx} pw, ${idx} TH, ${idx} TW, ${idx} tiles, ${idx} first,
    ${idx} panels, ${idx} part) {
  typedef ${V} V;
  const ${idx} q0 = (first + GRP0) * ${NR}, end = (GRP1 + 1) * part < C ? (GRP1 + 1) * part : C;
  const int count = tiles - q0 < ${NR} ? (int)(tiles - q0) : ${NR};
  float d[${points} * ${S}];
  for (int l = 0; l < ${points} * ${S}; ++l) d[l] = 0.0f;
  for (${idx} c = GRP1 * part; c < end; ++c) {
    ${idx} tx = q0 % TW, ty = q0 / TW % TH, image = q0 / TW / TH;
    for (int lane = 0; lane < count;) {
      const int run = TW - tx < count - lane ? (int)(TW - tx) : count - lane;
      GLOBAL const float* row = X + (image * C + c) * plane + ty * ${m} * pw + tx * ${m};
      // The last vector of a run writes past it, where the next run writes after it, or nothing is read.
      NO_UNROLL for (int i = 0; i < ${t}; ++i, row += pw)
        NO_UNROLL for (int l = 0; l < run; l += ${W}) {
          GLOBAL const float* p = row + l * ${m};
          float* to = d + i * ${t} * ${S} + lane + l;
${split}        }
      lane += run;
      tx = 0;
      if (++ty == TH) { ty = 0; ++image; }
    }
    GLOBAL float* to = U + ((${idx})GRP0 * C + c) * ${NR};
    NO_UNROLL for (int l = 0; l < ${NR}; l += ${W}) {
      NO_UNROLL for (int j = 0; j < ${t}; ++j) {
        float* at = d + j * ${S} + l;
${columns}      }
      NO_UNROLL for (int i = 0; i < ${t}; ++i) {
        const float* at = d + i * ${t} * ${S} + l;
        GLOBAL float* u = to + (${idx})i * ${t} * panels * C * ${NR} + l;
${rows}      }
    }
  }
}
)";

// [panel][O up to a multiple of MR][point][NR] = filters [point][O / MR][C][MR] · columns.
constexpr const char* kProducts = R"(
KERNEL __attribute__((reqd_work_group_size(1, 1, 1))) void ${kernel}(GLOBAL const float* RESTRICT F,
    GLOBAL const float* RESTRICT U, GLOBAL float* RESTRICT M, ${idx} C, ${idx} O, ${idx} panels, ${idx} part) {
  typedef ${V} V;
  const ${idx} panel = GRP0, point = GRP2, end = (GRP1 + 1) * part < O ? (GRP1 + 1) * part : O;
  U += (point * panels + panel) * C * ${NR};
  F += point * O * C;
  for (${idx} m0 = GRP1 * part; m0 < end; m0 += ${MR}) {
    GLOBAL const float* f = F + m0 * C;
    GLOBAL const float* u = U;
    ${declare}    for (${idx} k = 0; k < C; ++k, f += ${MR}, u += ${NR}) {
      ${multiply}    }
    GLOBAL float* y = M + ((panel * O + m0) * ${points} + point) * ${NR};
    ${store}  }
}
)";

// Sums into the output.
constexpr const char* kResult = R"(${functions}
KERNEL __attribute__((reqd_work_group_size(1, 1, 1))) void ${kernel}(GLOBAL const float* RESTRICT M,
    GLOBAL float* RESTRICT Y, ${idx} O, ${idx} padded, ${idx} OH, ${idx} OW, ${idx} TH, ${idx} TW, ${idx} tiles,
    ${idx} first, ${idx} part${parameters}) {
  typedef ${V} V;
  const ${idx} q0 = (first + GRP0) * ${NR}, end = (GRP1 + 1) * part < O ? (GRP1 + 1) * part : O;
  const int count = tiles - q0 < ${NR} ? (int)(tiles - q0) : ${NR};
  float t[${t} * ${m} * ${W}];
  float r[${m} * ${m} * ${NR} + ${W}];
  for (${idx} c = GRP1 * part; c < end; ++c) {
    NO_UNROLL for (int l = 0; l < ${NR}; l += ${W}) {
      GLOBAL const float* from = M + ((${idx})GRP0 * padded + c) * ${points} * ${NR} + l;
      NO_UNROLL for (int j = 0; j < ${t}; ++j, from += ${NR}) {
        float* at = t + j * ${W};
${columns}      }
      NO_UNROLL for (int i = 0; i < ${m}; ++i) {
        const float* at = t + i * ${t} * ${W};
        float* to = r + i * ${m} * ${NR} + l * ${m};
${rows}      }
    }
    ${idx} tx = q0 % TW, ty = q0 / TW % TH, image = q0 / TW / TH;
    for (int lane = 0; lane < count;) {
      const int run = TW - tx < count - lane ? (int)(TW - tx) : count - lane;
      const int width = run * ${m} < OW - tx * ${m} ? run * ${m} : (int)(OW - tx * ${m});
      NO_UNROLL for (int i = 0; i < ${m} && ty * ${m} + i < OH; ++i) {
        const ${idx} base = ((image * O + c) * OH + ty * ${m} + i) * OW + tx * ${m};
        NO_UNROLL for (int x = 0; x < width; x += ${W}) {
          const bool partial = x + ${W} > width;
          const ${idx} o = base + x;
          int at[${W}];
          if (partial) NO_UNROLL for (int l = 0; l < ${W}; ++l) at[l] = x + l < width ? l : -1;
          V v = ${load_result};
          ${body}          if (partial) {
            float rest[${W}];
            ${store_rest};
            NO_UNROLL for (int l = 0; l < ${W} && x + l < width; ++l) Y[o + l] = rest[l];
          } else {
            ${store}
          }
        }
      }
      lane += run;
      tx = 0;
      if (++ty == TH) { ty = 0; ++image; }
    }
  }
}
)";

void pack_filters(const Winograd& t, const Config& config, float* to) {
  const int64_t mr = config.mr, padded = round_up(t.o, mr);
  const int edge = config.edge + 2;
  double g[6][3];
  for (int i = 0; i < edge; ++i) std::copy_n(transforms(config.edge).filter[size_t(i)].begin(), 3, g[i]);
  std::fill_n(to, config.points() * padded * t.c, 0.0f);
  for (int64_t o0 = 0; o0 < t.o; o0 += mr)
    for (int64_t c = 0; c < t.c; ++c)
      for (int64_t o = o0; o < std::min(o0 + mr, t.o); ++o) {
        const float* f = t.filters + (o * t.c + c) * 9;
        double half[6][3];
        for (int i = 0; i < edge; ++i)
          for (int j = 0; j < 3; ++j)
            half[i][j] = g[i][0] * double(f[j]) + g[i][1] * double(f[3 + j]) + g[i][2] * double(f[6 + j]);
        float* at = to + (o0 / mr * t.c + c) * mr + o - o0;
        for (int i = 0; i < edge; ++i)
          for (int j = 0; j < edge; ++j, at += padded * t.c)
            *at = float(half[i][0] * g[j][0] + half[i][1] * g[j][1] + half[i][2] * g[j][2]);
      }
}

// A vector of every `edge`th element, from `offset` on, of the vectors name0, name1, ….
std::string split_text(const std::string& name, int edge, int offset, int w) {
  const char* digits = "0123456789abcdef";
  std::string s;
  for (int v = 0; v < edge; ++v) {
    s += (v ? ", " : "(V)(") + name + std::to_string(v) + ".s";
    for (int l = offset; l < w; l += edge) s += digits[l];
  }
  return s + ")";
}

// Statements that store the vectors y0, y1, … element by element in turn.
std::string join_text(int edge, int w) {
  std::string s;
  auto pairs = [&](const std::string& a, const std::string& b, const std::string& low, const std::string& high) {
    s += "V " + low + ", " + high + "; " + low + ".even = " + a + ".lo; " + low + ".odd = " + b + ".lo; " + high +
         ".even = " + a + ".hi; " + high + ".odd = " + b + ".hi;\n";
  };
  std::vector<std::string> out{"o0", "o1"};
  if (edge == 2) {
    pairs("y0", "y1", "o0", "o1");
  } else {
    pairs("y0", "y2", "a0", "a1");
    pairs("y1", "y3", "b0", "b1");
    pairs("a0", "b0", "o0", "o1");
    pairs("a1", "b1", "o2", "o3");
    out = {"o0", "o1", "o2", "o3"};
  }
  for (size_t k = 0; k < out.size(); ++k) s += vector_store(w, out[k], "to + " + std::to_string(int(k) * w)) + ";\n";
  return s;
}

Words words_of(const Config& config, const Bind& b) {
  const int w = b.traits.vector(), t = config.edge + 2, m = config.edge, nr = config.nv * w;
  Words words{{"idx", b.idx()}, {"V", vector_type(w)}};
  for (auto [name, value] : {std::pair("W", w),
                             {"NR", nr},
                             {"MR", config.mr},
                             {"S", nr + w},
                             {"t", t},
                             {"m", m},
                             {"points", config.points()}})
    words[name] = std::to_string(value);
  return words;
}

Launch picture_launch(const Config& config, const Bind& b) {
  const int w = b.traits.vector(), t = config.edge + 2, m = config.edge, nr = config.nv * w;
  const auto& rows = transforms(m).picture;
  Words words = words_of(config, b);
  std::string split, columns, across;
  auto name = [](const char* base, int i) { return base + std::to_string(i); };
  for (int part = 0; part * m < t; ++part)  // elements m · part … of each tile
    for (int v = 0; v < m; ++v)
      split +=
          "V " + name(part ? "h" : "g", v) + " = " + vector_load(w, "p + " + std::to_string(part * m + v * w)) + ";\n";
  for (int j = 0; j < t; ++j)
    split +=
        vector_store(w, split_text(j < m ? "g" : "h", m, j % m, w), "to + " + std::to_string(j * (nr + w))) + ";\n";
  for (int k = 0; k < t; ++k) {
    columns += "V d" + std::to_string(k) + " = " + vector_load(w, "at + " + std::to_string(k * t * (nr + w))) + ";\n";
    across += "V d" + std::to_string(k) + " = " + vector_load(w, "at + " + std::to_string(k * (nr + w))) + ";\n";
  }
  for (int k = 0; k < t; ++k) {
    const std::string sum = sum_text(rows[size_t(k)], [&](int i) { return name("d", i); });
    columns += vector_store(w, sum, "at + " + std::to_string(k * t * (nr + w))) + ";\n";
    across += vector_store(
                  w, sum,
                  "u + (" + std::string(b.idx()) + ")" + std::to_string(k) + " * panels * C * " + std::to_string(nr)) +
              ";\n";
  }
  words["split"] = split;
  words["columns"] = columns;
  words["rows"] = across;
  return launch("winograd_picture", kPicture, words);
}

Launch products_launch(const Config& config, const Bind& b) {
  const Tile tile{config.mr, config.nv, b.traits.vector()};
  Words words = words_of(config, b);
  words["declare"] = tile.declare();
  words["multiply"] = tile.multiply([](int i) { return "f[" + std::to_string(i) + "]"; },
                                    [&](int j) { return vector_load(tile.w, "u + " + std::to_string(j * tile.w)); });
  words["store"] = tile.store("y", config.points() * tile.columns());
  return launch("winograd_products", kProducts, words);
}

Launch result_launch(const Config& config, const Epilogue* epilogue, const Bind& b) {
  const int w = b.traits.vector(), t = config.edge + 2, m = config.edge, nr = config.nv * w;
  const auto& rows = transforms(m).result;
  Words words = words_of(config, b);
  std::string columns, across;
  for (int k = 0; k < t; ++k) {
    columns += "V s" + std::to_string(k) + " = " + vector_load(w, "from + " + std::to_string(k * t * nr)) + ";\n";
    across += "V s" + std::to_string(k) + " = " + vector_load(w, "at + " + std::to_string(k * w)) + ";\n";
  }
  for (int k = 0; k < m; ++k) {
    const std::string sum = sum_text(rows[size_t(k)], [](int i) { return "s" + std::to_string(i); });
    columns += vector_store(w, sum, "at + " + std::to_string(k * t * w)) + ";\n";
    across += "V y" + std::to_string(k) + " = " + sum + ";\n";
  }
  words["columns"] = columns;
  words["rows"] = across + join_text(m, w);
  EpilogueText tail = epilogue_text(epilogue, w, false, "partial");
  words["functions"] = tail.functions;
  words["parameters"] = tail.parameters;
  words["body"] = tail.body;
  words["load_result"] =
      vector_load(w, "r + i * " + std::to_string(m * nr) + " + lane * " + std::to_string(m) + " + x");
  words["store"] = vector_store(w, tail.result, "Y + o") + ";";
  words["store_rest"] = vector_store(w, tail.result, "rest");
  return launch("winograd_result", kResult, words);
}

}  // namespace

int winograd_edge(const Winograd& t, const Traits& traits) {
  return config_of(t, 4, traits).second <= config_of(t, 2, traits).second ? 4 : 2;
}

std::string winograd_note(int edge) { return edge == 4 ? "winograd 4x4" : "winograd 2x2"; }

std::string winograd_key(const Winograd& t, int edge, const Traits& traits) {
  return t.key + " " + winograd_note(edge) + " " + std::to_string(config_of(t, edge, traits).first.mr);
}

Result<Bound> bind_winograd(const Winograd& task, const Bind& b, int edge) {
  const Traits& t = b.traits;
  const Config config = config_of(task, edge, t).first;
  const int64_t nr = config.nv * t.vector(), points = config.points(), padded = round_up(task.o, config.mr),
                th = divide_up(task.oh, edge), tw = divide_up(task.ow, edge), tiles = task.n * th * tw,
                panels = divide_up(tiles, nr);
  Bound bound;
  bound.flops = 2.0 * double(task.n * task.o) * double(task.oh * task.ow) * double(task.c * 9);
  bound.note = winograd_note(edge);
  MemoryRef filters = AI_VMM_TAKE(b.pack(winograd_key(task, edge, t), points * padded * task.c * 4,
                                         [&](void* to) { pack_filters(task, config, static_cast<float*>(to)); }));

  const Planes planes{task.n * task.c, task.h,   task.w,    th * edge + 2,
                      tw * edge + 2,   task.top, task.left, edge * (t.vector() + 1)};
  bound.launches.push_back(planes_launch(planes, {{"idx", b.idx()}, {"sh", "1"}, {"sw", "1"}}, b));
  // Columns and sums of so many panels at a time.
  constexpr int64_t kBytes = int64_t(16) << 20;
  const int64_t panel_bytes = points * (task.c + padded) * nr * 4,
                pass = std::clamp<int64_t>(kBytes / panel_bytes, 1, panels), plane = planes.ph * planes.pw,
                columns_at = round_up(planes.floats() * 4, t.alignment),
                sums_at = columns_at + round_up(points * pass * task.c * nr * 4, t.alignment);
  bound.scratch = sums_at + round_up(points * pass * padded * nr * 4, t.alignment);
  // Parts of an axis, in units, that keep every core busy where there are so many items of others.
  auto part = [&](int64_t length, int64_t unit, int64_t others) {
    const int64_t units = divide_up(length, unit);
    return divide_up(units, std::clamp<int64_t>(divide_up(t.units * 8, others), 1, units)) * unit;
  };
  for (int64_t first = 0; first < panels; first += pass) {
    const int64_t count = std::min(pass, panels - first);
    const int64_t channels = part(task.c, 1, count), outputs = part(padded, config.mr, count * points),
                  results = part(task.o, 1, count);
    Launch picture = picture_launch(config, b), products = products_launch(config, b),
           result = result_launch(config, task.epilogue, b);
    picture.scratch(0).scratch(columns_at);
    for (int64_t v : {task.c, plane, planes.pw, th, tw, tiles, first, count, channels}) picture.scalar(b.index(v));
    picture.items({count, divide_up(task.c, channels)});
    products.packed(filters).scratch(columns_at).scratch(sums_at);
    for (int64_t v : {task.c, padded, count, outputs}) products.scalar(b.index(v));
    products.items({count, divide_up(padded, outputs), points});
    result.scratch(sums_at).out(0);
    for (int64_t v : {task.o, padded, task.oh, task.ow, th, tw, tiles, first, results}) result.scalar(b.index(v));
    add_epilogue(result, task.epilogue);
    result.items({count, divide_up(task.o, results)});
    for (Launch* l : {&picture, &products, &result}) bound.launches.push_back(std::move(*l));
  }
  return bound;
}

}  // namespace ai_vmm::gpu
