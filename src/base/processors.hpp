// The processors of this machine, as Linux shows them to this process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ai_vmm {

struct ProcessorFacts {
  std::string model;             // "unknown" where the kernel does not say
  int logical = 0;               // online processors; 0 not known
  int cores = 0;                 // physical cores; 0 not known
  std::vector<std::string> isa;  // of: sse4.2 avx2 fma f16c avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8 avx_vnni,
                                 // neon sve on ARM; in this order
  int64_t memory_bytes = 0;      // RAM of the machine; 0 not known
};
// `root`: where /proc is looked for, when the facts of another system's files are wanted.
ProcessorFacts processor_facts(const std::string& root = "");

}  // namespace ai_vmm
