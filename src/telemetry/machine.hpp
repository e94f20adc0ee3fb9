// The machine around the accelerators: network, disks, memory, and how much work waits for what.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "telemetry/reading.hpp"

namespace ai_vmm::telemetry {

struct NetworkSample {
  std::string name;
  bool loopback = false, up = false;
  Reading received, sent;  // bytes per second
  Reading capacity;  // bytes per second; unknown on virtual links, which make one up, and where a driver says none
};

class NetworkReader {
 public:
  explicit NetworkReader(const Roots& roots) : roots_(roots) {}
  std::vector<NetworkSample> read(int64_t now_ns);

 private:
  Roots roots_;
  std::map<std::string, Rate> received_, sent_;
};

struct DiskSample {
  std::string name;
  Reading read, written;  // bytes per second
  Reading busy;           // share of the time with a request under way, 0 to 1
};

class DiskReader {
 public:
  explicit DiskReader(const Roots& roots) : roots_(roots) {}
  std::vector<DiskSample> read(int64_t now_ns);  // without empty ones, such as unused loop devices

 private:
  Roots roots_;
  std::map<std::string, Rate> read_, written_, busy_;
};

// Pressure stall information: the share of the last 10 s in which some task, or all of them, waited (0 to 1).
struct PressureSample {
  Reading cpu_some, memory_some, memory_full, io_some, io_full;
};
PressureSample read_pressure(const Roots& roots);

struct MemorySample {
  Reading total, available;  // bytes
};
MemorySample read_memory(const Roots& roots);

// What the kernel measured on the established TCP connections of this network namespace, loopback left out.
struct TcpSample {
  int connections = 0;
  Reading min_rtt;        // seconds, the least of all
  Reading delivery_rate;  // bytes per second, the most of all that the sender did not limit
};
// Over a socket of the kernel's diagnosis; no root needed. `loopback`: look at those connections too.
TcpSample read_tcp(bool loopback = false);

}  // namespace ai_vmm::telemetry
