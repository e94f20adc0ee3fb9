// What the tables of level 3 share: one file a table.
#pragma once

#include <functional>

#include "ai_vmm/compute_backend.hpp"
#include "backends/sim/silicon.hpp"
#include "kit/streams.hpp"

namespace ai_vmm::sim {

inline constexpr int32_t kDeviceType = 12;  // DLPack's "extension device"; addresses are host pointers all the same

const AiVmmBuffers& buffers();
const AiVmmStates& states();

}  // namespace ai_vmm::sim
