#include "checked_files.hpp"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <initializer_list>

namespace AIRamp::Interposer {

namespace {

// fstat() itself would need glibc 2.33.
bool facts_of(int fd, struct stat* st) { return syscall(SYS_fstat, fd, st) == 0; }

bool has_acl(int fd) {
  for (const char* name : {"system.posix_acl_access", "system.posix_acl_default"})
    if (fgetxattr(fd, name, nullptr, 0) > 0) return true;
  return false;
}

FileFault owner_fault(int fd, const struct stat& st) {
  if (st.st_uid != 0 && st.st_uid != geteuid()) return FileFault::owner;
  if (st.st_mode & (S_IWGRP | S_IWOTH)) return FileFault::open_to_write;
  return has_acl(fd) ? FileFault::acl : FileFault::none;
}

FileFault open_fault() {
  switch (errno) {
    case ENOENT: return FileFault::absent;
    case ELOOP: return FileFault::link;
    case ENOTDIR: return FileFault::kind;
    case ENXIO: return FileFault::kind;  // a socket
    default: return FileFault::system;
  }
}

}  // namespace

const char* sentence_end(FileFault fault) {
  switch (fault) {
    case FileFault::none: return "is as it should be";
    case FileFault::absent: return "is not there";
    case FileFault::link: return "is a link or has several names";
    case FileFault::kind: return "is of the wrong kind";
    case FileFault::owner: return "belongs to another user";
    case FileFault::open_to_write: return "can be written to by others";
    case FileFault::acl: return "carries an access control list";
    case FileFault::size: return "has a wrong size";
    case FileFault::system: return "cannot be opened";
  }
  return "";
}

int open_checked_folder(const char* path, FileFault* fault) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    *fault = open_fault();
    // With O_DIRECTORY the kernel calls a link "not a directory".
    char target[1];
    if (*fault == FileFault::kind && readlink(path, target, 1) >= 0) *fault = FileFault::link;
    return -1;
  }
  struct stat st;
  *fault = facts_of(fd, &st) ? owner_fault(fd, st) : FileFault::system;
  if (*fault == FileFault::none) return fd;
  close(fd);
  return -1;
}

int open_checked_file(int folder, const char* name, int flags, uint64_t most, FileFacts* facts, FileFault* fault) {
  // O_NONBLOCK: the opening of a pipe must not wait for its other end.
  int fd = openat(folder, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) {
    *fault = open_fault();
    return -1;
  }
  struct stat st;
  if (!facts_of(fd, &st))
    *fault = FileFault::system;
  else if (!S_ISREG(st.st_mode))
    *fault = FileFault::kind;
  else if (st.st_nlink != 1)
    *fault = FileFault::link;
  else if (uint64_t(st.st_size) > most)
    *fault = FileFault::size;
  else
    *fault = owner_fault(fd, st);
  if (*fault != FileFault::none) {
    close(fd);
    return -1;
  }
  *facts = {uint64_t(st.st_dev), uint64_t(st.st_ino), uint64_t(st.st_size), uint64_t(st.st_blocks)};
  return fd;
}

long read_whole(int file, char* into, size_t capacity) {
  size_t at = 0;
  while (at < capacity) {
    ssize_t got = pread(file, into + at, capacity - at, off_t(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    at += size_t(got);
  }
  return long(at);
}

}  // namespace AIRamp::Interposer
