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
 *  - Values at the edge of a compiled graph are dense and row-major, unless a layout token was agreed at compile.
 *  - Strings, sequences, optionals, maps and control flow stay with the host and never cross.
 *  - A field that only a later minor version has is marked with it: "1.1".
 *
 * Levels: 1. compile and run (all entries not marked optional); 2. + query: per-node verdicts with reason, time and
 * bytes; 3. + extensions (buffers, streams, states, layouts), fetched by versioned name through `extension`.
 *
 * A plugin in C exports itself with AI_VMM_BACKEND(function), one in C++ with AI_VMM_EXPORT_BACKEND of
 * compute_backend.hpp; both negotiate the version before any code of the author runs.
 */
#ifndef AI_VMM_BACKEND_ABI_H
#define AI_VMM_BACKEND_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AI_VMM_ABI_MAJOR 1u
#define AI_VMM_ABI_MINOR 1u
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
  AI_VMM_REFUSED_HOST_ONLY = 8, /* strings, sequences, control flow */
  /* 1.1 */
  AI_VMM_REFUSED_SHAPE = 9,      /* a known size is outside what the device can do */
  AI_VMM_REFUSED_LAYOUT = 10,    /* a layout token is not accepted */
  AI_VMM_REFUSED_PRECISION = 11, /* the device cannot compute as exactly as asked */
  AI_VMM_REFUSED_DRIVER = 12,    /* a driver or library is missing or too old */
  AI_VMM_REFUSED_NEIGHBOURS = 13 /* runs only together with other nodes, which are not there */
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
  void* data; /* an output with NULL is allocated through AiVmmRun::allocate, in the memory that device_type names */
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

/* What a run says of itself. The callee writes only what it knows. 1.1 */
typedef struct AiVmmRunInfo {
  AiVmmHead head;
  double device_ns; /* time on the device, transfers included; of a simulated device by its own clock; 0: not known */
  double joules;    /* 0: not known */
  uint64_t bytes_to_device, bytes_from_device; /* copied over a link for this run */
} AiVmmRunInfo;

typedef struct AiVmmRun {
  AiVmmHead head;
  /* Memory for output `index` of the now known shape; NULL when the memory limit forbids it. The host owns it. */
  void* (*allocate)(void* user, uint32_t index, int32_t dtype, int32_t rank, const int64_t* shape);
  void* user;
  int32_t threads; /* of the compute pool for this call; 0: all */
  /* Becomes non-zero when the caller gives up; NULL: never. Looked at before the run starts and between its steps; the
   * call then returns code 1. */
  const volatile int32_t* cancel;
  uint64_t seed;      /* of operators that draw random numbers */
  AiVmmRunInfo* info; /* 1.1; filled by the callee; NULL: nobody asks */
} AiVmmRun;

typedef struct AiVmmCompileOptions {
  AiVmmHead head;
  int32_t threads;       /* the most that a run will ask for; 0: all */
  int32_t deterministic; /* nothing chosen by measurement */
  int64_t memory_limit;  /* bytes; 0: none */
  /* A run may be given the memory of input alias[k] as output k, of equal type and shape, and the result must be right
   * all the same (-1: never); output_count entries, or NULL: no output shares memory with an input. */
  const int32_t* alias;
  /* 1.1. Layout tokens of the graph's inputs and outputs in their order, or NULL: all row-major. Only tokens that the
   * extension "layouts" proposed for the value; any other is refused with code 12. */
  const uint32_t* input_layouts;
  const uint32_t* output_layouts;
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
  double score;       /* the vendor's own opinion of its speed; a prior, never the choice */
  uint32_t flags;     /* 1.1; AI_VMM_DEVICE_SIMULATED, … */
  uint32_t reserved;  /* 1.1 */
  char identity[128]; /* 1.1; the same after a reboot: serial number, UUID, "pci:0000:01:00.0"; "" if not known */
  char driver[128];   /* 1.1; name and version of driver and firmware */
} AiVmmDeviceInfo;

#define AI_VMM_DEVICE_SIMULATED 1u /* times and energy are computed, not measured; reports say so */

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
  /* 1.1, optional. Success while the device works; otherwise code and device_state as a run would give them. Cheap. */
  int32_t (*device_state)(AiVmmDevice* device, AiVmmStatus* status);
} AiVmmBackend;

