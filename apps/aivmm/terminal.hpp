// What differs between a terminal and a file: colours and progress. NO_COLOR and TERM=dumb switch colours off.
#pragma once

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>

namespace ai_vmm::cli {

enum class Style { plain, bold, dim, red, green };
const char* style(FILE* stream, Style style);  // "" where colours are off

// While it lives, and once the work has taken a moment: "what … 3 s" on stderr, if that is a terminal.
class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();
  Progress(const Progress&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  bool done_ = false;
  std::thread thread_;
};

std::string duration(double microseconds);  // "12.3 ms"
std::string size(double bytes);             // "10.4 MiB"

}  // namespace ai_vmm::cli
