// cuBLASLt and cuDNN of the emulated GPU, under their own symbol names: what the driver asks of them, computed by plain
// loops on the processor when the stream comes to it.
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/numbers.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using ai_vmm::DType;
using Handle = void*;
using Address = uint64_t;

template <class F>
F* of_device(const char* name) {
  static void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  return reinterpret_cast<F*>(dlsym(library, name));
}
template <class Work>
int add(Handle stream, Work work) {
  return of_device<int(Handle, int (*)(void*), void*, void (*)(void*))>("emulator_add")(
      stream, [](void* w) { return (*static_cast<Work*>(w))(); }, new Work(std::move(work)),
      [](void* w) { delete static_cast<Work*>(w); });
}
bool covers(Address a, int64_t bytes) { return of_device<int(Address, size_t)>("emulator_covers")(a, size_t(bytes)); }

float rounded(float v, int lost_bits) {
  uint32_t u;
  std::memcpy(&u, &v, 4);
  u = (u + (1u << (lost_bits - 1))) & ~((1u << lost_bits) - 1);
  std::memcpy(&v, &u, 4);
  return v;
}

// ---------------------------------------------------------------- cuBLASLt

struct Product {
  int compute = 0, transposed[2] = {};
};
struct Layout {
  int type = 0, batches = 1;
  int64_t rows = 0, columns = 0, leading = 0, stride = 0;
  DType dtype() const { return type == 0 ? DType::f32 : type == 2 ? DType::f16 : DType::bf16; }
  int64_t bytes() const {
    return ((batches - 1) * stride + (columns - 1) * leading + rows) * ai_vmm::bytes_for(dtype(), 1);
  }
};
template <class T>
T& as(Handle h) {
  return *static_cast<T*>(h);
}

// ---------------------------------------------------------------- cuDNN

struct Tensor4 {
  int type = 0, n = 0, c = 0, h = 0, w = 0;
  DType dtype() const { return type == 0 ? DType::f32 : type == 2 ? DType::f16 : DType::bf16; }
  int64_t bytes() const { return int64_t(n) * c * h * w * ai_vmm::bytes_for(dtype(), 1); }
};
struct Convolution {
  int pad_h = 0, pad_w = 0, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, groups = 1, math = 0;
};
struct Dnn {
  Handle stream = nullptr;
};

}  // namespace

