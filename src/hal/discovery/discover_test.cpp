// Machines that are not here: fixture trees for the kernel's side, fake libraries (tests/fakes) for the runtimes' side.
#include "hal/discovery/discover.hpp"

#include <grp.h>
#include <gtest/gtest.h>
#include <pwd.h>

#include <set>

#include "hal/discovery/fixture_tree.hpp"
#include "hal/discovery/json.hpp"

namespace ai_vmm {
namespace {

// The only libraries that discovery finds, and what they say: {"FAKE_CUDA", "0000:3b:00.0"}.
struct Fakes {
  std::vector<std::string> libraries;
  std::map<std::string, std::string> says;
  std::chrono::milliseconds patience{10000};
};

Machine look(const FixtureTree& tree, const Fakes& fakes = {}) {
  FixtureTree folder("");
  for (const std::string& l : fakes.libraries)
    std::filesystem::create_symlink(std::string(AI_VMM_FAKES) + "/" + l, folder.at("/" + l));
  for (auto& [variable, value] : fakes.says) setenv(variable.c_str(), value.c_str(), 1);
  Machine m = discover({.root = tree.root(), .runtimes = {.folder = folder.root(), .patience = fakes.patience}});
  for (auto& [variable, value] : fakes.says) unsetenv(variable.c_str());
  return m;
}

const Accelerator& only(const Machine& m) {
  EXPECT_EQ(m.accelerators.size(), 2u) << "the processor and one more";
  return m.accelerators.at(1);
}
// The first obstacle and its remedy as one text.
std::string advice(const Accelerator& a) {
  return a.advice.empty() ? "" : a.advice[0].problem + " | " + a.advice[0].remedy;
}
#define EXPECT_HAS(text, part) EXPECT_NE(std::string(text).find(part), std::string::npos) << std::string(text)

const std::string kLinux = "file /proc/sys/kernel/osrelease 6.12.0-fixture\n";
const std::string kH100 = kLinux + R"(
pci 0000:3b:00.0 vendor=0x10de device=0x2330 class=0x030200 driver=nvidia numa_node=1 iommu_group=7 max_link_width=16 current_link_width=8
file /sys/devices/pci0000:00/0000:3b:00.0/current_link_speed 16.0 GT/s PCIe
file /sys/devices/pci0000:00/0000:3b:00.0/max_link_speed 32.0 GT/s PCIe
drm 0000:3b:00.0 card1 renderD128
file /sys/module/nvidia/version 580.95.05
file /proc/driver/nvidia/gpus/0000:3b:00.0/information Model: 		 NVIDIA H100 80GB HBM3\nIRQ:   		 120\nGPU UUID: 	 GPU-5fc4a8e2-0000-0000-0000-000000000001\nVideo BIOS: 	 96.00.61.00.01\nBus Type: 	 PCIe\nDevice Minor: 	 0\nGPU Firmware: 	 580.95.05
node /dev/nvidia0
node /dev/nvidiactl
node /dev/nvidia-uvm
)";

TEST(Discover, NvidiaWithItsDriver) {
  FixtureTree tree(kH100);
  Machine m = look(
      tree, {{"libcuda.so.1", "libnvidia-ml.so.1"}, {{"FAKE_CUDA", "0000:3b:00.0"}, {"FAKE_NVML", "0000:3b:00.0"}}});
  EXPECT_EQ(m.kernel, "6.12.0-fixture");
  const Accelerator& a = only(m);
  EXPECT_EQ(a.resource, "pci:0000:3b:00.0");
  EXPECT_EQ(a.id, "pci:0000:3b:00.0#GPU-5fc4a8e2-0000-0000-0000-000000000001");
  EXPECT_EQ(a.kind, DeviceKind::gpu);
  EXPECT_EQ(a.vendor, "NVIDIA");
  EXPECT_EQ(a.driver, "nvidia");
  EXPECT_EQ(a.driver_version, "580.95.05");
  EXPECT_EQ(a.firmware.at("GSP"), "580.95.05");
  EXPECT_EQ(a.numa_node, 1);
  EXPECT_EQ(a.iommu_group, 7);
  EXPECT_EQ(a.link, "16.0 GT/s x8 of 32.0 GT/s x16");
  EXPECT_EQ(a.memory_bytes, int64_t(81) << 30) << "NVML's, the whole memory";
  EXPECT_EQ(a.architecture, "sm_90");
  EXPECT_EQ(a.seen.size(), 2u) << "CUDA and NVML, once each";
  EXPECT_TRUE(a.computes());
  EXPECT_EQ(advice(a), "");
}

TEST(Discover, NvidiaThatCannotBeUsedSaysWhatToInstall) {
  FixtureTree free_driver(kLinux + "pci 0000:3b:00.0 vendor=0x10de device=0x2330 class=0x030200 driver=nouveau\n");
  EXPECT_HAS(advice(only(look(free_driver))), "nouveau drives it");
  EXPECT_HAS(advice(only(look(free_driver))), "Install NVIDIA's driver");
  EXPECT_EQ(only(look(free_driver)).name, "NVIDIA H100 SXM5 80GB") << "by our table";

  FixtureTree none("pci 0000:3b:00.0 vendor=0x10de device=0x9999 class=0x030000\n");
  EXPECT_HAS(advice(only(look(none))), "The kernel has no driver for it. | Install NVIDIA's driver");
  EXPECT_EQ(only(look(none)).name, "NVIDIA gpu 10de:9999");
  EXPECT_FALSE(only(look(none)).memory_bytes) << "unknown is not zero";
  EXPECT_FALSE(only(look(none)).numa_node);

  FixtureTree guest("pci 0000:3b:00.0 vendor=0x10de device=0x2330 class=0x030200 driver=vfio-pci\n");
  EXPECT_HAS(advice(only(look(guest))), "held for virtual machines");

  FixtureTree tree(kH100);
  EXPECT_HAS(advice(only(look(tree))), "CUDA is not installed: libcuda.so.1 is not");
  EXPECT_HAS(advice(only(look(tree))), "Install libcuda1");
  auto failing = [&](const char* script) {
    return advice(only(look(tree, {{"libcuda.so.1"}, {{"FAKE_CUDA", script}}})));
  };
  EXPECT_HAS(failing("error 803"), "restart the machine");
  EXPECT_HAS(failing("error 802"), "nvidia-fabricmanager");
  EXPECT_HAS(failing("error 999"), "CUDA_ERROR_FAKE (999): as the test asked");
  EXPECT_HAS(advice(only(look(tree, {{"libcuda.so.1"}, {{"FAKE_CUDA", ""}, {"CUDA_VISIBLE_DEVICES", "7"}}}))),
             "CUDA_VISIBLE_DEVICES is \"7\"");

  tree.add("remove /dev/nvidia0");
  EXPECT_HAS(advice(only(look(tree))), "/dev/nvidia0 does not exist");
  EXPECT_HAS(advice(only(look(tree))), "--gpus all");
}

const std::string kMi250 = kLinux + R"(
pci 0000:c1:00.0 vendor=0x1002 device=0x740c class=0x038000 driver=amdgpu numa_node=-1 mem_info_vram_total=68702699520 unique_id=a0b1c2d3e4f50617 vbios_version=113-D65201-045
drm 0000:c1:00.0 renderD128
file /sys/devices/pci0000:00/0000:c1:00.0/fw_version/mec_fw_version 0x00000041
file /sys/class/kfd/kfd/topology/nodes/0/properties cpu_cores_count 64\nsimd_count 0\nlocation_id 0
file /sys/class/kfd/kfd/topology/nodes/1/properties cpu_cores_count 0\nsimd_count 440\ngfx_target_version 90010\nvendor_id 4098\nlocation_id 49408\ndomain 0
file /etc/group root:x:0:\nrender:x:109:\nlost+found:x:x:
node /dev/kfd
)";

