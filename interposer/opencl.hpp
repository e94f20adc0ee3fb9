#pragma once

#include "library.hpp"

// After the version that calls.hpp chooses.
#include <CL/cl_icd.h>

// What happens to hooked OpenCL calls. Handlers get the real function first, or the next layer's.
namespace AIRamp::Interposer {

// Whether an OpenCL loader has this library as a layer. Then the next layer's functions are in its table.
extern std::atomic<bool> is_layer;
extern cl_icd_dispatch next_dispatch;
inline bool is_opencl_layer() { return is_layer.load(std::memory_order_relaxed); }
inline const cl_icd_dispatch* next_layer() { return &next_dispatch; }

// Puts the layer's wrappers into a table that holds the next layer's functions.
void hook_layer(cl_icd_dispatch* table);

cl_int on_finish(clFinish_t* function, cl_command_queue queue);
cl_int on_release_context(clReleaseContext_t* function, cl_context context);
cl_int on_get_context_info(clGetContextInfo_t* function, cl_context context, cl_context_info what, size_t room,
                           void* value, size_t* size);
cl_int on_retain_queue(clRetainCommandQueue_t* function, cl_command_queue queue);
cl_int on_release_queue(clReleaseCommandQueue_t* function, cl_command_queue queue);
cl_mem pooled_create_buffer(clCreateBuffer_t* function, cl_context context, cl_mem_flags flags, size_t size, void* host,
                            cl_int* error);
inline cl_mem on_create_buffer(clCreateBuffer_t* function, cl_context context, cl_mem_flags flags, size_t size,
                               void* host, cl_int* error) {
  return options.pool ? pooled_create_buffer(function, context, flags, size, host, error)
                      : function(context, flags, size, host, error);
}
cl_int on_retain_memory(clRetainMemObject_t* function, cl_mem memory);
cl_int pooled_release_memory(clReleaseMemObject_t* function, cl_mem memory);
inline cl_int on_release_memory(clReleaseMemObject_t* function, cl_mem memory) {
  return options.pool ? pooled_release_memory(function, memory) : function(memory);
}
cl_int on_set_destructor(clSetMemObjectDestructorCallback_t* function, cl_mem memory, void (*notify)(cl_mem, void*),
                         void* data);
cl_int on_read_buffer(clEnqueueReadBuffer_t* function, cl_command_queue queue, cl_mem buffer, cl_bool blocking,
                      size_t offset, size_t size, void* host, cl_uint count, const cl_event* wait, cl_event* event);
cl_int on_write_buffer(clEnqueueWriteBuffer_t* function, cl_command_queue queue, cl_mem buffer, cl_bool blocking,
                       size_t offset, size_t size, const void* host, cl_uint count, const cl_event* wait,
                       cl_event* event);

void note_queue(cl_context context, cl_command_queue queue);

template <class F, class... Arguments>
cl_command_queue on_create_queue(F* function, cl_context context, Arguments... arguments) {
  cl_command_queue queue = function(context, arguments...);
  if (queue && options.pool) note_queue(context, queue);
  return queue;
}

}  // namespace AIRamp::Interposer
