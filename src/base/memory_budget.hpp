// A limit on the bytes that the tensors of one run may hold at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t limit_bytes) : limit_(limit_bytes) {}

  // Charges `bytes`, or fails with resource_exhausted and a sentence that names the limit. Thread-safe.
  Status charge(int64_t bytes);
  void release(int64_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }
  int64_t used() const { return used_.load(std::memory_order_relaxed); }
  int64_t peak() const { return peak_.load(std::memory_order_relaxed); }
  int64_t limit() const { return limit_; }
  int64_t refusals() const { return refusals_.load(std::memory_order_relaxed); }  // charges that failed

  // The budget that Tensor::make charges on this thread; null means no limit.
  static const std::shared_ptr<MemoryBudget>& current();

  // Makes `budget` current on this thread until destroyed.
  class Scope {
   public:
    explicit Scope(std::shared_ptr<MemoryBudget> budget);
    ~Scope();
    Scope(const Scope&) = delete;

   private:
    std::shared_ptr<MemoryBudget> previous_;
  };

  // The default limit: 80 % of what the machine, or the cgroup this process is in, has.
  static int64_t default_limit();

 private:
  const int64_t limit_;
  std::atomic<int64_t> used_{0};
  std::atomic<int64_t> peak_{0};
  std::atomic<int64_t> refusals_{0};
};

}  // namespace ai_vmm
