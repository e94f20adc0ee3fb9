#include "gpu/dialect.hpp"

#include "base/check.hpp"

namespace ai_vmm::gpu {

namespace {

constexpr const char* kOpenCl = R"(
#define KERNEL __kernel
#define DEVICE static inline
#define GLOBAL __global
#define LOCAL __local
#define SHARED __local
#define RESTRICT restrict
#define GID0 ((long)get_global_id(0))
#define GID1 ((long)get_global_id(1))
#define GID2 ((long)get_global_id(2))
#define LID0 ((int)get_local_id(0))
#define GRP0 ((int)get_group_id(0))
#define GRP1 ((int)get_group_id(1))
#define GRP2 ((int)get_group_id(2))
#define SIZE0 ((int)get_local_size(0))
#define BARRIER barrier(CLK_LOCAL_MEM_FENCE)
#define AS_FLOAT(u) as_float(u)
#define AS_UINT(f) as_uint(f)
#define LD_f16(p, i) vload_half(i, (GLOBAL const half*)(p))
#define ST_f16(p, i, v) vstore_half_rte(v, i, (GLOBAL half*)(p))
#pragma OPENCL FP_CONTRACT ON
)";

// CUDA and HIP differ from OpenCL in the same words. `long` has 64 bits on every host that they run on here.
constexpr const char* kCudaLike = R"(
#define KERNEL extern "C" __global__
#define DEVICE static __device__ inline
#define GLOBAL
#define LOCAL
#define SHARED __shared__
#define RESTRICT __restrict__
#define GID0 ((long)blockIdx.x * blockDim.x + threadIdx.x)
#define GID1 ((long)blockIdx.y * blockDim.y + threadIdx.y)
#define GID2 ((long)blockIdx.z * blockDim.z + threadIdx.z)
#define LID0 ((int)threadIdx.x)
#define GRP0 ((int)blockIdx.x)
#define GRP1 ((int)blockIdx.y)
#define GRP2 ((int)blockIdx.z)
#define SIZE0 ((int)blockDim.x)
#define BARRIER __syncthreads()
#define AS_FLOAT(u) __uint_as_float(u)
#define AS_UINT(f) __float_as_uint(f)
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fc00000)
#define mad(a, b, c) fma(a, b, c)
#define LD_f16(p, i) f16_to_float((p)[i])
#define ST_f16(p, i, v) ((p)[i] = float_to_f16(v))
)";

