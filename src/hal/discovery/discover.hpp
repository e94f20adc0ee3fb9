// Every accelerator of the machine, once: from the kernel first, joined with what the runtimes report.
#pragma once

#include <string>

#include "hal/discovery/accelerator.hpp"
#include "hal/discovery/runtimes.hpp"

namespace ai_vmm {

struct DiscoverOptions {
  std::string root;          // of the file system to look at; "" this machine
  bool ask_runtimes = true;  // false: what the kernel says, in some milliseconds
  AskOptions runtimes;
};
Machine discover(const DiscoverOptions& options);

// This machine, discovered by the first call and remembered for the life of the process. Thread-safe. Asking the
// runtimes takes as long as the slowest driver needs to wake.
const Machine& this_machine();

// Fills Machine::runtimes and puts each of their devices where it belongs: by PCI address, else UUID or serial number,
// else to the one device of that kind and vendor that fits. What fits nowhere becomes an accelerator of its own.
void join(Machine& machine, std::vector<RuntimeReport> reports);

}  // namespace ai_vmm
