/* A plugin as it was written for version 1.0 of the interface, with its own copy of that header. Neither is ever
 * changed: this plugin must load and run under every later host. It has one operator, Relu on f32. */
#include <stdlib.h>
#include <string.h>

#include "ai_vmm/backend_abi.h"

struct AiVmmDevice {
  int open;
};
struct AiVmmExecutable {
  uint32_t count; /* of Relus, one an output; output k reads input source[k] */
  uint32_t inputs;
  int32_t* source;
};
struct AiVmmContext {
  const struct AiVmmExecutable* executable;
};

static int32_t fail(AiVmmStatus* status, int32_t code, const char* sentence) {
  status->code = code;
  status->device_state = AI_VMM_DEVICE_OK;
  status->text_size = (uint32_t)strlen(sentence);
  memcpy(status->text, sentence, status->text_size);
  return code;
}

static int is_relu(const AiVmmNode* n) {
  return n->domain.size == 0 && n->op.size == 4 && !memcmp(n->op.data, "Relu", 4);
}

static int32_t device_count(void* self) {
  (void)self;
  return 1;
}

static int32_t device_info(void* self, int32_t index, AiVmmDeviceInfo* info, AiVmmStatus* status) {
  (void)self;
  if (index != 0) return fail(status, 5, "There is one device only.");
  strcpy(info->name, "frozen chip of version 1.0");
  strcpy(info->resource, "frozen:0");
  info->memory_bytes = 1 << 20;
  info->score = 1;
  return 0;
}

static int32_t open_device(void* self, int32_t index, AiVmmDevice** device, AiVmmStatus* status) {
  (void)self;
  if (index != 0) return fail(status, 5, "There is one device only.");
  *device = calloc(1, sizeof **device);
  return *device ? 0 : fail(status, 8, "The machine has no memory left.");
}

static void close_device(AiVmmDevice* device) { free(device); }

static int32_t query(AiVmmDevice* device, const AiVmmGraph* graph, AiVmmVerdict* const* verdicts, AiVmmStatus* status) {
  uint32_t n;
  (void)device;
  (void)status;
  for (n = 0; n < graph->node_count; ++n) {
    const AiVmmNode* node = graph->nodes[n];
    verdicts[n]->reason = !is_relu(node)                               ? AI_VMM_REFUSED_OPERATOR
                          : graph->values[node->inputs[0]]->dtype != 1 ? AI_VMM_REFUSED_DTYPE
                                                                       : AI_VMM_SUPPORTED;
    verdicts[n]->detail = is_relu(node) ? NULL : "the chip only has Relu";
  }
  return 0;
}

static int32_t compile(AiVmmDevice* device, const AiVmmGraph* graph, const AiVmmCompileOptions* options,
                       AiVmmExecutable** out, AiVmmStatus* status) {
  AiVmmExecutable* e;
  uint32_t k, n, i;
  (void)device;
  (void)options;
  for (n = 0; n < graph->node_count; ++n) {
    const AiVmmNode* node = graph->nodes[n];
    if (!is_relu(node) || node->input_count != 1 || node->output_count != 1)
      return fail(status, 12, "The chip only has Relu.");
    if (node->inputs[0] < 0 || (uint32_t)node->inputs[0] >= graph->value_count || node->outputs[0] < 0 ||
        (uint32_t)node->outputs[0] >= graph->value_count)
      return fail(status, 3, "A node names a value that there is not.");
    if (graph->values[node->inputs[0]]->dtype != 1) return fail(status, 12, "The chip only has f32.");
  }
  e = calloc(1, sizeof *e);
  if (!e) return fail(status, 8, "The machine has no memory left.");
  e->count = graph->output_count;
  e->inputs = graph->input_count;
  e->source = calloc(graph->output_count + 1, sizeof *e->source);
  if (!e->source) {
    free(e);
    return fail(status, 8, "The machine has no memory left.");
  }
  /* Relu(Relu(x)) is Relu(x): an output is the Relu of the input that its chain begins with. */
  for (k = 0; k < graph->output_count; ++k) {
    int32_t v = graph->outputs[k];
    e->source[k] = -1;
    for (n = graph->node_count; n-- > 0;)
      if (graph->nodes[n]->outputs[0] == v) v = graph->nodes[n]->inputs[0];
    for (i = 0; i < graph->input_count; ++i)
      if (graph->inputs[i] == v) e->source[k] = (int32_t)i;
    if (e->source[k] < 0 || v == graph->outputs[k]) {
      free(e->source);
      free(e);
      return fail(status, 3, "An output is made by no Relu of an input.");
    }
  }
  *out = e;
  return 0;
}

static void release_executable(AiVmmExecutable* e) {
  free(e->source);
  free(e);
}

static int32_t executable_info(AiVmmExecutable* e, AiVmmExecutableInfo* info, AiVmmStatus* status) {
  (void)e;
  (void)status;
  info->compilations = 1;
  return 0;
}

static int32_t create_context(AiVmmExecutable* e, AiVmmContext** out, AiVmmStatus* status) {
  *out = calloc(1, sizeof **out);
  if (!*out) return fail(status, 8, "The machine has no memory left.");
  (*out)->executable = e;
  return 0;
}

static void release_context(AiVmmContext* c) { free(c); }

static int32_t execute(AiVmmContext* c, const AiVmmTensor* const* inputs, uint32_t input_count,
                       const AiVmmTensor* const* outputs, uint32_t output_count, const AiVmmRun* run,
                       AiVmmStatus* status) {
  uint32_t k;
  if (input_count != c->executable->inputs || output_count != c->executable->count)
    return fail(status, 3, "The graph has another number of inputs or outputs.");
  if (run->cancel && *run->cancel) return fail(status, 1, "The run was cancelled.");
  for (k = 0; k < output_count; ++k) {
    const AiVmmTensor* x = inputs[c->executable->source[k]];
    const AiVmmTensor* y = outputs[k];
    const float* from = (const float*)((const char*)x->data + x->byte_offset);
    float* to = NULL;
    int64_t n = 1, i;
    int32_t d;
    for (d = 0; d < x->rank; ++d) n *= x->shape[d];
    if (y->data && y->dtype == 1 && y->rank == x->rank &&
        !memcmp(y->shape, x->shape, (size_t)x->rank * sizeof(int64_t)))
      to = (float*)((char*)y->data + y->byte_offset);
    else
      to = run->allocate(run->user, k, 1, x->rank, x->shape);
    if (!to) return fail(status, 8, "The host gave no memory for an output.");
    for (i = 0; i < n; ++i) to[i] = from[i] > 0 || from[i] != from[i] ? from[i] : 0;
  }
  return 0;
}

__attribute__((visibility("default"))) const AiVmmBackend* ai_vmm_backend_entry(const AiVmmHost* host,
                                                                                AiVmmStatus* status) {
  static AiVmmBackend table;
  if (host->abi_major != AI_VMM_ABI_MAJOR || host->abi_minor_min > AI_VMM_ABI_MINOR) {
    fail(status, 12, "The frozen plugin speaks version 1.0 of the interface, the host does not.");
    return NULL;
  }
  table.head.size = sizeof table;
  table.abi_major = AI_VMM_ABI_MAJOR;
  table.abi_minor = AI_VMM_ABI_MINOR;
  table.name = "frozen";
  table.version = "1.0";
  table.device_count = device_count;
  table.device_info = device_info;
  table.open_device = open_device;
  table.close_device = close_device;
  table.query = query;
  table.compile = compile;
  table.release_executable = release_executable;
  table.executable_info = executable_info;
  table.create_context = create_context;
  table.release_context = release_context;
  table.execute = execute;
  return &table;
}
