// Every kernel of the list in kernels/kernels.hpp on every instruction set that this machine has, against plain loops.
#include "backends/cpu/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace ai_vmm::cpu {
namespace {

using Floats = std::vector<float>;

Floats random_floats(size_t n, uint32_t seed, float low = -1, float high = 1) {
  std::mt19937 gen(seed);
  std::uniform_real_distribution<float> d(low, high);
  Floats v(n);
  for (float& x : v) x = d(gen);
  return v;
}

class PerIsa : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    table = kernels(GetParam());
    if (!table) GTEST_SKIP() << "this machine lacks " << name(GetParam());
  }
  const Kernels* table = nullptr;
};

TEST_P(PerIsa, ProductsWithEpilogues) {
  GemmShape shape;
  table->gemm_shape(&shape);
  Floats scratch(size_t(table->gemm_scratch()));
  for (auto [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                            {1, 70, 33},
                                                            {2, 100, 9},
                                                            {3, 64, 5},
                                                            {4, 33, 40},
                                                            {5, 17, 20},
                                                            {14, 32, 8},
                                                            {29, 200, 7},
                                                            {300, 40, 30},
                                                            {7, 300, 2100}}) {
    for (bool packed_a : {false, true}) {
      Floats a = random_floats(size_t(m * k), 1), b = random_floats(size_t(k * n), 2),
             bias = random_floats(size_t(n), 3), c = random_floats(size_t(m * n), 4),
             rows = random_floats(size_t(m), 5);
      Floats residual = c;
      int64_t a_row = packed_a ? 1 : k, a_col = packed_a ? m : 1, panels = (n + shape.nr - 1) / shape.nr;
      Floats packed(size_t(table->gemm_packed_size(k, n)));
      table->gemm_pack(k, n, b.data(), packed_a ? 1 : n, packed_a ? k : 1, packed.data(), 0, panels);
      Gemm g{m,           n,        k, a.data(),       a_row, a_col, packed.data(), c.data(), n, 0.5f,
             bias.data(), c.data(), n, int(Act::relu), 0,     0,     rows.data()};
      table->gemm_run(&g, 0, m, 0, panels, scratch.data());
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          double s = 0;
          for (int64_t p = 0; p < k; ++p)
            s += double(a[size_t(i * a_row + p * a_col)]) * b[size_t(packed_a ? j * k + p : p * n + j)];
          s = std::max(0.0, 0.5 * s + bias[size_t(j)] + residual[size_t(i * n + j)] + rows[size_t(i)]);
          ASSERT_NEAR(c[size_t(i * n + j)], s, 1e-4 * std::sqrt(double(k)) + 1e-5)
              << m << "x" << n << "x" << k << " at " << i << "," << j;
        }
    }
  }
}

TEST_P(PerIsa, MatrixTimesVector) {
  for (int64_t k : {1, 5, 64, 301})
    for (int64_t n : {1, 16, 77, 200}) {
      Floats x = random_floats(size_t(k), 1), b = random_floats(size_t(k * n), 2);
      for (bool columns : {false, true}) {
        Floats y(size_t(n), -7.0f);
        table->gemv(k, x.data(), 1, b.data(), columns ? 1 : n, columns ? k : 1, y.data(), 2.0f, 0, n);
        for (int64_t j = 0; j < n; ++j) {
          double s = 0;
          for (int64_t p = 0; p < k; ++p) s += double(x[size_t(p)]) * b[size_t(columns ? j * k + p : p * n + j)];
          ASSERT_NEAR(y[size_t(j)], 2 * s, 1e-4) << k << "x" << n;
        }
      }
    }
}

