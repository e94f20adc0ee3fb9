/* The C interface between the AI VMM host and a backend: a plugin that drives a family of devices.
 *
 * C11 and C++20. No C++ type, exception or allocation crosses it.
 *
 * Rules
 *  - Every struct starts with AiVmmHead. `size` is what the writer compiled; a reader uses a field only if `size`
 *    covers it (AI_VMM_HAS). Fields are appended, never moved: that is a minor version. Moving one is a major version.
 *  - Fallible functions return a code (0 is success) and fill *status on failure. Codes are those of gRPC.
 *  - Pointers passed in are borrowed for the call, unless the comment says longer. Each create has one release.
 *  - Functions on different objects may be called at once from different threads. One context runs one call at a time.
 *  - Text is UTF-8 with a length; it is not terminated.
 *  - Values at the edge of a compiled graph are dense and row-major.
 *  - Strings, sequences, optionals, maps and control flow stay with the host and never cross.
 *
 * Levels: 1. compile and run (all entries not marked optional); 2. + query: per-node verdicts with reason, time and
 * bytes; 3. + extensions (buffers, events, states), fetched by versioned name through `extension`.
 */
#ifndef AI_VMM_BACKEND_ABI_H
#define AI_VMM_BACKEND_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AI_VMM_ABI_MAJOR 1u
#define AI_VMM_ABI_MINOR 0u
#define AI_VMM_HAS(object, type, field) ((object)->head.size >= offsetof(type, field) + sizeof((object)->field))

typedef struct AiVmmHead {
  uint32_t size;    /* bytes of the struct as its writer knows it */
  uint32_t kind;    /* 0; reserved to tell chained structs apart */
  const void* next; /* optional chain of further structs, each with an AiVmmHead */
} AiVmmHead;

typedef struct AiVmmText {
  const char* data;
  uint64_t size;
} AiVmmText;

/* ---- status */

typedef enum AiVmmDeviceState {
  AI_VMM_DEVICE_OK = 0,
  AI_VMM_DEVICE_BUSY = 1,
  AI_VMM_DEVICE_OUT_OF_MEMORY = 2,
  AI_VMM_DEVICE_LOST = 3,
  AI_VMM_DEVICE_DRIVER_MISMATCH = 4
} AiVmmDeviceState;

typedef struct AiVmmStatus {
  AiVmmHead head;
  int32_t code;            /* gRPC numbers; 0 ok, 3 invalid argument, 8 resource exhausted, 12 unimplemented, ... */
  int32_t device_state;    /* AiVmmDeviceState */
  uint32_t retry_after_ms; /* 0: no advice */
  uint32_t text_size;
  char text[1024]; /* a sentence; written by the callee, owned by the caller */
} AiVmmStatus;

/* ---- graph: flat, read-only, valid during the call unless said otherwise */

/* Element types are the numbers of ONNX TensorProto.DataType. A dimension d >= 0 is a size; d < 0 stands for the
 * integer expression `expressions[-1 - d]` of the graph, over symbols whose values are known when the graph runs. */
typedef struct AiVmmValue {
  AiVmmHead head;
  AiVmmText name;
  int32_t dtype;       /* 0: not known */
  int32_t rank;        /* -1: not known */
  const int64_t* dims; /* rank of them */
  const void* data;    /* a constant's elements, dense; valid as long as the executable; NULL: not a constant */
  uint64_t bytes;      /* of data */
  const int64_t* ints; /* elements of a small integer tensor where known before the run, coded as dimensions */
  int64_t int_count;   /* -1: not known */
} AiVmmValue;

typedef enum AiVmmAttributeKind {
  AI_VMM_ATTRIBUTE_INT = 0,
  AI_VMM_ATTRIBUTE_FLOAT = 1,
  AI_VMM_ATTRIBUTE_STRING = 2,
  AI_VMM_ATTRIBUTE_TENSOR = 3,
  AI_VMM_ATTRIBUTE_INTS = 4,
  AI_VMM_ATTRIBUTE_FLOATS = 5,
  AI_VMM_ATTRIBUTE_STRINGS = 6
} AiVmmAttributeKind;