EXPORT size_t cublasLtGetVersion() { return 130000; }
EXPORT int cublasLtCreate(Handle* h) { return *h = new int, 0; }
EXPORT int cublasLtDestroy(Handle h) { return delete static_cast<int*>(h), 0; }
EXPORT int cublasLtMatmulDescCreate(Handle* h, int compute, int scale) {
  if (scale != 0) return 7;
  return *h = new Product{compute, {}}, 0;
}
EXPORT int cublasLtMatmulDescDestroy(Handle h) { return delete static_cast<Product*>(h), 0; }
EXPORT int cublasLtMatmulDescSetAttribute(Handle h, int attribute, const void* value, size_t bytes) {
  if (bytes != 4 || (attribute != 3 && attribute != 4)) return 7;
  return std::memcpy(&as<Product>(h).transposed[attribute - 3], value, 4), 0;
}
EXPORT int cublasLtMatrixLayoutCreate(Handle* h, int type, uint64_t rows, uint64_t columns, int64_t leading) {
  if (leading < int64_t(rows)) return 7;
  return *h = new Layout{type, 1, int64_t(rows), int64_t(columns), leading, 0}, 0;
}
EXPORT int cublasLtMatrixLayoutDestroy(Handle h) { return delete static_cast<Layout*>(h), 0; }
EXPORT int cublasLtMatrixLayoutSetAttribute(Handle h, int attribute, const void* value, size_t bytes) {
  if (attribute == 5 && bytes == 4) return std::memcpy(&as<Layout>(h).batches, value, 4), 0;
  if (attribute == 6 && bytes == 8) return std::memcpy(&as<Layout>(h).stride, value, 8), 0;
  return 7;
}
EXPORT int cublasLtMatmulPreferenceCreate(Handle* h) { return *h = new int, 0; }
EXPORT int cublasLtMatmulPreferenceDestroy(Handle h) { return delete static_cast<int*>(h), 0; }
EXPORT int cublasLtMatmulPreferenceSetAttribute(Handle, int attribute, const void*, size_t bytes) {
  return attribute == 1 && bytes == 8 ? 0 : 7;
}
EXPORT int cublasLtMatmulAlgoGetHeuristic(Handle, Handle, Handle, Handle, Handle, Handle, Handle, int, void* result,
                                          int* found) {
  std::memset(result, 0, 64 + 8 + 4 + 4 + 16);
  return *found = 1, 0;
}
EXPORT int cublasLtMatmul(Handle, Handle product, const void* alpha, Address a, Handle al, Address b, Handle bl,
                          const void* beta, Address c, Handle cl, Address d, Handle dl, const void* algorithm,
                          Address workspace, size_t workspace_bytes, Handle stream) {
  const Product p = as<Product>(product);
  const Layout x = as<Layout>(al), y = as<Layout>(bl), z = as<Layout>(dl);
  const int64_t m = z.rows, n = z.columns, k = p.transposed[0] ? x.rows : x.columns;
  if ((p.transposed[0] ? x.columns : x.rows) != m || (p.transposed[1] ? y.columns : y.rows) != k ||
      (p.transposed[1] ? y.rows : y.columns) != n || c != d || cl != dl || !algorithm ||
      *static_cast<const float*>(beta) != 0)
    return 7;
  if (!covers(a, x.bytes()) || !covers(b, y.bytes()) || !covers(d, z.bytes()) ||
      !covers(workspace, int64_t(workspace_bytes))) {
    std::fprintf(stderr, "emulator: cublasLtMatmul is given memory that is not there: %d %d %d %d\n",
                 covers(a, x.bytes()), covers(b, y.bytes()), covers(d, z.bytes()),
                 covers(workspace, int64_t(workspace_bytes)));
    return 7;
  }
  const float scale = *static_cast<const float*>(alpha);
  return add(stream, [=] {
    const int lost = p.compute == 77 ? 13 : p.compute == 75 ? 16 : p.compute == 74 ? 13 : 0;
    auto read = [&](const Layout& l, Address at, int64_t row, int64_t column, int64_t batch) {
      double v =
          ai_vmm::read_double(l.dtype(), reinterpret_cast<void*>(at), batch * l.stride + column * l.leading + row);
      return lost ? double(rounded(float(v), lost)) : v;
    };
    for (int64_t t = 0; t < z.batches; ++t)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t i = 0; i < m; ++i) {
          double sum = 0;
          for (int64_t q = 0; q < k; ++q)
            sum += read(x, a, p.transposed[0] ? q : i, p.transposed[0] ? i : q, t) *
                   read(y, b, p.transposed[1] ? j : q, p.transposed[1] ? q : j, t);
          ai_vmm::write_double(z.dtype(), reinterpret_cast<void*>(d), t * z.stride + j * z.leading + i, scale * sum);
        }
    return 0;
  });
}

