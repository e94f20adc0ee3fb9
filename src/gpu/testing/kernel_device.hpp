// What backends/opencl/kernels_test.cpp runs on. Each program that has these tests defines it.
#pragma once

#include <memory>
#include <vector>

#include "gpu/driver.hpp"

namespace ai_vmm {

std::vector<bool> kernel_kinds();                       // values of Traits::wide to test
std::shared_ptr<gpu::Driver> kernel_device(bool wide);  // null: there is none

}  // namespace ai_vmm
