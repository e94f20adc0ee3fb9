// Matrix products: MatMul and Gemm, in batches, with an epilogue.
//
// On devices with wide registers the columns' operand lies in panels of as many columns as a tile has, packed once
// where it is constant, otherwise by a kernel before; a work item computes tiles of one panel. On others groups of work
// items share blocks of both operands in group memory.
#include <algorithm>

#include "gpu/ops/library.hpp"
#include "gpu/ops/matrix_unit.hpp"
#include "gpu/ops/ops.hpp"
#include "gpu/ops/product.hpp"
#include "gpu/ops/tile.hpp"

namespace ai_vmm::gpu {

namespace {

struct Config {
  int mr, nv;
  bool pack_rows;
};

// Offsets of the operands of batch `z`, from batch sizes and strides in arguments.
struct BatchText {
  std::string parameters, code;
};
BatchText batch_text(const std::string& idx, size_t rank) {
  BatchText t;
  t.code = "  " + idx + " q = z;\n";
  for (size_t d = rank; d-- > 0;) {
    std::string n = std::to_string(d);
    if (d) t.parameters += ", " + idx + " d" + n;
    t.parameters += ", " + idx + " za" + n + ", " + idx + " zb" + n;
    t.code += "  { " + idx + " t = " + (d ? "q % d" + n + "; q /= d" + n : "q") + "; A += t * za" + n +
              "; B += t * zb" + n + "; }\n";
  }
  return t;
}
void add_batch(const Bind& b, Launch& l, const Walk& w, bool packed_b, int64_t panel_stride) {
  for (size_t d = w.dims.size(); d-- > 0;) {
    if (d) l.scalar(b.index(w.dims[d]));
    l.scalar(b.index(w.strides[0][d])).scalar(b.index(packed_b ? w.strides[1][d] * panel_stride : w.strides[1][d]));
  }
}

constexpr const char* kWide = R"(${functions}
KERNEL __attribute__((reqd_work_group_size(1, 1, 1))) void ${kernel}(GLOBAL const float* RESTRICT A,
    GLOBAL const float* RESTRICT B, GLOBAL float* RESTRICT C, ${idx} M, ${idx} N, ${idx} K, ${idx} am, ${idx} ak,
    ${idx} rows, ${idx} panel, ${idx} step${batch_parameters}${parameters}) {
  typedef ${V} V;
  const ${idx} z = GRP2, n0 = GRP0 * ${NR};
${batch}  B += (${idx})GRP0 * panel;
  C += z * M * N;
  const ${idx} last = (GRP1 + 1) * rows < M ? (GRP1 + 1) * rows : M;
  for (${idx} m0 = GRP1 * rows; m0 < last; m0 += ${MR}) {
    GLOBAL const float* p = B;
${rows_begin}    ${declare}    for (${idx} k = 0; k < K; ++k) {
      ${multiply}      p += step;
${rows_step}    }
    float t[${MR} * ${NR}];
    ${spill}    NO_UNROLL for (int i = 0; i < ${MR} && m0 + i < M; ++i)
      NO_UNROLL for (int j = 0; j < ${NR}; j += ${W}) {
        const ${idx} c = n0 + j, o = ${o} (m0 + i) * N + c;
        const bool partial = c + ${W} > N;
        int at[${W}];
        if (partial) NO_UNROLL for (int l = 0; l < ${W}; ++l) at[l] = c + l < N ? l : -1;
        V v = ${load_t};
        ${alpha}
        ${body}        if (partial) {
          float part[${W}];
          ${store_part};
          NO_UNROLL for (int l = 0; l < ${W} && c + l < N; ++l) C[(m0 + i) * N + c + l] = part[l];
        } else {
          ${store}
        }
      }
  }
}
)";

// The same for whole numbers: exact sums as ints.
constexpr const char* kWideInteger = R"(
KERNEL __attribute__((reqd_work_group_size(1, 1, 1))) void ${kernel}(GLOBAL const float* RESTRICT A,
    GLOBAL const float* RESTRICT B, GLOBAL int* RESTRICT C, ${idx} M, ${idx} N, ${idx} K, ${idx} am, ${idx} ak,
    ${idx} rows, ${idx} panel, ${idx} step${batch_parameters}) {
  typedef ${V} V;
  const ${idx} z = GRP2, n0 = GRP0 * ${NR};
${batch}  B += (${idx})GRP0 * panel;
  C += z * M * N;
  const ${idx} last = (GRP1 + 1) * rows < M ? (GRP1 + 1) * rows : M;
  for (${idx} m0 = GRP1 * rows; m0 < last; m0 += ${MR}) {
    GLOBAL const float* p = B;
    int sum[${MR} * ${NR}];
    for (int l = 0; l < ${MR} * ${NR}; ++l) sum[l] = 0;
${rows_begin}    ${declare}    for (${idx} k0 = 0; k0 < K; k0 += ${terms}) {
      const ${idx} end = k0 + ${terms} < K ? k0 + ${terms} : K;
      for (${idx} k = k0; k < end; ++k) {
        ${multiply}        p += step;
${rows_step}      }
      ${flush}    }
    for (int i = 0; i < ${MR} && m0 + i < M; ++i)
      for (int j = 0; j < ${NR} && n0 + j < N; ++j) C[(m0 + i) * N + n0 + j] = sum[i * ${NR} + j];
  }
}
)";

