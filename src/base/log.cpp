#include "base/log.hpp"

#include <unistd.h>

#include <atomic>
#include <iterator>

namespace ai_vmm {

namespace {
constexpr const char* kNames[] = {"error", "warning", "info", "debug"};
std::atomic<int> current{static_cast<int>(LogLevel::warning)};
}  // namespace

void set_log_level(LogLevel level) { current.store(static_cast<int>(level), std::memory_order_relaxed); }

bool set_log_level(std::string_view name) {
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) {
      set_log_level(static_cast<LogLevel>(i));
      return true;
    }
  return false;
}

bool log_enabled(LogLevel level) { return static_cast<int>(level) <= current.load(std::memory_order_relaxed); }

void log(LogLevel level, std::string_view message) {
  if (!log_enabled(level)) return;
  std::string line = std::string("aivmm ") + kNames[static_cast<int>(level)] + ": ";
  for (char c : message) line += c == '\n' || c == '\r' ? ' ' : c;
  line += '\n';
  // One write, so that lines of several threads stay whole. A closed stderr is nobody's concern.
  ssize_t written = write(STDERR_FILENO, line.data(), line.size());
  (void)written;
}

}  // namespace ai_vmm
