// What airampd shows: for people (--explain, --status) and for Prometheus.
#pragma once

#include <string>
#include <vector>

#include "control.hpp"

namespace AIRamp::Daemon {

// Every reading, or why it is unknown.
std::string describe(const Observation& seen, const std::vector<std::string>& absent);
// Every key with its value, where that comes from, and what airampd would make of it and why.
std::string describe_keys(const Controller& controller);
// Changes that wait or are watched, and those that ended, latest first.
std::string describe_changes(const Controller& controller);

// The text format of Prometheus, version 0.0.4. Readings that are unknown are left out and counted instead.
struct DaemonFacts {
  int64_t now_ns;  // of the clock of observations
  uint64_t generation, rejected_edits, publish_failures;
};
std::string metrics(const Observation& seen, const Controller& controller, const DaemonFacts& facts);

}  // namespace AIRamp::Daemon
