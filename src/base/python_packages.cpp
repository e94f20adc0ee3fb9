#include "base/python_packages.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace ai_vmm {

namespace fs = std::filesystem;

namespace {

// Entries of a folder whose name begins so, in falling order; none when there is no such folder.
std::vector<fs::path> entries(const fs::path& folder, std::string_view prefix) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string().starts_with(prefix)) found.push_back(it->path());
  std::sort(found.rbegin(), found.rend());
  return found;
}

std::vector<fs::path> package_roots() {
  std::vector<fs::path> roots;
  auto environment = [](const char* name) -> fs::path {
    const char* value = std::getenv(name);
    return value ? value : "";
  };
  std::vector<fs::path> prefixes = {environment("VIRTUAL_ENV"), environment("CONDA_PREFIX"), "/usr/local", "/usr"};
  if (fs::path home = environment("HOME"); !home.empty()) prefixes.insert(prefixes.begin() + 2, home / ".local");
  for (const fs::path& prefix : prefixes)
    if (!prefix.empty())
      for (const fs::path& python : entries(prefix / "lib", "python3"))
        for (const char* packages : {"site-packages", "dist-packages"}) roots.push_back(python / packages);
  return roots;
}

}  // namespace

std::vector<std::string> find_in_python_packages(std::string_view package_folder, std::string_view prefix) {
  std::vector<std::string> files;
  for (const fs::path& root : package_roots())
    for (const fs::path& file : entries(root / package_folder, prefix)) files.push_back(file.string());
  return files;
}

std::vector<std::string> library_candidates(const std::string& chosen, const std::string& name,
                                            std::string_view package_folder) {
  if (!chosen.empty()) return {chosen};
  std::vector<std::string> files = find_in_python_packages(package_folder, name);
  files.insert(files.begin(), name);
  return files;
}

}  // namespace ai_vmm