typedef struct AiVmmAttribute {
  AiVmmHead head;
  AiVmmText name;
  int32_t kind;   /* AiVmmAttributeKind */
  uint32_t count; /* of the list kinds */
  int64_t i;
  float f;
  AiVmmText s;
  const int64_t* ints;
  const float* floats;
  const AiVmmText* strings;
  const AiVmmValue* tensor; /* its data is valid as long as the executable */
} AiVmmAttribute;

typedef struct AiVmmNode {
  AiVmmHead head;
  AiVmmText name, op, domain; /* domain "" is ai.onnx */
  int32_t version;            /* opset of the operator's canonical meaning */
  uint32_t input_count, output_count, attribute_count;
  const int32_t* inputs; /* index into values; -1: absent */
  const int32_t* outputs;
  const AiVmmAttribute* const* attributes;
} AiVmmNode;

typedef struct AiVmmGraph {
  AiVmmHead head;
  AiVmmText name;
  uint32_t value_count, node_count, input_count, output_count, expression_count;
  const AiVmmValue* const* values;
  const AiVmmNode* const* nodes; /* in topological order */
  const int32_t* inputs;         /* index into values */
  const int32_t* outputs;
  const AiVmmText* expressions; /* "2*batch + floor_div(seq, 4)"; grammar in docs/backend-interface.md */
} AiVmmGraph;

/* ---- verdicts */

typedef enum AiVmmReason {
  AI_VMM_SUPPORTED = 0,         /* a kernel of the device's own */
  AI_VMM_SUPPORTED_GENERIC = 1, /* runs, on a shared slow kernel; reported as generic */
  AI_VMM_REFUSED_OPERATOR = 2,  /* not implemented */
  AI_VMM_REFUSED_DTYPE = 3,
  AI_VMM_REFUSED_RANK = 4,
  AI_VMM_REFUSED_ATTRIBUTE = 5,
  AI_VMM_REFUSED_DYNAMIC = 6, /* a size must be known at compile time */
  AI_VMM_REFUSED_MEMORY = 7,
  AI_VMM_REFUSED_HOST_ONLY = 8 /* strings, sequences, control flow */
} AiVmmReason;

typedef struct AiVmmVerdict {
  AiVmmHead head;
  int32_t reason;     /* AiVmmReason */
  const char* detail; /* literal of the backend, or NULL */
  double est_ns;      /* 0: not known */
  double est_bytes;   /* device memory; 0: not known */
} AiVmmVerdict;

/* ---- running */

typedef struct AiVmmTensor { /* mirrors DLPack */
  AiVmmHead head;
  void* data; /* an output with NULL is allocated through AiVmmRun::allocate */
  uint64_t byte_offset;
  int32_t dtype; /* sub-byte kinds are packed, first element in the low bits */
  int32_t rank;
  const int64_t* shape;
  const int64_t* strides; /* in elements; NULL: dense row-major */
  int32_t device_type;    /* DLDeviceType; 1: host memory */
  int32_t device_id;
  uint32_t layout; /* 0: row-major; else a token that both sides of a region edge accepted at compile */
  uint32_t reserved;
} AiVmmTensor;

typedef struct AiVmmRun {
  AiVmmHead head;
  /* Memory for output `index` of the now known shape; NULL when the memory limit forbids it. The host owns it. */
  void* (*allocate)(void* user, uint32_t index, int32_t dtype, int32_t rank, const int64_t* shape);
  void* user;
  int32_t threads;                /* of the compute pool for this call; 0: all */
  const volatile int32_t* cancel; /* becomes non-zero when the caller gives up; NULL: never */
  uint64_t seed;                  /* of operators that draw random numbers */
} AiVmmRun;

typedef struct AiVmmCompileOptions {
  AiVmmHead head;
  int32_t threads;       /* the most that a run will ask for; 0: all */
  int32_t deterministic; /* nothing chosen by measurement */
  int64_t memory_limit;  /* bytes; 0: none */
  /* Output `k` may be written over input `alias[k]` (-1: none); output_count entries, or NULL. */
  const int32_t* alias;
} AiVmmCompileOptions;

typedef struct AiVmmExecutableInfo {
  AiVmmHead head;
  int64_t weight_bytes; /* held by the executable beyond the host's constants */
  int64_t arena_bytes;  /* of the largest shape class so far, one context */
  int64_t compilations; /* kernels or shape classes compiled so far; stands still in a steady state */
} AiVmmExecutableInfo;

