// What depends on files: external data, links, change under us, and the memory that loading takes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/file.hpp"
#include "import/onnx.hpp"
#include "import/test_models.hpp"

namespace ai_vmm {
namespace {

using namespace test;
namespace fs = std::filesystem;

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "import_test_XXXXXX";  // in the build folder, where tests run
    ASSERT_TRUE(mkdtemp(name));
    root_ = fs::absolute(name);
    fs::create_directories(root_ / "model");
    fs::create_directories(root_ / "elsewhere");
  }
  void TearDown() override { fs::remove_all(root_); }

  fs::path write(const fs::path& where, const std::string& bytes) {
    std::ofstream(root_ / where, std::ios::binary) << bytes;
    return root_ / where;
  }
  // y = x + w, where w lies in another file.
  static std::string model(const std::string& location, int64_t offset = 0, int64_t length = 16, int64_t size = 4) {
    ProtoWriter w;
    w.varint(1, uint64_t(size));
    w.varint(2, uint64_t(DType::f32));
    w.bytes(8, "w");
    auto entry = [&](const char* key, const std::string& v) {
      ProtoWriter e;
      e.bytes(1, key);
      e.bytes(2, v);
      w.bytes(13, e.take());
    };
    entry("location", location);
    entry("offset", std::to_string(offset));
    entry("length", std::to_string(length));
    w.varint(14, 1);
    ModelText m{.graph = {.nodes = {{"Add", {"x", "w"}, {"y"}}},
                          .inputs = {f32("x", {{size}})},
                          .outputs = {value("y")},
                          .initialisers = {w.take()}}};
    return m.message();
  }
  static std::string floats(std::vector<float> v) { return {reinterpret_cast<const char*>(v.data()), v.size() * 4}; }
  static float first(const Graph& g) { return g.value(g.find("w")).constant.as<float>()[0]; }

  fs::path root_;
};

TEST_F(Files, ExternalDataIsViewed) {
  auto path = write("model/m.onnx", model("w.bin", 8));
  write("model/w.bin", floats({0, 0, 5, 6, 7, 8}));
  for (bool copy : {false, true}) {
    auto g = import_onnx(path, {.copy_weights = copy});
    ASSERT_TRUE(g.ok()) << g.status().message();
    EXPECT_EQ(first(*g), 5);
    EXPECT_TRUE(verify_files(*g).ok());
  }
  std::string bytes = model("w.bin");
  EXPECT_NE(import_onnx(as_bytes(bytes)).status().message().find("without a folder"), std::string::npos);
}

TEST_F(Files, ExternalDataBeyondTheFileIsRefused) {
  write("model/w.bin", floats({1, 2, 3, 4}));
  for (auto [offset, length, size] : {std::tuple(4l, 16l, 4l), std::tuple(0l, 12l, 4l), std::tuple(-1l, 16l, 4l),
                                      std::tuple(0l, 400l, 100l), std::tuple(int64_t(1) << 62, 16l, 4l)}) {
    auto g = import_onnx(write("model/m.onnx", model("w.bin", offset, length, size)));
    EXPECT_EQ(g.status().code(), Code::data_loss) << offset << " " << length;
  }
  EXPECT_EQ(import_onnx(write("model/m.onnx", model("absent.bin"))).status().code(), Code::not_found);
}