TEST(Discover, AmdWithAndWithoutRocm) {
  FixtureTree tree(kMi250);
  Machine m = look(tree, {{"libamdhip64.so.6"}, {{"FAKE_HIP", "0000:C1:00.0"}}});
  const Accelerator& a = only(m);
  EXPECT_EQ(a.id, "pci:0000:c1:00.0#a0b1c2d3e4f50617");
  EXPECT_EQ(a.name, "AMD Instinct MI250");
  EXPECT_EQ(a.architecture, "gfx90a") << "from the kernel's topology";
  EXPECT_EQ(a.memory_bytes, 68702699520);
  EXPECT_EQ(a.firmware.at("mec"), "0x00000041");
  EXPECT_FALSE(a.numa_node) << "-1 is the kernel's word for not known";
  EXPECT_EQ(a.seen.size(), 1u);
  EXPECT_EQ(a.seen[0].device.uuid, "fa0123456789abcd");
  EXPECT_EQ(advice(a), "");

  EXPECT_HAS(advice(only(look(tree))), "HIP is not installed: libamdhip64.so.7 and its other versions are not");
  EXPECT_HAS(advice(only(look(tree))), "libamdhip64-5");
  EXPECT_HAS(advice(only(look(tree, {{"libamdhip64.so.6"}, {{"FAKE_HIP", "crash"}}}))), "crashed with signal 6");

  tree.add("remove /sys/class/kfd");
  EXPECT_HAS(advice(only(look(tree))), "compute driver (kfd) does not list it");
  FixtureTree old(kLinux + "pci 0000:01:00.0 vendor=0x1002 device=0x6798 class=0x030000 driver=radeon\n");
  EXPECT_HAS(advice(only(look(old))), "The driver radeon drives it");
}

