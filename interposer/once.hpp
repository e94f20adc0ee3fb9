#pragma once

#include <atomic>

namespace AIRamp::Interposer {

// Runs something once in the process; who comes meanwhile waits.
class Once {
 public:
  template <class F>
  void run(F&& what) {
    if (stage_.load(std::memory_order_acquire) == 2) return;
    int expected = 0;
    if (stage_.compare_exchange_strong(expected, 1)) {
      what();
      stage_.store(2, std::memory_order_release);
    }
    while (stage_.load(std::memory_order_acquire) != 2) continue;
  }

 private:
  std::atomic<int> stage_{0};
};

}  // namespace AIRamp::Interposer
