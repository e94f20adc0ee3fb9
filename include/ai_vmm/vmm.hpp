// AI VMM for C++ programs: deploy a model on the best device of this machine, measured, and run it.
//
//   ai_vmm::VMM vmm;
//   auto model = vmm.deploy("model.onnx");
//   if (!model.ok()) return complain(model.status().message());
//   auto outputs = model->run({{"x", ai_vmm::Tensor::of<float>({1, 3, 224, 224}, pixels)}});
#pragma once

#include <future>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

enum class Precision { model, f32, bf16, int8, automatic };  // model: as the model says

// How a model is loaded and placed. Zero, empty and unset mean: the configured value (`aivmm config`).
struct DeployOptions {
  std::string backend;  // "cpu"; "auto", or names separated by commas: the fastest of ours, or of those, by measurement
  int threads = 0;      // at most; 0 and none configured: the fastest count that affinity and cgroup allow
  Precision precision = Precision::model;
  int64_t memory_limit = 0;          // bytes of tensors alive at once; 0: MemoryBudget's default share of the machine
  std::optional<bool> copy_weights;  // read weights into memory, so that a model file cut short later harms nobody
  std::optional<bool> allow_links;   // external data may be links that leave the model's folder
  std::optional<bool> allow_reference;  // nodes that no device can run fall to the slow reference, and are reported
  std::optional<bool> deterministic;    // pin kernel choices across loads: nothing is chosen by measurement
  int tune_budget_ms = 0;               // time for measuring candidates, beyond one run of each
  // Devices to run on when the chosen one fails, in this order, separated by commas; "none", or "auto": those that
  // would run the model had no backend been named.
  std::string failover;
  std::optional<bool> standby;          // compile for the first of them at once, so that a failure costs no compilation
  std::map<std::string, Shape> shapes;  // sizes of named inputs with symbolic dimensions, for tuning; optional
  std::vector<std::string> disabled_passes;
  uint64_t seed = 0;  // of operators that draw random numbers; 0: a new one each run
};

// An input or output of a model.
struct Port {
  std::string name;
  std::string type;                // "f32[N,3,224,224]", "seq(i64[...])"
  DType dtype = DType::undefined;  // of a tensor
  std::vector<int64_t> shape;      // of a tensor of known rank; -1 where a size is symbolic
  std::vector<std::string> dims;   // the same with the symbols' expressions
  bool is_tensor = true;
  bool optional = false;  // input: may be absent
};

// One way to run the model that was looked at, and what became of it.
struct Candidate {
  std::string backend, device;
  int threads = 0;
  std::string precision;
  double median_us = 0, min_us = 0;  // 0: not measured
  int runs = 0;
  bool chosen = false;
  bool simulated = false;  // the times are those of a simulated device's own clock
  std::string reason;      // why chosen, or why not, with the number
};

// A node that does not run on a native kernel of the chosen backend.
struct Fallback {
  std::string node, op, runs_on;  // runs_on: "generic", "reference", "host"
  std::string reason;
};

// What was decided for a deployment and why. Machine-readable through to_json.
struct Report {
  std::string model, model_kind;
  std::string device, backend, precision;
  int threads = 0;
  std::vector<Candidate> candidates;
  std::vector<Fallback> fallbacks;
  int64_t nodes = 0, regions = 0;
  int64_t load_us = 0, compile_us = 0;
  int64_t weight_bytes = 0, arena_bytes = 0;  // arena: of the largest shape class so far
  int64_t compilations = 0;                   // shape classes compiled so far, over all regions
  // Requests that ran on another device than they began on.
  struct Failover {
    std::string from, to;  // devices: "sim:0", "cpu"
    std::string state;     // "lost", "out of memory", "busy"
    std::string reason;    // of the first one
    int64_t requests = 0;
  };
  std::vector<Failover> failovers;
  // Bytes that went from one memory to another, over all runs.
  struct Transfer {
    std::string from, to;  // "host", or a device: "sim:0"
    std::string why;       // "input", "between regions", "host step", "output"; "by the backend": within a run
    int64_t times = 0;
    int64_t copied = 0, shared = 0;  // bytes; shared: both sides use the same memory
    int64_t ahead = 0;               // of the copied ones: brought while the device before was at work
  };
  std::vector<Transfer> transfers;
  // What runs cost on a simulated device by its own clock, in sum; zero without one.
  int64_t simulated_runs = 0;
  double simulated_us = 0, simulated_joules = 0;
  std::string to_json() const;
};

