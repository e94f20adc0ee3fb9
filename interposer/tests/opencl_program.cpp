// An OpenCL program that knows nothing of AIRamp. opencl_program CASE: exit 0 if the case works as the standard says.

#define CL_TARGET_OPENCL_VERSION 200
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

int failures = 0;

#define EXPECT(condition)                                                        \
  do {                                                                           \
    if (!(condition)) {                                                          \
      failures++;                                                                \
      std::fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition); \
    }                                                                            \
  } while (0)

cl_platform_id platform;
cl_device_id device;
cl_context context;
cl_command_queue queue;

constexpr const char* kSource =
    "kernel void twice(global float* x) { size_t i = get_global_id(0); x[i] = 2 * x[i] + i % 7; }";

std::vector<float> numbers(std::size_t count) {
  std::vector<float> v(count);
  for (std::size_t i = 0; i < count; i++) v[i] = static_cast<float>((i * 37) % 1009);
  return v;
}

cl_mem buffer_of(std::size_t bytes, cl_mem_flags flags = CL_MEM_READ_WRITE) {
  cl_int e = -1;
  cl_mem memory = clCreateBuffer(context, flags, bytes, nullptr, &e);
  EXPECT(memory && e == CL_SUCCESS);
  return memory;
}

template <class T>
T info(cl_mem memory, cl_mem_info what) {
  T value{};
  EXPECT(clGetMemObjectInfo(memory, what, sizeof value, &value, nullptr) == CL_SUCCESS);
  return value;
}

void compute() {
  cl_int e = 0;
  cl_program program = clCreateProgramWithSource(context, 1, const_cast<const char**>(&kSource), nullptr, &e);
  EXPECT(clBuildProgram(program, 1, &device, "", nullptr, nullptr) == CL_SUCCESS);
  cl_kernel kernel = clCreateKernel(program, "twice", &e);
  const std::size_t n = 300001;
  std::vector<float> x = numbers(n), y(n);
  for (int round = 0; round < 5; round++) {
    cl_mem memory = buffer_of(n * 4);
    EXPECT(clEnqueueWriteBuffer(queue, memory, CL_FALSE, 0, n * 4, x.data(), 0, nullptr, nullptr) == CL_SUCCESS);
    EXPECT(clSetKernelArg(kernel, 0, sizeof memory, &memory) == CL_SUCCESS);
    EXPECT(clEnqueueNDRangeKernel(queue, kernel, 1, nullptr, &n, nullptr, 0, nullptr, nullptr) == CL_SUCCESS);
    EXPECT(clEnqueueReadBuffer(queue, memory, CL_TRUE, 0, n * 4, y.data(), 0, nullptr, nullptr) == CL_SUCCESS);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < n; i++) wrong += y[i] != 2 * x[i] + static_cast<float>(i % 7);
    EXPECT(wrong == 0);
    EXPECT(clReleaseMemObject(memory) == CL_SUCCESS);
  }
  clReleaseKernel(kernel);
  clReleaseProgram(program);
}

