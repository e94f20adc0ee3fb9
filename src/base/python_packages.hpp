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

}  // namespace ai_vmm
