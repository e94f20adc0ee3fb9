/* A chip of three functions (Relu, Add, MatMul on f32, up to four dimensions) as a C author would write its plugin,
 * right and in C11 unless one of the defects or skews below is compiled in. The tests build it once for each:
 *
 * defects that plugin-check must find
 *   LEAKS_RUN LEAKS_COMPILE LEAKS_DEVICE   memory is left behind
 *   WRONG_RESULT                           a Relu lets small negative numbers pass
 *   WRONG_TAIL                             the last elements of a long tensor are forgotten
 *   IGNORES_CANCEL                         a caller who gave up is not heard
 *   CRASHES                                the tenth run touches address 8
 *   HANGS                                  the tenth run never ends
 *   OVERRUNS                               one element past the output is written
 *   CHANGES_INPUT                          an input is written to
 *   LIES_IN_QUERY                          query takes Sub, which compile refuses
 *   SHARES_SCRATCH                         contexts share memory that each writes
 *   KEEPS_GRAPH                            the executable reads the graph after compile
 *   TRUSTS_ARGUMENTS                       arguments are not looked at
 *   TRUSTS_ALLOCATE                        refused memory is written to
 *   FILLS_BEYOND                           device_info writes more than the host's struct has
 *   NO_SENTENCE                            failures have no text
 *   NO_NEGOTIATION                         the host's version is not looked at
 *
 * skews against this host
 *   NEWER_MINOR   built for a later minor version, with a larger table and larger structs; speaks ours
 *   OLDER_TABLE   a table that ends with `execute`'s successor, as the first ones did
 *   SHORT_TABLE   a table that ends before `compile`
 *   NEXT_MAJOR    built for the next major version, and says so
 *   BLIND_MAJOR   the same, but does not look at the host
 *   BLIND_MINOR   answers with a minor version that the host does not speak
 *   NO_ENTRY      exports nothing
 *   LEVEL_ONE     answers no queries */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ai_vmm/backend_abi.h"

enum { kMaxRank = 4, kF32 = 1 };
typedef enum Function { kRelu, kAdd, kMatMul } Function;

typedef struct Step {
  Function function;
  int32_t a, b, y;
} Step;

typedef struct Shape {
  int32_t rank;
  int64_t dims[kMaxRank];
} Shape;

struct AiVmmDevice {
  int64_t opened;
};
struct AiVmmExecutable {
  uint32_t values, steps, inputs, outputs;
  Step* step;
  int32_t *input, *output;
  Shape* declared; /* of each value; -1 where a size is open, rank -1 where it is not known */
  const float** constant;
#ifdef KEEPS_GRAPH
  const AiVmmGraph* graph;
#endif
};
struct AiVmmContext {
  const AiVmmExecutable* executable;
  Shape* shape;  /* of each value in this run */
  float** owned; /* memory of values that are neither inputs nor constants */
  const float** data;
};

static int32_t fail(AiVmmStatus* status, int32_t code, const char* sentence) {
  status->code = code;
  status->device_state = AI_VMM_DEVICE_OK;
  status->retry_after_ms = 0;
#ifdef NO_SENTENCE
  status->text_size = 0;
  (void)sentence;
#else
  status->text_size = (uint32_t)strlen(sentence);
  memcpy(status->text, sentence, status->text_size);
#endif
  return code;
}

static int is(const AiVmmNode* n, const char* op) {
  return n->domain.size == 0 && n->op.size == strlen(op) && !memcmp(n->op.data, op, n->op.size);
}

static int64_t count(const Shape* s) {
  int64_t n = 1;
  for (int32_t d = 0; d < s->rank; ++d) n *= s->dims[d];
  return n;
}

static int equal(const Shape* a, const Shape* b) {
  return a->rank == b->rank && !memcmp(a->dims, b->dims, (size_t)a->rank * sizeof(int64_t));
}

/* ---- devices */

static int32_t device_count(void* self) {
  (void)self;
  return 1;
}

static int32_t device_info(void* self, int32_t index, AiVmmDeviceInfo* info, AiVmmStatus* status) {
  (void)self;
  if (index != 0) return fail(status, 5, "This chip is alone.");
  memcpy(info->name, "chip of three functions", sizeof "chip of three functions");
  memcpy(info->resource, "three:0", sizeof "three:0");
  info->memory_bytes = 1 << 24;
  info->score = 1;
#ifdef FILLS_BEYOND
  memcpy(info->identity, "serial number 17", sizeof "serial number 17");
#else
  if (AI_VMM_HAS(info, AiVmmDeviceInfo, identity))
    memcpy(info->identity, "serial number 17", sizeof "serial number 17");
#endif
  return 0;
}