TEST_F(Files, ExternalDataStaysInTheFolder) {
  write("elsewhere/w.bin", floats({9, 9, 9, 9}));
  write("model/w.bin", floats({1, 2, 3, 4}));
  for (const std::string& location :
       {std::string("../elsewhere/w.bin"), (root_ / "elsewhere/w.bin").string(), std::string("a/../../elsewhere/w.bin"),
        std::string(), std::string("w.bin\0x", 7), std::string("..")}) {
    auto g = import_onnx(write("model/m.onnx", model(location)), {.allow_links = true});
    EXPECT_EQ(g.status().code(), Code::permission_denied) << location;
  }
  fs::create_symlink(root_ / "elsewhere", root_ / "model/out");
  fs::create_symlink(root_ / "elsewhere/w.bin", root_ / "model/out.bin");
  fs::create_symlink("w.bin", root_ / "model/in.bin");
  for (const char* location : {"out/w.bin", "out.bin"}) {
    auto path = write("model/m.onnx", model(location));
    auto refused = import_onnx(path);
    EXPECT_EQ(refused.status().code(), Code::permission_denied);
    EXPECT_NE(refused.status().message().find("--allow-links"), std::string::npos);
    auto allowed = import_onnx(path, {.allow_links = true});
    ASSERT_TRUE(allowed.ok()) << allowed.status().message();
    EXPECT_EQ(first(*allowed), 9);
  }
  auto inside = import_onnx(write("model/m.onnx", model("in.bin")));
  ASSERT_TRUE(inside.ok()) << inside.status().message();
  mkfifo((root_ / "model/pipe").c_str(), 0600);
  EXPECT_EQ(import_onnx(write("model/m.onnx", model("pipe"))).status().code(), Code::invalid_argument);
}

// A hub's cache: names in one folder are links to contents in another.
TEST_F(Files, ALinkedModelFindsItsWeights) {
  fs::create_directories(root_ / "hub/blobs");
  fs::create_directories(root_ / "hub/snapshots/1");
  write("hub/blobs/aaaa", model("w.bin"));
  write("hub/blobs/bbbb", floats({3, 0, 0, 0}));
  fs::create_symlink("../../blobs/aaaa", root_ / "hub/snapshots/1/m.onnx");
  fs::create_symlink("../../blobs/bbbb", root_ / "hub/snapshots/1/w.bin");
  auto g = import_onnx(root_ / "hub/snapshots/1/m.onnx");
  ASSERT_TRUE(g.ok()) << g.status().message();
  EXPECT_EQ(first(*g), 3);
}

TEST_F(Files, ChangeIsNoticedAndACopySurvivesIt) {
  auto path = write("model/m.onnx", model("w.bin", 0, 4 * 4096, 4096));
  write("model/w.bin", floats(std::vector<float>(4096, 1)));
  auto mapped = import_onnx(path);
  auto copied = import_onnx(path, {.copy_weights = true});
  ASSERT_TRUE(mapped.ok() && copied.ok());
  {
    // The same bytes written again are no change.
    std::fstream f(root_ / "model/w.bin", std::ios::in | std::ios::out | std::ios::binary);
    f << floats({1});
  }
  EXPECT_TRUE(verify_files(*mapped).ok());
  {
    std::fstream f(root_ / "model/w.bin", std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(400);
    f << floats({2});
  }
  EXPECT_EQ(verify_files(*mapped).code(), Code::data_loss);
  fs::resize_file(root_ / "model/w.bin", 0);
  EXPECT_EQ(verify_files(*mapped).code(), Code::data_loss);
  EXPECT_TRUE(verify_files(*copied).ok());
  EXPECT_EQ(copied->value(copied->find("w")).constant.as<float>()[4095], 1);  // would be a bus error in the mapping
}

TEST_F(Files, WhatIsNoFileIsRefused) {
  EXPECT_EQ(import_onnx(root_ / "absent.onnx").status().code(), Code::not_found);
  EXPECT_EQ(import_onnx(root_.string()).status().code(), Code::invalid_argument);
  EXPECT_FALSE(import_onnx(write("model/empty.onnx", "")).ok());
}

int64_t peak_kib() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::stoll(line.substr(6));
  return -1;
}