TEST_P(PerIsa, ElementwiseFunctions) {
  const std::pair<const char*, std::function<double(double)>> kRules[] = {
      {"Exp", [](double x) { return std::exp(x); }},
      {"Tanh", [](double x) { return std::tanh(x); }},
      {"Sin", [](double x) { return std::sin(x); }},
      {"Cos", [](double x) { return std::cos(x); }},
      {"Erf", [](double x) { return std::erf(x); }},
      {"Sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }},
      {"Log", [](double x) { return std::log(x); }},
      {"Sqrt", [](double x) { return std::sqrt(x); }},
      {"Floor", [](double x) { return std::floor(x); }},
      {"Ceil", [](double x) { return std::ceil(x); }},
      {"Round", [](double x) { return std::nearbyint(x); }},
      {"Softplus", [](double x) { return std::log1p(std::exp(x)); }},
      {"GeluErf", [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }},
      {"Abs", [](double x) { return std::abs(x); }},
      {"Reciprocal", [](double x) { return 1 / x; }},
      {"Mish", [](double x) { return x * std::tanh(std::log1p(std::exp(x))); }},
      {"GeluTanh",
       [](double x) { return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }}};
  int count = 0;
  const BlockEntry* entries = table->block_functions(&count);
  Floats x = random_floats(1000, 1, -20, 20), tiny = random_floats(40, 2, -1e-3f, 1e-3f);
  x.insert(x.end(), tiny.begin(), tiny.end());
  for (float special : {0.0f, -0.0f, 0.5f, 1.5f, -2.5f, 88.0f, -88.0f, 0.625f, 1.0f, 3e8f}) x.push_back(special);
  x.push_back(std::nanf(""));
  for (const auto& [op, rule] : kRules)
    for (int e = 0; e < count; ++e) {
      if (entries[e].in != 1 || std::strcmp(entries[e].op, op) != 0) continue;
      Floats y(x.size());
      entries[e].fn(y.data(), x.data(), nullptr, nullptr, int64_t(x.size()), nullptr);
      for (size_t i = 0; i < x.size(); ++i) {
        double r = rule(x[i]);
        if (std::isnan(r)) {
          EXPECT_TRUE(std::isnan(y[i])) << op << "(" << x[i] << ")";
        } else if (!(float(r) == y[i])) {
          // Relative, and for values near a zero of the function relative to its argument.
          EXPECT_NEAR(y[i], r, 2e-6 * std::abs(r) + 4e-7 * std::min(1.0, std::abs(double(x[i]))))
              << op << "(" << x[i] << ")";
        }
      }
    }
}

TEST_P(PerIsa, RowsOfAllLengths) {
  for (int64_t n : {1, 3, 15, 16, 17, 64, 100, 257}) {
    Floats x = random_floats(size_t(n), uint32_t(n), -5, 5), w = random_floats(size_t(n), 2), y(static_cast<size_t>(n)),
           z(size_t(n) * 3);
    double sum = 0, squares = 0, most = -1e9, least = 1e9, magnitudes = 0, total = 0;
    for (float v : x)
      sum += v, squares += double(v) * v, most = std::max<double>(most, v), least = std::min<double>(least, v),
                                          magnitudes += std::abs(v);
    for (float v : x) total += std::exp(v - most);
    EXPECT_NEAR(table->reduce_row(x.data(), n, 0), sum, 1e-4);
    EXPECT_EQ(table->reduce_row(x.data(), n, 1), float(most));
    EXPECT_EQ(table->reduce_row(x.data(), n, 2), float(least));
    EXPECT_NEAR(table->reduce_row(x.data(), n, 4), squares, 1e-3);
    EXPECT_NEAR(table->reduce_row(x.data(), n, 5), magnitudes, 1e-4 * double(n));
    for (int log : {0, 1}) {
      table->softmax_row(x.data(), nullptr, 1, y.data(), n, log);
      Floats twice(size_t(n) * 2), out(size_t(n) * 2);
      for (int64_t i = 0; i < n; ++i) twice[size_t(2 * i)] = twice[size_t(2 * i + 1)] = x[size_t(i)];
      table->softmax_columns(twice.data(), out.data(), n, 2, log);
      for (int64_t i = 0; i < n; ++i) {
        double r = std::exp(x[size_t(i)] - most) / total;
        EXPECT_NEAR(y[size_t(i)], log ? std::log(r) : r, log ? 1e-5 : 1e-6);
        EXPECT_NEAR(out[size_t(2 * i + 1)], log ? std::log(r) : r, log ? 1e-5 : 1e-6);
      }
    }
    float mean, variance;
    table->moments(x.data(), n, &mean, &variance);
    EXPECT_NEAR(mean, sum / double(n), 1e-5);
    table->norm_row(x.data(), nullptr, nullptr, w.data(), nullptr, 1e-5f, 0, y.data(), n, nullptr, nullptr);
    double var = 0;
    for (float v : x) var += (v - sum / double(n)) * (v - sum / double(n));
    EXPECT_NEAR(variance, var / double(n), 1e-4);
    for (int64_t i = 0; i < n; ++i)
      EXPECT_NEAR(y[size_t(i)], (x[size_t(i)] - sum / double(n)) / std::sqrt(var / double(n) + 1e-5) * w[size_t(i)],
                  1e-4);
    Floats acc = x;
    table->reduce_into(acc.data(), w.data(), n, 0);
    table->affine(x.data(), 2, 1, y.data(), n);
    Floats relu = x;
    table->activate_row(relu.data(), n, int(Act::relu), 0, 0);
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_FLOAT_EQ(acc[size_t(i)], x[size_t(i)] + w[size_t(i)]);
      EXPECT_FLOAT_EQ(y[size_t(i)], x[size_t(i)] * 2 + 1);
      EXPECT_EQ(relu[size_t(i)], std::max(0.0f, x[size_t(i)]));
    }
    Floats matrix = random_floats(size_t(n) * 20, 4), turned(size_t(n) * 20);
    table->transpose(matrix.data(), n, 20, 20, turned.data(), n);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < 20; ++j) ASSERT_EQ(turned[size_t(j * n + i)], matrix[size_t(i * 20 + j)]);
  }
}