static int32_t open_device(void* self, int32_t index, AiVmmDevice** device, AiVmmStatus* status) {
  (void)self;
  if (index != 0) return fail(status, 5, "This chip is alone.");
  *device = calloc(1, sizeof **device);
  return *device ? 0 : fail(status, 8, "The machine has no memory left.");
}

static void close_device(AiVmmDevice* device) {
#ifdef LEAKS_DEVICE
  (void)device;
#else
  free(device);
#endif
}

/* ---- verdicts */

static AiVmmReason judge(const AiVmmGraph* g, const AiVmmNode* n) {
  int relu = is(n, "Relu"), add = is(n, "Add"), matmul = is(n, "MatMul");
#ifdef LIES_IN_QUERY
  if (is(n, "Sub")) return AI_VMM_SUPPORTED;
#endif
  if (!relu && !add && !matmul) return AI_VMM_REFUSED_OPERATOR;
  for (uint32_t i = 0; i < n->input_count; ++i) {
    const AiVmmValue* v = g->values[n->inputs[i]];
    if (v->dtype != kF32) return AI_VMM_REFUSED_DTYPE;
    if (v->rank < 0 || v->rank > kMaxRank || (matmul && v->rank != 2)) return AI_VMM_REFUSED_RANK;
  }
  if (add) { /* both sides of one shape, expressions and all */
    const AiVmmValue *a = g->values[n->inputs[0]], *b = g->values[n->inputs[1]];
    if (a->rank != b->rank) return AI_VMM_REFUSED_SHAPE;
    for (int32_t d = 0; d < a->rank; ++d)
      if (a->dims[d] != b->dims[d]) return AI_VMM_REFUSED_SHAPE;
  }
  return AI_VMM_SUPPORTED;
}

static int32_t query(AiVmmDevice* device, const AiVmmGraph* g, AiVmmVerdict* const* verdicts, AiVmmStatus* status) {
  (void)device;
  (void)status;
  for (uint32_t n = 0; n < g->node_count; ++n) {
    AiVmmReason reason = judge(g, g->nodes[n]);
    /* A host of version 1.0 knows no reason above 8. */
    verdicts[n]->reason = reason;
    verdicts[n]->detail = reason == AI_VMM_REFUSED_OPERATOR ? "the chip has Relu, Add and MatMul" : NULL;
    verdicts[n]->est_ns = 0;
    verdicts[n]->est_bytes = 0;
  }
  return 0;
}

/* ---- compiling */

static void release_executable(AiVmmExecutable* e) {
  if (!e) return;
  free(e->step);
  free(e->input);
  free(e->output);
  free(e->declared);
  free(e->constant);
#ifndef LEAKS_COMPILE
  free(e);
#endif
}

static int known(const AiVmmGraph* g, int32_t v) { return v >= 0 && (uint32_t)v < g->value_count; }