// Loading 512 MB of weights, and reading every byte of them, peaks at no more than 1.15 times that. The file is mostly
// one hole, which memory does not know: its pages count when they are touched.
TEST_F(Files, LoadingPeaksNearTheSizeOfTheWeights) {
  constexpr int64_t kTensors = 16, kElements = int64_t(8) << 20;  // of 32 MiB each
  fs::path path = root_ / "model/large.onnx";
  {
    auto sized = [](uint32_t field, std::string head, uint64_t payload) {  // a field whose payload follows later
      ProtoWriter w;
      w.bytes(field, "");
      std::string tag = w.take();
      tag.pop_back();
      ProtoWriter length;
      length.varint(1, head.size() + payload);
      return tag + length.take().substr(1) + head;
    };
    std::string graph;
    std::vector<std::pair<std::string, uint64_t>> parts;  // bytes, then a hole
    uint64_t graph_size = 0;
    std::string previous = "x";
    for (int64_t i = 0; i < kTensors; ++i) {
      std::string name = "w" + std::to_string(i) + std::string(size_t(i % 4), '_');  // so that alignments differ
      ProtoWriter head;
      head.varint(1, uint64_t(kElements));
      head.varint(2, uint64_t(DType::f32));
      head.bytes(8, name);
      parts.emplace_back(sized(5, head.take() + sized(9, "", uint64_t(kElements) * 4), uint64_t(kElements) * 4),
                         uint64_t(kElements) * 4);
      std::string out = i + 1 == kTensors ? "y" : "v" + std::to_string(i);
      ProtoWriter node;
      node.bytes(1, NodeText{"Add", {previous, name}, {out}}.message());
      graph += node.take();
      previous = out;
    }
    ProtoWriter rest;
    rest.bytes(11, f32("x", {{kElements}}));
    rest.bytes(12, value("y"));
    graph += rest.take();
    graph_size = graph.size();
    for (auto& [bytes, hole] : parts) graph_size += bytes.size() + hole;
    ProtoWriter model;
    model.varint(1, 10);
    model.bytes(8, opset(18));
    std::string start = model.take() + sized(7, "", graph_size) + graph;
    int fd = open(path.c_str(), O_CREAT | O_WRONLY, 0600);
    ASSERT_GE(fd, 0);
    off_t at = 0;
    auto put = [&](const std::string& s) {
      ASSERT_EQ(pwrite(fd, s.data(), s.size(), at), ssize_t(s.size()));
      at += off_t(s.size());
    };
    put(start);
    for (auto& [bytes, hole] : parts) {
      put(bytes);
      at += off_t(hole);
    }
    ASSERT_EQ(ftruncate(fd, at), 0);
    close(fd);
  }
  for (bool copy : {false, true}) {
    int results[2];
    ASSERT_EQ(pipe(results), 0);
    pid_t child = fork();
    if (child == 0) {
      int64_t report[2] = {-1, 0};
      if (auto g = import_onnx(path, {.copy_weights = copy}); g.ok()) {
        int64_t sum = 0, weights = 0;
        for (const Value& v : g->values) {
          if (!v.constant) continue;
          const char* p = static_cast<const char*>(v.constant.data());
          for (int64_t i = 0; i < v.constant.bytes(); i += 4096) sum += p[i];
          weights += v.constant.bytes();
        }
        report[0] = sum == 0 ? weights : -2;
        report[1] = peak_kib() * 1024;
      }
      bool sent = ::write(results[1], report, sizeof report) == ssize_t(sizeof report);
      _exit(sent ? 0 : 1);
    }
    int64_t report[2] = {};
    ASSERT_EQ(read(results[0], report, sizeof report), ssize_t(sizeof report));
    int status = 0;
    waitpid(child, &status, 0);
    close(results[0]);
    close(results[1]);
    ASSERT_EQ(report[0], kTensors * kElements * 4);
    RecordProperty(copy ? "peak_copied" : "peak_mapped", std::to_string(report[1]));
    std::printf("%s: %lld bytes of weights, peak %lld bytes, %.3f of them\n", copy ? "copied" : "mapped",
                (long long)report[0], (long long)report[1], double(report[1]) / double(report[0]));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // whose shadow memory counts
    EXPECT_LE(double(report[1]), 1.15 * double(report[0]));
#endif
  }
}

}  // namespace
}  // namespace ai_vmm
