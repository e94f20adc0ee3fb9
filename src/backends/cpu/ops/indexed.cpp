#include "backends/cpu/ops/indexed.hpp"

#include <cstring>

namespace ai_vmm::cpu {

IndexedCopy::IndexedCopy(const Shape& in, std::vector<std::vector<int64_t>> maps, int64_t size)
    : maps_(std::move(maps)), size_(size), unit_(size) {
  Shape shape = in;
  // Whole innermost axes become part of the item that is copied.
  auto whole = [&](size_t a) {
    if (int64_t(maps_[a].size()) != shape[a]) return false;
    for (size_t o = 0; o < maps_[a].size(); ++o)
      if (maps_[a][o] != int64_t(o)) return false;
    return true;
  };
  while (shape.size() > 1 && whole(shape.size() - 1)) {
    unit_ *= shape.back();
    shape.pop_back();
    maps_.pop_back();
  }
  if (shape.empty()) {
    shape = {1};
    maps_ = {{0}};
  }
  for (const auto& m : maps_) out_.push_back(int64_t(m.size()));
  in_strides_ = strides_of(shape);
  for (int64_t& s : in_strides_) s *= unit_;
  const auto& last = maps_.back();
  for (size_t o = 0; o < last.size(); ++o) {
    bool joins =
        !spans_.empty() && (last[o] < 0 ? spans_.back().in < 0
                                        : spans_.back().in >= 0 && last[o] == spans_.back().in + spans_.back().count);
    if (joins)
      ++spans_.back().count;
    else
      spans_.push_back({int64_t(o), 1, last[o]});
  }
  row_ = out_.back() * unit_;
}

namespace {
void fill_elements(char* to, int64_t bytes, const void* value, int64_t size) {
  switch (size) {
    case 1: std::memset(to, *static_cast<const unsigned char*>(value), size_t(bytes)); break;
    case 4: {
      uint32_t v;
      std::memcpy(&v, value, 4);
      for (int64_t i = 0; i < bytes; i += 4) std::memcpy(to + i, &v, 4);
      break;
    }
    default:
      for (int64_t i = 0; i < bytes; i += size) std::memcpy(to + i, value, size_t(size));
  }
}
}  // namespace

void IndexedCopy::run(const void* from, void* to, const void* fill, int threads) const {
  const size_t outer = out_.size() - 1;
  const int64_t rows = product(out_, 0, outer);
  if (row_ == 0) return;
  parallel(threads, rows, std::max<int64_t>(1, 32768 / row_), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      int64_t rest = r, base = 0;
      for (size_t a = outer; a-- > 0;) {
        int64_t at = maps_[a][size_t(rest % out_[a])];
        rest /= out_[a];
        if (at < 0) {
          base = -1;
          break;
        }
        base += at * in_strides_[a];
      }
      char* row = static_cast<char*>(to) + r * row_;
      if (base < 0) {
        fill_elements(row, row_, fill, size_);
        continue;
      }
      const char* source = static_cast<const char*>(from) + base;
      for (const Span& s : spans_) {
        if (s.in < 0)
          fill_elements(row + s.out * unit_, s.count * unit_, fill, size_);
        else
          std::memcpy(row + s.out * unit_, source + s.in * unit_, size_t(s.count * unit_));
      }
    }
  });
}

}  // namespace ai_vmm::cpu
