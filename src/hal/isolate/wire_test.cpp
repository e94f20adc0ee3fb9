#include "hal/isolate/wire.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ai_vmm/compute_backend.hpp"
#include "kit/view.hpp"
#include "ops/op.hpp"

namespace ai_vmm::isolate {
namespace {

Graph example() {
  Graph g;
  g.name = "net";
  ValueId x = g.add_value("x", Type::tensor(DType::f32, {Dim::symbol("N"), floor_div(Dim::symbol("N") + 3, 2)}));
  ValueId w = g.add_constant("w", Tensor::of<float>({2}, {1, 2}));
  ValueId y = g.add_value("y"), z = g.add_value("z");
  g.inputs = {x};
  g.outputs = {z};
  g.add_node("Add", {x, w}, {y}).name = "add";
  Node& n = g.add_node("Custom", {y, kAbsent, x}, {z}, "test");
  n.set("i", int64_t(7));
  n.set("f", 0.5f);
  n.set("s", std::string("text"));
  n.set("t", Tensor::of<int64_t>({3}, {1, 2, 3}));
  n.set("is", std::vector<int64_t>{4, 5});
  n.set("fs", std::vector<float>{6});
  n.set("ss", std::vector<std::string>{"a", ""});
  g.value(y).ints = std::vector<Dim>{Dim::symbol("N"), 4};
  return g;
}

TEST(Wire, AGraphArrivesAsItWas) {
  Graph g = example();
  std::string constants, again_constants;
  GraphView view(g);
  std::string bytes = encode(*view.get(), constants);
  Reader r(bytes);
  auto back = DecodedGraph::from(r, constants);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_TRUE(backend::detail::check((*back)->get(), true).ok());
  // Encoding what arrived gives the same message.
  EXPECT_EQ(encode(*(*back)->get(), again_constants), bytes);
  EXPECT_EQ(again_constants, constants);
}

TEST(Wire, ADamagedGraphIsRefusedOrHarmless) {
  Graph g = example();
  std::string constants;
  GraphView view(g);
  const std::string bytes = encode(*view.get(), constants);
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    Reader r(std::string_view(bytes).substr(0, cut));
    EXPECT_FALSE(DecodedGraph::from(r, constants).ok()) << cut;
  }
  for (size_t at = 0; at < bytes.size(); ++at)  // any length may be absurd
    for (char value : {'\xff', '\x7f', '\0'}) {
      std::string spoiled = bytes;
      spoiled[at] = value;
      Reader r(spoiled);
      auto back = DecodedGraph::from(r, constants);
      if (back.ok()) (void)backend::detail::check((*back)->get(), true);
    }
  Reader r(bytes);
  EXPECT_FALSE(DecodedGraph::from(r, std::span<const char>()).ok());  // its constants are missing
}

TEST(Wire, MessagesCarryBytesAndDescriptors) {
  int ends[2], pipes[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  ASSERT_EQ(pipe(pipes), 0);
  std::string sent(5000, 'x'), got;
  ASSERT_TRUE(send_message(ends[0], Call::compile, sent, pipes[1]));
  Call call{};
  int fd = -1;
  ASSERT_TRUE(receive_message(ends[1], call, got, &fd));
  EXPECT_EQ(call, Call::compile);
  EXPECT_EQ(got, sent);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(write(fd, "!", 1), 1);
  char c = 0;
  EXPECT_EQ(read(pipes[0], &c, 1), 1);
  EXPECT_EQ(c, '!');
  close(ends[0]);
  EXPECT_FALSE(receive_message(ends[1], call, got, &fd));
  EXPECT_FALSE(send_message(ends[1], call, sent));  // and no signal
  for (int x : {ends[1], pipes[0], pipes[1], fd}) close(x);
}

TEST(Wire, ARegionGrowsInPlaceForBothSides) {
  auto one = Region::make();
  ASSERT_TRUE(one.ok()) << one.status().message();
  auto two = Region::open(dup((*one)->fd()));
  ASSERT_TRUE(two.ok()) << two.status().message();
  char* before = (*one)->at(Region::kData);
  ASSERT_TRUE((*one)->reserve(10'000'000));
  EXPECT_EQ((*one)->at(Region::kData), before);
  (*one)->at(9'999'999)[0] = 42;
  ASSERT_TRUE((*two)->reserve(10'000'000));
  EXPECT_EQ((*two)->at(9'999'999)[0], 42);
  EXPECT_FALSE((*one)->reserve(Region::kSpan + 1));
}

}  // namespace
}  // namespace ai_vmm::isolate
