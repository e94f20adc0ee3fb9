#include "models.hpp"

#include <algorithm>
#include <cmath>

namespace AIRamp::Daemon {

double bandwidth_delay_bytes(double rate, double round_trip) { return rate * round_trip; }

double best_chunk(double total, double rate, double overhead) { return std::sqrt(total * overhead * rate); }

double chunked_seconds(double total, double rate, double overhead, double chunk) {
  return total / rate + overhead * total / chunk + std::min(chunk, total) / rate;
}

double compressed_gain_seconds(double bytes, double link_rate, double pack_rate, double latency, int ranks) {
  return bytes * ((1 - 1.0 / ranks) / link_rate - 1 / pack_rate) - latency;
}

BreakEven break_even(double link_rate, double pack_rate, double latency, int ranks) {
  double per_byte = (1 - 1.0 / ranks) / link_rate - 1 / pack_rate;
  if (!(per_byte > 0)) return {};
  return {true, latency / per_byte};
}

namespace {
constexpr double kLargest = 0x1p62;
}

int64_t power_of_two_near(double value) {
  if (!(value > 1)) return 1;
  return int64_t(1) << int(std::lround(std::log2(std::min(value, kLargest))));
}

int64_t power_of_two_above(double value) {
  if (!(value > 1)) return 1;
  return int64_t(1) << int(std::ceil(std::log2(std::min(value, kLargest))));
}

int64_t two_digits(double value) {
  if (!(value >= 1)) return 0;
  value = std::min(value, kLargest);
  double unit = std::pow(10, std::max(0.0, std::floor(std::log10(value)) - 1));
  return int64_t(std::round(value / unit) * unit);
}

}  // namespace AIRamp::Daemon
