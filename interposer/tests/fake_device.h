// A fake of a device for tests of libairamp.so: not a driver. The processor cannot touch its memory, of which there are
// 64 MiB; memory that is given back is unmapped, the host's pinned memory too. What is submitted to a stream happens
// late: when the program waits for it, or, one submission at a time and the youngest first that may go, when an event
// is asked for. Streams keep their order; the default stream waits for all blocking ones, and they for it. Copies with
// pageable memory of the host are done before their call returns, with pinned memory they happen in their stream.
#pragma once

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kMost = 256, kMemory = 64 << 20, kInvalid = 1, kOutOfMemory = 2, kBadHandle = 400, kNotReady = 600 };
enum { kMostWork = 4096, kMostStreams = 128, kDeviceMemory = 2, kHostMemory = 1 };
static struct {
  uintptr_t address;
  size_t size;
  char* contents;
} blocks[kMost];
static struct {
  char* memory;
  size_t size;
} pinned[kMost];
struct event {
  int pending;
};
static struct {
  uintptr_t stream, to, from;
  size_t size;
  unsigned char byte;
  int blocking;  // as its stream, which may be gone
  struct event* event;
} work[kMostWork];
static struct {
  uintptr_t handle;
  int blocking;
} streams[kMostStreams];
static int work_count, capturing;
static size_t used;
static void* freed_last;  // whose place is taken first
static pthread_mutex_t device_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
  char name[48];
  int after, code;
} fault;

// What tests ask, and may change: how many microseconds a copy of a mebibyte takes.
int fake_allocations = 0, fake_frees = 0, fake_broken_captures = 0, fake_captured = 0, fake_synchronisations = 0;
int fake_pinned_bytes = 0, fake_most_pinned_bytes = 0, fake_registrations = 0, fake_pageable_us = 0, fake_pinned_us = 0;

// The call of that name that comes after so many others of it fails once.
void fake_fail(const char* name, int after, int code) {
  strncpy(fault.name, name, sizeof fault.name - 1);
  fault.after = after;
  fault.code = code;
}
static int failure(const char* name) {
  if (!fault.name[0] || strcmp(name, fault.name) != 0 || fault.after-- != 0) return 0;
  fault.name[0] = 0;
  return fault.code;
}

static char* contents(uintptr_t address) {
  for (int i = 0; i < kMost; i++)
    if (blocks[i].address && address - blocks[i].address < blocks[i].size)
      return blocks[i].contents + (address - blocks[i].address);
  return (char*)address;
}

// Block of device memory that holds all of this, or -1.
static int block_of(uintptr_t address, size_t size) {
  for (int i = 0; i < kMost; i++)
    if (blocks[i].address && address - blocks[i].address < blocks[i].size &&
        size <= blocks[i].size - (address - blocks[i].address))
      return i;
  return -1;
}

static int is_pinned(uintptr_t address) {
  for (int i = 0; i < kMost; i++)
    if (pinned[i].memory && address - (uintptr_t)pinned[i].memory < pinned[i].size) return 1;
  return 0;
}

// 0 is the default stream, 2 a thread's own.
static int known_stream(uintptr_t stream, int* blocking) {
  *blocking = 1;
  if (stream == 0 || stream == 2) return 1;
  for (int i = 0; i < kMostStreams; i++)
    if (streams[i].handle == stream) return *blocking = streams[i].blocking, 1;
  return 0;
}

static int keeps_order(int first, int second) {
  return work[first].stream == work[second].stream || (work[first].stream == 0 && work[second].blocking) ||
         (work[second].stream == 0 && work[first].blocking);
}

static void do_work(int i) {
  if (work[i].event) {
    work[i].event->pending--;
  } else if (work[i].from) {
    memmove(contents(work[i].to), contents(work[i].from), work[i].size);
  } else if (work[i].size) {
    memset(contents(work[i].to), work[i].byte, work[i].size);
  }
  memmove(&work[i], &work[i + 1], (size_t)(--work_count - i) * sizeof work[0]);
}

static void do_one(void) {
  for (int i = work_count - 1; i >= 0; i--) {
    int may_go = 1;
    for (int j = 0; j < i; j++) may_go &= !keeps_order(j, i);
    if (!may_go) continue;
    do_work(i);
    return;
  }
}

static void do_all(void) {
  while (work_count) do_work(0);
}

// All that the stream has to do, or that an event stands behind, with what must come before.
static void do_until(uintptr_t stream, const struct event* event) {
  char needed[kMostWork] = {0};
  for (int i = work_count - 1; i >= 0; i--) {
    needed[i] = event ? work[i].event == event : work[i].stream == stream || (stream == 0 && work[i].blocking);
    for (int j = i + 1; j < work_count && !needed[i]; j++) needed[i] = needed[j] && keeps_order(i, j);
  }
  for (int i = 0, at = 0; at < work_count; i++)
    if (needed[i]) {
      do_work(at);
    } else {
      at++;
    }
}

static int submit(uintptr_t stream, uintptr_t to, uintptr_t from, size_t size, unsigned char byte,
                  struct event* event) {
  int blocking;
  if (!known_stream(stream, &blocking)) return kBadHandle;
  if (work_count == kMostWork) do_all();
  work[work_count].stream = stream;
  work[work_count].to = to;
  work[work_count].from = from;
  work[work_count].size = size;
  work[work_count].byte = byte;
  work[work_count].blocking = blocking;
  work[work_count++].event = event;
  return 0;
}

#define LOCKED(...)                   \
  pthread_mutex_lock(&device_lock);   \
  int code = failure(__func__);       \
  if (!code) code = (__VA_ARGS__);    \
  pthread_mutex_unlock(&device_lock); \
  return code

