#include "model.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <set>

namespace AIRamp::Trace {

using Interposer::Need;
using Interposer::PatternOfLife;
using Blocks = std::multiset<uint64_t>;

namespace {

constexpr double kDecay = 0.2;
constexpr uint64_t kNoBudget = ~uint64_t(0);

// ---------------------------------------------------------------- predictors of the literature and of the note

class Predictor {
 public:
  virtual ~Predictor() = default;
  virtual void learn(const std::vector<uint64_t>& needs) = 0;
  virtual Blocks predict() const = 0;
};

void add_rounded(Blocks& out, uint64_t block, double count) {
  for (long i = std::lround(count); i > 0; --i) out.insert(block);
}

// Decayed counts of every size that was ever seen.
class ExactCounts : public Predictor {
 public:
  void learn(const std::vector<uint64_t>& needs) override {
    std::map<uint64_t, double> now;
    for (uint64_t s : needs) ++now[s];
    for (const auto& [s, n] : now) counts_.try_emplace(s, 0.0);
    for (auto& [s, n] : counts_) n += kDecay * (now[s] - n);
  }
  Blocks predict() const override {
    Blocks out;
    for (const auto& [s, n] : counts_) add_rounded(out, s, n);
    return out;
  }

 private:
  std::map<uint64_t, double> counts_;
};

// Decayed counts in bins of an eighth of a doubling, spread by a Gaussian kernel. Bandwidth in bins: 0 is a histogram,
// a negative one is Silverman's rule, 1.06 sigma n^(-1/5), over the decayed samples.
class Density : public Predictor {
 public:
  explicit Density(double bandwidth) : bandwidth_(bandwidth) {}
  void learn(const std::vector<uint64_t>& needs) override {
    std::vector<double> now(PatternOfLife::kBins);
    for (uint64_t s : needs) ++now[size_t(PatternOfLife::bin_of(s))];
    for (size_t b = 0; b < now.size(); ++b) counts_[b] += kDecay * (now[b] - counts_[b]);
  }
  Blocks predict() const override {
    double n = 0, mean = 0, square = 0;
    for (size_t b = 0; b < counts_.size(); ++b) n += counts_[b], mean += counts_[b] * double(b);
    Blocks out;
    if (n <= 0) return out;
    mean /= n;
    for (size_t b = 0; b < counts_.size(); ++b) square += counts_[b] * (double(b) - mean) * (double(b) - mean);
    // Decayed samples weigh as if 1/decay steps had been seen.
    double h = bandwidth_ >= 0 ? bandwidth_ : 1.06 * std::sqrt(square / n) * std::pow(n / kDecay, -0.2);
    for (size_t b = 0; b < counts_.size(); ++b) {
      double expected = counts_[b];
      if (h > 0.05) {
        expected = 0;
        for (size_t c = 0; c < counts_.size(); ++c) {
          if (counts_[c] <= 0) continue;
          // The mass of the kernel of bin c that falls into bin b.
          double low = (double(b) - 0.5 - double(c)) / h, high = (double(b) + 0.5 - double(c)) / h;
          expected += counts_[c] * 0.5 * (std::erf(high / std::numbers::sqrt2) - std::erf(low / std::numbers::sqrt2));
        }
      }
      add_rounded(out, PatternOfLife::bin_block(int(b)), expected);
    }
    return out;
  }

