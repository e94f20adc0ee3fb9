#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "backends/cpu/testing.hpp"

namespace ai_vmm::cpu::testing {
namespace {

TEST(Program, ElementwiseWithBroadcastAndGrowingSizes) {
  Net n;
  Dim batch = Dim::symbol("batch");
  ValueId x = n.input(DType::f32, {batch, 3, 50}), y = n.input(DType::f32, {50}),
          z = n.input(DType::f32, {batch, 1, 1});
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
  Input given{in.dtype(), in.shape(), in.data()};
  ASSERT_TRUE(context.run(std::span(&given, 1), std::span(&slot, 1)).ok());
  expect_close(out, run_reference(n.g, {in})[0]);
}

TEST(Program, MismatchedInputsAreErrors) {
  Net n;
  Dim b = Dim::symbol("b");
  ValueId x = n.input(DType::f32, {b, 4}, "x"), y = n.input(DType::f32, {b, 4}, "y");
  n.g.outputs = {n.op("Add", {x, y})[0]};
  ASSERT_TRUE(infer_types(n.g).ok());
  Context context(*Program::compile(n.g.clone(), {}));
  auto run = [&](Shape s, Shape t) {
    return context.run(std::vector<Tensor>{random_tensor(s, 1), random_tensor(t, 2)});
  };
  EXPECT_TRUE(run({2, 4}, {2, 4}).ok());
  EXPECT_FALSE(run({2, 4}, {3, 4}).ok());
  EXPECT_FALSE(run({2, 5}, {2, 5}).ok());
  EXPECT_TRUE(run({5, 4}, {5, 4}).ok());
}

Net two_layers() {
  Net n;
  ValueId x = n.input(DType::f32, {Dim::symbol("n"), 256});
  ValueId h = n.op("Relu", {n.op("MatMul", {x, n.constant(random_tensor({256, 512}, 1))})[0]})[0];
  n.g.outputs = {n.op("Exp", {n.op("MatMul", {h, n.constant(random_tensor({512, 300}, 2, -0.02f, 0.02f))})[0]})[0]};
  EXPECT_TRUE(infer_types(n.g).ok());
  return n;
}

TEST(Program, ContextsRunAtTheSameTime) {
  Net n = two_layers();
  auto program = *Program::compile(n.g.clone(), {});
  std::vector<Tensor> inputs, expected;
  for (int t = 0; t < 4; ++t) {
    inputs.push_back(random_tensor({30 + t, 256}, uint32_t(t)));
    expected.push_back(run_reference(n.g, {inputs.back()})[0]);
  }
  std::vector<std::thread> threads;
  std::vector<int> same(4, 0);
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      Context context(program);
      Tensor first;
      for (int k = 0; k < 20; ++k) {
        auto got = context.run(std::span(&inputs[t], 1));
        if (!got.ok()) return;
        if (k == 0) {
          first = (*got)[0];
          expect_close(first, expected[t]);
        }
        same[t] += identical(first, (*got)[0]);
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(same, std::vector<int>(4, 20)) << "runs of equal inputs must agree to the bit";
}

TEST(Program, RunsInAForkedChild) {
  Net n = two_layers();
  auto program = *Program::compile(n.g.clone(), {});
  Tensor in = random_tensor({64, 256}, 1);
  Context context(program);
  Tensor before = (*context.run(std::span(&in, 1)))[0];
  pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a pool that hangs after fork ends the child, not the test
    auto got = context.run(std::span(&in, 1));
    _exit(got.ok() && identical((*got)[0], before) ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(Program, RunsInsideAnotherParallelRegion) {
  Net n = two_layers();
  auto program = *Program::compile(n.g.clone(), {});
  Tensor in = random_tensor({64, 256}, 1);
  Tensor expected = run_reference(n.g, {in})[0];
#pragma omp parallel num_threads(3)
  {
    Context context(program);
    auto got = context.run(std::span(&in, 1));
    if (got.ok())
      expect_close((*got)[0], expected);
    else
      ADD_FAILURE() << got.status().message();
  }
}

}  // namespace
}  // namespace ai_vmm::cpu::testing
