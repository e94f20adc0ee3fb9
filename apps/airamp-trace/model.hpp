// What predictors are worth: replayed against the needs of each step, and inside a model of the pool.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "workloads.hpp"

namespace AIRamp::Trace {

struct Accuracy {
  double hit_rate = 0;    // share of needs that found a predicted block
  double waste_rate = 0;  // share of predicted bytes that no need took
};
// Names of the predictors, ours last.
const std::vector<std::string>& predictor_names();
// Each predictor over the second half of the trace's steps. Steps are the trace's boundaries, or those that the engine
// finds where there are none.
std::vector<Accuracy> compare(const Events& events);
uint64_t count_steps(const Events& events);
// The engine's own sentence after the whole trace.
std::string explanation(const Events& events);

struct PoolPolicy {
  const char* name;
  bool keep_longer = false;  // times to live by the pattern of life
  bool prewarm = false;      // after each trim
};
struct PoolResult {
  uint64_t requests = 0;
  uint64_t driver_calls = 0;      // requests that found nothing in the cache
  uint64_t first_step_calls = 0;  // of those, in the first step after a trim
  uint64_t prewarmed = 0;
  double prewarmed_bytes = 0, unused_bytes = 0;
  double idle_byte_seconds = 0;  // bytes in the cache times how long they lay there
};
// A pool that keeps freed blocks for `time_to_live_ns` and is emptied after every `trim_steps` steps (0: never), as
// memory pressure does.
PoolResult simulate(const Events& events, const PoolPolicy& policy, int64_t time_to_live_ns, int trim_steps);

}  // namespace AIRamp::Trace
