// From what was observed to what should be: one target for each key that something is known about, with the reason.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "observation.hpp"
#include "settings.hpp"

namespace AIRamp::Daemon {

// By what a change is judged afterwards. Larger is better for each.
enum class Judge {
  none,           // a fact about the machine; programs measure its use themselves
  throughput,     // bytes per second over the devices' buses, or else how busy the devices are
  device_memory,  // free share of the fullest device
  host_memory,    // available share of the host's memory
};

struct Target {
  Key key;
  int64_t value;
  std::string reason;
  Judge judge;
};

// The largest or least of what was pushed in the last `window`.
class WindowExtreme {
 public:
  WindowExtreme(int64_t window_ns, bool largest) : window_ns_(window_ns), largest_(largest) {}
  void push(int64_t now_ns, const Reading& reading);
  Reading value() const;

 private:
  int64_t window_ns_;
  bool largest_;
  std::deque<std::pair<int64_t, double>> kept_;  // monotone: the front is the answer
};

class Adviser {
 public:
  // Targets given the current values. Nothing is said about a key of which nothing is known.
  std::vector<Target> advise(const Observation& seen, const Settings& now);
  // Sentences about what was reckoned with, of the last `advise`.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  WindowExtreme rate_{60'000'000'000, true}, round_trip_{600'000'000'000, false};
  bool device_full_ = false, host_pressed_ = false;  // with their own high and low marks
  std::vector<std::string> notes_;
};

struct Score {
  double value;  // throughput: bytes per second, or devices' worth of work; memory: the free share
  double whole;  // memory: bytes in all
};
// That by which `judge` judges, now; nothing when it is unknown or, for throughput, when there is no load.
std::optional<Score> score(Judge judge, const Observation& seen);

}  // namespace AIRamp::Daemon