/* The one exported symbol of a plugin, "ai_vmm_backend_entry". Fails with code 12 and a sentence when it speaks none
 * of the host's versions. The table lives as long as the plugin is loaded; `host` as long as the table. */
typedef const AiVmmBackend* (*AiVmmBackendEntry)(const AiVmmHost* host, AiVmmStatus* status);

/* ---- level 3: extensions. Each is a table; a changed one gets a new name. A backend offers any subset. */

typedef struct AiVmmBuffer AiVmmBuffer; /* memory of a device */
typedef struct AiVmmStream AiVmmStream; /* work on a device in order */
typedef struct AiVmmEvent AiVmmEvent;   /* a point of a stream */
typedef struct AiVmmState AiVmmState;   /* a tensor that outlives runs and grows, such as a KV cache */

/* A tensor in a buffer has the device_type and device_id of AiVmmMemory and, as in DLPack, the buffer's address as
 * data. It is given to executables of a backend only if that backend offers "buffers". */
#define AI_VMM_EXTENSION_BUFFERS "ai_vmm.buffers.1"

typedef enum AiVmmExternalKind {
  AI_VMM_EXTERNAL_HOST = 0, /* pointer: memory of this process */
  AI_VMM_EXTERNAL_DMA_BUF = 1,
  AI_VMM_EXTERNAL_FD = 2,    /* a memory object that can be mapped */
  AI_VMM_EXTERNAL_NATIVE = 3 /* pointer: the vendor interface's own handle */
} AiVmmExternalKind;

typedef struct AiVmmExternal {
  AiVmmHead head;
  int32_t kind; /* AiVmmExternalKind */
  int32_t fd;   /* export: the caller closes it; import: the callee keeps a duplicate if it needs one */
  void* pointer;
  uint64_t offset, bytes;
} AiVmmExternal;

typedef struct AiVmmMemory {
  AiVmmHead head;
  uint64_t total_bytes, free_bytes; /* 0: not known */
  uint64_t alignment;               /* of addresses */
  int32_t device_type, device_id;   /* of tensors in it, DLDeviceType */
  uint32_t host_visible;            /* map gives the memory itself, not a copy */
  uint32_t imports, exports;        /* bit 1 << AiVmmExternalKind */
  uint32_t reserved;
  /* 1.1. What a write or a read between the device and the host costs: link_ns + 1e9 * bytes / link_bandwidth, at
   * link_watts; link_bandwidth 0: not known, or there is no link. */
  double link_ns, link_bandwidth, link_watts;
} AiVmmMemory;

typedef struct AiVmmBuffers {
  AiVmmHead head;
  int32_t (*memory)(AiVmmDevice* device, AiVmmMemory* memory, AiVmmStatus* status);
  int32_t (*allocate)(AiVmmDevice* device, uint64_t bytes, AiVmmBuffer** buffer, AiVmmStatus* status);
  void (*release)(AiVmmBuffer* buffer); /* its device is still open */
  void* (*address)(AiVmmBuffer* buffer);
  /* Where the host reads and writes the content until unmap, which makes the writes visible to the device. */
  int32_t (*map)(AiVmmBuffer* buffer, void** host, AiVmmStatus* status);
  int32_t (*unmap)(AiVmmBuffer* buffer, AiVmmStatus* status);
  /* With a stream: enqueued, and `from` / `to` must stay valid until a later event. Without: done on return. Code 11
   * when the range leaves the buffer. */
  int32_t (*write)(AiVmmBuffer* buffer, uint64_t offset, const void* from, uint64_t bytes, AiVmmStream* stream,
                   AiVmmStatus* status);
  int32_t (*read)(AiVmmBuffer* buffer, uint64_t offset, void* to, uint64_t bytes, AiVmmStream* stream,
                  AiVmmStatus* status);
  int32_t (*copy)(AiVmmBuffer* to, uint64_t to_offset, AiVmmBuffer* from, uint64_t from_offset, uint64_t bytes,
                  AiVmmStream* stream, AiVmmStatus* status);
  /* A buffer over memory that someone else owns and keeps until the buffer's release; code 12 for a kind not in
   * imports. */
  int32_t (*import_)(AiVmmDevice* device, const AiVmmExternal* external, AiVmmBuffer** buffer, AiVmmStatus* status);
  int32_t (*export_)(AiVmmBuffer* buffer, int32_t kind, AiVmmExternal* external, AiVmmStatus* status);
} AiVmmBuffers;