// Panels of B: [batch][ceil(N / NR)][K][NR], zero past N.
constexpr const char* kPackColumns = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT B, GLOBAL float* RESTRICT P, ${idx} N, ${idx} K, ${idx} bk,
                      ${idx} bn, ${idx} zb, ${idx} panels) {
  const ${idx} panel = (${idx})GID0, k0 = (${idx})GID1 * ${KB}, z = (${idx})GID2, n0 = panel * ${NR};
  if (panel >= panels) return;
  GLOBAL float* to = P + ((z * panels + panel) * K + k0) * ${NR};
  B += z * zb + n0 * bn;
  const ${idx} end = k0 + ${KB} < K ? k0 + ${KB} : K;
  if (n0 + ${NR} <= N) {
    for (${idx} k = k0; k < end; ++k, to += ${NR})
      for (int j = 0; j < ${NR}; ++j) to[j] = B[k * bk + j${bn}];
  } else {
    for (${idx} k = k0; k < end; ++k, to += ${NR})
      for (int j = 0; j < ${NR}; ++j) to[j] = n0 + j < N ? B[k * bk + j${bn}] : 0.0f;
  }
}
)";

// Tiles of A: [batch][ceil(M / MR)][K][MR], zero past M.
constexpr const char* kPackRows = R"(
KERNEL void ${kernel}(GLOBAL const float* RESTRICT A, GLOBAL float* RESTRICT P, ${idx} M, ${idx} K, ${idx} am,
                      ${idx} ak, ${idx} za, ${idx} tiles) {
  const ${idx} tile = (${idx})GID0, z = (${idx})GID1, m0 = tile * ${MR};
  if (tile >= tiles) return;
  GLOBAL float* to = P + (z * tiles + tile) * K * ${MR};
  A += z * za + m0 * am;
  for (${idx} k = 0; k < K; ++k, to += ${MR})
    for (int i = 0; i < ${MR}; ++i) to[i] = m0 + i < M ? A[i * am + k * ak] : 0.0f;
}
)";

// Blocks of 64×64 by 16 in group memory; each of 256 work items computes 4×4.
constexpr const char* kBlocks = R"(${functions}
KERNEL void ${kernel}(GLOBAL const float* RESTRICT A, GLOBAL const float* RESTRICT B, GLOBAL ${R}* RESTRICT C,
    ${idx} M, ${idx} N, ${idx} K, ${idx} am, ${idx} ak, ${idx} bk, ${idx} bn${batch_parameters}${parameters}) {
  SHARED float a[16][65];
  SHARED float b[16][65];
  const int id = LID0, x = id % 16, y = id / 16;
  const ${idx} z = GRP2, n0 = GRP0 * 64, m0 = GRP1 * 64;
${batch}  C += z * M * N;
  float r[4][4];
  ${R} sum[4][4];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) r[i][j] = 0.0f, sum[i][j] = 0;
  for (${idx} k0 = 0; k0 < K; k0 += 16) {
    for (int s = id; s < 1024; s += 256) {
      const ${idx} m = m0 + (${a_fast} ? s / 16 : s % 64), ka = k0 + (${a_fast} ? s % 16 : s / 64);
      a[${a_fast} ? s % 16 : s / 64][${a_fast} ? s / 16 : s % 64] = m < M && ka < K ? A[m * am + ka * ak] : 0.0f;
      const ${idx} n = n0 + (${b_fast} ? s / 16 : s % 64), kb = k0 + (${b_fast} ? s % 16 : s / 64);
      b[${b_fast} ? s % 16 : s / 64][${b_fast} ? s / 16 : s % 64] = n < N && kb < K ? B[kb * bk + n * bn] : 0.0f;
    }
    BARRIER;
    for (int k = 0; k < 16; ++k)
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) r[i][j] = fma(a[k][y + 16 * i], b[k][x + 16 * j], r[i][j]);
    ${flush}BARRIER;
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const ${idx} m = m0 + y + 16 * i, c = n0 + x + 16 * j;
      if (m >= M || c >= N) continue;
      const ${idx} o = ${o} m * N + c;
      ${R} v = ${result};
      ${alpha}
      ${tail_body}      C[m * N + c] = ${tail_result};
    }
}
)";

