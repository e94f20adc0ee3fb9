#include "live_table.hpp"

#include <gtest/gtest.h>

#include <random>
#include <unordered_map>

namespace AIRamp::Interposer {
namespace {

struct Entry {
  std::uintptr_t key;
  int value;
};

TEST(LiveTable, IsAMap) {
  static LiveTable<Entry, 256> table;
  std::unordered_map<std::uintptr_t, int> model;
  std::mt19937 random(1);
  for (int i = 0; i < 200000; i++) {
    std::uintptr_t key = (random() % 300 + 1) * 4096;
    if (random() % 2) {
      bool fits = model.count(key) || model.size() < 128;
      table.add({key, i});
      if (fits) model[key] = i;
    } else if (Entry* found = table.find(key)) {
      table.remove(found);
      ASSERT_EQ(model.erase(key), 1u);
    }
    std::uintptr_t probe = (random() % 300 + 1) * 4096;
    Entry* found = table.find(probe);
    auto expected = model.find(probe);
    ASSERT_EQ(found != nullptr, expected != model.end());
    ASSERT_TRUE(!found || found->value == expected->second);
  }
}

}  // namespace
}  // namespace AIRamp::Interposer
