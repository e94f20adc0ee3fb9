// Copies between strided views: what Transpose, Slice, Concat, Expand, Pad and their like come down to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ai_vmm/types.hpp"

namespace ai_vmm::cpu {

// to[i · to_strides] = from[i · from_strides] for every index i of `dims`. Strides are in elements and may be 0 or
// negative on the reading side.
class StridedCopy {
 public:
  StridedCopy(Shape dims, Shape from_strides, Shape to_strides, int64_t element_size);
  void run(const void* from, void* to, int threads) const;

 private:
  template <class T>
  void run_rows(const T* from, T* to, int64_t first, int64_t last) const;
  Shape dims_, from_, to_;  // merged; the innermost dimension is last
  int64_t size_, count_;
  bool transposes_ = false;  // the two innermost dimensions swap their order
};

}  // namespace ai_vmm::cpu
