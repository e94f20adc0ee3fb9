// A region compiled for a device, and the state of one run of it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "gpu/driver.hpp"
#include "gpu/kernel.hpp"
#include "graph/graph.hpp"

namespace ai_vmm::gpu {

struct Options {
  bool deterministic = false;  // nothing chosen by measurement
  std::string way = {};        // of tests: where ways compete, the one of this note is taken without measurement
  int64_t memory_limit = 0;    // bytes of the arena; 0: none
};

// How a node would run on its own: the reason, and a literal that explains it.
struct NodeVerdict {
  AiVmmReason reason;
  const char* detail;
};
std::vector<NodeVerdict> query(const Graph& graph, const Traits& traits);

// A value at run time. Sizes are indices into Program::exprs.
struct Slot {
  enum class Kind : uint8_t {
    unused,
    arena,
    input,   // number `index`
    output,  // number `index`, written in place
    constant,
    ints,  // small integers known when sizes are; no step makes them
  };
  Kind kind = Kind::unused;
  DType dtype = DType::undefined;
  std::vector<int> dims;
  int index = -1;
  int root = -1;              // the value whose storage this one shares; itself when it has its own
  std::vector<int> members;   // of a root: all values in its storage, itself included
  int first = -1, last = -1;  // of a root: first and last step that touches it
  Tensor constant;
  std::vector<int> ints;
  std::string name;
};

struct Step {
  std::string op, label;
  std::vector<int> in, out;
  BindFn bind;
  uint32_t values = 0;
};

// Immutable once compiled, but for what all contexts share: constants on the device, counters.
class Program {
 public:
  static Result<std::shared_ptr<const Program>> compile(Graph region, std::shared_ptr<Driver> driver,
                                                        const Options& options);

  std::shared_ptr<Driver> driver;
  Options options;
  std::string name;
  // Set where a rank or size follows only from the inputs at hand: the program has no steps, and `settled` makes one
  // for each set of input shapes.
  std::shared_ptr<const Graph> open;
  Result<std::shared_ptr<const Program>> settled(std::span<const Tensor> inputs) const;
  std::vector<Slot> slots;
  std::vector<Step> steps;
  std::vector<Dim> exprs;
  std::vector<int> inputs, outputs;
  std::vector<char> output_copy;  // the output is copied at the end of the run from its value's storage

  // A constant on the device, brought there once.
  Result<MemoryRef> constant(int value) const;
  Result<MemoryRef> packed(const std::string& key, int64_t bytes, const std::function<void(void*)>& write) const;
  void drop(const std::string& key) const;  // it lives on where it is in use
  int64_t weight_bytes() const { return weight_bytes_; }
  mutable std::atomic<int64_t> arena_bytes{0}, plans{0};
  std::string to_text() const;  // one line a step

 private:
  mutable std::mutex mutex_;
  mutable std::unordered_map<std::string, MemoryRef> packed_;
  mutable std::unordered_map<std::string, std::shared_ptr<const Program>> settled_;
  mutable std::atomic<int64_t> weight_bytes_{0};
};

struct OutputSlot {
  void* data = nullptr;
  std::span<const int64_t> shape;
  std::function<Result<void*>(DType, const Shape&)> allocate;
  std::function<Result<MemoryRef>(DType, const Shape&)> place;  // if there is one, the output is left in that memory
};

// Bytes that a run copied between the host and the device.
struct Copied {
  int64_t to_device = 0, from_device = 0;
};

// One run at a time. Inputs are dense and row-major; those that have an entry in `placed` (which is empty, or has one
// an input) lie there, and their tensors tell type and shape alone.
class Context {
 public:
  static Result<std::unique_ptr<Context>> make(std::shared_ptr<const Program> program);
  ~Context();
  Status run(std::span<const Tensor> inputs, std::span<const OutputSlot> outputs, const volatile int32_t* cancel,
             std::span<const MemoryRef> placed = {}, Copied* copied = nullptr);

 private:
  explicit Context(std::shared_ptr<const Program> program);
  struct Impl;
  std::shared_ptr<const Program> program_;
  std::unordered_map<const Program*, std::unique_ptr<Impl>> impls_;  // one, or those of the programs settled so far
};

}  // namespace ai_vmm::gpu