#define AI_VMM_EXTENSION_STREAMS "ai_vmm.streams.1"

typedef struct AiVmmStreams {
  AiVmmHead head;
  int32_t (*create_stream)(AiVmmDevice* device, AiVmmStream** stream, AiVmmStatus* status);
  void (*release_stream)(AiVmmStream* stream); /* waits for its work */
  int32_t (*create_event)(AiVmmDevice* device, AiVmmEvent** event, AiVmmStatus* status);
  void (*release_event)(AiVmmEvent* event);
  /* The event comes to stand for everything enqueued on the stream so far. */
  int32_t (*record)(AiVmmEvent* event, AiVmmStream* stream, AiVmmStatus* status);
  /* What is enqueued on the stream from now on starts after the event; both may be of different devices of the backend.
   */
  int32_t (*wait)(AiVmmStream* stream, AiVmmEvent* event, AiVmmStatus* status);
  /* Waits until the event's work is done: 0; code 4 when it is not after timeout_ns (0: only looks); or the first
   * failure of that work. An event never recorded is done. */
  int32_t (*synchronize)(AiVmmEvent* event, uint64_t timeout_ns, AiVmmStatus* status);
  /* Enqueues a run. Tensors and *run stay valid until a later event is done; run->allocate may be called from another
   * thread until then. */
  int32_t (*execute)(AiVmmContext* context, const AiVmmTensor* const* inputs, uint32_t input_count,
                     const AiVmmTensor* const* outputs, uint32_t output_count, const AiVmmRun* run, AiVmmStream* stream,
                     AiVmmStatus* status);
} AiVmmStreams;

/* States belong to the deployment that made them, never to an executable. A tensor of device_type AI_VMM_STATE_TENSOR
 * has an AiVmmState as data: as an input it stands for the rows so far, with the shape they make; as an output, the
 * rows that the run makes are appended. One state is used by one run at a time; forks are states of their own. */
#define AI_VMM_EXTENSION_STATES "ai_vmm.states.1"
#define AI_VMM_STATE_TENSOR 0x5354

typedef struct AiVmmStateShape {
  AiVmmHead head;
  int32_t dtype, rank;
  const int64_t* dims; /* dims[axis] is the capacity in rows; appending beyond it is code 8 */
  int32_t axis;        /* along which it grows */
  int32_t reserved;
} AiVmmStateShape;

typedef struct AiVmmStateInfo {
  AiVmmHead head;
  int64_t rows, capacity, page_rows; /* pages hold page_rows rows each; the last may be part full */
  uint64_t bytes;                    /* of pages that no fork shares */
} AiVmmStateInfo;

typedef struct AiVmmStates {
  AiVmmHead head;
  int32_t (*create)(AiVmmDevice* device, const AiVmmStateShape* shape, AiVmmState** state, AiVmmStatus* status);
  void (*free)(AiVmmState* state);
  int32_t (*info)(AiVmmState* state, AiVmmStateInfo* info, AiVmmStatus* status);
  /* Rows of the state's type and of its shape but for the axis. */
  int32_t (*append)(AiVmmState* state, const AiVmmTensor* rows, AiVmmStatus* status);
  int32_t (*truncate)(AiVmmState* state, int64_t rows, AiVmmStatus* status); /* code 11 when there are fewer */
  /* Rows [begin, begin + to->shape[axis]) into a dense tensor of the host. */
  int32_t (*read)(AiVmmState* state, int64_t begin, const AiVmmTensor* to, AiVmmStatus* status);
  /* A second state of equal content; pages are shared until one of the two writes to them. */
  int32_t (*fork)(AiVmmState* state, AiVmmState** copy, AiVmmStatus* status);
  /* The content as bytes that restore takes, on this or another device of the backend, given in pieces. */
  int32_t (*snapshot)(AiVmmState* state, int32_t (*write)(void* user, const void* bytes, uint64_t size), void* user,
                      AiVmmStatus* status);
  int32_t (*restore)(AiVmmDevice* device, const void* bytes, uint64_t size, AiVmmState** state, AiVmmStatus* status);
  /* How many pages there are; the addresses of at most `capacity` of them are written. Valid until the state changes.
   */
  int32_t (*page_table)(AiVmmState* state, uint64_t capacity, void** pages, uint64_t* count, AiVmmStatus* status);
} AiVmmStates;

