// Drivers of this layer behind the plugin interface: what the backends opencl, cuda and hip have in common.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ai_vmm/compute_backend.hpp"
#include "gpu/driver.hpp"

namespace ai_vmm::gpu {

struct FoundDevice {
  std::string name;
  std::string resource;  // as AiVmmDeviceInfo::resource
  int64_t memory_bytes = 0;
  std::function<Result<std::shared_ptr<Driver>>(const AiVmmHost*)> open;
};

class Backend : public backend::ComputeBackend {
 public:
  const char* version() const override { return "1"; }
  Status initialize(const AiVmmHost& host) final;
  int32_t device_count() const final { return int32_t(devices_.size()); }
  Status capabilities(int32_t index, AiVmmDeviceInfo& info) const final;
  Result<std::unique_ptr<backend::Device>> open(int32_t index) final;
  const void* extension(std::string_view name) final;

 protected:
  // The devices of this machine. A failure says what to install.
  virtual Result<std::vector<FoundDevice>> find() = 0;

 private:
  const AiVmmHost* host_ = nullptr;
  std::vector<FoundDevice> devices_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Driver>> drivers_;  // of opened devices; one a device
};

}  // namespace ai_vmm::gpu
