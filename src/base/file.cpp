#include "base/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "base/hash.hpp"

namespace ai_vmm {

namespace {

Status failed(const std::string& path, int error) {
  Code code = error == ENOENT || error == ENOTDIR ? Code::not_found
              : error == EACCES || error == EPERM ? Code::permission_denied
                                                  : Code::unavailable;
  return Status(code, "The file \"" + path + "\" cannot be read: " + std::strerror(error) + ".");
}

}  // namespace

Result<std::string> resolve_path(const std::string& path) {
  char* real = path.find('\0') == path.npos ? realpath(path.c_str(), nullptr) : (errno = ENOENT, nullptr);
  if (!real) return failed(path, errno);
  std::string out(real);
  std::free(real);
  return out;
}

Result<std::shared_ptr<const FileBytes>> FileBytes::open(const std::string& path, bool copy,
                                                         const std::vector<std::string>& folders) {
  if (path.find('\0') != path.npos) return failed(path.c_str(), ENOENT);
  std::shared_ptr<FileBytes> f(new FileBytes);
  // Without O_NONBLOCK the opening of a pipe would wait for a writer.
  f->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (f->fd_ < 0) return failed(path, errno);
  struct stat st;
  if (fstat(f->fd_, &st) != 0) return failed(path, errno);
  if (!S_ISREG(st.st_mode))
    return Status(Code::invalid_argument, "\"" + path + "\" is not a regular file; give the path of a file.");
  // The name of what was really opened: a check of the path before opening could be outrun by a change of a link.
  char real[PATH_MAX];
  ssize_t n = readlink(("/proc/self/fd/" + std::to_string(f->fd_)).c_str(), real, sizeof real);
  f->path_ = n > 0 ? std::string(real, size_t(n)) : path;
  auto holds = [&](const std::string& folder) {
    std::string start = folder.back() == '/' ? folder : folder + "/";
    return n > 0 && f->path_.compare(0, start.size(), start) == 0;
  };
  if (!folders.empty() && std::none_of(folders.begin(), folders.end(), holds))
    return Status(Code::permission_denied, "\"" + path + "\" is a link to \"" + f->path_ + "\", outside the folder \"" +
                                               folders[0] + "\"; pass --allow-links if that is intended.");
  f->seconds_ = st.st_mtim.tv_sec;
  f->nanoseconds_ = st.st_mtim.tv_nsec;
  auto size = static_cast<size_t>(st.st_size);
  if (size) {
    // A copy is an anonymous mapping: page-aligned, and returned to the system at once when freed.
    void* p = copy ? mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                   : mmap(nullptr, size, PROT_READ, MAP_SHARED, f->fd_, 0);
    if (p == MAP_FAILED) return failed(path, errno);
    f->bytes_ = {static_cast<const std::byte*>(p), size};
    if (copy) {
      f->copied_ = true;
      for (size_t at = 0; at < size;) {
        ssize_t got = pread(f->fd_, static_cast<char*>(p) + at, std::min(size - at, size_t(1) << 30), off_t(at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return failed(path, errno);
        if (got == 0)
          return Status(Code::data_loss,
                        "The file \"" + path + "\" became shorter while it was read; try again when it is complete.");
        at += size_t(got);
      }
      mprotect(p, size, PROT_READ);
    }
  }
  if (copy) {
    ::close(f->fd_);
    f->fd_ = -1;
  }
  f->hash_ = hash_bytes(f->bytes_);
  return std::shared_ptr<const FileBytes>(std::move(f));
}

FileBytes::~FileBytes() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  if (fd_ >= 0) ::close(fd_);
}

Status FileBytes::verify() const {
  if (copied_) return {};
  struct stat st;
  if (fd_ < 0 || fstat(fd_, &st) != 0) return failed(path_, errno);
  auto changed = [&] {
    return Status(Code::data_loss, "The file \"" + path_ + "\" has changed since it was loaded; load the model again.");
  };
  if (size_t(st.st_size) != bytes_.size()) return changed();
  std::lock_guard lock(mutex_);
  if (st.st_mtim.tv_sec == seconds_ && st.st_mtim.tv_nsec == nanoseconds_) return {};
  if (hash_bytes(bytes_) != hash_) return changed();
  seconds_ = st.st_mtim.tv_sec;
  nanoseconds_ = st.st_mtim.tv_nsec;
  return {};
}

}  // namespace ai_vmm
