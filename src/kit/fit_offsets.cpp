// Exact offset assignment by search. The idea is Moffitt's, "MiniMalloc: A Lightweight Memory Allocator for
// Hardware-Accelerated Machine Learning", ASPLOS 2023; restarts and the order by slack are ours.
//
// Any assignment can be pushed down until each buffer lies on the floor or on another one. Only such assignments are
// looked for, and the buffers of one are placed in the order of their offsets. So at each step:
// - A candidate is a buffer whose support, what lies highest below it so far, is not below the offset used last.
// - A candidate at or above the top that some other buffer would have on its support is none: that other one would be
//   pushed down below it.
// - When a candidate has failed at an offset, the others tried after it find that offset closed for it.
// - In every section of time, the lowest place left plus the sizes not yet placed must stay within the capacity.
// - What is left falls apart where no unplaced buffer spans; the parts are solved alone.
// Which candidate of an offset is tried first is a matter of luck, and a bad first choice takes forever to take back:
// so the search begins again after kPatience steps with another order: 16 of them, then random ones near them.
#include <algorithm>
#include <array>
#include <random>
#include <utility>

#include "kit/offsets.hpp"

namespace ai_vmm {

namespace {

class Search {
 public:
  Search(std::span<const Lifetime> buffers, int64_t capacity, int64_t alignment)
      : capacity_(capacity), all_(buffers.size()), neighbours_(buffers.size()) {
    // A section begins where some buffer does: whatever is alive before the next one is alive at its begin too.
    std::vector<int32_t> begins;
    for (const Lifetime& b : buffers) begins.push_back(b.first);
    std::ranges::sort(begins);
    begins.erase(std::ranges::unique(begins).begin(), begins.end());
    auto section = [&](int32_t step) { return size_t(std::ranges::upper_bound(begins, step) - begins.begin()) - 1; };
    unplaced_.assign(begins.size(), 0);
    lowest_.assign(begins.size(), 0);
    for (size_t i = 0; i < all_.size(); ++i) {
      Buffer& b = all_[i];
      b.begin = section(buffers[i].first);
      b.end = section(buffers[i].last) + 1;
      b.life = int64_t(buffers[i].last) - buffers[i].first + 1;
      b.bytes = (buffers[i].bytes + alignment - 1) / alignment * alignment;
      for (size_t s = b.begin; s < b.end; ++s) unplaced_[s] += b.bytes;
    }
    for (size_t i = 0; i < all_.size(); ++i) {
      Buffer& b = all_[i];
      b.fullest = *std::max_element(&unplaced_[b.begin], &unplaced_[b.end - 1] + 1);
      for (size_t j = 0; j < all_.size() && b.bytes > 0; ++j)
        if (i != j && all_[j].bytes > 0 && b.begin < all_[j].end && all_[j].begin < b.end) neighbours_[i].push_back(j);
    }
  }

  std::optional<Offsets> run(int64_t steps) {
    if (std::ranges::any_of(unplaced_, [&](int64_t bytes) { return bytes > capacity_; })) return std::nullopt;
    std::vector<size_t> list;
    for (size_t i = 0; i < all_.size(); ++i)
      if (all_[i].bytes > 0) list.push_back(i);
    for (std::vector<size_t>& part : parts(list))
      if (!restart(part, steps)) return std::nullopt;
    Offsets r;
    for (const Buffer& b : all_) {
      r.at.push_back(std::max<int64_t>(b.at, 0));
      r.total = std::max(r.total, r.at.back() + b.bytes);
    }
    return r;
  }

 private:
  static constexpr int64_t kPatience = 3000;
  static constexpr double kNoise = 0.3;

  struct Buffer {
    size_t begin, end;  // sections, half-open
    int64_t life, bytes;
    int64_t fullest;      // bytes alive in the fullest section of its life
    int64_t support = 0;  // the top of what is placed below
    int64_t at = -1;      // -1: not placed
    int64_t closed = -1;  // the offset at which it has failed
    bool may_lie(int64_t least) const { return support >= least && support != closed; }
  };
  struct Change {
    size_t buffer;
    int64_t support;  // before; -1: the buffer was placed
  };
  using List = std::vector<size_t>;  // unplaced buffers, the preferred first

  bool restart(List& part, int64_t& steps) {
    const size_t mark = changes_.size();
    for (int64_t round = 0; steps > 0; ++round) {
      prefer(part, round);
      by_slack_ = round / 4 % 4 == 2;
      const int64_t given = std::min(kPatience * (1 + round / 32), steps);
      left_ = given;
      bool found = solve(part, 0);
      steps -= given - left_;
      if (found) return true;
      if (left_ > 0) return false;  // everything was tried
      undo(mark);
    }
    return false;
  }

  // Sorts by decreasing keys: life in sections or in steps, bytes times life, the fullest section; later with noise.
  void prefer(List& list, int64_t round) {
    static constexpr std::array<std::array<int, 3>, 4> kOrders{{{0, 1, 2}, {2, 1, 0}, {2, 0, 1}, {1, 2, 0}}};
    std::vector<std::array<double, 3>> keys(all_.size());
    for (size_t i : list) {
      const Buffer& b = all_[i];
      const double life = double(round / 4 % 4 == 1 ? b.life : int64_t(b.end - b.begin));
      const double key[] = {life, double(b.bytes) * life, double(b.fullest)};
      for (size_t k = 0; k < 3; ++k) {
        keys[i][k] = key[kOrders[size_t(round % 4)][k]];
        if (round >= 16) keys[i][k] *= 1 + kNoise * double(random_() % 1024) / 1024;
      }
    }
    std::ranges::sort(list);
    std::ranges::stable_sort(list, [&](size_t x, size_t y) { return keys[x] > keys[y]; });
  }

