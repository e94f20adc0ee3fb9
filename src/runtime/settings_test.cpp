#include "runtime/settings.hpp"

#include <gtest/gtest.h>

namespace ai_vmm {
namespace {

TEST(Settings, FillOnlyWhatTheCallerLeavesOpen) {
  std::map<std::string, std::string> environment = {{"AI_VMM_BACKEND", "reference"},
                                                    {"AI_VMM_THREADS", "3"},
                                                    {"AI_VMM_ALLOW_REFERENCE", "off"},
                                                    {"AI_VMM_DISABLED_PASSES", "a, b"}};
  auto config = Config::load(
      [&](const std::string& name) -> std::optional<std::string> {
        auto it = environment.find(name);
        return it == environment.end() ? std::nullopt : std::optional(it->second);
      },
      {});
  ASSERT_TRUE(config.ok()) << config.status().message();

  DeployOptions open = with_settings({}, *config);
  EXPECT_EQ(open.backend, "reference");
  EXPECT_EQ(open.threads, 3);
  EXPECT_EQ(open.allow_reference, false);
  EXPECT_EQ(open.copy_weights, false);
  EXPECT_GT(open.memory_limit, 0);
  EXPECT_GT(open.tune_budget_ms, 0);
  EXPECT_EQ(open.disabled_passes, (std::vector<std::string>{"a", "b"}));

  DeployOptions given;
  given.backend = "auto";
  given.threads = 1;
  given.allow_reference = true;
  given.memory_limit = 5;
  given = with_settings(given, *config);
  EXPECT_EQ(given.backend, "");
  EXPECT_EQ(given.threads, 1);
  EXPECT_EQ(given.allow_reference, true);
  EXPECT_EQ(given.memory_limit, 5);
}

}  // namespace
}  // namespace ai_vmm
