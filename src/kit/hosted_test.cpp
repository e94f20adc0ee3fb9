#include "kit/hosted.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "base/proto.hpp"
#include "kit/view.hpp"
#include "ops/op.hpp"

namespace ai_vmm {
namespace {

using backend::make;

// An engine that takes every model without `refused` in it, reads opsets 26 and 21, and copies its first input to every
// output.
struct FakeEngine : hosted::Engine {
  struct Session : hosted::Session {
    struct Request : hosted::Request {
      Status run(std::span<const AiVmmTensor* const> inputs, std::span<hosted::Output> outputs) override {
        for (hosted::Output& o : outputs) {
          if (o.data) {
            std::memcpy(o.data, inputs[0]->data, sizeof(float) * size_t(o.shape[0]));
          } else {
            o.data = inputs[0]->data;
            o.shape = {inputs[0]->shape, 1};
          }
        }
        return {};
      }
    };
    Result<std::unique_ptr<hosted::Request>> create_request() override {
      return std::unique_ptr<hosted::Request>(new Request);
    }
  };
  std::string identity() const override { return name; }
  std::span<const int> opsets() const override {
    static constexpr int kOpsets[] = {26, 21};
    return kOpsets;
  }
  OnnxWeights weights() const override { return OnnxWeights::beside; }
  Result<std::shared_ptr<hosted::Session>> load(const OnnxModel& model, const hosted::LoadOptions& how) override {
    ++(how.probe ? probes : loads);
    threads.push_back(how.threads);
    models.push_back(model.bytes);
    for (const std::string& word : refused)
      if (model.bytes.find(word) != std::string::npos) return Status(Code::unimplemented, "No kernel\n  for " + word);
    return std::shared_ptr<hosted::Session>(new Session);
  }
  AiVmmReason reason(const Status&) const override { return AI_VMM_REFUSED_ATTRIBUTE; }