TEST(Discover, NodesThatThisUserMayNotUse) {
  FixtureTree tree(kMi250);
  const bool root = geteuid() == 0;
  chmod(tree.at("/dev/dri/renderD128").c_str(), 0660);
  gid_t group = root ? 109 : getegid();
  if (root) {
    ASSERT_EQ(chown(tree.at("/dev/dri/renderD128").c_str(), 0, group), 0);
    // Root may use every node: the question is asked as a user without groups.
    ASSERT_EQ(setegid(65534), 0);
    ASSERT_EQ(seteuid(65534), 0);
  } else {
    chmod(tree.at("/dev/dri/renderD128").c_str(), 0);
  }
  Machine m = discover({.root = tree.root(), .ask_runtimes = false});
  if (root) {
    ASSERT_EQ(seteuid(0), 0);
    ASSERT_EQ(setegid(0), 0);
  }
  const Accelerator& a = only(m);
  ASSERT_FALSE(a.nodes.empty());
  EXPECT_FALSE(a.nodes[0].usable);
  EXPECT_HAS(advice(a),
             root ? "/dev/dri/renderD128 may be used by the group render only" : "may not be read and written");
  EXPECT_HAS(advice(a), root ? "usermod -aG render" : "udev rule");
}

const std::string kLaptop = kLinux + R"(
pci 0000:00:02.0 vendor=0x8086 device=0x7d55 class=0x030000 driver=xe
drm 0000:00:02.0 card0 renderD128
pci 0000:00:0b.0 vendor=0x8086 device=0x7d1d class=0x120000 driver=intel_vpu
accel 0000:00:0b.0 accel0
)";

TEST(Discover, IntelGpuAndNpu) {
  FixtureTree tree(kLaptop);
  Machine m = look(
      tree, {{"libze_loader.so.1", "libopenvino_c.so"},
             {{"FAKE_ZE_GPU", "0000:00:02.0"}, {"FAKE_ZE_NPU", "-"}, {"FAKE_OPENVINO", "0000:00:02.0 0000:00:0b.0"}}});
  ASSERT_EQ(m.accelerators.size(), 3u);
  const Accelerator &gpu = m.accelerators[1], &npu = m.accelerators[2];
  EXPECT_EQ(gpu.kind, DeviceKind::gpu);
  EXPECT_EQ(gpu.name, "Intel Fake GPU") << "no list knows it: the runtime's name";
  EXPECT_EQ(gpu.memory_bytes, int64_t(16) << 30);
  EXPECT_EQ(gpu.seen.size(), 2u);
  EXPECT_EQ(npu.kind, DeviceKind::npu);
  EXPECT_EQ(npu.name, "Intel NPU (Meteor Lake)");
  EXPECT_EQ(npu.nodes.at(0).path, "/dev/accel/accel0");
  EXPECT_EQ(npu.seen.size(), 2u) << "Level Zero tells no address: it is the only NPU of that vendor";
  EXPECT_FALSE(npu.memory_bytes);
  EXPECT_EQ(m.accelerators[0].seen.size(), 1u) << "OpenVINO's CPU is the processor";
  EXPECT_EQ(advice(gpu) + advice(npu), "");
  EXPECT_HAS(advice(look(tree).accelerators[1]), "intel-opencl-icd");
  EXPECT_HAS(advice(look(tree).accelerators[2]), "intel-level-zero-npu");
}

