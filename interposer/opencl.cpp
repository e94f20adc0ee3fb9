#include "opencl.hpp"

#include <CL/cl_layer.h>
#include <pthread.h>
#include <string.h>

#include "elf.hpp"
#include "opencl_pool.hpp"

namespace AIRamp::Interposer {

cl_icd_dispatch next_dispatch;
std::atomic<bool> is_layer;

namespace {

cl_icd_dispatch layer;  // what the loader calls

// One chunk after the other; only the last one blocks and has the event. The queue must be in order, so that this is
// what the one command would have been; where the program could see the difference, it is.
template <class F, class Host>
cl_int transfer(Call call, F* function, cl_command_queue queue, cl_mem buffer, cl_bool blocking, size_t offset,
                size_t size, Host* host, cl_uint count, const cl_event* wait, cl_event* event) {
  auto plain = [&] { return function(queue, buffer, blocking, offset, size, host, count, wait, event); };
  if (!options.ocl_chunk) return plain();
  std::int64_t tuned = options.ocl_chunk_bytes ? options.ocl_chunk_bytes : tuning.get<Key::OCL_CHUNK_BYTES>();
  auto chunk = static_cast<size_t>(tuned);
  if (size <= chunk) {
    passed(call, "the transfer is not larger than a chunk");
    return plain();
  }
  cl_command_queue_properties properties = 0;
  size_t there = 0;
  const auto& cl = opencl();
  if (!cl.clGetCommandQueueInfo || !cl.clGetMemObjectInfo || !host ||
      cl.clGetCommandQueueInfo(queue, CL_QUEUE_PROPERTIES, sizeof properties, &properties, nullptr) != CL_SUCCESS ||
      cl.clGetMemObjectInfo(buffer, CL_MEM_SIZE, sizeof there, &there, nullptr) != CL_SUCCESS || offset > there ||
      size > there - offset)
    return plain();  // which says what is wrong
  if (properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE) {
    passed(call, "the queue runs commands out of order");
    return plain();
  }
  if ((properties & CL_QUEUE_PROFILING_ENABLE) && event) {
    passed(call, "the program profiles the transfer");
    return plain();
  }
  for (size_t done = 0; done < size; done += chunk) {
    bool last = size - done <= chunk;
    cl_int e = function(queue, buffer, last ? blocking : CL_FALSE, offset + done, last ? size - done : chunk,
                        host + done, done ? 0 : count, done ? nullptr : wait, last ? event : nullptr);
    if (e != CL_SUCCESS) return e;
  }
  gained(kOclChunk, 0, 0);
  set_state(kOclChunk, State::kActive, "what chunks gain depends on the device and is not measured");
  return CL_SUCCESS;
}

}  // namespace

const OpenCl& opencl() {
  static OpenCl functions;
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static std::atomic<int> found;  // 1: from the loader, 2: from the next layer
  int wanted = is_opencl_layer() ? 2 : 1;
  if (found.load(std::memory_order_acquire) == wanted) return functions;
  pthread_mutex_lock(&lock);
  elf::Object loader;
  if (wanted == 1) elf::find("clCreateBuffer", &loader);
#define X(name)                        \
  functions.name =                     \
      wanted == 2 ? next_dispatch.name \
                  : reinterpret_cast<decltype(next_dispatch.name)>(loader ? elf::find_in(loader, #name) : nullptr);
  AIRAMP_OPENCL_FUNCTIONS(X)
#undef X
  found.store(wanted, std::memory_order_release);
  pthread_mutex_unlock(&lock);
  return functions;
}

cl_int on_read_buffer(clEnqueueReadBuffer_t* function, cl_command_queue queue, cl_mem buffer, cl_bool blocking,
                      size_t offset, size_t size, void* host, cl_uint count, const cl_event* wait, cl_event* event) {
  return transfer(Call::clEnqueueReadBuffer, function, queue, buffer, blocking, offset, size, static_cast<char*>(host),
                  count, wait, event);
}

cl_int on_write_buffer(clEnqueueWriteBuffer_t* function, cl_command_queue queue, cl_mem buffer, cl_bool blocking,
                       size_t offset, size_t size, const void* host, cl_uint count, const cl_event* wait,
                       cl_event* event) {
  return transfer(Call::clEnqueueWriteBuffer, function, queue, buffer, blocking, offset, size,
                  static_cast<const char*>(host), count, wait, event);
}

}  // namespace AIRamp::Interposer

// The doors of an OpenCL layer, as CL/cl_layer.h defines them.
extern "C" __attribute__((visibility("default"))) cl_int CL_API_CALL clGetLayerInfo(cl_layer_info what, size_t room,
                                                                                    void* value, size_t* size) {
  auto answer = [&](const void* from, size_t bytes) -> cl_int {
    if (value && room < bytes) return CL_INVALID_VALUE;
    if (value) memcpy(value, from, bytes);
    if (size) *size = bytes;
    return CL_SUCCESS;
  };
  const cl_layer_api_version version = CL_LAYER_API_VERSION_100;
  if (what == CL_LAYER_API_VERSION) return answer(&version, sizeof version);
  if (what == CL_LAYER_NAME) return answer("AIRamp", sizeof "AIRamp");
  return CL_INVALID_VALUE;
}

extern "C" __attribute__((visibility("default"))) cl_int CL_API_CALL clInitLayer(cl_uint count,
                                                                                 const cl_icd_dispatch* target,
                                                                                 cl_uint* count_out,
                                                                                 const cl_icd_dispatch** layer_out) {
  using namespace AIRamp::Interposer;
  if (!target || !count_out || !layer_out) return CL_INVALID_VALUE;
  // A second loader in the same process: its calls are not ours to route.
  static std::atomic<bool> taken;
  if (!options.allowed[kOpenCl] || taken.exchange(true)) return CL_INVALID_OPERATION;
  // A loader may know fewer functions than we, or more, which then are not ours to call.
  constexpr size_t kOurs = sizeof(cl_icd_dispatch) / sizeof(void*);
  size_t known = count < kOurs ? count : kOurs;
  memcpy(static_cast<void*>(&next_dispatch), target, known * sizeof(void*));
  layer = next_dispatch;
  hook_layer(&layer);
  *count_out = static_cast<cl_uint>(known);
  *layer_out = &layer;
  is_layer.store(true);
  return CL_SUCCESS;
}
