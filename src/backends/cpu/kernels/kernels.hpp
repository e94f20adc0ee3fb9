// The kernels that are compiled per instruction set: plain functions over plain memory.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "backends/cpu/kernels/isa.hpp"

namespace ai_vmm::cpu {

// y = act(x): what a kernel may apply to results on their way out.
enum class Act : int {
  none = 0,
  relu = 1,
  clip = 2,  // [a, b]
  sigmoid = 3,
  tanh = 4,
  gelu_erf = 5,
  gelu_tanh = 6,
  swish = 7,         // x * sigmoid(a x)
  hard_swish = 8,    // x * clip(a x + b, 0, 1)
  hard_sigmoid = 9,  // clip(a x + b, 0, 1)
  leaky_relu = 10,   // x < 0 ? a x : x
  elu = 11,          // x < 0 ? a (e^x - 1) : x
};

// ---- matrix product: C[m, n] = act(A[m, k] · B[k, n] * alpha + bias[n] + residual[m, n])

struct GemmShape {
  int mr, nr, kc;  // rows and columns of a tile, depth of a packed block
};
struct Gemm {
  int64_t m, n, k;
  const float* a;  // element (i, p) at a[i * a_row + p * a_col]
  int64_t a_row, a_col;
  const float* b;  // packed by gemm_pack
  float* c;        // row i at c + i * c_row
  int64_t c_row;
  float alpha;
  const float* bias;      // n, or null
  const float* residual;  // row i at residual + i * residual_row, or null
  int64_t residual_row;
  int act;
  float act_a, act_b;
  const float* row_bias = nullptr;  // m, or null
};

// ---- pooling: depth, height, width; axes that a picture lacks have size 1
struct PoolShape {
  int64_t in[3], out[3], kernel[3], stride[3], dilation[3], before[3], after[3];
  bool count_padding;  // an average divides by positions in the padding too
};

// ---- elementwise programs: functions over n elements of a block; unused operands are null
typedef void (*BlockFn)(void* out, const void* a, const void* b, const void* c, int64_t n, const float* params);
struct BlockEntry {
  const char* op;  // ONNX operator
  int in, out;     // element types (ONNX numbers) of the operands and of the result
  BlockFn fn;
};

// One list: declared, dispatched and tested from here.
#define AI_VMM_CPU_KERNELS(K)                                                                                      \
  K(void, gemm_shape, (GemmShape * shape))                                                                         \
  /* floats of a packed [k, n] matrix */                                                                           \
  K(int64_t, gemm_packed_size, (int64_t k, int64_t n))                                                             \
  /* packs columns of panels [first, last) from b[p * row + j * col] */                                            \
  K(void, gemm_pack,                                                                                               \
    (int64_t k, int64_t n, const float* b, int64_t row, int64_t col, float* packed, int64_t first, int64_t last))  \
  /* rows [r0, r1) and panels [p0, p1) of the product; scratch: gemm_scratch() floats */                           \
  K(void, gemm_run, (const Gemm* g, int64_t r0, int64_t r1, int64_t p0, int64_t p1, float* scratch))               \
  K(int64_t, gemm_scratch, ())                                                                                     \
  /* y[n] = alpha * x[k] . B[k, n] with B in its own memory (strides row, col; one of them 1), columns             \
     [first, last) */                                                                                              \
  K(void, gemv,                                                                                                    \
    (int64_t k, const float* x, int64_t x_col, const float* b, int64_t row, int64_t col, float* y, float alpha,    \
     int64_t first, int64_t last))                                                                                 \
  K(const BlockEntry*, block_functions, (int* count))                                                              \
  /* rows of n contiguous floats: out = softmax(in * scale + mask); mask may be null; log: log-softmax */          \
  K(void, softmax_row, (const float* in, const float* mask, float scale, float* out, int64_t n, int log))          \
  /* `width` independent columns, n elements each at stride `width` */                                             \
  K(void, softmax_columns, (const float* in, float* out, int64_t n, int64_t width, int log))                       \
  /* (x - mean) / sqrt(var + eps) * scale + bias over n; `rms`: without the mean. Null scale/bias: none. mean and  \
     inverse deviation are stored when asked for */                                                                \
  K(void, norm_row,                                                                                                \
    (const float* in, const float* add, float* sum_out, const float* scale, const float* bias, float eps, int rms, \
     float* out, int64_t n, float* mean, float* inv))                                                              \
  /* mean and variance of n floats */                                                                              \
  K(void, moments, (const float* in, int64_t n, float* mean, float* variance))                                     \
  /* out = in * scale + bias, both scalars */                                                                      \
  K(void, affine, (const float* in, float scale, float bias, float* out, int64_t n))                               \
  K(void, activate_row, (float* x, int64_t n, int act, float a, float b))                                          \
  /* reduction of n contiguous floats; kind: 0 sum, 1 max, 2 min, 3 prod, 4 sum of squares, 5 sum of magnitudes */ \
  K(float, reduce_row, (const float* in, int64_t n, int kind))                                                     \
  /* acc[i] = acc[i] (op) in[i] */                                                                                 \
  K(void, reduce_into, (float* acc, const float* in, int64_t n, int kind))                                         \
  /* one channel (block 1) or one block of channels; max_kind: 1 maximum, 0 average */                             \
  K(void, pool_plane, (const PoolShape* shape, const float* in, float* out, int block, int max_kind))              \
  K(void, pool_all, (const float* in, int64_t n, float* out, int block, int max_kind))                             \
  /* out[j * rows + i] = in[i * in_row + j] for i < rows, j < columns; out rows at out_row */                      \
  K(void, transpose, (const float* in, int64_t rows, int64_t columns, int64_t in_row, float* out, int64_t out_row))

#ifdef AI_VMM_ISA
namespace AI_VMM_ISA {
#define K(type, name, args) type name args;
AI_VMM_CPU_KERNELS(K)
#undef K
}  // namespace AI_VMM_ISA
#endif

struct Kernels {
#define K(type, name, args) type(*name) args;
  AI_VMM_CPU_KERNELS(K)
#undef K
};

// The functions for the instruction set in use.
const Kernels& kernels();
// Those of one instruction set, for tests; null when this machine or this build lacks it.
const Kernels* kernels(Isa isa);

}  // namespace ai_vmm::cpu
