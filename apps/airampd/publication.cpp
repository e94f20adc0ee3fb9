#include "publication.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/text.hpp"
#include "interposer/checked_files.hpp"

namespace AIRamp::Daemon {

using namespace Interposer;

namespace {
constexpr char kFreshSuffix[] = ".new";
constexpr char kRejectedFile[] = "tuning.conf.rejected";
constexpr unsigned kRenameExchange = 2;  // RENAME_EXCHANGE of linux/fs.h

Status system_failure(const std::string& what) {
  int e = errno;
  Code code = e == ENOSPC || e == EDQUOT || e == ENOMEM ? Code::resource_exhausted : Code::unavailable;
  return Status(code, what + ": " + std::strerror(e) + ".");
}
}  // namespace

std::vector<std::string> Publication::default_candidates() {
  std::vector<std::string> out;
  char path[256];
  for (int i = 0; i < 3; ++i)
    // Root has no session, and others cannot write to /run.
    if (tuning_folder(i, path, sizeof path) && (i == 0 || (geteuid() == 0) == (i == 1))) out.emplace_back(path);
  return out;
}

Result<std::unique_ptr<Publication>> Publication::open(const std::vector<std::string>& candidates) {
  std::vector<std::string> reasons;
  for (const std::string& path : candidates) {
    std::unique_ptr<Publication> p(new Publication);
    Status s = p->start(path);
    if (s.ok()) return p;
    if (s.code() == Code::already_exists) return s;
    reasons.push_back(s.message());
  }
  if (reasons.empty()) reasons.emplace_back("No folder was named.");
  return Status(Code::unavailable,
                "There is no folder to publish in. " + ai_vmm::join(reasons, " ") + " Name another with --folder.");
}

Status Publication::start(const std::string& path) {
  path_ = path;
  bool made = mkdir(path.c_str(), 0755) == 0;
  if (!made && errno != EEXIST) return system_failure("The folder \"" + path + "\" cannot be made");
  FileFault fault;
  folder_ = open_checked_folder(path.c_str(), &fault);
  if (folder_ < 0)
    return Status(Code::permission_denied, "The folder \"" + path + "\" " + sentence_end(fault) +
                                               ", so what stands in it cannot be trusted; remove it.");
  struct stat st;
  if (fstat(folder_, &st) != 0) return system_failure("The folder \"" + path + "\" cannot be looked at");
  if (st.st_uid != geteuid())
    return Status(Code::permission_denied,
                  "The folder \"" + path + "\" belongs to root, whose airampd tunes this machine.");
  // The mask of this process may have taken away what programs of other users need.
  if (made && fchmod(folder_, 0755) != 0)
    return system_failure("The folder \"" + path + "\" cannot be opened to readers");
  lock_ = openat(folder_, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
  if (lock_ < 0) return system_failure("The lock in \"" + path + "\" cannot be opened");
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0)
    return Status(Code::already_exists,
                  "Another airampd publishes in \"" + path + "\"; stop it, or choose another --folder.");
  AI_VMM_TRY(open_page());
  inotify_ = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  // By the descriptor: the path may by now lead elsewhere.
  std::string self = "/proc/self/fd/" + std::to_string(folder_);
  if (inotify_ < 0 || inotify_add_watch(inotify_, self.c_str(),
                                        IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF |
                                            IN_MOVE_SELF | IN_ONLYDIR) < 0)
    return system_failure("The folder \"" + path + "\" cannot be watched");
  auto old = text();
  if (!old.ok()) return {};
  Settings found;
  uint64_t written = 0;
  if (parse_tuning(old->data(), old->size(), &found.values, &written) != Parse::ok) return {};
  // The same text again tells which keys are held.
  if (auto edit = parse_edit(*old, found); edit.ok()) inherited_ = *edit;
  if (written > generation_) generation_ = written;
  return {};
}

Publication::~Publication() {
  if (page_) munmap(page_, TuningPage::kBytes);
  for (int fd : {inotify_, lock_, folder_})
    if (fd >= 0) close(fd);
}

Status Publication::write_file(const char* name, const std::string& text, bool exchange) const {
  std::string fresh = std::string(name) + kFreshSuffix;
  unlinkat(folder_, fresh.c_str(), 0);
  int fd = openat(folder_, fresh.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd < 0) return system_failure("\"" + path_ + "/" + fresh + "\" cannot be made");
  Status s;
  for (size_t at = 0; at < text.size() && s.ok();) {
    ssize_t n = write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      s = system_failure("\"" + path_ + "/" + fresh + "\" cannot be written");
    else
      at += size_t(n);
  }
  if (s.ok() && fchmod(fd, 0644) != 0)
    s = system_failure("\"" + path_ + "/" + fresh + "\" cannot be opened to readers");
  close(fd);
  // Where nothing stands yet, or the file system cannot exchange, a rename does.
  if (s.ok() && exchange && syscall(SYS_renameat2, folder_, fresh.c_str(), folder_, name, kRenameExchange) == 0)
    return s;
  if (s.ok() && renameat(folder_, fresh.c_str(), folder_, name) != 0)
    s = system_failure("\"" + path_ + "/" + name + "\" cannot be replaced");
  if (!s.ok()) unlinkat(folder_, fresh.c_str(), 0);
  return s;
}

Status Publication::open_page() {
  FileFacts facts;
  FileFault fault;
  auto open_old = [&] { return open_checked_file(folder_, kPageFile, O_RDWR, TuningPage::kBytes, &facts, &fault); };
  int fd = open_old();
  uint64_t magic = 0;
  bool good = fd >= 0 && facts.bytes == TuningPage::kBytes && facts.blocks > 0 &&
              pread(fd, &magic, sizeof magic, 0) == ssize_t(sizeof magic) && magic == TuningPage::kMagic;
  if (!good) {
    if (fd >= 0) close(fd);
    // Written whole, so that there is memory behind it: a hole could not be read when the file system is full.
    std::string bytes(TuningPage::kBytes, '\0');
    magic = TuningPage::kMagic;
    std::memcpy(bytes.data(), &magic, sizeof magic);
    AI_VMM_TRY(write_file(kPageFile, bytes));
    fd = open_old();
    if (fd < 0) return Status(Code::unavailable, "\"" + path_ + "/" + kPageFile + "\" " + sentence_end(fault) + ".");
  }
  void* at = mmap(nullptr, TuningPage::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (at == MAP_FAILED) return system_failure("\"" + path_ + "/" + kPageFile + "\" cannot be mapped");
  page_ = static_cast<TuningPage*>(at);
  generation_ = page_->generation.load(std::memory_order_relaxed);
  return {};
}

Status Publication::publish(const Settings& settings) {
  std::string text = render(settings, generation_ + 1);
  Settings back;
  uint64_t generation = 0;
  if (parse_tuning(text.data(), text.size(), &back.values, &generation) != Parse::ok || generation != generation_ + 1)
    return Status(Code::internal, "The text to publish does not read back; nothing was published.");
  for (int i = 0; i < kKeyCount; ++i)
    if (back.values.of[i] != settings.values.of[i])
      return Status(Code::internal, std::string("The value of ") + kKeys[i].name + " is outside its bounds.");
  std::string before = std::exchange(published_, text);
  Status s = write_file(kTuningFile, text, true);
  if (!s.ok()) {
    published_ = before;
    return s;
  }
  page_->generation.store(++generation_, std::memory_order_release);
  std::string old = std::string(kTuningFile) + kFreshSuffix;
  if (auto displaced = read_text(old.c_str()); displaced.ok() && *displaced != before && *displaced != seen_)
    displaced_ = *displaced;
  unlinkat(folder_, old.c_str(), 0);
  return {};
}

Result<std::string> Publication::text() {
  auto text = read_text(kTuningFile);
  if (text.ok()) seen_ = *text;
  return text;
}

Result<std::string> Publication::read_text(const char* name) const {
  FileFacts facts;
  FileFault fault;
  int fd = open_checked_file(folder_, name, O_RDONLY, kMostTuningBytes, &facts, &fault);
  if (fd < 0)
    return Status(fault == FileFault::absent ? Code::not_found : Code::permission_denied,
                  "\"" + path_ + "/" + name + "\" " + sentence_end(fault) + ".");
  std::string text(kMostTuningBytes + 1, '\0');
  long n = read_whole(fd, text.data(), text.size());
  close(fd);
  if (n < 0) return system_failure("\"" + path_ + "/" + name + "\" cannot be read");
  text.resize(size_t(n));
  return text;
}

Publication::Seen Publication::look() {
  bool ours = false, lost = false;
  alignas(inotify_event) char buffer[4096];
  for (;;) {
    ssize_t n = read(inotify_, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    for (char* at = buffer; at < buffer + n;) {
      auto* e = reinterpret_cast<const inotify_event*>(at);
      at += sizeof *e + e->len;
      if (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED)) lost = true;
      // Programs that start from now on would not find the page.
      if (e->len && std::strcmp(e->name, kPageFile) == 0 && (e->mask & (IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)))
        lost = true;
      if ((e->mask & IN_Q_OVERFLOW) || (e->len && std::strcmp(e->name, kTuningFile) == 0)) ours = true;
    }
  }
  if (lost) return Seen::lost;
  if (!ours) return Seen::nothing;
  auto now = text();
  if (!now.ok()) return now.status().code() == Code::not_found ? Seen::removed : Seen::edited;
  return *now == published_ ? Seen::nothing : Seen::edited;
}

Status Publication::keep_rejected(const std::string& text, const std::string& reason) {
  return write_file(kRejectedFile, "# airampd did not publish this: " + reason + "\n" + text);
}

}  // namespace AIRamp::Daemon