// Of whole numbers: what a block adds is exact.
constexpr const char* kFlushBlock = R"(for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) sum[i][j] += (int)r[i][j], r[i][j] = 0.0f;
    )";

// Any operands on matrix units: blocks of 128 by 128. ${result} is the sum, or the exact sum of whole numbers.
constexpr const char* kMatrixUnit = R"(${unit}${functions}
KERNEL __launch_bounds__(${LANES}) void ${kernel}(GLOBAL const ${T}* RESTRICT A, GLOBAL const ${T}* RESTRICT B,
    GLOBAL ${R}* RESTRICT C, ${idx} M, ${idx} N, ${idx} K, ${idx} am, ${idx} ak, ${idx} bk,
    ${idx} bn${batch_parameters}${parameters}) {
${declare}  const ${idx} z = GRP2, n0 = GRP0 * 128, m0 = GRP1 * 128;
${exact_declare}${batch}  C += z * M * N;
  for (${idx} k0 = 0; k0 < K; k0 += ${KB}) {
    for (int s = id; s < 2048; s += ${LANES}) {
      const int w = ${a_fast} ? s % 16 : s / 128, row = ${a_fast} ? s / 16 : s % 128;
      const ${idx} m = m0 + row, ka = k0 + w * ${PER};
      uint word = 0;
      for (int q = 0; q < ${PER}; ++q)
        if (m < M && ka + q < K)
          word |= word_of_${arithmetic}(LD_${type}(A, m * am + (ka + q) * ak)) << (32 / ${PER} * q % 32);
      a[row][w] = word;
      const int v = ${b_fast} ? s % 16 : s / 128, column = ${b_fast} ? s / 16 : s % 128;
      const ${idx} n = n0 + column, kb = k0 + v * ${PER};
      word = 0;
      for (int q = 0; q < ${PER}; ++q)
        if (n < N && kb + q < K)
          word |= word_of_${arithmetic}(LD_${type}(B, (kb + q) * bk + n * bn)) << (32 / ${PER} * q % 32);
      b[column][v] = word;
    }
${multiply}${exact_flush}  }
${each}        const ${idx} m = m0 + row, c = n0 + column;
        if (m >= M || c >= N) continue;
        const ${idx} o = ${o} m * N + c;
        ${R_compute} v = ${result};
        ${alpha}
        ${tail_body}        ST_${result_type}(C, m * N + c, ${tail_result});
      }
}
)";
void pack_columns(const float* from, float* to, int64_t n, int64_t k, int64_t bk, int64_t bn, int64_t nr) {
  for (int64_t panel = 0; panel < divide_up(n, nr); ++panel)
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < nr; ++j, ++to) {
        int64_t column = panel * nr + j;
        *to = column < n ? from[i * bk + column * bn] : 0.0f;
      }
}

struct Node2 {  // what a Maker learns
  std::shared_ptr<const Epilogue> epilogue;
  float alpha;
  std::optional<Tensor> b_constant;  // of input 1
  std::string key;
  DType type = DType::f32;  // of the operands; of the result, unless `integer`
  bool integer = false;     // operands are whole numbers below 256, the result is exact and of ints
};

Words common_words(const Node2& node, const Bind& b, bool batched) {
  Words w;
  w["idx"] = b.idx();
  w["alpha"] = node.alpha != 1 ? "v = v * " + literal(node.alpha, "float") + ";" : "";
  w["o"] = batched ? "z * M * N +" : "";
  EpilogueText tail = epilogue_text(node.epilogue.get(), 1, true);
  w["tail_body"] = tail.body;
  w["tail_result"] = tail.result;
  w["parameters"] = tail.parameters;
  w["functions"] = tail.functions;
  return w;
}