  std::string name;  // other tests' verdicts are not ours
  std::vector<std::string> refused;
  int loads = 0, probes = 0;
  std::vector<int> threads;
  std::vector<std::string> models;
};

// x[N] → Relu → Add(weights) → y, a network with one constant of 2 KiB.
struct Net {
  Net() {
    weights = Tensor::of<float>({512}, std::vector<float>(512, 1.f));
    ValueId x = g.add_value("x", Type::tensor(DType::f32, {Dim::symbol("N")}));
    ValueId r = g.add_value("r"), y = g.add_value("y"), w = g.add_constant("w", weights);
    g.inputs = {x};
    g.outputs = {y};
    g.add_node("Relu", {x}, {r}).def = find_op("", "Relu");
    g.add_node("Add", {r, w}, {y}).def = find_op("", "Add");
    EXPECT_TRUE(infer_types(g).ok());
    view.emplace(g);
  }
  Tensor weights;
  Graph g;
  std::optional<GraphView> view;
};

std::vector<AiVmmVerdict> query(hosted::Device& device, const AiVmmGraph& graph) {
  std::vector<AiVmmVerdict> verdicts(graph.node_count, make<AiVmmVerdict>());
  std::vector<AiVmmVerdict*> pointers;
  for (auto& v : verdicts) pointers.push_back(&v);
  EXPECT_TRUE(device.query(graph, pointers).ok());
  return verdicts;
}

TEST(Hosted, AGraphTakenAsAWholeIsLoadedOnce) {
  Net net;
  auto engine = std::make_shared<FakeEngine>();
  hosted::Device device(engine);
  for (const AiVmmVerdict& v : query(device, *net.view->get())) EXPECT_EQ(v.reason, AI_VMM_SUPPORTED);
  auto options = make<AiVmmCompileOptions>();
  EXPECT_TRUE(device.compile(*net.view->get(), options).ok());
  EXPECT_EQ(engine->loads, 1);
  EXPECT_EQ(engine->probes, 0);
}

TEST(Hosted, OtherWeightsAreAnotherModel) {
  Net net;
  auto engine = std::make_shared<FakeEngine>();
  hosted::Device device(engine);
  query(device, *net.view->get());
  net.weights.as_mutable<float>()[7] = 2;
  EXPECT_TRUE(device.compile(*net.view->get(), make<AiVmmCompileOptions>()).ok());
  EXPECT_EQ(engine->loads, 2);
}

TEST(Hosted, ARefusedNodeKeepsTheEnginesReason) {
  Net net;
  auto engine = std::make_shared<FakeEngine>();
  engine->name = "refuses Add";
  engine->refused = {"Add"};
  hosted::Device device(engine);
  auto verdicts = query(device, *net.view->get());
  EXPECT_EQ(verdicts[0].reason, AI_VMM_SUPPORTED);
  EXPECT_EQ(verdicts[1].reason, AI_VMM_REFUSED_ATTRIBUTE);
  EXPECT_STREQ(verdicts[1].detail, "No kernel for Add");
  int probes = engine->probes;
  query(device, *net.view->get());
  EXPECT_EQ(engine->probes, probes);  // known by now
}

TEST(Hosted, TheOlderOpsetIsTriedWhereTheNewerIsRefused) {
  ProtoWriter opset;
  opset.bytes(1, "");
  opset.varint(2, 26);
  Net net;
  auto engine = std::make_shared<FakeEngine>();
  engine->name = "reads 21 only";
  engine->refused = {opset.take()};
  hosted::Device device(engine);
  for (const AiVmmVerdict& v : query(device, *net.view->get())) EXPECT_EQ(v.reason, AI_VMM_SUPPORTED);
  EXPECT_TRUE(device.compile(*net.view->get(), make<AiVmmCompileOptions>()).ok());
  EXPECT_EQ(engine->loads, 2);
}

struct Ran {
  std::vector<float> y;
  int allocations = 0;
};

TEST(Hosted, RunsInTheHostsMemoryWithTheThreadsAskedFor) {
  Net net;
  auto engine = std::make_shared<FakeEngine>();
  hosted::Device device(engine);
  auto options = make<AiVmmCompileOptions>();
  options.threads = 4;
  auto executable = device.compile(*net.view->get(), options);
  ASSERT_TRUE(executable.ok());
  auto context = (*executable)->create_context();
  ASSERT_TRUE(context.ok());

  std::vector<float> x(512, 3.f);
  int64_t shape[] = {512};
  auto in = make<AiVmmTensor>(), out = make<AiVmmTensor>();
  in.data = x.data();
  in.dtype = out.dtype = 1;
  in.rank = 1;
  in.shape = shape;
  Ran ran;
  auto run = make<AiVmmRun>();
  run.user = &ran;
  run.allocate = [](void* user, uint32_t, int32_t, int32_t, const int64_t* s) -> void* {
    auto* r = static_cast<Ran*>(user);
    ++r->allocations;
    r->y.assign(size_t(s[0]), 0.f);
    return r->y.data();
  };
  const AiVmmTensor *inputs[] = {&in}, *outputs[] = {&out};
  for (int threads : {4, 1, 4, 9}) {  // never more than was compiled for
    run.threads = threads;
    ASSERT_TRUE((*context)->execute(inputs, outputs, run).ok());
    EXPECT_EQ(ran.y, x);
  }
  EXPECT_EQ(engine->threads, (std::vector<int>{4, 1}));

  ran.allocations = 0;  // the caller's own memory, and a size known before the run
  std::vector<float> mine(512);
  out.data = mine.data();
  out.rank = 1;
  out.shape = shape;
  ASSERT_TRUE((*context)->execute(inputs, outputs, run).ok());
  EXPECT_EQ(mine, x);
  EXPECT_EQ(ran.allocations, 0);

  run.threads = 1;  // in use again, and so kept; after it rests for long, it is loaded anew
  ASSERT_TRUE((*context)->execute(inputs, outputs, run).ok());
  EXPECT_EQ(engine->loads, 2);
  run.threads = 4;
  for (int i = 0; i < 200; ++i) ASSERT_TRUE((*context)->execute(inputs, outputs, run).ok());
  run.threads = 1;
  ASSERT_TRUE((*context)->execute(inputs, outputs, run).ok());
  EXPECT_EQ(engine->loads, 3);
}

TEST(OnnxWriter, LargeWeightsStayWhereTheyAre) {
  Net net;
  OnnxModel model = write_onnx(*net.view->get(), 21, OnnxWeights::beside);
  ASSERT_EQ(model.weights.size(), 1u);
  EXPECT_EQ(model.weights[0].name, "w");
  EXPECT_EQ(static_cast<const void*>(model.weights[0].data.data()), net.weights.data());
  EXPECT_LT(model.bytes.size(), 1000u);
  ASSERT_EQ(model.inputs.size(), 1u);
  EXPECT_EQ(model.inputs[0].dims, (std::vector<int64_t>{-1}));
  std::string address = std::to_string(reinterpret_cast<uintptr_t>(net.weights.data()));
  EXPECT_NE(write_onnx(*net.view->get(), 21, OnnxWeights::by_address).bytes.find(address), std::string::npos);
}

TEST(OnnxWriter, ANodeAloneReadsWhatItNeedsAndGivesAll) {
  Net net;
  SubgraphView second(*net.view->get(), {1});
  ASSERT_EQ(second.get().input_count, 1u);
  EXPECT_EQ(backend::view(net.view->get()->values[second.get().inputs[0]]->name), "r");
  ASSERT_EQ(second.get().output_count, 1u);
}

}  // namespace
}  // namespace ai_vmm
