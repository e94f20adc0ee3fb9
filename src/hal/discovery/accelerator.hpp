// What discovery finds: the machine's accelerators, each once, with what the kernel and the vendors' runtimes say of
// it. Absent means not known; nothing is zero for want of knowledge.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/pci.hpp"
#include "base/processors.hpp"

namespace ai_vmm {

enum class DeviceKind { processor, gpu, npu, accelerator };
const char* name(DeviceKind kind);

// Interfaces through which programs reach devices. NVML only tells about NVIDIA's, it does not compute.
enum class Runtime { opencl, cuda, nvml, hip, level_zero, openvino };
inline constexpr Runtime kRuntimes[] = {Runtime::nvml,   Runtime::cuda,       Runtime::hip,
                                        Runtime::opencl, Runtime::level_zero, Runtime::openvino};
const char* name(Runtime runtime);        // "OpenCL", for people
const char* identifier(Runtime runtime);  // "opencl", in JSON; also the name of our backend for it, where there is one

// One device as one runtime reports it.
struct RuntimeDevice {
  std::string index;     // how that runtime numbers it, which changes from boot to boot: "0", "0.1", "GPU.0"
  std::string name;      // "" where it gives none
  std::string platform;  // the implementation behind the interface, such as "Portable Computing Language"
  std::optional<DeviceKind> kind;
  std::optional<PciAddress> pci;
  std::string uuid;  // "GPU-5fc4…", "" not told
  std::string serial;
  std::optional<int64_t> memory_bytes;
  std::string architecture;  // "sm_90", "gfx90a"
  std::string driver;        // version
  std::string firmware;
};

struct RuntimeReport {
  Runtime runtime = Runtime::opencl;
  bool present = false;  // its library is on this machine
  bool answered = false;
  std::string library;  // the file
  std::string version;
  std::string problem;  // why it did not answer, or answered for a part only; "" if nothing is wrong
  int64_t error = 0;    // the runtime's own number for that; 0 none
  std::vector<RuntimeDevice> devices;
};

// A file under /dev through which a device is used.
struct DeviceNode {
  std::string path;
  bool exists = false;
  bool usable = false;  // this process may read and write it
  std::string group;    // that owns it and may; "" where no group may
};

struct Advice {
  std::string problem;  // a sentence
  std::string remedy;   // what to do; a sentence
};

struct Accelerator {
  DeviceKind kind = DeviceKind::accelerator;
  // What stays the same from boot to boot: the address, with serial number or UUID where one is known:
  // "pci:0000:3b:00.0#GPU-5fc4…". No runtime's numbering is in it.
  std::string id;
  std::string
      resource;  // the silicon: "pci:0000:3b:00.0", "cpu:0"; of a virtual function that of its physical function
  std::string name;
  std::string vendor;

  std::optional<PciAddress> pci;
  std::optional<uint16_t> vendor_id, device_id;
  std::optional<int> numa_node, iommu_group;
  std::string link;            // "16.0 GT/s x16 of 32.0 GT/s x16"
  std::string driver;          // of the kernel; "" none is bound
  std::string driver_version;  // "" where the kernel gives none: then it is as old as the kernel
  std::map<std::string, std::string> firmware;
  std::string serial;        // or UUID, as the kernel tells it
  std::string architecture;  // as the kernel tells it
  std::optional<int64_t> memory_bytes;
  std::vector<DeviceNode> nodes;

  struct Sight {
    Runtime runtime;
    RuntimeDevice device;
  };
  std::vector<Sight> seen;  // by runtimes; partitions of one device appear each
  bool by_system = true;    // the kernel shows it; otherwise only runtimes do, as in some virtual machines

  // What stands between this device and the runtime made for it. Not empty: something can be done.
  std::vector<Advice> advice;

  bool computes() const;  // some runtime that computes reports it
};

struct Machine {
  ProcessorFacts processor;
  std::string kernel;                     // release
  std::vector<Accelerator> accelerators;  // the processor first, then in order of address
  std::vector<RuntimeReport> runtimes;    // those asked
};

}  // namespace ai_vmm
