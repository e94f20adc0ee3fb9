#include "gpu/cache.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace ai_vmm::gpu {
namespace {

namespace fs = std::filesystem;

class Cache : public testing::Test {
 protected:
  void SetUp() override { folder_ = fs::temp_directory_path() / ("gpu_cache_" + std::to_string(getpid())); }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path only_file() const { return fs::directory_iterator(folder_)->path(); }
  fs::path folder_;
};

const std::string kBinary = "12345";

TEST_F(Cache, WhatIsWrittenIsRead) {
  EXPECT_FALSE(read_binary(folder_, 7));
  write_binary(folder_, 7, kBinary);
  EXPECT_EQ(read_binary(folder_, 7), kBinary);
  EXPECT_FALSE(read_binary(folder_, 8));
}

TEST_F(Cache, DamagedFilesAreRemoved) {
  for (int kind = 0; kind < 3; ++kind) {
    write_binary(folder_, 7, kBinary);
    if (kind == 0) {
      fs::resize_file(only_file(), fs::file_size(only_file()) - 1);  // cut short
    } else {
      std::fstream file(only_file(), std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(kind == 1 ? 0 : -1, kind == 1 ? std::ios::beg : std::ios::end);  // the header, the binary
      file.put(99);
    }
    EXPECT_FALSE(read_binary(folder_, 7)) << kind;
    EXPECT_TRUE(fs::is_empty(folder_)) << kind;
  }
}

TEST_F(Cache, AFileOfAnotherKeyIsNotTaken) {
  write_binary(folder_, 7, kBinary);
  fs::path wrong = folder_ / "0000000000000009.bin";
  fs::rename(only_file(), wrong);
  EXPECT_FALSE(read_binary(folder_, 9));
}

TEST_F(Cache, AFolderThatCannotBeIsNoFailure) {
  write_binary("/proc/nowhere", 7, kBinary);
  EXPECT_FALSE(read_binary("/proc/nowhere", 7));
  EXPECT_FALSE(read_binary("", 7));
}

}  // namespace
}  // namespace ai_vmm::gpu