// Where the product goes: output 0, or scratch memory after what is there already.
void add_result(Launch& l, const Product& p, Bound& bound, int64_t batches, int64_t& scratch, int64_t alignment) {
  if (!p.to_scratch) {
    l.out(0);
    return;
  }
  bound.result = scratch;
  l.scratch(scratch);
  scratch += round_up(batches * p.m * p.n * 4, alignment);
}

Result<Bound> bind_wide(const Node2& node, const Product& p, const Bind& b, Config c) {
  const Traits& t = b.traits;
  const Walk walk = collapse(p.batch, {p.a_batch, p.b_batch});
  const int64_t batches = product(walk.dims), nr = c.nv * t.vector(), panels = divide_up(p.n, nr),
                tiles = divide_up(p.m, c.mr);
  const Tile tile{c.mr, c.nv, t.vector()};
  Bound bound;
  bound.flops = 2.0 * double(batches * p.m) * double(p.n * p.k);
  bound.note = std::to_string(c.mr) + "x" + std::to_string(nr) + (c.pack_rows ? " rows packed" : "");

  // The columns' operand.
  const int64_t b_batches = [&] {
    int64_t n = 1;
    for (size_t d = 0; d < walk.dims.size(); ++d)
      if (walk.strides[1][d]) n *= walk.dims[d];
    return n;
  }();
  const int64_t panel_floats = panels * p.k * nr;
  // Batches of B lie one after the other, so that a stride in batches stands for one in elements.
  Walk strides = walk;
  int64_t step = 1;
  for (size_t d = walk.dims.size(); d-- > 0;)
    if (walk.strides[1][d]) {
      strides.strides[1][d] = step;
      step *= walk.dims[d];
    }
  MemoryRef constant;
  // Small columns' operands are read where they are: packing them takes longer than it saves.
  constexpr int64_t kSmall = 128;
  const bool read_in_place = !(node.b_constant && p.b_input == 1) && p.bn == 1 && p.n % nr == 0 && p.m <= kSmall &&
                             p.n <= kSmall && p.k <= 4 * kSmall;
  int64_t scratch = 0;
  const bool dense = [&] {  // B's own batches in the order of the packed ones
    int64_t want = p.k * p.n;
    for (size_t d = walk.dims.size(); d-- > 0;)
      if (walk.strides[1][d]) {
        if (walk.strides[1][d] != want) return false;
        want *= walk.dims[d];
      }
    return true;
  }();
  if (!dense && b_batches > 1) return invalid("The batches of a product are laid out in no order that kernels know.");
  if (node.b_constant && p.b_input == 1) {
    const float* from = node.b_constant->as<float>().data();
    constant =
        AI_VMM_TAKE(b.pack(node.key + " columns " + std::to_string(nr), b_batches * panel_floats * 4, [&](void* to) {
          for (int64_t z = 0; z < b_batches; ++z)
            pack_columns(from + z * p.k * p.n, static_cast<float*>(to) + z * panel_floats, p.n, p.k, p.bk, p.bn, nr);
        }));
  } else if (!read_in_place) {
    Words w;
    w["idx"] = b.idx();
    w["NR"] = std::to_string(nr);
    w["KB"] = "64";
    w["bn"] = p.bn == 1 ? "" : " * bn";
    Launch l = launch("columns", kPackColumns, w);
    l.in(p.b_input).scratch(0);
    for (int64_t v : {p.n, p.k, p.bk, p.bn, p.k * p.n, panels}) l.scalar(b.index(v));
    l.items({panels, divide_up(p.k, 64), b_batches});
    bound.launches.push_back(std::move(l));
    scratch = round_up(b_batches * panel_floats * 4, t.alignment);
  }
  // The rows' operand.
  int64_t rows_at = scratch;
  if (c.pack_rows) {
    Words w;
    w["idx"] = b.idx();
    w["MR"] = std::to_string(c.mr);
    Launch l = launch("rows", kPackRows, w);
    l.in(p.a_input).scratch(rows_at);
    for (int64_t v : {p.m, p.k, p.am, p.ak, int64_t(0), tiles}) l.scalar(b.index(v));
    l.items({tiles, 1});
    bound.launches.push_back(std::move(l));
    scratch += round_up(tiles * c.mr * p.k * 4, t.alignment);
  }

  Words w = common_words(node, b, batches > 1);
  EpilogueText wide = epilogue_text(node.epilogue.get(), t.vector(), true, "partial");
  w["functions"] = wide.functions;
  w["V"] = vector_type(t.vector());
  w["W"] = std::to_string(t.vector());
  w["NR"] = std::to_string(nr);
  w["MR"] = std::to_string(c.mr);
  BatchText batch = batch_text(b.idx(), walk.dims.size());
  w["batch"] = batch.code;
  w["batch_parameters"] = batch.parameters;
  w["declare"] = tile.declare();
  w["spill"] = tile.spill("t");
  std::string begin, advance;
  if (c.pack_rows) {
    begin = "    GLOBAL const float* a = A + m0 * K;\n";
    advance = "      a += " + std::to_string(c.mr) + ";\n";
  } else {
    for (int i = 0; i < c.mr; ++i) {
      std::string n = std::to_string(i);
      begin += "    GLOBAL const float* a" + n + " = A + (m0 + " + n + " < M ? m0 + " + n + " : M - 1) * am;\n";
    }
    begin += std::string("    ") + b.idx() + " ka = 0;\n";
    advance = p.ak == 1 ? "      ++ka;\n" : "      ka += ak;\n";
  }
  w["rows_begin"] = begin;
  w["rows_step"] = advance;
  w["multiply"] = tile.multiply(
      [&](int i) { return c.pack_rows ? "a[" + std::to_string(i) + "]" : "a" + std::to_string(i) + "[ka]"; },
      [&](int j) { return vector_load(tile.w, "p + " + std::to_string(j * tile.w)); });
  w["load_t"] = vector_load(tile.w, "t + i * " + std::to_string(nr) + " + j");
  w["body"] = wide.body;
  w["store"] = vector_store(tile.w, wide.result, "C + (m0 + i) * N + c") + ";";
  w["store_part"] = vector_store(tile.w, wide.result, "part");
  w["terms"] = std::to_string(kExactTerms);
  w["flush"] = tile.flush("sum");
  Launch l = launch("product", node.integer ? kWideInteger : kWide, w);
  if (c.pack_rows)
    l.scratch(rows_at);
  else
    l.in(p.a_input);
  if (constant)
    l.packed(constant);
  else if (read_in_place)
    l.in(p.b_input);
  else
    l.scratch(0);
  // Enough work items for every core, as few passes over a panel as that allows.
  int64_t chunks = std::clamp<int64_t>(divide_up(t.units * 4, panels * batches), 1, tiles);
  int64_t rows = divide_up(tiles, chunks) * c.mr;
  add_result(l, p, bound, batches, scratch, t.alignment);
  for (int64_t v : {p.m, p.n, p.k, p.am, p.ak, rows, read_in_place ? nr : p.k * nr, read_in_place ? p.bk : nr})
    l.scalar(b.index(v));
  if (read_in_place)
    add_batch(b, l, walk, false, 1);
  else
    add_batch(b, l, strides, true, panel_floats);
  add_epilogue(l, node.epilogue.get());
  l.items({panels, divide_up(p.m, rows), batches});
  bound.launches.push_back(std::move(l));
  bound.scratch = scratch;
  return bound;
}

