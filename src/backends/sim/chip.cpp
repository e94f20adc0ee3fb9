#include "backends/sim/chip.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/text.hpp"
#include "ops/op.hpp"

namespace ai_vmm::sim {

const char kDefaultChip[] = R"(
chip = Example accelerator
peak.f32 = 10 Tflop/s
peak.f16 = 40 Tflop/s
peak.bf16 = 40 Tflop/s
peak.i8 = 80 Top/s
peak.u8 = 80 Top/s
peak.other = 1 Top/s
bandwidth = 400 GB/s
memory = 8 GiB
launch = 4 us
link.bandwidth = 16 GB/s
link.latency = 2 us
link.peers = true
power.idle = 10 W
power.peak = 75 W
)";

namespace {

Random generator(uint64_t seed) { return Random{seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull}; }

// "16 GB/s", "4 GiB", "2.5 Tflop/s", "30 W", "7": powers of 1000, or of 1024 with an i. Units are only checked.
Result<double> quantity(std::string_view text, std::string_view unit) {
  auto wrong = [&] {
    return Status(Code::invalid_argument,
                  "\"" + std::string(text) + "\" is no quantity; write for instance \"2 G" + std::string(unit) + "\"");
  };
  double n = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || !std::isfinite(n) || n < 0) return wrong();
  std::string_view rest = trim(std::string_view(end, size_t(text.data() + text.size() - end)));
  auto is_unit = [&](std::string_view u) { return u.empty() || u == unit || (unit == "op/s" && u == "flop/s"); };
  if (is_unit(rest)) return n;
  size_t power = std::string_view("kMGTP").find(rest[0] == 'K' ? 'k' : rest[0]);
  if (power == std::string_view::npos) return wrong();
  rest.remove_prefix(1);
  double base = 1000;
  if (rest.starts_with("i")) {
    base = 1024;
    rest.remove_prefix(1);
  }
  if (!is_unit(rest)) return wrong();
  return n * std::pow(base, double(power + 1));
}

// "5 us" in nanoseconds.
Result<double> nanoseconds(std::string_view text) {
  double n = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  std::string_view unit = trim(std::string_view(end, size_t(text.data() + text.size() - end)));
  for (auto [name, factor] : {std::pair("ns", 1.0), {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}})
    if (error == std::errc() && n >= 0 && std::isfinite(n) && unit == name) return n * factor;
  return Status(Code::invalid_argument, "\"" + std::string(text) + "\" is no time; write for instance \"5 us\"");
}

std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> list;
  for (std::string_view w : split(text, ' '))
    if (!trim(w).empty()) list.push_back(trim(w));
  return list;
}

Result<Failure> parse_failure(std::string_view text) {
  auto wrong = [&](const std::string& what) {
    return Status(Code::invalid_argument,
                  "\"" + std::string(text) + "\" " + what + "; write for instance \"busy every 10 for 5 ms\"");
  };
  static constexpr std::string_view kKinds[] = {"out_of_memory", "busy", "lost", "wrong_result", "hang"};
  auto w = words(text);
  Failure f;
  auto kind = w.empty() ? std::end(kKinds) : std::find(std::begin(kKinds), std::end(kKinds), w[0]);
  if (kind == std::end(kKinds)) return wrong("begins with no kind of failure");
  f.kind = static_cast<Failure::Kind>(kind - std::begin(kKinds));
  for (size_t i = 1; i < w.size(); ++i) {
    if (w[i] == "forever") {
      f.forever = true;
      continue;
    }
    if (i + 1 >= w.size()) return wrong("ends too early");
    std::string_view key = w[i], value = w[++i];
    if (key == "for") {
      std::string time(value);
      if (i + 1 < w.size() && !value.empty() && std::isdigit(static_cast<unsigned char>(value.back())))
        time += std::string(w[++i]);
      f.for_ns = int64_t(AI_VMM_TAKE(nanoseconds(time)));
      continue;
    }
    double n = 0;
    auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
    if (error != std::errc() || end != value.data() + value.size() || n < 0 || n > 1e15)
      return wrong("has no number after " + std::string(key));
    if (key == "at") {
      f.first = f.last = int64_t(n);
    } else if (key == "from") {
      f.first = int64_t(n);
      f.last = INT64_MAX;
    } else if (key == "to") {
      f.last = int64_t(n);
    } else if (key == "every") {
      f.every = int64_t(n);
    } else if (key == "chance") {
      f.chance = n;
    } else {
      return wrong("has an unknown word " + std::string(key));
    }
  }
  if (f.last < f.first && f.every == 0 && f.chance == 0) return wrong("never happens");
  return f;
}