/* A token names how a value's elements lie in memory. 0 is row-major, 1 channels last (N, spatial sizes, C); those from
 * AI_VMM_LAYOUT_PRIVATE up are the backend's own and equal only between devices of one backend. */
#define AI_VMM_EXTENSION_LAYOUTS "ai_vmm.layouts.1"
#define AI_VMM_LAYOUT_ROW_MAJOR 0u
#define AI_VMM_LAYOUT_CHANNELS_LAST 1u
#define AI_VMM_LAYOUT_PRIVATE 0x10000u

typedef struct AiVmmLayouts {
  AiVmmHead head;
  /* The tokens that the device takes for value `value`, an input or output of the graph, best first. *count is how many
   * there are; at most `capacity` are written. The host compares the lists of both sides of an edge and names the one
   * it picked in AiVmmCompileOptions. */
  int32_t (*propose)(AiVmmDevice* device, const AiVmmGraph* graph, int32_t value, uint32_t capacity, uint32_t* tokens,
                     uint32_t* count, AiVmmStatus* status);
  uint64_t (*bytes)(AiVmmDevice* device, uint32_t token, int32_t dtype, int32_t rank, const int64_t* shape);
} AiVmmLayouts;

/* ---- negotiation */

/* The minor version that host and plugin both speak: the greatest of both, into *minor. Code 12 and a sentence when
 * there is none. `own_minor` is AI_VMM_ABI_MINOR of the header that the plugin was compiled with. */
static inline int32_t ai_vmm_negotiate(const AiVmmHost* host, uint32_t own_major, uint32_t own_minor, uint32_t* minor,
                                       AiVmmStatus* status) {
  static const char other_major[] = "The plugin speaks another major version of the backend interface than this host.";
  static const char too_old[] =
      "The plugin is older than the oldest minor version of the backend interface that this "
      "host still speaks; build it anew with the current header.";
  static const char no_host[] = "The host gave no table of its own.";
  const char* why = 0; /* NOLINT(modernize-use-nullptr): this is C */
  uint32_t n = 0;
  if (!host || host->head.size < offsetof(AiVmmHost, parallel_for)) {
    why = no_host;
  } else if (host->abi_major != own_major) {
    why = other_major;
  } else if (host->abi_minor_min > own_minor) {
    why = too_old;
  }
  if (!why) {
    *minor = own_minor < host->abi_minor_max ? own_minor : host->abi_minor_max;
    return 0;
  }
  if (status && status->head.size >= offsetof(AiVmmStatus, text)) {
    status->code = 12;
    status->device_state = AI_VMM_DEVICE_OK;
    while (why[n] && offsetof(AiVmmStatus, text) + n < status->head.size && n < sizeof status->text) {
      status->text[n] = why[n];
      ++n;
    }
    status->text_size = n;
  }
  return 12;
}

/* Exports a plugin written in C. `make` is const AiVmmBackend* make(const AiVmmHost*, uint32_t minor, AiVmmStatus*): it
 * fills abi_minor with `minor` and calls no host service that is newer. */
#define AI_VMM_BACKEND(make)                                                                             \
  __attribute__((visibility("default"))) const AiVmmBackend* ai_vmm_backend_entry(const AiVmmHost* host, \
                                                                                  AiVmmStatus* status) { \
    uint32_t minor = 0;                                                                                  \
    if (ai_vmm_negotiate(host, AI_VMM_ABI_MAJOR, AI_VMM_ABI_MINOR, &minor, status)) return 0;            \
    return make(host, minor, status);                                                                    \
  }

#ifdef __cplusplus
}
#endif
#endif
