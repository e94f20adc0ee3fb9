// AMD's devices, through HIP, behind the plugin interface.
#include "gpu/module/driver.hpp"

namespace ai_vmm::hip {

namespace {
class DeviceBackend : public gpu::ModuleBackend {
 public:
  DeviceBackend() : ModuleBackend(gpu::Dialect::hip) {}
  const char* name() const override { return "hip"; }
};
}  // namespace

const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  return backend::entry<DeviceBackend>(host, status);
}

}  // namespace ai_vmm::hip
