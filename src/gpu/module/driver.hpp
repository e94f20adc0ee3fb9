// Devices that are driven by modules of machine code: CUDA's and HIP's.
#pragma once

#include <vector>

#include "gpu/backend.hpp"
#include "gpu/dialect.hpp"

namespace ai_vmm::gpu {

// The devices of CUDA or HIP. A failure says what to install.
Result<std::vector<FoundDevice>> find_module_devices(Dialect dialect);

// The backends cuda and hip, but for their names.
class ModuleBackend : public Backend {
 public:
  explicit ModuleBackend(Dialect dialect) : dialect_(dialect) {}

 protected:
  Result<std::vector<FoundDevice>> find() override { return find_module_devices(dialect_); }

 private:
  const Dialect dialect_;
};

}  // namespace ai_vmm::gpu
