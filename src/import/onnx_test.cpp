#include "import/onnx.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "graph/text.hpp"
#include "import/test_models.hpp"
#include "ops/op.hpp"

namespace ai_vmm {
namespace {

using namespace test;

std::string file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
std::vector<std::filesystem::path> corpus() {
  std::vector<std::filesystem::path> all;
  for (const auto& e : std::filesystem::directory_iterator(AI_VMM_SOURCE_DIR "/tests/fuzz/corpus"))
    all.push_back(e.path());
  std::sort(all.begin(), all.end());
  return all;
}
std::vector<std::string> ops(const Graph& g) {
  std::vector<std::string> list;
  for (const Node& n : g.nodes) list.push_back(n.op);
  return list;
}
// x → op → y, the least model.
ModelText relu(std::vector<Size> sizes = {{2}, {3}}) {
  return {.graph = {.nodes = {{"Relu", {"x"}, {"y"}}}, .inputs = {f32("x", sizes)}, .outputs = {value("y")}}};
}

// ---------------------------------------------------------------- whole models

TEST(Import, ReadsSmallModelsAndTheirTextReadsBack) {
  int read = 0;
  for (const auto& path : corpus()) {
    Read r(file(path));
    if (r.graph.status().code() == Code::unimplemented) continue;  // an operator that this build does not have
    ++read;
    ASSERT_TRUE(r.graph.ok()) << path << ": " << r.error();
    std::string text = r.graph->to_text();
    auto again = parse_text(text, constants_of(*r.graph));
    ASSERT_TRUE(again.ok()) << path << ": " << again.status().message();
    EXPECT_EQ(again->to_text(), text) << path;
    // The graph of the text is as good as the one it came from.
    EXPECT_TRUE(again->verify().ok()) << path;
    EXPECT_TRUE(define_ops(*again).ok()) << path;
    Status inferred = infer_types(*again);
    EXPECT_TRUE(inferred.ok()) << path << ": " << inferred.message();
  }
  EXPECT_GT(read, 50);
}

TEST(Import, DamagedFilesFailClearly) {
  std::mt19937_64 random(1);
  for (const auto& path : corpus()) {
    std::string whole = file(path);
    for (size_t n = 0; n < whole.size(); n += 1 + whole.size() / 100) {
      Read r(whole.substr(0, n));
      EXPECT_EQ(r.graph.ok(), r.error().empty());
    }
    for (int k = 0; k < 50; ++k) {
      std::string s = whole;
      for (int j = 0; j < 3; ++j) s[random() % s.size()] = char(random());
      Read r(s);
      EXPECT_TRUE(!r.graph.ok() || r.graph->verify().ok());
    }
  }
  std::string noise(100000, 0);
  for (char& c : noise) c = char(random());
  EXPECT_FALSE(Read(noise).graph.ok());
  EXPECT_FALSE(Read("").graph.ok());
}

TEST(Import, VersionsBeyondWhatIsKnownAreRefused) {
  ModelText m = relu();
  m.ir_version = 15;
  EXPECT_EQ(Read(m.message()).graph.status().code(), Code::unimplemented);
  m.ir_version = 14;
  m.opset_version = 29;
  EXPECT_EQ(Read(m.message()).graph.status().code(), Code::unimplemented);
  m.opset_version = 28;
  Read r(m.message());
  ASSERT_TRUE(r.graph.ok()) << r.error();
  EXPECT_EQ(r.graph->metadata.at("onnx.opset"), "28");
  EXPECT_EQ(r.graph->metadata.at("onnx.ir_version"), "14");
}

TEST(Import, UnknownOperatorsAreListedTogether) {
  ModelText m = relu();
  m.graph.nodes = {{"Reluu", {"x"}, {"a"}}, {"Magic", {"a"}, {"b"}, "my.domain"}, {"Reluu", {"b"}, {"y"}}};
  Read r(m.message());
  ASSERT_FALSE(r.graph.ok());
  EXPECT_EQ(r.graph.status().code(), Code::unimplemented);
  for (const char* part : {"\"Reluu\" (2 nodes", "nearest known name is \"Relu\"", "my.domain.Magic"})
    EXPECT_NE(r.error().find(part), std::string::npos) << r.error();
  EXPECT_TRUE(Read(m.message(), {.infer = false}).graph.ok());
}

// ---------------------------------------------------------------- hostile structure

TEST(Import, CyclesDuplicatesAndDanglingNamesAreErrors) {
  ModelText m = relu();
  m.graph.nodes = {{"Add", {"x", "b"}, {"a"}}, {"Relu", {"a"}, {"b"}}, {"Relu", {"b"}, {"y"}}};
  EXPECT_NE(Read(m.message()).error().find("cycle"), std::string::npos);
  m.graph.nodes = {{"Relu", {"x"}, {"y"}}, {"Relu", {"x"}, {"y"}}};
  EXPECT_NE(Read(m.message()).error().find("unique"), std::string::npos);
  m.graph.nodes = {{"Relu", {"nothing"}, {"y"}}};
  EXPECT_NE(Read(m.message()).error().find("\"nothing\""), std::string::npos);
  m.graph.nodes = {{"Relu", {"x"}, {"z"}}};
  EXPECT_NE(Read(m.message()).error().find("output \"y\""), std::string::npos);
}

TEST(Import, NodesInAnyOrderAreSorted) {
  ModelText m = relu();
  m.graph.nodes = {{"Relu", {"b"}, {"y"}}, {"Neg", {"a"}, {"b"}}, {"Abs", {"x"}, {"a"}}};
  Read r(m.message());
  ASSERT_TRUE(r.graph.ok()) << r.error();
  EXPECT_EQ(ops(*r.graph), (std::vector<std::string>{"Abs", "Neg", "Relu"}));
}

TEST(Import, BodiesNestOnlySoDeep) {
  auto nested = [](int depth) {
    GraphText inner{.nodes = {{"Relu", {"x"}, {"r0"}}}, .outputs = {value("r0")}};
    for (int i = 1; i <= depth; ++i) {
      std::string body = inner.message(), out = "r" + std::to_string(i);
      inner = {
          .nodes =
              {{"If", {"c"}, {out}, "", {graph_attribute("then_branch", body), graph_attribute("else_branch", body)}}},
          .outputs = {value(out)}};
      if (body.size() > 1 << 20) break;
    }
    return inner;
  };
  ModelText m{.graph = nested(5)};
  m.graph.inputs = {f32("x", {{2}}), value("c", tensor_type(DType::boolean, {}))};
  Read r(m.message());
  ASSERT_TRUE(r.graph.ok()) << r.error();
  const Body* b = r.graph->nodes[0].body("then_branch");
  ASSERT_TRUE(b);
  // Both what the innermost body reads and what the bodies between them read is captured at each level.
  EXPECT_EQ(b->captures.size(), 2u);

  std::string deep = GraphText{.nodes = {{"Relu", {"x"}, {"r"}}}, .outputs = {value("r")}}.message();
  for (int i = 0; i < 100; ++i)
    deep = GraphText{.nodes = {{"Scan", {"x"}, {"r"}, "", {graph_attribute("body", deep)}}}, .outputs = {value("r")}}
               .message();
  ModelText too{.graph = {.nodes = {{"Scan", {"x"}, {"y"}, "", {graph_attribute("body", deep)}}},
                          .inputs = {f32("x", {{2}})},
                          .outputs = {value("y")}}};
  EXPECT_NE(Read(too.message()).error().find("levels deep"), std::string::npos);
}

TEST(Import, NamesInBodiesShadow) {
  GraphText inner{.nodes = {{"Neg", {"outer"}, {"x"}}, {"Relu", {"x"}, {"r"}}}, .outputs = {value("r")}};
  ModelText m{.graph = {.nodes = {{"Abs", {"x"}, {"outer"}},
                                  {"If",
                                   {"c"},
                                   {"y"},
                                   "",
                                   {graph_attribute("then_branch", inner.message()),
                                    graph_attribute("else_branch", inner.message())}}},
                        .inputs = {f32("x", {{2}}), value("c", tensor_type(DType::boolean, {}))},
                        .outputs = {value("y")}}};
  Read r(m.message());
  ASSERT_TRUE(r.graph.ok()) << r.error();
  const Body* b = r.graph->nodes[1].body("then_branch");
  ASSERT_EQ(b->captures.size(), 1u);
  EXPECT_EQ(r.graph->value(b->captures[0]).name, "outer");
}

// ---------------------------------------------------------------- functions

TEST(Import, FunctionsAreInlined) {
  Read r(file(AI_VMM_SOURCE_DIR "/tests/fuzz/corpus/functions.onnx"));
  ASSERT_TRUE(r.graph.ok()) << r.error();
  // Twice(x, c): a = Scale(x, alpha 0.5); y = If c then a else -x; z = x.  Scale: LeakyRelu(2 x). Then Scale again.
  EXPECT_EQ(ops(*r.graph), (std::vector<std::string>{"Mul", "LeakyRelu", "If", "Identity", "Mul", "LeakyRelu"}));
  EXPECT_FLOAT_EQ(r.graph->nodes[1].f("alpha"), 0.5f);
  EXPECT_FLOAT_EQ(r.graph->nodes[5].f("alpha"), 0.1f);
  const Node& branch = r.graph->nodes[2];
  EXPECT_EQ(branch.body("then_branch")->captures, (std::vector<ValueId>{r.graph->nodes[1].outputs[0]}));
  EXPECT_EQ(branch.body("else_branch")->captures, (std::vector<ValueId>{r.graph->inputs[0]}));
  EXPECT_EQ(r.graph->value(r.graph->outputs[0]).type.to_string(), "f32[batch,3]");
}

TEST(Import, FunctionsThatCallThemselvesAreRefused) {
  ModelText m = relu();
  m.graph.nodes = {{"A", {"x"}, {"y"}, "f"}};
  m.functions = {{"f", "A", {"p"}, {"q"}, {{"B", {"p"}, {"q"}, "f"}}},
                 {"f", "B", {"p"}, {"q"}, {{"A", {"p"}, {"q"}, "f"}}}};
  EXPECT_NE(Read(m.message()).error().find("calls itself"), std::string::npos);
}

TEST(Import, FunctionsThatExpandWithoutEndAreStopped) {
  ModelText m = relu();
  m.graph.nodes = {{"F0", {"x"}, {"y"}, "f"}};
  for (int i = 0; i < 40; ++i) {
    std::string next = "F" + std::to_string(i + 1), domain = i == 39 ? "" : "f";
    if (i == 39) next = "Relu";
    m.functions.push_back(
        {"f", "F" + std::to_string(i), {"p"}, {"r"}, {{next, {"p"}, {"q"}, domain}, {next, {"q"}, {"r"}, domain}}});
  }
  EXPECT_EQ(Read(m.message()).graph.status().code(), Code::resource_exhausted);
}

TEST(Import, InputsThatACallLeavesOutAreAbsentInside) {
  ModelText m = relu();
  m.graph.nodes = {{"F", {"x"}, {"y"}, "f"}};
  m.functions = {{"f", "F", {"p", "low", "high"}, {"q"}, {{"Clip", {"p", "low", "high"}, {"q"}}}}};
  Read r(m.message());
  ASSERT_TRUE(r.graph.ok()) << r.error();
  EXPECT_EQ(r.graph->nodes[0].inputs.size(), 1u);
  m.functions[0].nodes = {{"Identity", {"p"}, {"unused"}}};
  m.functions[0].outputs = {"low"};
  EXPECT_NE(Read(m.message()).error().find("does not give"), std::string::npos);
}

// ---------------------------------------------------------------- sizes

TEST(Import, SizesHaveNames) {
  ModelText m =
      relu({{.param = "batch"}, {}, {7}, {.param = "u3"}, {.param = "a b"}, {.param = "a_b"}, {.param = "x_1"}, {0}});
  Read r(m.message());
  ASSERT_TRUE(r.graph.ok()) << r.error();
  EXPECT_EQ(r.graph->value(r.graph->inputs[0]).type.to_string(), "f32[batch,x_1,7,u3,a_b,a_b_2,x_1_2,0]");
  EXPECT_GE(r.graph->symbols, 4);  // what inference makes starts after u3
}

// ---------------------------------------------------------------- constants

TEST(Import, EveryElementTypeIsDecoded) {
  Read r(file(AI_VMM_SOURCE_DIR "/tests/fuzz/corpus/typed_fields.onnx"));
  ASSERT_TRUE(r.graph.ok()) << r.error();
  std::string text = r.graph->to_text();
  for (const char* line :
       {"%f16 = f16[2] [1.0, 2.0]", "%bf = bf16[2] [1.0, 2.0]", "%i4 = i4[3] [1, -2, 3]", "%u2 = u2[5] [0, 1, 2, 3, 0]",
        "%f8 = f8e4m3fn[2] [1.0, 2.0]", "%d = f64[1] [3.0]", "%u64 = u64[1] [9223372036854775808]",
        "%c = c64[1] [1.0, 2.0]", "%b <1, 0> = bool[2] [true, false]"})
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
}

TEST(Import, SparseInitialisersAreDense) {
  Read r(file(AI_VMM_SOURCE_DIR "/tests/fuzz/corpus/initialisers.onnx"));
  ASSERT_TRUE(r.graph.ok()) << r.error();
  EXPECT_NE(r.graph->to_text().find("%S = f32[2,3] [0.0, 1.0, 0.0, 0.0, 0.0, 2.0]"), std::string::npos)
      << r.graph->to_text();
}

std::string sparse(std::vector<int64_t> dims, std::vector<int64_t> indices, int64_t values) {
  ProtoWriter w;
  w.bytes(1, write_onnx_tensor(Tensor::vector(std::vector<float>(size_t(values), 1.f)), "s"));
  w.bytes(2, write_onnx_tensor(Tensor::vector(indices)));
  for (int64_t d : dims) w.varint(3, uint64_t(d));
  return w.take();
}
TEST(Import, AbsurdSparseTensorsAreRefused) {
  for (const std::string& s :
       {sparse({1 << 20, 1 << 20, 1 << 10}, {0}, 1), sparse({2, 2}, {4}, 1), sparse({2, 2}, {-1}, 1),
        sparse({2, 2}, {0}, 2), sparse({0, 2}, {0}, 1), sparse({-1}, {0}, 1)}) {
    ModelText m = relu();
    m.graph.sparse = {s};
    EXPECT_FALSE(Read(m.message()).graph.ok());
  }
}

TEST(Import, TensorsOfWrongSizeAreRefused) {
  auto with = [](const std::string& tensor) {
    ModelText m = relu();
    m.graph.initialisers = {tensor};
    return Read(m.message());
  };
  auto tensor = [](std::vector<int64_t> dims, DType dtype, const std::string& raw, uint32_t field = 9) {
    ProtoWriter w;
    for (int64_t d : dims) w.varint(1, uint64_t(d));
    w.varint(2, uint64_t(dtype));
    w.bytes(8, "t");
    w.bytes(field, raw);
    return w.take();
  };
  EXPECT_TRUE(with(tensor({2}, DType::f32, std::string(8, 0))).graph.ok());
  EXPECT_TRUE(with(tensor({0, 5}, DType::f32, "")).graph.ok());
  for (const std::string& t :
       {tensor({2}, DType::f32, std::string(7, 0)), tensor({-1}, DType::f32, ""),
        tensor({int64_t(1) << 62, 4}, DType::f32, ""), tensor({int64_t(1) << 61}, DType::f64, ""),
        tensor({2}, DType(99), std::string(8, 0)), tensor({2}, DType::string, std::string(8, 0)),
        tensor({3}, DType::f32, std::string(8, 0), 4), tensor({2}, DType::i64, std::string(8, 0), 4),
        tensor({3}, DType::i64, "\x01\x02", 7), tensor({2}, DType::i64, "\x80\x80", 7),
        tensor(std::vector<int64_t>(65, 1), DType::f32, std::string(4, 0))})
    EXPECT_FALSE(with(t).graph.ok());
}

TEST(Import, InitialisersOfOldModelsAreNoInputs) {
  ModelText m = relu();
  m.ir_version = 3;
  m.graph.nodes = {{"Add", {"x", "w"}, {"y"}}};
  m.graph.inputs.push_back(f32("w", {{3}}));
  m.graph.initialisers = {write_onnx_tensor(Tensor::vector<float>({1, 2, 3}), "w")};
  Read r(m.message());
  ASSERT_TRUE(r.graph.ok()) << r.error();
  ASSERT_EQ(r.graph->inputs.size(), 1u);
  EXPECT_TRUE(r.graph->is_constant(r.graph->find("w")));
}

TEST(Import, FromVersion4InitialisersThatAreInputsMayBeOverridden) {
  ModelText m = relu();
  m.ir_version = 4;
  m.graph.nodes = {{"Add", {"x", "w"}, {"y"}}};
  m.graph.inputs.push_back(f32("w", {{-1, "W"}}));
  m.graph.initialisers = {write_onnx_tensor(Tensor::vector<float>({1, 2, 3}), "w")};
  Read plain(m.message());
  ASSERT_TRUE(plain.graph.ok()) << plain.error();
  ASSERT_EQ(plain.graph->overridable.size(), 1u);
  EXPECT_EQ(plain.graph->overridable[0].second.to_string(), "f32[W]");
  EXPECT_EQ(plain.graph->inputs.size(), 1u);
  Read overridden(m.message(), {.overridden = {"w"}});
  ASSERT_TRUE(overridden.graph.ok()) << overridden.error();
  ASSERT_EQ(overridden.graph->inputs.size(), 2u);
  EXPECT_EQ(overridden.graph->value(overridden.graph->inputs[1]).type.to_string(), "f32[W]");
}

// ---------------------------------------------------------------- test data

TEST(Import, DataIsWrittenAndReadBack) {
  auto list = std::make_shared<Sequence>(Sequence{Data(Tensor::vector<float>({1, 2})), Data(Tensor::scalar<float>(3))});
  auto nested = std::make_shared<Sequence>(Sequence{Data(list), Data(std::make_shared<Sequence>())});
  auto optionals = std::make_shared<Sequence>(Sequence{Data(), Data(Tensor::scalar<float>(1))});
  auto map = std::make_shared<MapData>(MapData{Tensor::vector<std::string>({"a", "b"}), Tensor::vector<float>({1, 2})});
  Type t = Type::tensor(DType::f32);
  struct Case {
    Data data;
    Type type;
  };
  const Case cases[] = {{Data(Tensor::of<int64_t>({2, 1}, {5, -6})), Type::tensor(DType::i64)},
                        {Data(Tensor::vector<std::string>({"", "x y"})), Type::tensor(DType::string)},
                        {Data(list), Type::sequence(t)},
                        {Data(nested), Type::sequence(Type::sequence(t))},
                        {Data(optionals), Type::sequence(Type::optional(t))},
                        {Data(), Type::optional(t)},
                        {Data(Tensor::scalar<float>(2)), Type::optional(t)},
                        {Data(list), Type::optional(Type::sequence(t))},
                        {Data(map), Type::map(DType::string, t)}};
  std::function<bool(const Data&, const Data&)> same = [&](const Data& a, const Data& b) {
    if (a.index() != b.index()) return false;
    if (a.is_tensor()) return identical(a.tensor(), b.tensor());
    if (a.is_map()) return identical(a.map().keys, b.map().keys) && identical(a.map().values, b.map().values);
    if (!a.is_sequence()) return true;
    return std::equal(a.sequence().begin(), a.sequence().end(), b.sequence().begin(), b.sequence().end(), same);
  };
  for (const Case& c : cases) {
    std::string bytes = write_onnx_data(c.data, c.type, "name");
    auto read = read_onnx_data(as_bytes(bytes), c.type);
    ASSERT_TRUE(read.ok()) << c.type.to_string() << ": " << read.status().message();
    EXPECT_TRUE(same(c.data, *read)) << c.type.to_string();
  }
}

}  // namespace
}  // namespace ai_vmm
