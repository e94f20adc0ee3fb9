// Opening files that another user might have put there. Everything is checked on the opened descriptor, so that nothing
// can be exchanged between the check and the use.
#pragma once

#include <cstddef>
#include <cstdint>

namespace AIRamp::Interposer {

enum class FileFault {
  none,
  absent,
  link,           // a symbolic link, or a file with several names
  kind,           // not a folder, not a regular file
  owner,          // belongs neither to root nor to this user
  open_to_write,  // group or others may write
  acl,            // carries an access control list
  size,           // larger than the caller takes
  system,         // any other failure of a system call
};
const char* sentence_end(FileFault fault);  // "belongs to another user": what follows the file's name in a sentence

struct FileFacts {
  uint64_t device = 0, inode = 0, bytes = 0, blocks = 0;
};

// A folder that only root and this user can write to, as a descriptor; -1 with the fault otherwise.
int open_checked_folder(const char* path, FileFault* fault);

// A regular file in it, under the same rules, of at most `most` bytes. `flags`: O_RDONLY or O_RDWR.
int open_checked_file(int folder, const char* name, int flags, uint64_t most, FileFacts* facts, FileFault* fault);

// Up to `capacity` bytes from the start; -1 when reading fails.
long read_whole(int file, char* into, size_t capacity);

}  // namespace AIRamp::Interposer
