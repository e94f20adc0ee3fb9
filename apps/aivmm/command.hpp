// What a subcommand is: operands and options stated once, read by the parser, the help texts and shell completion.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ai_vmm/types.hpp"
#include "base/config.hpp"

namespace ai_vmm::cli {

enum Exit : int { kSuccess = 0, kFailed = 1, kUsage = 2, kModel = 3 };  // scripts rely on these

struct Option {
  const char* name;   // "--threads"
  const char* value;  // "N"; null: a flag
  const char* doc;
  bool repeats = false;           // may be given again; words of the form NAME=… that follow belong to it as well
  const char* choices = nullptr;  // "f32|bf16": nothing else is accepted
};

class Arguments {
 public:
  std::vector<std::string> operands;
  std::map<std::string, std::vector<std::string>, std::less<>> options;

  bool has(std::string_view option) const { return options.count(std::string(option)) > 0; }
  std::string text(std::string_view option, std::string_view fallback = "") const;  // the last one given
  std::vector<std::string> all(std::string_view option) const;
  // The value as a whole number in [least, most].
  Result<int64_t> integer(std::string_view option, int64_t fallback, int64_t least, int64_t most) const;
};

struct Command {
  const char* name;
  const char* operands;  // "MODEL", "[NAME]", or ""
  size_t least, most;    // how many operands
  const char* summary;   // one line, without a full stop
  const char* details;   // paragraphs and examples for the help text
  std::span<const Option> options;
  int (*run)(const Arguments&);
};

extern const Command kRun, kInspect, kDevices, kPluginCheck, kOps, kConfig, kCompletion, kHelp;
std::span<const Command* const> commands();

Result<Arguments> parse(const Command& command, std::span<const std::string> words);
std::string overview();
std::string help(const Command& command);

// The settings, with options of the same name (`--memory-limit` is memory_limit) on top. Sets the log level.
Result<Config> configure(const Arguments& arguments);

// Prints the failure on stderr and returns `exit`.
int complain(const Status& status, Exit exit);

}  // namespace ai_vmm::cli