static int32_t compile(AiVmmDevice* device, const AiVmmGraph* g, const AiVmmCompileOptions* options,
                       AiVmmExecutable** out, AiVmmStatus* status) {
  AiVmmExecutable* e = calloc(1, sizeof *e);
  const uint32_t* layouts =
      options && AI_VMM_HAS(options, AiVmmCompileOptions, input_layouts) ? options->input_layouts : NULL;
  (void)device;
  if (!e) return fail(status, 8, "The machine has no memory left.");
  e->values = g->value_count;
  e->steps = g->node_count;
  e->inputs = g->input_count;
  e->outputs = g->output_count;
  e->step = calloc(g->node_count + 1, sizeof *e->step);
  e->input = calloc(g->input_count + 1, sizeof *e->input);
  e->output = calloc(g->output_count + 1, sizeof *e->output);
  e->declared = calloc(g->value_count + 1, sizeof *e->declared);
  e->constant = calloc(g->value_count + 1, sizeof *e->constant);
  if (!e->step || !e->input || !e->output || !e->declared || !e->constant) {
    release_executable(e);
    return fail(status, 8, "The machine has no memory left.");
  }
#ifdef KEEPS_GRAPH
  e->graph = g;
#endif
  for (uint32_t i = 0; i < g->input_count; ++i) {
    e->input[i] = g->inputs[i];
    if (!known(g, g->inputs[i]) || (layouts && layouts[i])) {
      release_executable(e);
      return fail(status, known(g, g->inputs[i]) ? 12 : 3, "An input is no value, or is not to be row-major.");
    }
  }
  for (uint32_t k = 0; k < g->output_count; ++k) {
    e->output[k] = g->outputs[k];
    if (!known(g, g->outputs[k])) {
      release_executable(e);
      return fail(status, 3, "An output is no value.");
    }
  }
  for (uint32_t v = 0; v < g->value_count; ++v) {
    const AiVmmValue* x = g->values[v];
    e->constant[v] = x->data;
    e->declared[v].rank = x->rank >= 0 && x->rank <= kMaxRank ? x->rank : -1;
    for (int32_t d = 0; d < e->declared[v].rank; ++d) e->declared[v].dims[d] = x->dims[d] >= 0 ? x->dims[d] : -1;
  }
  for (uint32_t n = 0; n < g->node_count; ++n) {
    const AiVmmNode* node = g->nodes[n];
    int ok = node->output_count == 1 && known(g, node->outputs[0]) && node->input_count >= 1 && node->input_count <= 2;
    for (uint32_t i = 0; ok && i < node->input_count; ++i) ok = known(g, node->inputs[i]);
    if (!ok || is(node, "Sub") || judge(g, node) != AI_VMM_SUPPORTED) {
      release_executable(e);
      return fail(status, ok ? 12 : 3, "The chip does not take a node of the graph.");
    }
    e->step[n].function = is(node, "Relu") ? kRelu : is(node, "Add") ? kAdd : kMatMul;
    e->step[n].a = node->inputs[0];
    e->step[n].b = node->inputs[node->input_count - 1];
    e->step[n].y = node->outputs[0];
  }
  *out = e;
  return 0;
}

static int32_t executable_info(AiVmmExecutable* e, AiVmmExecutableInfo* info, AiVmmStatus* status) {
  (void)e;
  (void)status;
  info->compilations = 1;
  return 0;
}

/* ---- running */

static int32_t create_context(AiVmmExecutable* e, AiVmmContext** out, AiVmmStatus* status) {
  AiVmmContext* c = calloc(1, sizeof *c);
  if (!c) return fail(status, 8, "The machine has no memory left.");
  c->executable = e;
  c->shape = calloc(e->values + 1, sizeof *c->shape);
  c->owned = calloc(e->values + 1, sizeof *c->owned);
  c->data = calloc(e->values + 1, sizeof *c->data);
  if (!c->shape || !c->owned || !c->data) {
    free(c->shape);
    free(c->owned);
    free(c->data);
    free(c);
    return fail(status, 8, "The machine has no memory left.");
  }
  *out = c;
  return 0;
}

static void release_context(AiVmmContext* c) {
  for (uint32_t v = 0; v < c->executable->values; ++v) free(c->owned[v]);
  free(c->shape);
  free(c->owned);
  free(c->data);
  free(c);
}

#ifdef SHARES_SCRATCH
static float scratch[1 << 20];
#endif

static void run_step(const Step* s, AiVmmContext* c, float* y) {
  const float *a = c->data[s->a], *b = c->data[s->b];
  int64_t n = count(&c->shape[s->y]);
#ifdef SHARES_SCRATCH
  float* to = scratch;
  struct timespec pause = {0, 20000};
#else
  float* to = y;
#endif
#ifdef WRONG_TAIL
  if (n > 16) n -= n % 16;
#endif
  switch (s->function) {
    case kRelu:
      for (int64_t i = 0; i < n; ++i)
#ifdef WRONG_RESULT
        to[i] = a[i] > -0.5f || a[i] != a[i] ? a[i] : 0;
#else
        to[i] = a[i] > 0 || a[i] != a[i] ? a[i] : 0;
#endif
      break;
    case kAdd:
      for (int64_t i = 0; i < n; ++i) to[i] = a[i] + b[i];
      break;
    case kMatMul: {
      int64_t rows = c->shape[s->a].dims[0], inner = c->shape[s->a].dims[1], columns = c->shape[s->b].dims[1];
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) {
          double sum = 0;
          for (int64_t k = 0; k < inner; ++k) sum += (double)a[i * inner + k] * b[k * columns + j];
          to[i * columns + j] = (float)sum;
        }
      break;
    }
  }
