#include "graph/text.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <random>

#include "base/numbers.hpp"

namespace ai_vmm {
namespace {

Graph parsed(const std::string& text, const ConstantResolver& resolver = {}) {
  auto g = parse_text(text, resolver);
  EXPECT_TRUE(g.ok()) << g.status().message() << "\n" << text;
  return g.ok() ? *std::move(g) : Graph();
}

TEST(Text, ReadsAsItIsWritten) {
  const std::string text =
      "graph \"example\" {\n"
      "  meta \"onnx.opset\" = \"17\"\n"
      "  symbols 2\n"
      "  input %x: f32[batch,3,floor_div(h + 1, 2)]\n"
      "  input %\"odd name\": seq(f32[...])\n"
      "  const %axes <0, 1> = i64[2] [0, 1]\n"
      "  const %names = string[2] [\"a\\\"b\", \"\\x01\\n\"]\n"
      "  %y: f32[batch,3], _, %n: i64[2] <batch, 3> = com.microsoft::Foo(%x, _, %axes) {a=1, b=1.0, c=\"s\", d=[1, 2], "
      "e=floats[], "
      "f=[0.5, inf], g=tensor f16[2] [1.0, -inf], h=type optional(u8[2]), i=tensors[]} @\"node 1\"\n"
      "  output %y\n"
      "}\n";
  EXPECT_EQ(parsed(text).to_text(), text);
}

TEST(Text, CapturesArePairs) {
  Graph g = parsed(
      "graph \"if\" {\n"
      "  input %c: bool[]\n"
      "  input %x: f32[N]\n"
      "  %z: f32[N] = If(%c) @\"choose\"\n"
      "    body then_branch graph \"t\" {\n"
      "      capture %x: f32[N] = %x\n"
      "      %r: f32[N] = Relu(%x)\n"
      "      output %r\n"
      "    }\n"
      "  output %z\n"
      "}\n");
  ASSERT_EQ(g.nodes.size(), 1u);
  ASSERT_EQ(g.nodes[0].bodies.size(), 1u);
  EXPECT_EQ(g.nodes[0].bodies[0].captures, std::vector<ValueId>{1});
  EXPECT_TRUE(g.verify().ok());
}

TEST(Text, LargeConstantsStandByTheirContent) {
  Graph g;
  std::vector<float> values(100);
  for (size_t i = 0; i < values.size(); ++i) values[i] = float(i);
  g.outputs = {g.add_constant("w", Tensor::of<float>({10, 10}, values))};
  std::string text = g.to_text();
  EXPECT_EQ(parsed(text, constants_of(g)).to_text(), text);
  EXPECT_FALSE(parse_text(text).ok());
  values[99] = -1;
  Graph other;
  other.add_constant("w", Tensor::of<float>({10, 10}, values));
  EXPECT_FALSE(parse_text(text, constants_of(other)).ok());
}

TEST(Text, ErrorsNameTheLine) {
  for (const char* text : {"", "graph", "graph \"a\" {", "graph \"a\" {\n output %x\n}\n",
                           "graph \"a\" {\n input %x: f99[2]\n}\n", "graph \"a\" {\n const %x = f32[2] [1.0]\n}\n",
                           "graph \"a\" {\n %x: ? = Foo(\n}\n", "graph \"a\" {\n input %x: f32[a b]\n}\n",
                           "graph \"a\" {\n}\nmore", "graph \"a\" {\n input %x: ?\n input %x: ?\n}\n"}) {
    auto g = parse_text(text);
    ASSERT_FALSE(g.ok()) << text;
    EXPECT_NE(g.status().message().find("Line "), std::string::npos) << g.status().message();
  }
}

// Graphs of random names, types, attributes, constants of every element type (any bits) and nested bodies.
struct Maker {
  std::mt19937_64 random;
  int64_t below(int64_t n) { return int64_t(random() % uint64_t(n)); }