void transfers() {
  const std::size_t n = 1000003;
  std::vector<char> x(n), y(n);
  for (std::size_t i = 0; i < n; i++) x[i] = static_cast<char>(i * 31 + i / 256);
  cl_mem memory = buffer_of(n);
  cl_int e = 0;
  cl_event gate = clCreateUserEvent(context, &e), written, read;
  EXPECT(clEnqueueWriteBuffer(queue, memory, CL_FALSE, 0, n, x.data(), 1, &gate, &written) == CL_SUCCESS);
  EXPECT(clEnqueueReadBuffer(queue, memory, CL_FALSE, 0, n, y.data(), 1, &written, &read) == CL_SUCCESS);
  cl_command_type type = 0;
  clGetEventInfo(written, CL_EVENT_COMMAND_TYPE, sizeof type, &type, nullptr);
  EXPECT(type == CL_COMMAND_WRITE_BUFFER);
  cl_int status = 0;
  clGetEventInfo(written, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, nullptr);
  EXPECT(status > CL_COMPLETE);  // the gate is closed
  EXPECT(y[n - 1] == 0);
  clSetUserEventStatus(gate, CL_COMPLETE);
  EXPECT(clWaitForEvents(1, &read) == CL_SUCCESS);
  EXPECT(x == y);
  clReleaseEvent(gate);
  clReleaseEvent(written);
  clReleaseEvent(read);
  // Odd offsets and sizes, blocking.
  std::vector<char> part(n);
  for (std::size_t offset :
       {std::size_t{0}, std::size_t{1}, std::size_t{65535}, std::size_t{65536}, std::size_t{777777}}) {
    std::size_t size = n - offset - 3;
    std::fill(part.begin(), part.end(), 0);
    EXPECT(clEnqueueReadBuffer(queue, memory, CL_TRUE, offset, size, part.data(), 0, nullptr, nullptr) == CL_SUCCESS);
    EXPECT(std::memcmp(part.data(), x.data() + offset, size) == 0 && part[size] == 0);
  }
  // What is wrong fails whole, with its own code.
  EXPECT(clEnqueueReadBuffer(queue, memory, CL_TRUE, 0, n + 1, y.data(), 0, nullptr, nullptr) == CL_INVALID_VALUE);
  EXPECT(clEnqueueWriteBuffer(queue, memory, CL_TRUE, n - 5, 600000, y.data(), 0, nullptr, nullptr) ==
         CL_INVALID_VALUE);
  EXPECT(clEnqueueWriteBuffer(queue, memory, CL_TRUE, 0, 600000, nullptr, 0, nullptr, nullptr) == CL_INVALID_VALUE);
  EXPECT(clEnqueueReadBuffer(queue, memory, CL_TRUE, 0, n, y.data(), 1, nullptr, nullptr) ==
         CL_INVALID_EVENT_WAIT_LIST);
  // Queues in which the pieces could be seen.
  for (cl_command_queue_properties p : {CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, CL_QUEUE_PROFILING_ENABLE}) {
    cl_command_queue other = clCreateCommandQueue(context, device, p, &e);
    std::fill(y.begin(), y.end(), 0);
    EXPECT(clEnqueueReadBuffer(other, memory, CL_FALSE, 0, n, y.data(), 0, nullptr, &read) == CL_SUCCESS);
    EXPECT(clWaitForEvents(1, &read) == CL_SUCCESS);
    EXPECT(x == y);
    clReleaseEvent(read);
    clReleaseCommandQueue(other);
  }
  clReleaseMemObject(memory);
}

std::atomic<int> destroyed;
void CL_CALLBACK count_destroyed(cl_mem, void*) { destroyed++; }

