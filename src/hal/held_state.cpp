#include "hal/held_state.hpp"

#include <algorithm>

#include "ai_vmm/compute_backend.hpp"
#include "hal/backends.hpp"
#include "hal/device.hpp"

namespace ai_vmm {

using backend::make;

HeldState::HeldState(HeldState&& s) noexcept
    : rows_(std::move(s.rows_)),
      device_(std::move(s.device_)),
      there_(std::exchange(s.there_, nullptr)),
      rows_there_(s.rows_there_),
      equal_(s.equal_) {}

void HeldState::drop() {
  if (there_) device_->states()->free(there_);
  there_ = nullptr;
  device_ = nullptr;
  rows_there_ = equal_ = 0;
}

Status HeldState::append(const Tensor& t, int64_t first) {
  return rows_.append_from(t.dtype(), t.shape(), t.data(), first);
}

Status HeldState::truncate(int64_t rows) {
  AI_VMM_TRY(rows_.truncate(rows));
  equal_ = std::min(equal_, rows);
  return {};
}

HeldState HeldState::fork() const {
  HeldState copy(rows_);
  auto s = make<AiVmmStatus>();
  if (there_ && device_->states()->fork(there_, &copy.there_, &s) == 0) {
    copy.device_ = device_;
    copy.rows_there_ = rows_there_;
    copy.equal_ = equal_;
  } else {
    copy.there_ = nullptr;
  }
  return copy;
}

Result<Tensor> HeldState::dense(int64_t begin, int64_t rows) const {
  Shape shape = rows_.dims();
  shape[size_t(rows_.axis())] = rows;
  if (rows < 0) return Status(Code::invalid_argument, "There are no " + std::to_string(rows) + " rows.");
  Tensor t = AI_VMM_TAKE(Tensor::make(rows_.dtype(), std::move(shape)));
  AI_VMM_TRY(rows_.read(begin, rows, t.mutable_data()));
  return t;
}

Result<AiVmmState*> HeldState::on(Device& device, int64_t* brought) {
  const AiVmmStates* api = device.states();
  *brought = 0;
  if (!api) return nullptr;
  auto s = make<AiVmmStatus>();
  if (device_.get() != &device) {
    drop();
    auto shape = make<AiVmmStateShape>();
    shape.dtype = int32_t(rows_.dtype());
    shape.rank = int32_t(rows_.dims().size());
    shape.dims = rows_.dims().data();
    shape.axis = rows_.axis();
    if (int32_t code = api->create(device.handle(), &shape, &there_, &s)) {
      there_ = nullptr;
      return to_status(code, s);
    }
    device_ = device.shared_from_this();
  }
  if (equal_ < rows_there_) {
    if (int32_t code = api->truncate(there_, equal_, &s)) return to_status(code, s);
    rows_there_ = equal_;
  }
  if (const int64_t more = rows_.rows() - rows_there_; more > 0) {
    Tensor t = AI_VMM_TAKE(dense(rows_there_, more));
    auto d = make<AiVmmTensor>();
    d.data = t.mutable_data();
    d.dtype = int32_t(t.dtype());
    d.rank = int32_t(t.rank());
    d.shape = t.shape().data();
    d.device_type = 1;
    if (int32_t code = api->append(there_, &d, &s)) return to_status(code, s);
    rows_there_ = equal_ = rows_.rows();
    *brought = t.bytes();
  }
  return there_;
}

}  // namespace ai_vmm
