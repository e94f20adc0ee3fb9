// States against the same steps with caches as tensors, on the processor and on simulated chips that keep states.
#include <gtest/gtest.h>

#include <thread>

#include "ops/op.hpp"
#include "runtime/deployment.hpp"
#include "runtime/test_chips.hpp"

namespace ai_vmm {
namespace {

constexpr int64_t kHeads = 2, kWidth = 4, kRowBytes = kHeads * kWidth * 4;

// Attention over cached rows: past f32[1,2,P,4], x f32[1,2,S,4] -> y f32[1,2,S,4], present f32[1,2,P+S,4].
std::shared_ptr<const Graph> attention() {
  auto g = std::make_shared<Graph>();
  auto rows = [](const char* n) {
    return Type::tensor(DType::f32, {Dim(1), Dim(kHeads), Dim::symbol(n), Dim(kWidth)});
  };
  ValueId past = g->add_value("past", rows("P")), x = g->add_value("x", rows("S"));
  ValueId present = g->add_value("present"), turned = g->add_value("turned"), scores = g->add_value("scores"),
          weights = g->add_value("weights"), y = g->add_value("y");
  g->inputs = {past, x};
  g->outputs = {y, present};
  auto node = [&](const char* op, std::vector<ValueId> in, ValueId out) -> Node& {
    Node& n = g->add_node(op, in, {out});
    n.def = find_op("", op);
    return n;
  };
  node("Concat", {past, x}, present).set("axis", int64_t(2));
  node("Transpose", {present}, turned).set("perm", std::vector<int64_t>{0, 1, 3, 2});
  node("MatMul", {x, turned}, scores);
  node("Softmax", {scores}, weights).set("axis", int64_t(-1));
  node("MatMul", {weights, present}, y);
  EXPECT_TRUE(infer_types(*g).ok());
  return g;
}

Deployment deploy(std::vector<std::string> devices) {
  auto g = attention();
  auto impl = std::make_shared<Deployment::Impl>();
  impl->set_interface(*g);
  impl->memory_limit = 1 << 30;
  impl->threads = 1;
  FailoverChain::Maker make = [g](const std::string& name) -> Result<FailoverChain::Made> {
    std::shared_ptr<Device> device[] = {AI_VMM_TAKE(Device::open(name))};
    PlanFacts facts;
    return FailoverChain::Made{AI_VMM_TAKE(make_plan(g, device, {}, facts)), device[0]->name()};
  };
  auto first = make(devices[0]);
  EXPECT_TRUE(first.ok()) << first.status().message();
  impl->plan = first->plan;
  impl->failover = std::make_unique<FailoverChain>(std::move(devices), *std::move(first), make, std::chrono::hours(1));
  return Deployment(impl);
}

Tensor token(int64_t id, int64_t rows = 1) {
  std::vector<float> v(size_t(kHeads * rows * kWidth));
  for (size_t i = 0; i < v.size(); ++i) v[i] = float((id * 31 + int64_t(i) * 7) % 17) / 8 - 1;
  return Tensor::of<float>({1, kHeads, rows, kWidth}, v);
}
Tensor nothing() { return Tensor::of<float>({1, kHeads, 0, kWidth}, {}); }

// y of each step, with caches as tensors.
std::vector<Tensor> with_tensors(const Deployment& d, const std::vector<int64_t>& ids) {
  std::vector<Tensor> made;
  Data past = nothing();
  for (int64_t id : ids) {
    auto out = d.run({{"past", past}, {"x", token(id)}});
    EXPECT_TRUE(out.ok()) << out.status().message();
    past = out->at("present");
    made.push_back(out->at("y").tensor());
  }
  return made;
}
Result<Tensor> step(const Deployment& d, const State& state, int64_t id) {
  auto out = AI_VMM_TAKE(d.run({{"x", token(id)}}, {.states = {{"past", {state, "present"}}}}));
  EXPECT_EQ(out.size(), 1u);
  return out.at("y").tensor();
}
std::vector<int64_t> ids_to(int64_t n) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(i * i % 97);
  return ids;
}

class States : public ::testing::TestWithParam<const char*> {
 protected:
  static void SetUpTestSuite() { use_test_chips(); }
};

TEST_P(States, StepsAreThoseWithTensors) {
  Deployment d = deploy({GetParam()}), oracle = deploy({GetParam()});
  const auto ids = ids_to(40);
  const auto right = with_tensors(oracle, ids);
  auto state = d.make_state("past", 64);
  ASSERT_TRUE(state.ok()) << state.status().message();
  EXPECT_EQ(state->axis(), 2);
  for (size_t i = 0; i < ids.size(); ++i) {
    auto y = step(d, *state, ids[i]);
    ASSERT_TRUE(y.ok()) << y.status().message();
    ASSERT_TRUE(identical(*y, right[i])) << i;
  }
  EXPECT_EQ(state->rows(), 40);
  EXPECT_EQ(state->page_table().size(), 3u);
  // A chip that keeps states is sent each row once, and not the cache in every step.
  for (const auto& t : d.report().transfers)
    if (t.to == "sim:17") EXPECT_EQ(t.copied, (t.why == "state" ? 39 : 40) * kRowBytes) << t.why;
}

TEST_P(States, ForksGoTheirOwnWays) {
  Deployment d = deploy({GetParam()});
  auto prompt = ids_to(20), left = prompt, right = prompt;
  for (int64_t i = 0; i < 15; ++i) {
    left.push_back(5 + i);
    right.push_back(60 - i);
  }
  const auto expected_left = with_tensors(d, left), expected_right = with_tensors(d, right);
  auto a = d.make_state("past", 100);
  ASSERT_TRUE(a.ok());
  for (int64_t id : prompt) ASSERT_TRUE(step(d, *a, id).ok());
  State b = a->fork();
  EXPECT_EQ(a->own_bytes(), 0);  // all pages are shared
  for (size_t i = 20; i < left.size(); ++i) {
    auto y = step(d, *a, left[i]), z = step(d, b, right[i]);
    ASSERT_TRUE(y.ok() && z.ok());
    EXPECT_TRUE(identical(*y, expected_left[i])) << i;
    EXPECT_TRUE(identical(*z, expected_right[i])) << i;
  }
  // The first page is shared still, the second, which both wrote to, is not.
  EXPECT_EQ(a->page_table()[0], b.page_table()[0]);
  EXPECT_NE(a->page_table()[1], b.page_table()[1]);
  // Back to the prompt, and the other way.
  ASSERT_TRUE(a->truncate(20).ok());
  for (size_t i = 20; i < right.size(); ++i) {
    auto y = step(d, *a, right[i]);
    ASSERT_TRUE(y.ok());
    EXPECT_TRUE(identical(*y, expected_right[i])) << i;
  }
}

TEST_P(States, SnapshotsComeBackInAnotherDeployment) {
  const auto ids = ids_to(30);
  const auto right = with_tensors(deploy({GetParam()}), ids);
  std::string kept;
  {
    Deployment d = deploy({GetParam()});
    auto state = d.make_state("past", 30);
    ASSERT_TRUE(state.ok());
    for (size_t i = 0; i < 17; ++i) ASSERT_TRUE(step(d, *state, ids[i]).ok());
    kept = state->snapshot();
  }
  Deployment later = deploy({GetParam()});
  auto state = State::restore(kept);
  ASSERT_TRUE(state.ok()) << state.status().message();
  for (size_t i = 17; i < 30; ++i) {
    auto y = step(later, *state, ids[i]);
    ASSERT_TRUE(y.ok());
    EXPECT_TRUE(identical(*y, right[i])) << i;
  }
  for (size_t cut = 0; cut < kept.size(); cut += 13)
    EXPECT_EQ(State::restore(std::string_view(kept).substr(0, cut)).status().code(), Code::data_loss) << cut;
}

INSTANTIATE_TEST_SUITE_P(Devices, States, ::testing::Values("cpu", "reference", "sim:17"));

TEST_F(States, OutliveTheirDevice) {
  Deployment d = deploy({"sim:18", "cpu"});  // lost in its eighth run
  const auto ids = ids_to(20);
  const auto right = with_tensors(deploy({"reference"}), ids);
  auto state = d.make_state("past", 20);
  ASSERT_TRUE(state.ok());
  for (size_t i = 0; i < ids.size(); ++i) {
    auto y = step(d, *state, ids[i]);
    ASSERT_TRUE(y.ok()) << y.status().message();
    for (int64_t k = 0; k < y->count(); ++k)
      EXPECT_NEAR(y->as<float>()[size_t(k)], right[i].as<float>()[size_t(k)], 1e-5) << i;
  }
  ASSERT_EQ(d.report().failovers.size(), 1u);
  EXPECT_EQ(d.report().failovers[0].state, "lost");
  EXPECT_EQ(state->rows(), 20);
}

TEST_F(States, RefusalsChangeNothing) {
  Deployment d = deploy({"cpu"});
  auto state = d.make_state("past", 2);
  ASSERT_TRUE(state.ok());
  EXPECT_TRUE(step(d, *state, 1).ok());
  EXPECT_TRUE(step(d, *state, 2).ok());
  auto full = step(d, *state, 3);
  EXPECT_EQ(full.status().code(), Code::resource_exhausted);
  EXPECT_NE(full.status().message().find("at most 2 rows"), std::string::npos) << full.status().message();
  EXPECT_EQ(state->rows(), 2);
  EXPECT_EQ(state->append(Tensor::vector<float>({1})).code(), Code::invalid_argument);
  EXPECT_EQ(state->truncate(3).code(), Code::out_of_range);
  EXPECT_EQ(state->read(1, 2).status().code(), Code::out_of_range);
  EXPECT_EQ(state->read(1, 1)->shape(), (Shape{1, kHeads, 1, kWidth}));
  EXPECT_EQ(d.make_state("past", 2, {{"P", 5}}).status().code(), Code::invalid_argument);
  EXPECT_EQ(d.make_state("nothing", 2).status().code(), Code::invalid_argument);
  EXPECT_EQ(State::make(DType::f32, {1, 2}, 2).status().code(), Code::invalid_argument);
  EXPECT_EQ(State::make(DType::f32, {1 << 30, 0}, 0).status().code(), Code::invalid_argument);
  auto both = d.run({{"past", nothing()}, {"x", token(1)}}, {.states = {{"past", {*state, "present"}}}});
  EXPECT_NE(both.status().message().find("as a tensor and as a state"), std::string::npos);
  auto twice = d.run({}, {.states = {{"past", {*state, ""}}, {"x", {*state, ""}}}});
  EXPECT_EQ(twice.status().code(), Code::failed_precondition);
  auto other = State::make(DType::f32, {1, kHeads, 9, kWidth + 1}, 2);
  auto misfit = d.run({{"x", token(1)}}, {.states = {{"past", {*other, "present"}}}});
  EXPECT_EQ(misfit.status().code(), Code::invalid_argument);
  auto unread = d.run({{"x", token(1)}}, {.states = {{"past", {*state, ""}}}});
  ASSERT_TRUE(unread.ok());
  EXPECT_EQ(unread->size(), 2u);
  EXPECT_EQ(state->rows(), 2);
}

}  // namespace
}  // namespace ai_vmm