Bound bind_blocks(const Node2& node, const Product& p, const Bind& b) {
  const Walk walk = collapse(p.batch, {p.a_batch, p.b_batch});
  const int64_t batches = product(walk.dims);
  Words w = common_words(node, b, batches > 1);
  BatchText batch = batch_text(b.idx(), walk.dims.size());
  w["batch"] = batch.code;
  w["batch_parameters"] = batch.parameters;
  w["a_fast"] = p.ak == 1 ? "1" : "0";
  w["b_fast"] = p.bk == 1 && p.bn != 1 ? "1" : "0";
  w["R"] = node.integer ? "int" : "float";
  w["result"] = node.integer ? "sum[i][j]" : "r[i][j]";
  w["flush"] = node.integer ? kFlushBlock : "";
  Launch l = launch("blocks", kBlocks, w);
  Bound bound;
  int64_t scratch = 0;
  l.in(p.a_input).in(p.b_input);
  add_result(l, p, bound, batches, scratch, b.traits.alignment);
  bound.scratch = scratch;
  for (int64_t v : {p.m, p.n, p.k, p.am, p.ak, p.bk, p.bn}) l.scalar(b.index(v));
  add_batch(b, l, walk, false, 1);
  add_epilogue(l, node.epilogue.get());
  l.items({divide_up(p.n, 64) * 256, divide_up(p.m, 64), batches}, {256, 1, 1});
  bound.flops = 2.0 * double(batches * p.m) * double(p.n * p.k);
  bound.note = "blocks";
  bound.launches.push_back(std::move(l));
  return bound;
}

