#include "program.hpp"

#include <elf.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace AIRamp::Command {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

class ProgramTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("airamp_program_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  // An ELF file of nothing but headers.
  std::string elf(const std::string& name, unsigned machine, unsigned char bits, const std::string& interpreter) {
    Elf64_Ehdr header = {};
    std::memcpy(header.e_ident, ELFMAG, 4);
    header.e_ident[EI_CLASS] = bits;
    header.e_machine = static_cast<Elf64_Half>(machine);
    header.e_phoff = sizeof header;
    header.e_phnum = interpreter.empty() ? 0 : 1;
    Elf64_Phdr segment = {};
    segment.p_type = PT_INTERP;
    segment.p_offset = sizeof header + sizeof segment;
    segment.p_filesz = interpreter.size() + 1;
    std::ofstream out(folder_ / name, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&header), sizeof header);
    out.write(reinterpret_cast<const char*>(&segment), sizeof segment);
    out.write(interpreter.c_str(), static_cast<std::streamsize>(interpreter.size() + 1));
    return folder_ / name;
  }
  std::string script(const std::string& name, const std::string& first_line) {
    std::ofstream(folder_ / name) << first_line << "\n";
    fs::permissions(folder_ / name, fs::perms::owner_all);
    return folder_ / name;
  }

  fs::path folder_;
};

#if defined(__x86_64__)
constexpr unsigned kHere = EM_X86_64, kElsewhere = EM_AARCH64;
#else
constexpr unsigned kHere = EM_AARCH64, kElsewhere = EM_X86_64;
#endif

TEST_F(ProgramTest, ProgramsThatCannotBeHooked) {
  EXPECT_EQ(examine(elf("plain", kHere, ELFCLASS64, "/lib64/ld-linux-x86-64.so.2")).not_hookable, "");
  EXPECT_NE(examine(elf("static", kHere, ELFCLASS64, "")).not_hookable.find("statically"), std::string::npos);
  Program musl = examine(elf("musl", kHere, ELFCLASS64, "/lib/ld-musl-x86_64.so.1"));
  EXPECT_NE(musl.not_hookable.find("musl"), std::string::npos);
  EXPECT_TRUE(musl.preload_breaks);
  EXPECT_NE(examine(elf("foreign", kElsewhere, ELFCLASS64, "/lib/ld")).not_hookable.find("architecture"),
            std::string::npos);
  EXPECT_NE(examine(elf("narrow", EM_386, ELFCLASS32, "/lib/ld")).not_hookable.find("architecture"), std::string::npos);
}

TEST_F(ProgramTest, AScriptIsItsInterpreter) {
  std::string musl = elf("musl", kHere, ELFCLASS64, "/lib/ld-musl-x86_64.so.1");
  EXPECT_TRUE(examine(script("a", "#!" + musl + " -x")).preload_breaks);
  EXPECT_EQ(examine(script("b", "#!/usr/bin/env bash")).not_hookable, "");
  EXPECT_EQ(examine("bash").not_hookable, "");
  EXPECT_EQ(examine("no_such_program_anywhere").path, "");
}

TEST_F(ProgramTest, TruncatedFilesAreOnlyLookedAt) {
  std::ofstream(folder_ / "short") << "\177ELF";
  EXPECT_EQ(examine(folder_ / "short").not_hookable, "");
  std::string cut = elf("cut", kHere, ELFCLASS64, "/lib/ld");
  fs::resize_file(cut, sizeof(Elf64_Ehdr) + 8);
  EXPECT_NE(examine(cut).not_hookable, "");
}

TEST(Forwarding, ByOptionsOrByTheUsersListNeverBoth) {
  unsetenv("OMPI_MCA_mca_base_env_list");
  EXPECT_EQ(with_forwarding({"mpirun", "-n", "2", "a"}, {"X", "Y"}),
            (Words{"mpirun", "-x", "X", "-x", "Y", "-n", "2", "a"}));
  EXPECT_EQ(with_forwarding({"mpirun", "a", ":", "b"}, {"X"}), (Words{"mpirun", "-x", "X", "a", ":", "-x", "X", "b"}));
  EXPECT_EQ(with_forwarding({"mpirun", "--mca", "mca_base_env_list", "A=1", "a"}, {"X"}),
            (Words{"mpirun", "--mca", "mca_base_env_list", "A=1;X", "a"}));
  setenv("OMPI_MCA_mca_base_env_list", "A", 1);
  EXPECT_EQ(with_forwarding({"mpirun", "a"}, {"X", "Y"}), (Words{"mpirun", "a"}));
  EXPECT_STREQ(std::getenv("OMPI_MCA_mca_base_env_list"), "A;X;Y");
  unsetenv("OMPI_MCA_mca_base_env_list");
}

}  // namespace
}  // namespace AIRamp::Command
