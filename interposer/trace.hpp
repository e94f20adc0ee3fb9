#pragma once

// Ranges such as "AIRamp:BF16-Pack" for profilers: NVTX 3 for those of NVIDIA, which name a library in
// NVTX_INJECTION64_PATH, and ROCTX for those of AMD. Nothing is loaded, and a range costs a load and a branch, where no
// profiler is.
namespace AIRamp::Interposer::trace {

// Looks for a profiler; the first call does.
void start();

extern int (*push)(const char* name);  // null: there is no profiler
extern int (*pop)();

class Range {
 public:
  explicit Range(const char* name) : open_(push != nullptr) {
    if (open_) push(name);
  }
  ~Range() {
    if (open_) pop();
  }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  bool open_;
};

}  // namespace AIRamp::Interposer::trace
