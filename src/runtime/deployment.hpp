// A deployment: a plan that is loaded and watched. It owns what concurrent runs share.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ai_vmm/vmm.hpp"
#include "base/pool.hpp"
#include "hal/held_state.hpp"
#include "plan/plan.hpp"
#include "runtime/failover.hpp"

namespace ai_vmm {

struct Deployment::Impl {
  std::shared_ptr<const Plan> plan;
  std::vector<Port> inputs, outputs;  // in the plan's order
  std::vector<Port> overridable;
  std::map<std::string, std::string> metadata;
  Report report;  // as made at deploy; arena_bytes and compilations are read live
  int threads = 0;
  int64_t memory_limit = 0;
  uint64_t seed = 0;
  std::atomic<uint64_t> runs{0};
  bool simulated = false;                   // of the device that `plan` runs on
  std::unique_ptr<FailoverChain> failover;  // null: a failure of the device is the caller's
  Transfers transfers;                      // of all runs
  std::atomic<int64_t> simulated_runs{0}, simulated_ns{0}, simulated_nanojoules{0};  // by the device's own clock

  // Compiles the model anew with these of its overridable initialisers as inputs.
  std::function<Result<std::shared_ptr<Impl>>(const std::vector<std::string>& overridden)> recompile;

  // Sets inputs, outputs and metadata. Before any run.
  void set_interface(const Graph& graph);
  // Checks the inputs and runs the plan. `threads` overrides the deployment's.
  // `states`: by input, those that stand in for tensors; their outputs' new rows are not appended here.
  Status run(const Inputs& inputs, Outputs& outputs, int threads, const volatile int32_t* cancel = nullptr,
             const std::map<std::string, HeldState*>& states = {});
  Status run(std::span<const Data> inputs, std::span<Data> outputs, int threads,
             const volatile int32_t* cancel = nullptr);
  // The deployment in which those overridable initialisers that `inputs` gives are inputs, compiled when needed; the
  // last kVariants of them are kept. Null: `inputs` gives none, and this is the one.
  Result<std::shared_ptr<Impl>> variant(const Inputs& inputs);

  static constexpr size_t kVariants = 4;
  std::mutex variants_mutex;
  std::vector<std::pair<std::vector<std::string>, std::shared_ptr<Impl>>> variants;  // the last used first

 private:
  struct Call {  // what one run holds
    std::shared_ptr<MemoryBudget> budget;
    std::vector<const Data*> inputs;  // in order, as the outputs
    std::vector<Data*> outputs;
    std::vector<HeldState*> states;  // empty, or one an input: the state that stands in for it, or null
    std::vector<int64_t> sizes;  // by number of the symbolic size, -1 not seen yet; then the unranked inputs' shapes
    std::vector<int64_t> last_sizes;  // of the run before
  };
  std::unique_ptr<Call> begin();
  Status find(const Inputs& inputs, Outputs& outputs, Call& call) const;  // by name
  Status check(Call& call) const;
  Status run(std::unique_ptr<Call> call, Status found, int threads, const volatile int32_t* cancel);

  std::vector<std::vector<int>> symbols_;  // by input and axis: number of the symbolic size; -1 a fixed one
  std::vector<std::pair<std::string, std::string>>
      first_use_;  // by number: the size's name, the input that has it first
  Pool<Call> calls_;
};

// What the outside sees of a graph's inputs and outputs.
Port port_of(const std::string& name, const Type& type);
std::vector<Port> ports_of(const Graph& graph, const std::vector<ValueId>& values);

// Inputs as `aivmm run --random` makes them: floats N(0,1), integers 0 or 1, booleans true, strings "", sequences
// empty; sizes from `shapes` by input name, unknown ones 1.
Result<Inputs> random_inputs(const std::vector<Port>& ports, const std::map<std::string, Shape>& shapes, uint64_t seed);

}  // namespace ai_vmm
