// Asks the vendors' runtimes for their devices. Each is loaded at run time, if the machine has it.
#pragma once

#include <chrono>
#include <span>
#include <string>
#include <vector>

#include "ai_vmm/types.hpp"
#include "hal/discovery/accelerator.hpp"

namespace ai_vmm {

struct AskOptions {
  std::string folder;  // the only place to look for the libraries; "" where the loader looks
  std::chrono::milliseconds patience{10000};
};

// One report for each of `which`, in their order. A runtime that this process does not use yet is asked in a forked
// child, so that a driver that crashes or hangs costs its devices only, and none of its memory and threads stay here.
std::vector<RuntimeReport> ask(std::span<const Runtime> which, const AskOptions& options);

// The same within this process.
RuntimeReport ask_here(Runtime runtime, const std::string& folder);

std::string uuid_text(const unsigned char bytes[16]);  // "5fc4a8e2-…", 36 characters

// How each is asked: fills all but `runtime`. A failure of load() is the caller's to tell.
Status ask_opencl(const std::string& folder, RuntimeReport& report);
Status ask_cuda(const std::string& folder, RuntimeReport& report);
Status ask_nvml(const std::string& folder, RuntimeReport& report);
Status ask_hip(const std::string& folder, RuntimeReport& report);
Status ask_level_zero(const std::string& folder, RuntimeReport& report);
Status ask_openvino(const std::string& folder, RuntimeReport& report);

}  // namespace ai_vmm
