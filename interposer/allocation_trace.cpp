#include "allocation_trace.hpp"

#include <errno.h>
#include <unistd.h>

namespace AIRamp::Interposer {

namespace {
constexpr size_t kLongestLine = 48;
constexpr char kLetters[] = {'a', 'r', 'b'};  // by ObsKind
}  // namespace

void TraceWriter::put(uint64_t number) {
  char digits[20];
  int n = 0;
  do digits[n++] = char('0' + number % 10);
  while (number /= 10);
  while (n) text_[at_++] = digits[--n];
}

void TraceWriter::record(const Obs& obs) {
  if (sizeof text_ - at_ < kLongestLine) flush();
  put(obs.time_ns > 0 ? uint64_t(obs.time_ns) : 0);
  text_[at_++] = ' ';
  text_[at_++] = kLetters[int(obs.kind)];
  if (obs.kind != ObsKind::boundary) {
    text_[at_++] = ' ';
    put(obs.bytes);
  }
  text_[at_++] = '\n';
}

void TraceWriter::flush() {
  int error = errno;
  for (size_t done = 0; descriptor_ >= 0 && done < at_;) {
    ssize_t n = write(descriptor_, text_ + done, at_ - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += size_t(n);
  }
  at_ = 0;
  errno = error;
}

bool parse_trace_line(const char* line, size_t bytes, Obs* obs) {
  const char* at = line;
  const char* end = line + bytes;
  auto number = [&](uint64_t* value) {
    const char* start = at;
    *value = 0;
    for (; at != end && *at >= '0' && *at <= '9'; ++at)
      if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, uint64_t(*at - '0'), value))
        return false;
    return at != start && int64_t(*value) >= 0;
  };
  uint64_t time, size = 0;
  if (!number(&time) || at == end || *at++ != ' ' || at == end) return false;
  char letter = *at++;
  int kind = -1;
  for (int k = 0; k < 3; ++k)
    if (kLetters[k] == letter) kind = k;
  if (kind < 0) return false;
  if (ObsKind(kind) != ObsKind::boundary && (at == end || *at++ != ' ' || !number(&size))) return false;
  *obs = {int64_t(time), size, ObsKind(kind)};
  return at == end;
}

}  // namespace AIRamp::Interposer
