#pragma once

#include "opencl.hpp"

namespace AIRamp::Interposer {

// The OpenCL functions that handlers call beside those they stand for: the next layer's, or the loader's.
#define AIRAMP_OPENCL_FUNCTIONS(X) \
  X(clGetCommandQueueInfo)         \
  X(clGetDeviceInfo)               \
  X(clCreateBuffer)                \
  X(clGetMemObjectInfo)            \
  X(clReleaseMemObject)            \
  X(clEnqueueMarkerWithWaitList)   \
  X(clGetEventInfo)                \
  X(clReleaseEvent)

struct OpenCl {
#define X(name) decltype(cl_icd_dispatch::name) name;
  AIRAMP_OPENCL_FUNCTIONS(X)
#undef X
};
const OpenCl& opencl();

}  // namespace AIRamp::Interposer
