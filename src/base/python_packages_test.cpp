#include "base/python_packages.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace ai_vmm {
namespace {

namespace fs = std::filesystem;

TEST(PythonPackages, FindsTheNewestInTheActiveEnvironment) {
  fs::path root = fs::path(testing::TempDir()) / "python_packages_test";
  fs::path folder = root / "lib" / "python3.11" / "site-packages" / "engine" / "libs";
  fs::create_directories(folder);
  for (const char* name : {"libengine_c.so.2510", "libengine_c.so.2641", "libother.so"}) std::ofstream(folder / name);
  const char* before = std::getenv("VIRTUAL_ENV");
  std::string saved = before ? before : "";
  setenv("VIRTUAL_ENV", root.c_str(), 1);
  auto found = find_in_python_packages("engine/libs", "libengine_c.so");
  if (before)
    setenv("VIRTUAL_ENV", saved.c_str(), 1);
  else
    unsetenv("VIRTUAL_ENV");
  fs::remove_all(root);
  EXPECT_EQ(found, (std::vector<std::string>{folder / "libengine_c.so.2641", folder / "libengine_c.so.2510"}));
}

TEST(PythonPackages, FindsNothingWhereNothingIs) {
  EXPECT_TRUE(find_in_python_packages("no_such_package/anywhere", "lib").empty());
}

}  // namespace
}  // namespace ai_vmm
