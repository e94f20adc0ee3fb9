// Times calls for bench/airamp_overhead.py; nanoseconds of processor time a call on standard output.
//   airamp_call toy       a function of three instructions, named as one of MPI's, in a library of its own
//   airamp_call device LIBRARY   a block of 1 MiB of the tests' fake device made and freed
//   airamp_call buffer    an OpenCL buffer of 1 MiB made and released, without a command queue

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int MPI_Iallreduce(const void* send, void* receive, int count, void* type, void* op, void* comm, void* request);

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  if (strcmp(argv[1], "toy") == 0) {
    enum { kCalls = 5000000 };
    int sum = MPI_Iallreduce(0, 0, 1, 0, 0, 0, 0);
    double start = now();
    for (int i = 0; i < kCalls; i++) sum += MPI_Iallreduce(0, 0, i, 0, 0, 0, 0);
    printf("%.3f\n", (now() - start) / kCalls);
    return sum == 42;
  }
  if (strcmp(argv[1], "device") == 0 && argc > 2) {
    void* fake = dlopen(argv[2], RTLD_NOW);
    if (!fake) return 2;
    int is_hip = dlsym(fake, "hipMalloc") != NULL;
    int (*allocate)(void**, size_t) = (int (*)(void**, size_t))dlsym(fake, is_hip ? "hipMalloc" : "cuMemAlloc_v2");
    int (*release)(void*) = (int (*)(void*))dlsym(fake, is_hip ? "hipFree" : "cuMemFree_v2");
    enum { kPairs = 100000 };
    double start = 0;
    for (int i = -100; i < kPairs; i++) {
      void* block = NULL;
      if (i == 0) start = now();
      if (allocate(&block, 1 << 20) || release(block)) return 2;
    }
    printf("%.3f\n", (now() - start) / kPairs);
    return 0;
  }
  cl_platform_id platform;
  cl_device_id device;
  cl_int e;
  if (clGetPlatformIDs(1, &platform, NULL) || clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL)) return 2;
  cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &e);
  enum { kPairs = 20000 };
  double start = 0;
  for (int i = -100; i < kPairs; i++) {
    if (i == 0) start = now();
    clReleaseMemObject(clCreateBuffer(context, CL_MEM_READ_WRITE, 1 << 20, NULL, &e));
  }
  printf("%.3f\n", (now() - start) / kPairs);
  return 0;
}
