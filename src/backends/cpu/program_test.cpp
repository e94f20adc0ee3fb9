#include "backends/cpu/testing.hpp"

namespace ai_vmm::cpu::testing {
namespace {

TEST(Program, ElementwiseWithBroadcastAndGrowingSizes) {
  Net n;
  Dim batch = Dim::symbol("batch");
  ValueId x = n.input(DType::f32, {batch, 3, 50}), y = n.input(DType::f32, {50}), z = n.input(DType::f32, {batch, 1, 1});
  ValueId a = n.op("Add", {x, y})[0], b = n.op("Mul", {a, z})[0], c = n.op("Relu", {b})[0], d = n.op("Exp", {a})[0];
  n.g.outputs = {c, d, n.op("Add", {c, d})[0]};
  std::vector<std::vector<Tensor>> runs;
  for (int64_t k : {1, 2, 7, 3, 40})
    runs.push_back({random_tensor({k, 3, 50}, 1), random_tensor({50}, 2), random_tensor({k, 1, 1}, 3)});
  compare(n, runs);
}

TEST(Program, OutputsThatAreInputsConstantsAndTwice) {
  Net n;
  ValueId x = n.input(DType::f32, {4}), k = n.constant(Tensor::vector<float>({1, 2, 3, 4}));
  ValueId y = n.op("Add", {x, k})[0];
  n.g.outputs = {x, y, k, y};
  compare(n, {{Tensor::vector<float>({5, 6, 7, 8})}});
}

TEST(Program, WritesIntoTheCallersBuffers) {
  Net n;
  ValueId x = n.input(DType::f32, {8});
  n.g.outputs = {n.op("Exp", {x})[0]};
  ASSERT_TRUE(infer_types(n.g).ok());
  Context context(*Program::compile(n.g.clone(), {}));
  Tensor in = random_tensor({8}, 1), out = *Tensor::make(DType::f32, {8});
  OutputSlot slot;
  slot.data = out.mutable_data();
  slot.shape = out.shape();
  ASSERT_TRUE(context.run(std::span(&in, 1), std::span(&slot, 1)).ok());
  expect_close(out, run_reference(n.g, {in})[0]);
}

TEST(Program, MismatchedInputsAreErrors) {
  Net n;
  Dim b = Dim::symbol("b");
  ValueId x = n.input(DType::f32, {b, 4}, "x"), y = n.input(DType::f32, {b, 4}, "y");
  n.g.outputs = {n.op("Add", {x, y})[0]};
  ASSERT_TRUE(infer_types(n.g).ok());
  Context context(*Program::compile(n.g.clone(), {}));
  auto run = [&](Shape s, Shape t) { return context.run(std::vector<Tensor>{random_tensor(s, 1), random_tensor(t, 2)}); };
  EXPECT_TRUE(run({2, 4}, {2, 4}).ok());
  EXPECT_FALSE(run({2, 4}, {3, 4}).ok());
  EXPECT_FALSE(run({2, 5}, {2, 5}).ok());
  EXPECT_TRUE(run({5, 4}, {5, 4}).ok());
}

}  // namespace
}  // namespace ai_vmm::cpu::testing
