#include "hal/tuning.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "ai_vmm/compute_backend.hpp"
#include "hal/backends.hpp"

namespace ai_vmm {
namespace {

namespace fs = std::filesystem;

std::string folder(const char* name) {
  std::string f = ::testing::TempDir() + "tuning_" + name;
  fs::remove_all(f);
  return f;
}

TEST(Tuning, IsFoundAgainByAnotherProcess) {
  std::string f = folder("again");
  TuningStore first(f);
  EXPECT_FALSE(first.get("matmul 64x64"));
  first.put("matmul 64x64", std::string("8x8\n\0x", 6));
  first.put("empty", "");
  first.put("matmul 64x64", "16x4");
  TuningStore second(f);
  EXPECT_EQ(second.get("matmul 64x64"), "16x4");
  EXPECT_EQ(second.get("empty"), "");
  EXPECT_FALSE(second.get("matmul 64x65"));
}

TEST(Tuning, DamagedFilesAndFoldersThatCannotBeMeanNothing) {
  std::string f = folder("damaged");
  TuningStore(f).put("key", "value");
  std::string file = fs::directory_iterator(f)->path();
  auto size = fs::file_size(file);
  for (uintmax_t cut = 0; cut < size; ++cut) {
    fs::resize_file(file, cut);
    EXPECT_FALSE(TuningStore(f).get("key")) << cut;
    TuningStore(f).put("key", "value");
    EXPECT_EQ(TuningStore(f).get("key"), "value");
  }
  TuningStore nowhere("/proc/no/such/folder");
  nowhere.put("key", "value");
  EXPECT_EQ(nowhere.get("key"), "value");  // for this process
}

TEST(Tuning, ManyThreadsMayWriteOneKey) {
  std::string f = folder("threads");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      TuningStore own(f);
      for (int i = 0; i < 10; ++i) own.put("key", std::string(size_t(100 + t), char('a' + t)));
    });
  for (auto& t : threads) t.join();
  auto value = TuningStore(f).get("key");
  ASSERT_TRUE(value);
  EXPECT_EQ(*value, std::string(value->size(), (*value)[0]));
  EXPECT_EQ(std::distance(fs::directory_iterator(f), fs::directory_iterator()), 1);  // nothing half-written is left
}

TEST(Tuning, TheHostOffersItToBackends) {
  setenv("AI_VMM_TUNING_FOLDER", folder("host").c_str(), 1);
  const AiVmmHost& h = host_services();
  char value[4] = {};
  EXPECT_EQ(h.tuning_get(h.user, backend::text("some key"), value, sizeof value), 0u);
  h.tuning_put(h.user, backend::text("some key"), backend::text("abcdef"));
  EXPECT_EQ(h.tuning_get(h.user, backend::text("some key"), value, sizeof value), 6u);  // how long it is
  EXPECT_EQ(std::string_view(value, 4), "abcd");                                        // and what there was room for
}

}  // namespace
}  // namespace ai_vmm
