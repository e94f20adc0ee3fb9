// Preloaded, it makes a machine whose /dev/shm cannot be written, as a container started with --ipc=none is.
#include <sys/mman.h>

#include <cerrno>

extern "C" __attribute__((visibility("default"))) int shm_open(const char*, int, mode_t) {
  errno = EROFS;
  return -1;
}