// pool reused|fresh: whether released buffers come back.
void buffers(bool reused) {
  std::set<cl_mem> seen;
  for (int i = 0; i < 20; i++) {
    cl_mem memory = buffer_of(123457);
    seen.insert(memory);
    EXPECT(info<std::size_t>(memory, CL_MEM_SIZE) == 123457);
    EXPECT(info<cl_uint>(memory, CL_MEM_REFERENCE_COUNT) == 1);
    EXPECT(info<cl_mem_flags>(memory, CL_MEM_FLAGS) == CL_MEM_READ_WRITE);
    EXPECT(info<cl_context>(memory, CL_MEM_CONTEXT) == context);
    char byte = 1;
    EXPECT(clEnqueueWriteBuffer(queue, memory, CL_TRUE, 123456, 1, &byte, 0, nullptr, nullptr) == CL_SUCCESS);
    EXPECT(clEnqueueWriteBuffer(queue, memory, CL_TRUE, 123457, 1, &byte, 0, nullptr, nullptr) == CL_INVALID_VALUE);
    EXPECT(clRetainMemObject(memory) == CL_SUCCESS);
    EXPECT(info<cl_uint>(memory, CL_MEM_REFERENCE_COUNT) == 2);
    EXPECT(clReleaseMemObject(memory) == CL_SUCCESS);
    EXPECT(clReleaseMemObject(memory) == CL_SUCCESS);
    // Other sizes and flags are other buffers.
    cl_mem other = buffer_of(123456), read_only = buffer_of(123457, CL_MEM_READ_ONLY);
    EXPECT(info<std::size_t>(other, CL_MEM_SIZE) == 123456);
    EXPECT(info<cl_mem_flags>(read_only, CL_MEM_FLAGS) == CL_MEM_READ_ONLY);
    clReleaseMemObject(other);
    clReleaseMemObject(read_only);
    clFinish(queue);  // a released buffer comes back once its last commands have ended
  }
  // PoCL may hold a buffer for a moment after the command that used it has ended.
  if (reused) EXPECT(seen.size() <= 5);
  // Errors are the driver's.
  cl_int e = 0;
  EXPECT(!clCreateBuffer(context, CL_MEM_READ_WRITE, 0, nullptr, &e) && e == CL_INVALID_BUFFER_SIZE);
  EXPECT(!clCreateBuffer(context, CL_MEM_READ_ONLY | CL_MEM_WRITE_ONLY, 64, nullptr, &e) && e == CL_INVALID_VALUE);
  EXPECT(!clCreateBuffer(context, CL_MEM_USE_HOST_PTR, 64, nullptr, &e) && e == CL_INVALID_HOST_PTR);
  EXPECT(!clCreateBuffer(nullptr, CL_MEM_READ_WRITE, 64, nullptr, &e) && e == CL_INVALID_CONTEXT);
  EXPECT(!clCreateBuffer(context, CL_MEM_READ_WRITE, std::size_t{1} << 60, nullptr, nullptr));
  // A buffer whose sub-buffer lives, and one that was released while a command was to use it.
  cl_mem parent = buffer_of(8192);
  cl_buffer_region region = {4096, 4096};
  cl_mem child = clCreateSubBuffer(parent, CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION, &region, &e);
  EXPECT(e == CL_SUCCESS);
  clReleaseMemObject(parent);
  std::vector<char> four(4096, 4), out(4096);
  EXPECT(clEnqueueWriteBuffer(queue, child, CL_TRUE, 0, 4096, four.data(), 0, nullptr, nullptr) == CL_SUCCESS);
  cl_mem stranger = buffer_of(8192);
  std::vector<char> nine(8192, 9);
  EXPECT(clEnqueueWriteBuffer(queue, stranger, CL_TRUE, 0, 8192, nine.data(), 0, nullptr, nullptr) == CL_SUCCESS);
  EXPECT(clEnqueueReadBuffer(queue, child, CL_TRUE, 0, 4096, out.data(), 0, nullptr, nullptr) == CL_SUCCESS);
  EXPECT(out == four);
  clReleaseMemObject(child);
  clReleaseMemObject(stranger);
  cl_event gate = clCreateUserEvent(context, &e);
  cl_mem busy = buffer_of(8192);
  EXPECT(clEnqueueReadBuffer(queue, busy, CL_FALSE, 0, 8192, nine.data(), 1, &gate, nullptr) == CL_SUCCESS);
  clReleaseMemObject(busy);
  cl_mem next = buffer_of(8192);
  EXPECT(next != busy);
  clSetUserEventStatus(gate, CL_COMPLETE);
  clFinish(queue);
  clReleaseEvent(gate);
  clReleaseMemObject(next);
  // The program is told of every destruction that it asked to be told of.
  for (int i = 0; i < 3; i++) {
    cl_mem watched = buffer_of(4096);
    EXPECT(clSetMemObjectDestructorCallback(watched, count_destroyed, nullptr) == CL_SUCCESS);
    clReleaseMemObject(watched);
  }
  EXPECT(destroyed == 3);
  cl_uint references = 0;
  clGetContextInfo(context, CL_CONTEXT_REFERENCE_COUNT, sizeof references, &references, nullptr);
  cl_context fresh = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &e);
  cl_uint expected = 0, with_nothing = 0;
  clGetContextInfo(fresh, CL_CONTEXT_REFERENCE_COUNT, sizeof with_nothing, &with_nothing, nullptr);
  cl_mem last = clCreateBuffer(fresh, CL_MEM_READ_WRITE, 5000, nullptr, &e);
  clReleaseMemObject(last);
  clGetContextInfo(fresh, CL_CONTEXT_REFERENCE_COUNT, sizeof expected, &expected, nullptr);
  EXPECT(expected == with_nothing);
  clReleaseContext(fresh);
  // Threads, each with buffers of its own.
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; i++) {
        cl_int error = 0;
        cl_mem memory =
            clCreateBuffer(context, CL_MEM_READ_WRITE, 4096 + 4 * static_cast<std::size_t>(i % 3), nullptr, &error);
        int value = t * 1000 + i, back = 0;
        wrong += clEnqueueWriteBuffer(queue, memory, CL_TRUE, 0, 4, &value, 0, nullptr, nullptr) != CL_SUCCESS;
        wrong += clEnqueueReadBuffer(queue, memory, CL_TRUE, 0, 4, &back, 0, nullptr, nullptr) != CL_SUCCESS;
        wrong += back != value;
        wrong += clReleaseMemObject(memory) != CL_SUCCESS;
      }
    });
  for (auto& t : threads) t.join();
  EXPECT(wrong == 0);
}

