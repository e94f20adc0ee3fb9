// Compiled programs, kept in files between processes: $XDG_CACHE_HOME/aivmm/kernels. A file that is damaged is removed
// and counts as missing; a folder that cannot be written means that nothing is kept.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ai_vmm::gpu {

std::string cache_folder();  // "" when there is no home for it

// `data` is what the driver gave to keep.
struct StoredProgram {
  std::vector<std::string> kernels;
  std::string data;
};
// Names of the kernels in each program kept for `device`, a hash of device, driver, options and prelude; by program.
std::map<uint64_t, std::vector<std::string>> stored_kernels(const std::string& folder, uint64_t device);
std::optional<StoredProgram> read_program(const std::string& folder, uint64_t device, uint64_t program);
void write_program(const std::string& folder, uint64_t device, uint64_t program, const StoredProgram& stored);

}  // namespace ai_vmm::gpu