using Inputs = std::map<std::string, Data>;
using Outputs = std::map<std::string, Data>;

// A tensor that outlives runs and grows along one axis, such as the keys or values that a language model has cached. It
// belongs to whoever holds it, and to no executable or device: neither failover nor the end of a deployment takes it
// along. Copies of a State are the same state; fork() makes another. One run at a time may use it.
class State {
 public:
  // An empty one; dims[axis] is the capacity in rows.
  static Result<State> make(DType dtype, Shape dims, int64_t axis);
  // As it was when snapshot() gave these bytes, in this process or another.
  static Result<State> restore(std::string_view snapshot);

  DType dtype() const;
  Shape shape() const;  // of the rows so far
  int64_t axis() const;
  int64_t rows() const;
  int64_t capacity() const;
  int64_t own_bytes() const;                    // of pages that no fork shares
  std::vector<const void*> page_table() const;  // pages of 16 rows; valid until the state changes

  // Rows of the state's type, and of its shape but for the axis. A refused append changes nothing.
  Status append(const Tensor& rows);
  Status truncate(int64_t rows);
  Result<Tensor> read(int64_t begin, int64_t rows) const;
  // A second state of equal content: pages are shared until one of the two writes to them.
  State fork() const;
  std::string snapshot() const;

  struct Impl;

 private:
  friend class Deployment;
  explicit State(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

// How a run uses a state that it is given for an input.
struct StateUse {
  State state;
  // The output that holds the rows so far and the new ones. When the run has succeeded, the new ones are appended, and
  // the output is not returned. "": the state stays as it is.
  std::string output;
};

struct RunOptions {
  // Buffers to write in place: dense tensors of the right type and shape. They are returned as given.
  Outputs outputs;
  // By input: states that stand in for tensors.
  std::map<std::string, StateUse> states;
  // Another thread or a signal handler that sets it to anything but 0 ends the run soon, with `cancelled`. It must live
  // until the run has ended.
  const volatile int32_t* cancel = nullptr;
};

// A loaded, warmed model. Copies share it. `run` may be called from many threads at once.
class Deployment {
 public:
  const std::vector<Port>& inputs() const;
  const std::vector<Port>& outputs() const;
  // Initialisers that are inputs too (IR version 4 and later): a run may give others in their place. The first run that
  // does compiles the model once more, with those as inputs; the default ones stay folded into the other plan.
  const std::vector<Port>& overridable() const;
  const std::map<std::string, std::string>& metadata() const;  // the model's custom properties

  // Runs once. Missing or unknown input names, wrong element types and impossible shapes are invalid_argument.
  // Input tensors are read in place; outputs are new tensors unless options.outputs holds them.
  Result<Outputs> run(const Inputs& inputs, const RunOptions& options = {}) const;
  // The same in the order of inputs() and outputs(): no name is looked up. An empty Data is an absent input; tensors in
  // `outputs`, which has one entry an output, are written in place. With a buffer for every output and the shapes of
  // the last run, a model of one region allocates no memory.
  Status run(std::span<const Data> inputs, std::span<Data> outputs, const volatile int32_t* cancel = nullptr) const;
  std::future<Result<Outputs>> run_async(Inputs inputs, RunOptions options = {}) const;

  // An empty state of the type of this input. `sizes` gives the values of its symbolic sizes, such as "batch", but for
  // the one of the growing axis.
  Result<State> make_state(const std::string& input, int64_t capacity,
                           const std::map<std::string, int64_t>& sizes = {}) const;

  Report report() const;
  std::string graph_text() const;  // the optimised graph
  std::string plan_text() const;

  struct Impl;
  explicit Deployment(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<Impl> impl_;
};

// The machine's devices and everything remembered about them. Cheap to make; thread-safe.
class VMM {
 public:
  VMM();
  ~VMM();
  VMM(VMM&&) noexcept;
  VMM& operator=(VMM&&) noexcept;

  Result<Deployment> deploy(const std::string& path, const DeployOptions& options = {}) const;
  // The bytes are copied. External data is refused: bytes have no folder.
  Result<Deployment> deploy(std::span<const std::byte> model, const DeployOptions& options = {}) const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace ai_vmm
