// Matrix products as parts of other operators.
#pragma once

#include "gpu/kernel.hpp"

namespace ai_vmm::gpu {

// C[batch, m, n] = Σk A[batch, m, k] · B[batch, k, n], by strides in elements; A and B are inputs of the node.
struct Product {
  size_t a_input, b_input;
  int64_t m, n, k;
  int64_t am, ak, bk, bn;
  Shape batch, a_batch, b_batch;  // sizes and strides
  bool to_scratch = false;        // the result is dense in scratch memory, at Bound::scratch before the call
};

// Launches that compute `p` into scratch memory from byte `*at` on; `scratch` of the Bound covers it.
Result<Bound> product_to_scratch(const Bind& b, Product p, int64_t* at);

}  // namespace ai_vmm::gpu
