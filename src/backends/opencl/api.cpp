#include "backends/opencl/api.hpp"

#include <dlfcn.h>

namespace ai_vmm::opencl {

namespace {

constexpr const char* kLibrary = "libOpenCL.so.1";

Result<Api> load() {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (!library)
    return Status(Code::unavailable, std::string(kLibrary) +
                                         " is not installed; install a driver for the device and the loader (on Debian "
                                         "ocl-icd-libopencl1; pocl-opencl-icd runs OpenCL on the processor).");
  Api a;
#define AI_VMM_LOAD(name)                                             \
  a.name = reinterpret_cast<decltype(a.name)>(dlsym(library, #name)); \
  if (!a.name)                                                        \
    return Status(Code::unavailable, std::string(kLibrary) + " has no " #name "; OpenCL 1.2 or newer is needed.");
  AI_VMM_OPENCL_SYMBOLS(AI_VMM_LOAD)
#undef AI_VMM_LOAD
  return a;
}

}  // namespace

Result<const Api*> api() {
  static const Result<Api> loaded = load();
  if (!loaded.ok()) return loaded.status().copy();
  return &*loaded;
}

Status failure(cl_int code, const std::string& what) {
  if (code == CL_SUCCESS) return {};
  std::string text = what + " failed with OpenCL code " + std::to_string(code);
  switch (code) {
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_OUT_OF_RESOURCES:
    case CL_OUT_OF_HOST_MEMORY:
    case CL_INVALID_BUFFER_SIZE:
      return Status(Code::resource_exhausted, text + ": the device has no memory or resources left for it.")
          .on_device(DeviceState::out_of_memory);
    case CL_DEVICE_NOT_AVAILABLE:
    case CL_INVALID_CONTEXT:
    case CL_INVALID_COMMAND_QUEUE:
    case CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST:
      return Status(Code::unavailable, text + ": the device is lost or no longer available.")
          .on_device(DeviceState::lost);
    default: return Status(Code::internal, text + ".");
  }
}

}  // namespace ai_vmm::opencl
