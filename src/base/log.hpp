// One line a message on stderr. The level is the setting `log_level`.
#pragma once

#include <string>
#include <string_view>

namespace ai_vmm {

enum class LogLevel : int { error, warning, info, debug };

void set_log_level(LogLevel level);
// False when the name is none of error, warning, info, debug.
bool set_log_level(std::string_view name);
bool log_enabled(LogLevel level);
// Line ends in `message` become spaces, so that a message stays one line. Thread-safe; lines do not mix.
void log(LogLevel level, std::string_view message);

}  // namespace ai_vmm