 private:
  double bandwidth_;
  std::vector<double> counts_ = std::vector<double>(PatternOfLife::kBins);
};

// ---------------------------------------------------------------- steps

// Takes the smallest block that fits, out of `blocks`; 0 when there is none.
uint64_t take(Blocks& blocks, uint64_t request) {
  auto it = blocks.lower_bound(request);
  if (it == blocks.end() || !Interposer::block_fits(*it, request)) return 0;
  uint64_t block = *it;
  blocks.erase(it);
  return block;
}

bool has_boundaries(const Events& events) {
  return std::any_of(events.begin(), events.end(), [](const Obs& o) { return o.kind == ObsKind::boundary; });
}

// For each step, where it ends: behind the boundary, or where the engine closed one.
std::vector<size_t> step_ends(const Events& events) {
  std::vector<size_t> ends;
  bool given = has_boundaries(events);
  auto engine = std::make_unique<PatternOfLife>();
  for (size_t i = 0; i < events.size(); ++i) {
    uint64_t before = engine->steps();
    engine->observe(events[i]);
    // The engine closes a step before the allocation that showed it.
    if (engine->steps() != before) ends.push_back(given ? i + 1 : i);
  }
  return ends;
}

// One step with `predicted` blocks at hand: what was needed beyond blocks that the step itself had freed.
struct StepResult {
  std::vector<uint64_t> needs;
  size_t hits = 0;
};
StepResult run_step(const Events& events, size_t from, size_t until, Blocks& predicted) {
  StepResult r;
  Blocks freed;
  std::map<uint64_t, std::vector<uint64_t>> live;  // request size to blocks that serve it
  for (size_t i = from; i < until; ++i) {
    const Obs& o = events[i];
    if (o.kind == ObsKind::allocate) {
      uint64_t block = take(freed, o.bytes);
      if (!block) {
        r.needs.push_back(o.bytes);
        block = take(predicted, o.bytes);
        r.hits += block != 0;
      }
      live[o.bytes].push_back(block ? block : o.bytes);
    } else if (o.kind == ObsKind::release) {
      auto it = live.find(o.bytes);
      if (it == live.end() || it->second.empty()) {
        freed.insert(o.bytes);  // allocated in an earlier step
      } else {
        freed.insert(it->second.back());
        it->second.pop_back();
      }
    }
  }
  return r;
}

struct Tally {
  double hits = 0, needs = 0, predicted_bytes = 0, unused_bytes = 0;
  Accuracy accuracy() const {
    return {needs > 0 ? hits / needs : 0, predicted_bytes > 0 ? unused_bytes / predicted_bytes : 0};
  }
};

double sum(const Blocks& blocks) {
  double bytes = 0;
  for (uint64_t b : blocks) bytes += double(b);
  return bytes;
}

Blocks engine_blocks(const PatternOfLife& engine) {
  std::vector<Need> needs(PatternOfLife::kBins);
  int n = engine.predict(kNoBudget, needs.data(), int(needs.size()));
  Blocks out;
  for (int i = 0; i < n; ++i)
    for (uint32_t k = 0; k < needs[size_t(i)].count; ++k) out.insert(needs[size_t(i)].bytes);
  return out;
}

}  // namespace

const std::vector<std::string>& predictor_names() {
  static const std::vector<std::string> names = {"exact counts", "histogram", "KDE Silverman", "KDE h = 0.25 bin",
                                                 "pattern of life"};
  return names;
}

uint64_t count_steps(const Events& events) { return step_ends(events).size(); }

std::vector<Accuracy> compare(const Events& events) {
  std::vector<std::unique_ptr<Predictor>> predictors;
  predictors.push_back(std::make_unique<ExactCounts>());
  for (double h : {0.0, -1.0, 0.25}) predictors.push_back(std::make_unique<Density>(h));
  auto engine = std::make_unique<PatternOfLife>();
  std::vector<Tally> tallies(predictors.size() + 1);
  auto ends = step_ends(events);
  bool given = has_boundaries(events);
  size_t from = 0, fed = 0;
  for (size_t step = 0; step < ends.size(); ++step) {
    // Where the engine finds steps by itself, it knows of a new one only at its first allocation, which is therefore
    // lost to it, and counts as not foreseen.
    if (!given && step > 0) engine->observe(events[fed++]);
    bool scored = step >= ends.size() / 2;
    std::vector<uint64_t> needs;
    for (size_t p = 0; p < tallies.size(); ++p) {
      Blocks predicted = p < predictors.size() ? predictors[p]->predict() : engine_blocks(*engine);
      double bytes = sum(predicted);
      StepResult r = run_step(events, from, ends[step], predicted);
      if (scored) {
        tallies[p].hits += double(r.hits), tallies[p].needs += double(r.needs.size());
        tallies[p].predicted_bytes += bytes, tallies[p].unused_bytes += sum(predicted);
      }
      if (p == 0) needs = r.needs;
    }
    // What a step needs does not depend on what was predicted for it, but for blocks that are a little larger.
    Blocks none;
    needs = run_step(events, from, ends[step], none).needs;
    for (auto& p : predictors) p->learn(needs);
    while (fed < ends[step]) engine->observe(events[fed++]);
    from = ends[step];
  }
  std::vector<Accuracy> out;
  for (const Tally& t : tallies) out.push_back(t.accuracy());
  return out;
}

std::string explanation(const Events& events) {
  auto engine = std::make_unique<PatternOfLife>();
  for (const Obs& o : events) engine->observe(o);
  char text[400];
  engine->explain(text, sizeof text);
  return text;
}

// ---------------------------------------------------------------- the pool

PoolResult simulate(const Events& events, const PoolPolicy& policy, int64_t time_to_live_ns, int trim_steps) {
  struct Cached {
    int64_t since_ns;
    bool prewarmed;
  };
  PoolResult r;
  auto engine = std::make_unique<PatternOfLife>();
  std::multimap<uint64_t, Cached> cache;
  std::map<uint64_t, std::vector<uint64_t>> live;
  auto drop = [&](auto it, int64_t now) {
    r.idle_byte_seconds += double(it->first) * double(now - it->second.since_ns) * 1e-9;
    if (it->second.prewarmed) r.unused_bytes += double(it->first), engine->prewarm_unused(it->first);
    return cache.erase(it);
  };
  uint64_t steps = 0;
  bool after_trim = false;
  int64_t now = 0, next_sweep = 0;
  for (const Obs& o : events) {
    now = o.time_ns;
    // A pool looks through its blocks now and then, not at every call.
    if (now >= next_sweep) {
      for (auto it = cache.begin(); it != cache.end();) {
        int64_t keep = policy.keep_longer ? engine->keep_ns(it->first, time_to_live_ns) : time_to_live_ns;
        if (now - it->second.since_ns > keep)
          it = drop(it, it->second.since_ns + keep);
        else
          ++it;
      }
      next_sweep = now + time_to_live_ns / 10;
    }
    engine->observe(o);
    if (engine->steps() != steps) {
      steps = engine->steps();
      after_trim = false;
      if (trim_steps && steps % uint64_t(trim_steps) == 0) {
        while (!cache.empty()) drop(cache.begin(), now);
        after_trim = true;
        if (policy.prewarm)
          for (uint64_t b : engine_blocks(*engine)) {
            cache.insert({b, {now, true}});
            ++r.prewarmed;
            r.prewarmed_bytes += double(b);
          }
      }
    }
    if (o.kind == ObsKind::allocate) {
      ++r.requests;
      auto it = cache.lower_bound(o.bytes);
      uint64_t block = o.bytes;
      if (it != cache.end() && Interposer::block_fits(it->first, o.bytes)) {
        block = it->first;
        r.idle_byte_seconds += double(block) * double(now - it->second.since_ns) * 1e-9;
        if (it->second.prewarmed) engine->prewarm_used(block);
        cache.erase(it);
      } else {
        ++r.driver_calls;
        r.first_step_calls += after_trim;
      }
      live[o.bytes].push_back(block);
    } else if (o.kind == ObsKind::release) {
      auto it = live.find(o.bytes);
      if (it == live.end() || it->second.empty()) continue;  // born before the trace
      cache.insert({it->second.back(), {now, false}});
      it->second.pop_back();
    }
  }
  while (!cache.empty()) drop(cache.begin(), now);
  return r;
}

}  // namespace AIRamp::Trace
