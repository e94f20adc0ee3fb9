// The tables of level 3 for drivers of this layer: buffers in a device's memory, and streams.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "ai_vmm/compute_backend.hpp"
#include "gpu/driver.hpp"

namespace ai_vmm::gpu {

// What the buffers of an opened device share.
class DeviceBuffers {
 public:
  explicit DeviceBuffers(std::shared_ptr<Driver> driver) : driver_(std::move(driver)) {}
  Driver& driver() { return *driver_; }
  int32_t device_type() const;  // of tensors in its memory, as DLPack numbers it

  // Runs f(queue) -> Status on a queue for copies.
  template <class F>
  Status on_queue(F&& f) {
    std::lock_guard lock(queue_mutex_);
    if (!queue_) queue_ = AI_VMM_TAKE(driver_->queue());
    return f(*queue_);
  }

  void add(const MemoryRef& memory);
  void remove(const Memory& memory);
  // The memory whose address a tensor of this device has as data.
  Result<MemoryRef> find(const void* address);

  std::atomic<int64_t> taken{0};  // bytes of buffers

 private:
  std::shared_ptr<Driver> driver_;
  std::mutex queue_mutex_, mutex_;
  std::unique_ptr<Queue> queue_;
  std::unordered_map<const void*, MemoryRef> by_address_;
};

// The device behind a handle, for the tables.
const std::shared_ptr<DeviceBuffers>& buffers_of(AiVmmDevice* device);

const void* level3(std::string_view name);  // null for an unknown name

}  // namespace ai_vmm::gpu