  // Falls apart into lists between which no buffer is alive, the shortest first.
  std::vector<List> parts(const List& list) const {
    std::vector<size_t> reach(unplaced_.size(), 0);  // by section: the end of the longest buffer that begins there
    for (size_t b : list) reach[all_[b].begin] = std::max(reach[all_[b].begin], all_[b].end);
    std::vector<size_t> part_of(unplaced_.size(), 0);
    std::vector<List> lists;
    for (size_t s = 0, end = 0; s < reach.size(); ++s) {
      if (s >= end && reach[s] == 0) continue;
      if (s >= end) lists.emplace_back();
      end = std::max(end, reach[s]);
      part_of[s] = lists.size() - 1;
    }
    for (size_t b : list) lists[part_of[all_[b].begin]].push_back(b);
    std::ranges::stable_sort(lists, {}, &List::size);
    return lists;
  }

  // Places a part at offsets from `least` on. False: impossible, with all as before, or left_ has come to 0.
  bool solve(const List& list, int64_t least) {
    if (--left_ <= 0) return false;
    if (list.size() == 1) {
      const Buffer& b = all_[list[0]];
      if (b.support + b.bytes > capacity_) return false;
      place(list[0], b.support);
      return true;
    }
    if (!fits(list, least)) return false;

    int64_t lowest_top = INT64_MAX;
    for (size_t b : list) lowest_top = std::min(lowest_top, all_[b].support + all_[b].bytes);
    struct Candidate {
      int64_t at, slack;
      size_t rank;  // in `list`
    };
    std::vector<Candidate> candidates;
    for (size_t k = 0; k < list.size(); ++k) {
      const Buffer& b = all_[list[k]];
      if (!b.may_lie(least) || b.support >= lowest_top) continue;
      int64_t slack = 0;
      if (by_slack_) {
        slack = INT64_MAX;
        for (size_t s = b.begin; s < b.end; ++s) slack = std::min(slack, capacity_ - lowest_[s] - unplaced_[s]);
      }
      candidates.push_back({b.support, slack, k});
    }
    std::ranges::stable_sort(candidates, {}, [](const Candidate& c) { return std::pair(c.at, c.slack); });

    const size_t mark = changes_.size();
    std::vector<int64_t> closed_before;
    bool found = false;
    for (const Candidate& c : candidates) {
      const size_t b = list[c.rank];
      if (c.at + all_[b].bytes <= capacity_) {
        List rest = list;
        rest.erase(rest.begin() + int64_t(c.rank));
        place(b, c.at);
        found = std::ranges::all_of(parts(rest), [&](const List& part) { return solve(part, c.at); });
        if (found) break;
        undo(mark);
        if (left_ <= 0) break;
      }
      closed_before.push_back(std::exchange(all_[b].closed, c.at));
    }
    for (size_t k = closed_before.size(); k-- > 0;) all_[list[candidates[k].rank]].closed = closed_before[k];
    return found;
  }

  // Whether each section can hold what is unplaced in it above the lowest offset that is left there.
  bool fits(const List& list, int64_t least) {
    for (size_t b : list) std::fill(&lowest_[all_[b].begin], &lowest_[all_[b].end - 1] + 1, INT64_MAX);
    for (size_t b : list) {
      const Buffer& x = all_[b];
      const int64_t at = x.may_lie(least) ? x.support : next_support(b, least);
      if (at > capacity_ - x.bytes) return false;
      for (size_t s = x.begin; s < x.end; ++s) lowest_[s] = std::min(lowest_[s], at);
    }
    return std::ranges::all_of(list, [&](size_t b) {
      for (size_t s = all_[b].begin; s < all_[b].end; ++s)
        if (lowest_[s] + unplaced_[s] > capacity_) return false;
      return true;
    });
  }

  // The lowest place of a buffer that may not lie on its support: on one that is yet to be placed.
  int64_t next_support(size_t b, int64_t least) const {
    int64_t lowest = INT64_MAX;
    for (size_t n : neighbours_[b])
      if (all_[n].at < 0) lowest = std::min(lowest, std::max(all_[n].support, least) + all_[n].bytes);
    return lowest;
  }

  void place(size_t b, int64_t at) {
    Buffer& x = all_[b];
    x.at = at;
    changes_.push_back({b, -1});
    for (size_t s = x.begin; s < x.end; ++s) unplaced_[s] -= x.bytes;
    for (size_t n : neighbours_[b]) {
      Buffer& y = all_[n];
      if (y.at >= 0 || y.support >= at + x.bytes) continue;
      changes_.push_back({n, y.support});
      y.support = at + x.bytes;
    }
  }

  void undo(size_t mark) {
    for (; changes_.size() > mark; changes_.pop_back()) {
      Buffer& x = all_[changes_.back().buffer];
      if (changes_.back().support >= 0) {
        x.support = changes_.back().support;
        continue;
      }
      x.at = -1;
      for (size_t s = x.begin; s < x.end; ++s) unplaced_[s] += x.bytes;
    }
  }

  const int64_t capacity_;
  std::vector<Buffer> all_;
  std::vector<List> neighbours_;   // by buffer: those alive at some time of its life
  std::vector<int64_t> unplaced_;  // by section: bytes
  std::vector<int64_t> lowest_;    // by section, of the last `fits`: the lowest offset left
  std::vector<Change> changes_;
  std::minstd_rand random_;
  bool by_slack_ = false;
  int64_t left_ = 0;  // steps of this round
};

}  // namespace

std::optional<Offsets> fit_offsets(std::span<const Lifetime> buffers, int64_t capacity, int64_t steps,
                                   int64_t alignment) {
  return Search(buffers, capacity, alignment).run(steps);
}

}  // namespace ai_vmm
