// A chip that does not exist, as a small text file describes it, and what work costs on it.
//
//   chip = Example NPU
//   peak.f32 = 2 Tflop/s          # operations a second by element type; `peak.other` for all types not named
//   peak.i8 = 16 Top/s
//   bandwidth = 100 GB/s          # of the chip's memory
//   memory = 4 GiB
//   launch = 5 us                 # for each operator
//   link.bandwidth = 16 GB/s      # to the host, each way; without it the chip shares the host's memory
//   link.latency = 2 us           # for each transfer
//   link.peers = true             # reads the memory of other such chips over the link without a copy
//   power.idle = 5 W
//   power.peak = 30 W
//   operators = Conv MatMul Add   # only these; without it every operator of ONNX
//   refuses = Gather              # all but these
//   dynamic = false               # sizes must be known when the graph is compiled
//   resource = sim:board0         # chips of one resource share its fate; without it each is its own
//   pace = 1                      # a run takes this multiple of its simulated time; without it, no longer than it must
//   fail = busy at 3 for 10 ms    # the third run; also `from 3 to 5`, `every 10`, `chance 0.01`
//   fail = lost at 7 forever      # without `forever`: until the device is opened anew
//
// Failures are out_of_memory, busy, lost, wrong_result and hang (until cancelled, or `for` a time). A line `chip`
// begins the next chip. # begins a comment.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ai_vmm/types.hpp"
#include "graph/graph.hpp"

namespace ai_vmm::sim {

struct Failure {
  enum class Kind { out_of_memory, busy, lost, wrong_result, hang };
  Kind kind = Kind::busy;
  int64_t first = 0, last = -1;  // runs, counted from 1
  int64_t every = 0;
  double chance = 0;
  int64_t for_ns = 0;  // of busy: the advice when to come again; of hang: how long, 0: until cancelled
  bool forever = false;
  // Whether it befalls run number `run`. The draw of `chance` depends on the number alone.
  bool strikes(int64_t run) const;
};

struct Chip {
  std::string name, resource;
  std::map<DType, double> peak;  // operations a second
  double other_peak = 0;         // of types not in `peak`; 0: the chip cannot do them
  double bandwidth = 100e9;      // bytes a second
  int64_t memory = int64_t(4) << 30;
  double launch_ns = 5000;
  double link_bandwidth = 0, link_ns = 0;  // 0: no link
  double idle_watts = 0, peak_watts = 0;
  double pace = 0;
  bool dynamic = true, link_peers = false;
  std::set<std::string, std::less<>> operators, refuses;
  std::vector<Failure> failures;

  bool shares_host() const { return link_bandwidth <= 0; }
  double rate(DType type) const;  // 0: not supported
};

// Fails with the line's number and what is expected there.
Result<std::vector<Chip>> parse_chips(std::string_view text);
extern const char kDefaultChip[];  // what there is without a description

struct Work {
  double ns = 0, busy_ns = 0;  // busy: without launches, at full power
  Work& operator+=(const Work& w) {
    ns += w.ns;
    busy_ns += w.busy_ns;
    return *this;
  }
};

// One node at known types: launch + max(operations / peak, bytes / bandwidth).
Work work_of(const Chip& chip, const Node& node, std::span<const Type> inputs, std::span<const Type> outputs);
Work transfer(const Chip& chip, double bytes);  // over the link
double joules(const Chip& chip, const Work& work);
// The element type that a node's arithmetic is done in, by which its peak is taken; undefined: it only moves data.
DType arithmetic(const Node& node, std::span<const Type> inputs, std::span<const Type> outputs);

}  // namespace ai_vmm::sim
