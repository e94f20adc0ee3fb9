#include "bf16.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

namespace AIRamp::Interposer::bf16 {
namespace {

std::vector<const Kernels*> all() {
  std::vector<const Kernels*> found;
  for (const char* isa : {"generic", "avx2", "avx512"})
    if (const Kernels* k = kernels_for(isa)) found.push_back(k);
  return found;
}

bool all_are(const std::uint16_t* values, std::size_t count, std::uint16_t expected) {
  unsigned different = 0;
  for (std::size_t i = 0; i < count; i++) different |= static_cast<unsigned>(values[i] ^ expected);
  return different == 0;
}

// Every float32 by its upper half h: up to the middle between two neighbours the lower one is nearest, from there the
// upper one, in the middle itself the even one. Where h has all exponent bits, what is not infinite is a NaN.
bool right_for_upper_half(const Kernels& k, std::uint16_t h, std::vector<std::uint32_t>* inputs,
                          std::vector<std::uint16_t>* outputs) {
  for (std::uint32_t low = 0; low < 65536; low++) (*inputs)[low] = static_cast<std::uint32_t>(h) << 16 | low;
  k.pack_bf16_v4(reinterpret_cast<const float*>(inputs->data()), outputs->data(), 65536);
  const std::uint16_t* out = outputs->data();
  auto next = static_cast<std::uint16_t>(h + 1), even = static_cast<std::uint16_t>(h + (h & 1));
  if ((h & 0x7f80) != 0x7f80)
    return all_are(out, 0x8000, h) && out[0x8000] == even && all_are(out + 0x8001, 0x7fff, next);
  auto quiet = static_cast<std::uint16_t>(h | 0x40);
  bool infinite = (h & 0x7f) == 0;
  return out[0] == (infinite ? h : quiet) && all_are(out + 1, 65535, quiet);
}

TEST(Bf16, EveryFloatIsRoundedToNearestEven) {
  for (const Kernels* k : all()) {
    std::atomic<unsigned> next{0}, wrong{0};
    auto work = [&] {
      std::vector<std::uint32_t> inputs(65536);
      std::vector<std::uint16_t> outputs(65536);
      for (unsigned h = next++; h < 65536; h = next++)
        wrong += !right_for_upper_half(*k, static_cast<std::uint16_t>(h), &inputs, &outputs);
    };
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); i++) threads.emplace_back(work);
    for (auto& t : threads) t.join();
    EXPECT_EQ(wrong, 0u) << k->name;
  }
}

TEST(Bf16, KnownValues) {
  const std::uint32_t pairs[][2] = {
      {0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x00008000, 0x0000}, {0x00018000, 0x0002}, {0x80000000, 0x8000},
      {0x7f7f7fff, 0x7f7f}, {0x7f7f8000, 0x7f80}, {0x7f800001, 0x7fc0}, {0xffffffff, 0xffff}, {0xff800000, 0xff80}};
  for (const Kernels* k : all())
    for (const auto& p : pairs) {
      std::uint16_t out;
      k->pack_bf16_v4(reinterpret_cast<const float*>(&p[0]), &out, 1);
      EXPECT_EQ(out, p[1]) << k->name << std::hex << " " << p[0];
    }
}

TEST(Bf16, EveryBfloat16IsWidened) {
  std::vector<std::uint16_t> in(65536);
  for (unsigned i = 0; i < 65536; i++) in[i] = static_cast<std::uint16_t>(i);
  for (const Kernels* k : all()) {
    std::vector<std::uint32_t> out(65536);
    k->unpack_bf16_v4(in.data(), reinterpret_cast<float*>(out.data()), out.size());
    for (unsigned i = 0; i < 65536; i++) ASSERT_EQ(out[i], i << 16) << k->name;
  }
}

TEST(Bf16, AnyLengthAndPlaceAndNothingBeside) {
  for (const Kernels* k : all())
    for (std::size_t begin = 0; begin < 3; begin++)
      for (std::size_t n = 0; n < 70; n++) {
        std::vector<float> x(80), sum(80, 3.0f), wide(80, 7.0f);
        std::vector<std::uint16_t> packed(80, 0xabcd);
        for (std::size_t i = 0; i < 80; i++) x[i] = static_cast<float>(i) * 1.3f - 20;
        k->pack_bf16_v4(x.data() + begin, packed.data() + begin, n);
        k->unpack_bf16_v4(packed.data() + begin, wide.data() + begin, n);
        k->add_bf16_v4(packed.data() + begin, sum.data() + begin, n);
        for (std::size_t i = 0; i < 80; i++) {
          bool inside = i >= begin && i < begin + n;
          std::uint32_t bits;
          std::memcpy(&bits, &x[i], 4);
          ASSERT_EQ(packed[i], inside ? round(bits) : 0xabcd);
          ASSERT_EQ(sum[i], inside ? 3.0f + wide[i] : 3.0f);
          ASSERT_TRUE(inside || wide[i] == 7.0f);
        }
      }
}

}  // namespace
}  // namespace AIRamp::Interposer::bf16
