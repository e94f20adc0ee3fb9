#include "runtime/state.hpp"

#include "base/memory_budget.hpp"

namespace ai_vmm {

namespace {
// The host's memory, as far as the machine has it: a state outlives the runs that have limits of their own.
class HostPages : public PagedState::Account {
 public:
  Status charge(int64_t bytes) override { return budget_.charge(bytes); }
  void release(int64_t bytes) override { budget_.release(bytes); }

 private:
  MemoryBudget budget_{MemoryBudget::default_limit()};
};
std::shared_ptr<PagedState::Account> host_pages() {
  static const auto pages = std::make_shared<HostPages>();
  return pages;
}
}  // namespace

Result<State> State::make(DType dtype, Shape dims, int64_t axis) {
  if (axis < 0 || axis > INT32_MAX)
    return Status(Code::invalid_argument, "The state's axis " + std::to_string(axis) + " is none.");
  auto rows = AI_VMM_TAKE(PagedState::make(host_pages(), dtype, int32_t(axis), std::move(dims)));
  return State(std::make_shared<Impl>(HeldState(std::move(rows))));
}

Result<State> State::restore(std::string_view snapshot) {
  auto rows = AI_VMM_TAKE(PagedState::restore(host_pages(), snapshot.data(), snapshot.size()));
  return State(std::make_shared<Impl>(HeldState(std::move(rows))));
}

DType State::dtype() const { return impl_->held.rows().dtype(); }
int64_t State::axis() const { return impl_->held.rows().axis(); }
int64_t State::capacity() const { return impl_->held.rows().capacity(); }
Shape State::shape() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->held.rows().shape();
}
int64_t State::rows() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->held.rows().rows();
}
int64_t State::own_bytes() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->held.rows().own_bytes();
}
std::vector<const void*> State::page_table() const {
  std::lock_guard lock(impl_->mutex);
  auto pages = impl_->held.rows().page_table();
  return {pages.begin(), pages.end()};
}

Status State::append(const Tensor& rows) {
  std::lock_guard lock(impl_->mutex);
  return impl_->held.append(rows, 0);
}
Status State::truncate(int64_t rows) {
  std::lock_guard lock(impl_->mutex);
  return impl_->held.truncate(rows);
}
Result<Tensor> State::read(int64_t begin, int64_t rows) const {
  std::lock_guard lock(impl_->mutex);
  return impl_->held.dense(begin, rows);
}
State State::fork() const {
  std::lock_guard lock(impl_->mutex);
  return State(std::make_shared<Impl>(impl_->held.fork()));
}
std::string State::snapshot() const {
  std::lock_guard lock(impl_->mutex);
  std::string bytes;
  (void)impl_->held.rows().snapshot([&](const void* piece, size_t size) -> Status {
    bytes.append(static_cast<const char*>(piece), size);
    return {};
  });
  return bytes;
}

}  // namespace ai_vmm
