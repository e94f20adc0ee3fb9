#include "telemetry/reading.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cmath>
#include <cstring>

#include "base/check.hpp"
#include "base/text.hpp"

namespace ai_vmm::telemetry {

double Reading::value() const {
  AI_VMM_CHECK(known_, "a reading that is unknown was used: " + why_);
  return value_;
}

Reading Rate::at(const Reading& counter, int64_t now_ns) {
  if (!counter.known()) {
    started_ = false;
    return Reading::unknown(counter.why());
  }
  double value = counter.value(), last = last_;
  int64_t last_ns = last_ns_;
  bool started = started_;
  last_ = value, last_ns_ = now_ns, started_ = true;
  if (!started) return Reading::unknown("a rate needs two looks at the counter");
  if (now_ns <= last_ns) return Reading::unknown("no time has passed since the last look");
  if (value < last) return Reading::unknown("the counter was reset");
  return (value - last) / (double(now_ns - last_ns) * 1e-9);
}

Result<std::string> read_text(const std::string& path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    return Status(errno == ENOENT || errno == ENOTDIR ? Code::not_found : Code::unavailable,
                  "\"" + path + "\" cannot be read: " + std::strerror(errno) + ".");
  std::string text(64 << 10, '\0');
  size_t at = 0;
  int error = 0;
  while (at < text.size()) {
    ssize_t n = read(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) error = errno;
    if (n <= 0) break;
    at += size_t(n);
  }
  close(fd);
  // Sensors fail when they are read, not when they are opened: ENODEV when a device is gone, EIO when it sleeps.
  if (error) return Status(Code::unavailable, "\"" + path + "\" cannot be read: " + std::strerror(error) + ".");
  text.resize(at);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

Reading number_of(std::string_view text) {
  text = trim(text);
  text = text.substr(0, text.find_first_of(" \t\r\n"));
  int base = 10;
  std::string_view digits = text;
  if (digits.starts_with("0x") || digits.starts_with("0X")) digits.remove_prefix(2), base = 16;
  double value = 0;
  const char* end = digits.data() + digits.size();
  std::from_chars_result r{};
  if (base == 16) {
    uint64_t v = 0;
    r = std::from_chars(digits.data(), end, v, 16);
    value = double(v);
  } else {
    r = std::from_chars(digits.data(), end, value, std::chars_format::fixed);
  }
  if (digits.empty() || r.ec != std::errc() || r.ptr != end || !std::isfinite(value))
    return Reading::unknown("\"" + std::string(text.substr(0, 40)) + "\" is no number");
  return value;
}

Reading read_number(const std::string& path) {
  auto text = read_text(path);
  if (!text.ok()) return Reading::unknown(text.status().message());
  Reading r = number_of(*text);
  return r.known() ? r : Reading::unknown("\"" + path + "\": " + r.why() + ".");
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  if (DIR* d = opendir(folder.c_str())) {
    while (const dirent* e = readdir(d))
      if (std::strcmp(e->d_name, ".") != 0 && std::strcmp(e->d_name, "..") != 0) names.emplace_back(e->d_name);
    closedir(d);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string link_target_name(const std::string& path) {
  char target[PATH_MAX];
  ssize_t n = readlink(path.c_str(), target, sizeof target);
  if (n <= 0) return "";
  std::string text(target, size_t(n));
  return text.substr(text.rfind('/') + 1);
}

}  // namespace ai_vmm::telemetry
