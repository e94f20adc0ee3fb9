// Settings: each stated once in the table of config.cpp, with type, unit, default and meaning. A value comes from the
// highest of: default < hardware profile < file < environment < API < command line.
//
// The file is $AI_VMM_CONFIG, or $XDG_CONFIG_HOME/aivmm/config.toml (~/.config without it): lines `name = value`,
// `#` comments, quotes optional. The environment variable of `memory_limit` is AI_VMM_MEMORY_LIMIT.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

struct Setting {
  enum class Kind { text, integer, boolean, bytes, choice };
  const char* name;
  Kind kind;
  const char* unit;      // "" where there is none
  const char* fallback;  // "" in a table row with a hardware profile: the profile always gives a value
  const char* doc;
  const char* choices;                 // Kind::choice: "a|b|c"
  int64_t least = 0;                   // Kind::integer and bytes
  int64_t most = 1'000'000'000;        // Kind::integer
  std::string (*profile)() = nullptr;  // the value that suits this machine
};

std::span<const Setting> settings();
const char* name(Setting::Kind kind);

class Config {
 public:
  enum class Source { fallback, profile, file, environment, api, command_line };
  struct Value {
    std::string text;
    Source source = Source::fallback;
    std::string origin;  // the file and line, the variable, the option
  };
  using Environment = std::function<std::optional<std::string>(const std::string& name)>;

  // Profile, file and environment of this process. Unknown keys and values that do not parse fail, with the nearest
  // name. `variables` lists all AI_VMM_* names that are set.
  static Result<Config> load();
  static Result<Config> load(const Environment& environment, std::span<const std::string> variables);

  // Takes the value unless one from a higher source is there. invalid_argument: unknown name, or not of the kind.
  Status set(std::string_view setting, std::string_view text, Source source, std::string origin);
  const Value& value(std::string_view setting) const;  // CHECKs that the setting exists
  const std::string& text(std::string_view setting) const { return value(setting).text; }
  int64_t integer(std::string_view setting) const;  // also bytes
  bool boolean(std::string_view setting) const;

 private:
  Status read_file(const std::string& path);
  std::map<std::string, Value, std::less<>> values_;
};

const char* name(Config::Source source);

// "1500000", "512M", "2GiB" (powers of 1024: k, M, G, T, Ki, KiB…; of 1000: kB, MB, GB, TB), "50%" of `whole`.
Result<int64_t> parse_bytes(std::string_view text, int64_t whole);

}  // namespace ai_vmm
