#include "kit/offsets.hpp"

#include <algorithm>
#include <numeric>

namespace ai_vmm {

namespace {
int64_t round_up(int64_t bytes, int64_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

// Places buffers in the given order, each in the smallest gap between placed buffers that overlap it in time.
Offsets place(std::span<const Lifetime> buffers, const std::vector<size_t>& order, int64_t alignment, int64_t give_up) {
  Offsets r;
  r.at.assign(buffers.size(), 0);
  std::vector<size_t> placed;  // by offset
  for (size_t b : order) {
    int64_t bytes = round_up(buffers[b].bytes, alignment);
    if (bytes == 0) continue;
    int64_t end = 0, best = -1, best_gap = INT64_MAX;
    for (size_t p : placed) {
      if (buffers[p].last < buffers[b].first || buffers[p].first > buffers[b].last) continue;
      int64_t gap = r.at[p] - end;
      if (gap >= bytes && gap < best_gap) {
        best = end;
        best_gap = gap;
      }
      end = std::max(end, r.at[p] + round_up(buffers[p].bytes, alignment));
    }
    r.at[b] = best >= 0 ? best : end;
    r.total = std::max(r.total, r.at[b] + bytes);
    if (r.total >= give_up) return r;
    auto above =
        std::upper_bound(placed.begin(), placed.end(), b, [&](size_t x, size_t y) { return r.at[x] < r.at[y]; });
    placed.insert(above, b);
  }
  return r;
}
}  // namespace

Offsets assign_offsets(std::span<const Lifetime> buffers, int64_t alignment) {
  std::vector<size_t> order(buffers.size());
  auto duration = [&](size_t i) { return int64_t(buffers[i].last) - buffers[i].first + 1; };
  Offsets best;
  best.total = INT64_MAX;
  for (int kind = 0; kind < 4; ++kind) {
    std::iota(order.begin(), order.end(), size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) {
      switch (kind) {
        case 0: return buffers[x].bytes > buffers[y].bytes;
        case 1: return double(buffers[x].bytes) * double(duration(x)) > double(buffers[y].bytes) * double(duration(y));
        case 2: return duration(x) != duration(y) ? duration(x) > duration(y) : buffers[x].bytes > buffers[y].bytes;
        default: return buffers[x].first < buffers[y].first;
      }
    });
    Offsets r = place(buffers, order, alignment, best.total);
    if (r.total < best.total) best = std::move(r);
    if (buffers.size() > 4000) break;  // quadratic: one order is enough for very large graphs
  }
  return best;
}

}  // namespace ai_vmm