Bound bind_matrix_unit(const Node2& node, const Product& p, const Bind& b, Arithmetic arithmetic) {
  const Walk walk = collapse(p.batch, {p.a_batch, p.b_batch});
  const int64_t batches = product(walk.dims);
  Words w = common_words(node, b, batches > 1);
  w.merge(matrix_words(b.traits.matrix, arithmetic));
  BatchText batch = batch_text(b.idx(), walk.dims.size());
  w["batch"] = batch.code;
  w["batch_parameters"] = batch.parameters;
  w["a_fast"] = p.ak == 1 ? "1" : "0";
  w["b_fast"] = p.bk == 1 && p.bn != 1 ? "1" : "0";
  w["T"] = element(node.type).storage;
  w["type"] = element(node.type).name;
  const DType result = node.integer ? DType::i32 : p.to_scratch ? DType::f32 : node.type;
  w["R"] = element(result).storage;
  w["R_compute"] = node.integer ? "int" : "float";
  w["result_type"] = element(result).name;
  w["result"] = node.integer ? "exact[i][j][e]" : "sum";
  if (!node.integer) w["exact_declare"] = w["exact_flush"] = "";
  Launch l = launch("matrix_unit", kMatrixUnit, w);
  Bound bound;
  int64_t scratch = 0;
  l.in(p.a_input).in(p.b_input);
  add_result(l, p, bound, batches, scratch, b.traits.alignment);
  bound.scratch = scratch;
  for (int64_t v : {p.m, p.n, p.k, p.am, p.ak, p.bk, p.bn}) l.scalar(b.index(v));
  add_batch(b, l, walk, false, 1);
  add_epilogue(l, node.epilogue.get());
  l.items({divide_up(p.n, 128) * 256, divide_up(p.m, 128), batches}, {256, 1, 1});
  bound.flops = 2.0 * double(batches * p.m) * double(p.n * p.k);
  bound.note = std::string("matrix unit ") + name(arithmetic);
  bound.launches.push_back(std::move(l));
  return bound;
}

// By a library, which knows batches at one distance.
std::optional<Bound> bind_library(const Node2& node, const Product& p, const Bind& b, Arithmetic arithmetic) {
  const Walk walk = collapse(p.batch, {p.a_batch, p.b_batch});
  if (walk.dims.size() != 1 || node.integer) return std::nullopt;
  const int64_t batches = walk.dims[0];
  LibraryProduct task{node.type, arithmetic,         node.alpha,        p.m, p.n, p.k, p.am, p.ak, p.bk, p.bn,
                      batches,   walk.strides[0][0], walk.strides[1][0]};
  auto bound =
      library_bound(b, task, p.a_input, p.b_input, node.epilogue.get(), batches * p.m * p.n, 1, p.n, p.to_scratch);
  if (bound) bound->flops = 2.0 * double(batches * p.m) * double(p.n * p.k);
  return bound;
}

// On GPUs: the first way is the one without measurement.
Result<Bound> bind_lanes(const Node2& node, const Product& p, const Bind& b) {
  auto arithmetic = node.integer && b.traits.matrix != MatrixUnit::none ? std::optional(Arithmetic::bf16)
                                                                        : matrix_arithmetic(b.traits, node.type);
  std::vector<Bound> ways;
  if (arithmetic) ways.push_back(bind_matrix_unit(node, p, b, *arithmetic));
  if (node.type == DType::f32) ways.push_back(bind_blocks(node, p, b));
  if (auto library = bind_library(node, p, b, arithmetic.value_or(Arithmetic::f32)))
    ways.push_back(std::move(*library));
  if (ways.size() == 1) return std::move(ways[0]);
  std::string key = "lanes product " + std::string(name(arithmetic.value_or(Arithmetic::f32))) + " " +
                    element(node.type).name + (node.integer ? " int" : "") + (p.ak == 1 ? " n" : " t") +
                    (p.bn == 1 ? "n" : "t") + (b.traits.libraries ? " library" : "");
  for (int64_t v : {product(p.batch), p.m, p.n, p.k}) {
    int bits = 0;
    while (v >> bits > 1) ++bits;
    key += " " + std::to_string(bits);
  }
  size_t best = AI_VMM_TAKE(b.fastest(key, ways));
  return std::move(ways[best]);
}

