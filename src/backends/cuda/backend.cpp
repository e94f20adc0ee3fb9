// NVIDIA's devices, through CUDA's driver interface, behind the plugin interface.
#include "gpu/module/driver.hpp"

namespace ai_vmm::cuda {

namespace {
class DeviceBackend : public gpu::ModuleBackend {
 public:
  DeviceBackend() : ModuleBackend(gpu::Dialect::cuda) {}
  const char* name() const override { return "cuda"; }
};
}  // namespace

const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  return backend::entry<DeviceBackend>(host, status);
}

}  // namespace ai_vmm::cuda