  std::string name() {
    static constexpr const char* kParts[] = {"a", "Conv", "_", ":", "::", " ", "\"",   "\\", "\n",
                                             "%", ",",    "é", ")", "=",  "9", "\x01", "/"};
    std::string s;
    for (int64_t i = 0, n = 1 + below(4); i < n; ++i) s += kParts[below(std::size(kParts))];
    return s;
  }
  Dim dim() {
    switch (below(5)) {
      case 0: return Dim::symbol("N");
      case 1: return floor_div(Dim::symbol("H") + Dim(below(3)), Dim(2)) * Dim::symbol("N") - Dim(1);
      case 2: return max(Dim::symbol("a.b/c:d"), Dim(below(3)));
      default: return below(100);
    }
  }
  Type type(int depth = 0) {
    switch (depth < 3 ? below(8) : 7) {
      case 0: return {};
      case 1: return Type::sequence(type(depth + 1));
      case 2: return Type::optional(type(depth + 1));
      case 3: return Type::map(DType::i64, type(depth + 1));
      case 4: return Type::tensor(DType(below(kDTypeCount)));
      default: {
        std::vector<Dim> dims;
        for (int64_t i = 0, n = below(4); i < n; ++i) dims.push_back(dim());
        return Type::tensor(DType(below(kDTypeCount)), dims);
      }
    }
  }
  Tensor tensor() {
    auto dtype = DType(1 + below(kDTypeCount - 1));
    Shape shape;
    for (int64_t i = 0, n = below(3); i < n; ++i) shape.push_back(below(7));
    Tensor t = *Tensor::make(dtype, shape, true);
    if (dtype == DType::string) {
      for (auto& s : t.as_mutable<std::string>()) s = name();
    } else {
      for (int64_t i = 0; i < t.count(); ++i) {
        if (dtype == DType::boolean || bits(dtype) < 8) {
          write_int64(bits(dtype) == 8   ? DType::boolean
                      : bits(dtype) == 4 ? DType::u4
                                         : DType::u2,
                      t.mutable_data(), i, below(16));
        } else {
          uint64_t any[2] = {random(), random()};
          std::memcpy(static_cast<char*>(t.mutable_data()) + i * bits(dtype) / 8, any, size_t(bits(dtype) / 8));
        }
      }
    }
    return t;
  }
  AttrValue attribute() {
    auto some = [&](auto make) {
      std::vector<decltype(make())> v;
      for (int64_t i = 0, n = below(4); i < n; ++i) v.push_back(make());
      return AttrValue(v);
    };
    auto real = [&] { return std::bit_cast<float>(uint32_t(random())); };
    switch (below(9)) {
      case 0: return int64_t(random());
      case 1: return real();
      case 2: return name();
      case 3: return tensor();
      case 4: return some([&] { return int64_t(random()); });
      case 5: return some(real);
      case 6: return some([&] { return name(); });
      case 7: return some([&] { return tensor(); });
      default: return type();
    }
  }
  Graph graph(const Graph* outer, Body* body, int depth) {
    Graph g;
    g.name = name();
    g.symbols = depth ? 0 : below(9);
    if (!depth) g.metadata[name()] = name();
    for (int64_t i = 0, n = below(3); i < n; ++i) g.inputs.push_back(g.add_value(name(), type()));
    for (int64_t i = 0, n = outer ? below(3) : 0; i < n; ++i) {
      auto from = ValueId(below(int64_t(outer->values.size())));
      ValueId v = g.add_value(name(), type());
      g.captures.push_back(v);
      body->captures.push_back(from);
      g.value(v).constant = outer->value(from).constant;
    }
    for (int64_t i = 0, n = 1 + below(3); i < n; ++i) {
      ValueId v = g.add_constant(name(), tensor());
      if (below(4) == 0) g.value(v).type = type();
      if (below(4) == 0) g.value(v).ints = {dim(), dim()};
    }
    for (int64_t i = 0, n = below(4); i < n; ++i) {
      std::vector<ValueId> in, out;
      for (int64_t k = 0, m = below(4); k < m; ++k)
        in.push_back(below(5) ? ValueId(below(int64_t(g.values.size()))) : kAbsent);
      Node node;
      node.op = name();
      if (below(2)) node.domain = name();
      if (below(2)) node.name = name();
      node.inputs = in;
      for (int64_t k = 0, m = below(3); k < m; ++k)
        node.attributes.push_back({name() + std::to_string(k), attribute()});
      if (depth < 2 && below(3) == 0) {
        Body b;
        b.attribute = name();
        b.graph = std::make_shared<Graph>(graph(&g, &b, depth + 1));
        node.bodies.push_back(std::move(b));
      }
      for (int64_t k = 0, m = below(3); k < m; ++k) {
        ValueId v = below(5) ? g.add_value(name(), type()) : kAbsent;
        if (v != kAbsent && below(3) == 0) g.value(v).ints = {dim()};
        node.outputs.push_back(v);
      }
      g.nodes.push_back(std::move(node));
    }
    if (below(2)) g.add_value(name(), type());
    for (int64_t i = 0, n = below(3); i < n; ++i) g.outputs.push_back(ValueId(below(int64_t(g.values.size()))));
    return g;
  }
};

TEST(Text, RandomGraphsSurviveTheRoundTrip) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    Graph g = Maker{std::mt19937_64(seed)}.graph(nullptr, nullptr, 0);
    std::string text = g.to_text();
    auto again = parse_text(text, constants_of(g));
    ASSERT_TRUE(again.ok()) << "seed " << seed << ": " << again.status().message() << "\n" << text;
    ASSERT_EQ(again->to_text(), text) << "seed " << seed;
  }
}

// A damaged text gives an error or another graph, never a crash.
TEST(Text, DamagedTextIsRefused) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    Maker make{std::mt19937_64(seed)};
    Graph g = make.graph(nullptr, nullptr, 0);
    std::string text = g.to_text();
    for (int k = 0; k < 3; ++k) {
      auto at = size_t(make.below(int64_t(text.size())));
      if (make.below(2))
        text.erase(at, size_t(1 + make.below(8)));
      else
        text[at] = "{}[]()\"%,:<>#0a\n"[make.below(16)];
    }
    (void)parse_text(text, constants_of(g)).ok();
  }
}

}  // namespace
}  // namespace ai_vmm
