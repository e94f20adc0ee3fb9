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

const StoredProgram kProgram = {{"conv_1", "pool_2"}, "12345"};

bool same(const std::optional<StoredProgram>& a) {
  return a && a->kernels == kProgram.kernels && a->data == kProgram.data;
}

TEST_F(Cache, WhatIsWrittenIsRead) {
  EXPECT_FALSE(read_program(folder_, 3, 7));
  write_program(folder_, 3, 7, kProgram);
  EXPECT_TRUE(same(read_program(folder_, 3, 7)));
  EXPECT_FALSE(read_program(folder_, 3, 8));
  EXPECT_FALSE(read_program(folder_, 4, 7));
}

TEST_F(Cache, ProgramsAreFoundByTheirKernels) {
  EXPECT_TRUE(stored_kernels(folder_, 3).empty());
  write_program(folder_, 3, 7, kProgram);
  write_program(folder_, 3, 8, {{"map_3"}, {}});
  write_program(folder_, 4, 9, kProgram);
  using Found = std::map<uint64_t, std::vector<std::string>>;
  EXPECT_EQ(stored_kernels(folder_, 3), (Found{{7, kProgram.kernels}, {8, {"map_3"}}}));
  EXPECT_EQ(stored_kernels(folder_, 4), (Found{{9, kProgram.kernels}}));
}

TEST_F(Cache, DamagedFilesAreRemoved) {
  for (int kind = 0; kind < 4; ++kind) {
    write_program(folder_, 3, 7, kProgram);
    if (kind == 0) {
      fs::resize_file(only_file(), fs::file_size(only_file()) - 1);  // cut short
    } else {
      std::fstream file(only_file(), std::ios::in | std::ios::out | std::ios::binary);
      // The header, a name, the binary.
      file.seekp(kind == 1 ? 0 : kind == 2 ? -8 : -1, kind == 1 ? std::ios::beg : std::ios::end);
      file.put(99);
    }
    EXPECT_FALSE(read_program(folder_, 3, 7)) << kind;
    EXPECT_TRUE(fs::is_empty(folder_)) << kind;
  }
}

TEST_F(Cache, AFileOfAnotherKeyIsNotTaken) {
  write_program(folder_, 3, 7, kProgram);
  fs::path wrong = folder_ / "0000000000000003-0000000000000009.bin";
  fs::rename(only_file(), wrong);
  EXPECT_TRUE(stored_kernels(folder_, 3).empty());
  EXPECT_FALSE(read_program(folder_, 3, 9));
}

TEST_F(Cache, AFolderThatCannotBeIsNoFailure) {
  write_program("/proc/nowhere", 3, 7, kProgram);
  EXPECT_FALSE(read_program("/proc/nowhere", 3, 7));
  EXPECT_FALSE(read_program("", 3, 7));
  EXPECT_TRUE(stored_kernels("/proc/nowhere", 3).empty());
}

}  // namespace
}  // namespace ai_vmm::gpu
