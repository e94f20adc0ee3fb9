#include "workloads.hpp"

#include <cmath>
#include <fstream>
#include <random>

namespace AIRamp::Trace {

using ai_vmm::Code;
using ai_vmm::Result;
using ai_vmm::Status;

Result<Events> read_trace(const std::string& path) {
  std::ifstream in(path);
  if (!in) return Status(Code::not_found, "The trace \"" + path + "\" cannot be opened.");
  Events out;
  std::string line;
  for (Obs o; std::getline(in, line);) {
    if (!Interposer::parse_trace_line(line.data(), line.size(), &o))
      return Status(Code::data_loss, "Line " + std::to_string(out.size() + 1) + " of the trace \"" + path + "\" is \"" +
                                         line.substr(0, 60) + "\", which is no observation.");
    out.push_back(o);
  }
  return out;
}

namespace {

constexpr int kSteps = 200;
constexpr int64_t kMicrosecond = 1000, kSecond = 1'000'000'000;

// A step takes its sizes one after the other and gives all back at its end.
class Maker {
 public:
  explicit Maker(unsigned seed) : random(seed) {}
  void step(const std::vector<uint64_t>& sizes, int64_t pause_ns) {
    for (uint64_t s : sizes) events.push_back({now_ += 10 * kMicrosecond, s, ObsKind::allocate});
    now_ += 10'000 * kMicrosecond;
    for (uint64_t s : sizes) events.push_back({now_ += 10 * kMicrosecond, s, ObsKind::release});
    events.push_back({now_ += pause_ns, 0, ObsKind::boundary});
  }
  std::mt19937_64 random;
  Events events;

 private:
  int64_t now_ = kSecond;
};

// One forward and backward pass of a transformer: 12 layers, float32, width 768, 8 sequences of `length` tokens.
std::vector<uint64_t> transformer(uint64_t length) {
  std::vector<uint64_t> sizes;
  uint64_t tokens = 8 * length;
  for (int layer = 0; layer < 12; ++layer) {
    for (int i = 0; i < 4; ++i) sizes.push_back(tokens * 768 * 4);  // query, key, value, output
    sizes.push_back(8 * 12 * length * length * 4);                  // scores
    sizes.push_back(tokens * 3072 * 4);                             // inside the feed-forward part
    sizes.push_back(tokens * 768 * 4);
  }
  sizes.push_back(tokens * 50257 * 4);  // logits
  return sizes;
}

Events repeated(unsigned seed) {
  Maker m(seed);
  for (int i = 0; i < kSteps; ++i) m.step(transformer(512), kMicrosecond);
  return m.events;
}

Events variable(unsigned seed) {
  Maker m(seed);
  std::uniform_int_distribution<uint64_t> length(32, 512);
  for (int i = 0; i < kSteps; ++i) m.step(transformer(length(m.random)), kMicrosecond);
  return m.events;
}

Events bucketed(unsigned seed) {
  Maker m(seed);
  std::uniform_int_distribution<uint64_t> bucket(1, 4);
  for (int i = 0; i < kSteps; ++i) m.step(transformer(128 * bucket(m.random)), kMicrosecond);
  return m.events;
}

Events log_normal(unsigned seed) {
  Maker m(seed);
  std::lognormal_distribution<double> size(std::log(4e6), 1);
  for (int i = 0; i < kSteps; ++i) {
    std::vector<uint64_t> sizes(100);
    for (uint64_t& s : sizes) s = uint64_t(size(m.random)) + 512;
    m.step(sizes, kMicrosecond);
  }
  return m.events;
}

Events evaluation(unsigned seed) {
  Maker m(seed);
  for (int i = 0; i < kSteps; ++i) m.step(i % 10 == 9 ? transformer(1024) : transformer(512), kMicrosecond);
  return m.events;
}

Events phases(unsigned seed) {
  Maker m(seed);
  for (int i = 0; i < kSteps; ++i) m.step(transformer(i / 50 % 2 ? 384 : 512), kMicrosecond);
  return m.events;
}

Events paused(unsigned seed) {
  Maker m(seed);
  std::uniform_int_distribution<int64_t> jitter(25, 35);
  for (int i = 0; i < kSteps; ++i) m.step(transformer(512), jitter(m.random) * kSecond);
  return m.events;
}

}  // namespace

const std::vector<Workload>& workloads() {
  static const std::vector<Workload> all = {
      {"repeated sizes", "a transformer at one length", repeated},
      {"variable lengths", "the same, with 32 to 512 tokens drawn for each step", variable},
      {"four lengths", "the same, padded to one of four lengths", bucketed},
      {"log-normal", "100 sizes a step from a log-normal distribution (sigma 1)", log_normal},
      {"evaluation", "every tenth step has twice the length", evaluation},
      {"phases", "another length for every 50 steps", phases},
      {"pauses", "a step every 25 to 35 s, longer than the pool keeps blocks", paused},
  };
  return all;
}

}  // namespace AIRamp::Trace