#ifdef SHARES_SCRATCH
  nanosleep(&pause, NULL);
  memcpy(y, scratch, (size_t)n * sizeof *y);
#endif
}

/* The shape of a step's result from those of its inputs; 0 when they do not fit. */
static int infer(const Step* s, Shape* shape) {
  const Shape *a = &shape[s->a], *b = &shape[s->b];
  if (s->function == kMatMul) {
    Shape y = {2, {a->dims[0], b->dims[1], 0, 0}};
    if (a->rank != 2 || b->rank != 2 || a->dims[1] != b->dims[0]) return 0;
    shape[s->y] = y;
    return 1;
  }
  if (s->function == kAdd && !equal(a, b)) return 0;
  shape[s->y] = *a;
  return 1;
}

static int32_t execute(AiVmmContext* c, const AiVmmTensor* const* inputs, uint32_t input_count,
                       const AiVmmTensor* const* outputs, uint32_t output_count, const AiVmmRun* run,
                       AiVmmStatus* status) {
  const AiVmmExecutable* e = c->executable;
#if defined(CRASHES) || defined(HANGS)
  static int runs;
  ++runs;
#ifdef CRASHES
  if (runs >= 10) *(volatile int*)8 = 1;
#else
  if (runs >= 10) {
    struct timespec second = {1, 0};
    for (;;) nanosleep(&second, NULL);
  }
#endif
#endif
#ifdef LEAKS_RUN
  if (!malloc(48)) return fail(status, 8, "The machine has no memory left.");
#endif
#ifdef KEEPS_GRAPH
  for (uint32_t n = 0; n < e->graph->node_count; ++n)
    if (e->graph->nodes[n]->op.size > 100) return fail(status, 13, "The graph has gone.");
#endif
#ifndef TRUSTS_ARGUMENTS
  if (input_count != e->inputs || output_count != e->outputs)
    return fail(status, 3, "The graph has another number of inputs or outputs.");
#endif
#ifndef IGNORES_CANCEL
  if (run->cancel && *run->cancel) return fail(status, 1, "The run was cancelled before it began.");
#endif
  for (uint32_t v = 0; v < e->values; ++v)
    if (e->constant[v]) {
      c->data[v] = e->constant[v];
      c->shape[v] = e->declared[v];
    }
  for (uint32_t i = 0; i < e->inputs; ++i) {
    const AiVmmTensor* t = inputs[i];
    Shape* s = &c->shape[e->input[i]];
#ifndef TRUSTS_ARGUMENTS
    const Shape* declared = &e->declared[e->input[i]];
    int ok = t && t->dtype == kF32 && t->rank == declared->rank && (t->rank == 0 || t->shape) && !t->strides;
    for (int32_t d = 0; ok && d < t->rank; ++d)
      ok = t->shape[d] >= 0 && (declared->dims[d] < 0 || declared->dims[d] == t->shape[d]);
    if (!ok) return fail(status, 3, "An input has another element type or shape than the compiled graph.");
#endif
    s->rank = t->rank;
    memcpy(s->dims, t->shape, (size_t)t->rank * sizeof(int64_t));
    c->data[e->input[i]] = (const float*)((const char*)t->data + t->byte_offset);
#ifndef TRUSTS_ARGUMENTS
    if (!t->data && count(s) > 0) return fail(status, 3, "An input has no memory.");
#endif
  }
  for (uint32_t n = 0; n < e->steps; ++n) {
    const Step* s = &e->step[n];
    int64_t elements;
    float* memory;
#ifndef IGNORES_CANCEL
    if (run->cancel && *run->cancel) return fail(status, 1, "The run was cancelled.");
#endif
    if (!infer(s, c->shape)) return fail(status, 3, "Two inputs do not fit each other.");
    elements = count(&c->shape[s->y]);
    memory = realloc(c->owned[s->y], (size_t)(elements + 1) * sizeof(float));
    if (!memory) return fail(status, 8, "The machine has no memory left.");
    c->owned[s->y] = memory;
    c->data[s->y] = memory;
    run_step(s, c, memory);
#ifdef CHANGES_INPUT
    if (elements) ((float*)c->data[e->input[0]])[0] = 0;
#endif
  }
  /* Outputs last, so that one may lie over an input. */
  for (uint32_t k = 0; k < output_count; ++k) {
    const AiVmmTensor* t = outputs[k];
    const Shape* s = &c->shape[e->output[k]];
    float* to = NULL;
#ifndef TRUSTS_ARGUMENTS
    if (!t) return fail(status, 3, "An output is missing.");
#endif
    if (t->data && t->dtype == kF32 && t->rank == s->rank &&
        !memcmp(t->shape, s->dims, (size_t)s->rank * sizeof(int64_t)))
      to = (float*)((char*)t->data + t->byte_offset);
    else
      to = run->allocate(run->user, k, kF32, s->rank, s->dims);
#ifndef TRUSTS_ALLOCATE
    if (!to) return fail(status, 8, "The host gave no memory for an output.");
#endif
    if (count(s)) memcpy(to, c->data[e->output[k]], (size_t)count(s) * sizeof(float));
#ifdef OVERRUNS
    to[count(s)] = 1;
#endif
  }
  return 0;
}

