// The simulated chips of this layer's tests: one file, as it is read once a process.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace ai_vmm {

// sim:0 to sim:9 are for the tests of failover (5 and 6 share a board, and so a fate), sim:10 to sim:16 for those of
// memory, the others for those of states.
inline constexpr char kTestChips[] = R"(
chip = Lost once          # 0
peak.f32 = 1 Tflop/s
fail = lost at 20
chip = Lost for ever      # 1
peak.f32 = 1 Tflop/s
fail = lost at 3 forever
chip = Busy               # 2
peak.f32 = 1 Tflop/s
fail = busy every 2 for 1 ms
chip = Full               # 3
peak.f32 = 1 Tflop/s
fail = out_of_memory every 3
chip = Sound              # 4
peak.f32 = 1 Tflop/s
chip = Left of a board    # 5
resource = board
peak.f32 = 1 Tflop/s
fail = lost at 1 forever
chip = Right of a board   # 6
resource = board
peak.f32 = 1 Tflop/s
chip = Always busy        # 7
peak.f32 = 1 Tflop/s
fail = busy from 1 for 1 ms
chip = Flaky              # 8
peak.f32 = 1 Tflop/s
fail = lost chance 0.02
fail = busy chance 0.1
fail = out_of_memory chance 0.1
chip = Lost early         # 9
peak.f32 = 1 Tflop/s
fail = lost at 2
chip = Relu over a link      # 10
peak.other = 1 Top/s
operators = Relu
memory = 64 MiB
launch = 10 us
link.bandwidth = 1 GB/s
link.latency = 1 us
power.idle = 2 W
chip = Neg over a link       # 11
peak.other = 1 Top/s
operators = Neg
memory = 64 MiB
link.bandwidth = 1 GB/s
chip = Abs beside the host   # 12
peak.other = 1 Top/s
operators = Abs
chip = Relu of a peer        # 13
peak.other = 1 Top/s
operators = Relu
link.bandwidth = 1 GB/s
link.peers = true
chip = Neg of a peer         # 14
peak.other = 1 Top/s
operators = Neg
link.bandwidth = 1 GB/s
link.peers = true
chip = Small                 # 15
peak.other = 1 Top/s
operators = Relu Neg Add
memory = 20 KiB
link.bandwidth = 1 GB/s
chip = Lost in its second run  # 16
peak.other = 1 Top/s
operators = Relu
link.bandwidth = 1 GB/s
fail = lost at 2
chip = Keeps states over a link  # 17
peak.other = 1 Top/s
link.bandwidth = 1 GB/s
chip = Lost in its eighth run    # 18
peak.other = 1 Top/s
link.bandwidth = 1 GB/s
fail = lost at 8 forever
)";

inline void use_test_chips() {
  static const std::string file = [] {
    std::string path = ::testing::TempDir() + "runtime_test_chips.txt";
    std::ofstream(path) << kTestChips;
    return path;
  }();
  setenv("AI_VMM_SIM_CHIPS", file.c_str(), 1);
}

}  // namespace ai_vmm
