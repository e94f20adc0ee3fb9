#include "telemetry/machine.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace ai_vmm::telemetry {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kSecond = 1'000'000'000;

class Machine : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/telemetry_XXXXXX";
    root_ = mkdtemp(name);
    roots_ = {root_ + "/sys", root_ + "/proc"};
  }
  void TearDown() override { fs::remove_all(root_); }
  void file(const std::string& path, const std::string& text) const {
    fs::create_directories(fs::path(root_ + "/" + path).parent_path());
    std::ofstream(root_ + "/" + path) << text;
  }
  std::string root_;
  Roots roots_;
};

TEST_F(Machine, NetworkRatesAndSpeeds) {
  auto link = [&](const std::string& name, int type, const char* speed, const char* state, long bytes) {
    std::string folder = "sys/class/net/" + name + "/";
    file(folder + "type", std::to_string(type) + "\n");
    if (speed) file(folder + "speed", speed);
    file(folder + "operstate", state);
    file(folder + "carrier", "1\n");
    file(folder + "statistics/rx_bytes", std::to_string(bytes) + "\n");
    file(folder + "statistics/tx_bytes", std::to_string(2 * bytes) + "\n");
  };
  file("sys/class/net/bonding_masters", "bond0\n");
  NetworkReader reader(roots_);
  for (long bytes : {0L, 5000L}) {
    link("eth0", 1, "10000\n", "up\n", bytes);
    link("eth1", 1, "-1\n", "down\n", bytes);
    link("lo", 772, nullptr, "unknown\n", bytes);
    link("veth0", 1, "10000\n", "up\n", bytes);
    file("sys/class/net/eth0/device/vendor", "0x8086\n");
    file("sys/class/net/eth1/device/vendor", "0x8086\n");
    auto links = reader.read(bytes ? 2 * kSecond : kSecond);
    ASSERT_EQ(links.size(), 4u);
    EXPECT_FALSE(links[3].capacity.known()) << "what a virtual link says of its speed is made up";
    EXPECT_EQ(links[0].name, "eth0");
    EXPECT_DOUBLE_EQ(links[0].capacity.value(), 1.25e9);
    EXPECT_FALSE(links[1].capacity.known()) << "-1 is no speed";
    EXPECT_FALSE(links[1].up);
    EXPECT_TRUE(links[2].loopback);
    EXPECT_TRUE(links[2].up);
    EXPECT_EQ(links[0].received.known(), bytes != 0);
    if (bytes) {
      EXPECT_DOUBLE_EQ(links[0].received.value(), 5000);
      EXPECT_DOUBLE_EQ(links[0].sent.value(), 10000);
    }
  }
  file("sys/class/net/eth0/statistics/rx_bytes", "3\n");
  EXPECT_FALSE(reader.read(3 * kSecond)[0].received.known()) << "the counter was reset";
}

TEST_F(Machine, DiskRates) {
  file("sys/block/loop0/size", "0\n");
  file("sys/block/sda/size", "1000\n");
  file("sys/block/nvme0n1/size", "1000\n");
  file("sys/block/nvme0n1/stat", "1 2\n");
  DiskReader reader(roots_);
  file("sys/block/sda/stat", "   10  0  100  0  20  0  200  0  0  1000 0 0 0 0 0\n");
  ASSERT_EQ(reader.read(kSecond).size(), 2u);
  file("sys/block/sda/stat", "   10  0  300  0  20  0  600  0  0  1250 0 0 0 0 0\n");
  auto disks = reader.read(2 * kSecond);
  ASSERT_EQ(disks[1].name, "sda");
  EXPECT_DOUBLE_EQ(disks[1].read.value(), 200 * 512);
  EXPECT_DOUBLE_EQ(disks[1].written.value(), 400 * 512);
  EXPECT_DOUBLE_EQ(disks[1].busy.value(), 0.25);
  EXPECT_FALSE(disks[0].read.known()) << "a short line";
}

TEST_F(Machine, PressureAndMemory) {
  EXPECT_FALSE(read_pressure(roots_).cpu_some.known()) << "a kernel without it";
  file("proc/pressure/cpu", "some avg10=12.50 avg60=1.00 avg300=0.00 total=99\n");
  file("proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=3.00 avg60=0.0\n");
  file("proc/pressure/io", "some avg10=\n");
  PressureSample p = read_pressure(roots_);
  EXPECT_DOUBLE_EQ(p.cpu_some.value(), 0.125);
  EXPECT_DOUBLE_EQ(p.memory_some.value(), 0);
  EXPECT_DOUBLE_EQ(p.memory_full.value(), 0.03);
  EXPECT_FALSE(p.io_some.known());
  EXPECT_FALSE(p.io_full.known());
  EXPECT_FALSE(read_memory(roots_).total.known());
  file("proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n");
  EXPECT_DOUBLE_EQ(read_memory(roots_).total.value(), 2048 * 1024);
  EXPECT_DOUBLE_EQ(read_memory(roots_).available.value(), 1024 * 1024);
}

TEST(ThisMachine, NetworkDisksMemoryAndPressureAreReal) {
  Roots roots;
  NetworkReader network(roots);
  auto links = network.read(kSecond);
  EXPECT_TRUE(std::any_of(links.begin(), links.end(), [](const auto& n) { return n.loopback; }));
  DiskReader(roots).read(kSecond);
  EXPECT_GT(read_memory(roots).total.value(), 0);
  if (fs::exists("/proc/pressure/cpu")) {
    PressureSample p = read_pressure(roots);
    ASSERT_TRUE(p.memory_some.known()) << p.memory_some.why();
    EXPECT_LE(p.memory_some.value(), 1);
  }
}

// A real connection over loopback that has carried some data.
TEST(ThisMachine, TheKernelTellsTheRoundTripTimeOfAConnection) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  int server = accept(listener, nullptr, nullptr);
  ASSERT_GE(server, 0);
  char data[4096] = {};
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(send(client, data, sizeof data, 0), ssize_t(sizeof data));
    ASSERT_EQ(recv(server, data, sizeof data, MSG_WAITALL), ssize_t(sizeof data));
  }
  TcpSample s = read_tcp(true);
  close(client), close(server), close(listener);
  if (!s.min_rtt.known() && s.min_rtt.why().find("socket diagnosis") != std::string::npos)
    GTEST_SKIP() << "the kernel does not answer here: " << s.min_rtt.why();
  EXPECT_GE(s.connections, 2);
  ASSERT_TRUE(s.min_rtt.known()) << s.min_rtt.why();
  EXPECT_GT(s.min_rtt.value(), 0);
  EXPECT_LT(s.min_rtt.value(), 10);
}

}  // namespace
}  // namespace ai_vmm::telemetry
