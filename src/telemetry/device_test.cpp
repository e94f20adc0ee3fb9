#include "telemetry/device.hpp"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace ai_vmm::telemetry {
namespace {

namespace fs = std::filesystem;

// A tree of files such as the kernel shows.
class Tree {
 public:
  Tree() {
    char name[] = "/tmp/telemetry_XXXXXX";
    root_ = mkdtemp(name);
  }
  ~Tree() { fs::remove_all(root_); }
  void file(const std::string& path, const std::string& text) const {
    fs::create_directories(fs::path(root_ + "/" + path).parent_path());
    std::ofstream(root_ + "/" + path) << text;
  }
  void link(const std::string& path, const std::string& target) const {
    fs::create_directories(fs::path(root_ + "/" + path).parent_path());
    fs::create_symlink(target, root_ + "/" + path);
  }
  void remove(const std::string& path) const { fs::remove_all(root_ + "/" + path); }
  Roots roots() const { return {root_ + "/sys", root_ + "/proc"}; }

 private:
  std::string root_;
};

constexpr int64_t kSecond = 1'000'000'000;

class FakeVendors : public ::testing::Test {
 protected:
  static void nvml(const char* what, long long value) { call("libnvidia-ml.so.1", "fake_nvml_set", what, value); }
  static void rocm(const char* what, long long value) { call("librocm_smi64.so.1", "fake_rocm_smi_set", what, value); }
  static void call(const char* library, const char* function, const char* what, long long value) {
    void* handle = dlopen((std::string(FAKE_VENDORS "/") + library).c_str(), RTLD_NOW);
    ASSERT_NE(handle, nullptr) << dlerror();
    auto set = reinterpret_cast<void (*)(const char*, long long)>(dlsym(handle, function));
    ASSERT_NE(set, nullptr);
    set(what, value);
  }
  void TearDown() override {
    nvml("init_result", 0), nvml("lost", 0), nvml("power_result", 0);
    rocm("busy_result", 0);
  }
};

TEST_F(FakeVendors, NvmlReadingsHaveTheirUnits) {
  auto reader = open_nvml(FAKE_VENDORS);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  auto devices = (*reader)->read(0);
  ASSERT_EQ(devices.size(), 2u);
  const DeviceSample& d = devices[1];
  EXPECT_EQ(d.id, "0000:c2:00.0");
  EXPECT_EQ(d.name, "FAKE GPU 1");
  EXPECT_DOUBLE_EQ(d.busy.value(), 0.37);
  EXPECT_DOUBLE_EQ(d.memory_total.value(), 80.0 * (1 << 30));
  EXPECT_DOUBLE_EQ(d.power.value(), 250);
  EXPECT_DOUBLE_EQ(d.temperature.value(), 61);
  EXPECT_DOUBLE_EQ(d.link_received.value(), 2e6);
  EXPECT_DOUBLE_EQ(d.link_sent.value(), 1e6);
}

TEST_F(FakeVendors, ALostDeviceIsUnknownNotIdle) {
  auto reader = open_nvml(FAKE_VENDORS);
  ASSERT_TRUE(reader.ok());
  nvml("lost", 1);
  nvml("power_result", 3);
  auto devices = (*reader)->read(0);
  ASSERT_EQ(devices.size(), 2u);
  EXPECT_FALSE(devices[0].busy.known());
  EXPECT_EQ(devices[0].busy.why(), "nvmlDeviceGetUtilizationRates: GPU is lost");
  EXPECT_FALSE(devices[0].memory_used.known());
  EXPECT_TRUE(devices[1].busy.known());
  EXPECT_EQ(devices[1].power.why(), "nvmlDeviceGetPowerUsage: Not Supported");
}

TEST_F(FakeVendors, ALibraryWithoutADriverSaysSo) {
  nvml("init_result", 9);
  auto reader = open_nvml(FAKE_VENDORS);
  ASSERT_FALSE(reader.ok());
  EXPECT_EQ(reader.status().message(), "libnvidia-ml.so.1 does not start: Driver Not Loaded.");
  EXPECT_EQ(open_nvml("/nonexistent").status().code(), Code::not_found);
}

TEST_F(FakeVendors, RocmSmiReadingsHaveTheirUnitsAndMissingCallsAreUnknown) {
  auto reader = open_rocm_smi(FAKE_VENDORS);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  auto devices = (*reader)->read(0);
  ASSERT_EQ(devices.size(), 1u);
  EXPECT_EQ(devices[0].id, "0012:83:00.0");
  EXPECT_DOUBLE_EQ(devices[0].busy.value(), 0.88);
  EXPECT_DOUBLE_EQ(devices[0].memory_used.value(), 3.0 * (1 << 30));
  EXPECT_DOUBLE_EQ(devices[0].power.value(), 123.5);
  EXPECT_EQ(devices[0].temperature.why(), "this librocm_smi64 has no rsmi_dev_temp_metric_get");
  rocm("busy_result", 2);
  EXPECT_EQ((*reader)->read(0)[0].busy.why(), "rsmi_dev_busy_percent_get: RSMI_STATUS_NOT_SUPPORTED");
}

TEST_F(FakeVendors, OneDeviceSeenByTwoSourcesIsOneSample) {
  Tree tree;
  tree.file("sys/devices/0000:c1:00.0/vendor", "0x10de\n");
  tree.file("sys/devices/0000:c1:00.0/hwmon/hwmon3/power1_average", "99000000\n");
  tree.file("sys/devices/0000:c1:00.0/max_link_speed", "32.0 GT/s PCIe\n");
  tree.file("sys/devices/0000:c1:00.0/max_link_width", "16\n");
  tree.link("sys/class/drm/card0/device", "../../../devices/0000:c1:00.0");
  tree.link("sys/bus/pci/devices/0000:c1:00.0", "../../../devices/0000:c1:00.0");
  nvml("power_result", 3);
  DeviceReaders readers(tree.roots(), FAKE_VENDORS);
  EXPECT_TRUE(readers.absent().empty());
  auto devices = readers.read(0);
  ASSERT_EQ(devices.size(), 3u);  // two of NVIDIA, one of AMD
  EXPECT_EQ(devices[0].source, "nvml+drm");
  EXPECT_DOUBLE_EQ(devices[0].busy.value(), 0.37) << "the vendor's own reading";
  EXPECT_DOUBLE_EQ(devices[0].power.value(), 99) << "what NVML does not know, hwmon does";
  EXPECT_NEAR(devices[0].link_capacity.value(), 63.0e9, 0.1e9);
  EXPECT_FALSE(devices[1].link_capacity.known());
}

TEST(Drm, AmdgpuFilesAreReadAndOutputsAreNoDevices) {
  Tree tree;
  std::string device = "sys/devices/0000:03:00.0/";
  tree.file(device + "vendor", "0x1002\n");
  tree.file(device + "device", "0x740f\n");
  tree.file(device + "gpu_busy_percent", "42\n");
  tree.file(device + "mem_info_vram_total", "17163091968\n");
  tree.file(device + "mem_info_vram_used", "1048576\n");
  tree.file(device + "hwmon/hwmon1/power1_average", "35000000\n");
  tree.file(device + "hwmon/hwmon1/temp1_input", "47000\n");
  tree.link(device + "driver", "../../bus/pci/drivers/amdgpu");
  tree.link("sys/class/drm/card1/device", "../../../devices/0000:03:00.0");
  tree.link("sys/class/drm/renderD128/device", "../../../devices/0000:03:00.0");
  tree.file("sys/class/drm/card1-DP-1/status", "disconnected\n");
  auto drm = open_drm(tree.roots());
  auto devices = drm->read(0);
  ASSERT_EQ(devices.size(), 1u);
  EXPECT_EQ(devices[0].id, "0000:03:00.0");
  EXPECT_EQ(devices[0].name, "amdgpu 0x1002:0x740f");
  EXPECT_DOUBLE_EQ(devices[0].busy.value(), 0.42);
  EXPECT_DOUBLE_EQ(devices[0].memory_total.value(), 17163091968.0);
  EXPECT_DOUBLE_EQ(devices[0].power.value(), 35);
  EXPECT_DOUBLE_EQ(devices[0].temperature.value(), 47);
  // A sensor that fails, an empty file and text that is no number are unknown.
  tree.file(device + "gpu_busy_percent", "");
  tree.file(device + "mem_info_vram_used", "Query currently inaccessible\n");
  tree.remove(device + "hwmon/hwmon1/power1_average");
  tree.file(device + "hwmon/hwmon1/power1_average/not_a_file", "");
  devices = drm->read(kSecond);
  EXPECT_FALSE(devices[0].busy.known());
  EXPECT_FALSE(devices[0].memory_used.known());
  EXPECT_FALSE(devices[0].power.known());
}

TEST(Drm, EngineTimesOfClientsMakeTheBusyShare) {
  Tree tree;
  tree.file("sys/devices/0000:00:02.0/vendor", "0x8086\n");
  tree.link("sys/class/drm/card0/device", "../../../devices/0000:00:02.0");
  auto client = [&](const std::string& pid, const std::string& fd, int id, long render, long video) {
    tree.remove("proc/" + pid + "/fd/" + fd);
    tree.link("proc/" + pid + "/fd/" + fd, "/dev/dri/renderD128");
    tree.file("proc/" + pid + "/fdinfo/" + fd,
              "pos:\t0\nflags:\t02100002\ndrm-driver:\ti915\ndrm-pdev:\t0000:00:02.0\n"
              "drm-client-id:\t" +
                  std::to_string(id) + "\r\ndrm-engine-render:\t" + std::to_string(render) +
                  " ns\ndrm-engine-video:\t" + std::to_string(video) +
                  " ns\ndrm-engine-capacity-video:\t2\n"
                  "drm-resident-local0:\t4096 KiB\ndrm-resident-system:\t99 MiB\ndrm-engine-bad:\tx ns\ndrm-nocolon\n");
  };
  client("10", "5", 1, 0, 0);
  client("11", "5", 1, 0, 0);  // the same client in a child process
  client("12", "7", 2, 0, 0);
  tree.link("proc/12/fd/0", "/dev/null");
  auto drm = open_drm(tree.roots());
  EXPECT_FALSE(drm->read(0)[0].busy.known()) << "one look tells no share";
  client("10", "5", 1, 300'000'000, 1'000'000'000);
  client("11", "5", 1, 300'000'000, 1'000'000'000);
  client("12", "7", 2, 100'000'000, 0);
  auto d = drm->read(kSecond)[0];
  EXPECT_DOUBLE_EQ(d.busy.value(), 0.5) << "two video engines, one of them all the time; render 0.3 + 0.1";
  EXPECT_DOUBLE_EQ(d.memory_used.value(), 2 * 4096.0 * 1024) << "what lies on the device, each client once";
  // These counters may step back: that is no work, and no reset either.
  client("10", "5", 1, 299'000'000, 1'000'000'000);
  client("11", "5", 1, 299'000'000, 1'000'000'000);
  EXPECT_DOUBLE_EQ(drm->read(2 * kSecond)[0].busy.value(), 0);
}

TEST(Drm, AnIntelNpuCountsItsWork) {
  Tree tree;
  tree.file("sys/devices/0000:00:0b.0/npu_busy_time_us", "1000\n");
  tree.link("sys/class/accel/accel0/device", "../../../devices/0000:00:0b.0");
  auto drm = open_drm(tree.roots());
  EXPECT_FALSE(drm->read(0)[0].busy.known());
  tree.file("sys/devices/0000:00:0b.0/npu_busy_time_us", "251000\n");
  EXPECT_DOUBLE_EQ(drm->read(kSecond)[0].busy.value(), 0.25);
}

TEST(Pci, CapacityFollowsTheLineCoding) {
  EXPECT_DOUBLE_EQ(pci_capacity("2.5 GT/s PCIe", "1").value(), 0.25e9);
  EXPECT_NEAR(pci_capacity("16.0 GT/s PCIe", "16").value(), 31.5e9, 0.02e9);
  EXPECT_NEAR(pci_capacity("64.0 GT/s PCIe", "16").value(), 121e9, 0.01e9);
  EXPECT_FALSE(pci_capacity("Unknown", "16").known());
  EXPECT_FALSE(pci_capacity("16.0 GT/s PCIe", "255").known());
  EXPECT_FALSE(pci_capacity("16.0 GT/s PCIe", "0").known());
}

TEST(Rate, AResetOrAPauseIsUnknown) {
  Rate rate;
  EXPECT_FALSE(rate.at(100, 0).known());
  EXPECT_DOUBLE_EQ(rate.at(350, kSecond / 2).value(), 500);
  EXPECT_FALSE(rate.at(400, kSecond / 2).known()) << "no time has passed";
  EXPECT_EQ(rate.at(10, kSecond).why(), "the counter was reset");
  EXPECT_DOUBLE_EQ(rate.at(20, 2 * kSecond).value(), 10);
  EXPECT_FALSE(rate.at(Reading::unknown("gone"), 3 * kSecond).known());
  EXPECT_FALSE(rate.at(30, 4 * kSecond).known()) << "what happened in between is not known";
}

TEST(Numbers, AreReadStrictly) {
  EXPECT_DOUBLE_EQ(number_of(" 42 kB\n").value(), 42);
  EXPECT_DOUBLE_EQ(number_of("0x10de").value(), 0x10de);
  EXPECT_DOUBLE_EQ(number_of("-1").value(), -1);
  for (const char* bad : {"", " ", "x", "1x", "0x", "nan", "inf", "1e5"}) EXPECT_FALSE(number_of(bad).known()) << bad;
}

TEST(ThisMachine, DevicesAreReadWithoutTrouble) {
  DeviceReaders readers{Roots{}};
  for (const auto& d : readers.read(kSecond)) {
    EXPECT_FALSE(d.id.empty());
    if (d.busy.known()) {
      EXPECT_GE(d.busy.value(), 0);
      EXPECT_LE(d.busy.value(), 1);
    }
  }
}

}  // namespace
}  // namespace ai_vmm::telemetry
