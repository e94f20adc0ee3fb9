#include "wire_terms.hpp"

#include <stdio.h>

#include "once.hpp"

namespace AIRamp::Interposer {
namespace {

Values advice;

}  // namespace

const char* wire_terms() {
  static Once once;
  static char line[160];
  once.run([] {
    tuning.look_for_daemon();
    tuning.snapshot(&advice);
    if (options.wire == Wire::kAuto && !advice[Key::WIRE_COMPRESS]) {
      set_state(kBf16Wire, State::kOff, "airampd advises against it on this machine");
      say("bf16-wire is off: airampd advises against it on this machine.");
      return;
    }
    if (options.wire_min < 0) options.wire_min = advice[Key::WIRE_MIN_BYTES];
    snprintf(line, sizeof line, "libairamp %s wire=%d mode=%c min=%ld allgather=%d shadow=%d", AIRAMP_VERSION,
             static_cast<int>(options.wire), options.wire_mode, options.wire_min, options.wire_allgather,
             options.shadow);
  });
  return line[0] ? line : nullptr;
}

const Values& wire_advice() { return advice; }

bool wire_pays(double bytes, int ranks, bool gathers, double link_rate, double pack_rate, double latency) {
  constexpr double kMargin = 1.25;
  double saved = bytes * (ranks - 1) / (gathers ? 2 : ranks) / link_rate;
  double cost = bytes * (gathers ? ranks : 1) / pack_rate + latency * 2 * (ranks - 1);
  return saved > kMargin * cost;
}

}  // namespace AIRamp::Interposer