/* ---- the table */

#ifdef NEWER_MINOR
/* What the interface may look like one day. */
typedef struct Table {
  AiVmmBackend known;
  int32_t (*something_new)(AiVmmDevice* device);
  uint64_t more[7];
} Table;
static int32_t something_new(AiVmmDevice* device) {
  (void)device;
  return 0;
}
#else
typedef struct Table {
  AiVmmBackend known;
} Table;
#endif

static Table table;

static const AiVmmBackend* make(const AiVmmHost* host, uint32_t minor, AiVmmStatus* status) {
  AiVmmBackend* t = &table.known;
  (void)host;
  (void)status;
  t->head.size = sizeof table;
#ifdef NEWER_MINOR
  table.something_new = something_new;
  table.more[6] = 7;
#endif
#ifdef OLDER_TABLE
  t->head.size = offsetof(AiVmmBackend, extension);
  memset(&t->extension, 0xa7, sizeof table - offsetof(AiVmmBackend, extension));
#endif
#ifdef SHORT_TABLE
  t->head.size = offsetof(AiVmmBackend, compile);
#endif
  t->abi_major = AI_VMM_ABI_MAJOR;
  t->abi_minor = minor;
#if defined(BLIND_MAJOR) || defined(NEXT_MAJOR)
  t->abi_major = AI_VMM_ABI_MAJOR + 1;
#endif
#ifdef BLIND_MINOR
  t->abi_minor = AI_VMM_ABI_MINOR + 8;
#endif
  t->name = "three";
  t->version = "1";
  t->device_count = device_count;
  t->device_info = device_info;
  t->open_device = open_device;
  t->close_device = close_device;
#ifndef LEVEL_ONE
  t->query = query;
#endif
  t->compile = compile;
  t->release_executable = release_executable;
  t->executable_info = executable_info;
  t->create_context = create_context;
  t->release_context = release_context;
  t->execute = execute;
  return t;
}

#if defined(NO_ENTRY)
const void* unused_by_anyone(void);
const void* unused_by_anyone(void) { return (const void*)(uintptr_t)make; }
#elif defined(BLIND_MAJOR) || defined(NO_NEGOTIATION)
__attribute__((visibility("default"))) const AiVmmBackend* ai_vmm_backend_entry(const AiVmmHost* host,
                                                                                AiVmmStatus* status) {
  return make(host, AI_VMM_ABI_MINOR, status);
}
#elif defined(NEXT_MAJOR)
__attribute__((visibility("default"))) const AiVmmBackend* ai_vmm_backend_entry(const AiVmmHost* host,
                                                                                AiVmmStatus* status) {
  uint32_t minor = 0;
  if (ai_vmm_negotiate(host, AI_VMM_ABI_MAJOR + 1, 0, &minor, status)) return NULL;
  return make(host, minor, status);
}
#elif defined(NEWER_MINOR)
__attribute__((visibility("default"))) const AiVmmBackend* ai_vmm_backend_entry(const AiVmmHost* host,
                                                                                AiVmmStatus* status) {
  uint32_t minor = 0;
  if (ai_vmm_negotiate(host, AI_VMM_ABI_MAJOR, AI_VMM_ABI_MINOR + 8, &minor, status)) return NULL;
  return make(host, minor, status);
}
#else
AI_VMM_BACKEND(make)
#endif
