// Program binaries on disk, one file each, named by a hash of everything that they depend on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace ai_vmm::gpu {

// $XDG_CACHE_HOME/aivmm/kernels, or ~/.cache/aivmm/kernels; "" where neither is set: nothing is kept.
std::string cache_folder();

// The binary stored under `key`; nullopt when there is none or the file is damaged, which removes it.
std::optional<std::string> read_binary(const std::string& folder, uint64_t key);
// Written whole or not at all. A full disk or a folder that cannot be written loses only the binary.
void write_binary(const std::string& folder, uint64_t key, const std::string& binary);

}  // namespace ai_vmm::gpu
