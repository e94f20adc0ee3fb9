#pragma once

#include <string>
#include <vector>

namespace AIRamp::Command {

// `airamp install --system` and `airamp uninstall --system`: puts libairamp.so into every program of the machine,
// through /etc/ld.so.preload, or takes it out. Returns an exit code.
int install(const std::string& library, const std::vector<std::string>& arguments, bool remove);

}  // namespace AIRamp::Command
