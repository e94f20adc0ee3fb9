// Copying between strided views of tensors: the one loop under every operator that only moves elements.
#pragma once

#include "ops/op.hpp"

namespace ai_vmm {

// A walk through a tensor: the element of index i stands at `start` + Σ i[k]·strides[k] (in elements; strides may be 0
// or negative).
struct View {
  int64_t start = 0;
  Shape strides;
};

// to[i] = from[i] for every index i of `shape`. Both views must stay inside their tensors; element types are equal.
void copy_view(Tensor& to, const View& to_view, const Tensor& from, const View& from_view, const Shape& shape);

// The elements of `from` seen through `view`, as the dense output 0 of shape `out` (as many elements as `shape`).
Status eval_view(Eval& e, const Tensor& from, const View& view, const Shape& shape, const Shape& out);

// Sets output k to the elements of `t` in another shape of equal count: shared when `t` keeps its memory alive, else
// copied.
Status share(Eval& e, size_t k, const Tensor& t, Shape shape);

// Zeros (false, "") in all elements.
void fill_zero(Tensor& t);

// A one-element integer tensor as int64 (any rank); fails when it has another count.
Result<int64_t> scalar_int(const Eval& e, const Tensor& t, const char* what);

// An index in [-size, size) → [0, size); fails naming the node.
Result<int64_t> checked_index(const Eval& e, int64_t index, int64_t size);

}  // namespace ai_vmm
