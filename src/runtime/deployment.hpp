// A deployment: a plan that is loaded and watched. It owns what concurrent runs share.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "ai_vmm/vmm.hpp"
#include "plan/plan.hpp"

namespace ai_vmm {

struct Deployment::Impl {
  std::shared_ptr<const Plan> plan;
  std::vector<Port> inputs, outputs;  // in the plan's order
  std::map<std::string, std::string> metadata;
  Report report;  // as made at deploy; arena_bytes and compilations are read live
  int threads = 0;
  int64_t memory_limit = 0;
  uint64_t seed = 0;
  std::atomic<uint64_t> runs{0};

  // Runs the plan on checked inputs, in the plan's order. `threads` overrides the deployment's.
  Status run(std::span<const Data> inputs, std::span<Data> outputs, int threads,
             const volatile int32_t* cancel = nullptr);
  Status check(std::span<const Data> inputs) const;  // kinds, types and sizes
  // By name → in order. Fails for missing and unknown names.
  Result<std::vector<Data>> in_order(const Inputs& inputs) const;
};

// What the outside sees of a graph's inputs and outputs.
std::vector<Port> ports_of(const Graph& graph, const std::vector<ValueId>& values);

// Inputs as `aivmm run --random` makes them: floats N(0,1), integers 0 or 1, booleans true, strings "", sequences
// empty; sizes from `shapes` by input name, unknown ones 1.
Result<Inputs> random_inputs(const std::vector<Port>& ports, const std::map<std::string, Shape>& shapes, uint64_t seed);

}  // namespace ai_vmm
