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

// Bytes of the buffers alive at the fullest step.
int64_t most_alive(std::span<const Lifetime> buffers, int64_t alignment) {
  std::vector<std::pair<int64_t, int64_t>> changes;
  for (const Lifetime& b : buffers) {
    changes.emplace_back(b.first, round_up(b.bytes, alignment));
    changes.emplace_back(int64_t(b.last) + 1, -round_up(b.bytes, alignment));
  }
  std::ranges::sort(changes);  // at a step, what ends before what begins
  int64_t now = 0, most = 0;
  for (const auto& [step, bytes] : changes) most = std::max(most, now += bytes);
  return most;
}

constexpr size_t kSearchable = 1000;
constexpr int64_t kSteps = 9000;  // tens of milliseconds
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
    if (buffers.size() > kSearchable) break;  // quadratic: one order is enough for very large graphs
  }
  const int64_t bound = most_alive(buffers, alignment);
  if (best.total == bound || buffers.size() > kSearchable) return best;
  for (int64_t share : {0, 1, 2}) {
    const int64_t capacity = round_up(bound + (best.total - bound) * share / 4, alignment);
    if (auto fitting = fit_offsets(buffers, capacity, kSteps, alignment)) return *std::move(fitting);
  }
  return best;
}

}  // namespace ai_vmm
