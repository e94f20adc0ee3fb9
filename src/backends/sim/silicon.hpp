// One simulated chip as it lives in this process: its clock, its memory, what has failed.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "ai_vmm/backend_abi.h"
#include "backends/sim/chip.hpp"
#include "kit/paged_state.hpp"

namespace ai_vmm::sim {

class Silicon : public PagedState::Account {
 public:
  explicit Silicon(Chip described) : chip(std::move(described)) {}
  const Chip chip;

  // An opened device is of one life of the chip. Being lost ends a life; opening begins none while it is lost forever.
  Result<int64_t> begin_life();
  Status alive(int64_t life) const;

  // Takes memory of the chip; the failure is marked out_of_memory.
  Status charge(int64_t bytes) override;
  void release(int64_t bytes) override { used_.fetch_sub(bytes); }
  int64_t used() const { return used_.load(); }

  // Counts a run and lets the failure schedule strike. *wrong says that the result must come out wrong.
  Status begin_run(int64_t life, const volatile int32_t* cancel, bool* wrong);
  // Runs `work`, which returns the simulated nanoseconds that it takes. With a pace runs stand in line, and the call
  // returns no sooner than the pace says; a caller who gives up is not kept waiting.
  Status paced(const volatile int32_t* cancel, const std::function<Result<double>()>& work);

 private:
  void lose(bool forever);
  std::atomic<int64_t> life_{1}, runs_{0}, used_{0};
  std::atomic<bool> gone_{false};
  std::mutex line_;
};

// A device that is lost or busy, as a Status.
Status lost(const Chip& chip);

// What the extensions need of an opened device of this backend.
class SimDeviceBase {
 public:
  virtual ~SimDeviceBase() = default;
  virtual const std::shared_ptr<Silicon>& silicon() const = 0;
  virtual int64_t life() const = 0;  // of the chip, that the device was opened in
  virtual Status alive() const = 0;
};
SimDeviceBase& sim_device(AiVmmDevice* device);

// The dense rows that a state tensor stands for; empty for any other tensor. Its owner keeps the copy.
Result<Tensor> read_state(const AiVmmTensor& tensor);
bool is_state(const AiVmmTensor& tensor);
Status append_to_state(const AiVmmTensor& tensor, const Tensor& rows);

}  // namespace ai_vmm::sim
