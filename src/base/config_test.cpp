#include "base/config.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "base/processors.hpp"
#include "base/threads.hpp"

namespace ai_vmm {
namespace {

Result<Config> load(const std::map<std::string, std::string>& environment) {
  std::vector<std::string> variables;
  for (const auto& [key, value] : environment)
    if (key.rfind("AI_VMM_", 0) == 0) variables.push_back(key);
  return Config::load(
      [&](const std::string& name) -> std::optional<std::string> {
        auto it = environment.find(name);
        return it == environment.end() ? std::nullopt : std::optional(it->second);
      },
      variables);
}

std::string file(const std::string& text) {
  std::string path = testing::TempDir() + "config_" + std::to_string(getpid()) + ".toml";
  std::ofstream(path) << text;
  return path;
}

TEST(Config, ProfileIsBelowFileBelowEnvironmentBelowApiBelowCommandLine) {
  auto none = load({});
  ASSERT_TRUE(none.ok()) << none.status().message();
  EXPECT_EQ(none->integer("threads"), available_threads());
  EXPECT_EQ(none->value("threads").source, Config::Source::profile);
  EXPECT_EQ(none->value("backend").source, Config::Source::fallback);

  std::string path = file("# comment\nthreads = 3  # three\nbackend = \"cpu\"\n\nlog_level=info\n");
  auto config = load({{"AI_VMM_CONFIG", path}, {"AI_VMM_BACKEND", "reference"}});
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->integer("threads"), 3);
  EXPECT_EQ(config->value("threads").origin, path + ":2");
  EXPECT_EQ(config->text("backend"), "reference");
  EXPECT_EQ(config->value("backend").source, Config::Source::environment);

  ASSERT_TRUE(config->set("threads", "5", Config::Source::command_line, "--threads").ok());
  ASSERT_TRUE(config->set("threads", "4", Config::Source::api, "DeployOptions").ok());
  EXPECT_EQ(config->integer("threads"), 5);
}

TEST(Config, UnknownKeysNameTheNearest) {
  EXPECT_NE(load({{"AI_VMM_THREDS", "2"}}).status().message().find("AI_VMM_THREADS"), std::string::npos);
  std::string path = file("memory_limt = 5\n");
  auto bad = load({{"AI_VMM_CONFIG", path}});
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.status().message().find("memory_limit"), std::string::npos) << bad.status().message();
  EXPECT_NE(bad.status().message().find(path + ":1"), std::string::npos) << bad.status().message();
  EXPECT_FALSE(load({{"AI_VMM_CONFIG", "/nonexistent/file"}}).ok());
}

TEST(Config, ValuesAreChecked) {
  for (auto [key, value] : {std::pair("AI_VMM_THREADS", "0"),
                            {"AI_VMM_THREADS", "two"},
                            {"AI_VMM_THREADS", "5000"},
                            {"AI_VMM_PRECISION", "f3"},
                            {"AI_VMM_COPY_WEIGHTS", "maybe"},
                            {"AI_VMM_MEMORY_LIMIT", "-1"},
                            {"AI_VMM_MEMORY_LIMIT", "0"}})
    EXPECT_EQ(load({{key, value}}).status().code(), Code::invalid_argument) << key << " " << value;
  EXPECT_TRUE(load({{"AI_VMM_COPY_WEIGHTS", "on"}})->boolean("copy_weights"));
  EXPECT_FALSE(load({{"AI_VMM_CONFIG", file("backend = \"cpu\n")}}).ok());
  EXPECT_FALSE(load({{"AI_VMM_CONFIG", file("backend\n")}}).ok());
}

TEST(Config, EveryRowIsValidByItself) {
  auto config = load({});
  ASSERT_TRUE(config.ok());
  for (const Setting& s : settings()) {
    std::string text = config->text(s.name);
    EXPECT_TRUE(config->set(s.name, text, Config::Source::api, "").ok()) << s.name;
    EXPECT_EQ(config->text(s.name), text);
    EXPECT_EQ(std::string(s.doc).back(), '.') << s.name;
  }
}

TEST(ParseBytes, SuffixesAndShares) {
  EXPECT_EQ(*parse_bytes("1500000", 0), 1500000);
  EXPECT_EQ(*parse_bytes("512M", 0), int64_t(512) << 20);
  EXPECT_EQ(*parse_bytes("2GiB", 0), int64_t(2) << 30);
  EXPECT_EQ(*parse_bytes("2 GB", 0), 2'000'000'000);
  EXPECT_EQ(*parse_bytes("1.5k", 0), 1536);
  EXPECT_EQ(*parse_bytes("50%", 1000), 500);
  for (const char* bad : {"", "x", "12Q", "-1", "1e300", "nan", "5 GiBs"})
    EXPECT_FALSE(parse_bytes(bad, 1).ok()) << bad;
}

TEST(Processors, AtLeastOne) {
  EXPECT_GE(available_threads(), 1);
  auto facts = processor_facts();
  EXPECT_GE(facts.logical, 1);
  EXPECT_GT(facts.memory_bytes, 0);
}

}  // namespace
}  // namespace ai_vmm
