// The vendors' libraries of products and convolutions: cuBLASLt and cuDNN, hipBLAS. Each is loaded where it is
// installed; our own kernels serve everything without them.
#pragma once

#include <memory>
#include <span>

#include "gpu/driver.hpp"
#include "gpu/module/api.hpp"

namespace ai_vmm::gpu {

// Device addresses in the order of Driver::library_call.
class LibraryWork {
 public:
  virtual ~LibraryWork() = default;
  virtual Status start(std::span<const uint64_t> addresses, Handle stream) = 0;
};

class Libraries {
 public:
  // The device is the thread's current one. What is not there, and why, is logged.
  static std::unique_ptr<Libraries> load(Dialect dialect);
  virtual ~Libraries() = default;
  virtual const std::string& names() const = 0;  // "cuBLASLt 13.0.2, cuDNN 9.1.0", with versions; "none"
  virtual Result<std::unique_ptr<LibraryWork>> product(const LibraryProduct& p) = 0;
  virtual Result<std::unique_ptr<LibraryWork>> convolution(const LibraryConvolution& c) = 0;
};

}  // namespace ai_vmm::gpu
