#include "trio.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct TrioMemory {
  size_t floats;
  float data[];
};

static atomic_size_t used;

int trio_present(void) {
  const char* chips = getenv("TRIO_CHIPS");
  return chips ? atoi(chips) : 1;
}

size_t trio_memory_bytes(void) { return (size_t)64 << 20; }

int trio_allocate(size_t floats, TrioMemory** memory) {
  size_t bytes = floats * sizeof(float);
  if (trio_present() < 1) return TRIO_UNPLUGGED;
  if (floats > trio_memory_bytes() / sizeof(float)) return TRIO_NO_MEMORY;
  if (atomic_fetch_add(&used, bytes) + bytes > trio_memory_bytes() || !(*memory = malloc(sizeof **memory + bytes))) {
    atomic_fetch_sub(&used, bytes);
    return TRIO_NO_MEMORY;
  }
  (*memory)->floats = floats;
  return 0;
}

void trio_free(TrioMemory* memory) {
  if (!memory) return;
  atomic_fetch_sub(&used, memory->floats * sizeof(float));
  free(memory);
}

int trio_write(TrioMemory* to, const float* from, size_t floats) {
  if (floats) memcpy(to->data, from, floats * sizeof(float));
  return trio_present() < 1 ? TRIO_UNPLUGGED : 0;
}

int trio_read(const TrioMemory* from, float* to, size_t floats) {
  if (floats) memcpy(to, from->data, floats * sizeof(float));
  return trio_present() < 1 ? TRIO_UNPLUGGED : 0;
}

int trio_matmul(const TrioMemory* a, const TrioMemory* b, TrioMemory* y, size_t rows, size_t inner, size_t columns) {
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < columns; ++j) {
      double sum = 0;
      for (size_t k = 0; k < inner; ++k) sum += (double)a->data[i * inner + k] * b->data[k * columns + j];
      y->data[i * columns + j] = (float)sum;
    }
  return trio_present() < 1 ? TRIO_UNPLUGGED : 0;
}

int trio_add(const TrioMemory* a, const TrioMemory* b, TrioMemory* y, size_t floats) {
  for (size_t i = 0; i < floats; ++i) y->data[i] = a->data[i] + b->data[i];
  return trio_present() < 1 ? TRIO_UNPLUGGED : 0;
}

int trio_relu(const TrioMemory* a, TrioMemory* y, size_t floats) {
  for (size_t i = 0; i < floats; ++i) y->data[i] = a->data[i] < 0 ? 0 : a->data[i];
  return trio_present() < 1 ? TRIO_UNPLUGGED : 0;
}
