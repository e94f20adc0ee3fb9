#include "ai_vmm/types.hpp"

#include <gtest/gtest.h>

#include <set>

#include "base/memory_budget.hpp"

namespace ai_vmm {
namespace {

Status fails() { return Status(Code::not_found, "The file \"x\" does not exist."); }
Status passes_on() {
  AI_VMM_TRY(fails());
  return {};
}
Result<int> half(int v) {
  if (v % 2) return Status(Code::invalid_argument, std::to_string(v) + " is odd.");
  return v / 2;
}
Result<int> quarter(int v) {
  int h = AI_VMM_TAKE(half(v));
  return half(h);
}

TEST(Status, CarriesCodeTextAndPlace) {
  Status s = fails();
  EXPECT_FALSE(s.ok());
  EXPECT_EQ(s.code(), Code::not_found);
  EXPECT_NE(std::string(s.fault()->file).find("types_test.cpp"), std::string::npos);
  EXPECT_GT(s.fault()->line, 0);
  EXPECT_EQ(std::move(s).during("loading").message(), "The file \"x\" does not exist, during loading.");
  EXPECT_TRUE(Status().ok());
  EXPECT_EQ(Status().message(), "");
  EXPECT_EQ(Status().code(), Code::ok);
}

TEST(Status, CopiesAndPropagates) {
  Status s = passes_on(), copy = s.copy();
  EXPECT_EQ(s.code(), Code::not_found);
  EXPECT_EQ(copy.message(), s.message());
  EXPECT_TRUE(Status().copy().ok());
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(6).status().message(), "3 is odd.");
  EXPECT_EQ(quarter(5).status().message(), "5 is odd.");
}

TEST(DType, NamesAreUniqueAndFound) {
  std::set<std::string> seen;
  for (int i = 1; i < kDTypeCount; ++i) {
    DType t = DType(i);
    EXPECT_TRUE(seen.insert(name(t)).second) << name(t);
    EXPECT_EQ(dtype_from_name(name(t)), t);
    int kinds = is_float(t) + is_integer(t) + is_complex(t) + (t == DType::boolean) + (t == DType::string);
    EXPECT_EQ(kinds, 1) << name(t);
    EXPECT_EQ(bits(t) > 0, t != DType::string);
  }
  EXPECT_EQ(dtype_from_name("float"), DType::f32);
  EXPECT_EQ(dtype_from_name("float32"), DType::f32);
  EXPECT_EQ(dtype_from_name("int64"), DType::i64);
  EXPECT_EQ(dtype_from_name("nothing"), std::nullopt);
  EXPECT_STREQ(name(DType(200)), "undefined");
  EXPECT_EQ(bytes_for(DType::u4, 3), 2);
  EXPECT_EQ(bytes_for(DType::i2, 5), 2);
  EXPECT_EQ(bytes_for(DType::f32, 3), 12);
}

TEST(Shape, CountsWithoutOverflow) {
  EXPECT_EQ(element_count(Shape{}), 1);
  EXPECT_EQ(element_count(Shape{2, 3}), 6);
  EXPECT_EQ(element_count(Shape{2, 0, 1000}), 0);
  EXPECT_EQ(element_count(Shape{2, 0, INT64_MAX}), std::nullopt);
  EXPECT_EQ(element_count(Shape{-1}), std::nullopt);
  EXPECT_EQ(element_count(Shape{int64_t(1) << 40, int64_t(1) << 40}), std::nullopt);
  EXPECT_EQ(to_string(Shape{2, 3}), "[2,3]");
}

TEST(Tensor, OwnsAlignedStorageThatCopiesShare) {
  Tensor t = *Tensor::make(DType::f32, {2, 3}, true);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(t.data()) % 64, 0u);
  EXPECT_EQ(t.count(), 6);
  EXPECT_EQ(t.bytes(), 24);
  for (float v : t.as<float>()) EXPECT_EQ(v, 0);
  Tensor share = t, copy = *t.clone(), flat = t.reshaped({6});
  t.as_mutable<float>()[4] = 5;
  EXPECT_EQ(share.as<float>()[4], 5);
  EXPECT_EQ(flat.as<float>()[4], 5);
  EXPECT_EQ(copy.as<float>()[4], 0);
  EXPECT_TRUE(identical(t, share));
  EXPECT_FALSE(identical(t, copy));
  EXPECT_FALSE(identical(t, flat));
  EXPECT_FALSE(Tensor());
  EXPECT_TRUE(bool(t));
}

TEST(Tensor, HoldsStringsAndPackedTypes) {
  Tensor s = Tensor::vector<std::string>({"a", std::string(100, 'b')});
  Tensor copy = *s.clone();
  s.as_mutable<std::string>()[0] = "c";
  EXPECT_EQ(copy.as<std::string>()[0], "a");
  EXPECT_FALSE(identical(s, copy));
  Tensor p = *Tensor::make(DType::u4, {3});
  EXPECT_EQ(p.bytes(), 2);
  EXPECT_EQ(p.as<uint8_t>().size(), 2u);
  EXPECT_EQ(Tensor::vector<bool>({true, false}).dtype(), DType::boolean);
}

TEST(Tensor, AViewKeepsItsOwner) {
  auto owner = std::make_shared<std::vector<int32_t>>(std::vector<int32_t>{1, 2, 3});
  std::weak_ptr<std::vector<int32_t>> watch = owner;
  {
    Tensor t = Tensor::view(DType::i32, {3}, owner->data(), owner);
    owner.reset();
    EXPECT_EQ(t.as<int32_t>()[2], 3);
    EXPECT_TRUE(t.owns_memory());
  }
  EXPECT_TRUE(watch.expired());
}

TEST(Tensor, RefusesWhatCannotBe) {
  EXPECT_EQ(Tensor::make(DType::f32, {-1}).status().code(), Code::resource_exhausted);
  EXPECT_EQ(Tensor::make(DType::f64, {int64_t(1) << 60, 4}).status().code(), Code::resource_exhausted);
  EXPECT_DEATH((void)Tensor::vector<float>({1}).as<double>(), "read as elements of 8 bytes");
  EXPECT_DEATH((void)Tensor::of<float>({2}, {1}), "1 values for shape");
  EXPECT_DEATH((void)Data().tensor(), "not a tensor");
}

TEST(Tensor, IsChargedToTheBudget) {
  auto budget = std::make_shared<MemoryBudget>(1000);
  {
    MemoryBudget::Scope scope(budget);
    Tensor t = *Tensor::make(DType::u8, {600});
    EXPECT_EQ(budget->used(), 600);
    EXPECT_EQ(Tensor::make(DType::u8, {600}).status().code(), Code::resource_exhausted);
    Tensor share = t;
    EXPECT_EQ(budget->used(), 600);
  }
  EXPECT_EQ(budget->used(), 0);
  EXPECT_EQ(budget->peak(), 600);
  EXPECT_EQ(MemoryBudget::current(), nullptr);
  EXPECT_GT(MemoryBudget::default_limit(), 0);
}

}  // namespace
}  // namespace ai_vmm
