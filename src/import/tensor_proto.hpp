// TensorProto and SparseTensorProto → Tensor.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/proto.hpp"

namespace ai_vmm {

// Where the bytes of tensors come from and may go.
struct TensorSource {
  // Keeps the message's bytes alive; they may be viewed. With `copy` every tensor owns its bytes instead.
  std::shared_ptr<const void> owner;
  bool copy = false;
  // Opens an external-data file by its name in the model; empty: external data is refused.
  std::function<Result<std::shared_ptr<const void>>(const std::string& location, Bytes& bytes)> external;
  // Bytes that dense forms of sparse tensors may still take: they alone can be larger than what was read.
  int64_t sparse_allowance = int64_t(1) << 30;
};

struct NamedTensor {
  std::string_view name;  // in the message
  Tensor tensor;
};

// Views the bytes in place where it can: raw_data, packed floats and external data. A view starts wherever the bytes
// lie in the file, so tensors of 4 KiB and more may be unaligned; smaller ones are copied when they are.
Result<NamedTensor> read_tensor_proto(Bytes bytes, TensorSource& source);
Result<NamedTensor> read_sparse_tensor_proto(Bytes bytes, TensorSource& source);  // dense

}  // namespace ai_vmm
