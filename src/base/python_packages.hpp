// Shared libraries inside Python packages: where `pip install openvino` and its like leave them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ai_vmm {

// Files `package_folder`/`prefix`* of the Python installations of this machine, as "openvino/libs" and
// "libopenvino_c.so": the active virtual environment, the user's packages, the system's; the newest version first
// within an installation. No Python is started.
std::vector<std::string> find_in_python_packages(std::string_view package_folder, std::string_view prefix);

// Names to try for a library that such packages carry: `chosen` alone where it is not empty, else `name`, which the
// loader looks for, and then the packages' files of that name in whatever version.
std::vector<std::string> library_candidates(const std::string& chosen, const std::string& name,
                                            std::string_view package_folder);

}  // namespace ai_vmm
