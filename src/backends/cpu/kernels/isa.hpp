// The instruction sets that kernels/*.cpp are compiled for, and which one runs.
#pragma once

namespace ai_vmm::cpu {

enum class Isa { generic, avx2, avx512 };

// The best of the machine, capped by the setting cpu_isa when the process starts using the backend.
Isa isa();
const char* name(Isa isa);
// Channels in a block of a blocked layout.
int block_size();

}  // namespace ai_vmm::cpu
