#include "base/library.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace ai_vmm {
namespace {

struct Maths : Library {
  Symbol<double(double)> cos{this, "cos"};
  Symbol<int()> newer{this, "not_in_libm", optional};
};

TEST(Library, BindsSymbolsAndLeavesOptionalOnesNull) {
  Maths maths;
  ASSERT_TRUE(maths.load({"libnowhere.so.7", "libm.so.6"}).ok());
  EXPECT_EQ(maths.cos(0), 1);
  EXPECT_FALSE(maths.newer);
  EXPECT_NE(maths.path().find("libm.so.6"), std::string::npos);
  EXPECT_TRUE(Library::in_process("libm.so"));
  EXPECT_FALSE(Library::in_process("libnowhere"));
}

TEST(Library, SaysWhyThereIsNone) {
  Maths absent;
  Status s = absent.load({"libnowhere.so.7", "libnowhere.so"});
  EXPECT_EQ(s.code(), Code::not_found);
  EXPECT_EQ(s.message(), "libnowhere.so.7 and its other versions are not on this machine.");
  EXPECT_FALSE(absent.loaded());

  struct Needy : Library {
    Symbol<int()> missing{this, "not_in_libm"};
  } needy;
  s = needy.load({"libm.so.6"});
  EXPECT_EQ(s.code(), Code::failed_precondition);
  EXPECT_NE(s.message().find("lacks the symbol not_in_libm"), std::string::npos) << s.message();
  EXPECT_FALSE(needy.loaded());

  auto folder = std::filesystem::temp_directory_path() / ("library_test." + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "libbroken.so.1") << "not a library";
  Maths broken;
  s = broken.load({"libbroken.so.1"}, folder);
  EXPECT_EQ(s.code(), Code::unavailable) << s.message();
  EXPECT_EQ(broken.load({"libm.so.6"}, folder).code(), Code::not_found) << "the folder is the only place";
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace ai_vmm
