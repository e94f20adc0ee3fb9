// Products and convolutions by a vendor's library, as candidates beside our kernels.
#pragma once

#include <optional>

#include "gpu/kernel.hpp"

namespace ai_vmm::gpu {

// `task` on inputs `a` and `b` of the node; nullopt where no library does it. The result, of `count` elements in
// channels of `inner` each, goes to output 0; where an epilogue or `to_scratch` asks for it, by way of scratch memory.
std::optional<Bound> library_bound(const Bind& b, const LibraryTask& task, size_t first, size_t second,
                                   const Epilogue* epilogue, int64_t count, int64_t inner, int64_t channels,
                                   bool to_scratch);

}  // namespace ai_vmm::gpu