Status set(Chip& c, std::string_view key, std::string_view value) {
  auto number = [&](double& to, std::string_view unit) -> Status {
    to = AI_VMM_TAKE(quantity(value, unit));
    return {};
  };
  if (key.starts_with("peak.")) {
    std::string_view type = key.substr(5);
    if (type == "other") return number(c.other_peak, "op/s");
    auto dtype = dtype_from_name(type);
    if (!dtype) return Status(Code::invalid_argument, "\"" + std::string(type) + "\" is no element type");
    return number(c.peak[*dtype], "op/s");
  }
  if (key == "bandwidth") return number(c.bandwidth, "B/s");
  if (key == "link.bandwidth") return number(c.link_bandwidth, "B/s");
  if (key == "power.idle") return number(c.idle_watts, "W");
  if (key == "power.peak") return number(c.peak_watts, "W");
  if (key == "pace") return number(c.pace, "");
  if (key == "memory") {
    double bytes = AI_VMM_TAKE(quantity(value, "B"));
    c.memory = int64_t(std::min(bytes, 0x1p60));
    return {};
  }
  if (key == "launch" || key == "link.latency") {
    (key == "launch" ? c.launch_ns : c.link_ns) = AI_VMM_TAKE(nanoseconds(value));
    return {};
  }
  if (key == "operators" || key == "refuses") {
    for (std::string_view w : words(value)) {
      if (!find_op("", w) && !find_op("com.microsoft", w) && !find_op("ai.onnx.ml", w))
        return Status(Code::invalid_argument, "\"" + std::string(w) + "\" is no operator");
      (key == "operators" ? c.operators : c.refuses).emplace(w);
    }
    return {};
  }
  if (key == "dynamic" || key == "link.peers") {
    if (value != "true" && value != "false")
      return Status(Code::invalid_argument, "\"" + std::string(value) + "\" is neither true nor false");
    (key == "dynamic" ? c.dynamic : c.link_peers) = value == "true";
    return {};
  }
  if (key == "resource") {
    c.resource = value;
    return {};
  }
  if (key == "fail") {
    c.failures.push_back(AI_VMM_TAKE(parse_failure(value)));
    return {};
  }
  static const std::vector<std::string> kKeys = {
      "chip",           "peak.f32",     "peak.other", "bandwidth",  "memory",     "launch",
      "link.bandwidth", "link.latency", "link.peers", "power.idle", "power.peak", "operators",
      "refuses",        "dynamic",      "resource",   "pace",       "fail"};
  std::string near = nearest(key, kKeys);
  return Status(Code::invalid_argument,
                "there is no \"" + std::string(key) + "\"" + (near.empty() ? "" : "; did you mean " + near + "?"));
}

}  // namespace

bool Failure::strikes(int64_t run) const {
  if (every > 0) return run % every == 0;
  if (chance > 0) return generator(uint64_t(run) * 8 + uint64_t(kind)).uniform() < chance;
  return run >= first && run <= last;
}

double Chip::rate(DType type) const {
  auto it = peak.find(type);
  return it == peak.end() ? other_peak : it->second;
}

Result<std::vector<Chip>> parse_chips(std::string_view text) {
  std::vector<Chip> chips;
  int number = 0;
  for (std::string_view line : split(text, '\n')) {
    ++number;
    auto at = [&](const std::string& what) {
      return Status(Code::invalid_argument, "Line " + std::to_string(number) + ": " + what + ".");
    };
    line = trim(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    size_t equals = line.find('=');
    if (equals == line.npos) return at("\"" + std::string(line) + "\" is not of the form name = value");
    std::string_view key = trim(line.substr(0, equals)), value = trim(line.substr(equals + 1));
    if (key == "chip") {
      chips.emplace_back();
      chips.back().name = value;
      continue;
    }
    if (chips.empty()) return at("the first line must be chip = NAME");
    if (Status s = set(chips.back(), key, value); !s.ok()) return at(s.message());
  }
  if (chips.empty()) return Status(Code::invalid_argument, "There is no line chip = NAME.");
  for (const Chip& c : chips)
    if (c.peak.empty() && c.other_peak == 0)
      return Status(Code::invalid_argument, "The chip \"" + c.name + "\" computes nothing: give it a peak.f32.");
  return chips;
}

DType arithmetic(const Node& node, std::span<const Type> inputs, std::span<const Type> outputs) {
  if (node.def->traits & kMovesData) return DType::undefined;
  for (const Type& t : inputs)  // the first input is the operand; conditions and indices are not arithmetic
    if (t.is_tensor() && t.dtype != DType::boolean && t.dtype != DType::undefined) return t.dtype;
  for (const Type& t : outputs)
    if (t.is_tensor() && t.dtype != DType::boolean) return t.dtype;
  return DType::undefined;
}

Work work_of(const Chip& c, const Node& node, std::span<const Type> inputs, std::span<const Type> outputs) {
  Cost cost = cost_of(*node.def, {node, inputs, outputs});
  DType type = arithmetic(node, inputs, outputs);
  double rate = type == DType::undefined ? 0 : c.rate(type);
  Work w;
  w.busy_ns = std::max(rate > 0 ? cost.flops / rate * 1e9 : 0,
                       c.bandwidth > 0 ? (cost.bytes_read + cost.bytes_written) / c.bandwidth * 1e9 : 0);
  w.ns = c.launch_ns + w.busy_ns;
  return w;
}

Work transfer(const Chip& c, double bytes) {
  if (c.link_bandwidth <= 0 || bytes == 0) return {};
  return {c.link_ns + bytes / c.link_bandwidth * 1e9, 0};
}

double joules(const Chip& c, const Work& w) {
  return (c.idle_watts * w.ns + std::max(0.0, c.peak_watts - c.idle_watts) * w.busy_ns) * 1e-9;
}

}  // namespace ai_vmm::sim
