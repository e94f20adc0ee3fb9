#include "ops/doc.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace ai_vmm {
namespace {

TEST(OpsMarkdown, IsCheckedIn) {
  std::ifstream in(AI_VMM_SOURCE_DIR "/docs/operators.md");
  std::stringstream text;
  text << in.rdbuf();
  EXPECT_TRUE(text.str() == ops_markdown())
      << "docs/operators.md is out of date; write it anew with: build/bin/aivmm ops --markdown > docs/operators.md";
}

}  // namespace
}  // namespace ai_vmm
