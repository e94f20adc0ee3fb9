#include "runtime/deployment.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "ops/op.hpp"

namespace ai_vmm {
namespace {

// Binds definitions, infers types and plans on the reference device.
Deployment deploy(Graph graph, int64_t memory_limit = int64_t(1) << 30) {
  std::function<void(Graph&)> bind = [&](Graph& g) {
    for (Node& n : g.nodes) {
      n.def = find_op(n.domain, n.op);
      for (Body& b : n.bodies) bind(*b.graph);
    }
  };
  bind(graph);
  Status s = infer_types(graph);
  EXPECT_TRUE(s.ok()) << s.message();
  s = graph.verify();
  EXPECT_TRUE(s.ok()) << s.message();
  auto impl = std::make_shared<Deployment::Impl>();
  impl->set_interface(graph);
  impl->memory_limit = memory_limit;
  impl->threads = 1;
  auto device = Device::open("reference");
  EXPECT_TRUE(device.ok());
  std::shared_ptr<Device> devices[] = {*device};
  PlanFacts facts;
  auto plan = make_plan(std::make_shared<const Graph>(std::move(graph)), devices, {}, facts);
  EXPECT_TRUE(plan.ok()) << plan.status().message();
  impl->plan = *plan;
  return Deployment(impl);
}

Type f32(std::vector<Dim> dims) { return Type::tensor(DType::f32, std::move(dims)); }

// y = x + x over [N], with N free.
Graph doubling() {
  Graph g;
  ValueId x = g.add_value("x", f32({Dim::symbol("N")})), y = g.add_value("y");
  g.inputs = {x};
  g.outputs = {y};
  g.add_node("Add", {x, x}, {y}).name = "twice";
  return g;
}

TEST(Deployment, RunsAnyLengthFromManyThreads) {
  Deployment d = deploy(doubling());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        std::vector<float> v(size_t(1 + (i + t) % 7), float(t));
        auto out = d.run({{"x", Tensor::vector(v)}});
        if (!out.ok() || out->at("y").tensor().count() != int64_t(v.size()) ||
            out->at("y").tensor().as<float>()[0] != 2 * float(t))
          ++wrong;
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
  auto later = d.run_async({{"x", Tensor::vector<float>({3})}});
  auto got = later.get();
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->at("y").tensor().as<float>()[0], 6);
}

TEST(Deployment, WritesIntoTheCallersBuffer) {
  Deployment d = deploy(doubling());
  float buffer[2] = {};
  auto out = d.run({{"x", Tensor::vector<float>({1, 2})}}, {{{"y", Tensor::view(DType::f32, {2}, buffer)}}});
  ASSERT_TRUE(out.ok()) << out.status().message();
  EXPECT_EQ(buffer[1], 4);
  EXPECT_EQ(out->at("y").tensor().data(), buffer);
  auto misfit = d.run({{"x", Tensor::vector<float>({1, 2, 3})}}, {{{"y", Tensor::view(DType::f32, {2}, buffer)}}});
  ASSERT_FALSE(misfit.ok());
  EXPECT_NE(misfit.status().message().find("[3]"), std::string::npos) << misfit.status().message();
}

TEST(Deployment, RefusesABufferOfAnotherType) {
  Deployment d = deploy(doubling());
  uint8_t buffer[4] = {};
  auto out = d.run({{"x", Tensor::vector<float>({1, 2, 3})}}, {{{"y", Tensor::view(DType::u8, {3}, buffer)}}});
  ASSERT_FALSE(out.ok());
  EXPECT_EQ(out.status().code(), Code::invalid_argument);
  EXPECT_EQ(buffer[0], 0);
}

TEST(Deployment, RunsInOrder) {
  Deployment d = deploy(doubling());
  Data in[] = {Tensor::vector<float>({1, 2, 3})};
  Data out[1];
  ASSERT_TRUE(d.run(in, out).ok());
  EXPECT_TRUE(identical(out[0].tensor(), Tensor::vector<float>({2, 4, 6})));
  EXPECT_EQ(d.run({}, out).code(), Code::invalid_argument);
  EXPECT_EQ(d.run(in, {}).code(), Code::invalid_argument);
}

TEST(Deployment, IsCancelledByAFlag) {
  Deployment d = deploy(doubling());
  Data in[] = {Tensor::vector<float>({1, 2, 3})};
  Data out[1];
  const volatile int32_t cancel = 1;
  EXPECT_EQ(d.run(in, out, &cancel).code(), Code::cancelled);
}

TEST(Deployment, ExplainsWrongInputs) {
  Deployment d = deploy(doubling());
  auto message = [&](Inputs in) { return d.run(in).status().message(); };
  EXPECT_NE(message({}).find("Missing inputs: x f32[N]"), std::string::npos) << message({});
  EXPECT_NE(message({{"x", Tensor::vector<int64_t>({1})}}).find("the model takes f32"), std::string::npos);
  EXPECT_NE(message({{"x", Tensor::of<float>({1, 1}, {1})}}).find("[1,1]"), std::string::npos);
  EXPECT_NE(message({{"x", Tensor::vector<float>({1})}, {"xx", Tensor::vector<float>({1})}}).find("\"x\""),
            std::string::npos);
}

TEST(Deployment, SizesOfOneNameMustAgree) {
  Graph g;
  ValueId a = g.add_value("a", f32({Dim::symbol("N")})), b = g.add_value("b", f32({Dim::symbol("N")})),
          c = g.add_value("c");
  g.inputs = {a, b};
  g.outputs = {c};
  g.add_node("Add", {a, b}, {c});
  Deployment d = deploy(std::move(g));
  auto out = d.run({{"a", Tensor::vector<float>({1, 2})}, {"b", Tensor::vector<float>({1})}});
  ASSERT_FALSE(out.ok());
  EXPECT_NE(out.status().message().find("\"N\""), std::string::npos) << out.status().message();
}

TEST(MemoryLimit, StopsAnAbsurdExpandAndNamesTheNode) {
  Graph g;
  ValueId x = g.add_value("x", f32({Dim(1)})), s = g.add_value("s", Type::tensor(DType::i64, {Dim(2)})),
          y = g.add_value("y");
  g.inputs = {x, s};
  g.outputs = {y};
  g.add_node("Expand", {x, s}, {y}).name = "huge";
  Deployment d = deploy(std::move(g));
  auto out =
      d.run({{"x", Tensor::vector<float>({1})}, {"s", Tensor::vector<int64_t>({int64_t(1) << 31, int64_t(1) << 31})}});
  ASSERT_FALSE(out.ok());
  EXPECT_EQ(out.status().code(), Code::resource_exhausted);
  EXPECT_NE(out.status().message().find("huge"), std::string::npos) << out.status().message();
}

TEST(MemoryLimit, StopsALoopThatDoublesATensor) {
  auto body = std::make_shared<Graph>();
  ValueId i = body->add_value("i", Type::tensor(DType::i64, {})),
          c = body->add_value("c", Type::tensor(DType::boolean, {}));
  ValueId v = body->add_value("v"), w = body->add_value("w");
  body->inputs = {i, c, v};
  body->outputs = {c, w};
  Node& concat = body->add_node("Concat", {v, v}, {w});
  concat.name = "grow";
  concat.set("axis", int64_t(0));
  Graph g;
  ValueId x = g.add_value("x", f32({Dim::symbol("N")})), y = g.add_value("y");
  g.inputs = {x};
  g.outputs = {y};
  Node& loop = g.add_node("Loop", {kAbsent, kAbsent, x}, {y});
  loop.name = "forever";
  loop.bodies.push_back({"body", body, {}});
  Deployment d = deploy(std::move(g), 1 << 20);
  auto out = d.run({{"x", Tensor::vector<float>({1, 2, 3})}});
  ASSERT_FALSE(out.ok());
  EXPECT_EQ(out.status().code(), Code::resource_exhausted);
  EXPECT_NE(out.status().message().find("grow"), std::string::npos) << out.status().message();
  EXPECT_NE(out.status().message().find("forever"), std::string::npos) << out.status().message();
}

}  // namespace
}  // namespace ai_vmm