constexpr const char* kCommon = R"(
#define NO_UNROLL _Pragma("unroll 1")
DEVICE float f16_to_float(ushort h) {
  uint sign = (uint)(h & 0x8000) << 16, body = h & 0x7fff;
  if (body >= 0x7c00) return AS_FLOAT(sign | 0x7f800000u | ((body & 0x3ff) << 13));
  if (body >= 0x0400) return AS_FLOAT(sign | ((body + 0x1c000u) << 13));
  float f = (float)body * 5.9604644775390625e-8f;
  return sign ? -f : f;
}
DEVICE ushort float_to_f16(float v) {
  uint u = AS_UINT(v), sign = (u >> 16) & 0x8000, body = u & 0x7fffffff;
  if (body > 0x7f800000u) return (ushort)(sign | 0x7e00);
  if (body >= 0x477ff000u) return (ushort)(sign | 0x7c00);
  if (body < 0x38800000u) return (ushort)(sign | (ushort)rint(AS_FLOAT(body) * 16777216.0f));
  body += 0xfffu + ((body >> 13) & 1);
  return (ushort)(sign | ((body - 0x38000000u) >> 13));
}
#define LD_f32(p, i) ((p)[i])
#define ST_f32(p, i, v) ((p)[i] = (float)(v))
#define LD_bf16(p, i) AS_FLOAT((uint)(p)[i] << 16)
#define ST_bf16(p, i, v) ((p)[i] = float_to_bf16(v))
#define LD_u8(p, i) ((long)(p)[i])
#define ST_u8(p, i, v) ((p)[i] = (uchar)(v))
#define LD_i8(p, i) ((long)(p)[i])
#define ST_i8(p, i, v) ((p)[i] = (char)(v))
#define LD_u16(p, i) ((long)(p)[i])
#define ST_u16(p, i, v) ((p)[i] = (ushort)(v))
#define LD_i16(p, i) ((long)(p)[i])
#define ST_i16(p, i, v) ((p)[i] = (short)(v))
#define LD_u32(p, i) ((long)(p)[i])
#define ST_u32(p, i, v) ((p)[i] = (uint)(v))
#define LD_i32(p, i) ((long)(p)[i])
#define ST_i32(p, i, v) ((p)[i] = (int)(v))
#define LD_u64(p, i) ((ulong)(p)[i])
#define ST_u64(p, i, v) ((p)[i] = (ulong)(v))
#define LD_i64(p, i) ((long)(p)[i])
#define ST_i64(p, i, v) ((p)[i] = (long)(v))
#define LD_bool(p, i) ((long)((p)[i] != 0))
#define ST_bool(p, i, v) ((p)[i] = (uchar)((v) != 0))
DEVICE ushort float_to_bf16(float v) {
  uint u = AS_UINT(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (ushort)((u >> 16) | 0x40);
  return (ushort)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
DEVICE float round_f16(float v) { return f16_to_float(float_to_f16(v)); }
DEVICE float round_bf16(float v) { return AS_FLOAT((uint)float_to_bf16(v) << 16); }
#define INT_MIN64 ((long)1 << 63)
DEVICE long float_to_long(float v) {
  if (!(v == v)) return INT_MIN64;
  if (v >= 9223372036854775808.0f) return v < 18446744073709551616.0f ? (long)(ulong)v : INT_MIN64;
  if (v < -9223372036854775808.0f) return INT_MIN64;
  return (long)v;
}
)";

constexpr const char* kDouble = R"(
#define LD_f64(p, i) ((p)[i])
#define ST_f64(p, i, v) ((p)[i] = (double)(v))
DEVICE long double_to_long(double v) {
  if (!(v == v)) return INT_MIN64;
  if (v >= 9223372036854775808.0) return v < 18446744073709551616.0 ? (long)(ulong)v : INT_MIN64;
  if (v < -9223372036854775808.0) return INT_MIN64;
  return (long)v;
}
)";

