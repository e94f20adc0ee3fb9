#include "gpu/ops/matrix_unit.hpp"

namespace ai_vmm::gpu {

namespace {

// d += a · b for one tile, by all lanes of a warp: after NVIDIA's PTX manual (mma.m16n8k16, m16n8k8) and AMD's CDNA2
// instruction manual. Whoever compiles kernels for something else defines AI_VMM_MATRIX_UNIT and brings its own.
constexpr const char* kUnits = R"(
#ifndef AI_VMM_MATRIX_UNIT
#define AI_VMM_MATRIX_UNIT
#ifdef __HIP__
typedef float mfma_float4 __attribute__((ext_vector_type(4)));
typedef short mfma_short4 __attribute__((ext_vector_type(4)));
typedef _Float16 mfma_half4 __attribute__((ext_vector_type(4)));
#define MFMA(name, operand, count, instruction)                                     \
  DEVICE void name(float* d, const uint* a, const uint* b) {                        \
    operand x, y;                                                                   \
    mfma_float4 c = {d[0], d[1], d[2], d[3]};                                       \
    __builtin_memcpy(&x, a, 4 * count);                                             \
    __builtin_memcpy(&y, b, 4 * count);                                             \
    c = instruction(x, y, c, 0, 0, 0);                                              \
    for (int e = 0; e < 4; ++e) d[e] = c[e];                                        \
  }
MFMA(mfma_f32, float, 1, __builtin_amdgcn_mfma_f32_16x16x4f32)
MFMA(mfma_f16, mfma_half4, 2, __builtin_amdgcn_mfma_f32_16x16x16f16)
MFMA(mfma_bf16, mfma_short4, 2, __builtin_amdgcn_mfma_f32_16x16x16bf16_1k)
#else
#define MMA(name, instruction)                                                                              \
  DEVICE void name(float* d, const uint* a, const uint* b) {                                                \
    asm volatile(instruction " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                       \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                       \
  }
MMA(mma_tf32, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
MMA(mma_f16, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")
MMA(mma_bf16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
#endif
#endif
#ifndef AI_VMM_WORDS
#define AI_VMM_WORDS
DEVICE uint word_of_f32(float v) { return AS_UINT(v); }
DEVICE uint word_of_f16(float v) { return float_to_f16(v); }
DEVICE uint word_of_bf16(float v) { return float_to_bf16(v); }
DEVICE uint word_of_tf32(float v) {  // 10 bits of fraction, ties away from zero, as cvt.rna does
  uint u = AS_UINT(v);
  return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & ~0x1fffu;
}
#endif
)";

constexpr const char* kDeclare =
    R"(  SHARED uint a[128][20];  // 16 words, and 4 more, so that lanes meet different banks
  SHARED uint b[128][20];
  const int id = LID0, lane = id % ${warp}, wave = id / ${warp};
  const int at_m = wave / ${across} * 64, at_n = wave % ${across} * ${wide};
  float r[4][4][4];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      for (int e = 0; e < 4; ++e) r[i][j][e] = 0.0f;
)";

constexpr const char* kMultiply = R"(    BARRIER;
    for (int s = 0; s < 16; s += ${step}) {
      uint x[4][${x_words}], y[4][${y_words}];
      for (int i = 0; i < 4; ++i)
        for (int q = 0; q < ${x_words}; ++q) x[i][q] = a[at_m + i * 16 + ${x_row}][s + ${x_word}];
      for (int j = 0; j < 4; ++j)
        for (int q = 0; q < ${y_words}; ++q) y[j][q] = b[at_n + j * ${tile} + ${y_column}][s + ${y_word}];
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) ${instruction}(r[i][j], x[i], y[j]);
    }
    BARRIER;
)";

constexpr const char* kEach = R"(  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      for (int e = 0; e < 4; ++e) {
        const int row = at_m + i * 16 + ${row}, column = at_n + j * ${tile} + ${column};
        const float sum = r[i][j][e];
)";

// Whole numbers below 256 are exact in bfloat16, and sums of 256 of their products in float32; those are added as ints.
constexpr const char* kExactDeclare = R"(  int exact[4][4][4];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      for (int e = 0; e < 4; ++e) exact[i][j][e] = 0;
)";
constexpr const char* kExactFlush = R"(    if (k0 % 256 == 224 || k0 + 32 >= K)
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j)
          for (int e = 0; e < 4; ++e) {
            exact[i][j][e] += (int)r[i][j][e];
            r[i][j][e] = 0.0f;
          }
)";

}  // namespace

const char* name(Arithmetic a) {
  switch (a) {
    case Arithmetic::f32: return "f32";
    case Arithmetic::tf32: return "tf32";
    case Arithmetic::bf16: return "bf16";
    case Arithmetic::f16: return "f16";
  }
  return "";
}

std::optional<Arithmetic> matrix_arithmetic(const Traits& t, DType type) {
  if (t.matrix == MatrixUnit::none) return std::nullopt;
  if (type == DType::f16) return Arithmetic::f16;
  if (type == DType::bf16) return Arithmetic::bf16;
  if (type != DType::f32) return std::nullopt;
  // Tensor cores have no float32, matrix cores of gfx90a no tf32, whose place float32 takes.
  if (t.matrix == MatrixUnit::mfma) return t.products == Arithmetic::tf32 ? Arithmetic::f32 : t.products;
  if (t.products == Arithmetic::f32) return std::nullopt;
  return t.products;
}

Words matrix_words(MatrixUnit unit, Arithmetic arithmetic) {
  const bool mma = unit == MatrixUnit::mma, halves = arithmetic == Arithmetic::bf16 || arithmetic == Arithmetic::f16;
  Words w;
  w["unit"] = kUnits;
  w["arithmetic"] = name(arithmetic);
  w["instruction"] = (mma ? "mma_" : "mfma_") + w["arithmetic"];
  w["PER"] = halves ? "2" : "1";
  w["KB"] = halves ? "32" : "16";
  w["LANES"] = "256";
  w["warp"] = mma ? "32" : "64";
  w["across"] = mma ? "4" : "2";
  w["wide"] = mma ? "32" : "64";
  w["tile"] = mma ? "8" : "16";
  w["step"] = mma || halves ? "8" : "4";
  w["x_words"] = mma ? "4" : halves ? "2" : "1";
  w["y_words"] = mma ? "2" : halves ? "2" : "1";
  w["x_row"] = mma ? "lane / 4 + q % 2 * 8" : "lane % 16";
  w["x_word"] = mma ? "lane % 4 + q / 2 * 4" : halves ? "lane / 16 * 2 + q" : "lane / 16";
  w["y_column"] = mma ? "lane / 4" : "lane % 16";
  w["y_word"] = mma ? "lane % 4 + q * 4" : w["x_word"];
  w["row"] = mma ? "lane / 4 + e / 2 * 8" : "lane / 16 * 4 + e";
  w["column"] = mma ? "lane % 4 * 2 + e % 2" : "lane % 16";
  w["declare"] = fill(kDeclare, w);
  w["multiply"] = fill(kMultiply, w);
  w["each"] = fill(kEach, w);
  w["exact_declare"] = kExactDeclare;
  w["exact_flush"] = kExactFlush;
  return w;
}

}  // namespace ai_vmm::gpu
