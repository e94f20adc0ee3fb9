// A fake of libcuda.so.1 for tests: memory that the processor cannot touch, and the one call that copies it. Not a driver.

#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kMost = 64 };
static struct {
  uintptr_t address;
  size_t size;
  char* contents;
} allocations[kMost];

int cuMemAlloc_v2(uintptr_t* address, size_t size) {
  for (int i = 0; i < kMost; i++) {
    if (allocations[i].address) continue;
    size = (size + 4095) & ~(size_t)4095;
    void* reserved = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    allocations[i].contents = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    allocations[i].size = size;
    *address = allocations[i].address = (uintptr_t)reserved;
    return 0;
  }
  return 2;
}

static char* contents(uintptr_t address) {
  for (int i = 0; i < kMost; i++)
    if (address - allocations[i].address < allocations[i].size) return allocations[i].contents + (address - allocations[i].address);
  return (char*)address;
}

int cuMemcpy(uintptr_t to, uintptr_t from, size_t size) {
  memmove(contents(to), contents(from), size);
  return 0;
}
