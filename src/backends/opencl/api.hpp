// libOpenCL by dlopen, through one list of symbols typed by the headers.
#pragma once

#define CL_TARGET_OPENCL_VERSION 120
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>

#include <string>

#include "ai_vmm/types.hpp"

namespace ai_vmm::opencl {

#define AI_VMM_OPENCL_SYMBOLS(X) \
  X(clGetPlatformIDs)            \
  X(clGetPlatformInfo)           \
  X(clGetDeviceIDs)              \
  X(clGetDeviceInfo)             \
  X(clCreateContext)             \
  X(clReleaseContext)            \
  X(clCreateCommandQueue)        \
  X(clReleaseCommandQueue)       \
  X(clCreateBuffer)              \
  X(clCreateSubBuffer)           \
  X(clReleaseMemObject)          \
  X(clCreateProgramWithSource)   \
  X(clCreateProgramWithBinary)   \
  X(clBuildProgram)              \
  X(clGetProgramInfo)            \
  X(clGetProgramBuildInfo)       \
  X(clReleaseProgram)            \
  X(clCreateKernel)              \
  X(clReleaseKernel)             \
  X(clSetKernelArg)              \
  X(clEnqueueNDRangeKernel)      \
  X(clEnqueueReadBuffer)         \
  X(clEnqueueWriteBuffer)        \
  X(clEnqueueCopyBuffer)         \
  X(clEnqueueMapBuffer)          \
  X(clEnqueueUnmapMemObject)     \
  X(clFlush)                     \
  X(clFinish)

struct Api {
#define AI_VMM_DECLARE(name) decltype(&::name) name = nullptr;
  AI_VMM_OPENCL_SYMBOLS(AI_VMM_DECLARE)
#undef AI_VMM_DECLARE
};

// Loaded at the first call and never unloaded. Fails with what to install when there is no library.
Result<const Api*> api();

// The failure of call `what` as a status: resource_exhausted for memory, unavailable for a lost device.
Status failure(cl_int code, const std::string& what);

}  // namespace ai_vmm::opencl
