#include "control.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace AIRamp::Daemon {

namespace {

constexpr struct {
  Mode mode;
  const char* name;
} kModes[] = {
    {Mode::off, "off"}, {Mode::advise, "advise"}, {Mode::supervised, "supervised"}, {Mode::automatic, "auto"}};

// Sizes whose best value depends on the program: the model gives the start, trials find the rest.
constexpr Key kSearched[] = {Key::OCL_CHUNK_BYTES, Key::PIN_SLOT_BYTES};
bool is_searched(Key key) { return std::find(std::begin(kSearched), std::end(kSearched), key) != std::end(kSearched); }

constexpr size_t kHistory = 64;
// A lowered limit helped if it freed at least this part of the bytes that it took away; a shorter time to live, or less
// pre-warming, if it freed this share of all memory. A raised one must not cost more than kCost of all memory.
constexpr double kFreedPart = 0.5, kFreedShare = 0.005, kCost = 0.10;

double median(std::vector<double> v) {
  auto middle = v.begin() + long(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return *middle;
}

const char* what(Judge judge) {
  switch (judge) {
    case Judge::none: return "";
    case Judge::throughput: return "throughput of the devices";
    case Judge::device_memory: return "free share of device memory";
    case Judge::host_memory: return "free share of host memory";
  }
  return "";
}

}  // namespace

const char* name(Mode mode) {
  for (const auto& m : kModes)
    if (m.mode == mode) return m.name;
  return "";
}

std::optional<Mode> mode_named(std::string_view text) {
  for (const auto& m : kModes)
    if (text == m.name) return m.mode;
  return {};
}

const char* name(Change::Stage stage) {
  constexpr const char* kNames[] = {"waiting", "watched", "kept", "rolled back", "vetoed", "withdrawn"};
  return kNames[size_t(stage)];
}

std::string sentence(const Change& c) {
  return std::string(row(c.key).name) + ": " + value_text(c.key, c.from) + " to " + value_text(c.key, c.to) +
         ", because " + c.reason + "; " + name(c.stage) + (c.effect.empty() ? "." : ": " + c.effect + ".");
}

Controller::Controller(Policy policy, const Settings& initial, std::function<void(const std::string&)> log)
    : policy_(policy), settings_(initial), log_(std::move(log)) {
  if (policy_.mode == Mode::off) set_mode(Mode::off, 0);
}

bool Controller::step(const Observation& seen) {
  Settings before = settings_;
  for (Judge j : {Judge::throughput, Judge::device_memory, Judge::host_memory})
    if (auto s = score(j, seen)) {
      auto& kept = scores_[j];
      kept.push_back(s->value);
      while (kept.size() > size_t(policy_.looks)) kept.pop_front();
    }
  targets_ = adviser_.advise(seen, settings_);
  judge(seen);
  if (policy_.mode != Mode::off) {
    pursue(seen);
    search(seen);
    make_due_changes(seen);
  }
  drop_finished();
  return !(settings_ == before);
}

bool Controller::worth(int64_t from, int64_t to) const {
  if (from == to) return false;
  if (from <= 0 || to <= 0) return true;
  double factor = double(to) / double(from);
  return factor >= policy_.dead_band || factor <= 1 / policy_.dead_band;
}

Change* Controller::open_change(Key key) {
  for (Change& c : open_)
    if (c.key == key && (c.stage == Change::Stage::waiting || c.stage == Change::Stage::watched)) return &c;
  return nullptr;
}

void Controller::pursue(const Observation& seen) {
  std::array<bool, size_t(kKeyCount)> named{};
  for (const Target& t : targets_) {
    KeyState& k = keys_[size_t(t.key)];
    named[size_t(t.key)] = true;
    int64_t now = settings_[t.key];
    Change* open = open_change(t.key);
    if (open && open->stage == Change::Stage::waiting && !open->trial && !worth(now, t.value)) {
      finish(*open, Change::Stage::withdrawn, "what was observed no longer asks for it", seen.now_ns);
      open = nullptr;
    }
    if (settings_.is_held(t.key) || !worth(now, t.value)) {
      k.streak = 0, k.wanted.reset();
      continue;
    }
    // Values that are not far from each other are the same wish.
    k.streak = k.wanted && !worth(*k.wanted, t.value) ? k.streak + 1 : 1;
    k.wanted = t.value;
    if (open || k.streak < policy_.confirm || seen.now_ns < k.quiet_until_ns) continue;
    if (is_searched(t.key) && k.started) continue;
    k.started = true;
    propose(t.key, t.value, t.reason, t.judge, false, seen.now_ns);
  }
  // What nothing is known of any more is not changed either.
  for (Change& c : open_)
    if (c.stage == Change::Stage::waiting && !c.trial && !named[size_t(c.key)])
      finish(c, Change::Stage::withdrawn, "what it was based on is unknown now", seen.now_ns);
}

// One step along a size at a time, as long as steps help; after a failure in both directions it rests.
void Controller::search(const Observation& seen) {
  if (scores_[Judge::throughput].size() < size_t(policy_.looks) || !score(Judge::throughput, seen)) return;
  for (const Change& c : open_)
    if (c.judge == Judge::throughput) return;  // two changes at once could not be told apart
  for (Key key : kSearched) {
    KeyState& k = keys_[size_t(key)];
    if (settings_.is_held(key) || seen.now_ns < k.quiet_until_ns) continue;
    int64_t now = settings_[key], to = k.direction > 0 ? now * 2 : now / 2;
    if (to > row(key).most || to < row(key).least) {
      k.direction = -k.direction;
      to = k.direction > 0 ? now * 2 : now / 2;
    }
    propose(key, to, k.direction > 0 ? "twice the size is tried" : "half the size is tried", Judge::throughput, true,
            seen.now_ns);
    return;
  }
}

void Controller::propose(Key key, int64_t to, std::string reason, Judge judge, bool trial, int64_t now_ns) {
  Change c;
  c.id = next_id_++;
  c.key = key, c.from = settings_[key], c.to = to;
  c.reason = std::move(reason);
  c.judge = judge, c.trial = trial;
  c.proposed_ns = now_ns;
  c.due_ns = policy_.dry_run                    ? INT64_MAX
             : policy_.mode == Mode::automatic  ? now_ns
             : policy_.mode == Mode::supervised ? now_ns + policy_.veto_window_ns
                                                : INT64_MAX;
  if (policy_.dry_run)
    log_(sentence(c) + " This is a dry run: it is not made.");
  else if (policy_.mode == Mode::advise)
    log_(sentence(c) + " `airampd --approve " + row(key).name + "` makes it.");
  else if (policy_.mode == Mode::supervised)
    log_(sentence(c) + " It is made in " + std::to_string(policy_.veto_window_ns / 1'000'000'000) +
         " s unless `airampd --veto " + row(key).name + "` forbids it.");
  open_.push_back(std::move(c));
}

void Controller::make_due_changes(const Observation& seen) {
  for (Change& c : open_) {
    if (c.stage != Change::Stage::waiting || c.due_ns > seen.now_ns) continue;
    bool another = std::any_of(open_.begin(), open_.end(), [&](const Change& o) {
      return o.stage == Change::Stage::watched && o.judge == c.judge;
    });
    if (another) continue;  // the effect of two could not be told apart
    // A few looks more, and there is something to compare with.
    if (score(c.judge, seen) && scores_[c.judge].size() < size_t(policy_.looks)) continue;
    apply(c, seen.now_ns);
  }
}

void Controller::apply(Change& c, int64_t now_ns) {
  c.from = settings_[c.key];
  settings_.values[c.key] = c.to;
  c.applied_ns = now_ns;
  KeyState& k = keys_[size_t(c.key)];
  k.quiet_until_ns = now_ns + policy_.rest_ns;
  k.streak = 0, k.wanted.reset();
  c.stage = Change::Stage::watched;
  auto& scores = scores_[c.judge];
  if (scores.size() >= size_t(policy_.looks)) {
    std::vector<double> v(scores.begin(), scores.end());
    c.before = median(v);
    auto [least, most] = std::minmax_element(v.begin(), v.end());
    c.spread = *c.before != 0 ? (*most - *least) / std::fabs(*c.before) : 0;
  }
  if (c.judge == Judge::none)
    finish(c, Change::Stage::kept, "a fact about the machine; programs measure what follows from it", now_ns);
  else
    log_(sentence(c));
}

void Controller::judge(const Observation& seen) {
  for (Change& c : open_) {
    if (c.stage != Change::Stage::watched) continue;
    // The look at which the change was made still shows the time before it.
    if (seen.now_ns <= c.applied_ns) continue;
    auto s = score(c.judge, seen);
    if (s) c.after.push_back(s->value), c.whole = s->whole;
    if (int(c.after.size()) <= policy_.looks) {
      if (seen.now_ns - c.applied_ns < policy_.judge_limit_ns) continue;
      finish(c, Change::Stage::kept, "unknown, as there was no load to judge it by", seen.now_ns);
      continue;
    }
    if (!c.before) {
      finish(c, Change::Stage::kept,
             std::string("unknown, as there was no load before it; ") + what(c.judge) + " is now known", seen.now_ns);
      continue;
    }
    // The first look after the change is half before it.
    double after = median({c.after.begin() + 1, c.after.end()}), before = *c.before;
    bool helped;
    char text[160];
    if (c.judge == Judge::throughput) {
      double gain = before != 0 ? (after - before) / std::fabs(before) : 0;
      helped = gain >= std::max(policy_.least_gain, 2 * c.spread);
      std::snprintf(text, sizeof text, "%s went from %.4g to %.4g (%+.1f %%, spread before %.1f %%)", what(c.judge),
                    before, after, gain * 100, c.spread * 100);
    } else {
      bool bytes = std::string_view(row(c.key).unit) == "bytes";
      double needed = bytes && c.whole > 0 ? kFreedPart * double(c.from - c.to) / c.whole : kFreedShare;
      helped = c.to < c.from ? after - before >= needed : before - after <= kCost;
      std::snprintf(text, sizeof text, "%s went from %.2f %% to %.2f %%", what(c.judge), before * 100, after * 100);
    }
    if (!helped) settings_.values[c.key] = c.from;
    finish(c, helped ? Change::Stage::kept : Change::Stage::rolled_back, text, seen.now_ns);
  }
}

void Controller::finish(Change& c, Change::Stage stage, std::string effect, int64_t now_ns) {
  c.stage = stage;
  c.effect = std::move(effect);
  ++counts_[size_t(stage)];
  KeyState& k = keys_[size_t(c.key)];
  bool failed = stage == Change::Stage::rolled_back || stage == Change::Stage::vetoed;
  if (failed && c.trial && stage == Change::Stage::rolled_back && ++k.failures < 2) {
    k.direction = -k.direction;
    k.quiet_until_ns = now_ns + policy_.rest_ns;
  } else if (failed) {
    k.back_off_ns = std::clamp(2 * k.back_off_ns, policy_.back_off_ns, policy_.most_back_off_ns);
    k.quiet_until_ns = now_ns + k.back_off_ns;
    k.failures = 0;
  } else if (stage == Change::Stage::kept) {
    k.back_off_ns = 0;
    // What brought us here is no way back worth trying.
    if (c.trial) k.failures = 1;
  }
  if (failed) k.streak = 0, k.wanted.reset();
  log_(sentence(c));
}

void Controller::drop_finished() {
  for (auto c = open_.begin(); c != open_.end();) {
    if (c->stage == Change::Stage::waiting || c->stage == Change::Stage::watched) {
      ++c;
      continue;
    }
    history_.push_back(std::move(*c));
    c = open_.erase(c);
  }
  while (history_.size() > kHistory) history_.pop_front();
}

Result<bool> Controller::decide(std::string_view key, int64_t now_ns, bool approve) {
  std::optional<Key> only;
  if (key != "all") {
    auto named = key_named(key);
    if (!named.ok()) return std::move(named).status();
    only = *named;
  }
  Settings before = settings_;
  bool found = false;
  for (Change& c : open_) {
    if (only && c.key != *only) continue;
    if (c.stage == Change::Stage::waiting) {
      found = true;
      if (approve)
        apply(c, now_ns);
      else
        finish(c, Change::Stage::vetoed, "a person forbade it", now_ns);
    } else if (c.stage == Change::Stage::watched && !approve) {
      found = true;
      settings_.values[c.key] = c.from;
      finish(c, Change::Stage::vetoed, "a person took it back", now_ns);
    }
  }
  drop_finished();
  if (!found)
    return Status(Code::not_found, "No change of " + (only ? std::string(row(*only).name) : "any key") + " waits for " +
                                       (approve ? "approval." : "a veto."));
  return !(settings_ == before);
}

Result<bool> Controller::approve(std::string_view key, int64_t now_ns) { return decide(key, now_ns, true); }
Result<bool> Controller::veto(std::string_view key, int64_t now_ns) { return decide(key, now_ns, false); }

bool Controller::set_mode(Mode mode, int64_t now_ns) {
  Settings before = settings_;
  policy_.mode = mode;
  for (Change& c : open_) {
    bool waiting = c.stage == Change::Stage::waiting;
    if (waiting || mode == Mode::off)
      finish(c, waiting ? Change::Stage::withdrawn : Change::Stage::kept, "the mode was changed", now_ns);
  }
  drop_finished();
  if (mode == Mode::off)
    for (int i = 0; i < kKeyCount; ++i)
      if (!settings_.held[size_t(i)]) settings_.values.of[i] = kKeys[i].fallback;
  for (KeyState& k : keys_) k = {};
  return !(settings_ == before);
}

bool Controller::adopt(const Settings& edited) {
  Settings before = settings_;
  settings_ = edited;
  if (policy_.mode == Mode::off)
    for (int i = 0; i < kKeyCount; ++i)
      if (!settings_.held[size_t(i)]) settings_.values.of[i] = kKeys[i].fallback;
  for (Change& c : open_)
    if (settings_.is_held(c.key)) finish(c, Change::Stage::withdrawn, "the key is held by hand now", c.proposed_ns);
  drop_finished();
  return !(settings_ == before);
}

void Controller::revert_to(const Settings& published) {
  settings_ = published;
  for (Change& c : open_)
    if (c.stage == Change::Stage::watched)
      finish(c, Change::Stage::withdrawn, "it could not be published", c.applied_ns);
  drop_finished();
}

}  // namespace AIRamp::Daemon
