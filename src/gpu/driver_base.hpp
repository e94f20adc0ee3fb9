// What drivers of all dialects do alike: kernels are assembled into programs, each compiled once, its binary kept
// between processes; measured choices are kept by the host.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "ai_vmm/backend_abi.h"
#include "gpu/cache.hpp"
#include "gpu/driver.hpp"

namespace ai_vmm::gpu {

class DriverBase : public Driver {
 public:
  // `options`: what programs are compiled with; binaries depend on it.
  DriverBase(Traits traits, const AiVmmHost* host, const std::string& options);
  const Traits& traits() const final { return traits_; }
  Status load(std::span<const Source> kernels) final;
  int64_t compilations() const final { return compilations_; }
  std::string remembered(const std::string& key) final;
  void remember(const std::string& key, const std::string& value) final;

 protected:
  using Program = void*;  // a cl_program, a CUmodule, a hipModule_t
  // A program that the device can run; `binary` is what is kept, "" nothing. May be called by several threads at once.
  virtual Result<Program> program_from_text(const std::string& text, std::string& binary) = 0;
  virtual Result<Program> program_from_binary(const std::string& binary) = 0;  // a failure: it is compiled anew
  Result<Program> program_of(const std::string& kernel);

 private:
  using Texts = std::map<std::string, const std::string*>;  // sorted: equal sets make equal programs
  void load_kept(Texts& missing);

  Traits traits_;
  const AiVmmHost* host_;
  const std::string prelude_, cache_, kernel_folder_;
  uint64_t cache_key_;
  std::mutex mutex_;
  std::unordered_map<std::string, Program> programs_;                 // by kernel
  std::optional<std::map<uint64_t, std::vector<std::string>>> kept_;  // kernels of kept programs not loaded yet
  std::unordered_map<std::string, std::string> choices_;
  std::atomic<int64_t> compilations_{0};
};

}  // namespace ai_vmm::gpu