EXPORT size_t cudnnGetVersion() { return 90100; }
EXPORT int cudnnCreate(Handle* h) { return *h = new Dnn, 0; }
EXPORT int cudnnDestroy(Handle h) { return delete static_cast<Dnn*>(h), 0; }
EXPORT int cudnnSetStream(Handle h, Handle stream) { return as<Dnn>(h).stream = stream, 0; }
EXPORT int cudnnCreateTensorDescriptor(Handle* h) { return *h = new Tensor4, 0; }
EXPORT int cudnnDestroyTensorDescriptor(Handle h) { return delete static_cast<Tensor4*>(h), 0; }
EXPORT int cudnnSetTensor4dDescriptor(Handle h, int format, int type, int n, int c, int height, int width) {
  if (format != 0) return 3000;
  return as<Tensor4>(h) = {type, n, c, height, width}, 0;
}
EXPORT int cudnnCreateFilterDescriptor(Handle* h) { return *h = new Tensor4, 0; }
EXPORT int cudnnDestroyFilterDescriptor(Handle h) { return delete static_cast<Tensor4*>(h), 0; }
EXPORT int cudnnSetFilter4dDescriptor(Handle h, int type, int format, int k, int c, int height, int width) {
  if (format != 0) return 3000;
  return as<Tensor4>(h) = {type, k, c, height, width}, 0;
}
EXPORT int cudnnCreateConvolutionDescriptor(Handle* h) { return *h = new Convolution, 0; }
EXPORT int cudnnDestroyConvolutionDescriptor(Handle h) { return delete static_cast<Convolution*>(h), 0; }
EXPORT int cudnnSetConvolution2dDescriptor(Handle h, int pad_h, int pad_w, int stride_h, int stride_w, int dilation_h,
                                           int dilation_w, int mode, int compute) {
  if (mode != 1 || compute != 0) return 3000;
  return as<Convolution>(h) = {pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, 1, 0}, 0;
}
EXPORT int cudnnSetConvolutionGroupCount(Handle h, int groups) { return as<Convolution>(h).groups = groups, 0; }
EXPORT int cudnnSetConvolutionMathType(Handle h, int math) { return as<Convolution>(h).math = math, 0; }
EXPORT int cudnnGetConvolutionForwardAlgorithm_v7(Handle, Handle, Handle, Handle conv, Handle, int, int* found,
                                                  void* results) {
  struct Choice {
    int algorithm, status;
    float time;
    size_t memory;
    int determinism, math, reserved[3];
  };
  *static_cast<Choice*>(results) = {1, 0, 0, 1024, 1, as<Convolution>(conv).math, {}};
  return *found = 1, 0;
}
EXPORT int cudnnConvolutionForward(Handle h, const void* alpha, Handle xd, Address x, Handle wd, Address w, Handle cd,
                                   int algorithm, Address workspace, size_t workspace_bytes, const void* beta,
                                   Handle yd, Address y) {
  const Tensor4 in = as<Tensor4>(xd), filter = as<Tensor4>(wd), out = as<Tensor4>(yd);
  const Convolution c = as<Convolution>(cd);
  if (algorithm != 1 || *static_cast<const float*>(alpha) != 1 || *static_cast<const float*>(beta) != 0 ||
      in.c != filter.c * c.groups || filter.n != out.c || in.n != out.n)
    return 3000;
  if (!covers(x, in.bytes()) || !covers(w, filter.bytes()) || !covers(y, out.bytes()) ||
      !covers(workspace, int64_t(workspace_bytes)))
    return 3000;
  return add(as<Dnn>(h).stream, [=] {
    const int per_group = out.c / c.groups;
    auto read = [](const Tensor4& t, Address at, int n, int k, int i, int j) {
      return ai_vmm::read_double(t.dtype(), reinterpret_cast<void*>(at), ((int64_t(n) * t.c + k) * t.h + i) * t.w + j);
    };
    for (int n = 0; n < out.n; ++n)
      for (int o = 0; o < out.c; ++o)
        for (int i = 0; i < out.h; ++i)
          for (int j = 0; j < out.w; ++j) {
            double sum = 0;
            for (int k = 0; k < filter.c; ++k)
              for (int p = 0; p < filter.h; ++p)
                for (int q = 0; q < filter.w; ++q) {
                  const int row = i * c.stride_h - c.pad_h + p * c.dilation_h,
                            column = j * c.stride_w - c.pad_w + q * c.dilation_w;
                  if (row >= 0 && row < in.h && column >= 0 && column < in.w)
                    sum += read(in, x, n, o / per_group * filter.c + k, row, column) * read(filter, w, o, k, p, q);
                }
            ai_vmm::write_double(out.dtype(), reinterpret_cast<void*>(y),
                                 ((int64_t(n) * out.c + o) * out.h + i) * out.w + j, sum);
          }
    return 0;
  });
}
