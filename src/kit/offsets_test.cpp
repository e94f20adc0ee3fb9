#include "kit/offsets.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace ai_vmm {
namespace {

int64_t most_alive(const std::vector<Lifetime>& buffers, int64_t alignment) {
  int64_t most = 0;
  for (const Lifetime& at : buffers) {
    int64_t sum = 0;
    for (const Lifetime& b : buffers)
      if (b.first <= at.first && at.first <= b.last) sum += (b.bytes + alignment - 1) / alignment * alignment;
    most = std::max(most, sum);
  }
  return most;
}

TEST(Offsets, NeverOverlapAndStayNearTheLowerBound) {
  std::mt19937 random(3);
  double worst = 1;
  for (int round = 0; round < 300; ++round) {
    std::vector<Lifetime> buffers;
    for (int i = 0, n = 1 + int(random() % 60); i < n; ++i) {
      int32_t first = int32_t(random() % 40);
      buffers.push_back({first, first + int32_t(random() % 8), int64_t(random() % 5000)});
    }
    Offsets r = assign_offsets(buffers);
    for (size_t i = 0; i < buffers.size(); ++i) {
      ASSERT_EQ(r.at[i] % 64, 0);
      ASSERT_LE(r.at[i] + buffers[i].bytes, r.total);
      for (size_t j = 0; j < i; ++j) {
        bool together = buffers[i].first <= buffers[j].last && buffers[j].first <= buffers[i].last;
        bool apart = r.at[i] + buffers[i].bytes <= r.at[j] || r.at[j] + buffers[j].bytes <= r.at[i];
        ASSERT_TRUE(!together || apart || buffers[i].bytes == 0 || buffers[j].bytes == 0);
      }
    }
    if (int64_t bound = most_alive(buffers, 64)) worst = std::max(worst, double(r.total) / double(bound));
  }
  EXPECT_LT(worst, 1.5);
}

TEST(Offsets, ReusesMemoryOfDeadBuffers) {
  std::vector<Lifetime> chain;
  for (int i = 0; i < 10; ++i) chain.push_back({i, i + 1, 640});
  EXPECT_EQ(assign_offsets(chain).total, 2 * 640);
}

}  // namespace
}  // namespace ai_vmm
