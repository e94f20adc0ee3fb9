#include "backends/sim/silicon.hpp"

#include <chrono>
#include <thread>

#include "ai_vmm/cancel.hpp"

namespace ai_vmm::sim {

namespace {
using Clock = std::chrono::steady_clock;
// False when the caller gave up first.
bool sleep_until(Clock::time_point end, const volatile int32_t* cancel) {
  while (Clock::now() < end) {
    if (cancelled(cancel)) return false;
    std::this_thread::sleep_for(std::min<Clock::duration>(end - Clock::now(), std::chrono::milliseconds(1)));
  }
  return true;
}
}  // namespace

Status lost(const Chip& chip) {
  return Status(Code::unavailable, "The simulated chip \"" + chip.name + "\" is lost.").on_device(DeviceState::lost);
}

Result<int64_t> Silicon::begin_life() {
  if (gone_) return lost(chip);
  return life_.load();
}

Status Silicon::alive(int64_t life) const {
  if (gone_ || life != life_) return lost(chip);
  return {};
}

void Silicon::lose(bool forever) {
  if (forever) gone_ = true;
  ++life_;
}

Status Silicon::charge(int64_t bytes) {
  if (used_.fetch_add(bytes) + bytes <= chip.memory) return {};
  used_.fetch_sub(bytes);
  return Status(Code::resource_exhausted, "The simulated chip \"" + chip.name + "\" has " +
                                              std::to_string(chip.memory) + " bytes of memory, of which " +
                                              std::to_string(used_.load()) + " are taken; " + std::to_string(bytes) +
                                              " more do not fit.")
      .on_device(DeviceState::out_of_memory);
}

Status Silicon::begin_run(int64_t life, const volatile int32_t* cancel, bool* wrong) {
  AI_VMM_TRY(alive(life));
  const int64_t run = ++runs_;
  for (const Failure& f : chip.failures) {
    if (!f.strikes(run)) continue;
    auto which = [&] { return "The simulated chip \"" + chip.name + "\", in run " + std::to_string(run) + ", "; };
    switch (f.kind) {
      case Failure::Kind::wrong_result: *wrong = true; break;
      case Failure::Kind::out_of_memory:
        return Status(Code::resource_exhausted, which() + "has no memory left.").on_device(DeviceState::out_of_memory);
      case Failure::Kind::busy:
        return Status(Code::unavailable, which() + "is busy.")
            .on_device(DeviceState::busy, uint32_t((f.for_ns + 999'999) / 1'000'000));
      case Failure::Kind::lost: lose(f.forever); return lost(chip);
      case Failure::Kind::hang:
        if (!sleep_until(f.for_ns ? Clock::now() + std::chrono::nanoseconds(f.for_ns) : Clock::time_point::max(),
                         cancel))
          return Status(Code::cancelled, which() + "hung until the run was cancelled.");
    }
  }
  return {};
}

Status Silicon::paced(const volatile int32_t* cancel, const std::function<Result<double>()>& work) {
  if (chip.pace <= 0) {
    auto ns = work();
    return ns.ok() ? Status() : std::move(ns).status();
  }
  std::lock_guard lock(line_);
  auto start = Clock::now();
  double ns = AI_VMM_TAKE(work());
  if (!sleep_until(start + std::chrono::nanoseconds(int64_t(ns * chip.pace)), cancel))
    return Status(Code::cancelled, "The run was cancelled while the simulated chip was at work.");
  return {};
}

}  // namespace ai_vmm::sim