TEST(Discover, NpuWithoutFirmwareOrDriver) {
  const std::string npu = "pci 0000:00:0b.0 vendor=0x8086 device=0x643e class=0x120000\n";
  FixtureTree bare(kLinux + npu);
  EXPECT_HAS(advice(only(look(bare))), "firmware (/lib/firmware/intel/vpu) is missing");
  bare.add("file /lib/firmware/intel/vpu/vpu_40xx_v0.0.bin x");
  EXPECT_HAS(advice(only(look(bare))), "modprobe intel_vpu");
  FixtureTree old("file /proc/sys/kernel/osrelease 6.1.0-28-amd64\n" + npu);
  EXPECT_HAS(advice(only(look(old))), "The kernel 6.1.0-28-amd64 has no driver for it. | Use Linux 6.3 or newer");
}

TEST(Discover, AcceleratorsOfTheAccelClass) {
  FixtureTree tree(kLinux + R"(
pci 0000:19:00.0 vendor=0x1da3 device=0x1020 class=0x120000 driver=habanalabs fw_os_ver=1.20 cpucp_ver=x
accel 0000:19:00.0 accel0 accel_controlD0
pci 0000:b3:00.0 vendor=0x17cb device=0xa100 class=0x120000 driver=qaic
accel 0000:b3:00.0 accel1
platform fdab0000.npu driver=rocket
accel fdab0000.npu accel2
pci 0000:e1:00.0 vendor=0x1e60 device=0x2864 class=0x0b4000
)");
  Machine m = look(tree);
  ASSERT_EQ(m.accelerators.size(), 5u);
  const Accelerator &rocket = m.accelerators[1], &gaudi = m.accelerators[2], &cloud = m.accelerators[3],
                    &hailo = m.accelerators[4];
  EXPECT_EQ(rocket.resource, "platform:fdab0000.npu");
  EXPECT_EQ(rocket.name, "rocket npu");
  EXPECT_EQ(gaudi.name, "Habana Labs Gaudi2");
  EXPECT_EQ(gaudi.firmware.at("OS"), "1.20");
  EXPECT_EQ(gaudi.nodes.size(), 1u) << "the control node is not one to compute through";
  EXPECT_HAS(advice(gaudi), "SynapseAI");
  EXPECT_EQ(cloud.name, "Qualcomm Cloud AI 100");
  EXPECT_EQ(cloud.nodes.at(0).path, "/dev/accel/accel1");
  EXPECT_HAS(advice(cloud), "backend plugin");
  EXPECT_EQ(hailo.name, "Hailo-8") << "its class says co-processor";
  EXPECT_HAS(advice(hailo), "Install its vendor's driver");
}

TEST(Discover, IdentityDoesNotDependOnTheOrderOfEnumeration) {
  FixtureTree tree(kH100 + R"(
pci 0000:af:00.0 vendor=0x10de device=0x2330 class=0x030200 driver=nvidia
pci 0000:5e:00.0 vendor=0x1002 device=0x740f class=0x038000 driver=amdgpu
)");
  auto found = [&](const char* order) {
    std::map<std::string, std::string> numbers;  // identity → CUDA's number
    for (const Accelerator& a : look(tree, {{"libcuda.so.1"}, {{"FAKE_CUDA", order}}}).accelerators)
      numbers[a.id] = a.seen.empty() ? "" : a.seen[0].device.index;
    return numbers;
  };
  auto one = found("0000:3b:00.0 0000:af:00.0"), other = found("0000:af:00.0 0000:3b:00.0");
  const std::string h100 = "pci:0000:3b:00.0#GPU-5fc4a8e2-0000-0000-0000-000000000001";
  ASSERT_EQ(one.size(), 4u);
  EXPECT_EQ(one[h100], "0");
  EXPECT_EQ(other[h100], "1");
  for (auto& [id, number] : one) EXPECT_TRUE(other.count(id)) << id;
}

TEST(Discover, OneDeviceThroughEveryOpenClExtension) {
  FixtureTree tree(kLinux + R"(
pci 0000:01:00.0 vendor=0x8086 device=0x56a0 class=0x030000 driver=i915
pci 0001:02:00.0 vendor=0x10de device=0x2684 class=0x030000 driver=nvidia
pci 0000:03:00.0 vendor=0x1002 device=0x744c class=0x030000 driver=amdgpu
)");
  Machine m = look(tree, {{"libOpenCL.so.1"}, {{"FAKE_OPENCL", "0000:01:00.0 0001:02:00.0 0000:03:00.0"}}});
  ASSERT_EQ(m.accelerators.size(), 4u);
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(m.accelerators[i].seen.size(), 1u) << m.accelerators[i].resource;
  EXPECT_EQ(m.accelerators[3].seen[0].device.platform, "NVIDIA Fake") << "sorted by address: domain 1 is last";
}

