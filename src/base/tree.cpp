#include "base/tree.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <memory>

#include "base/text.hpp"

namespace ai_vmm {

namespace {
constexpr size_t kMostBytes = 1 << 20;
constexpr size_t kMostNames = 1 << 14;

std::optional<std::string> real(const std::string& path) {
  std::unique_ptr<char, void (*)(void*)> resolved(realpath(path.c_str(), nullptr), std::free);
  return resolved ? std::optional<std::string>(resolved.get()) : std::nullopt;
}
}  // namespace

Tree::Tree(const std::string& root) : root_(real(root).value_or(root)) {
  while (!root_.empty() && root_.back() == '/') root_.pop_back();
}

std::optional<std::string> Tree::resolve(const std::string& path) const {
  auto resolved = real(root_ + path);
  if (!resolved || !resolved->starts_with(root_ + "/")) return std::nullopt;
  return resolved->substr(root_.size());
}

std::optional<std::string> Tree::text(const std::string& path) const {
  auto resolved = resolve(path);
  if (!resolved) return std::nullopt;
  int fd = open((root_ + *resolved).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
  if (fd < 0) return std::nullopt;
  struct stat status;
  std::optional<std::string> text;
  if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
    text.emplace();
    char piece[4096];
    ssize_t n = 0;
    while (text->size() < kMostBytes && (n = read(fd, piece, sizeof piece)) > 0) text->append(piece, size_t(n));
    if (n < 0) text.reset();  // the device went away, or may not be asked
  }
  close(fd);
  if (text) text = std::string(trim(*text));
  return text;
}

std::optional<int64_t> parse_number(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    text.remove_prefix(2);
    base = 16;
    if (text.starts_with('-')) return std::nullopt;
  }
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> Tree::number(const std::string& path) const {
  auto t = text(path);
  return t ? parse_number(*t) : std::nullopt;
}

std::vector<std::string> Tree::names(const std::string& folder) const {
  std::vector<std::string> names;
  auto resolved = resolve(folder);
  DIR* dir = resolved ? opendir((root_ + *resolved).c_str()) : nullptr;
  if (!dir) return names;
  while (const dirent* entry = readdir(dir)) {
    std::string_view name = entry->d_name;
    if (name != "." && name != ".." && names.size() < kMostNames) names.emplace_back(name);
  }
  closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace ai_vmm
