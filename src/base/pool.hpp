// Reusable state of concurrent calls: taken by one at a time, kept for the next.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

namespace ai_vmm {

template <class T>
class Pool {
 public:
  // An idle object, or null when all are in use.
  std::unique_ptr<T> take() {
    std::lock_guard lock(mutex_);
    if (idle_.empty()) return nullptr;
    auto object = std::move(idle_.back());
    idle_.pop_back();
    return object;
  }
  void give(std::unique_ptr<T> object) {
    std::lock_guard lock(mutex_);
    idle_.push_back(std::move(object));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> idle_;
};

}  // namespace ai_vmm
