// OpenCL devices behind the plugin interface. The library is loaded when the backend is asked for.
#include "gpu/backend.hpp"
#include "backends/opencl/driver.hpp"

namespace ai_vmm::opencl {

namespace {

class ClBackend : public gpu::Backend {
 public:
  const char* name() const override { return "opencl"; }

 protected:
  Result<std::vector<gpu::FoundDevice>> find() override {
    std::vector<gpu::FoundDevice> found;
    for (const DeviceId& id : AI_VMM_TAKE(find_devices()))
      found.push_back({id.name + " (" + id.platform_name + ")", id.resource, id.memory_bytes,
                       [id](const AiVmmHost* host) { return open_driver(id, host); }});
    if (found.empty())
      return Status(
          Code::unavailable,
          "There is no OpenCL device. Install the OpenCL driver of the device (pocl-opencl-icd runs OpenCL on "
          "the processor).");
    return found;
  }
};

}  // namespace

const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  return backend::entry<ClBackend>(host, status);
}

}  // namespace ai_vmm::opencl
