#include "settings.hpp"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <span>
#include <vector>

#include "base/config.hpp"
#include "base/text.hpp"

namespace AIRamp::Daemon {

using ai_vmm::split;
using ai_vmm::trim;

namespace {
std::string number(int64_t v) { return std::to_string(v); }
// Lines that are airampd's own: what stands there in an edited text does not matter.
bool is_header(std::string_view name) {
  return name == "AIRAMP_TUNING" || name == "KEYS" || name == "GENERATION" || name == "CHECKSUM";
}
}  // namespace

std::string render(const Settings& settings, uint64_t generation) {
  std::string out =
      "# Tuning of programs under libairamp.so, published by airampd. Edit a value and save: airampd checks the text "
      "and\n"
      "# publishes it, and holds what you changed until you set it to `auto`. Units such as 4MiB or 2s are "
      "understood.\n";
  char line[96];
  std::snprintf(line, sizeof line, "AIRAMP_TUNING = %d\nKEYS = %016llx\n", Interposer::kTuningFormat,
                static_cast<unsigned long long>(Interposer::tuning_fingerprint()));
  out += line;
  out += "GENERATION = " + std::to_string(generation) + "\n";
  for (int i = 0; i < kKeyCount; ++i) {
    const auto& k = kKeys[i];
    std::string unit = *k.unit ? std::string(" ") + k.unit : "";
    out += std::string("\n# ") + k.meaning + ".\n# " + number(k.least) + " to " + number(k.most) + unit + ", default " +
           number(k.fallback) + (k.scope == Interposer::Scope::wire ? "; read where all ranks agree" : "") + "\n";
    out += std::string(k.name) + " = " + number(settings.values.of[i]) + (settings.held[size_t(i)] ? " held\n" : "\n");
  }
  std::snprintf(line, sizeof line, "CHECKSUM = %08x\n", Interposer::tuning_checksum(out.data(), out.size()));
  // The checksum covers the blank line too: it is of all before its own line.
  return out + line;
}

Result<Key> key_named(std::string_view name) {
  std::vector<std::string> known;
  for (int i = 0; i < kKeyCount; ++i) {
    if (name == kKeys[i].name) return Key(i);
    known.emplace_back(kKeys[i].name);
  }
  std::string near = ai_vmm::nearest(name, known);
  return Status(Code::invalid_argument,
                "There is no key \"" + std::string(name.substr(0, 60)) + "\"" +
                    (near.empty() ? "; `airampd --help` lists them." : "; did you mean " + near + "?"));
}

Result<int64_t> parse_value(Key key, std::string_view text) {
  const auto& k = row(key);
  std::string_view unit = k.unit;
  auto wrong = [&] {
    return Status(Code::invalid_argument, std::string(k.name) + " is \"" + std::string(text.substr(0, 60)) +
                                              "\", which is no whole number" +
                                              (unit.empty() ? "." : " of " + std::string(unit) + "."));
  };
  int64_t value = 0;
  if (unit == "bytes" || unit == "bytes/s") {
    auto bytes = ai_vmm::parse_bytes(text, 0);
    if (!bytes.ok() || text.find('%') != text.npos) return wrong();
    value = *bytes;
  } else {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    std::string_view suffix(end, size_t(text.data() + text.size() - end));
    if (error != std::errc()) return wrong();
    bool ms = unit == "ms", ns = unit == "ns";
    int64_t scale = suffix.empty() || suffix == unit           ? 1
                    : ms && suffix == "s"                      ? 1000
                    : ms && suffix == "min"                    ? 60'000
                    : ns && (suffix == "us" || suffix == "µs") ? 1000
                    : ns && suffix == "ms"                     ? 1'000'000
                                                               : 0;
    if (scale == 0 || __builtin_mul_overflow(value, scale, &value)) return wrong();
  }
  if (value < k.least || value > k.most)
    return Status(Code::out_of_range, std::string(k.name) + " is " + number(value) + ", but must be from " +
                                          number(k.least) + " to " + number(k.most) + ".");
  return value;
}

std::string value_text(Key key, int64_t value) {
  const auto& k = row(key);
  std::string_view unit = k.unit;
  if (k.type == Interposer::KeyType::flag) return value ? "yes" : "no";
  char text[48];
  if (unit == "bytes") {
    static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB"};
    int at = -1;
    double v = double(value);
    while (v >= 1024 && at < 3) v /= 1024, ++at;
    if (at < 0) return number(value) + " bytes";
    std::snprintf(text, sizeof text, "%.4g %s", v, kUnits[at]);
    return text;
  }
  if (unit == "bytes/s") {
    std::snprintf(text, sizeof text, "%.4g GB/s", double(value) * 1e-9);
    return value ? text : "unknown";
  }
  return number(value) + (unit.empty() ? "" : " " + std::string(unit));
}

Result<Settings> parse_edit(std::string_view text, const Settings& current) {
  std::vector<std::string> problems;
  Settings out = current;
  std::array<bool, size_t(kKeyCount)> stated{};
  int line_number = 0;
  bool starts_as_ours = false, ends_as_ours = false;
  for (std::string_view line : split(text, '\n')) {
    ++line_number;
    line = trim(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    auto problem = [&](const std::string& what) {
      problems.push_back("line " + std::to_string(line_number) + ": " + what);
    };
    size_t equals = line.find('=');
    if (equals == line.npos) {
      problem("\"" + std::string(line.substr(0, 60)) + "\" is not of the form NAME = VALUE.");
      continue;
    }
    std::string_view name = trim(line.substr(0, equals)), value = trim(line.substr(equals + 1));
    if (is_header(name)) {
      starts_as_ours |= name == "AIRAMP_TUNING";
      ends_as_ours |= name == "CHECKSUM";
      continue;
    }
    auto key = key_named(name);
    if (!key.ok()) {
      problem(key.status().message());
      continue;
    }
    auto i = size_t(*key);
    if (stated[i]) problem(std::string(name) + " stands there twice.");
    stated[i] = true;
    bool held = false;
    if (value.ends_with("held")) {
      held = true;
      value = trim(value.substr(0, value.size() - 4));
    }
    if (value == "auto") {
      out.held[i] = false;
      continue;
    }
    auto parsed = parse_value(*key, value);
    if (!parsed.ok()) {
      problem(parsed.status().message());
      continue;
    }
    out.held[i] = held || *parsed != current.values.of[i];
    out.values.of[i] = *parsed;
  }
  for (size_t i = 0; i < size_t(kKeyCount); ++i)
    if (!stated[i]) out.held[i] = false;
  // A text that was cut off could still be a row of good lines, the last with a shorter number than was meant.
  if ((starts_as_ours && !ends_as_ours) || (!text.empty() && text.back() != '\n'))
    problems.emplace_back("The text ends early: its last line is cut off, or CHECKSUM is missing.");
  if (!problems.empty()) return Status(Code::invalid_argument, ai_vmm::join(problems, " "));
  return out;
}

}  // namespace AIRamp::Daemon
