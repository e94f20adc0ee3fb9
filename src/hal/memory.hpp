// Memory of devices as the host uses it. A device whose memory is the host's reads and writes tensors where they lie. A
// device with memory of its own, which offers the extension "buffers", is given blocks out of a pool; what moves
// between its memory and others is counted with the reason.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "ai_vmm/backend_abi.h"
#include "ai_vmm/types.hpp"
#include "base/pool.hpp"

namespace ai_vmm {

class Device;
class MemoryBudget;

// ---------------------------------------------------------------- counters

enum class Why : uint8_t {
  input,    // a region reads what the caller, or a step of the host, gave
  region,   // a region reads what a region elsewhere made
  host,     // a step of the host reads what a region made
  output,   // the caller gets what a region made
  backend,  // the backend moved the bytes itself, within a run
  state,    // a state is brought up to date (runtime/state.hpp)
};
const char* name(Why why);

// Bytes that went from one memory to another, in sum.
struct Transfer {
  std::string from, to;  // "host", or a device: "sim:0"
  Why why = Why::input;
  int64_t times = 0;
  int64_t copied = 0, shared = 0;  // bytes; shared: both sides use the same memory
  int64_t ahead = 0;               // of the copied ones: brought while the device before was at work
};

// Thread-safe. Adding to a row that is there allocates nothing.
class Transfers {
 public:
  void add(std::string_view from, std::string_view to, Why why, int64_t copied, int64_t shared, int64_t ahead = 0);
  std::vector<Transfer> rows() const;
  void clear();

 private:
  mutable std::mutex mutex_;
  std::vector<Transfer> rows_;
};

// ---------------------------------------------------------------- blocks

class DeviceMemory;

// A block of a device's memory. Goes back to the pool when destroyed, or is released where it was imported.
class DeviceBlock {
 public:
  DeviceBlock() = default;
  DeviceBlock(DeviceBlock&& b) noexcept { *this = std::move(b); }
  DeviceBlock& operator=(DeviceBlock&& b) noexcept;
  ~DeviceBlock() { release(); }
  explicit operator bool() const { return buffer_ != nullptr; }
  void* address() const { return address_; }
  DeviceMemory& memory() const;

 private:
  friend class DeviceMemory;
  void release();
  std::shared_ptr<Device> device_;
  std::shared_ptr<MemoryBudget> budget_;
  AiVmmBuffer* buffer_ = nullptr;
  AiVmmEvent* pending_ = nullptr;  // of a write that may still be under way
  void* address_ = nullptr;
  int64_t bytes_ = 0;
  int pool_ = -1;  // -1: imported
};

// A tensor in a device's memory.
struct DeviceTensor {
  DType dtype = DType::undefined;
  Shape shape;
  DeviceBlock block;
  int64_t bytes = 0;
  double written_ns = -1;       // of a write ahead: the simulated time at which it began; -1: there was none
  AiVmmState* state = nullptr;  // the tensor is a state, and has no block
};

// The memory of one opened device of its own. Thread-safe.
class DeviceMemory {
 public:
  // Null when the device offers no buffers.
  static std::unique_ptr<DeviceMemory> of(Device& device, const AiVmmBackend& api, AiVmmDevice* handle);
  ~DeviceMemory();

  bool shares_host() const { return shares_host_; }  // the device reads and writes the host's memory in place
  int32_t device_type() const { return info_.device_type; }
  int32_t device_id() const { return info_.device_id; }
  Device& device() const { return device_; }

  // In O(1) where an equal block was given back. Charged to MemoryBudget::current().
  Result<DeviceBlock> take(int64_t bytes);
  Status write(DeviceBlock& to, const void* from, int64_t bytes);
  // Only begins to, where the device has streams; `from` must stay until settle(). False: there are none.
  Result<bool> write_ahead(DeviceBlock& to, const void* from, int64_t bytes);
  Status settle(DeviceBlock& block);
  Status read(const DeviceBlock& from, void* to, int64_t bytes);
  // The memory of a block of another device, where one can export what the other imports; an empty block if not. It
  // must be destroyed before that block.
  Result<DeviceBlock> share(const DeviceBlock& other, int64_t bytes);
  // Through two pieces of the host's memory in turn, so that one is written while the other is read. They are known to
  // the device that is written to, where it can import the host's memory, so that it need not copy them once more.
  Status copy(const DeviceBlock& from, DeviceBlock& to, int64_t bytes);

  // What a copy to or from the host takes on a simulated device, by its own clock; otherwise nothing.
  double link_ns(int64_t bytes) const;
  double link_joules(double ns) const { return info_.link_watts * ns * 1e-9; }

 private:
  friend class DeviceBlock;
  explicit DeviceMemory(Device& device);
  void give_back(DeviceBlock& block);
  void trim();
  Status begin_write(AiVmmBuffer* to, int64_t offset, const void* from, int64_t bytes, AiVmmEvent*& event);
  Status wait(AiVmmEvent*& event);
  struct Staging;
  std::unique_ptr<Staging> staging();

  // Blocks of one class are of one size: four classes between powers of two, from 256 bytes on.
  static constexpr int kClasses = 4 * 48;
  static int class_of(int64_t bytes);
  static int64_t size_of(int size_class);
  struct Idle {
    AiVmmBuffer* buffer;
    void* address;
  };

  Device& device_;
  AiVmmDevice* handle_ = nullptr;
  const AiVmmBuffers* api_ = nullptr;
  const AiVmmStreams* streams_ = nullptr;  // may be null
  AiVmmMemory info_{};
  bool shares_host_ = false, simulated_ = false;
  std::mutex mutex_;  // guards the pools
  std::array<std::vector<Idle>, kClasses> idle_;
  std::mutex upload_mutex_;  // a stream serves one caller at a time
  AiVmmStream* upload_ = nullptr;
  std::vector<AiVmmEvent*> events_;  // idle ones
  Pool<Staging> stagings_;
};

}  // namespace ai_vmm
