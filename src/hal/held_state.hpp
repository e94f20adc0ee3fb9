// A state as its holder has it: the rows in the host's memory, which are the truth, and a copy of them on the device
// that used it last, where that device keeps states. So a step brings the device only the rows that are new to it, and
// a device that is lost takes nothing along.
#pragma once

#include <memory>

#include "hal/memory.hpp"
#include "kit/paged_state.hpp"

namespace ai_vmm {

class HeldState {
 public:
  explicit HeldState(PagedState rows) : rows_(std::move(rows)) {}
  HeldState(HeldState&& s) noexcept;
  ~HeldState() { drop(); }

  const PagedState& rows() const { return rows_; }
  Status append(const Tensor& t, int64_t first);  // its rows from `first` on
  Status truncate(int64_t rows);
  // Shares pages until one of both is written, in the host's memory and on the device.
  HeldState fork() const;
  Result<Tensor> dense(int64_t begin, int64_t rows) const;

  // The device's handle of equal content; null when it keeps no states. `brought`: the bytes that were sent there.
  Result<AiVmmState*> on(Device& device, int64_t* brought);

 private:
  void drop();
  PagedState rows_;
  std::shared_ptr<Device> device_;
  AiVmmState* there_ = nullptr;
  int64_t rows_there_ = 0, equal_ = 0;  // rows on the device, and how many of them are still those of rows_
};

}  // namespace ai_vmm
