// Infer rules that several families share.
#pragma once

#include "ops/op.hpp"

namespace ai_vmm {

// Output 0 has the given element type and the shape that all inputs broadcast to.
Status infer_broadcast(Infer& c, DType dtype);
// All tensor inputs broadcast together; the element type is the first input's. Propagates known integers of
// Add, Sub, Mul, Div, Max, Min and of one-input copies.
Status infer_elementwise(Infer& c);
// Output k has the type of input k (Identity-like).
Status infer_same(Infer& c);
// The type written to output k so far.
Type infer_output_type(const Infer& c, size_t k);

}  // namespace ai_vmm
