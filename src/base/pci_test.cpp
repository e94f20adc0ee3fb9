#include "base/pci.hpp"

#include <gtest/gtest.h>

namespace ai_vmm {
namespace {

std::string normal(std::string_view text) {
  auto a = PciAddress::parse(text);
  return a ? a->text() : "none";
}

TEST(Pci, OneSpellingForAllSources) {
  EXPECT_EQ(normal("0000:3b:00.0"), "0000:3b:00.0");
  EXPECT_EQ(normal("00000000:3B:00.0"), "0000:3b:00.0") << "NVML's spelling";
  EXPECT_EQ(normal("3b:1f.7"), "0000:3b:1f.7");
  EXPECT_EQ(normal("10000:e1:00.0"), "10000:e1:00.0") << "a domain behind a volume management device";
  EXPECT_EQ(resource_name(*PciAddress::parse("00000000:3B:00.0")), "pci:0000:3b:00.0");
}

TEST(Pci, RefusesWhatIsNoAddress) {
  for (const char* text :
       {"", ".", ":", ":.", "3b", "3b:00", "0000:3b:20.0", "0000:3b:00.8", "0000:100:00.0", "x:3b:00.0",
        "0000:3b:00.0 ", "-1:3b:00.0", "123456789:3b:00.0", "0000:3b:00.", "::.", "0:0:0:0.0"})
    EXPECT_EQ(normal(text), "none") << text;
  EXPECT_FALSE(PciAddress::of(0, -1, 0, 0));
  EXPECT_FALSE(PciAddress::of(0, 0, 32, 0));
}

}  // namespace
}  // namespace ai_vmm