TEST(Discover, VirtualMachineThatHidesPci) {
  FixtureTree tree(kLinux);
  Machine m =
      look(tree, {{"libcuda.so.1", "libnvidia-ml.so.1", "libOpenCL.so.1"},
                  {{"FAKE_CUDA", "0000:3b:00.0"}, {"FAKE_NVML", "0000:3b:00.0"}, {"FAKE_OPENCL", "- 0000:3b:00.0"}}});
  ASSERT_EQ(m.accelerators.size(), 3u);
  const Accelerator& a = m.accelerators[1];
  EXPECT_FALSE(a.by_system);
  EXPECT_EQ(a.resource, "pci:0000:3b:00.0");
  EXPECT_EQ(a.name, "NVIDIA Fake (test library)");
  EXPECT_EQ(a.driver_version, "580.1.fake");
  EXPECT_EQ(a.seen.size(), 3u) << "NVML, CUDA, OpenCL";
  EXPECT_EQ(advice(a), "");
  EXPECT_HAS(m.accelerators[2].resource, "uuid:fafafafa") << "no address, but an identity";
}

TEST(Discover, DisplaysThatCannotComputeAreNotListed) {
  FixtureTree tree(kLinux + R"(
pci 0000:00:02.0 vendor=0x1af4 device=0x1050 class=0x038000 driver=virtio-pci
drm 0000:00:02.0 card0 renderD128
pci 0000:02:00.0 vendor=0x1a03 device=0x2000 class=0x030000 driver=ast
drm 0000:02:00.0 card1
pci 0000:3b:00.1 vendor=0x10de device=0x22ba class=0x040300 driver=snd_hda_intel
platform vgem driver=vgem
drm vgem renderD129
)");
  EXPECT_EQ(look(tree).accelerators.size(), 1u);
}

TEST(Discover, VirtualFunctionsAreTheSameSilicon) {
  FixtureTree tree(kLinux + R"(
pci 0000:4d:00.0 vendor=0x8086 device=0x56c0 class=0x038000 driver=i915
pci 0000:4d:00.1 vendor=0x8086 device=0x56c0 class=0x038000 driver=vfio-pci physfn=0000:4d:00.0
)");
  Machine m = look(tree);
  ASSERT_EQ(m.accelerators.size(), 3u);
  EXPECT_EQ(m.accelerators[2].resource, "pci:0000:4d:00.0");
  EXPECT_NE(m.accelerators[1].id, m.accelerators[2].id);
}

TEST(Discover, HostileTreesGiveNothingAndHarmNothing) {
  FixtureTree tree(R"(
pci 0000:01:00.0 vendor=garbage device=0x2330 class=0x030200
pci 0000:02:00.0 vendor=0x10de device=0x100000000000000002330 class=0x030200
pci 0000:03:00.0 vendor=0x10de device=0x2330 class=-1
pci 0000:04:00.0 vendor=0x10de device=0x2330 class=0x030200 numa_node=99999999999999999999 max_link_width=255 current_link_width=0 iommu_group=banana driver=nvidia mem_info_vram_total=-5
file /sys/devices/pci0000:00/0000:04:00.0/current_link_speed Unknown
file /proc/driver/nvidia/gpus/0000:04:00.0/information ::::\n:\nModel\nGPU UUID: GPU-????????-????\nDevice Minor: 9999999999999999
pci 0000:05:00.0 device=0x2330
link /sys/bus/pci/devices/0000:06:00.0 0000:06:00.0
link /sys/bus/pci/devices/0000:07:00.0 /etc
link /sys/bus/pci/devices/0000:08:00.0 ../../../../../../../../../../etc
file /sys/bus/pci/devices/not-an-address x
file /sys/bus/pci/devices/0000:0g:00.0/vendor 0x10de
fifo /sys/class/kfd/kfd/topology/nodes/0/properties
file /sys/class/kfd/kfd/topology/nodes/1/properties simd_count\nsimd_count 99999999999999999999\n \nlocation_id -1
link /sys/class/drm/renderD128 renderD128
link /sys/class/accel/accel0 ../../..
file /sys/class/accel/accel1/device x
link /proc/sys/kernel/osrelease /dev/zero
file /proc/cpuinfo processor\nmodel name:\nprocessor\t: x
file /proc/meminfo MemTotal: lots kB
fifo /etc/group
)");
  std::filesystem::create_directories(tree.at("/usr/share/misc"));
  std::ofstream(tree.at("/usr/share/misc/pci.ids")) << "10de  \n\t2330\n\t2330  \n\t\t2330  sub\n10de";
  Machine m = look(tree);
  const Accelerator& a = only(m);
  EXPECT_EQ(a.resource, "pci:0000:04:00.0");
  EXPECT_EQ(a.id, a.resource) << "a serial number of question marks is none";
  EXPECT_FALSE(a.numa_node);
  EXPECT_FALSE(a.iommu_group);
  EXPECT_FALSE(a.memory_bytes);
  EXPECT_EQ(a.link, "");
  EXPECT_EQ(m.kernel, "");
  EXPECT_FALSE(m.accelerators[0].memory_bytes);

  EXPECT_EQ(discover({.root = tree.root() + "/nowhere", .ask_runtimes = false}).accelerators.size(), 1u);
}

