#include "base/memory_budget.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "base/cgroup.hpp"

namespace ai_vmm {

Status MemoryBudget::charge(int64_t bytes) {
  int64_t now = used_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  if (now > limit_ || now < 0) {
    used_.fetch_sub(bytes, std::memory_order_relaxed);
    refusals_.fetch_add(1, std::memory_order_relaxed);
    return Status(Code::resource_exhausted, "The memory limit of " + std::to_string(limit_) + " bytes does not allow " +
                                                std::to_string(bytes) + " more (" + std::to_string(now - bytes) +
                                                " in use); raise it with --memory-limit.");
  }
  int64_t peak = peak_.load(std::memory_order_relaxed);
  while (now > peak && !peak_.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
  return {};
}

namespace {
std::shared_ptr<MemoryBudget>& slot() {
  thread_local std::shared_ptr<MemoryBudget> budget;
  return budget;
}
}  // namespace

const std::shared_ptr<MemoryBudget>& MemoryBudget::current() { return slot(); }

MemoryBudget::Scope::Scope(std::shared_ptr<MemoryBudget> budget) : previous_(std::move(slot())) {
  slot() = std::move(budget);
}
MemoryBudget::Scope::~Scope() { slot() = std::move(previous_); }

int64_t MemoryBudget::default_limit() {
  int64_t have = int64_t(sysconf(_SC_PHYS_PAGES)) * int64_t(sysconf(_SC_PAGESIZE));
  auto files = cgroup_files("memory.max");
  files.emplace_back("/sys/fs/cgroup/memory/memory.limit_in_bytes");  // cgroup v1
  for (const std::string& path : files) {
    std::ifstream in(path);
    int64_t limit = 0;
    if (in >> limit && limit > 0) have = std::min(have, limit);
  }
  return have / 10 * 8;
}

}  // namespace ai_vmm