// Steps that make the same buffers each time; after some, whoever keeps buffers is made to give them back.
void steps() {
  const std::size_t sizes[] = {4096, 12288, 20480, 28672, 12288, 36864};
  for (int step = 0; step < 18; step++) {
    if (step == 15) {
      cl_uint references = 0;
      clGetContextInfo(context, CL_CONTEXT_REFERENCE_COUNT, sizeof references, &references, nullptr);
      clFinish(queue);
    }
    std::vector<cl_mem> memories;
    for (std::size_t size : sizes) memories.push_back(buffer_of(size));
    for (cl_mem memory : memories) {
      char byte = 7, back = 0;
      EXPECT(clEnqueueWriteBuffer(queue, memory, CL_TRUE, 5, 1, &byte, 0, nullptr, nullptr) == CL_SUCCESS);
      EXPECT(clEnqueueReadBuffer(queue, memory, CL_TRUE, 5, 1, &back, 0, nullptr, nullptr) == CL_SUCCESS);
      EXPECT(back == 7 && info<cl_uint>(memory, CL_MEM_REFERENCE_COUNT) == 1);
    }
    // PoCL may hold a buffer for a moment after the command that used it has ended.
    clFinish(queue);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (cl_mem memory : memories) EXPECT(clReleaseMemObject(memory) == CL_SUCCESS);
    clFinish(queue);
    std::printf("%d\n", step);
    std::fflush(stdout);
  }
}

// Only where buffers are kept is a second release an error that can be told.
void released_twice() {
  cl_mem memory = buffer_of(4096);
  EXPECT(clReleaseMemObject(memory) == CL_SUCCESS);
  EXPECT(clReleaseMemObject(memory) == CL_INVALID_MEM_OBJECT);
}

}  // namespace

int main(int argc, char** argv) {
  std::string what = argc > 1 ? argv[1] : "";
  cl_int e = 0;
  if (clGetPlatformIDs(1, &platform, nullptr) != CL_SUCCESS ||
      clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, nullptr) != CL_SUCCESS) {
    std::fprintf(stderr, "No OpenCL device was found.\n");
    return 2;
  }
  context = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &e);
  queue = clCreateCommandQueue(context, device, 0, &e);
  if (what == "compute") compute();
  if (what == "transfers") transfers();
  if (what == "buffers") buffers(false);
  if (what == "buffers_again") buffers(true);
  if (what == "released_twice") released_twice();
  if (what == "steps") steps();
  EXPECT(clReleaseCommandQueue(queue) == CL_SUCCESS);
  EXPECT(clReleaseContext(context) == CL_SUCCESS);
  return failures;
}
