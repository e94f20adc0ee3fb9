// The control loop: from targets to changes, by the mode that a person chose, each watched afterwards and taken back
// when it did not help.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "advise.hpp"

namespace AIRamp::Daemon {

enum class Mode {
  off,         // fallbacks and held keys only
  advise,      // a person approves each change
  supervised,  // a change is announced, and made unless a person vetoes it in time
  automatic,   // "auto": a change is made at once
};
const char* name(Mode mode);
std::optional<Mode> mode_named(std::string_view name);

struct Policy {
  Mode mode = Mode::advise;
  bool dry_run = false;                          // say what would be changed, and change nothing
  int confirm = 3;                               // looks in a row that must want the same before it is proposed
  double dead_band = 1.5;                        // targets less than this factor away are not pursued
  int64_t veto_window_ns = 60'000'000'000;       // supervised: from announcement to change
  int looks = 5;                                 // before and after a change, whose medians are compared
  double least_gain = 0.02;                      // relative; and twice the spread before the change at least
  int64_t judge_limit_ns = 600'000'000'000;      // without load for so long, a change stays unjudged
  int64_t rest_ns = 30'000'000'000;              // a key is left alone after a change of it
  int64_t back_off_ns = 300'000'000'000;         // after a change that did not help; doubles each time …
  int64_t most_back_off_ns = 7'200'000'000'000;  // … up to this
};

struct Change {
  enum class Stage { waiting, watched, kept, rolled_back, vetoed, withdrawn };
  uint64_t id = 0;
  Key key{};
  int64_t from = 0, to = 0;
  std::string reason;
  Judge judge = Judge::none;
  bool trial = false;  // a step of the search for a better size
  Stage stage = Stage::waiting;
  int64_t proposed_ns = 0, due_ns = 0, applied_ns = 0;
  std::optional<double> before;  // median score before the change; none: there was nothing to measure
  double spread = 0;             // of the scores before, relative
  std::vector<double> after;
  double whole = 0;  // as of Score
  std::string effect;
};
const char* name(Change::Stage stage);
std::string sentence(const Change& change);  // "OCL_CHUNK_BYTES: 4 MiB to 8 MiB, because …; kept: …"

class Controller {
 public:
  Controller(Policy policy, const Settings& initial, std::function<void(const std::string&)> log);

  // Takes in one look. True when `settings()` changed and is to be published.
  bool step(const Observation& seen);
  const Settings& settings() const { return settings_; }

  // What a person says. Each returns whether `settings()` changed; not_found: nothing waits under that name. `key` may
  // be "all". Vetoing a change that is being watched takes it back.
  Result<bool> approve(std::string_view key, int64_t now_ns);
  Result<bool> veto(std::string_view key, int64_t now_ns);
  bool set_mode(Mode mode, int64_t now_ns);
  // An edited file: held keys and their values. Open changes of keys that are now held end.
  bool adopt(const Settings& edited);
  // Values could not be published: go back to what is.
  void revert_to(const Settings& published);

  Mode mode() const { return policy_.mode; }
  const std::vector<Change>& open() const { return open_; }
  const std::deque<Change>& history() const { return history_; }  // the last 64 that ended
  const std::vector<std::string>& notes() const { return adviser_.notes(); }
  const std::vector<Target>& targets() const { return targets_; }
  uint64_t count(Change::Stage stage) const { return counts_[size_t(stage)]; }

 private:
  struct KeyState {
    std::optional<int64_t> wanted;  // by the last looks in a row
    int streak = 0;
    int64_t quiet_until_ns = 0;
    int64_t back_off_ns = 0;
    bool started = false;  // sizes that are searched for: the model's value was proposed once
    int direction = 1, failures = 0;
  };

  void pursue(const Observation& seen);
  void search(const Observation& seen);
  void make_due_changes(const Observation& seen);
  void judge(const Observation& seen);
  bool worth(int64_t from, int64_t to) const;
  Change* open_change(Key key);
  void propose(Key key, int64_t to, std::string reason, Judge judge, bool trial, int64_t now_ns);
  void apply(Change& change, int64_t now_ns);
  void finish(Change& change, Change::Stage stage, std::string effect, int64_t now_ns);
  void drop_finished();
  Result<bool> decide(std::string_view key, int64_t now_ns, bool approve);

  Policy policy_;
  Settings settings_;
  std::function<void(const std::string&)> log_;
  Adviser adviser_;
  std::vector<Target> targets_;
  std::array<KeyState, size_t(kKeyCount)> keys_;
  std::map<Judge, std::deque<double>> scores_;
  std::vector<Change> open_;
  std::deque<Change> history_;
  std::array<uint64_t, 6> counts_{};
  uint64_t next_id_ = 1;
};

}  // namespace AIRamp::Daemon
