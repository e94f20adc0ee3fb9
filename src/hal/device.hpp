// Devices as the host sees them: opened through the C plugin interface, wrapped in ownership.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ai_vmm/backend_abi.h"
#include "ai_vmm/types.hpp"
#include "graph/graph.hpp"
#include "hal/memory.hpp"

namespace ai_vmm {

class Executable;

struct Verdict {
  AiVmmReason reason = AI_VMM_REFUSED_OPERATOR;
  std::string detail;
  double est_ns = 0, est_bytes = 0;  // the backend's own estimate; 0: not known
};
const char* name(AiVmmReason reason);  // "native", "generic", "operator not implemented", …

struct CompileOptions {
  int threads = 0;
  bool deterministic = false;
  int64_t memory_limit = 0;
};

// An opened device. Thread-safe. Executables keep their device open.
class Device : public std::enable_shared_from_this<Device> {
 public:
  // Opens a device by the name of its backend and its number: "cpu", "sim:1", "file:plugin.so". Fails with the known
  // names when there is no such backend.
  static Result<std::shared_ptr<Device>> open(std::string_view name);
  ~Device();

  const std::string& backend() const { return backend_; }
  const std::string& name() const { return name_; }
  const std::string& label() const { return label_; }        // "sim:1"
  const std::string& resource() const { return resource_; }  // the physical thing behind it
  int index() const { return index_; }
  int64_t memory_bytes() const { return memory_bytes_; }
  bool simulated() const { return simulated_; }  // its times and energy are computed, not measured

  // Its memory, where the host can reach that through the extension "buffers"; null otherwise.
  DeviceMemory* memory() const { return memory_.get(); }

  const AiVmmStates* states() const { return states_; }  // null when it keeps none
  AiVmmDevice* handle() const { return device_; }

  // Success while the device works. A device that has no such probe counts as working.
  Status state() const;

  // One verdict a node. The graph may hold host-only nodes; they are refused. A backend that answers no queries (level
  // 1) compiles the graph, and what becomes of that is the verdict of all its nodes.
  Result<std::vector<Verdict>> query(const Graph& graph);
  Result<std::shared_ptr<Executable>> compile(std::shared_ptr<const Graph> graph, const CompileOptions& options);

 private:
  friend class Executable;
  Device() = default;
  const AiVmmBackend* api_ = nullptr;
  AiVmmDevice* device_ = nullptr;
  std::string backend_, name_, label_, resource_;
  int index_ = 0;
  int64_t memory_bytes_ = 0;
  bool simulated_ = false;
  std::unique_ptr<DeviceMemory> memory_;
  const AiVmmStates* states_ = nullptr;
};

// Backends of this build and of the setting `plugins`, the preferred first by prior.
std::vector<std::string> backend_names();
// Those of them that take part where the caller named none.
std::vector<std::string> automatic_backend_names();

// The physical thing behind a device ("sim:1"), without opening it; its own name when the backend cannot say.
std::string device_resource(std::string_view name);

struct DeviceDescription {
  std::string backend, version, name, resource, origin;
  int index = 0;
  int64_t memory_bytes = 0;
  bool simulated = false;
  std::string problem;  // why it cannot be used; empty when it can
};
// Every device of every backend, plugins included.
std::vector<DeviceDescription> list_devices();

// Whether an output of this type and shape can be written into the buffer that was given for it.
Status check_buffer(const std::string& output, DType dtype, std::span<const int64_t> shape, const Tensor& buffer);

// What one run asks of a device.
struct RunRequest {
  int threads = 0;
  uint64_t seed = 0;
  const volatile int32_t* cancel = nullptr;
  AiVmmRunInfo* info = nullptr;    // times, energy and copies are added to what is there
  Transfers* transfers = nullptr;  // where bytes that move are counted
};

// A compiled graph. Thread-safe: contexts are pooled, one a concurrent run.
class Executable {
 public:
  ~Executable();
  const Graph& graph() const { return *graph_; }
  const Device& device() const { return *device_; }
  AiVmmExecutableInfo info() const;

  // Reads `inputs` in place. `outputs[k]`, where it is a tensor, is a buffer that is written in place and must fit;
  // otherwise it is replaced by a new tensor. Allocates nothing of its own for up to 16 inputs and outputs together.
  // Where `placed` has an entry, that is the tensor, in the device's own memory: inputs first, then outputs, which are
  // made. `placed` is empty, or has one entry an input and output.
  Status run(std::span<const Tensor* const> inputs, std::span<Tensor* const> outputs, const RunRequest& request,
             std::span<DeviceTensor* const> placed = {});

 private:
  friend class Device;
  Executable() = default;
  std::shared_ptr<Device> device_;
  std::shared_ptr<const Graph> graph_;  // its constants must stay valid
  AiVmmExecutable* executable_ = nullptr;
  std::mutex mutex_;
  std::vector<AiVmmContext*> idle_;
};

}  // namespace ai_vmm
