// An OpenCL program that knows nothing of AIRamp and does what its input says, line by line, until it ends:
//   write BYTES     one blocking write
//   pause MS TIMES  so often: makes a buffer of 1 MB, releases it, and waits
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

namespace {
void check(cl_int e, const char* what) {
  if (e == CL_SUCCESS) return;
  std::fprintf(stderr, "%s fails with %d\n", what, e);
  std::exit(1);
}
}  // namespace

int main() {
  cl_platform_id platform;
  cl_device_id device;
  cl_int e = 0;
  check(clGetPlatformIDs(1, &platform, nullptr), "clGetPlatformIDs");
  check(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, nullptr), "clGetDeviceIDs");
  cl_context context = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &e);
  check(e, "clCreateContext");
  cl_command_queue queue = clCreateCommandQueue(context, device, 0, &e);
  check(e, "clCreateCommandQueue");
  for (std::string verb; std::cin >> verb;) {
    if (verb == "write") {
      size_t bytes = 0;
      std::cin >> bytes;
      std::vector<char> data(bytes, 'x');
      cl_mem buffer = clCreateBuffer(context, CL_MEM_READ_WRITE, bytes, nullptr, &e);
      check(e, "clCreateBuffer");
      check(clEnqueueWriteBuffer(queue, buffer, CL_TRUE, 0, bytes, data.data(), 0, nullptr, nullptr),
            "clEnqueueWriteBuffer");
      check(clReleaseMemObject(buffer), "clReleaseMemObject");
    } else if (verb == "pause") {
      int ms = 0, times = 0;
      std::cin >> ms >> times;
      for (int i = 0; i < times; ++i) {
        cl_mem buffer = clCreateBuffer(context, CL_MEM_READ_WRITE, 1000000, nullptr, &e);
        check(e, "clCreateBuffer");
        check(clReleaseMemObject(buffer), "clReleaseMemObject");
        std::this_thread::sleep_for(std::chrono::milliseconds(ms));
      }
    }
    std::cout << "done" << std::endl;
  }
  check(clReleaseCommandQueue(queue), "clReleaseCommandQueue");
  check(clReleaseContext(context), "clReleaseContext");
}
