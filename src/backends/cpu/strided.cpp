#include "backends/cpu/strided.hpp"

#include <algorithm>
#include <cstring>

#include "backends/cpu/kernel.hpp"
#include "backends/cpu/kernels/kernels.hpp"

namespace ai_vmm::cpu {

StridedCopy::StridedCopy(Shape dims, Shape from, Shape to, int64_t element_size)
    : size_(element_size), count_(product(dims)) {
  // Dimensions in the order of the writing side, merged where both sides walk two of them as one.
  std::vector<size_t> order;
  for (size_t d = 0; d < dims.size(); ++d)
    if (dims[d] != 1) order.push_back(d);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return to[a] > to[b]; });
  for (size_t d : order) {
    if (!dims_.empty() && from_.back() == from[d] * dims[d] && to_.back() == to[d] * dims[d]) {
      dims_.back() *= dims[d];
      from_.back() = from[d];
      to_.back() = to[d];
    } else {
      dims_.push_back(dims[d]);
      from_.push_back(from[d]);
      to_.push_back(to[d]);
    }
  }
  if (dims_.empty()) dims_ = {1}, from_ = {1}, to_ = {1};
  if (size_ == 4 && dims_.size() >= 2 && to_.back() == 1) {
    // Where some outer dimension is the reading side's innermost, a tile of both is turned in the cache.
    for (size_t d = 0; d + 1 < dims_.size(); ++d)
      if (from_[d] == 1 && from_.back() != 1 && dims_[d] >= 4 && dims_.back() >= 4) {
        auto move = [&](Shape& s) { std::rotate(s.begin() + ptrdiff_t(d), s.begin() + ptrdiff_t(d) + 1, s.end() - 1); };
        move(dims_), move(from_), move(to_);
        transposes_ = true;
        break;
      }
  }
}

template <class T>
void StridedCopy::run_rows(const T* from, T* to, int64_t first, int64_t last) const {
  size_t inner = transposes_ ? 2 : 1, outer = dims_.size() - inner;
  int64_t at[16] = {}, f = 0, t = 0, rest = first;
  for (size_t d = outer; d-- > 0;) {
    at[d] = rest % dims_[d];
    rest /= dims_[d];
    f += at[d] * from_[d];
    t += at[d] * to_[d];
  }
  int64_t n = dims_.back(), fs = from_.back(), ts = to_.back();
  for (int64_t row = first; row < last; ++row) {
    if (transposes_) {
      if constexpr (sizeof(T) == 4)
        kernels().transpose(reinterpret_cast<const float*>(from + f), n, dims_[outer], fs,
                            reinterpret_cast<float*>(to + t), to_[outer]);
    } else if (fs == 1 && ts == 1) {
      if (n >= 16)
        std::memcpy(to + t, from + f, size_t(n) * sizeof(T));
      else
        for (int64_t i = 0; i < n; ++i) to[t + i] = from[f + i];
    } else if (fs == 0 && ts == 1) {
      std::fill(to + t, to + t + n, from[f]);
    } else {
      const T* a = from + f;
      T* b = to + t;
      for (int64_t i = 0; i < n; ++i) b[i * ts] = a[i * fs];
    }
    for (size_t d = outer; d-- > 0;) {
      f += from_[d];
      t += to_[d];
      if (++at[d] < dims_[d]) break;
      f -= at[d] * from_[d];
      t -= at[d] * to_[d];
      at[d] = 0;
    }
  }
}

void StridedCopy::run(const void* from, void* to, int threads) const {
  if (count_ == 0) return;
  int64_t per_row = dims_.back() * (transposes_ ? dims_[dims_.size() - 2] : 1);
  int64_t rows = count_ / per_row, grain = std::max<int64_t>(1, 65536 / (per_row * size_));
  parallel(threads, rows, grain, [&](int64_t first, int64_t last) {
    switch (size_) {
      case 1: return run_rows(static_cast<const uint8_t*>(from), static_cast<uint8_t*>(to), first, last);
      case 2: return run_rows(static_cast<const uint16_t*>(from), static_cast<uint16_t*>(to), first, last);
      case 4: return run_rows(static_cast<const uint32_t*>(from), static_cast<uint32_t*>(to), first, last);
      default: return run_rows(static_cast<const uint64_t*>(from), static_cast<uint64_t*>(to), first, last);
    }
  });
}

}  // namespace ai_vmm::cpu
