#pragma once

#include <cstddef>

// Machine code of bf16_kernels.cu, compiled where it is needed by the vendor's own compiler library, NVRTC or hiprtc,
// on a thread of its own. What was compiled once is kept in $XDG_CACHE_HOME/airamp, or ~/.cache/airamp: written whole
// or not at all, and taken back only if its folder and file are this user's alone and its checksum holds.
namespace AIRamp::Interposer {

enum class Vendor { kNvidia, kAmd };

class KernelCode {
 public:
  // Begins to get the code for an architecture such as sm_90 or gfx90a, unless somebody has, and returns at once. The
  // same object for the same architecture; nullptr where no thread can be had.
  static KernelCode* begin(Vendor vendor, const char* architecture);

  // Waits until it is there, at most half a minute. Whether it is.
  bool wait();
  const void* data() const { return data_; }
  const char* why_not() const { return why_not_; }  // after a wait in vain, as the end of a sentence

 private:
  static void* run(void* self);
  void get();
  bool compile();
  bool read_cache(int folder, const char* name);
  void write_cache(int folder, const char* name) const;

  enum Stage { kFree, kClaimed, kWorking, kThere, kFailed };

  static constexpr unsigned kMost = 8;
  static KernelCode all_[kMost];

  int stage_ = kFree;  // atomic
  Vendor vendor_ = Vendor::kNvidia;
  char architecture_[32] = {};
  void* data_ = nullptr;  // never freed: modules may be loaded from it again
  std::size_t size_ = 0;
  char why_not_[160] = {};
};

}  // namespace AIRamp::Interposer
