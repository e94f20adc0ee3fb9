#include "place/placement.hpp"

#include <gtest/gtest.h>

#include <random>

#include "ops/op.hpp"

namespace ai_vmm {
namespace {

// A random DAG of `n` nodes, each reading up to three earlier values.
Graph random_graph(std::mt19937& random, int n) {
  Graph g;
  g.inputs.push_back(g.add_value("x", Type::tensor(DType::f32, {Dim(2)})));
  for (int i = 0; i < n; ++i) {
    std::vector<ValueId> in;
    for (int k = 0; k < 1 + int(random() % 3); ++k) in.push_back(ValueId(random() % g.values.size()));
    ValueId out = g.add_value("v" + std::to_string(i), Type::tensor(DType::f32, {Dim(2)}));
    g.add_node("Sum", in, {out});
  }
  g.outputs.push_back(ValueId(g.values.size() - 1));
  return g;
}

TEST(Regions, AreCompleteConvexAndInOrder) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    Graph g = random_graph(random, 2 + int(random() % 30));
    std::vector<int> device;
    for (size_t n = 0; n < g.nodes.size(); ++n) device.push_back(int(random() % 4) - 1);
    auto regions = make_regions(g, device);
    std::vector<int> region_of(g.nodes.size(), -1);
    for (size_t r = 0; r < regions.size(); ++r)
      for (int n : regions[r].nodes) {
        ASSERT_EQ(region_of[size_t(n)], -1);
        region_of[size_t(n)] = int(r);
        ASSERT_EQ(device[size_t(n)], regions[r].device);
      }
    auto producer = g.producers();
    for (size_t n = 0; n < g.nodes.size(); ++n) {
      ASSERT_GE(region_of[n], 0);
      // An edge from a later region to an earlier one would be a cycle or a wrong order; without one, regions are
      // convex.
      for (ValueId v : g.nodes[n].inputs)
        if (int p = producer[size_t(v)]; p >= 0) {
          ASSERT_LE(region_of[size_t(p)], region_of[n]) << "round " << round;
        }
    }
  }
}

TEST(Extract, TakesInputsOutputsAndSymbols) {
  Graph g;
  ValueId x = g.add_value("x", Type::tensor(DType::f32, {Dim::symbol("u0") * 2}));
  ValueId a = g.add_value("a"), b = g.add_value("b");
  g.inputs = {x};
  g.add_node("Relu", {x}, {a}).def = find_op("", "Relu");
  g.add_node("Exp", {a}, {b}).def = find_op("", "Exp");
  g.outputs = {b};
  ASSERT_TRUE(infer_types(g).ok());
  std::vector<ValueId> in, out;
  auto r = extract(g, {0, {1}}, in, out);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(in, std::vector<ValueId>{a});
  EXPECT_EQ(out, std::vector<ValueId>{b});
  // 2*u0 cannot be solved for u0 inside the region, so the size has a name of its own there, the same on both sides.
  EXPECT_TRUE(r->value(r->inputs[0]).type.dims[0].is_symbol());
  EXPECT_EQ(r->value(r->inputs[0]).type, r->value(r->outputs[0]).type);
  EXPECT_TRUE(r->verify().ok());
}

// A body counts no fresh symbols of its own: what is made for its regions must not meet those of the whole.
TEST(Extract, SizesMadeAnewAreNoneOfTheGraphs) {
  Graph g;
  ValueId x = g.add_value("x", Type::tensor(DType::f32, {Dim::symbol("u0"), Dim::symbol("u1")}));
  ValueId pads = g.add_value("pads", Type::tensor(DType::i64, {Dim::symbol("u2") + 1}));
  ValueId axes = g.add_constant("axes", Tensor::vector<int64_t>({0}));
  ValueId y = g.add_value("y");
  g.inputs = {x, pads};
  g.add_node("Pad", {x, pads, kAbsent, axes}, {y}).def = find_op("", "Pad");
  g.outputs = {y};
  std::vector<ValueId> in, out;
  auto r = extract(g, {0, {0}}, in, out);
  ASSERT_TRUE(r.ok()) << r.status().message();
  const Dim rows = r->value(r->outputs[0]).type.dims[0];
  EXPECT_TRUE(rows.is_symbol());
  for (const Dim& d : r->value(r->inputs[0]).type.dims) EXPECT_NE(rows, d);
}

}  // namespace
}  // namespace ai_vmm
