// The one list of backends linked into this build. Each defines `entry` of the C plugin interface in its namespace.
#pragma once

#include <span>

#include "ai_vmm/backend_abi.h"

namespace ai_vmm {

struct InTreeBackend {
  const char* name;
  AiVmmBackendEntry entry;
};

// The preferred first.
std::span<const InTreeBackend> in_tree_backends();

}  // namespace ai_vmm
