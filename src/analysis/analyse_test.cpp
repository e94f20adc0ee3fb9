#include "analysis/analyse.hpp"

#include <gtest/gtest.h>

#include "ops/op.hpp"

namespace ai_vmm {
namespace {

Dim::Lookup size_of(int64_t batch) {
  return [batch](std::string_view) { return std::optional(batch); };
}

// x[batch,4] · w[4,8], then Tanh.
Graph small() {
  Graph g;
  ValueId x = g.add_value("x", Type::tensor(DType::f32, {Dim::symbol("batch"), 4}));
  ValueId w = g.add_constant("w", Tensor::of<float>({4, 8}, std::vector<float>(32, 1.0f)));
  ValueId y = g.add_value("y"), z = g.add_value("z");
  g.inputs = {x};
  g.outputs = {z};
  g.add_node("MatMul", {x, w}, {y});
  g.add_node("Tanh", {y}, {z});
  for (Node& n : g.nodes) n.def = find_op(n.domain, n.op);
  EXPECT_TRUE(infer_types(g).ok());
  return g;
}

TEST(Analyse, CountsWorkAndMemoryAtTheGivenSizes) {
  Analysis a = analyse(small(), size_of(3));
  EXPECT_EQ(a.nodes, 2);
  EXPECT_EQ(a.parameters, 32);
  EXPECT_EQ(a.weight_bytes, 128);
  EXPECT_EQ(a.unsized, 0);
  EXPECT_EQ(a.operators.at("MatMul").flops, 2.0 * 3 * 4 * 8);
  EXPECT_EQ(a.operators.at("MatMul").bytes, 4.0 * (3 * 4 + 4 * 8 + 3 * 8));
  EXPECT_EQ(a.peak_bytes, 2 * 3 * 8 * 4);  // y and z
}

TEST(Analyse, NodesWithoutSizesAreCountedApart) {
  Analysis a = analyse(small(), [](std::string_view) { return std::optional<int64_t>(); });
  EXPECT_EQ(a.unsized, 2);
  EXPECT_EQ(a.flops, 0);
}

TEST(Analyse, OneDenseLayerIsOfNoKind) { EXPECT_EQ(recognise(small()).kind, ModelKind::unknown); }

}  // namespace
}  // namespace ai_vmm
