#include "kit/view.hpp"

#include <gtest/gtest.h>

#include "ops/op.hpp"

namespace ai_vmm {
namespace {

TEST(View, RoundTripsAGraph) {
  Graph g;
  g.name = "net";
  Dim n = Dim::symbol("N");
  ValueId x = g.add_value("x", Type::tensor(DType::f32, {n, floor_div(n + 3, 2), Dim(4)}));
  ValueId w = g.add_constant("w", Tensor::of<float>({4}, {1, 2, 3, 4}));
  ValueId y = g.add_value("y"), z = g.add_value("z");
  g.inputs = {x};
  g.outputs = {z};
  g.add_node("Add", {x, w}, {y}).name = "add";
  g.nodes.back().def = find_op("", "Add");
  Node& leaky = g.add_node("LeakyRelu", {y}, {z});
  leaky.def = find_op("", "LeakyRelu");
  leaky.set("alpha", 0.25f);
  ASSERT_TRUE(infer_types(g).ok());

  GraphView view(g);
  auto back = graph_from_view(*view.get());
  ASSERT_TRUE(back.ok()) << back.status().message();
  ASSERT_EQ(back->values.size(), g.values.size());
  for (size_t i = 0; i < g.values.size(); ++i) {
    EXPECT_EQ(back->values[i].name, g.values[i].name);
    EXPECT_EQ(back->values[i].type, g.values[i].type);
  }
  EXPECT_EQ(back->value(w).constant.data(), g.value(w).constant.data());  // shared, not copied
  ASSERT_EQ(back->nodes.size(), 2u);
  EXPECT_EQ(back->nodes[0].name, "add");
  EXPECT_EQ(back->nodes[1].f("alpha"), 0.25f);
  EXPECT_TRUE(back->verify().ok());
}

TEST(View, NamesAnUnknownOperator) {
  Graph g;
  ValueId y = g.add_value("y");
  g.add_node("NoSuchThing", {}, {y});
  GraphView view(g);
  auto back = graph_from_view(*view.get());
  ASSERT_FALSE(back.ok());
  EXPECT_EQ(back.status().code(), Code::unimplemented);
  EXPECT_NE(back.status().message().find("NoSuchThing"), std::string::npos);
}

}  // namespace
}  // namespace ai_vmm
