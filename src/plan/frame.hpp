// What one run of a plan holds.
#pragma once

#include <span>
#include <vector>

#include "hal/held_state.hpp"
#include "plan/plan.hpp"

namespace ai_vmm {

// The values of one run, by slot: in the host's memory, in the memories of devices, or both. Regions on a device with
// memory of its own leave what they make there, until someone elsewhere reads it. Plan::frames keeps the frame for the
// next run, so that the host allocates nothing.
class Frame {
 public:
  explicit Frame(const Plan& plan);

  const Data& at(int slot) const { return *values_[size_t(slot)]; }
  void set(int slot, Data value) { made_[size_t(slot)] = std::move(value); }

  // `states` is empty, or has one entry an input: the state whose rows it is, or null.
  void start(std::span<const Data* const> inputs, std::span<const Data* const> captures, std::span<Data* const> outputs,
             std::span<HeldState* const> states);
  Status run_region(const Plan::Step& step, const RunRequest& request);
  // Begins to bring to the next region's device what step number `step` need not make first.
  void prefetch(size_t step, const RunRequest& request);
  // Brings what a step of the host reads into the host's memory.
  Status bring_home(const Plan::Step& step, const RunRequest& request);
  void release(int slot);
  Status deliver(std::span<Data* const> outputs, const RunRequest& request);
  void finish();  // whether or not the run succeeded: nothing of it stays alive

 private:
  Result<DeviceTensor*> bring(int slot, DeviceMemory& to, const RunRequest& request);
  Status bring_home(int slot, Why why, const RunRequest& request);
  Status read_state(int slot);
  DeviceTensor* find_copy(int slot, const DeviceMemory& memory);

  const Plan& plan_;
  std::vector<Data> made_;           // by slot: what steps made
  std::vector<const Data*> values_;  // by slot: that, or a constant, an input, a caller's buffer that was filled
  std::vector<Data*> buffers_;       // by slot: the caller's buffer for it, or null
  std::vector<std::vector<DeviceTensor>> copies_;  // by slot: in the memories of devices, at most one in each
  std::vector<HeldState*> states_;                 // by slot: the state that an input is, or null
  std::vector<char> of_region_, leaves_;           // by slot: a region makes it; the caller gets it
  std::vector<const Plan::Step*> next_;  // by step: the next region on a device with memory of its own; or null
  std::vector<const Tensor*> region_inputs_;
  std::vector<Tensor*> region_outputs_;
  std::vector<DeviceTensor*> placed_;
};

}  // namespace ai_vmm
