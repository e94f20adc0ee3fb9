#include "settings.hpp"

#include <gtest/gtest.h>

#include <random>

namespace AIRamp::Daemon {
namespace {

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  size_t at = text.find(from);
  EXPECT_NE(at, text.npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Text, WhatIsRenderedReadsBackInTheLibraryAndByHand) {
  Settings s;
  s.values[Key::PIN_TTL_MS] = 123;
  s.held[size_t(Key::PIN_TTL_MS)] = true;
  std::string text = render(s, 42);
  EXPECT_LT(text.size(), Interposer::kMostTuningBytes);
  Interposer::Values v;
  uint64_t generation = 0;
  ASSERT_EQ(Interposer::parse_tuning(text.data(), text.size(), &v, &generation), Interposer::Parse::ok) << text;
  EXPECT_EQ(generation, 42u);
  EXPECT_EQ(v[Key::PIN_TTL_MS], 123);
  auto edit = parse_edit(text, s);
  ASSERT_TRUE(edit.ok()) << edit.status().message();
  EXPECT_TRUE(*edit == s);
}

TEST(Edit, AChangedValueIsHeldUntilItIsSetToAuto) {
  Settings s;
  auto edit = parse_edit(replaced(render(s, 1), "PIN_TTL_MS = 2000", "PIN_TTL_MS = 5s"), s);
  ASSERT_TRUE(edit.ok()) << edit.status().message();
  EXPECT_EQ((*edit)[Key::PIN_TTL_MS], 5000);
  EXPECT_TRUE(edit->is_held(Key::PIN_TTL_MS));
  EXPECT_FALSE(edit->is_held(Key::OCL_CHUNK_BYTES));
  auto released = parse_edit(replaced(render(*edit, 2), "5000 held", "auto"), *edit);
  ASSERT_TRUE(released.ok());
  EXPECT_FALSE(released->is_held(Key::PIN_TTL_MS));
  EXPECT_EQ((*released)[Key::PIN_TTL_MS], 5000) << "the loop decides what comes next";
  auto removed = parse_edit("", *edit);
  ASSERT_TRUE(removed.ok());
  EXPECT_FALSE(removed->is_held(Key::PIN_TTL_MS));
  auto holding = parse_edit("PIN_TTL_MS = 2000 held\n", s);
  ASSERT_TRUE(holding.ok());
  EXPECT_TRUE(holding->is_held(Key::PIN_TTL_MS));
}

TEST(Edit, UnitsAreUnderstoodAndBoundsKept) {
  EXPECT_EQ(*parse_value(Key::OCL_CHUNK_BYTES, "4MiB"), 4 << 20);
  EXPECT_EQ(*parse_value(Key::PIN_TTL_MS, "2min"), 120000);
  EXPECT_EQ(*parse_value(Key::PIN_TTL_MS, "50ms"), 50);
  EXPECT_EQ(*parse_value(Key::WIRE_LATENCY_NS, "20us"), 20000);
  EXPECT_EQ(*parse_value(Key::WIRE_COMPRESS, "1"), 1);
  for (const char* bad : {"", "x", "4 parsecs", "-1", "1e9", "4MiB5", "50%", "99999999999999999999", "1"})
    EXPECT_FALSE(parse_value(Key::OCL_CHUNK_BYTES, bad).ok()) << bad;
  EXPECT_EQ(parse_value(Key::OCL_CHUNK_BYTES, "1").status().message(),
            "OCL_CHUNK_BYTES is 1, but must be from 65536 to 268435456.");
  EXPECT_FALSE(parse_value(Key::WIRE_COMPRESS, "2").ok());
  EXPECT_FALSE(parse_value(Key::PIN_TTL_MS, "9223372036854775807min").ok());
}

TEST(Edit, AllThatIsWrongIsSaidAtOnce) {
  Settings s;
  auto edit = parse_edit("PIN_TTL_M = 5\nOCL_CHUNK_BYTES = tiny\nnonsense\nPOOL_TTL_MS = 1\nPOOL_TTL_MS = 2\n", s);
  ASSERT_FALSE(edit.ok());
  EXPECT_EQ(edit.status().message(),
            "line 1: There is no key \"PIN_TTL_M\"; did you mean PIN_TTL_MS? "
            "line 2: OCL_CHUNK_BYTES is \"tiny\", which is no whole number of bytes. "
            "line 3: \"nonsense\" is not of the form NAME = VALUE. line 5: POOL_TTL_MS stands there twice.");
}

TEST(Edit, ATextThatWasCutOffIsRefusedWhereverItWasCut) {
  Settings s;
  std::string text = replaced(render(s, 1), "PIN_TTL_MS = 2000", "PIN_TTL_MS = 3000");
  size_t first = text.find("AIRAMP_TUNING");
  for (size_t n = first + 1; n + 1 < text.size(); ++n)
    EXPECT_FALSE(parse_edit(text.substr(0, n), s).ok()) << text.substr(0, n);
  EXPECT_TRUE(parse_edit(text, s).ok());
}

TEST(Edit, GarbageNeverGivesAValueOutOfBounds) {
  std::mt19937_64 random(11);
  Settings s;
  std::string good = render(s, 1);
  int accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string text = good;
    for (uint64_t n = random() % 8; n; --n) {
      size_t at = random() % text.size();
      switch (random() % 4) {
        case 0: text[at] = char(random()); break;
        case 1: text.erase(at, random() % 40); break;
        case 2: text.insert(at, good.substr(random() % good.size(), random() % 60)); break;
        default: text[at] = "0123456789=\n# "[random() % 14];
      }
      if (text.empty()) text = "\n";
    }
    auto edit = parse_edit(text, s);
    Interposer::Values v = Interposer::fallbacks();
    uint64_t generation = 0;
    Interposer::parse_tuning(text.data(), text.size(), &v, &generation);
    accepted += edit.ok();
    for (int k = 0; k < kKeyCount; ++k) {
      if (edit.ok()) {
        ASSERT_GE(edit->values.of[k], kKeys[k].least);
        ASSERT_LE(edit->values.of[k], kKeys[k].most);
      }
      ASSERT_EQ(v.of[k], kKeys[k].fallback) << "the checksum fits no changed text";
    }
  }
  EXPECT_GT(accepted, 100);
  EXPECT_LT(accepted, 3900);
}

TEST(Values, AreShownWithTheirUnits) {
  EXPECT_EQ(value_text(Key::OCL_CHUNK_BYTES, 4 << 20), "4 MiB");
  EXPECT_EQ(value_text(Key::PIN_TTL_MS, 2000), "2000 ms");
  EXPECT_EQ(value_text(Key::WIRE_COMPRESS, 1), "yes");
  EXPECT_EQ(value_text(Key::WIRE_LINK_BYTES_PER_S, 0), "unknown");
}

}  // namespace
}  // namespace AIRamp::Daemon
