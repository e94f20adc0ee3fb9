#include "gpu/testing/kernel_device.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "ai_vmm/compute_backend.hpp"
#include "backends/opencl/driver.hpp"

namespace ai_vmm {

namespace {
const AiVmmHost host = backend::make<AiVmmHost>();
}

std::vector<bool> kernel_kinds() { return {false, true}; }

std::shared_ptr<gpu::Driver> kernel_device(bool wide) {
  static std::shared_ptr<gpu::Driver> drivers[2];
  auto& d = drivers[wide];
  if (!d) {
    auto devices = opencl::find_devices();
    if (!devices.ok() || (*devices).empty()) return nullptr;
    auto opened = opencl::open_driver((*devices)[0], &host, wide);
    if (opened.ok()) d = *opened;
  }
  return d;
}

namespace {
// Each turn is a new process as far as the driver knows.
TEST(SecondStart, ProgramsOfTheFirstAreTakenWhateverTheSet) {
  auto devices = opencl::find_devices();
  ASSERT_TRUE(devices.ok() && !(*devices).empty());
  const std::string folder = testing::TempDir() + "opencl_second_start_" + std::to_string(getpid());
  const char* before = std::getenv("XDG_CACHE_HOME");
  const std::string kept = before ? before : "";
  setenv("XDG_CACHE_HOME", folder.c_str(), 1);
  auto kernel = [](const std::string& name) {
    return gpu::Source{name, "KERNEL void " + name + "(GLOBAL float* x) { x[GID0] = 1.0f; }"};
  };
  const std::vector<gpu::Source> sets[] = {{kernel("a"), kernel("b")}, {kernel("b")}, {kernel("b"), kernel("c")}};
  std::vector<int64_t> compiled;
  for (const auto& set : sets) {
    auto opened = opencl::open_driver((*devices)[0], &host, true);
    ASSERT_TRUE(opened.ok());
    ASSERT_TRUE((*opened)->load(set).ok());
    for (const gpu::Source& s : set) EXPECT_TRUE((*opened)->call(s.name).ok()) << s.name;
    compiled.push_back((*opened)->compilations());
  }
  before ? setenv("XDG_CACHE_HOME", kept.c_str(), 1) : unsetenv("XDG_CACHE_HOME");
  std::filesystem::remove_all(folder);
  EXPECT_EQ(compiled, (std::vector<int64_t>{2, 0, 1}));
}

}  // namespace
}  // namespace ai_vmm
