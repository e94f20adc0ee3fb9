#include "base/npy.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/numbers.hpp"

namespace ai_vmm {
namespace {

Tensor round_trip(const Tensor& t) {
  auto bytes = format_npy(t);
  EXPECT_TRUE(bytes.ok()) << bytes.status().message();
  EXPECT_EQ((bytes->find('\n') + 1) % 64, 0u);
  auto back = parse_npy(std::as_bytes(std::span(*bytes)));
  EXPECT_TRUE(back.ok()) << back.status().message();
  auto fitted = fit_dtype(*back, t.dtype());
  EXPECT_TRUE(fitted.ok()) << fitted.status().message();
  return *fitted;
}

Result<Tensor> parse(const std::string& descr, const std::string& order, const std::string& shape,
                     const std::string& body) {
  std::string header = "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() & 255);
  file += static_cast<char>(header.size() >> 8);
  file += header + body;
  return parse_npy(std::as_bytes(std::span(file)));
}

TEST(Npy, EveryTypeComesBack) {
  for (int k = 1; k < kDTypeCount; ++k) {
    auto dtype = static_cast<DType>(k);
    if (dtype == DType::string) continue;
    for (const Shape& shape : {Shape{}, Shape{5}, Shape{2, 3}, Shape{0, 4}}) {
      Tensor t = *Tensor::make(dtype, shape, true);
      for (int64_t i = 0; i < t.count(); ++i) write_double(dtype, t.mutable_data(), i, double(i % 2 + 1));
      EXPECT_TRUE(identical(t, round_trip(t))) << name(dtype) << to_string(shape);
    }
  }
  Tensor text = Tensor::of<std::string>({2, 2}, {"", "plain", "größer €", "𝄞"});
  EXPECT_TRUE(identical(text, round_trip(text)));
}

TEST(Npy, FortranOrderAndBigEndian) {
  auto f = parse("|i1", "True", "(2, 3)", std::string("\1\4\2\5\3\6", 6));
  ASSERT_TRUE(f.ok()) << f.status().message();
  EXPECT_TRUE(identical(*f, Tensor::of<int8_t>({2, 3}, {1, 2, 3, 4, 5, 6})));
  auto b = parse(">i4", "False", "(1,)", std::string("\0\0\1\2", 4));
  ASSERT_TRUE(b.ok());
  EXPECT_EQ(b->as<int32_t>()[0], 258);
}

TEST(Npy, DamageIsAnError) {
  EXPECT_EQ(parse("|O", "False", "(1,)", "").status().code(), Code::unimplemented);
  EXPECT_EQ(parse("<f4", "False", "(2,)", "1234").status().code(), Code::data_loss);
  EXPECT_EQ(parse("<f4", "False", "(4611686018427387904, 4)", "").status().code(), Code::data_loss);
  EXPECT_EQ(parse("<f4", "False", "(-1,)", "").status().code(), Code::data_loss);
  EXPECT_EQ(parse("<f4", "Maybe", "(1,)", "1234").status().code(), Code::data_loss);
  EXPECT_EQ(parse_npy({}).status().code(), Code::data_loss);
  std::string whole = *format_npy(Tensor::of<float>({3}, {1, 2, 3}));
  for (size_t cut = 0; cut < whole.size(); ++cut)
    EXPECT_FALSE(parse_npy(std::as_bytes(std::span(whole.data(), cut))).ok()) << cut;
}

TEST(Npz, NamedArraysComeBackAndDamageIsAnError) {
  std::string path = testing::TempDir() + "npz_" + std::to_string(getpid()) + ".npz";
  NamedTensors arrays = {{"x", Tensor::of<float>({2}, {1, 2})}, {"a/b:0", Tensor::of<int64_t>({}, {7})}};
  ASSERT_TRUE(write_npz(path, arrays).ok());
  auto back = read_npz(path);
  ASSERT_TRUE(back.ok()) << back.status().message();
  ASSERT_EQ(back->size(), 2u);
  EXPECT_EQ((*back)[1].first, "a/b:0");
  EXPECT_TRUE(identical((*back)[0].second, arrays[0].second));
  EXPECT_TRUE(identical((*back)[1].second, arrays[1].second));

  std::string whole = *read_file(path);
  for (size_t cut = 0; cut < whole.size(); cut += 7) {
    ASSERT_TRUE(write_file(path, whole.substr(0, cut)).ok());
    EXPECT_FALSE(read_npz(path).ok()) << cut;
  }
  std::string changed = whole;
  changed[130] = static_cast<char>(changed[130] ^ 1);
  ASSERT_TRUE(write_file(path, changed).ok());
  EXPECT_FALSE(read_npz(path).ok());
  EXPECT_EQ(read_npz("/nonexistent.npz").status().code(), Code::not_found);
  unlink(path.c_str());
}

TEST(FitDtype, OnlyWhatNumPyCannotName) {
  EXPECT_EQ(fit_dtype(Tensor::of<uint8_t>({1}, {1}), DType::f8e5m2)->dtype(), DType::f8e5m2);
  EXPECT_FALSE(fit_dtype(Tensor::of<float>({1}, {1}), DType::f64).ok());
  EXPECT_FALSE(fit_dtype(Tensor::of<int8_t>({1}, {9}), DType::i4).ok());
}

}  // namespace
}  // namespace ai_vmm
