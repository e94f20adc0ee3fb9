// Running a deployment from Python: without the GIL, ended by Ctrl-C.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <span>

#include "ai_vmm/vmm.hpp"

namespace ai_vmm::python {

// A flag that ends runs; any thread may set it.
struct Cancel {
  volatile int32_t set = 0;
};

// Runs with the GIL released; needs it held. On the main thread SIGINT ends the run: Python's handler is then called,
// and what it raises (KeyboardInterrupt) comes out of here as nanobind::python_error. If it raises nothing, the run
// starts again: a program that only takes note of Ctrl-C does not lose its result.
Status run(const Deployment& deployment, std::span<const Data> inputs, std::span<Data> outputs, Cancel* cancel);
// By name: `outputs` holds buffers to write into before, and all outputs after.
Status run(const Deployment& deployment, const Inputs& inputs, Outputs& outputs, Cancel* cancel);

void remember_main_thread();  // called once, when the module is loaded

}  // namespace ai_vmm::python
