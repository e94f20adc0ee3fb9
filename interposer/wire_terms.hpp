#pragma once

#include "library.hpp"

namespace AIRamp::Interposer {

inline bool wire_wanted() { return options.wire != Wire::kOff || options.shadow; }

// What all who compress together must have in common, as one line; it includes what airampd advises, which is read
// once, by the first call. nullptr, and said why, if airampd advises against compressing.
const char* wire_terms();

// What airampd advised then. Ranks on other machines have other advice: what follows from it is agreed again, for each
// communicator.
const Values& wire_advice();

// Whether half the bytes save more time than rounding costs, with a margin for what the model leaves out. `bytes` are
// what one of `ranks` contributes to a sum or a gather; rates are agreed ones, in bytes a second, and latency that of a
// message in seconds: every rank comes to the same answer.
bool wire_pays(double bytes, int ranks, bool gathers, double link_rate, double pack_rate, double latency);

}  // namespace AIRamp::Interposer
