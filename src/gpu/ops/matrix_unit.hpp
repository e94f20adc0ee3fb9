// Products on matrix units: NVIDIA's tensor cores (mma, from sm_80 on) and AMD's matrix cores (mfma, from gfx90a on).
//
// A group of 256 work items computes a block of 128 rows by 128 columns. Both operands lie in group memory as 32-bit
// words along the inner axis, each of one number or two halves: a[row][word] and b[column][word]. So one kernel text
// serves all arithmetics; what a lane reads and holds is in the words of matrix_words.
#pragma once

#include <optional>

#include "gpu/kernel.hpp"

namespace ai_vmm::gpu {

// The arithmetic that products of `type` are computed in on the device's matrix units; nullopt: not on them. Numbers of
// half precision keep theirs; float32 is rounded only as far as Traits::products allows. Sums are always of float32.
std::optional<Arithmetic> matrix_arithmetic(const Traits& traits, DType type);
const char* name(Arithmetic arithmetic);

// Words of a kernel:
//   unit       text before it: the instructions and word_of(), which makes a word's part of a number
//   declare    group memory a and b, `id` of the work item, its part of the block, sums r set to 0
//   PER, KB    numbers in a word; numbers along the inner axis that a[][] and b[][] hold
//   multiply   adds what a and b hold to r; barriers before and after
//   each       the head of loops over the sums that the work item holds: `row` and `column` in the block, `sum`
//   LANES      work items in a group
//   exact_declare, exact_flush   before the loop over the inner axis, and at the end of its body: exact[i][j][e] is the
//              sum of whole numbers below 256, in ints; of bf16 only
Words matrix_words(MatrixUnit unit, Arithmetic arithmetic);

}  // namespace ai_vmm::gpu
