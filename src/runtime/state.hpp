// What is behind a State.
#pragma once

#include <mutex>

#include "ai_vmm/vmm.hpp"
#include "hal/held_state.hpp"

namespace ai_vmm {

struct State::Impl {
  explicit Impl(HeldState h) : held(std::move(h)) {}
  std::mutex mutex;  // held by a run that uses the state
  HeldState held;
};

}  // namespace ai_vmm
