// A fake of a device for tests of libairamp.so: not a driver. The processor cannot touch its memory; what is launched
// happens late, at the next synchronisation; freed memory is filled with 0xdd; 64 MiB in all. A real driver's free
// waits for what was launched, and so does this one's.
#pragma once

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { kMost = 256, kMemory = 64 << 20, kInvalid = 1, kOutOfMemory = 2, kPending = 64 };
static struct {
  uintptr_t address;
  size_t size;
  char* contents;
} blocks[kMost];
static struct {
  uintptr_t address;
  unsigned char byte;
  size_t size;
} pending[kPending];
static int pending_count, capturing;
static size_t used;
static pthread_mutex_t device_lock = PTHREAD_MUTEX_INITIALIZER;

// What tests ask.
int fake_allocations = 0, fake_frees = 0, fake_broken_captures = 0;

static char* contents(uintptr_t address) {
  for (int i = 0; i < kMost; i++)
    if (blocks[i].address && address - blocks[i].address < blocks[i].size)
      return blocks[i].contents + (address - blocks[i].address);
  return (char*)address;
}

static void run_pending(void) {
  for (int i = 0; i < pending_count; i++) memset(contents(pending[i].address), pending[i].byte, pending[i].size);
  pending_count = 0;
}

static int device_synchronise(void) {
  pthread_mutex_lock(&device_lock);
  if (capturing) fake_broken_captures++;
  run_pending();
  pthread_mutex_unlock(&device_lock);
  return 0;
}

static int device_allocate(uintptr_t* address, size_t size) {
  int code = kOutOfMemory;
  pthread_mutex_lock(&device_lock);
  size_t whole = (size + 4095) & ~(size_t)4095;
  for (int i = 0; i < kMost && size && used + whole <= kMemory; i++) {
    if (blocks[i].address) continue;
    void* reserved = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    blocks[i].contents = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    blocks[i].size = whole;
    *address = blocks[i].address = (uintptr_t)reserved;
    used += whole;
    fake_allocations++;
    code = 0;
    break;
  }
  pthread_mutex_unlock(&device_lock);
  return size ? code : kInvalid;
}

static int device_free(uintptr_t address) {
  if (!address) return 0;
  int code = kInvalid;
  pthread_mutex_lock(&device_lock);
  if (capturing) fake_broken_captures++;
  run_pending();
  for (int i = 0; i < kMost; i++) {
    if (blocks[i].address != address) continue;
    munmap((void*)address, blocks[i].size);
    munmap(blocks[i].contents, blocks[i].size);
    used -= blocks[i].size;
    blocks[i].address = 0;
    fake_frees++;
    code = 0;
  }
  pthread_mutex_unlock(&device_lock);
  return code;
}

static int device_info(size_t* free_bytes, size_t* total) {
  if (free_bytes) *free_bytes = kMemory - used;
  if (total) *total = kMemory;
  return 0;
}

static int device_copy(uintptr_t to, uintptr_t from, size_t size) {
  memmove(contents(to), contents(from), size);
  return 0;
}

// Launches a kernel that fills memory.
int fake_fill_later(uintptr_t address, unsigned char byte, size_t size) {
  pthread_mutex_lock(&device_lock);
  if (pending_count == kPending) run_pending();
  pending[pending_count].address = address;
  pending[pending_count].byte = byte;
  pending[pending_count++].size = size;
  pthread_mutex_unlock(&device_lock);
  return 0;
}

static int device_capture(int on) {
  capturing = on;
  return 0;
}
