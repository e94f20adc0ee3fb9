/* The driver of the Trio, a chip that does not exist. It has memory of its own and three functions, and is all that its
 * maker ships. Functions return 0, or one of the codes below. */
#ifndef TRIO_H
#define TRIO_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TRIO_NO_MEMORY = 1, TRIO_UNPLUGGED = 2 };

typedef struct TrioMemory TrioMemory;

int trio_present(void); /* how many chips are plugged in: 1, or what TRIO_CHIPS says */
size_t trio_memory_bytes(void);

int trio_allocate(size_t floats, TrioMemory** memory);
void trio_free(TrioMemory* memory);
int trio_write(TrioMemory* to, const float* from, size_t floats);
int trio_read(const TrioMemory* from, float* to, size_t floats);

int trio_matmul(const TrioMemory* a, const TrioMemory* b, TrioMemory* y, size_t rows, size_t inner, size_t columns);
int trio_add(const TrioMemory* a, const TrioMemory* b, TrioMemory* y, size_t floats);
int trio_relu(const TrioMemory* a, TrioMemory* y, size_t floats);

#ifdef __cplusplus
}
#endif
#endif
