// What quantised operators share: which scale an element has, and how a number becomes a quantised one.
#pragma once

#include "ops/ref.hpp"

namespace ai_vmm {

// How the elements of a tensor share the entries of a scale or zero-point tensor: all one, one an index along an axis,
// or one a block of elements along an axis.
class Grain {
 public:
  // Fails where `scale` does not fit. A block of 0 means none.
  static Result<Grain> of(const Eval& e, const Shape& x, const Shape& scale, int64_t axis, int64_t block);
  size_t at(const ref::Index& i) const {
    int64_t o = 0;
    for (size_t d = 0; d < strides_.size(); ++d) o += (d == axis_ ? i[d] / block_ : i[d]) * strides_[d];
    return size_t(o);
  }

 private:
  Shape strides_;
  size_t axis_ = 0;
  int64_t block_ = 1;
};

// v rounded to the precision of a float type; other types leave it as it is.
double round_to(DType type, double v);

// The quantised value: `scaled` to the nearest (half to even) plus the zero point, held to the range of an integer
// type; for a float type just their sum, still to be rounded.
double quantized(DType type, double scaled, double zero_point);

// Element i of y = quantized(scaled, zero_point).
void write_quantized(Tensor& y, int64_t i, double scaled, double zero_point, bool saturate = true);

// The scale and zero point of u8 that just cover x and zero, as DynamicQuantizeLinear chooses them.
struct DynamicQuantization {
  float scale = 1;
  uint8_t zero_point = 0;
};
DynamicQuantization dynamic_quantization(std::span<const float> x);

// Input k, one number or `lines` of them, as that many doubles or one; `fallback` when it is absent.
Result<std::vector<double>> per_line(const Eval& e, size_t k, int64_t lines, double fallback);
inline double line(const std::vector<double>& v, int64_t i) { return v[v.size() == 1 ? 0 : size_t(i)]; }

}  // namespace ai_vmm
