#include "graph/dim.hpp"

#include <gtest/gtest.h>

#include <random>

namespace ai_vmm {
namespace {

Dim N() { return Dim::symbol("N"); }
Dim M() { return Dim::symbol("M"); }

Dim parsed(std::string_view text) {
  auto d = Dim::parse(text);
  EXPECT_TRUE(d.ok()) << text;
  return d.ok() ? *d : Dim(-999);
}

TEST(Dim, SumsAndProductsHaveOneNormalForm) {
  EXPECT_EQ((N() + 1) * (N() - 1), N() * N() - 1);
  EXPECT_EQ(N() * M() + M(), M() * (N() + 1));
  EXPECT_EQ(N() - N(), Dim(0));
  EXPECT_EQ((N() + M()) - M(), N());
  EXPECT_TRUE((N() * 0).is(0));
  EXPECT_TRUE(N().is_symbol());
  EXPECT_FALSE((N() * 2).is_symbol());
  EXPECT_FALSE((N() + 1).is_constant());
}

TEST(Dim, QuotientsSimplifyWhereTheyAreExact) {
  EXPECT_EQ(floor_div(N() * M() * 6, M() * 2), N() * 3);
  EXPECT_EQ(floor_div(N() * 2 + 3, 2), N() + 1);
  EXPECT_EQ(ceil_div(N() * 4, 4), N());
  EXPECT_EQ(mod(N() * 12, 4), Dim(0));
  EXPECT_EQ(exact_div(N() * N() - 1, N() - 1), N() + 1);
  EXPECT_EQ(exact_div(N() * M(), N()), M());
  EXPECT_EQ(floor_div(-7, 2), Dim(-4));
  EXPECT_EQ(ceil_div(-7, 2), Dim(-3));
  EXPECT_EQ(mod(-7, 3), Dim(2));
  EXPECT_EQ(mod(7, -3), Dim(-2));
}

TEST(Dim, ExtremesAndBroadcastingSimplify) {
  EXPECT_EQ(max(N() + 1, N()), N() + 1);
  EXPECT_EQ(min(N() + 1, N()), N());
  EXPECT_EQ(max(N(), M()), max(M(), N()));
  EXPECT_EQ(bcast(N(), 1), N());
  EXPECT_EQ(bcast(1, N()), N());
  EXPECT_EQ(bcast(N(), N()), N());
  EXPECT_EQ(bcast(N(), 7), Dim(7));
  EXPECT_EQ(bcast(N(), M()), bcast(M(), N()));
}

TEST(Dim, KnowsOnlyWhatHoldsForAllSizes) {
  EXPECT_TRUE(known_equal(N() + N(), N() * 2));
  EXPECT_TRUE(known_different(N() + 1, N()));
  EXPECT_FALSE(known_different(N(), M()));
  EXPECT_FALSE(known_equal(N(), M()));
  EXPECT_TRUE(known_non_negative(N() * M() + 3));
  EXPECT_TRUE(known_non_negative(max(N() - 5, 0)));
  EXPECT_TRUE(known_non_negative(mod(N() - 5, 3)));
  EXPECT_FALSE(known_non_negative(N() - 1));
  EXPECT_FALSE(known_non_negative(floor_div(N() - 3, 2)));
}

TEST(Dim, SymbolsAreCleanNames) {
  EXPECT_EQ(Dim::symbol("batch size").to_string(), "batch_size");
  EXPECT_EQ(Dim::symbol("0").to_string(), "_0");
  EXPECT_EQ(Dim::symbol("").to_string(), "_");
  EXPECT_EQ(Dim::symbol("a+b").to_string(), "a_b");
}

TEST(Dim, ParsesWhatItPrints) {
  for (const char* text : {"0", "-5", "N", "2*N + 1", "N*M - 3*M", "floor_div(N + 1, 2)", "max(M, N)", "bcast(M, N)*2",
                           "mod(N, 3) - min(M, N)", "ceil_div(N, M)"}) {
    Dim d = parsed(text);
    EXPECT_EQ(parsed(d.to_string()), d) << text;
  }
  EXPECT_EQ(parsed(" ( N + 1 ) * 2 "), N() * 2 + 2);
}

TEST(Dim, RefusesTextThatIsNoExpression) {
  for (const char* text :
       {"", "+", "N +", "(N", "N)", "2N", "99999999999999999999", "foo(N, 1)", "max(N)", "N N", "a,b", "$"})
    EXPECT_FALSE(Dim::parse(text).ok()) << text;
  EXPECT_FALSE(Dim::parse(std::string(100000, '(')).ok());
}

TEST(Dim, EvaluationFailsRatherThanTraps) {
  auto bind = [](int64_t n, int64_t m) {
    return [=](std::string_view s) -> std::optional<int64_t> {
      if (s == "N") return n;
      if (s == "M") return m;
      return std::nullopt;
    };
  };
  EXPECT_EQ(floor_div(N(), M()).evaluate(bind(7, 0)), std::nullopt);
  EXPECT_EQ(mod(N(), M()).evaluate(bind(7, 0)), std::nullopt);
  EXPECT_EQ(bcast(N(), M()).evaluate(bind(2, 3)), std::nullopt);
  EXPECT_EQ(bcast(N(), M()).evaluate(bind(2, 1)), 2);
  EXPECT_EQ((N() * M()).evaluate(bind(int64_t(1) << 40, int64_t(1) << 40)), std::nullopt);
  EXPECT_EQ((N() + Dim::symbol("K")).evaluate(bind(1, 1)), std::nullopt);
  EXPECT_TRUE(floor_div(N(), M()).evaluate(bind(INT64_MIN, -1)).has_value());
  EXPECT_EQ(mod(N(), M()).evaluate(bind(INT64_MIN, -1)), 0);
  EXPECT_TRUE(floor_div(INT64_MIN, -1).is(INT64_MAX));
  EXPECT_TRUE((Dim(INT64_MAX) + 1).is_constant());
}

TEST(Dim, GrowthIsBounded) {
  Dim square = N() + M(), quotient = N(), extreme = N();
  for (int i = 0; i < 200; ++i) {
    square = square * square;
    quotient = floor_div(quotient, quotient + 1);
    extreme = max(extreme + 1, extreme * M());
  }
  for (const Dim& d : {square, quotient, extreme}) EXPECT_LT(d.to_string().size(), 100000u);
}

// Random expressions, built beside a function that computes them: evaluation, printing, parsing and substitution agree.
TEST(Dim, AgreesWithArithmetic) {
  using Function = std::function<std::optional<int64_t>(const std::vector<int64_t>&)>;
  const std::vector<std::string> names = {"a", "b", "c"};
  std::mt19937_64 random(20261121);
  auto pick = [&](int64_t n) { return int64_t(random() % uint64_t(n)); };
  auto floored = [](int64_t x, int64_t y) { return x / y - (x % y != 0 && (x < 0) != (y < 0)); };

  struct Pair {
    Dim dim;
    Function compute;
  };
  std::function<Pair(int)> build = [&](int depth) -> Pair {
    if (depth == 0 || pick(5) == 0) {
      if (pick(2)) {
        int64_t v = pick(9) - 2;
        return {Dim(v), [v](const auto&) { return std::optional<int64_t>(v); }};
      }
      size_t k = size_t(pick(3));
      return {Dim::symbol(names[k]), [k](const auto& at) { return std::optional<int64_t>(at[k]); }};
    }
    Pair x = build(depth - 1), y = build(depth - 1);
    auto both = [&](Dim d, std::function<std::optional<int64_t>(int64_t, int64_t)> f) {
      return Pair{std::move(d), [f, p = x.compute, q = y.compute](const auto& at) -> std::optional<int64_t> {
                    auto u = p(at), v = q(at);
                    return u && v ? f(*u, *v) : std::nullopt;
                  }};
    };
    using Maybe = std::optional<int64_t>;
    switch (pick(8)) {
      case 0: return both(x.dim + y.dim, [](int64_t u, int64_t v) { return Maybe(u + v); });
      case 1: return both(x.dim - y.dim, [](int64_t u, int64_t v) { return Maybe(u - v); });
      case 2: return both(x.dim * y.dim, [](int64_t u, int64_t v) { return Maybe(u * v); });
      case 3: return both(max(x.dim, y.dim), [](int64_t u, int64_t v) { return Maybe(std::max(u, v)); });
      case 4: return both(min(x.dim, y.dim), [](int64_t u, int64_t v) { return Maybe(std::min(u, v)); });
      case 5:
        return both(floor_div(x.dim, y.dim), [=](int64_t u, int64_t v) { return v ? Maybe(floored(u, v)) : Maybe(); });
      case 6:
        return both(ceil_div(x.dim, y.dim), [=](int64_t u, int64_t v) { return v ? Maybe(-floored(-u, v)) : Maybe(); });
      default:
        return both(mod(x.dim, y.dim),
                    [=](int64_t u, int64_t v) { return v ? Maybe(u - v * floored(u, v)) : Maybe(); });
    }
  };

  int compared = 0;
  for (int round = 0; round < 3000; ++round) {
    Pair p = build(1 + int(pick(4)));
    auto again = Dim::parse(p.dim.to_string());
    ASSERT_TRUE(again.ok()) << p.dim.to_string();
    EXPECT_EQ(*again, p.dim) << p.dim.to_string();
    for (int i = 0; i < 8; ++i) {
      std::vector<int64_t> at = {pick(7), pick(7), pick(7)};
      auto expected = p.compute(at);
      if (!expected) continue;  // a division by zero, which simplification may have removed
      auto index = [&](std::string_view s) { return size_t(s[0] - 'a'); };
      auto value = p.dim.evaluate([&](std::string_view s) { return std::optional<int64_t>(at[index(s)]); });
      ASSERT_TRUE(value) << p.dim.to_string();
      EXPECT_EQ(*value, *expected) << p.dim.to_string() << " at " << at[0] << " " << at[1] << " " << at[2];
      auto constant = p.dim.substitute([&](std::string_view s) { return std::optional<Dim>(at[index(s)]); });
      EXPECT_TRUE(constant.is(*expected)) << p.dim.to_string() << " became " << constant.to_string();
      EXPECT_TRUE(*value >= 0 || !known_non_negative(p.dim)) << p.dim.to_string();
      ++compared;
    }
  }
  EXPECT_GT(compared, 10000);
}

}  // namespace
}  // namespace ai_vmm
