#include "gpu/expression.hpp"

#include <gtest/gtest.h>

#include "gpu/kernel.hpp"
#include "ops/op.hpp"

namespace ai_vmm::gpu {
namespace {

Graph one_node(const char* op, std::vector<DType> inputs, DType output) {
  Graph g;
  std::vector<ValueId> in;
  for (DType t : inputs) {
    in.push_back(g.add_value("in", Type::tensor(t, {Dim(4)})));
    g.inputs.push_back(in.back());
  }
  ValueId out = g.add_value("out", Type::tensor(output, {Dim(4)}));
  g.outputs = {out};
  g.add_node(op, in, {out}).def = find_op("", op);
  return g;
}

std::string text_of(const Expression& e, int width) {
  std::vector<std::string> names;
  for (size_t k = 0; k < e.inputs.size(); ++k) names.push_back("x" + std::to_string(k));
  std::string result, body = statements(e, width, names, "t", result);
  return functions(e, width) + body + "-> " + result + "\n";
}

TEST(Expression, RuleTakesTheTypeThatItIsMadeFor) {
  EXPECT_EQ(rule_text("(x < R(0) ? R(0) : x)", "float"), "(x < ((float)(0.0f)) ? ((float)(0.0f)) : x)");
  EXPECT_EQ(rule_text("(x / R(6) + R(0.5))", "double"), "(x / ((double)(6.0)) + ((double)(0.5)))");
  EXPECT_EQ(rule_text("i_div(x, y)", "ulong"), "i_div_ulong(x, y)");
  EXPECT_EQ(rule_text("I(!x)", "long"), "(long)(!x)");
  EXPECT_EQ(rule_text("R(inf)", "float16"), "((float16)INFINITY)");
}

TEST(Expression, RowBecomesAFunctionAndAStatement) {
  Graph g = one_node("Relu", {DType::f32}, DType::f32);
  auto e = expression_of(g, g.nodes[0]);
  ASSERT_TRUE(e);
  EXPECT_EQ(text_of(*e, 1),
            "#ifndef D_f_Relu_f32_f32\n#define D_f_Relu_f32_f32\n"
            "DEVICE float f_Relu_f32_f32(float x) { return (x < ((float)(0.0f)) ? ((float)(0.0f)) : x); }\n#endif\n"
            "const float t0 = f_Relu_f32_f32(x0);\n-> t0\n");
  EXPECT_NE(text_of(*e, 16).find("DEVICE float16 f_Relu_f32_f32x16(float16 x)"), std::string::npos);
}

TEST(Expression, IntegersAreNarrowedToTheirElementType) {
  Graph g = one_node("Add", {DType::i8, DType::i8}, DType::i8);
  auto e = expression_of(g, g.nodes[0]);
  ASSERT_TRUE(e);
  EXPECT_NE(text_of(*e, 1).find("return (long)(char)(i_add_long(x, y));"), std::string::npos) << text_of(*e, 1);
}

TEST(Expression, ConstantScalarsAreWrittenIntoTheText) {
  Graph g = one_node("Mul", {DType::f32, DType::f32}, DType::f32);
  g.value(g.inputs[1]).constant = Tensor::of<float>({1}, {0.125f});
  auto e = expression_of(g, g.nodes[0]);
  ASSERT_TRUE(e);
  EXPECT_EQ(e->inputs.size(), 1u);
  EXPECT_NE(text_of(*e, 1).find("((float)(0.125f))"), std::string::npos) << text_of(*e, 1);
}

TEST(Expression, AttributesAreConstantsOfTheRule) {
  Graph g = one_node("LeakyRelu", {DType::f32}, DType::f32);
  g.nodes[0].set("alpha", 0.25f);
  auto e = expression_of(g, g.nodes[0]);
  ASSERT_TRUE(e);
  EXPECT_NE(text_of(*e, 1).find("? ((float)(0.25f)) * x : x"), std::string::npos) << text_of(*e, 1);
}

TEST(Expression, JoinComputesOneThroughTheOther) {
  Graph g = one_node("Exp", {DType::f32}, DType::f32), h = one_node("Add", {DType::f32, DType::f32}, DType::f32);
  auto first = expression_of(g, g.nodes[0]), second = expression_of(h, h.nodes[0]);
  ASSERT_TRUE(first && second);
  first->inputs = {7};
  second->inputs = {8, 9};
  Expression e = join(*first, *second, 8);
  EXPECT_EQ(e.inputs, (std::vector<ValueId>{7, 9}));
  ASSERT_EQ(e.code.size(), 2u);
  EXPECT_EQ(e.code[1].args, (std::vector<int>{0, ~1}));
}

TEST(Expression, ElementTypesThatNoKernelHoldsAreRefused) {
  Graph g = one_node("Abs", {DType::f8e5m2}, DType::f8e5m2);
  EXPECT_FALSE(expression_of(g, g.nodes[0]));
  Graph h = one_node("Floor", {DType::i32}, DType::i32);  // the row has no rule for integers
  EXPECT_FALSE(expression_of(h, h.nodes[0]));
}

TEST(Dialect, FillReplacesNames) {
  EXPECT_EQ(fill("a ${x} ${y}${x}", {{"x", "1"}, {"y", "2"}}), "a 1 21");
  EXPECT_EQ(fill("{$}", {}), "{$}");
}

TEST(Dialect, PreludesDifferInWordsOnly) {
  std::string cl = prelude(Dialect::opencl, false), cuda = prelude(Dialect::cuda, true);
  EXPECT_NE(cl.find("#define KERNEL __kernel"), std::string::npos);
  EXPECT_EQ(cl.find("double"), std::string::npos);
  EXPECT_NE(cuda.find("#define KERNEL extern \"C\" __global__"), std::string::npos);
  EXPECT_NE(cuda.find("double_to_long"), std::string::npos);
}

TEST(Kernel, EqualTextsHaveEqualNames) {
  Launch a = launch("k", "KERNEL void ${kernel}(${T} x) {}", {{"T", "int"}}),
         b = launch("k", "KERNEL void ${kernel}(${T} x) {}", {{"T", "int"}}),
         c = launch("k", "KERNEL void ${kernel}(${T} x) {}", {{"T", "long"}});
  EXPECT_EQ(a.source.name, b.source.name);
  EXPECT_NE(a.source.name, c.source.name);
  EXPECT_NE(a.source.text.find(a.source.name + "(int x)"), std::string::npos);
}

TEST(Kernel, ItemsAreRoundedUpToWholeGroups) {
  Launch l = launch("k", "", {});
  l.items({100, 3}, {64});
  EXPECT_EQ(l.global, (Size3{128, 3, 1}));
  EXPECT_EQ(l.local, (Size3{64, 1, 1}));
}

}  // namespace
}  // namespace ai_vmm::gpu
