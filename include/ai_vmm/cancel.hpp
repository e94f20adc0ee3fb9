// The flag with which a caller gives up a run.
#pragma once

#include <cstdint>

namespace ai_vmm {

// `flag` is set by another thread or a signal handler while the run reads it; null: never.
inline bool cancelled(const volatile int32_t* flag) { return flag && __atomic_load_n(flag, __ATOMIC_RELAXED) != 0; }

}  // namespace ai_vmm