static int synchronise_all(void) {
  if (capturing) fake_broken_captures++;
  fake_synchronisations++;
  do_all();
  return 0;
}

static int allocate_block(uintptr_t* address, size_t size) {
  if (!size || !address) return kInvalid;
  size_t whole = (size + 4095) & ~(size_t)4095;
  for (int i = 0; i < kMost && used + whole <= kMemory; i++) {
    if (blocks[i].address) continue;
    void* reserved = mmap(freed_last, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    blocks[i].contents = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    blocks[i].size = whole;
    *address = blocks[i].address = (uintptr_t)reserved;
    used += whole;
    fake_allocations++;
    return 0;
  }
  return kOutOfMemory;
}

// As a real driver's free mostly does, this one waits for all.
static int free_block(uintptr_t address) {
  if (!address) return 0;
  int i = block_of(address, 0);
  if (i < 0 || blocks[i].address != address) return kInvalid;
  if (capturing) fake_broken_captures++;
  do_all();
  munmap((void*)address, blocks[i].size);
  munmap(blocks[i].contents, blocks[i].size);
  used -= blocks[i].size;
  blocks[i].address = 0;
  freed_last = (void*)address;
  fake_frees++;
  return 0;
}

static int tell_memory(size_t* free_bytes, size_t* total) {
  if (free_bytes) *free_bytes = kMemory - used;
  if (total) *total = kMemory;
  return 0;
}

static int pin_memory(void** memory, size_t size) {
  if (capturing) fake_broken_captures++;
  for (int i = 0; i < kMost; i++) {
    if (pinned[i].memory) continue;
    *memory = pinned[i].memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pinned[i].size = size;
    fake_pinned_bytes += (int)size;
    if (fake_pinned_bytes > fake_most_pinned_bytes) fake_most_pinned_bytes = fake_pinned_bytes;
    return 0;
  }
  return kOutOfMemory;
}

static int unpin_memory(void* memory) {
  for (int i = 0; i < kMost; i++) {
    if (pinned[i].memory != memory) continue;
    if (capturing) fake_broken_captures++;
    munmap(memory, pinned[i].size);
    fake_pinned_bytes -= (int)pinned[i].size;
    pinned[i].memory = NULL;
    return 0;
  }
  return kInvalid;
}

static int copy_memory(uintptr_t to, uintptr_t from, size_t size, uintptr_t stream, int blocking) {
  int known, to_block = block_of(to, size), from_block = block_of(from, size);
  if (!known_stream(stream, &known)) return kBadHandle;
  // A device's address that is none, or too short a block.
  if ((block_of(to, 0) >= 0) != (to_block >= 0) || (block_of(from, 0) >= 0) != (from_block >= 0)) return kInvalid;
  if (to_block < 0 && from_block < 0 && to != from) return kInvalid;
  if (capturing) return blocking ? (fake_broken_captures++, kInvalid) : (fake_captured++, 0);
  int pageable = (to_block < 0 && !is_pinned(to)) || (from_block < 0 && !is_pinned(from));
  int delay = (int)(size >> 10) * (pageable ? fake_pageable_us : fake_pinned_us) / 1024;
  if (delay) usleep((unsigned)delay);
  int code = submit(stream, to, from, size, 0, NULL);
  if (blocking || pageable) do_until(stream, NULL);
  return code;
}

static int make_stream(void** stream, int blocking) {
  static uintptr_t next = 0x1000;
  for (int i = 0; i < kMostStreams; i++) {
    if (streams[i].handle) continue;
    streams[i].blocking = blocking;
    *stream = (void*)(streams[i].handle = next += 16);
    return 0;
  }
  return kOutOfMemory;
}

// What was submitted goes on.
static int destroy_stream(void* stream) {
  for (int i = 0; i < kMostStreams; i++)
    if (streams[i].handle == (uintptr_t)stream) return streams[i].handle = 0;
  return kBadHandle;
}

static int make_event(void** event) {
  *event = calloc(1, sizeof(struct event));
  return 0;
}

static int drop_event(struct event* event) {
  for (int i = 0; i < work_count; i++)
    if (work[i].event == event) work[i].event = NULL, work[i].size = 0, work[i].from = 0;
  free(event);
  return 0;
}

static int record_event(struct event* event, void* stream) {
  if (capturing) fake_broken_captures++;
  int code = submit((uintptr_t)stream, 0, 0, 0, 0, event);
  if (code == 0) event->pending++;
  return code;
}

static int query_event(struct event* event) {
  if (capturing) fake_broken_captures++;
  do_one();
  return event->pending ? kNotReady : 0;
}

static int wait_for_event(struct event* event) {
  do_until(0, event);
  return 0;
}

static int wait_for_stream(void* stream) {
  do_until((uintptr_t)stream, NULL);
  return 0;
}

static int place_of(uintptr_t address, int* place) {
  *place = block_of(address, 0) >= 0 ? kDeviceMemory : kHostMemory;
  return *place == kDeviceMemory || is_pinned(address) ? 0 : kInvalid;
}

static int range_of(uintptr_t address, uintptr_t* base, size_t* size) {
  int i = block_of(address, 0);
  if (i < 0) return kInvalid;
  *base = blocks[i].address;
  *size = blocks[i].size;
  return 0;
}

// Launches a kernel that fills memory.
int fake_fill_later(uintptr_t address, unsigned char byte, size_t size, void* stream) {
  LOCKED(submit((uintptr_t)stream, address, 0, size, byte, NULL));
}
