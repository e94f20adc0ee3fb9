#include "ops/all_ops.hpp"

namespace ai_vmm {

// One line a family: the function is defined at the end of ops/<family>.cpp.
#define AI_VMM_OP_FAMILIES(X) \
  X(elementwise_ops)          \
  X(mixed_ops)                \
  X(cast_ops)                 \
  X(reduce_ops)               \
  X(along_axis_ops)           \
  X(matmul_ops)               \
  X(einsum_ops)               \
  X(generate_ops)             \
  X(random_ops)               \
  X(quantize_ops)             \
  X(quantize_linear_ops)      \
  X(loss_ops)                 \
  X(contrib_quantize_ops)     \
  X(shape_ops)                \
  X(slice_ops)                \
  X(gather_ops)               \
  X(unique_ops)               \
  X(col2im_ops)               \
  X(conv_ops)                 \
  X(pooling_ops)              \
  X(region_ops)               \
  X(resize_ops)               \
  X(normalization_ops)        \
  X(sequence_ops)             \
  X(control_ops)              \
  X(string_ops)               \
  X(image_ops)                \
  X(ml_features_ops)          \
  X(ml_linear_ops)            \
  X(ml_trees_ops)             \
  X(training_ops)             \
  X(recurrent_ops)            \
  X(fourier_ops)              \
  X(attention_ops)            \
  X(contrib_fused_ops)        \
  X(contrib_attention_ops)

#define X(family) std::span<const OpDef> family();
AI_VMM_OP_FAMILIES(X)
#undef X

std::vector<std::span<const OpDef>> op_families() {
  return {
#define X(family) family(),
      AI_VMM_OP_FAMILIES(X)
#undef X
  };
}

}  // namespace ai_vmm
