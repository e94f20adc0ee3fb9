// What one run of a plan holds.
#pragma once

#include <span>
#include <vector>

#include "plan/plan.hpp"

namespace ai_vmm {

// The values of one run, by slot. Plan::frames keeps it for the next run, so that the host allocates nothing.
class Frame {
 public:
  explicit Frame(const Plan& plan);

  const Data& at(int slot) const { return *values_[size_t(slot)]; }
  void set(int slot, Data value) { made_[size_t(slot)] = std::move(value); }

  void start(std::span<const Data* const> inputs, std::span<const Data* const> captures,
             std::span<Data* const> outputs);
  Status run_region(const Plan::Step& step, const RunRequest& request);
  void release(int slot) { made_[size_t(slot)] = Data(); }
  Status deliver(std::span<Data* const> outputs);
  void finish();  // whether or not the run succeeded: nothing of it stays alive

 private:
  const Plan& plan_;
  std::vector<Data> made_;           // by slot: what steps made
  std::vector<const Data*> values_;  // by slot: that, or a constant, an input, a caller's buffer that was filled
  std::vector<Data*> buffers_;       // by slot: the caller's buffer for it, or null
  std::vector<const Tensor*> region_inputs_;
  std::vector<Tensor*> region_outputs_;
};

}  // namespace ai_vmm
