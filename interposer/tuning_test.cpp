#include "interposer/tuning.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "interposer/checked_files.hpp"

namespace AIRamp::Interposer {
namespace {

std::vector<std::string> said;

std::string sealed(std::string text) {
  char line[40];
  std::snprintf(line, sizeof line, "CHECKSUM = %08x\n", tuning_checksum(text.data(), text.size()));
  return text + line;
}

std::string tuning_text(uint64_t generation, const std::string& keys, uint64_t fingerprint = tuning_fingerprint(),
                        int format = kTuningFormat) {
  char head[160];
  std::snprintf(head, sizeof head, "# a comment\nAIRAMP_TUNING = %d\nKEYS = %016lx\nGENERATION = %lu\n\n", format,
                (unsigned long)fingerprint, (unsigned long)generation);
  return sealed(head + keys);
}

Parse parse(const std::string& text, Values* v) {
  uint64_t generation;
  return parse_tuning(text.data(), text.size(), v, &generation);
}

// A folder with a tuning file and a mapped page, as airampd makes them.
class TuningFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/airamp_tuning_XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
    chmod(name, 0755);
    setenv("AIRAMP_TUNING_DIR", name, 1);
    make_page();
    said.clear();
    reader_ = std::make_unique<Tuning>();
    reader_->set_say([](const char* s) { said.push_back(s); });
  }
  void TearDown() override {
    if (page_) munmap(page_, TuningPage::kBytes);
    std::filesystem::remove_all(folder_);
    unsetenv("AIRAMP_TUNING_DIR");
  }
  void make_page() {
    std::string fresh = folder_ + "/generation.new";
    int fd = open(fresh.c_str(), O_RDWR | O_CREAT | O_EXCL, 0644);
    ASSERT_GE(fd, 0);
    std::vector<char> zero(TuningPage::kBytes);
    ASSERT_EQ(write(fd, zero.data(), zero.size()), ssize_t(zero.size()));
    page_ = static_cast<TuningPage*>(mmap(nullptr, TuningPage::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    ASSERT_NE(page_, MAP_FAILED);
    close(fd);
    page_->magic = TuningPage::kMagic;
    rename(fresh.c_str(), (folder_ + "/generation").c_str());
  }
  void write_file(const std::string& text, const char* name = kTuningFile) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << text;
    chmod((folder_ + "/" + name).c_str(), 0644);
  }
  void publish(const std::string& text) {
    write_file(text, "new");
    rename((folder_ + "/new").c_str(), (folder_ + "/" + kTuningFile).c_str());
    page_->generation.fetch_add(1, std::memory_order_release);
  }
  void expect_said(const std::string& part) {
    ASSERT_EQ(said.size(), 1u);
    EXPECT_NE(said[0].find(part), std::string::npos) << said[0];
  }

  std::string folder_;
  TuningPage* page_ = nullptr;
  std::unique_ptr<Tuning> reader_;
};

TEST(TuningTable, EveryRowIsWithinItsBoundsAndNamedOnce) {
  for (int i = 0; i < kKeyCount; ++i) {
    EXPECT_LE(kKeys[i].least, kKeys[i].fallback) << kKeys[i].name;
    EXPECT_LE(kKeys[i].fallback, kKeys[i].most) << kKeys[i].name;
    for (int j = 0; j < i; ++j) EXPECT_STRNE(kKeys[i].name, kKeys[j].name);
  }
}

TEST(TuningText, ChecksumIsThatOfTheStandard) { EXPECT_EQ(tuning_checksum("123456789", 9), 0xcbf43926u); }

TEST(TuningText, ValuesAreReadClampedAndUnknownNamesIgnored) {
  Values v{};
  ASSERT_EQ(parse(tuning_text(7,
                              "OCL_CHUNK_BYTES = 1048576  # why\n  PIN_TTL_MS=5\nPOOL_MAX_BYTES = -3\n"
                              "PIN_MAX_BYTES = 99999999999999999999999\nFROM_THE_FUTURE = x\n"),
                  &v),
            Parse::ok);
  EXPECT_EQ(v[Key::OCL_CHUNK_BYTES], 1048576);
  EXPECT_EQ(v[Key::PIN_TTL_MS], 5);
  EXPECT_EQ(v[Key::POOL_MAX_BYTES], 0);
  EXPECT_EQ(v[Key::PIN_MAX_BYTES], row(Key::PIN_MAX_BYTES).most);
  EXPECT_EQ(v[Key::POOL_TTL_MS], row(Key::POOL_TTL_MS).fallback);
}

TEST(TuningText, EveryTruncationAndEveryFlippedBitIsDamage) {
  std::string good = tuning_text(1, "PIN_TTL_MS = 77\n");
  Values v{};
  for (size_t n = 0; n < good.size(); ++n) EXPECT_EQ(parse(good.substr(0, n), &v), Parse::damaged) << n;
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = char(bad[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_EQ(parse(bad, &v), Parse::damaged) << "bit " << bit;
  }
  EXPECT_EQ(v[Key::PIN_TTL_MS], 0) << "a damaged file must not change anything";
}

TEST(TuningText, SealedGarbageDoesNotPass) {
  Values v{};
  for (const char* keys : {"PIN_TTL_MS = \n", "PIN_TTL_MS 5\n", "= 5\n", "PIN_TTL_MS = 5x\n", "PIN_TTL_MS = --5\n",
                           "PIN_TTL_MS = 0x10\n", "\x01\x02\x03\n", "PIN_TTL_MS\n"})
    EXPECT_EQ(parse(tuning_text(1, keys), &v), Parse::damaged) << keys;
  EXPECT_EQ(parse("", &v), Parse::damaged);
  EXPECT_EQ(parse(sealed(std::string(kMostTuningBytes, '#')), &v), Parse::damaged);
  EXPECT_EQ(parse(sealed(std::string("\0\0\0\n", 4)), &v), Parse::damaged);
}

TEST(TuningText, AnotherTableOrFormatIsAnotherVersion) {
  Values v{};
  EXPECT_EQ(parse(tuning_text(1, "", tuning_fingerprint() + 1), &v), Parse::other_version);
  EXPECT_EQ(parse(tuning_text(1, "", tuning_fingerprint(), kTuningFormat + 1), &v), Parse::other_version);
  EXPECT_EQ(parse(sealed("PIN_TTL_MS = 5\n"), &v), Parse::other_version);
}

TEST_F(TuningFolder, WithoutADaemonTheFallbacksHoldAndNothingIsSaid) {
  std::filesystem::remove_all(folder_);
  reader_->look_for_daemon();
  EXPECT_EQ(reader_->get<Key::OCL_CHUNK_BYTES>(), row(Key::OCL_CHUNK_BYTES).fallback);
  EXPECT_FALSE(reader_->changed());
  EXPECT_TRUE(said.empty());
  EXPECT_STREQ(reader_->folder(), "");
}

TEST_F(TuningFolder, TheFirstCallAfterAPublicationUsesTheNewValue) {
  publish(tuning_text(1, "PIN_TTL_MS = 11\n"));
  reader_->look_for_daemon();
  EXPECT_EQ(reader_->get<Key::PIN_TTL_MS>(), 11);
  for (int64_t ttl = 100; ttl < 200; ++ttl) {
    publish(tuning_text(uint64_t(ttl), "PIN_TTL_MS = " + std::to_string(ttl) + "\n"));
    EXPECT_TRUE(reader_->changed());
    ASSERT_EQ(reader_->get<Key::PIN_TTL_MS>(), ttl);
    EXPECT_FALSE(reader_->changed());
  }
  Values v;
  EXPECT_EQ(reader_->snapshot(&v), 199u);
  EXPECT_EQ(v[Key::PIN_TTL_MS], 199);
  EXPECT_EQ(reader_->folder(), folder_);
  EXPECT_TRUE(said.empty());
}

TEST_F(TuningFolder, ADamagedFileKeepsTheLastGoodValuesAndIsSaidOnce) {
  publish(tuning_text(1, "PIN_TTL_MS = 11\n"));
  reader_->look_for_daemon();
  ASSERT_EQ(reader_->get<Key::PIN_TTL_MS>(), 11);
  for (int i = 0; i < 3; ++i) {
    publish(tuning_text(2, "PIN_TTL_MS = 12\n").substr(0, 60));
    EXPECT_EQ(reader_->get<Key::PIN_TTL_MS>(), 11);
    EXPECT_FALSE(reader_->changed()) << "or every call would read the file";
  }
  expect_said("damaged");
  publish(tuning_text(3, "PIN_TTL_MS = 13\n"));
  EXPECT_EQ(reader_->get<Key::PIN_TTL_MS>(), 13);
}

TEST_F(TuningFolder, AnotherVersionMeansTheFallbacksAndIsSaidOnce) {
  publish(tuning_text(1, "PIN_TTL_MS = 11\n"));
  reader_->look_for_daemon();
  for (int i = 0; i < 3; ++i) {
    publish(tuning_text(2, "PIN_TTL_MS = 12\n", 1234));
    EXPECT_EQ(reader_->get<Key::PIN_TTL_MS>(), row(Key::PIN_TTL_MS).fallback);
  }
  expect_said("different versions");
  EXPECT_NE(std::string(reader_->state()).find("version"), std::string::npos);
}

TEST_F(TuningFolder, HostileFilesAreRefused) {
  publish(tuning_text(1, "PIN_TTL_MS = 11\n"));
  reader_->look_for_daemon();
  std::string file = folder_ + "/" + kTuningFile, other = folder_ + "/other";
  std::string good = tuning_text(9, "PIN_TTL_MS = 99\n");
  auto replaced_by = [&](const char* what, auto make) {
    std::filesystem::remove(file);
    std::filesystem::remove(other);
    said.clear();
    Tuning fresh;  // says again
    fresh.set_say([](const char* s) { said.push_back(s); });
    make();
    page_->generation.fetch_add(1, std::memory_order_release);
    EXPECT_EQ(reader_->get<Key::PIN_TTL_MS>(), 11) << what;
    fresh.look_for_daemon();
    EXPECT_EQ(fresh.get<Key::PIN_TTL_MS>(), row(Key::PIN_TTL_MS).fallback) << what;
    EXPECT_GE(said.size(), 1u) << what;
  };
  replaced_by("symbolic link", [&] {
    write_file(good, "other");
    ASSERT_EQ(symlink(other.c_str(), file.c_str()), 0);
  });
  replaced_by("second name", [&] {
    write_file(good, "other");
    ASSERT_EQ(link(other.c_str(), file.c_str()), 0);
  });
  replaced_by("pipe", [&] { ASSERT_EQ(mkfifo(file.c_str(), 0644), 0); });
  replaced_by("folder", [&] { ASSERT_EQ(mkdir(file.c_str(), 0755), 0); });
  replaced_by("writable by all", [&] {
    write_file(good);
    ASSERT_EQ(chmod(file.c_str(), 0666), 0);
  });
  replaced_by("writable by the group", [&] {
    write_file(good);
    ASSERT_EQ(chmod(file.c_str(), 0664), 0);
  });
  replaced_by("huge", [&] {
    write_file(good);
    ASSERT_EQ(truncate(file.c_str(), off_t(1) << 40), 0);
  });
  replaced_by("absent", [] {});
  if (geteuid() == 0)
    replaced_by("another user's", [&] {
      write_file(good);
      ASSERT_EQ(chown(file.c_str(), 65534, 65534), 0);
    });
  std::filesystem::remove(file);
  publish(good);
  EXPECT_EQ(reader_->get<Key::PIN_TTL_MS>(), 99);
}

TEST_F(TuningFolder, HostileFoldersAreRefused) {
  publish(tuning_text(1, "PIN_TTL_MS = 11\n"));
  auto refused = [&](const char* what, FileFault expected, const std::string& path) {
    FileFault fault = FileFault::none;
    int fd = open_checked_folder(path.c_str(), &fault);
    EXPECT_EQ(fd, -1) << what;
    EXPECT_EQ(fault, expected) << what << ": " << sentence_end(fault);
    setenv("AIRAMP_TUNING_DIR", path.c_str(), 1);
    Tuning fresh;
    fresh.set_say([](const char* s) { said.push_back(s); });
    fresh.look_for_daemon();
    EXPECT_EQ(fresh.get<Key::PIN_TTL_MS>(), row(Key::PIN_TTL_MS).fallback) << what;
  };
  ASSERT_EQ(chmod(folder_.c_str(), 01777), 0);
  refused("writable by all", FileFault::open_to_write, folder_);
  ASSERT_EQ(chmod(folder_.c_str(), 0775), 0);
  refused("writable by the group", FileFault::open_to_write, folder_);
  ASSERT_EQ(chmod(folder_.c_str(), 0755), 0);
  if (geteuid() == 0) {
    ASSERT_EQ(chown(folder_.c_str(), 65534, 65534), 0);
    refused("another user's", FileFault::owner, folder_);
    ASSERT_EQ(chown(folder_.c_str(), 0, 0), 0);
  }
  std::string link = folder_ + "_link";
  ASSERT_EQ(symlink(folder_.c_str(), link.c_str()), 0);
  refused("link", FileFault::link, link);
  std::filesystem::remove(link);
  refused("file", FileFault::kind, folder_ + "/" + kTuningFile);
  EXPECT_FALSE(said.empty());
}

TEST_F(TuningFolder, APageThatWouldEndTheProgramIsNotMapped) {
  publish(tuning_text(1, "PIN_TTL_MS = 11\n"));
  std::string page = folder_ + "/" + kPageFile;
  auto refused = [&](const char* what, off_t bytes, const std::string& start) {
    std::filesystem::remove(page);
    write_file(start, kPageFile);
    ASSERT_EQ(truncate(page.c_str(), bytes), 0);
    Tuning fresh;
    said.clear();
    fresh.set_say([](const char* s) { said.push_back(s); });
    fresh.look_for_daemon();
    EXPECT_STREQ(fresh.folder(), "") << what;
    EXPECT_EQ(fresh.get<Key::PIN_TTL_MS>(), row(Key::PIN_TTL_MS).fallback) << what;
    expect_said("generation");
  };
  refused("empty", 0, "");
  refused("short", 100, "AIRTUNE1");
  refused("a hole, which a full file system cannot fill", TuningPage::kBytes, "");
  refused("no magic", TuningPage::kBytes, "something else");
  refused("long", TuningPage::kBytes + 1, "AIRTUNE1");
}

TEST_F(TuningFolder, AFolderMadeAnewIsFound) {
  publish(tuning_text(1, "PIN_TTL_MS = 11\n"));
  reader_->look_for_daemon();
  EXPECT_EQ(reader_->get<Key::PIN_TTL_MS>(), 11);
  std::filesystem::remove_all(folder_);
  reader_->reload();
  EXPECT_EQ(reader_->get<Key::PIN_TTL_MS>(), 11);
  std::filesystem::create_directory(folder_);
  chmod(folder_.c_str(), 0755);
  munmap(page_, TuningPage::kBytes);
  make_page();
  publish(tuning_text(1, "PIN_TTL_MS = 12\n"));
  reader_->reload();
  EXPECT_EQ(reader_->get<Key::PIN_TTL_MS>(), 12);
  publish(tuning_text(2, "PIN_TTL_MS = 13\n"));
  EXPECT_EQ(reader_->get<Key::PIN_TTL_MS>(), 13) << "the new page is the one that is watched";
}

TEST_F(TuningFolder, AReloadKeepsErrnoAndOpensNothingForGood) {
  publish(tuning_text(1, "PIN_TTL_MS = 11\n"));
  int before = open("/dev/null", O_RDONLY);
  close(before);
  errno = ENOTTY;
  reader_->look_for_daemon();
  EXPECT_EQ(errno, ENOTTY);
  std::filesystem::remove_all(folder_);
  errno = ENOTTY;
  reader_->reload();
  EXPECT_EQ(errno, ENOTTY);
  int after = open("/dev/null", O_RDONLY);
  close(after);
  EXPECT_EQ(after, before);
}

// Whoever publishes n sets every key to a value made of n, so that a mix of two publications shows.
TEST_F(TuningFolder, ASnapshotIsNeverAMixOfTwoPublications) {
  auto text = [](uint64_t n) {
    std::string keys;
    for (const KeyRow& k : kKeys) keys += std::string(k.name) + " = " + std::to_string(k.least + int64_t(n % 2)) + "\n";
    return tuning_text(n, keys);
  };
  publish(text(1));
  reader_->look_for_daemon();
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  std::atomic<uint64_t> torn{0}, seen{0};
  for (int t = 0; t < 3; ++t)
    readers.emplace_back([&] {
      uint64_t last = 0;
      while (!stop.load()) {
        Values v;
        uint64_t n = reader_->snapshot(&v);
        for (int i = 0; i < kKeyCount; ++i) torn += v.of[i] != kKeys[i].least + int64_t(n % 2);
        torn += n < last;
        last = n;
        ++seen;
      }
    });
  for (uint64_t n = 2; n < 600; ++n) publish(text(n));
  while (seen.load() < 1000) std::this_thread::yield();
  stop = true;
  for (auto& t : readers) t.join();
  EXPECT_EQ(torn.load(), 0u);
  Values v;
  EXPECT_EQ(reader_->snapshot(&v), 599u);
}

}  // namespace
}  // namespace AIRamp::Interposer
