// The driver of one OpenCL device, for the programs of gpu/.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ai_vmm/backend_abi.h"
#include "backends/opencl/api.hpp"
#include "gpu/driver.hpp"

namespace ai_vmm::opencl {

struct DeviceId {
  cl_platform_id platform;
  cl_device_id device;
  std::string name, platform_name, driver;
  cl_device_type type;
  int64_t memory_bytes;
  std::string resource;  // as AiVmmDeviceInfo::resource
};

// Every device of every platform that runs OpenCL 1.2 with a compiler, accelerators before processors.
Result<std::vector<DeviceId>> find_devices();

// `host` gives the remembered choices; it outlives the driver. `wide`: the kind of kernels; without it, as the setting
// says.
Result<std::shared_ptr<gpu::Driver>> open_driver(const DeviceId& id, const AiVmmHost* host,
                                                 std::optional<bool> wide = std::nullopt);

}  // namespace ai_vmm::opencl
