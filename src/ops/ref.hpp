// Tools for writing reference functions: slow, obvious, and right for every element type.
//
// A reference function computes in one of five domains: double for every float kind, int64_t for integers and bool,
// uint64_t for u64, std::complex<double>, std::string. `dispatch` picks the domain, `load` converts a tensor into it,
// `store` converts back (floats round once, integers keep their low bits, as C and NumPy do).
#pragma once

#include <complex>
#include <string>
#include <vector>

#include "ai_vmm/types.hpp"
#include "base/numbers.hpp"
#include "ops/op.hpp"

namespace ai_vmm::ref {

using Complex = std::complex<double>;

template <class T>
std::vector<T> load(const Tensor& t);  // T: double, int64_t, uint64_t, Complex, std::string
template <class T>
void store(Tensor& t, std::span<const T> values);
template <class T>
void store(Tensor& t, const std::vector<T>& values) {
  store<T>(t, std::span<const T>(values));
}

// Calls f.operator()<Domain>() for the domain of `type`; f returns Status.
template <class F>
Status dispatch(DType type, F&& f) {
  if (type == DType::string) return f.template operator()<std::string>();
  if (is_complex(type)) return f.template operator()<Complex>();
  if (is_float(type)) return f.template operator()<double>();
  if (type == DType::u64) return f.template operator()<uint64_t>();
  return f.template operator()<int64_t>();
}
// The same for numeric types only; others are an error naming the node.
template <class F>
Status dispatch_real(const Eval& e, DType type, F&& f) {
  if (type == DType::string || is_complex(type) || type == DType::undefined)
    return e.error(std::string("element type ") + name(type) + " is not a number.");
  if (is_float(type)) return f.template operator()<double>();
  if (type == DType::u64) return f.template operator()<uint64_t>();
  return f.template operator()<int64_t>();
}

std::vector<int64_t> ints(const Tensor& t);  // any integer tensor as a flat list
Shape strides_of(const Shape& shape);        // row-major, in elements
Result<Shape> broadcast(const Eval& e, std::span<const Shape> shapes);
// Strides that read a tensor of shape `from` as if it had shape `to`: 0 along broadcast axes.
Shape broadcast_strides(const Shape& from, const Shape& to);
int64_t product(std::span<const int64_t> dims);
// Fails where scratch space of this many doubles would break the memory limit. For what no input or output bounds.
Status affordable(const Shape& shape);

// Walks every index of `shape` in row-major order.
class Index {
 public:
  explicit Index(const Shape& shape) : shape_(shape), at_(shape.size(), 0), more_(product(shape) > 0) {}
  bool more() const { return more_; }
  void next() {
    for (size_t i = shape_.size(); i-- > 0;) {
      if (++at_[i] < shape_[i]) return;
      at_[i] = 0;
    }
    more_ = false;
  }
  const Shape& operator*() const { return at_; }
  int64_t operator[](size_t axis) const { return at_[axis]; }
  int64_t offset(const Shape& strides) const {
    int64_t o = 0;
    for (size_t i = 0; i < at_.size(); ++i) o += at_[i] * strides[i];
    return o;
  }

 private:
  const Shape& shape_;
  Shape at_;
  bool more_;
};

// How a number becomes one of the 8-bit float kinds.
struct Narrowing {
  bool saturate = true;
  E8M0Rounding rounding = E8M0Rounding::up;
};
// Writes element i of a numeric tensor, rounded once; 8-bit float kinds as `how` says.
void write_narrow(Tensor& y, int64_t i, double v, const Narrowing& how);

// Copies element `from_index` of `from` to element `to_index` of `to` (equal types), strings and packed types too.
void copy_element(Tensor& to, int64_t to_index, const Tensor& from, int64_t from_index);

}  // namespace ai_vmm::ref
