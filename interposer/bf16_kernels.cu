// The kernels of compressed collectives, in what CUDA's and HIP's C++ have in common: NVRTC and hiprtc compile this text in
// the program that needs it, and tests compile it for the host. They round as bf16.hpp does. Four elements at a time
// where pointers allow it. Grids are of one dimension; y counts rows where there are any.

typedef unsigned short bf16_bits;
typedef unsigned int float_bits;
typedef unsigned long long size;

struct alignas(16) FourFloats {
  float_bits at[4];
};
struct alignas(8) FourHalves {
  bf16_bits at[4];
};

__device__ inline float_bits rounded(float_bits bits) {
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

__device__ inline float widened(bf16_bits half) { return __uint_as_float(static_cast<float_bits>(half) << 16); }

// Groups of four elements that all pointers, of which the bits of their addresses are or-ed, can be read in.
__device__ inline size fours(size addresses_of_floats, size addresses_of_halves, size count) {
  return (addresses_of_floats & 15) == 0 && (addresses_of_halves & 7) == 0 ? count / 4 : 0;
}

__device__ inline size first() { return static_cast<size>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline size step() { return static_cast<size>(gridDim.x) * blockDim.x; }

// to = from, rounded.
extern "C" __global__ void pack_bf16_v4(const float_bits* from, bf16_bits* to, size count) {
  size groups = fours(reinterpret_cast<size>(from), reinterpret_cast<size>(to), count);
  for (size i = first(); i < groups; i += step()) {
    FourFloats four = reinterpret_cast<const FourFloats*>(from)[i];
    FourHalves result;
    for (int k = 0; k < 4; k++) result.at[k] = static_cast<bf16_bits>(rounded(four.at[k]));
    reinterpret_cast<FourHalves*>(to)[i] = result;
  }
  for (size i = 4 * groups + first(); i < count; i += step()) to[i] = static_cast<bf16_bits>(rounded(from[i]));
}

// Row by row: to = from * scale, in float32; a scale of 1 keeps all bits. Rows stand `from_pitch` and `to_pitch` apart.
extern "C" __global__ void unpack_bf16_v4(const bf16_bits* from, float_bits* to, size count, float scale, size from_pitch,
                                          size to_pitch) {
  from += blockIdx.y * from_pitch;
  to += blockIdx.y * to_pitch;
  size groups = scale == 1.0f ? fours(reinterpret_cast<size>(to), reinterpret_cast<size>(from), count) : 0;
  for (size i = first(); i < groups; i += step()) {
    FourHalves four = reinterpret_cast<const FourHalves*>(from)[i];
    FourFloats result;
    for (int k = 0; k < 4; k++) result.at[k] = static_cast<float_bits>(four.at[k]) << 16;
    reinterpret_cast<FourFloats*>(to)[i] = result;
  }
  for (size i = 4 * groups + first(); i < count; i += step())
    to[i] = scale == 1.0f ? static_cast<float_bits>(from[i]) << 16 : __float_as_uint(widened(from[i]) * scale);
}

// to = the sum, in float32 and in the order of ranks, of `own` and the other ranks' addends, times scale, rounded. The addends
// of rank r stand at addends + r * pitch; those of `rank` itself are not read.
extern "C" __global__ void sum_bf16_v4(const float* own, const bf16_bits* addends, size pitch, int rank, int ranks,
                                       bf16_bits* to, size count, float scale) {
  for (size i = first(); i < count; i += step()) {
    float sum = rank == 0 ? own[i] : widened(addends[i]);
    for (int r = 1; r < ranks; r++) sum += r == rank ? own[i] : widened(addends[static_cast<size>(r) * pitch + i]);
    to[i] = static_cast<bf16_bits>(rounded(__float_as_uint(scale == 1.0f ? sum : sum * scale)));
  }
}
