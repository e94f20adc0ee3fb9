// Traces of observations: text, one line each, "TIME_NS a BYTES", "TIME_NS r BYTES" or "TIME_NS b".
#pragma once

#include "pattern_of_life.hpp"

namespace AIRamp::Interposer {

// Collects lines and writes them to a descriptor that the caller opened. Not thread-safe.
class TraceWriter {
 public:
  explicit constexpr TraceWriter(int descriptor = -1) : descriptor_(descriptor) {}
  void set_descriptor(int descriptor) { descriptor_ = descriptor; }
  void record(const Obs& obs);
  void flush();  // what cannot be written is dropped: a program never waits or fails for its trace

 private:
  void put(uint64_t number);
  int descriptor_;
  size_t at_ = 0;
  char text_[8192] = {};
};

// One line without its end; false when it is none.
bool parse_trace_line(const char* line, size_t bytes, Obs* obs);

}  // namespace AIRamp::Interposer