TEST(Discover, RuntimesThatCrashHangOrFailCostOnlyThemselves) {
  FixtureTree tree(kH100 + "pci 0000:5e:00.0 vendor=0x1002 device=0x740f class=0x038000 driver=amdgpu\n");
  Machine m = look(
      tree, {{"libcuda.so.1", "libnvidia-ml.so.1", "libamdhip64.so.6", "libOpenCL.so.1"},
             {{"FAKE_CUDA", "hang"}, {"FAKE_NVML", "0000:3b:00.0"}, {"FAKE_HIP", "crash"}, {"FAKE_OPENCL", "error -6"}},
             std::chrono::milliseconds(1500)});
  std::map<Runtime, RuntimeReport> reports;
  for (const auto& r : m.runtimes) reports[r.runtime] = r;
  EXPECT_EQ(reports.size(), std::size(kRuntimes));
  EXPECT_HAS(reports[Runtime::cuda].problem, "did not answer within 1500 ms");
  EXPECT_HAS(reports[Runtime::hip].problem, "crashed with signal 6");
  EXPECT_HAS(reports[Runtime::opencl].problem, "error -6");
  EXPECT_TRUE(reports[Runtime::nvml].answered);
  EXPECT_FALSE(reports[Runtime::level_zero].present);
  EXPECT_EQ(m.accelerators.size(), 3u);
}

TEST(Discover, NamesComeFromTheMachinesList) {
  FixtureTree tree(kLinux + "pci 0000:01:00.0 vendor=0x10de device=0x2330 class=0x030200\n");
  std::filesystem::create_directories(tree.at("/usr/share/misc"));
  std::ofstream(tree.at("/usr/share/misc/pci.ids"))
      << "# comment\n1002  Other\n\t2330  Wrong\n10de  NVIDIA Corporation\n\t1111  No\n"
         "\t\t10de 2330  Sub\n\t2330  GH100 [H100]\n10df  Next\n\t2330  Wrong\n";
  EXPECT_EQ(only(look(tree)).name, "NVIDIA GH100 [H100]");
}

TEST(Discover, ReportsSurviveJson) {
  RuntimeReport r;
  r.runtime = Runtime::hip;
  r.present = r.answered = true;
  r.version = "6.4";
  r.devices = {{.index = "0",
                .name = "\xff broken",
                .kind = DeviceKind::npu,
                .pci = PciAddress::parse("1:02.3"),
                .memory_bytes = 5}};
  auto back = parse_report(to_json(r).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->runtime, Runtime::hip);
  EXPECT_EQ(back->devices.at(0).pci, r.devices[0].pci);
  EXPECT_EQ(back->devices[0].kind, DeviceKind::npu);
  EXPECT_EQ(back->devices[0].memory_bytes, 5);
  for (const char* damaged : {"", "{", "{}", "[]", R"({"runtime":"hip","present":1,"answered":true,"devices":[]})"})
    EXPECT_FALSE(parse_report(damaged).ok()) << damaged;
}

TEST(Discover, ThisMachine) {
  const Machine& m = this_machine();
  EXPECT_EQ(&m, &this_machine()) << "discovered once";
  ASSERT_FALSE(m.accelerators.empty());
  EXPECT_EQ(m.accelerators[0].resource, "cpu:0");
  EXPECT_GT(m.accelerators[0].memory_bytes.value_or(0), 0);
  EXPECT_EQ(m.runtimes.size(), std::size(kRuntimes));
  std::set<std::string> ids;
  for (const Accelerator& a : m.accelerators) EXPECT_TRUE(ids.insert(a.id).second) << a.id;
}

}  // namespace
}  // namespace ai_vmm
