#include "pattern_of_life.hpp"

#include <stdio.h>

namespace AIRamp::Interposer {

namespace {

// 2^(k/8) for k = 1 … 8, in units of 2^-32.
constexpr uint64_t kEdges[] = {0x1172b83c8, 0x1306fe0a3, 0x14bfdad53, 0x16a09e668,
                               0x18ace5423, 0x1ae89f996, 0x1d5818dd0, 0x200000000};

// A habit is predicted once steps need it this often, and no more when they need it less often than the second.
constexpr float kPredictFrom = 0.7f, kPredictUntil = 0.5f;
constexpr float kRate = 0.2f;          // how fast habits change
constexpr double kFade = 0.9;          // per step, of scores and of real waste
constexpr uint64_t kStepEvents = 256;  // where no step can be found
// The density must be better by the first to take over, and by the second to stay.
constexpr double kSwitch = 0.05, kStay = 0.02;
// Neighbours of a bin in a Gaussian kernel with a bandwidth of a quarter of a bin: exp(-8).
constexpr double kNeighbour = 3.3546e-4;

uint32_t rounded(double v) { return v > 0 ? uint32_t(v + 0.5) : 0; }
float absolute(float v) { return v < 0 ? -v : v; }
uint32_t least_of(uint32_t a, uint32_t b) { return a < b ? a : b; }

// Nanoseconds from `then` to `now`, whatever the clock of a trace says.
int64_t elapsed(int64_t now, int64_t then) {
  int64_t ns = 0;
  return now > then && !__builtin_sub_overflow(now, then, &ns) ? ns : 0;
}

int idle_bin(int64_t ns) {
  uint64_t us = ns > 0 ? uint64_t(ns) >> 10 : 0;
  int bin = us ? 64 - __builtin_clzll(us) : 0;
  return bin > 31 ? 31 : bin;
}

}  // namespace

int PatternOfLife::bin_of(uint64_t bytes) {
  if (bytes <= 1) return 0;
  int doubling = 63 - __builtin_clzll(bytes);
  // The mantissa in [1, 2), in units of 2^-32.
  uint64_t mantissa = doubling >= 32 ? bytes >> (doubling - 32) : bytes << (32 - doubling);
  int part = 0;
  while (mantissa > kEdges[part]) ++part;
  // A size on an edge belongs below it, so that the block of a bin serves it; powers of two are edges.
  int bin = doubling * kBinsPerDoubling + part;
  if (mantissa == uint64_t(1) << 32) --bin;
  return bin < kBins ? bin : kBins - 1;
}

uint64_t PatternOfLife::bin_block(int bin) {
  int doubling = bin / kBinsPerDoubling;
  uint64_t edge = kEdges[bin % kBinsPerDoubling];
  if (doubling >= 32) return edge << (doubling - 32);
  uint64_t lost = (uint64_t(1) << (32 - doubling)) - 1;
  return (edge + lost) >> (32 - doubling);
}

void PatternOfLife::Habit::end_step() {
  uint32_t n = need;
  float rate = 1.0f / float(steps + 2);
  if (rate < kRate) rate = kRate;
  presence += rate * ((n ? 1.0f : 0.0f) - presence);
  // What was the same three times is taken for the rule at once.
  same = n == last ? same + 1 : 0;
  last = n;
  level = n && same >= 2 ? float(n) : level + (level == 0 ? 1.0f : rate) * (float(n) - level);
  if (steps < 1000) ++steps;
  bool predict = presence >= (predicted ? kPredictUntil : kPredictFrom);
  predicted = predict ? rounded(level) : 0;
  freed = need = 0;
}

void PatternOfLife::Score::add(uint32_t need, uint32_t predicted, double bytes) {
  uint32_t hit = least_of(need, predicted);
  hits += hit, needs += need;
  predicted_bytes += double(predicted) * bytes;
  unused_bytes += double(predicted - hit) * bytes;
}

void PatternOfLife::Score::fade() {
  hits *= kFade, needs *= kFade;
  predicted_bytes *= kFade, unused_bytes *= kFade;
}

int PatternOfLife::find(uint64_t bytes) const {
  for (int i = 0; i < used_; ++i)
    if (keys_[i] == bytes) return i;
  return -1;
}

// Space-saving (Metwally et al. 2005): a new size takes the place of the one with the least weight, and inherits it.
int PatternOfLife::insert(uint64_t bytes) {
  int at = used_;
  float weight = 0;
  if (used_ < kSizes) {
    ++used_;
  } else {
    at = -1;
    for (int i = 0; i < kSizes; ++i)
      if (i != anchor_ && (at < 0 || sizes_[i].weight < sizes_[at].weight)) at = i;
    weight = sizes_[at].weight;
    lost_needs_ += sizes_[at].habit.need;
  }
  sizes_[at] = Size{};
  sizes_[at].bytes = keys_[at] = bytes;
  sizes_[at].weight = weight;
  return at;
}

void PatternOfLife::observe(const Obs& obs) {
  switch (obs.kind) {
    case ObsKind::boundary:
      // Steps that were found before the program told of its own are forgotten.
      if (!boundaries_given_) steps_ = 0, exact_ = density_ = {};
      boundaries_given_ = true;
      anchor_ = -1;
      end_step();
      return;
    case ObsKind::release: {
      bins_[bin_of(obs.bytes)].release();
      if (live_) --live_;
      int i = find(obs.bytes);
      if (i < 0) return;
      Size& s = sizes_[i];
      s.last_release_ns = obs.time_ns;
      if (s.live) --s.live;
      if (s.borrowed) {
        --s.borrowed;
        i = find(s.lender);
        if (i < 0) return;
      }
      sizes_[i].habit.release();
      return;
    }
    case ObsKind::allocate: allocate(obs); return;
  }
}

void PatternOfLife::allocate(const Obs& obs) {
  ++event_;
  int i = find(obs.bytes);
  if (i < 0) i = insert(obs.bytes);
  Size& s = sizes_[i];
  if (s.seen) {
    auto gap = float(event_ - s.last_event);
    float rate = 1.0f / float(s.seen);
    if (rate < kRate) rate = kRate;
    s.gap_deviation += rate * (absolute(gap - (s.gap > 0 ? s.gap : gap)) - s.gap_deviation);
    s.gap += rate * (gap - s.gap);
    s.interval_ns += rate * (float(elapsed(obs.time_ns, s.last_ns)) - s.interval_ns);
  }
  if (s.last_release_ns) {
    uint8_t& n = s.idle[idle_bin(elapsed(obs.time_ns, s.last_release_ns))];
    if (n == 255)
      for (uint8_t& b : s.idle) b /= 2;
    ++n;
  }
  if (s.seen < 1000) ++s.seen;
  s.company += (s.seen > 1 ? kRate : 1.0f) * (float(live_) - s.company);
  ++s.live, ++live_;
  s.last_event = event_, s.last_ns = obs.time_ns;
  s.weight += 1;
  if (!boundaries_given_) {
    if (i == anchor_ || (anchor_ < 0 && event_ - step_start_event_ >= kStepEvents))
      end_step();
    else if (anchor_ >= 0 && double(event_ - sizes_[anchor_].last_event) > 3.0 * sizes_[anchor_].gap + 16)
      anchor_ = -1, end_step();  // the program does something else now
    else if (anchor_ < 0 && event_ < kStepEvents && event_ % 32 == 0)
      choose_anchor();
  }
  serve(i);
  bins_[bin_of(obs.bytes)].allocate();
}

// A freed block of the size itself, or the smallest that fits, or else one more need.
void PatternOfLife::serve(int size) {
  Size& s = sizes_[size];
  int lender = size;
  if (!s.habit.freed)
    for (int i = 0; i < used_; ++i)
      if (sizes_[i].habit.freed && block_fits(keys_[i], s.bytes) && (lender == size || keys_[i] < keys_[lender]))
        lender = i;
  sizes_[lender].habit.allocate();
  if (lender == size) return;
  s.borrowed = s.lender == keys_[lender] ? s.borrowed + 1 : 1;
  s.lender = keys_[lender];
}

void PatternOfLife::end_step() {
  exact_.fade(), density_.fade();
  for (int i = 0; i < used_; ++i) {
    Size& s = sizes_[i];
    exact_.add(s.habit.need, s.habit.predicted, double(s.bytes));
    s.habit.end_step();
    s.weight *= 0.98f;
  }
  exact_.needs += lost_needs_;
  lost_needs_ = 0;
  for (int b = 0; b < kBins; ++b) {
    Habit& h = bins_[b];
    if (!h.need && !h.freed && !h.steps) continue;
    density_.add(h.need, h.predicted, double(bin_block(b)));
    h.end_step();
  }
  // The kernel spreads what is expected of a bin over its neighbours; it changes a count only where it is near a half.
  for (int b = 0; b < kBins; ++b)
    if (bins_[b].predicted) bins_[b].predicted = rounded(density(b));
  real_used_ *= kFade, real_unused_ *= kFade;
  ++steps_;
  step_start_event_ = event_;
  // The choice looks at each pair of sizes; a good one seldom changes.
  if (!boundaries_given_ && (anchor_ < 0 || steps_ < 32 || steps_ % 16 == 0)) choose_anchor();
  choose_predictor();
}

double PatternOfLife::density(int bin) const {
  auto level = [&](int b) { return b >= 0 && b < kBins ? double(bins_[b].level) : 0.0; };
  return (level(bin) + kNeighbour * (level(bin - 1) + level(bin + 1))) / (1 + 2 * kNeighbour);
}

// Steps are told by a size that comes back after a regular number of allocations. Of those, the one with the shortest
// gap within which nearly all sizes come back: shorter are the layers of a program's iteration, longer are several
// iterations.
void PatternOfLife::choose_anchor() {
  constexpr float kNearlyAll = 0.9f;
  auto regular = [&](const Size& s) { return s.seen >= 4 && s.gap >= 4 && s.gap_deviation <= 0.1f * s.gap + 1; };
  auto recent = [&](const Size& s, float gap) { return float(event_ - s.last_event) <= 2 * gap + 1; };
  float longest = 0;
  for (int i = 0; i < used_; ++i)
    if (regular(sizes_[i]) && recent(sizes_[i], sizes_[i].gap) && sizes_[i].gap > longest) longest = sizes_[i].gap;
  int found = -1;
  bool found_covers = false;
  for (int i = 0; i < used_; ++i) {
    const Size& s = sizes_[i];
    if (!regular(s) || !recent(s, s.gap)) continue;
    int all = 0, within = 0;
    for (int j = 0; j < used_; ++j) {
      const Size& other = sizes_[j];
      if (other.seen < 3 || !recent(other, longest)) continue;
      ++all;
      within += other.gap <= 1.1f * s.gap;
    }
    bool covers = float(within) >= kNearlyAll * float(all);
    bool sooner = found >= 0 && s.gap < 0.95f * sizes_[found].gap;
    bool emptier = found >= 0 && s.gap <= 1.05f * sizes_[found].gap && s.company < sizes_[found].company;
    bool better = found < 0 || (covers && (!found_covers || sooner || emptier)) ||
                  (!covers && !found_covers && s.gap > sizes_[found].gap);
    if (better) found = i, found_covers = covers;
  }
  anchor_ = found;
}

void PatternOfLife::choose_predictor() {
  // Two steps must have been predicted before anything is believed.
  if (steps_ < 3) return;
  double exact = exact_.value(), density = density_.value();
  // Where both do equally well, exact sizes waste nothing inside their blocks.
  double margin = in_use_ == Predictor::density ? kStay : kSwitch;
  in_use_ = density > 0 && density > exact + margin ? Predictor::density
            : exact > 0                             ? Predictor::exact
                                                    : Predictor::none;
}

bool PatternOfLife::braked() const {
  double all = real_used_ + real_unused_;
  return all > 0 && real_unused_ > waste_limit_ * all;
}

int PatternOfLife::predict(uint64_t budget, Need* out, int most) const {
  if (in_use_ == Predictor::none || braked() || waste_rate(in_use_) > waste_limit_) return 0;
  return predict_by(in_use_, budget, out, most);
}

int PatternOfLife::predict_next(uint64_t budget, Need* out, int most) const {
  if (in_use_ != Predictor::exact || braked() || waste_rate(in_use_) > waste_limit_) return 0;
  int n = 0;
  for (int i = 0; i < used_ && n < most; ++i) {
    const Size& s = sizes_[i];
    if (s.habit.predicted <= s.live || !s.bytes) continue;
    uint64_t room = budget / s.bytes, count = s.habit.predicted - s.live;
    if (count > room) count = room;
    if (!count) continue;
    budget -= count * s.bytes;
    out[n++] = {s.bytes, uint32_t(count)};
  }
  return n;
}

int PatternOfLife::predict_by(Predictor predictor, uint64_t budget, Need* out, int most) const {
  int n = 0;
  // Whatever steps need most surely goes first, in three grades, so that a budget cuts off the doubtful.
  auto collect = [&](int count, auto habit_of, auto block_of) {
    constexpr float kGrades[] = {2.0f, 0.95f, 0.8f, 0.0f};
    for (int grade = 1; grade < 4; ++grade)
      for (int i = 0; i < count && n < most; ++i) {
        const Habit& h = habit_of(i);
        if (h.presence < kGrades[grade] || h.presence >= kGrades[grade - 1] || h.predicted <= h.need) continue;
        uint64_t block = block_of(i), room = block ? budget / block : 0;
        auto take = uint32_t(room < h.predicted - h.need ? room : h.predicted - h.need);
        if (!take) continue;
        budget -= take * block;
        out[n++] = {block, take};
      }
  };
  if (predictor == Predictor::exact)
    collect(
        used_, [&](int i) -> const Habit& { return sizes_[i].habit; }, [&](int i) { return sizes_[i].bytes; });
  else if (predictor == Predictor::density)
    collect(
        kBins, [&](int b) -> const Habit& { return bins_[b]; }, [](int b) { return bin_block(b); });
  return n;
}

int64_t PatternOfLife::keep_ns(uint64_t bytes, int64_t time_to_live_ns) const {
  int i = find(bytes);
  if (i < 0) return time_to_live_ns;
  unsigned all = 0;
  for (uint8_t n : sizes_[i].idle) all += n;
  if (all < 3) return time_to_live_ns;
  // The longest time that is no rarity: a fiftieth of all.
  unsigned longer = 0;
  int bin = 31;
  for (; bin > 0; --bin) {
    longer += sizes_[i].idle[bin];
    if (longer * 50 >= all) break;
  }
  int64_t keep = int64_t(1) << (bin + 10);         // the upper edge of the bin
  if (keep > kMostKeepNs) return time_to_live_ns;  // not worth holding memory for
  return keep > time_to_live_ns ? keep : time_to_live_ns;
}

double PatternOfLife::hit_rate(Predictor p) const {
  return p == Predictor::exact ? exact_.hit_rate() : p == Predictor::density ? density_.hit_rate() : 0;
}
double PatternOfLife::waste_rate(Predictor p) const {
  return p == Predictor::exact ? exact_.waste_rate() : p == Predictor::density ? density_.waste_rate() : 0;
}

int64_t PatternOfLife::period_ns() const { return anchor_ >= 0 ? int64_t(sizes_[anchor_].interval_ns) : 0; }

void PatternOfLife::explain(char* text, size_t capacity) const {
  const char* used = in_use_ == Predictor::exact ? "exact sizes are used"
                     : in_use_ == Predictor::density
                         ? "the density is used"
                         : "nothing is predicted, as no predictor gained more than it wasted";
  snprintf(text, capacity,
           "after %llu steps (%s), %s%s: exact sizes foresaw %.0f %% of the needs and wasted %.0f %% of their bytes, "
           "the density "
           "%.0f %% and %.0f %%",
           static_cast<unsigned long long>(steps_),
           boundaries_given_ ? "told by the program"
           : anchor_ >= 0    ? "told by a size that recurs"
                             : "of 256 allocations each",
           used, braked() ? ", but braked for real waste" : "", exact_.hit_rate() * 100, exact_.waste_rate() * 100,
           density_.hit_rate() * 100, density_.waste_rate() * 100);
}

}  // namespace AIRamp::Interposer
