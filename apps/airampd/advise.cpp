#include "advise.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "models.hpp"

namespace AIRamp::Daemon {

namespace {

// What a piece of a copy costs besides its bytes: a submission and a completion. Order of magnitude of drivers.
constexpr double kPieceSeconds = 10e-6;
// The copy for which pieces are chosen.
constexpr double kTypicalCopy = 64.0 * (1 << 20);
constexpr double kBusyLoad = 0.05, kBusLoad = 1e6;  // below both, there is no load to judge by
// A device counts as full above the first mark until it falls below the second; pressure on the host likewise.
constexpr double kDeviceFull = 0.92, kDeviceRoomy = 0.75;
constexpr double kHostPressed = 0.10, kHostCalm = 0.01, kHostShort = 0.05, kHostRoomy = 0.10;
constexpr int kFewestRanks = 2;  // with which compression saves least

std::string text(const char* format, auto... args) {
  char out[400];
  std::snprintf(out, sizeof out, format, args...);
  return out;
}
double mib(double bytes) { return bytes / (1 << 20); }
int64_t within(Key key, double value) {
  return int64_t(std::clamp(value, double(row(key).least), double(row(key).most)));
}

std::optional<double> used_share(const ai_vmm::telemetry::DeviceSample& d) {
  if (!d.memory_total.known() || !d.memory_used.known() || d.memory_total.value() <= 0) return {};
  return d.memory_used.value() / d.memory_total.value();
}

// The device with the largest used share of all that say.
const ai_vmm::telemetry::DeviceSample* fullest(const Observation& seen) {
  const ai_vmm::telemetry::DeviceSample* most = nullptr;
  for (const auto& d : seen.devices)
    if (auto share = used_share(d); share && (!most || *share > *used_share(*most))) most = &d;
  return most;
}

}  // namespace

void WindowExtreme::push(int64_t now_ns, const Reading& reading) {
  while (!kept_.empty() && kept_.front().first < now_ns - window_ns_) kept_.pop_front();
  if (!reading.known()) return;
  double v = reading.value();
  while (!kept_.empty() && (largest_ ? kept_.back().second <= v : kept_.back().second >= v)) kept_.pop_back();
  kept_.emplace_back(now_ns, v);
}

Reading WindowExtreme::value() const {
  return kept_.empty() ? Reading::unknown("nothing was seen in the window") : Reading(kept_.front().second);
}

std::optional<Score> score(Judge judge, const Observation& seen) {
  switch (judge) {
    case Judge::none: return {};
    case Judge::throughput: {
      double bytes = 0, busy = 0;
      bool has_bytes = false, has_busy = false;
      for (const auto& d : seen.devices) {
        if (d.link_received.known() && d.link_sent.known())
          has_bytes = true, bytes += d.link_received.value() + d.link_sent.value();
        if (d.busy.known()) has_busy = true, busy += d.busy.value();
      }
      if (has_bytes && bytes >= kBusLoad) return Score{bytes, 0};
      if (!has_bytes && has_busy && busy >= kBusyLoad) return Score{busy, 0};
      return {};
    }
    case Judge::device_memory: {
      const auto* d = fullest(seen);
      if (!d) return {};
      return Score{1 - *used_share(*d), d->memory_total.value()};
    }
    case Judge::host_memory: {
      const auto& m = seen.memory;
      if (!m.total.known() || !m.available.known() || m.total.value() <= 0) return {};
      return Score{m.available.value() / m.total.value(), m.total.value()};
    }
  }
  return {};
}

std::vector<Target> Adviser::advise(const Observation& seen, const Settings& now) {
  std::vector<Target> out;
  notes_.clear();

  // Pieces of copies, by the slowest bus of all devices.
  Reading bus = Reading::unknown("no device says what its bus carries");
  for (const auto& d : seen.devices)
    if (d.link_capacity.known() && (!bus.known() || d.link_capacity.value() < bus.value())) bus = d.link_capacity;
  if (bus.known()) {
    double c = best_chunk(kTypicalCopy, bus.value(), kPieceSeconds);
    std::string reason =
        text("pieces of %.2f MiB are best for copies of %.0f MiB over a bus of %.1f GB/s, at %.0f us a piece", mib(c),
             mib(kTypicalCopy), bus.value() * 1e-9, kPieceSeconds * 1e6);
    notes_.push_back("Copies: " + reason + ".");
    out.push_back(
        {Key::OCL_CHUNK_BYTES, within(Key::OCL_CHUNK_BYTES, double(power_of_two_near(c))), reason, Judge::throughput});
    out.push_back(
        {Key::PIN_SLOT_BYTES, within(Key::PIN_SLOT_BYTES, double(power_of_two_near(c))), reason, Judge::throughput});
  } else {
    notes_.push_back("Copies: unknown; " + bus.why() + ".");
  }

  // Device memory: the pool may keep a quarter of the smallest device; it halves while one is full, and doubles again
  // while all are roomy.
  if (const auto* full = fullest(seen)) {
    double used = *used_share(*full);
    double smallest = 0;
    for (const auto& d : seen.devices)
      if (used_share(d) && (smallest == 0 || d.memory_total.value() < smallest)) smallest = d.memory_total.value();
    device_full_ = used > (device_full_ ? kDeviceRoomy : kDeviceFull);
    double limit = double(power_of_two_near(smallest / 4));
    auto current = double(now[Key::POOL_MAX_BYTES]);
    constexpr double kFloor = 64.0 * (1 << 20);
    std::string state = text("the fullest device has %.0f %% of its memory in use", used * 100);
    notes_.push_back("Device memory: " + state + (device_full_ ? ", which is too much." : "."));
    // Between the marks it stays as it is.
    double pool = current > limit       ? limit
                  : used > kDeviceFull  ? (current / 2 < kFloor ? 0 : current / 2)
                  : used < kDeviceRoomy ? std::min(limit, std::max(current * 2, kFloor))
                                        : current;
    out.push_back({Key::POOL_MAX_BYTES, within(Key::POOL_MAX_BYTES, pool), state, Judge::device_memory});
    out.push_back(
        {Key::POOL_TTL_MS, device_full_ ? 1000 : row(Key::POOL_TTL_MS).fallback, state, Judge::device_memory});
    out.push_back(
        {Key::PREWARM_PERMILLE, device_full_ ? 0 : row(Key::PREWARM_PERMILLE).fallback, state, Judge::device_memory});
  } else {
    notes_.push_back("Device memory: unknown.");
  }

  // Host memory: pinned memory cannot be swapped, so that it goes first.
  if (seen.memory.total.known() && seen.memory.available.known() && seen.memory.total.value() > 0) {
    double share = seen.memory.available.value() / seen.memory.total.value();
    double stalled = seen.pressure.memory_some.value_or(0);
    host_pressed_ =
        host_pressed_ ? stalled > kHostCalm || share < kHostRoomy : stalled > kHostPressed || share < kHostShort;
    auto roomy = double(power_of_two_near(seen.memory.total.value() / 64));
    double pin = std::clamp(roomy, 16.0 * (1 << 20), 1024.0 * (1 << 20));
    std::string state =
        text("%.0f %% of the host's memory is available, and tasks wait for memory %s of the time", share * 100,
             seen.pressure.memory_some.known() ? text("%.1f %%", stalled * 100).c_str() : "an unknown share");
    notes_.push_back("Host memory: " + state + (host_pressed_ ? ", which is pressure." : "."));
    out.push_back(
        {Key::PIN_MAX_BYTES, within(Key::PIN_MAX_BYTES, host_pressed_ ? pin / 4 : pin), state, Judge::host_memory});
    out.push_back({Key::PIN_TTL_MS, host_pressed_ ? 200 : row(Key::PIN_TTL_MS).fallback, state, Judge::host_memory});
  } else {
    notes_.push_back("Host memory: unknown; " + first_known(seen.memory.total, seen.memory.available).why() + ".");
  }

  // The link between machines: what drivers say of the fastest link that is up, or what TCP was seen to deliver.
  Reading link = Reading::unknown("no link says its speed");
  for (const auto& n : seen.links)
    if (n.up && !n.loopback && n.capacity.known() && n.capacity.value() > link.value_or(0)) link = n.capacity;
  rate_.push(seen.now_ns, seen.tcp.delivery_rate);
  round_trip_.push(seen.now_ns, seen.tcp.min_rtt);
  Reading rate = rate_.value(), round_trip = round_trip_.value();
  const char* source = link.known() ? "its driver" : "TCP's delivery rate";
  if (!link.known()) link = rate;
  if (!link.known())
    notes_.push_back("Link: unknown; no driver says a speed, and no TCP connection sent at its full rate.");
  double bdp = 0;
  if (link.known() && round_trip.known()) {
    bdp = bandwidth_delay_bytes(link.value(), round_trip.value());
    notes_.push_back(text("Bandwidth-delay product: %.3g GB/s by %s times a round trip of %.3g us makes %.0f bytes.",
                          link.value() * 1e-9, source, round_trip.value() * 1e6, bdp));
  }
  if (link.known())
    out.push_back({Key::WIRE_LINK_BYTES_PER_S, within(Key::WIRE_LINK_BYTES_PER_S, double(two_digits(link.value()))),
                   std::string("according to ") + source, Judge::none});
  if (seen.pack_rate.known())
    out.push_back({Key::WIRE_PACK_BYTES_PER_S,
                   within(Key::WIRE_PACK_BYTES_PER_S, double(two_digits(seen.pack_rate.value()))),
                   "measured when airampd started, one thread", Judge::none});
  if (round_trip.known())
    out.push_back({Key::WIRE_LATENCY_NS, within(Key::WIRE_LATENCY_NS, double(two_digits(round_trip.value() * 0.5e9))),
                   "half the least round trip of TCP in ten minutes", Judge::none});
  if (link.known() && seen.pack_rate.known()) {
    double latency = round_trip.known() ? round_trip.value() / 2 : 0;
    BreakEven even = break_even(link.value(), seen.pack_rate.value(), latency, kFewestRanks);
    // What is under way all at once takes a round trip, however small it is made.
    double least = std::max(even.bytes, bdp * kFewestRanks);
    std::string reason =
        text("with %d ranks, a link of %.3g GB/s and packing at %.3g GB/s, ", kFewestRanks, link.value() * 1e-9,
             seen.pack_rate.value() * 1e-9) +
        (even.ever ? text("compression pays from %.0f bytes on", least) : std::string("compression never pays"));
    notes_.push_back("Compression: " + reason + ".");
    out.push_back({Key::WIRE_COMPRESS, even.ever ? 1 : 0, reason, Judge::none});
    if (even.ever)
      out.push_back(
          {Key::WIRE_MIN_BYTES,
           std::max(row(Key::WIRE_MIN_BYTES).fallback, within(Key::WIRE_MIN_BYTES, double(power_of_two_above(least)))),
           reason, Judge::none});
  } else if (!seen.pack_rate.known()) {
    notes_.push_back("Compression: unknown; " + seen.pack_rate.why() + ".");
  }
  return out;
}

}  // namespace AIRamp::Daemon