TEST_P(PerIsa, PoolsInRowsAndBlocks) {
  PoolShape p{{1, 7, 9}, {1, 4, 5}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}, false};
  for (int block : {1, 8, 16})
    for (int maximum : {0, 1}) {
      if (block == 8 && GetParam() == Isa::avx512) continue;  // blocks are whole vectors
      Floats x = random_floats(size_t(63 * block), 1), y(size_t(20 * block)), all(static_cast<size_t>(block));
      table->pool_plane(&p, x.data(), y.data(), block, maximum);
      for (int c = 0; c < block; ++c)
        for (int oy = 0; oy < 4; ++oy)
          for (int ox = 0; ox < 5; ++ox) {
            double v = maximum ? -1e9 : 0;
            int n = 0;
            for (int h = std::max(0, oy * 2 - 1); h < std::min(7, oy * 2 + 2); ++h)
              for (int w = std::max(0, ox * 2 - 1); w < std::min(9, ox * 2 + 2); ++w, ++n) {
                double e = x[size_t((h * 9 + w) * block + c)];
                v = maximum ? std::max(v, e) : v + e;
              }
            ASSERT_NEAR(y[size_t((oy * 5 + ox) * block + c)], maximum ? v : v / n, 1e-6);
          }
      if (block == 1) continue;
      table->pool_all(x.data(), 63, all.data(), block, maximum);
      for (int c = 0; c < block; ++c) {
        double v = maximum ? -1e9 : 0;
        for (int i = 0; i < 63; ++i)
          v = maximum ? std::max<double>(v, x[size_t(i * block + c)]) : v + x[size_t(i * block + c)];
        ASSERT_NEAR(all[size_t(c)], maximum ? v : v / 63, 1e-6);
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, PerIsa, ::testing::Values(Isa::generic, Isa::avx2, Isa::avx512),
                         [](const auto& info) { return std::string(name(info.param)); });

}  // namespace
}  // namespace ai_vmm::cpu