// The integer helpers of ops/rules.hpp, for the computing types long and ulong.
constexpr const char* kIntegers = R"(
#define larger_float(x, y) ((x) < (y) || (y) != (y) ? (y) : (x))
#define smaller_float(x, y) ((y) < (x) || (y) != (y) ? (y) : (x))
#define larger_long(x, y) ((x) < (y) ? (y) : (x))
#define smaller_long(x, y) ((y) < (x) ? (y) : (x))
#define larger_ulong larger_long
#define smaller_ulong smaller_long
#define plus_float(x, y) ((x) + (y))
#define times_float(x, y) ((x) * (y))
#define magnitude_float(x) fabs(x)
#define quotient_float(x, y) ((x) / (y))
#define root_float(x) sqrt(x)
#define logarithm_float(x) log(x)
#define plus_long i_add_long
#define times_long i_mul_long
#define magnitude_long i_abs_long
#define quotient_long i_div_long
#define plus_ulong i_add_ulong
#define times_ulong i_mul_ulong
#define magnitude_ulong i_abs_ulong
#define quotient_ulong i_div_ulong
#define i_add_long(x, y) ((long)((ulong)(x) + (ulong)(y)))
#define i_sub_long(x, y) ((long)((ulong)(x) - (ulong)(y)))
#define i_mul_long(x, y) ((long)((ulong)(x) * (ulong)(y)))
#define i_neg_long(x) ((long)(0 - (ulong)(x)))
#define i_add_ulong(x, y) ((ulong)(x) + (ulong)(y))
#define i_sub_ulong(x, y) ((ulong)(x) - (ulong)(y))
#define i_mul_ulong(x, y) ((ulong)(x) * (ulong)(y))
#define i_neg_ulong(x) ((ulong)0 - (ulong)(x))
DEVICE long i_abs_long(long x) { return x < 0 ? i_neg_long(x) : x; }
DEVICE long i_div_long(long x, long y) { return y == 0 ? 0 : y == -1 ? i_neg_long(x) : x / y; }
DEVICE long i_rem_long(long x, long y) { return y == 0 || y == -1 ? 0 : x % y; }
DEVICE long i_mod_long(long x, long y) {
  long r = i_rem_long(x, y);
  return r != 0 && (r < 0) != (y < 0) ? i_add_long(r, y) : r;
}
DEVICE long i_pow_long(long x, long y) {
  if (y < 0) return x == 1 ? 1 : x == -1 ? (y % 2 ? -1 : 1) : 0;
  long r = 1;
  for (; y; y /= 2) {
    if (y % 2) r = i_mul_long(r, x);
    x = i_mul_long(x, x);
  }
  return r;
}
DEVICE long i_shl_long(long x, long y) { return (ulong)y >= 64 ? 0 : (long)((ulong)x << y); }
DEVICE long i_shr_long(long x, long y) { return (ulong)y >= 64 ? (x < 0 ? -1 : 0) : x >> y; }
DEVICE ulong i_abs_ulong(ulong x) { return x; }
DEVICE ulong i_div_ulong(ulong x, ulong y) { return y == 0 ? 0 : x / y; }
DEVICE ulong i_rem_ulong(ulong x, ulong y) { return y == 0 ? 0 : x % y; }
DEVICE ulong i_mod_ulong(ulong x, ulong y) { return i_rem_ulong(x, y); }
DEVICE ulong i_pow_ulong(ulong x, ulong y) {
  ulong r = 1;
  for (; y; y /= 2) {
    if (y % 2) r *= x;
    x *= x;
  }
  return r;
}
DEVICE ulong i_shl_ulong(ulong x, ulong y) { return y >= 64 ? 0 : x << y; }
DEVICE ulong i_shr_ulong(ulong x, ulong y) { return y >= 64 ? 0 : x >> y; }
)";

}  // namespace

std::string prelude(Dialect dialect, bool f64) {
  std::string text = dialect == Dialect::opencl ? kOpenCl : kCudaLike;
  if (f64 && dialect == Dialect::opencl) text = "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n" + text;
  return text + kCommon + (f64 ? kDouble : "") + kIntegers;
}

Element element(DType type) {
  switch (type) {
    case DType::f32: return {"f32", "float", "float"};
    case DType::f64: return {"f64", "double", "double"};
    case DType::f16: return {"f16", "ushort", "float"};
    case DType::bf16: return {"bf16", "ushort", "float"};
    case DType::u8: return {"u8", "uchar", "long"};
    case DType::i8: return {"i8", "char", "long"};
    case DType::u16: return {"u16", "ushort", "long"};
    case DType::i16: return {"i16", "short", "long"};
    case DType::u32: return {"u32", "uint", "long"};
    case DType::i32: return {"i32", "int", "long"};
    case DType::u64: return {"u64", "ulong", "ulong"};
    case DType::i64: return {"i64", "long", "long"};
    case DType::boolean: return {"bool", "uchar", "long"};
    default: return {};
  }
}

std::string fill(std::string_view text, const Words& words) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    size_t open = text.find("${", at);
    out += text.substr(at, open - at);
    if (open == std::string_view::npos) break;
    size_t close = text.find('}', open);
    auto name = text.substr(open + 2, close - open - 2);
    auto word = words.find(name);
    AI_VMM_CHECK(word != words.end(), "no word ${" + std::string(name) + "} for a kernel");
    out += word->second;
    at = close + 1;
  }
  return out;
}

std::string vector_type(int width) { return width == 1 ? "float" : "float" + std::to_string(width); }
std::string vector_load(int width, const std::string& pointer) {
  return width == 1 ? "*(" + pointer + ")" : "vload" + std::to_string(width) + "(0, " + pointer + ")";
}
std::string vector_store(int width, const std::string& value, const std::string& pointer) {
  return width == 1 ? "*(" + pointer + ") = " + value
                    : "vstore" + std::to_string(width) + "(" + value + ", 0, " + pointer + ")";
}

}  // namespace ai_vmm::gpu
