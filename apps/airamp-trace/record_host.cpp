// Preloaded by `airamp-trace record`: writes down the large host allocations of a program, as a stand-in for those on a
// device. Built as the interposer is: libc only.
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

#include "interposer/allocation_trace.hpp"

extern "C" {
// glibc's own allocator under names that nobody replaces. NOLINTBEGIN(bugprone-reserved-identifier)
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);
// NOLINTEND(bugprone-reserved-identifier)
}

namespace {

using namespace AIRamp::Interposer;

TraceWriter writer;
std::atomic_flag busy = ATOMIC_FLAG_INIT;
std::atomic<bool> recording{false};
size_t least = 65536;

void note(ObsKind kind, void* block) {
  if (!block || !recording.load(std::memory_order_relaxed)) return;
  size_t bytes = malloc_usable_size(block);  // what allocation and release agree on
  if (bytes < least) return;
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  while (busy.test_and_set(std::memory_order_acquire)) {
  }
  writer.record({int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec, bytes, kind});
  busy.clear(std::memory_order_release);
}

void stop_in_child() { recording = false; }

[[gnu::constructor]] void start() {
  const char* path = getenv("AIRAMP_TRACE_FILE");
  if (!path) return;
  if (const char* bytes = getenv("AIRAMP_TRACE_LEAST")) least = strtoul(bytes, nullptr, 10);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return;
  // Out of the way of programs that count on low numbers, and not for programs that this one starts.
  int high = fcntl(fd, F_DUPFD_CLOEXEC, 500);
  if (high >= 0) close(fd), fd = high;
  unsetenv("AIRAMP_TRACE_FILE");
  writer.set_descriptor(fd);
  pthread_atfork(nullptr, nullptr, stop_in_child);
  recording = true;
}

[[gnu::destructor]] void finish() {
  if (!recording.exchange(false)) return;
  while (busy.test_and_set(std::memory_order_acquire)) {
  }
  writer.flush();
  busy.clear(std::memory_order_release);
}

}  // namespace

#define EXPORTED extern "C" [[gnu::visibility("default")]]

EXPORTED void* malloc(size_t bytes) {
  void* p = __libc_malloc(bytes);
  note(ObsKind::allocate, p);
  return p;
}
EXPORTED void* calloc(size_t n, size_t bytes) {
  void* p = __libc_calloc(n, bytes);
  note(ObsKind::allocate, p);
  return p;
}
EXPORTED void free(void* p) {
  note(ObsKind::release, p);
  __libc_free(p);
}
EXPORTED void* realloc(void* p, size_t bytes) {
  note(ObsKind::release, p);
  void* q = __libc_realloc(p, bytes);
  note(ObsKind::allocate, q ? q : bytes ? p : nullptr);
  return q;
}
EXPORTED void* memalign(size_t alignment, size_t bytes) {
  void* p = __libc_memalign(alignment, bytes);
  note(ObsKind::allocate, p);
  return p;
}
EXPORTED void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
EXPORTED int posix_memalign(void** out, size_t alignment, size_t bytes) {
  if (alignment % sizeof(void*) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0) return EINVAL;
  int error = errno;
  void* p = memalign(alignment, bytes);
  errno = error;
  if (!p) return ENOMEM;
  *out = p;
  return 0;
}
