// The text that devices compile, compiled for the host and held against the host's own kernels; and compiled for
// devices by the vendors' compilers, where these are installed: they need no device.

#include "tests/host_kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "bf16.hpp"
#include "elf.hpp"
#include "kernel_compiler.hpp"
#include "library.hpp"

namespace AIRamp::Interposer {

constinit thread_local Thread thread __attribute__((tls_model("initial-exec"))) = {};

namespace {

using host_kernels::launch;

TEST(Bf16Kernels, RoundAllInputsAsTheHostDoes) {
  std::uint64_t wrong = 0;
  for (std::uint64_t bits = 0; bits <= 0xffffffffu; bits++)
    wrong += host_kernels::rounded(static_cast<std::uint32_t>(bits)) != bf16::round(static_cast<std::uint32_t>(bits));
  EXPECT_EQ(wrong, 0u);
}

std::vector<std::uint32_t> random_bits(std::size_t count) {
  std::mt19937 random(1);
  std::vector<std::uint32_t> v(count);
  for (auto& x : v) x = static_cast<std::uint32_t>(random());
  return v;
}

std::vector<float> random_floats(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> v(count);
  for (auto& x : v) x = normal(random);
  return v;
}

TEST(Bf16Kernels, PackAndUnpackAtAnyAlignmentAndSize) {
  const auto& k = bf16::kernels();
  for (std::size_t shift : {0u, 1u, 2u, 4u})
    for (std::size_t count : {0u, 1u, 3u, 4u, 1000u, 4097u}) {
      std::vector<std::uint32_t> from = random_bits(count + shift), back(count + shift + 1, 7), expected_back(count);
      std::vector<std::uint16_t> to(count + shift + 1, 7), expected(count);
      launch(2, 1, 32, [&] { host_kernels::pack_bf16_v4(from.data() + shift, to.data() + shift, count); });
      k.pack_bf16_v4(reinterpret_cast<float*>(from.data() + shift), expected.data(), count);
      EXPECT_EQ(std::vector(to.begin() + static_cast<std::ptrdiff_t>(shift), to.end() - 1), expected);
      EXPECT_EQ(to.back(), 7);
      launch(2, 1, 32, [&] { host_kernels::unpack_bf16_v4(to.data() + shift, back.data() + shift, count, 1, 0, 0); });
      k.unpack_bf16_v4(expected.data(), reinterpret_cast<float*>(expected_back.data()), count);
      EXPECT_EQ(std::vector(back.begin() + static_cast<std::ptrdiff_t>(shift), back.end() - 1), expected_back);
      EXPECT_EQ(back.back(), 7u);
    }
}

TEST(Bf16Kernels, UnpackRowsThatStandApart) {
  constexpr std::size_t kRows = 3, kCount = 5;
  std::vector<std::uint16_t> from(kRows * kCount);
  for (std::size_t i = 0; i < from.size(); i++) from[i] = static_cast<std::uint16_t>(0x3f80 + i);
  std::vector<std::uint32_t> to(kRows * 8, 7);
  launch(1, kRows, 32, [&] { host_kernels::unpack_bf16_v4(from.data(), to.data(), kCount, 1, kCount, 8); });
  for (std::size_t row = 0; row < kRows; row++)
    for (std::size_t i = 0; i < 8; i++)
      EXPECT_EQ(to[row * 8 + i], i < kCount ? static_cast<std::uint32_t>(from[row * kCount + i]) << 16 : 7u);
  launch(1, 1, 32, [&] { host_kernels::unpack_bf16_v4(from.data(), to.data(), 1, 0.25f, 0, 0); });
  EXPECT_EQ(to[0], 0x3e800000u);
}

TEST(Bf16Kernels, SumInTheOrderOfRanks) {
  constexpr std::size_t kCount = 1001, kPitch = 1008;
  constexpr int kRanks = 5;
  for (int rank : {0, 2, 4})
    for (float scale : {1.0f, 0.2f}) {
      std::vector<float> own = random_floats(kCount, 9);
      std::vector<std::uint16_t> addends(kRanks * kPitch), to(kCount);
      for (auto& a : addends) a = 0x7fc0;  // what must not be read is no number
      for (int r = 0; r < kRanks; r++)
        if (r != rank)
          bf16::kernels().pack_bf16_v4(random_floats(kCount, static_cast<unsigned>(r)).data(),
                                       addends.data() + static_cast<std::size_t>(r) * kPitch, kCount);
      launch(2, 1, 64, [&] {
        host_kernels::sum_bf16_v4(own.data(), addends.data(), kPitch, rank, kRanks, to.data(), kCount, scale);
      });
      for (std::size_t i = 0; i < kCount; i++) {
        float sum = 0;
        for (int r = 0; r < kRanks; r++) {
          float addend = host_kernels::widened(addends[static_cast<std::size_t>(r) * kPitch + i]);
          sum = r == 0 ? (rank == 0 ? own[i] : addend) : sum + (r == rank ? own[i] : addend);
        }
        sum *= scale;
        std::uint32_t bits;
        std::memcpy(&bits, &sum, 4);
        ASSERT_EQ(to[i], bf16::round(bits)) << i;
      }
    }
}

// The code is an ELF file for that kind of device, and has the kernels. `machine`: EM_CUDA or EM_AMDGPU.
void compile(Vendor vendor, const char* architecture, const char* library, unsigned machine) {
  char folder[] = "/tmp/airamp-kernels-XXXXXX";
  ASSERT_TRUE(mkdtemp(folder));
  setenv("XDG_CACHE_HOME", folder, 1);
  void* there = elf::load(library);
  ASSERT_TRUE(there) << library << " is not installed: scripts/setup.sh installs it.";
  KernelCode* code = KernelCode::begin(vendor, architecture);
  ASSERT_TRUE(code);
  ASSERT_TRUE(code->wait()) << code->why_not();
  EXPECT_EQ(KernelCode::begin(vendor, architecture), code);
  auto* bytes = static_cast<const char*>(code->data());
  EXPECT_EQ(std::string(bytes, 4),
            "\x7f"
            "ELF");
  std::uint16_t kind;
  std::memcpy(&kind, bytes + 18, 2);
  EXPECT_EQ(kind, machine);
  std::filesystem::directory_iterator files(std::string(folder) + "/airamp");
  ASSERT_NE(files, std::filesystem::directory_iterator());
  EXPECT_NE(files->path().filename().string().find(architecture), std::string::npos);
  std::string whole(bytes, files->file_size() - 24);  // behind the file's header
  for (const char* kernel : {"pack_bf16_v4", "unpack_bf16_v4", "sum_bf16_v4"})
    EXPECT_NE(whole.find(kernel), std::string::npos) << kernel;
  std::filesystem::remove_all(folder);
}

TEST(Bf16Kernels, CompileForSm90) { compile(Vendor::kNvidia, "sm_90", "libnvrtc.so.13", 190); }

TEST(Bf16Kernels, CompileForGfx90a) { compile(Vendor::kAmd, "gfx90a", "libamdhip64.so.5", 224); }

TEST(Bf16Kernels, AnArchitectureThatIsNone) {
  char folder[] = "/tmp/airamp-kernels-XXXXXX";
  ASSERT_TRUE(mkdtemp(folder));
  setenv("XDG_CACHE_HOME", folder, 1);
  KernelCode* code = KernelCode::begin(Vendor::kNvidia, "sm_1");
  ASSERT_TRUE(code);
  EXPECT_FALSE(code->wait());
  EXPECT_NE(std::string(code->why_not()).find("sm_1"), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_empty(std::string(folder) + "/airamp"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace AIRamp::Interposer