// No products at all: the epilogue of zeros. A kernel of its own would serve nobody else.
constexpr const char* kZero = R"(${functions}
KERNEL void ${kernel}(GLOBAL ${R}* RESTRICT C, ${idx} N, ${idx} count${parameters}) {
  const ${idx} o = (${idx})GID0, c = o % N;
  if (o >= count) return;
  ${R} v = 0;
  ${tail_body}  C[o] = ${tail_result};
}
)";

Result<Bound> bind_product(const Node2& node, Product p, const Bind& b) {
  const int64_t count = p.to_scratch ? product(p.batch) * p.m * p.n : product(b.out(0));
  if (count == 0) return Bound{};
  if (p.k == 0) {
    if (p.to_scratch) return invalid("A product over an axis of no elements.");
    Words w = common_words(node, b, false);
    w["R"] = node.integer ? "int" : element(node.type).storage;  // zero is zero in every type
    Launch l = launch("zero", kZero, w);
    l.out(0).scalar(b.index(p.n)).scalar(b.index(count));
    add_epilogue(l, node.epilogue.get());
    l.items({count}, {group_for(b.traits, count)});
    Bound bound;
    bound.launches.push_back(std::move(l));
    return bound;
  }
  // One set of weights for all batches of dense rows: one long product.
  bool shared = true, dense = true;
  Shape own = strides_of(p.batch);
  for (size_t d = 0; d < p.batch.size(); ++d) {
    shared &= p.batch[d] == 1 || p.b_batch[d] == 0;
    dense &= p.batch[d] == 1 || p.a_batch[d] == own[d] * p.m * p.k;
  }
  if (shared && dense && p.ak == 1 && p.am == p.k) {
    p.m *= product(p.batch);
    p.batch = p.a_batch = p.b_batch = {};
  }
  if (!b.traits.wide) return bind_lanes(node, p, b);
  const int64_t batches = product(p.batch), columns = divide_up(p.n, b.traits.vector());
  if (p.m < 12) {
    int mr = int(p.m), most = mr <= 4 ? 4 : mr <= 6 ? 3 : 2;
    return bind_wide(node, p, b, {mr, int(std::min<int64_t>(columns, most)), false});
  }
  int nv = int(std::min<int64_t>(columns, 2));
  std::vector<Bound> ways;
  ways.push_back(AI_VMM_TAKE(bind_wide(node, p, b, {12, nv, false})));
  double flops = ways[0].flops;
  if (batches == 1 && flops > 1e7) {
    ways.push_back(AI_VMM_TAKE(bind_wide(node, p, b, {12, nv, true})));
    if (columns >= 3) ways.push_back(AI_VMM_TAKE(bind_wide(node, p, b, {8, 3, true})));
    // Sizes of nearly the same magnitude are one question, so that a growing axis does not ask again and again.
    auto magnitude = [](int64_t n) {
      int bits = 0;
      while (n >> bits > 1) ++bits;
      return std::to_string(bits) + (bits && (n >> (bits - 1) & 1) ? "+" : "");
    };
    std::string key = "product " + magnitude(p.m) + " " + std::to_string(p.n) + " " + std::to_string(p.k) +
                      (node.integer ? " int" : "") + (p.ak == 1 ? " n" : " t") + (p.bn == 1 ? "n" : "t") +
                      (node.b_constant ? " constant" : "");
    size_t best = AI_VMM_TAKE(b.fastest(key, ways));
    return std::move(ways[best]);
  }
  return std::move(ways[0]);
}

Node2 learn(const Make& m, float alpha) {
  Node2 n{m.epilogue, alpha, std::nullopt, ""};
  if (const Tensor* c = m.constant(1); c && c->dtype() == DType::f32) {
    n.b_constant = *c;
    n.key = std::to_string(m.node.inputs[1]);
  }
  return n;
}

}  // namespace

Result<Bound> product_to_scratch(const Bind& b, Product p, int64_t* at) {
  p.to_scratch = true;
  Bound bound = AI_VMM_TAKE(bind_product(Node2{nullptr, 1, std::nullopt, ""}, p, b));
  *at = bound.result;
  return bound;
}

