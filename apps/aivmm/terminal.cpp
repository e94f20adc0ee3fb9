#include "terminal.hpp"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string_view>

namespace ai_vmm::cli {

const char* style(FILE* stream, Style style) {
  const char* term = std::getenv("TERM");
  const char* no_color = std::getenv("NO_COLOR");
  if (!isatty(fileno(stream)) || (no_color && *no_color) || (term && std::string_view(term) == "dumb")) return "";
  switch (style) {
    case Style::plain: return "\033[0m";
    case Style::bold: return "\033[1m";
    case Style::dim: return "\033[2m";
    case Style::red: return "\033[31m";
    case Style::green: return "\033[32m";
  }
  return "";
}

Progress::Progress(std::string what) {
  if (!isatty(STDERR_FILENO)) return;
  thread_ = std::thread([this, what = std::move(what)] {
    auto start = std::chrono::steady_clock::now();
    bool shown = false;
    std::unique_lock lock(mutex_);
    while (!ended_.wait_for(lock, std::chrono::milliseconds(500), [this] { return done_; })) {
      double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      std::fprintf(stderr, "\r%s … %.0f s", what.c_str(), seconds);
      shown = true;
    }
    if (shown) std::fputs("\r\033[K", stderr);
  });
}

Progress::~Progress() {
  {
    std::lock_guard lock(mutex_);
    done_ = true;
  }
  ended_.notify_all();
  if (thread_.joinable()) thread_.join();
}

namespace {
std::string number(double value, const char* unit) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f %s", value < 10 ? 2 : value < 100 ? 1 : 0, value, unit);
  return text;
}
}  // namespace

std::string duration(double us) {
  return us < 1e3 ? number(us, "µs") : us < 1e6 ? number(us / 1e3, "ms") : number(us / 1e6, "s");
}

std::string size(double bytes) {
  if (bytes < 1024) return std::to_string(static_cast<long long>(bytes)) + " B";
  if (bytes < 0x1p20) return number(bytes / 0x1p10, "KiB");
  return bytes < 0x1p30 ? number(bytes / 0x1p20, "MiB") : number(bytes / 0x1p30, "GiB");
}

}  // namespace ai_vmm::cli
