#pragma once

#include "calls.hpp"
#include "page.hpp"
#include "tuning.hpp"

// What every part of the library shares: options, counters, and what is said to the user. Nothing here needs more than
// libc, allocates after the start, or throws.
namespace AIRamp::Interposer {

enum class Wire { kOff, kAuto, kAlways };
// Whether a free of device memory waits for the device: as the driver's documentation says, always, or never.
enum class FreeSync { kDocumented, kDriver, kEvent };

// From the environment, read once when the library is loaded. `airamp run` sets it.
struct Options {
  bool allowed[kApiCount] = {};  // not named in AIRAMP_DISABLE; none under AIRAMP=off, in setuid programs, with musl,
                                 // and in children made by fork
  Wire wire = Wire::kOff;        // AIRAMP_BF16_WIRE=1 or always
  bool wire_allgather = false;   // AIRAMP_BF16_ALLGATHER=1
  char wire_mode = 'B';          // AIRAMP_BF16_MODE=A, B or D
  long wire_min = -1;            // AIRAMP_BF16_MIN, bytes of float32; -1: as tuned
  bool shadow = false;           // AIRAMP_SHADOW=1
  bool pool = false;             // AIRAMP_POOL=1 or always
  bool pool_always = false;      // also where it costs more time than it saves
  FreeSync free_sync = FreeSync::kDocumented;  // AIRAMP_FREE_SYNC=driver or event
  bool pin = false;                            // AIRAMP_PIN=1 or always
  bool pin_always = false;                     // also where the driver is as fast
  bool ocl_chunk = false;                      // AIRAMP_OCL_CHUNK=1, or the size of a chunk, which then is not tuned
  long ocl_chunk_bytes = 0;                    // 0: as tuned
  bool debug = false;                          // AIRAMP_DEBUG=hooks
  const char* report = nullptr;                // AIRAMP_REPORT
  const char* run = "";                        // AIRAMP_RUN: names the run whose processes share a report
};
extern Options options;

// What this process shows; never null.
extern Page* page;

// One line on standard error, after "airamp: ".
void say(const char* format, ...) __attribute__((format(printf, 1, 2)));

// `text` must be a literal: it is compared by address. Both keep the latest reason and copy it to the page.
void passed(Call call, const char* text);
void set_state(Mechanism mechanism, State state, const char* text);

inline void gained(Mechanism mechanism, std::int64_t bytes, std::int64_t nanoseconds) {
  MechanismRow& row = page->mechanisms[mechanism];
  row.calls.fetch_add(1, std::memory_order_relaxed);
  row.bytes_saved.fetch_add(bytes, std::memory_order_relaxed);
  row.nanoseconds_saved.fetch_add(nanoseconds, std::memory_order_relaxed);
}

std::int64_t now_ns();
std::int64_t coarse_now_ns();  // some milliseconds old, for a quarter of the price

// Writes this process's part of the report to options.report, adding to what others of the same run wrote.
void write_report();

struct Thread {
  std::uint32_t depth;                // of hooked calls that this thread is inside of
  bool shares;                        // its counters with other threads
  std::atomic<std::uint64_t>* calls;  // its lane of the page's counters; null: none yet
};
extern constinit thread_local Thread thread __attribute__((tls_model("initial-exec")));
std::atomic<std::uint64_t>* take_lane();

// A hooked call of this thread. Only the outermost is the program's own; what a vendor's library calls from inside is
// not counted and passes through. Always inlined: the compiler would rather not, so many are the wrappers, and a call
// costs as much as all else here.
class HookedCall {
 public:
  [[gnu::always_inline]] explicit HookedCall(Call call) : outermost_(thread.depth++ == 0 && allowed(call)) {
    if (!outermost_) return;
    auto& count = (thread.calls ? thread.calls : take_lane())[row_of(call)];
    if (thread.shares) {
      count.fetch_add(1, std::memory_order_relaxed);
    } else {
      count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
  }
  [[gnu::always_inline]] ~HookedCall() { thread.depth--; }
  HookedCall(const HookedCall&) = delete;
  HookedCall& operator=(const HookedCall&) = delete;

  [[gnu::always_inline]] bool handles(Call call) const { return outermost_ || (handled_inside(call) && allowed(call)); }

 private:
  static bool allowed(Call call) { return options.allowed[kCallApis[static_cast<unsigned>(call)]]; }

  bool outermost_;
};

}  // namespace AIRamp::Interposer
