// Kernels that go over rows: one work item a row with wide registers, otherwise one group of work items a row.
#pragma once

#include <string>

#include "gpu/kernel.hpp"

namespace ai_vmm::gpu {

// Words for a kernel over rows of `n` elements: V, W, idx, L (work items of a group), SHARE (declares what `reduce`
// needs; once a kernel).
struct RowText {
  RowText(const Bind& b, int64_t n);
  int width;
  int64_t group;
  Words words;

  // Declares the float `name`: `start`, then `combine` of a and v over the row, v being `value` of the element x; seen
  // by all items of the group. `at` is the pointer to the row.
  std::string reduce(const std::string& name, const std::string& start, const std::string& combine,
                     const std::string& value, const std::string& at) const;
  // For all elements of the row: statements over `i`, its vectors `x` of type T loaded from `at`, and STORE(value) to
  // `to`. `constants` are pointers along the row, loaded as variables of their own names with an underscore before.
  std::string map(const std::string& at, const std::string& to, const std::string& value,
                  const std::vector<std::string>& along = {}) const;
};

}  // namespace ai_vmm::gpu
