// Copies in which every output index along an axis names an input index: Pad, Tile, nearest Resize.
#pragma once

#include <vector>

#include "backends/cpu/kernel.hpp"

namespace ai_vmm::cpu {

// maps[axis][o] is the input index for output index o, or -1 for the fill value. Elements are `size` bytes.
class IndexedCopy {
 public:
  IndexedCopy(const Shape& in, std::vector<std::vector<int64_t>> maps, int64_t size);
  // `fill`: one element; may be null when no map holds -1.
  void run(const void* from, void* to, const void* fill, int threads) const;

 private:
  struct Span {  // of the innermost axis: `count` elements from `in`, or fill
    int64_t out, count, in;
  };
  Shape out_, in_strides_;  // in_strides_ in bytes
  std::vector<std::vector<int64_t>> maps_;
  std::vector<Span> spans_;
  int64_t size_, unit_;  // bytes of an element, and of an innermost item after merging whole axes
  int64_t row_ = 0;      // bytes of an output row
};

}  // namespace ai_vmm::cpu