typedef struct AiVmmDeviceInfo {
  AiVmmHead head;
  char name[128];     /* "AMD EPYC, 2 cores, avx512" */
  char resource[128]; /* the physical thing: "cpu:0"; devices with equal resource share capacity and fate */
  int64_t memory_bytes;
  double score; /* the vendor's own opinion of its speed; a prior, never the choice */
} AiVmmDeviceInfo;

/* ---- what the host offers */

typedef struct AiVmmHost {
  AiVmmHead head;
  uint32_t abi_major, abi_minor_min, abi_minor_max;
  void* user;
  /* Runs body(arg, begin, end) over [0, count) on the host's compute pool and waits. */
  void (*parallel_for)(void* user, int64_t count, int64_t grain, void (*body)(void* arg, int64_t begin, int64_t end),
                       void* arg);
  void (*log)(void* user, int32_t level, const char* text, uint64_t size); /* 0 debug, 1 info, 2 warning, 3 error */
  /* Measured choices kept between processes. get returns the bytes of the value (0: none), at most `capacity` copied.
   */
  uint64_t (*tuning_get)(void* user, AiVmmText key, char* value, uint64_t capacity);
  void (*tuning_put)(void* user, AiVmmText key, AiVmmText value);
  /* Asks the memory budget of the current run for `bytes`; 0 granted. Give back with a negative number. */
  int32_t (*memory_charge)(void* user, int64_t bytes);
} AiVmmHost;

/* ---- what a backend offers */

typedef struct AiVmmDevice AiVmmDevice;         /* an opened device */
typedef struct AiVmmExecutable AiVmmExecutable; /* a compiled graph: immutable, shared by threads */
typedef struct AiVmmContext AiVmmContext;       /* one concurrent run of an executable: arena, stream */

typedef struct AiVmmBackend {
  AiVmmHead head;
  uint32_t abi_major, abi_minor; /* what this backend speaks */
  const char* name;              /* "cpu" */
  const char* version;
  void* self;
  int32_t (*device_count)(void* self);
  int32_t (*device_info)(void* self, int32_t index, AiVmmDeviceInfo* info, AiVmmStatus* status);
  int32_t (*open_device)(void* self, int32_t index, AiVmmDevice** device, AiVmmStatus* status);
  void (*close_device)(AiVmmDevice* device);
  /* Optional. One verdict a node. NULL: the host tries to compile and takes a refusal as one for all nodes. */
  int32_t (*query)(AiVmmDevice* device, const AiVmmGraph* graph, AiVmmVerdict* const* verdicts, AiVmmStatus* status);
  int32_t (*compile)(AiVmmDevice* device, const AiVmmGraph* graph, const AiVmmCompileOptions* options,
                     AiVmmExecutable** executable, AiVmmStatus* status);
  void (*release_executable)(AiVmmExecutable* executable);
  int32_t (*executable_info)(AiVmmExecutable* executable, AiVmmExecutableInfo* info, AiVmmStatus* status);
  int32_t (*create_context)(AiVmmExecutable* executable, AiVmmContext** context, AiVmmStatus* status);
  void (*release_context)(AiVmmContext* context);
  /* inputs and outputs are in the order of the compiled graph. Outputs whose tensor has data are written there when the
   * shape fits; all others through run->allocate. */
  int32_t (*execute)(AiVmmContext* context, const AiVmmTensor* const* inputs, uint32_t input_count,
                     const AiVmmTensor* const* outputs, uint32_t output_count, const AiVmmRun* run,
                     AiVmmStatus* status);
  const void* (*extension)(void* self, const char* name); /* optional; NULL for an unknown name */
} AiVmmBackend;

/* The one exported symbol of a plugin, "ai_vmm_backend_entry". Fails with code 12 and a sentence when it speaks none
 * of the host's versions. The table lives as long as the plugin is loaded; `host` as long as the table. */
typedef const AiVmmBackend* (*AiVmmBackendEntry)(const AiVmmHost* host, AiVmmStatus* status);

#ifdef __cplusplus
}
#endif
#endif
