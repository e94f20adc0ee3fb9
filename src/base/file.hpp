// The bytes of a file, mapped or read, that can tell later whether the file still holds them.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

class FileBytes {
 public:
  // Opens a regular file. `copy`: the bytes are read into memory, so that what happens to the file no longer matters;
  // otherwise they are mapped, and a process that truncates the file under us kills us when we touch what is gone.
  // `folders`, when not empty: resolved folders, one of which the opened file, links followed, must lie in.
  static Result<std::shared_ptr<const FileBytes>> open(const std::string& path, bool copy,
                                                       const std::vector<std::string>& folders = {});
  ~FileBytes();
  FileBytes(const FileBytes&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }  // as resolved
  uint64_t hash() const { return hash_; }            // of the bytes when they were opened
  // Fails with data_loss when the file's size, time or content are no longer those that were opened. Costs a read of
  // the file when its time has changed. A copy is always as it was.
  Status verify() const;

 private:
  FileBytes() = default;
  std::string path_;
  std::span<const std::byte> bytes_;
  int fd_ = -1;
  bool copied_ = false;
  mutable std::mutex mutex_;
  mutable int64_t seconds_ = 0, nanoseconds_ = 0;  // when the bytes were last found to be as opened
  uint64_t hash_ = 0;
};

// The path with every link followed; fails with not_found.
Result<std::string> resolve_path(const std::string& path);

}  // namespace ai_vmm
