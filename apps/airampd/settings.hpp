// The values that airampd publishes, and the text in which it and people write them.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "ai_vmm/types.hpp"
#include "interposer/tuning.hpp"

namespace AIRamp::Daemon {

using ai_vmm::Code;
using ai_vmm::Result;
using ai_vmm::Status;
using Interposer::Key;
using Interposer::kKeyCount;
using Interposer::kKeys;
using Interposer::row;

struct Settings {
  Interposer::Values values = Interposer::fallbacks();
  // Set by hand: the control loop leaves these keys alone until they are set to `auto`.
  std::array<bool, size_t(kKeyCount)> held{};

  int64_t operator[](Key key) const { return values[key]; }
  bool is_held(Key key) const { return held[size_t(key)]; }
  bool operator==(const Settings& o) const {
    for (int i = 0; i < kKeyCount; ++i)
      if (values.of[i] != o.values.of[i]) return false;
    return held == o.held;
  }
};

// The canonical text, as Interposer::parse_tuning reads it and people may edit it.
std::string render(const Settings& settings, uint64_t generation);

// A person's version of that text: `NAME = VALUE`, where the value may carry a unit ("4MiB", "2s", "50ms") or be
// `auto`. A key whose value was changed, or that is marked `held`, is held from then on; `auto`, or a removed line,
// releases it (its value stays until the control loop changes it). What the checksum and the generation say does not
// matter, but a text that was cut off is refused. All that is wrong is listed in one failure.
Result<Settings> parse_edit(std::string_view text, const Settings& current);

Result<Key> key_named(std::string_view name);  // with the nearest name in the failure
// "4194304" or "4MiB" within the key's bounds.
Result<int64_t> parse_value(Key key, std::string_view text);
std::string value_text(Key key, int64_t value);  // "4 MiB", "2000 ms", "off"

}  // namespace AIRamp::Daemon
