// Corners of arithmetic that the conformance cases do not reach: overflow, division by zero, NaN, empty sets, text,
// seeds, and attributes or inputs that make no sense.
#include <gtest/gtest.h>

#include <cmath>

#include "ops/op.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {
namespace {

const double kInf = std::numeric_limits<double>::infinity(), kNaN = std::numeric_limits<double>::quiet_NaN();

// One node run by its reference function; several outputs come back.
struct Op {
  Node node;
  std::vector<Data> inputs;
  Random random;

  explicit Op(const char* op, std::vector<Tensor> in = {}, const char* domain = "") {
    node.op = op;
    node.domain = domain;
    node.def = find_op(domain, op);
    node.outputs = {0, 1};
    for (Tensor& t : in) inputs.push_back(t ? Data(t) : Data());
    node.inputs.assign(inputs.size(), 0);
  }
  Op& with(const char* attribute, AttrValue value) {
    node.set(attribute, std::move(value));
    return *this;
  }
  Result<std::vector<Data>> all() { return evaluate(node, inputs, random); }
  Tensor one(size_t k = 0) {
    auto out = all();
    EXPECT_TRUE(out.ok()) << out.status().message();
    return out.ok() ? (*out)[k].tensor() : Tensor();
  }
  std::string error() {
    auto out = all();
    return out.ok() ? "" : out.status().message();
  }
};

Tensor typed(DType t, Shape shape, const std::vector<double>& v) {
  Tensor x = *Tensor::make(t, std::move(shape), true);
  ref::store(x, v);
  return x;
}
Tensor typed(DType t, const std::vector<double>& v) { return typed(t, {int64_t(v.size())}, v); }
std::vector<double> values(const Tensor& t) { return ref::load<double>(t); }
using Values = std::vector<double>;

TEST(Arithmetic, IntegersWrapAndNeverTrap) {
  Tensor x = Tensor::vector<int32_t>({INT32_MIN, INT32_MIN, 7, -7, INT32_MAX});
  Tensor y = Tensor::vector<int32_t>({-1, 0, -2, 2, 2});
  EXPECT_EQ(values(Op("Div", {x, y}).one()), (Values{double(INT32_MIN), 0, -3, -3, 1073741823}));
  EXPECT_EQ(values(Op("Mod", {x, y}).one()), (Values{0, 0, -1, 1, 1}));
  EXPECT_EQ(values(Op("Mod", {x, y}).with("fmod", int64_t(1)).one()), (Values{0, 0, 1, -1, 1}));
  EXPECT_EQ(values(Op("Mul", {x, y}).one()), (Values{double(INT32_MIN), 0, -14, -14, -2}));
  EXPECT_EQ(values(Op("Abs", {x}).one())[0], double(INT32_MIN));
  Tensor big = Tensor::vector<int64_t>({INT64_MIN}), one = Tensor::vector<int64_t>({-1});
  EXPECT_EQ(Op("Div", {big, one}).one().as<int64_t>()[0], INT64_MIN);
  EXPECT_EQ(Op("Mod", {big, one}).one().as<int64_t>()[0], 0);
  Tensor u = Tensor::vector<uint64_t>({~uint64_t(0), uint64_t(1) << 63});
  EXPECT_EQ(Op("Add", {u, u}).one().as<uint64_t>()[0], ~uint64_t(1));
  EXPECT_EQ(Op("Div", {u, Tensor::vector<uint64_t>({2, 3})}).one().as<uint64_t>()[1], (uint64_t(1) << 63) / 3);
  EXPECT_TRUE(Op("Greater", {u, Tensor::vector<uint64_t>({1, 1})}).one().as<uint8_t>()[1]);
}

TEST(Arithmetic, ShiftsByTheWidthLeaveTheFill) {
  Tensor x = Tensor::vector<int8_t>({-128, 1, -1, 64}), y = Tensor::vector<int8_t>({8, 100, -1, 1});
  EXPECT_EQ(values(Op("BitShift", {x, y}).with("direction", "RIGHT").one()), (Values{-1, 0, -1, 32}));
  EXPECT_EQ(values(Op("BitShift", {x, y}).with("direction", "LEFT").one()), (Values{0, 0, 0, -128}));
  EXPECT_NE(Op("BitShift", {x, y}).with("direction", "UP").error().find("UP"), std::string::npos);
}

TEST(Arithmetic, PowersOfIntegers) {
  Tensor x = Tensor::vector<int32_t>({2, -1, 1, 0, 2}), y = Tensor::vector<int32_t>({10, -3, -5, 0, -1});
  EXPECT_EQ(values(Op("Pow", {x, y}).one()), (Values{1024, -1, 1, 1, 0}));
  EXPECT_EQ(values(Op("Pow", {x, typed(DType::f32, {0.5, 2, 2, 2, -1})}).one()), (Values{1, 1, 1, 0, 0}));
}

TEST(Arithmetic, NaNAndInfinityPass) {
  Tensor x = typed(DType::f32, {kNaN, -0.0, kInf, -kInf});
  for (const char* op : {"Relu", "Sign", "LeakyRelu", "HardSigmoid", "HardSwish", "Shrink", "Clip", "Softplus", "Gelu"})
    EXPECT_TRUE(std::isnan(values(Op(op, {x}).one())[0])) << op;
  EXPECT_EQ(values(Op("Softplus", {x}).one())[2], kInf);
  EXPECT_EQ(values(Op("Sigmoid", {x}).one())[3], 0);
  Tensor y = typed(DType::f32, {1, 1, 1, 1});
  for (const char* op : {"Max", "Min"}) {
    EXPECT_TRUE(std::isnan(values(Op(op, {x, y}).one())[0])) << op;
    EXPECT_TRUE(std::isnan(values(Op(op, {y, x}).one())[0])) << op;
  }
  EXPECT_EQ(values(Op("Round", {typed(DType::f32, {0.5, 1.5, -0.5, -2.5})}).one()), (Values{0, 2, 0, -2}));
  EXPECT_EQ(values(Op("Mod", {typed(DType::f64, {5, -5, 5, 0}), typed(DType::f64, {kInf, kInf, -3, -3})}).one()),
            (Values{5, kInf, -1, 0}));
}

TEST(Arithmetic, NarrowFloatsAreRoundedOnce) {
  // 2048 + 1 is half-way between two halves; the exact sum 2049.5 is above it.
  Tensor s = Op("Sum", {typed(DType::f16, {2048}), typed(DType::f16, {1}), typed(DType::f16, {0.5})}).one();
  EXPECT_EQ(values(s)[0], 2050);
  EXPECT_EQ(values(Op("ReduceSum", {typed(DType::f16, {2048, 1, 1, 1, 1})}).one())[0], 2052);
}

TEST(Reductions, EmptySetsGiveTheStart) {
  struct Ends {
    DType t;
    double low, high;
  };
  for (auto [t, low, high] :
       {Ends{DType::i8, -128, 127}, Ends{DType::u8, 0, 255}, Ends{DType::i32, INT32_MIN, INT32_MAX},
        Ends{DType::u32, 0, UINT32_MAX}, Ends{DType::f32, -kInf, kInf}, Ends{DType::f16, -kInf, kInf},
        Ends{DType::boolean, 0, 1}}) {
    Tensor x = typed(t, {0, 2}, {}), axes = Tensor::vector<int64_t>({0});
    EXPECT_EQ(values(Op("ReduceMax", {x, axes}).one()), (Values{low, low})) << name(t);
    EXPECT_EQ(values(Op("ReduceMin", {x, axes}).one()), (Values{high, high})) << name(t);
  }
  Tensor none = typed(DType::f32, {0}, {});
  EXPECT_EQ(values(Op("ReduceSum", {none}).one()), Values{0});
  EXPECT_EQ(values(Op("ReduceProd", {none}).one()), Values{1});
  EXPECT_EQ(values(Op("ReduceLogSumExp", {none}).one()), Values{-kInf});
  EXPECT_TRUE(std::isnan(values(Op("ReduceMean", {none}).one())[0]));
  EXPECT_NE(Op("ArgMax", {none}).error(), "");
}

TEST(Reductions, LogSumExpDoesNotOverflow) {
  EXPECT_NEAR(values(Op("ReduceLogSumExp", {typed(DType::f32, {1000, 1000})}).one())[0], 1000 + std::log(2), 1e-4);
  EXPECT_EQ(values(Op("ReduceLogSumExp", {typed(DType::f32, {-kInf, -kInf})}).one())[0], -kInf);
  EXPECT_EQ(values(Op("ReduceLogSumExp", {typed(DType::f32, {kInf, 0})}).one())[0], kInf);
}

TEST(Reductions, RefuseAxesThatAreNone) {
  Tensor x = typed(DType::f32, {2, 2}, {1, 2, 3, 4});
  EXPECT_NE(Op("ReduceSum", {x, Tensor::vector<int64_t>({2})}).error().find("axis 2"), std::string::npos);
  EXPECT_NE(Op("ReduceSum", {x, Tensor::vector<int64_t>({0, -2})}).error().find("twice"), std::string::npos);
  EXPECT_EQ(values(Op("ReduceSumSquare", {x}).with("noop_with_empty_axes", int64_t(1)).one()), (Values{1, 4, 9, 16}));
}

TEST(TopK, OrdersTiesAndNaN) {
  Tensor x = typed(DType::f32, {1, kNaN, 3, 3, -1}), k = Tensor::vector<int64_t>({3});
  EXPECT_EQ(values(Op("TopK", {x, k}).one(1)), (Values{1, 2, 3}));
  EXPECT_EQ(values(Op("TopK", {x, k}).with("largest", int64_t(0)).one(1)), (Values{4, 0, 2}));
  EXPECT_NE(Op("TopK", {x, Tensor::vector<int64_t>({6})}).error().find("5 elements"), std::string::npos);
}

TEST(Cast, NumbersAndTheirText) {
  auto text = [](Tensor x) { return ref::load<std::string>(Op("Cast", {x}).with("to", int64_t(DType::string)).one()); };
  using Text = std::vector<std::string>;
  EXPECT_EQ(text(typed(DType::f32, {0.1, 1, -2.5, 1e20, kNaN, kInf, -kInf})),
            (Text{"0.1", "1", "-2.5", "1e+20", "NaN", "INF", "-INF"}));
  EXPECT_EQ(text(Tensor::vector<double>({0.1, 1.0 / 3})), (Text{"0.1", "0.3333333333333333"}));
  EXPECT_EQ(text(Tensor::vector<uint64_t>({~uint64_t(0)})), Text{"18446744073709551615"});
  EXPECT_EQ(text(Tensor::vector<int64_t>({INT64_MIN})), Text{"-9223372036854775808"});
  EXPECT_EQ(text(Tensor::vector<bool>({true, false})), (Text{"1", "0"}));

  auto number = [](const char* s, DType to) {
    return Op("Cast", {Tensor::vector<std::string>({s})}).with("to", int64_t(to));
  };
  auto parsed = [&](const char* s, DType to = DType::f32) { return values(number(s, to).one())[0]; };
  EXPECT_EQ(parsed("1E8"), 1e8);
  EXPECT_EQ(parsed("1e-5"), double(1e-5f));
  EXPECT_EQ(parsed(" 3.25 "), 3.25);
  for (const char* s : {"INF", "+INF", "inf"}) EXPECT_EQ(parsed(s), kInf) << s;
  EXPECT_EQ(parsed("-Inf"), -kInf);
  EXPECT_TRUE(std::isnan(parsed("nan")));
  EXPECT_EQ(parsed("1e400", DType::f64), kInf);
  EXPECT_EQ(parsed("1e-400", DType::f64), 0);
  EXPECT_EQ(parsed("100.5", DType::i32), 100);
  EXPECT_EQ(number("18446744073709551615", DType::u64).one().as<uint64_t>()[0], ~uint64_t(0));
  EXPECT_EQ(number("-9223372036854775808", DType::i64).one().as<int64_t>()[0], INT64_MIN);
  for (const char* s : {"", "Hello", "1.2.3", "+-1", "0x", "1e"})
    EXPECT_NE(number(s, DType::f32).error().find("not a number"), std::string::npos) << s;
}

TEST(Cast, RefusesUnknownTypesAndModes) {
  Graph g;
  g.inputs = {g.add_value("x", Type::tensor(DType::f32, {2}))};
  Node& n = g.add_node("Cast", {0}, {g.add_value("y")});
  n.def = find_op("", "Cast");
  n.set("to", int64_t(99));
  EXPECT_NE(infer_types(g).message().find("99"), std::string::npos);
  EXPECT_NE(Op("Cast", {typed(DType::f32, {1})})
                .with("to", int64_t(DType::f8e8m0))
                .with("round_mode", "sideways")
                .error()
                .find("sideways"),
            std::string::npos);
  EXPECT_NE(Op("BitCast", {typed(DType::f32, {1})}).with("to", int64_t(DType::i64)).error().find("width"),
            std::string::npos);
}

TEST(Range, CountsWithoutOverflow) {
  auto range = [](int64_t a, int64_t b, int64_t d) {
    return Op("Range", {Tensor::scalar(a), Tensor::scalar(b), Tensor::scalar(d)});
  };
  EXPECT_EQ(values(range(INT64_MAX - 2, INT64_MAX, 1).one()).size(), 2u);
  EXPECT_EQ(range(INT64_MAX, INT64_MIN, INT64_MIN).one().count(), 2);
  EXPECT_EQ(range(0, 5, -1).one().count(), 0);
  EXPECT_EQ(values(range(5, 0, -2).one()), (Values{5, 3, 1}));
  EXPECT_NE(range(0, 5, 0).error(), "");
  EXPECT_NE(range(INT64_MIN, INT64_MAX, 1).error(), "");
  EXPECT_NE(Op("Range", {Tensor::scalar(0.0f), Tensor::scalar(float(kNaN)), Tensor::scalar(1.0f)}).error(), "");
}

TEST(Einsum, RefusesMalformedEquations) {
  Tensor m = typed(DType::f32, {2, 2}, {1, 2, 3, 4});
  EXPECT_EQ(values(Op("Einsum", {m, m, m}).with("equation", "ij,jk,kl->il").one()), (Values{37, 54, 81, 118}));
  EXPECT_EQ(values(Op("Einsum", {m}).with("equation", "ii").one()), Values{5});
  EXPECT_EQ(values(Op("Einsum", {m}).with("equation", "ba").one()), (Values{1, 3, 2, 4}));
  for (const char* e : {"", "i", "ijk", "ij->k", "ij->ii", "ij,jk->ik", "i.j", "......", "i1->i", "->", "ij->i...."})
    EXPECT_NE(Op("Einsum", {m}).with("equation", e).error(), "") << e;
}

TEST(Quantisation, RoundsHalfToEvenAndSaturates) {
  Tensor x = typed(DType::f32, {0.5, 1.5, 2.5, -0.5, 1000, -1000, kNaN}), scale = Tensor::scalar(1.0f);
  EXPECT_EQ(values(Op("QuantizeLinear", {x, scale, Tensor::scalar<uint8_t>(10)}).one()),
            (Values{10, 12, 12, 10, 255, 0, 0}));
  EXPECT_EQ(values(Op("QuantizeLinear", {x, scale}).with("output_dtype", int64_t(DType::i4)).one()),
            (Values{0, 2, 2, 0, 7, -8, -8}));
  Tensor w = typed(DType::i8, {1, 5}, {1, 2, 3, 4, 5}), scales = typed(DType::f32, {1, 3}, {1, 10, 100});
  EXPECT_EQ(values(Op("DequantizeLinear", {w, scales}).with("axis", int64_t(1)).with("block_size", int64_t(2)).one()),
            (Values{1, 2, 30, 40, 500}));
  EXPECT_NE(Op("DequantizeLinear", {w, scales}).with("block_size", int64_t(3)).error().find("does not fit"),
            std::string::npos);
  EXPECT_NE(
      Op("DequantizeLinear", {w, typed(DType::f32, {1, 2})}).with("axis", int64_t(1)).error().find("does not fit"),
      std::string::npos);
}

TEST(Quantisation, PackedWeightsAreCheckedAgainstTheirAttributes) {
  auto run = [](int64_t k, int64_t n, int64_t block, int64_t bits) {
    return Op("MatMulNBits",
              {typed(DType::f32, {1, 16}, Values(16, 1)), typed(DType::u8, {2, 1, 8}, Values(16, 0x21)),
               typed(DType::f32, {2, 1}, {1, 2})},
              "com.microsoft")
        .with("K", k)
        .with("N", n)
        .with("block_size", block)
        .with("bits", bits);
  };
  EXPECT_EQ(values(run(16, 2, 16, 4).one()), (Values{8 * (1 - 8) + 8 * (2 - 8), 2 * (8 * (1 - 8) + 8 * (2 - 8))}));
  for (auto [k, n, block, bits] : {std::array<int64_t, 4>{16, 2, 16, 3},
                                   {17, 2, 16, 4},
                                   {16, 3, 16, 4},
                                   {16, 2, 0, 4},
                                   {16, 2, 8, 4},
                                   {-1, 2, 16, 4},
                                   {16, int64_t(1) << 60, 16, 4}})
    EXPECT_NE(run(k, n, block, bits).error(), "") << k << " " << n << " " << block << " " << bits;
}

TEST(RandomOperators, SeedsRepeatAndMomentsAreRight) {
  auto draw = [](const char* op, float seed) {
    return Op(op).with("shape", std::vector<int64_t>{20000}).with("seed", seed).one();
  };
  for (const char* op : {"RandomNormal", "RandomUniform"}) {
    Tensor a = draw(op, 1), b = draw(op, 1), c = draw(op, 2);
    EXPECT_TRUE(identical(a, b)) << op;
    EXPECT_FALSE(identical(a, c)) << op;
    double sum = 0, squares = 0;
    for (double v : values(a)) sum += v, squares += v * v;
    double mean = sum / 20000, variance = squares / 20000 - mean * mean;
    bool normal = std::string(op) == "RandomNormal";
    EXPECT_NEAR(mean, normal ? 0 : 0.5, 0.03) << op;
    EXPECT_NEAR(variance, normal ? 1 : 1.0 / 12, 0.03) << op;
  }
  Tensor p = typed(DType::f32, {0, 1, 0, 1});
  EXPECT_EQ(values(Op("Bernoulli", {p}).one()), (Values{0, 1, 0, 1}));
  Tensor logits = typed(DType::f32, {1, 3}, {-kInf, 0, -kInf});
  EXPECT_EQ(values(Op("Multinomial", {logits}).with("sample_size", int64_t(4)).one()), (Values{1, 1, 1, 1}));
}

TEST(Losses, IgnoredClassesCountForNothing) {
  Tensor x = typed(DType::f32, {3, 2}, {-1, -2, -3, -4, -5, -6}), labels = Tensor::vector<int64_t>({0, 7, 1});
  EXPECT_EQ(values(Op("NegativeLogLikelihoodLoss", {x, labels}).with("ignore_index", int64_t(7)).one())[0], 3.5);
  EXPECT_NE(Op("NegativeLogLikelihoodLoss", {x, labels}).error().find("class 7"), std::string::npos);
  EXPECT_NE(Op("NegativeLogLikelihoodLoss", {x, labels}).with("reduction", "max").error().find("max"),
            std::string::npos);
}

TEST(Types, InputsThatShareAVariableAgree) {
  EXPECT_NE(Op("Add", {typed(DType::f32, {1}), typed(DType::i32, {1})}).error().find("one element type"),
            std::string::npos);
  EXPECT_NE(Op("Add", {typed(DType::f32, {1})}).error().find("lacks its input"), std::string::npos);
  EXPECT_NE(Op("Floor", {typed(DType::i32, {1})}).error().find("does not take"), std::string::npos);
}

}  // namespace
}  // namespace ai_vmm