namespace {

// Half precision has kernels on matrix units only; elsewhere it is computed in float32 (lower.hpp).
bool has_products(const Make& m) {
  return m.dtype(0) == DType::f32 || (!m.traits.wide && matrix_arithmetic(m.traits, m.dtype(0)));
}

Made make_product(const Make& m, bool integer) {
  if (!has_products(m)) return refuse_type("only float32 has product kernels");
  Node2 node = learn(m, 1);
  node.type = m.dtype(0);
  node.integer = integer;
  return BindFn([node](const Bind& b) -> Result<Bound> {
    Shape x = b.in(0), y = b.in(1);
    Product p{};
    p.a_input = 0;
    p.b_input = 1;
    Node2 n = node;
    if (y.size() == 1) {
      // A vector on the right: it becomes the one row, and the rows of the matrix become columns.
      p.a_input = 1;
      p.b_input = 0;
      n.b_constant.reset();
      p.k = y[0];
      p.m = 1;
      p.n = x.size() > 1 ? x[x.size() - 2] : 1;
      p.am = p.k, p.ak = 1, p.bk = 1, p.bn = p.k;
      if (x.back() != p.k) return invalid("A product of shapes that do not fit.");
      p.batch.assign(x.begin(), x.end() - ptrdiff_t(std::min<size_t>(2, x.size())));
      p.a_batch.assign(p.batch.size(), 0);
      p.b_batch = strides_of(p.batch);
      for (int64_t& s : p.b_batch) s *= p.k * p.n;
      return bind_product(n, p, b);
    }
    if (x.size() == 1) x.insert(x.begin(), 1);
    p.m = x[x.size() - 2];
    p.k = x.back();
    p.n = y.back();
    if (y[y.size() - 2] != p.k)
      return invalid("Matrices of shapes " + ai_vmm::to_string(x) + " and " + ai_vmm::to_string(y) + " do not fit.");
    p.am = p.k, p.ak = 1, p.bk = p.n, p.bn = 1;
    Shape xb(x.begin(), x.end() - 2), yb(y.begin(), y.end() - 2);
    size_t rank = std::max(xb.size(), yb.size());
    p.batch.assign(rank, 1);
    for (size_t d = 0; d < rank; ++d) {
      int64_t u = d + xb.size() >= rank ? xb[d + xb.size() - rank] : 1,
              v = d + yb.size() >= rank ? yb[d + yb.size() - rank] : 1;
      if (u != v && u != 1 && v != 1)
        return invalid("Batches of shapes " + ai_vmm::to_string(x) + " and " + ai_vmm::to_string(y) + " do not fit.");
      p.batch[d] = u == 1 ? v : u;
    }
    p.a_batch = broadcast_strides(xb, p.batch);
    p.b_batch = broadcast_strides(yb, p.batch);
    for (int64_t& s : p.a_batch) s *= p.m * p.k;
    for (int64_t& s : p.b_batch) s *= p.k * p.n;
    return bind_product(n, p, b);
  });
}

}  // namespace

Made make_matmul(const Make& m) { return make_product(m, false); }
Made make_integer_matmul(const Make& m) { return make_product(m, true); }

Made make_gemm(const Make& m) {
  if (!has_products(m)) return refuse_type("only float32 has product kernels");
  Node2 node = learn(m, m.node.f("alpha", 1));
  node.type = m.dtype(0);
  bool ta = m.node.i("transA"), tb = m.node.i("transB");
  return BindFn([node, ta, tb](const Bind& b) -> Result<Bound> {
    const Shape &x = b.in(0), &y = b.in(1);
    Product p{};
    p.a_input = 0;
    p.b_input = 1;
    p.m = ta ? x[1] : x[0];
    p.k = ta ? x[0] : x[1];
    p.n = tb ? y[0] : y[1];
    if ((tb ? y[1] : y[0]) != p.k)
      return invalid("Matrices of shapes " + ai_vmm::to_string(x) + " and " + ai_vmm::to_string(y) + " do not fit.");
    p.am = ta ? 1 : p.k;
    p.ak = ta ? p.m : 1;
    p.bk = tb ? 1 : p.n;
    p.bn = tb ? p.k : 1;
    return bind_product(node, p, b);
  });
}

}  // namespace ai_vmm::gpu
