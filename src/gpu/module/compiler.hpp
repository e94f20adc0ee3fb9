// Kernel text → machine code, at run time, by NVRTC or hiprtc. Needs no device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ai_vmm/types.hpp"
#include "gpu/dialect.hpp"

namespace ai_vmm::gpu {

struct CompilerApi;

class Compiler {
 public:
  // Loads the compiler of the dialect (cuda or hip). `folder`: the only place to look for it.
  static Result<std::unique_ptr<Compiler>> load(Dialect dialect, const std::string& folder = "");
  ~Compiler();

  // `architecture`: "sm_90", "gfx90a". Arithmetic is as the operators define it: subnormals are kept, division and
  // square root are exact to half a unit; products and sums may be contracted. A failure holds the compiler's words.
  Result<std::string> compile(const std::string& text, const std::string& architecture) const;
  const std::string& version() const { return version_; }  // "NVRTC 13.0"

 private:
  Compiler();
  std::unique_ptr<CompilerApi> api_;
  std::string version_;
};

}  // namespace ai_vmm::gpu
