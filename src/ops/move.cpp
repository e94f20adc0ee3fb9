#include "ops/move.hpp"

#include <algorithm>

#include "ops/ref.hpp"

namespace ai_vmm {

namespace {
struct Wide {
  uint64_t low, high;
};

template <class T>
void copy_run(T* to, int64_t to_step, const T* from, int64_t from_step, int64_t n) {
  if (to_step == 1 && from_step == 1) {
    std::copy(from, from + n, to);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i * to_step] = from[i * from_step];
  }
}

constexpr int64_t kTile = 32;  // elements; a tile of both sides stays in the first cache

template <class T>
void copy_as(Tensor& to, const View& v, const Tensor& from, const View& w, Shape outer, int64_t n, int64_t sv,
             int64_t sw) {
  T* target = static_cast<T*>(to.mutable_data()) + v.start;
  const T* source = static_cast<const T*>(from.data()) + w.start;
  // Two innermost axes are copied in tiles: a transposition touches each cache line of its source once.
  int64_t m = 1, tv = 0, tw = 0;
  if (!outer.empty()) {
    m = outer.back();
    outer.pop_back();
    tv = v.strides[outer.size()];
    tw = w.strides[outer.size()];
  }
  int64_t tile = sv == 1 && sw == 1 ? n : kTile;
  for (ref::Index i(outer); i.more(); i.next()) {
    int64_t ov = 0, ow = 0;
    for (size_t k = 0; k < outer.size(); ++k) {
      ov += i[k] * v.strides[k];
      ow += i[k] * w.strides[k];
    }
    for (int64_t j0 = 0; j0 < m; j0 += kTile)
      for (int64_t k0 = 0; k0 < n; k0 += tile)
        for (int64_t j = j0; j < std::min(m, j0 + kTile); ++j)
          copy_run(target + ov + j * tv + k0 * sv, sv, source + ow + j * tw + k0 * sw, sw, std::min(tile, n - k0));
  }
}
}  // namespace

void copy_view(Tensor& to, const View& v, const Tensor& from, const View& w, const Shape& shape) {
  // Axes that are contiguous in both views are walked as one; the last becomes the inner run.
  Shape outer;
  View a{v.start, {}}, b{w.start, {}};
  for (size_t k = 0; k < shape.size(); ++k) {
    if (shape[k] == 0) return;
    if (shape[k] == 1) continue;
    if (!outer.empty() && a.strides.back() == v.strides[k] * shape[k] && b.strides.back() == w.strides[k] * shape[k]) {
      outer.back() *= shape[k];
      a.strides.back() = v.strides[k];
      b.strides.back() = w.strides[k];
    } else {
      outer.push_back(shape[k]);
      a.strides.push_back(v.strides[k]);
      b.strides.push_back(w.strides[k]);
    }
  }
  int64_t n = 1, sv = 1, sw = 1;
  if (!outer.empty()) {
    n = outer.back();
    sv = a.strides.back();
    sw = b.strides.back();
    outer.pop_back();
  }
  switch (to.dtype() == DType::string ? -1 : bits(to.dtype())) {
    case -1: return copy_as<std::string>(to, a, from, b, outer, n, sv, sw);
    case 8: return copy_as<uint8_t>(to, a, from, b, outer, n, sv, sw);
    case 16: return copy_as<uint16_t>(to, a, from, b, outer, n, sv, sw);
    case 32: return copy_as<uint32_t>(to, a, from, b, outer, n, sv, sw);
    case 64: return copy_as<uint64_t>(to, a, from, b, outer, n, sv, sw);
    case 128: return copy_as<Wide>(to, a, from, b, outer, n, sv, sw);
    default:
      for (ref::Index i(outer); i.more(); i.next())
        for (int64_t j = 0; j < n; ++j)
          ref::copy_element(to, a.start + i.offset(a.strides) + j * sv, from, b.start + i.offset(b.strides) + j * sw);
  }
}

Status eval_view(Eval& e, const Tensor& from, const View& view, const Shape& shape, const Shape& out) {
  Tensor* y = AI_VMM_TAKE(e.make(0, from.dtype(), out));
  copy_view(*y, {0, ref::strides_of(shape)}, from, view, shape);
  return {};
}

Status share(Eval& e, size_t k, const Tensor& t, Shape shape) {
  if (element_count(shape) != t.count())
    return e.error("shape " + to_string(t.shape()) + " does not have as many elements as " + to_string(shape) + ".");
  if (t.owns_memory()) {
    e.set(k, Data(t.reshaped(std::move(shape))));
    return {};
  }
  Tensor copy = AI_VMM_TAKE(t.clone());
  e.set(k, Data(copy.reshaped(std::move(shape))));
  return {};
}

void fill_zero(Tensor& t) {
  if (t.dtype() == DType::string) {
    for (std::string& s : t.as_mutable<std::string>()) s.clear();
  } else if (t.bytes() > 0) {
    std::memset(t.mutable_data(), 0, size_t(t.bytes()));
  }
}

Result<int64_t> scalar_int(const Eval& e, const Tensor& t, const char* what) {
  if (t.count() != 1)
    return e.error(std::string(what) + " must be one number; it has shape " + to_string(t.shape()) + ".");
  return ref::ints(t)[0];
}

Result<int64_t> checked_index(const Eval& e, int64_t index, int64_t size) {
  if (index < -size || index >= size)
    return e.error("index " + std::to_string(index) + " is outside a dimension of size " + std::to_string(size) + ".");
  return index < 0 ? index + size : index;
}

}  // namespace ai_vmm
