// The arithmetic behind what airampd proposes: closed forms, so that tests can hold them against pencil and paper.
#pragma once

#include <cstdint>

namespace AIRamp::Daemon {

// Bytes that must be under way to fill a network link: rate (bytes/s) times round-trip time (s). Messages that are
// smaller take no less time when they are halved. What a copy over PCIe is cut into follows from `best_chunk`.
double bandwidth_delay_bytes(double rate, double round_trip);

// A transfer of `total` bytes at `rate` bytes/s whose pieces each cost `overhead` seconds on top, and which lets the
// next stage start after the first piece, takes total/rate + overhead·total/c + c/rate with pieces of c bytes. This is
// the c with the least time, sqrt(total · overhead · rate), and that time.
double best_chunk(double total, double rate, double overhead);
double chunked_seconds(double total, double rate, double overhead, double chunk);

// Compressing an allreduce of S bytes of float32 among N ranks saves (N-1)/N · S / link seconds on the wire, since half
// of 2(N-1)/N · S stays at home, and costs S / pack seconds of rounding and widening plus `latency` seconds for the
// second call.
struct BreakEven {
  bool ever = false;  // false: packing is slower than the wire time that it saves, at any size
  double bytes = 0;   // from this payload on it pays
};
BreakEven break_even(double link_rate, double pack_rate, double latency, int ranks);
double compressed_gain_seconds(double bytes, double link_rate, double pack_rate, double latency, int ranks);

int64_t power_of_two_near(double value);   // the nearest on a logarithmic scale; 1 for values below 1
int64_t power_of_two_above(double value);  // the least that is not below
int64_t two_digits(double value);          // rounded to two significant decimal digits

}  // namespace AIRamp::Daemon
