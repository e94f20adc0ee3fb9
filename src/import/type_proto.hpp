// TypeProto and ValueInfoProto → Type, and the names of unknown sizes.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/proto.hpp"
#include "graph/graph.hpp"

namespace ai_vmm {

// Names of sizes in one model. A dim_param is one symbol wherever it stands; a size without a name gets one made of the
// value's name and the axis. No two of different origin are equal, though characters are replaced.
class Symbols {
 public:
  Dim named(std::string_view param);
  Dim unnamed(std::string_view value, size_t axis);
  // One more than the largest n of symbols "u<n>": inference makes its own names from there.
  int64_t first_free() const { return first_free_; }

 private:
  Dim take(std::string name);
  std::map<std::string, Dim, std::less<>> by_param_;
  std::map<std::string, int> taken_;  // name → the number that its next namesake gets
  int64_t first_free_ = 0;
};

// A tensor's size that is negative counts as unknown; 0 is a size of 0. Sparse tensors are dense here.
// `value` names unknown sizes. `shapes` off: dimensions are not read, only element types.
Result<Type> read_type_proto(Bytes bytes, std::string_view value, Symbols& symbols, bool shapes = true);

}  // namespace ai_vmm
