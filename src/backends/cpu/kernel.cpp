#include "backends/cpu/kernel.hpp"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "base/check.hpp"

namespace ai_vmm::cpu {

Shape physical_shape(const Shape& shape, Layout layout) {
  if (!layout.block || shape.size() < 2) return shape;
  Shape p = shape;
  p[1] = (p[1] + layout.block - 1) / layout.block;
  p.push_back(layout.block);
  return p;
}
int64_t physical_count(const Shape& shape, Layout layout) { return product(physical_shape(shape, layout)); }

Shape strides_of(const Shape& shape) {
  Shape s(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) s[i - 1] = s[i] * shape[i];
  return s;
}

std::shared_ptr<const void> Pack::get(const std::string& key,
                                      const std::function<std::shared_ptr<const void>(int64_t& bytes)>& make) {
  std::lock_guard lock(mutex_);
  auto& item = items_[key];
  if (!item) {
    int64_t bytes = 0;
    item = make(bytes);
    bytes_ += bytes;
  }
  return item;
}
int64_t Pack::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

std::shared_ptr<void> aligned_buffer(int64_t bytes) {
  size_t size = (size_t(bytes) + 64 + 63) / 64 * 64, alignment = 64;
  if (size >= size_t(4) << 20) {
    alignment = size_t(2) << 20;
    size = (size + alignment - 1) / alignment * alignment;
  }
  void* p = std::aligned_alloc(alignment, size);
  AI_VMM_CHECK(p, "no memory for " + std::to_string(bytes) + " bytes of packed weights");
  if (alignment > 64) madvise(p, size, MADV_HUGEPAGE);
  return std::shared_ptr<void>(p, [](void* q) { std::free(q); });
}

namespace {

// Read-only mappings of files in this process: their pages may be dropped and come back when read.
bool in_mapped_file(uintptr_t begin, uintptr_t end) {
  std::FILE* f = std::fopen("/proc/self/maps", "r");
  if (!f) return false;
  char line[4352], perms[8];
  bool found = false;
  while (!found && std::fgets(line, sizeof line, f)) {
    unsigned long first, last, offset, inode;
    if (std::sscanf(line, "%lx-%lx %7s %lx %*s %lu", &first, &last, perms, &offset, &inode) != 5) continue;
    found = begin >= first && end <= last && inode != 0 && perms[1] == '-';
  }
  std::fclose(f);
  return found;
}

}  // namespace

void forget(const Tensor& constant) {
  constexpr uintptr_t kPage = 4096;
  uintptr_t begin = (reinterpret_cast<uintptr_t>(constant.data()) + kPage - 1) / kPage * kPage;
  uintptr_t end = (reinterpret_cast<uintptr_t>(constant.data()) + uintptr_t(constant.bytes())) / kPage * kPage;
  if (end > begin + (64 << 10) && in_mapped_file(begin, end))
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

namespace {
const Type kUnknownType;
}
const Type& Make::type(size_t k) const { return has(k) ? graph.value(node.inputs[k]).type : kUnknownType; }
const Type& Make::out_type(size_t k) const { return has_out(k) ? graph.value(node.outputs[k]).type : kUnknownType; }
const Tensor* Make::constant(size_t k) const {
  return has(k) && graph.is_constant(node.inputs[k]) ? &graph.value(node.inputs[k]).constant : nullptr;
}
std::string Make::key(size_t k, const std::string& what) const { return std::to_string(node.inputs[k]) + ":" + what; }

#define KERNEL(domain, op, maker) Made maker(const Make&);
#include "backends/cpu/ops/ops.def"
#undef KERNEL

namespace {

const KernelEntry kKernels[] = {
#define KERNEL(domain, op, maker) {domain, op, maker},
#include "backends/cpu/ops/ops.def"
#undef KERNEL
};

}  // namespace

std::span<const KernelEntry> all_kernels() { return kKernels; }

const KernelEntry* find_kernel(std::string_view domain, std::string_view op) {
  static const auto* const index = [] {
    auto* m = new std::map<std::pair<std::string_view, std::string_view>, const KernelEntry*>;
    for (const KernelEntry& k : kKernels) (*m)[{k.domain, k.op}] = &k;
    return m;
  }();
  auto it = index->find({domain, op});
  return it == index->end() ? nullptr : it->second;
}

}  // namespace ai_vmm::cpu
