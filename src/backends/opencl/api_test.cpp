#include "backends/opencl/api.hpp"

#include <gtest/gtest.h>

namespace ai_vmm::opencl {
namespace {

TEST(Failure, CodesSayWhatIsWrongWithTheDevice) {
  EXPECT_TRUE(failure(CL_SUCCESS, "x").ok());
  Status memory = failure(CL_MEM_OBJECT_ALLOCATION_FAILURE, "clCreateBuffer");
  EXPECT_EQ(memory.code(), Code::resource_exhausted);
  EXPECT_EQ(memory.device_state(), DeviceState::out_of_memory);
  Status lost = failure(CL_DEVICE_NOT_AVAILABLE, "clFinish");
  EXPECT_EQ(lost.code(), Code::unavailable);
  EXPECT_EQ(lost.device_state(), DeviceState::lost);
  EXPECT_EQ(failure(CL_INVALID_KERNEL_ARGS, "x").code(), Code::internal);
}

}  // namespace
}  // namespace ai_vmm::opencl
