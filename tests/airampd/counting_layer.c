// An OpenCL layer that stands below libairamp.so and appends the size of each write that reaches the driver to the file
// named in COUNTING_LAYER_FILE, and of each buffer that it is asked for to the one in COUNTING_LAYER_BUFFERS.
#define CL_TARGET_OPENCL_VERSION 300
#include <CL/cl.h>
#include <CL/cl_layer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct _cl_icd_dispatch table;
static const struct _cl_icd_dispatch* next;

static void append(const char* variable, size_t bytes) {
  const char* name = getenv(variable);
  FILE* f = name ? fopen(name, "a") : NULL;
  if (!f) return;
  fprintf(f, "%zu\n", bytes);
  fclose(f);
}

static cl_mem CL_API_CALL counted_buffer(cl_context context, cl_mem_flags flags, size_t bytes, void* from, cl_int* error) {
  append("COUNTING_LAYER_BUFFERS", bytes);
  return next->clCreateBuffer(context, flags, bytes, from, error);
}

static cl_int CL_API_CALL counted_write(cl_command_queue queue, cl_mem buffer, cl_bool blocking, size_t offset, size_t bytes,
                                        const void* from, cl_uint count, const cl_event* waits, cl_event* event) {
  append("COUNTING_LAYER_FILE", bytes);
  return next->clEnqueueWriteBuffer(queue, buffer, blocking, offset, bytes, from, count, waits, event);
}

CL_API_ENTRY cl_int CL_API_CALL clGetLayerInfo(cl_layer_info what, size_t room, void* value, size_t* size) {
  cl_layer_api_version version = CL_LAYER_API_VERSION_100;
  const char name[] = "counting layer";
  const void* from = what == CL_LAYER_API_VERSION ? (const void*)&version : name;
  size_t bytes = what == CL_LAYER_API_VERSION ? sizeof version : sizeof name;
  if (value && room < bytes) return CL_INVALID_VALUE;
  if (value) memcpy(value, from, bytes);
  if (size) *size = bytes;
  return CL_SUCCESS;
}

CL_API_ENTRY cl_int CL_API_CALL clInitLayer(cl_uint entries, const struct _cl_icd_dispatch* target, cl_uint* ours_count,
                                            const struct _cl_icd_dispatch** ours) {
  cl_uint most = (cl_uint)(sizeof table / sizeof(void*));
  next = target;
  memcpy(&table, target, (entries < most ? entries : most) * sizeof(void*));
  table.clEnqueueWriteBuffer = counted_write;
  table.clCreateBuffer = counted_buffer;
  *ours = &table;
  *ours_count = entries < most ? entries : most;
  return CL_SUCCESS;
}
