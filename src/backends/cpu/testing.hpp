// For tests of the CPU backend: small graphs run by the program under test and by the reference semantics.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "backends/cpu/program.hpp"
#include "base/numbers.hpp"
#include "ops/op.hpp"

namespace ai_vmm::cpu::testing {

inline Tensor random_tensor(Shape shape, uint32_t seed, float low = -1, float high = 1) {
  std::mt19937 gen(seed);
  std::uniform_real_distribution<float> d(low, high);
  Tensor t = *Tensor::make(DType::f32, std::move(shape));
  for (float& x : t.as_mutable<float>()) x = d(gen);
  return t;
}

struct Net {
  Graph g;
  ValueId input(DType dtype, std::vector<Dim> dims, const char* name = "") {
    ValueId v = g.add_value(name, Type::tensor(dtype, std::move(dims)));
    g.inputs.push_back(v);
    return v;
  }
  ValueId constant(Tensor t) { return g.add_constant("", std::move(t)); }
  std::vector<ValueId> op(const char* name, std::vector<ValueId> in, std::vector<Attribute> attributes = {},
                          int outputs = 1, const char* domain = "") {
    std::vector<ValueId> out;
    for (int k = 0; k < outputs; ++k) out.push_back(g.add_value(""));
    Node& n = g.add_node(name, std::move(in), out, domain);
    n.def = find_op(domain, name);
    n.attributes = std::move(attributes);
    return out;
  }
};

inline std::vector<Tensor> run_reference(const Graph& g, const std::vector<Tensor>& inputs) {
  std::vector<Data> slots(g.values.size());
  for (size_t i = 0; i < g.values.size(); ++i)
    if (g.values[i].constant) slots[i] = Data(g.values[i].constant);
  for (size_t k = 0; k < inputs.size(); ++k) slots[size_t(g.inputs[k])] = Data(inputs[k]);
  Random random;
  for (const Node& n : g.nodes) {
    std::vector<Data> in;
    for (ValueId v : n.inputs) in.push_back(v == kAbsent ? Data() : slots[size_t(v)]);
    auto out = evaluate(n, in, random);
    EXPECT_TRUE(out.ok()) << (out.ok() ? "" : out.status().message());
    if (!out.ok()) return {};
    for (size_t k = 0; k < n.outputs.size(); ++k)
      if (n.outputs[k] != kAbsent) slots[size_t(n.outputs[k])] = (*out)[k];
  }
  std::vector<Tensor> results;
  for (ValueId v : g.outputs) results.push_back(slots[size_t(v)].tensor());
  return results;
}

// |y - r| <= 1e-4 max|r| + 1e-4 |r|; integers are equal.
inline void expect_close(const Tensor& y, const Tensor& r, const std::string& what = "") {
  ASSERT_EQ(y.dtype(), r.dtype()) << what;
  ASSERT_EQ(y.shape(), r.shape()) << what;
  double most = 0;
  for (int64_t i = 0; i < r.count(); ++i)
    if (double v = std::abs(read_double(r.dtype(), r.data(), i)); std::isfinite(v)) most = std::max(most, v);
  for (int64_t i = 0; i < r.count(); ++i) {
    double a = read_double(y.dtype(), y.data(), i), b = read_double(r.dtype(), r.data(), i);
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    ASSERT_LE(std::abs(a - b), is_float(r.dtype()) ? 1e-4 * most + 1e-4 * std::abs(b) : 0)
        << what << " element " << i << ": " << a << " instead of " << b;
  }
}

// Compiles the graph once and compares with the reference on each set of inputs, twice each.
inline void compare(Net& net, const std::vector<std::vector<Tensor>>& runs) {
  Status inferred = infer_types(net.g);
  ASSERT_TRUE(inferred.ok()) << inferred.message();
  auto program = Program::compile(net.g.clone(), {});
  ASSERT_TRUE(program.ok()) << program.status().message();
  Context context(*program);
  for (const auto& inputs : runs) {
    auto expected = run_reference(net.g, inputs);
    for (int round = 0; round < 2; ++round) {
      auto got = context.run(inputs);
      ASSERT_TRUE(got.ok()) << got.status().message() << "\n" << (*program)->to_text();
      ASSERT_EQ(got->size(), expected.size());
      for (size_t k = 0; k < expected.size(); ++k)
        expect_close((*got)[k], expected[k], "output " + std::to_string(k) + "\n" + (*program)->to_text());
    }
  }
}

}  // namespace ai_vmm::cpu::testing
