// How the settings (base/config.hpp) fill what a caller leaves open.
#pragma once

#include "ai_vmm/vmm.hpp"
#include "base/config.hpp"

namespace ai_vmm {

// `given`, with every field that is unset taken from `config`. Afterwards only `backend` (any), `threads` (by
// measurement) and `shapes`, `seed` may still be unset.
DeployOptions with_settings(DeployOptions given, const Config& config);

}  // namespace ai_vmm
