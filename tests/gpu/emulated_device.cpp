// The kernel tests on an emulated GPU: AI_VMM_EMULATED says of which dialect.
#include "ai_vmm/compute_backend.hpp"
#include "gpu/module/driver.hpp"
#include "gpu/testing/kernel_device.hpp"

namespace ai_vmm {

std::vector<bool> kernel_kinds() { return {false}; }

std::shared_ptr<gpu::Driver> kernel_device(bool) {
  static const AiVmmHost host = backend::make<AiVmmHost>();
  static const std::shared_ptr<gpu::Driver> driver = []() -> std::shared_ptr<gpu::Driver> {
    auto devices = gpu::find_module_devices(gpu::Dialect::AI_VMM_EMULATED);
    if (!devices.ok()) return std::fprintf(stderr, "%s\n", devices.status().message().c_str()), nullptr;
    auto opened = (*devices)[0].open(&host);
    if (!opened.ok()) return std::fprintf(stderr, "%s\n", opened.status().message().c_str()), nullptr;
    return *opened;
  }();
  return driver;
}

}  // namespace ai_vmm
