#include "daemon.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "interposer/tuning.hpp"

namespace AIRamp::Daemon {
namespace {

namespace fs = std::filesystem;
using Interposer::Tuning;

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Daemons : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/airampd_XXXXXX";
    root_ = mkdtemp(name);
    folder_ = root_ + "/airamp-accel";
    setenv("AIRAMP_TUNING_DIR", folder_.c_str(), 1);
    options_.folders = {folder_};
    options_.policy.mode = Mode::advise;
    options_.roots = {root_ + "/sys", root_ + "/proc"};
    program_ = std::make_unique<Tuning>();
    program_->set_say([](const char*) {});
  }
  void TearDown() override {
    daemon_.reset();
    unsetenv("AIRAMP_TUNING_DIR");
    fs::remove_all(root_);
  }
  Status start() {
    auto d = Daemon::start(options_, [this](const std::string& s) { log_.push_back(s); });
    if (!d.ok()) return std::move(d).status();
    daemon_ = *std::move(d);
    program_->look_for_daemon();
    return {};
  }
  std::string conf() const { return folder_ + "/tuning.conf"; }
  void edit(const std::string& text) {  // as an editor does it: another file, then a rename
    std::ofstream(folder_ + "/edited", std::ios::binary) << text;
    fs::rename(folder_ + "/edited", conf());
  }
  std::string with(const std::string& from, const std::string& to) const {
    std::string text = read_file(conf());
    size_t at = text.find(from);
    EXPECT_NE(at, text.npos) << from;
    return at == text.npos ? text : text.replace(at, from.size(), to);
  }
  bool logged(const std::string& part) const {
    for (const auto& l : log_)
      if (l.find(part) != l.npos) return true;
    return false;
  }

  std::string root_, folder_;
  Options options_;
  std::vector<std::string> log_;
  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<Tuning> program_;
};

TEST_F(Daemons, TheFolderIsReadableByAllAndWritableByOne) {
  mode_t mask = umask(0077);
  ASSERT_TRUE(start().ok());
  umask(mask);
  struct stat st;
  ASSERT_EQ(stat(folder_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0755u);
  ASSERT_EQ(stat(conf().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0644u);
  ASSERT_EQ(stat((folder_ + "/control").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0077, 0u);
  EXPECT_STREQ(program_->state(), "published by airampd");
}

TEST_F(Daemons, AnEditByHandReachesARunningProgramAndIsHeld) {
  ASSERT_TRUE(start().ok());
  edit(with("OCL_CHUNK_BYTES = 4194304", "OCL_CHUNK_BYTES = 1MiB"));
  EXPECT_EQ(program_->get<Key::OCL_CHUNK_BYTES>(), 4194304) << "nobody has checked it yet";
  daemon_->folder_changed();
  EXPECT_EQ(program_->get<Key::OCL_CHUNK_BYTES>(), 1 << 20);
  EXPECT_NE(read_file(conf()).find("OCL_CHUNK_BYTES = 1048576 held\n"), std::string::npos);
  EXPECT_TRUE(logged("OCL_CHUNK_BYTES: 4 MiB to 1 MiB, because a person edited it; held from now on."));
  // In place, as `sed -i` does not but `echo >` does.
  std::ofstream(conf(), std::ios::app) << "OCL_CHUNK_BYTES = 2MiB\n";
  daemon_->folder_changed();
  EXPECT_EQ(program_->get<Key::OCL_CHUNK_BYTES>(), 1 << 20) << "stated twice";
  EXPECT_TRUE(logged("stands there twice"));
}

TEST_F(Daemons, ABadEditIsRefusedKeptAndExplained) {
  ASSERT_TRUE(start().ok());
  std::string bad = with("OCL_CHUNK_BYTES = 4194304", "OCL_CHUNK_BYTES = 17");
  edit(bad);
  daemon_->folder_changed();
  EXPECT_EQ(program_->get<Key::OCL_CHUNK_BYTES>(), 4194304);
  EXPECT_NE(read_file(conf()).find("OCL_CHUNK_BYTES = 4194304\n"), std::string::npos)
      << "the last good text stands again";
  std::string kept = read_file(conf() + ".rejected");
  EXPECT_NE(kept.find("OCL_CHUNK_BYTES is 17, but must be from 65536"), std::string::npos);
  EXPECT_NE(kept.find(bad), std::string::npos);
  EXPECT_NE(daemon_->metrics().find("airampd_edits_rejected_total 1\n"), std::string::npos);
}

TEST_F(Daemons, WhatIsPutInPlaceOfTheFileIsReplaced) {
  ASSERT_TRUE(start().ok());
  std::string good = with("PIN_TTL_MS = 2000", "PIN_TTL_MS = 1");
  auto replaced = [&](const char* what, auto make) {
    fs::remove_all(conf());
    make();
    daemon_->folder_changed();
    EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(conf()))) << what;
    EXPECT_EQ(program_->get<Key::PIN_TTL_MS>(), 2000) << what;
    EXPECT_NE(read_file(conf()).find("PIN_TTL_MS = 2000\n"), std::string::npos) << what;
  };
  std::ofstream(root_ + "/elsewhere") << good;
  replaced("a link",
           [&] { fs::create_symlink(root_ + "/elsewhere", folder_ + "/l"), fs::rename(folder_ + "/l", conf()); });
  EXPECT_EQ(read_file(root_ + "/elsewhere"), good) << "what a link leads to is never written";
  replaced("a pipe", [&] { mkfifo((folder_ + "/p").c_str(), 0644), fs::rename(folder_ + "/p", conf()); });
  replaced("a huge file", [&] {
    edit("#");
    fs::resize_file(conf(), uintmax_t(1) << 33);
  });
  replaced("garbage", [&] {
    edit(
        std::string("\x7f"
                    "ELF\0\1\2",
                    7));
  });
  replaced("a torn file", [&] { edit(good.substr(0, good.size() / 2) + "="); });
  replaced("nothing", [] {});
  if (geteuid() == 0)
    replaced("another user's file", [&] {
      edit(good);
      ASSERT_EQ(chown(conf().c_str(), 65534, 65534), 0);
    });
}

TEST_F(Daemons, HostileFoldersAreRefusedAndTheNextIsTaken) {
  auto refused = [&](const char* what, const std::string& part) {
    Status s = start();
    EXPECT_FALSE(s.ok()) << what;
    EXPECT_NE(s.message().find(part), std::string::npos) << s.message();
  };
  fs::create_directory(folder_);
  chmod(folder_.c_str(), 01777);
  refused("writable by all", "can be written to by others");
  fs::remove(folder_);
  fs::create_directory(root_ + "/target");
  fs::create_symlink(root_ + "/target", folder_);
  refused("a link", "is a link");
  fs::remove(folder_);
  std::ofstream(folder_) << "x";
  refused("a file", "is of the wrong kind");
  if (geteuid() == 0) {
    fs::remove(folder_);
    fs::create_directory(folder_);
    ASSERT_EQ(chown(folder_.c_str(), 65534, 65534), 0);
    refused("another user's", "belongs to another user");
  }
  options_.folders.push_back(root_ + "/second");
  ASSERT_TRUE(start().ok());
  EXPECT_EQ(daemon_->publication()->folder(), root_ + "/second");
}

TEST_F(Daemons, HostileThingsInTheFolderDoNotHarm) {
  fs::create_directory(folder_);
  chmod(folder_.c_str(), 0755);
  std::ofstream(root_ + "/precious") << "precious";
  for (const char* name : {"tuning.conf", "generation", "tuning.conf.new", "generation.new"})
    fs::create_symlink(root_ + "/precious", folder_ + "/" + name);
  ASSERT_TRUE(start().ok()) << log_.size();
  EXPECT_EQ(read_file(root_ + "/precious"), "precious");
  EXPECT_STREQ(program_->state(), "published by airampd");
  daemon_.reset();
  fs::remove(folder_ + "/lock");
  fs::create_symlink(root_ + "/precious", folder_ + "/lock");
  EXPECT_FALSE(start().ok());
}

TEST_F(Daemons, AnEditInTheMomentOfAPublicationIsNotLost) {
  ASSERT_TRUE(start().ok());
  edit(with("OCL_CHUNK_BYTES = 4194304", "OCL_CHUNK_BYTES = 1MiB"));
  // Before the daemon has looked it publishes for another reason.
  Observation o;
  o.now_ns = 1;
  o.memory.total = 256e9, o.memory.available = 200e9;
  daemon_->command("mode auto");
  for (int i = 0; i < 5; i++) o.now_ns += 2'000'000'000, daemon_->observed(o);
  EXPECT_NE(program_->get<Key::PIN_MAX_BYTES>(), 64 << 20);
  EXPECT_EQ(program_->get<Key::OCL_CHUNK_BYTES>(), 1 << 20);
  EXPECT_TRUE(daemon_->controller().settings().is_held(Key::OCL_CHUNK_BYTES));
  EXPECT_FALSE(daemon_->controller().settings().is_held(Key::PIN_MAX_BYTES)) << "the text was older than this value";
  // And one that comes while another is being refused.
  edit("nonsense\n");
  daemon_->folder_changed();
  EXPECT_TRUE(fs::exists(conf() + ".rejected"));
  EXPECT_FALSE(fs::exists(conf() + ".new"));
  uint64_t generation = daemon_->publication()->generation();
  daemon_->folder_changed();
  EXPECT_EQ(daemon_->publication()->generation(), generation) << "what was published is no edit";
}

TEST_F(Daemons, OneDaemonAtATime) {
  ASSERT_TRUE(start().ok());
  auto second = Publication::open({folder_});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), Code::already_exists);
}

TEST_F(Daemons, ANewDaemonTakesOverWhatTheOldOnePublished) {
  ASSERT_TRUE(start().ok());
  edit(with("PIN_TTL_MS = 2000", "PIN_TTL_MS = 7"));
  daemon_->folder_changed();
  uint64_t generation = daemon_->publication()->generation();
  daemon_.reset();
  EXPECT_EQ(program_->get<Key::PIN_TTL_MS>(), 7) << "a program outlives its daemon";
  ASSERT_TRUE(start().ok());
  EXPECT_GT(daemon_->publication()->generation(), generation);
  EXPECT_TRUE(daemon_->controller().settings().is_held(Key::PIN_TTL_MS));
  edit(with("7 held", "8"));
  daemon_->folder_changed();
  EXPECT_EQ(program_->get<Key::PIN_TTL_MS>(), 8) << "the same page is used on";
}

TEST_F(Daemons, ARemovedFolderIsMadeAgain) {
  ASSERT_TRUE(start().ok());
  fs::remove_all(folder_);
  daemon_->folder_changed();
  EXPECT_TRUE(fs::exists(conf()));
  Tuning newcomer;
  newcomer.look_for_daemon();
  EXPECT_STREQ(newcomer.state(), "published by airampd");
  // The one that runs finds the new page when it looks again.
  program_->reload();
  edit(with("PIN_TTL_MS = 2000", "PIN_TTL_MS = 9"));
  daemon_->folder_changed();
  EXPECT_EQ(program_->get<Key::PIN_TTL_MS>(), 9);
}

TEST_F(Daemons, AFullFileSystemLosesNothing) {
  // A file system of a few pages, in a mount namespace of a child's own; needs root.
  if (geteuid() != 0) GTEST_SKIP() << "only root can mount a file system that fills up";
  pid_t child = fork();
  if (child == 0) {
    auto fail = [](const char* what) {
      std::fprintf(stderr, "%s: errno %d\n", what, errno);
      _exit(1);
    };
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) _exit(77);
    if (mount("tmpfs", root_.c_str(), "tmpfs", 0, "size=40k,mode=755") != 0) _exit(77);
    if (!start().ok()) fail("start");
    {
      std::ofstream filler(root_ + "/filler");
      std::string block(4096, 'x');
      for (int i = 0; i < 100 && filler.write(block.data(), 4096).flush(); ++i) {
      }
    }
    std::string before = read_file(conf());
    // A change by the daemon itself.
    Observation o;
    o.now_ns = 1;
    if (daemon_->command("mode off").find("error") == 0) fail("mode off publishes what stands, which is no change");
    daemon_->command("mode auto");
    o.memory.total = 256e9, o.memory.available = 200e9;
    for (int i = 1; i < 12; ++i) o.now_ns += 2'000'000'000, daemon_->observed(o);
    if (read_file(conf()) != before) fail("the file changed");
    if (program_->get<Key::PIN_MAX_BYTES>() != 64 << 20) fail("the program's value changed");
    if (daemon_->controller().settings()[Key::PIN_MAX_BYTES] != 64 << 20) fail("the daemon believes what nobody sees");
    if (!logged("Programs keep the values they have.")) fail("nothing was said");
    // A program that starts now is served from what there is.
    Tuning newcomer;
    newcomer.look_for_daemon();
    if (std::string(newcomer.state()) != "published by airampd") fail("newcomer");
    fs::remove(root_ + "/filler");
    for (int i = 1; i < 12; ++i) o.now_ns += 40'000'000'000, daemon_->observed(o);
    if (program_->get<Key::PIN_MAX_BYTES>() == 64 << 20) fail("with room again, it is published");
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "no file system can be mounted here";
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST_F(Daemons, CommandsAnswerInSentences) {
  ASSERT_TRUE(start().ok());
  EXPECT_EQ(daemon_->command("dance"), "error: airampd does not know \"dance\".\n");
  EXPECT_EQ(daemon_->command("mode party"),
            "error: There is no mode \"party\"; there are off, advise, supervised and auto.\n");
  EXPECT_EQ(daemon_->command("veto PIN_TTL_MS"), "error: No change of PIN_TTL_MS waits for a veto.\n");
  EXPECT_NE(daemon_->command("status").find("Mode advise"), std::string::npos);
  EXPECT_EQ(daemon_->command(""), "error: airampd does not know \"\".\n");
}

TEST_F(Daemons, UnknownReadingsAreNotZeroInTheMetrics) {
  ASSERT_TRUE(start().ok());
  Observation o;
  o.now_ns = 1;
  ai_vmm::telemetry::DeviceSample d;
  d.id = "od\"d\n\\";
  d.busy = 0.25;
  o.devices.push_back(d);
  daemon_->observed(o);
  std::string m = daemon_->metrics();
  EXPECT_NE(m.find("airampd_device_busy_ratio{device=\"od\\\"d\\n\\\\\"} 0.25\n"), std::string::npos) << m;
  EXPECT_EQ(m.find("airampd_device_power_watts{"), std::string::npos);
  EXPECT_NE(m.find("airampd_mode{mode=\"advise\"} 1\n"), std::string::npos);
  EXPECT_EQ(m.find("airampd_readings_unknown 0\n"), std::string::npos);
  EXPECT_NE(m.find("airampd_tuning_value{key=\"PIN_TTL_MS\"} 2000\n"), std::string::npos);
}

// The whole loop, in a thread, with real sockets.
class Running : public Daemons {
 protected:
  void run_daemon() {
    options_.http = "127.0.0.1:0";
    options_.period_ns = 100'000'000;
    ASSERT_TRUE(start().ok());
    stop_ = eventfd(0, EFD_CLOEXEC);
    thread_ = std::thread([this] { EXPECT_TRUE(daemon_->run(stop_).ok()); });
  }
  void TearDown() override {
    if (thread_.joinable()) {
      uint64_t one = 1;
      (void)!write(stop_, &one, sizeof one);
      thread_.join();
      close(stop_);
    }
    Daemons::TearDown();
  }
  int connect_http() const {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(uint16_t(daemon_->server().http_port()));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    return fd;
  }
  static std::string all_of(int fd) {
    std::string out;
    char buffer[4096];
    for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;) out.append(buffer, size_t(n));
    close(fd);
    return out;
  }
  std::string http(const std::string& request) const {
    int fd = connect_http();
    EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL), ssize_t(request.size()));
    return all_of(fd);
  }
  bool within_seconds(double most, const std::function<bool()>& true_now) const {
    for (int64_t end = steady_ns() + int64_t(most * 1e9); steady_ns() < end; usleep(1000))
      if (true_now()) return true;
    return false;
  }
  int stop_ = -1;
  std::thread thread_;
};

TEST_F(Running, AnEditIsPublishedWhileTheLoopRuns) {
  run_daemon();
  ASSERT_TRUE(within_seconds(
      20, [&] { return http("GET /metrics HTTP/1.1\r\n\r\n").find("airampd_pack_bytes") != std::string::npos; }));
  edit(with("PIN_TTL_MS = 2000", "PIN_TTL_MS = 33"));
  EXPECT_TRUE(within_seconds(20, [&] { return program_->get<Key::PIN_TTL_MS>() == 33; }));
}

TEST_F(Running, PrometheusAndCommandsAreServedAndNonsenseIsTurnedAway) {
  run_daemon();
  std::string good = http("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(good.starts_with("HTTP/1.1 200 OK\r\n")) << good.substr(0, 80);
  EXPECT_NE(good.find("airampd_generation "), std::string::npos);
  EXPECT_TRUE(http("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
  EXPECT_TRUE(http("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
  EXPECT_TRUE(http("\n\n").starts_with("HTTP/1.1 405"));
  EXPECT_EQ(http(std::string(100000, 'x')), "") << "too long a request is dropped";
  std::vector<int> silent;
  for (int i = 0; i < 40; ++i) silent.push_back(connect_http());
  auto answer = ask_daemon(folder_, "status");
  for (int fd : silent) close(fd);
  // Clients that say nothing may take all places for a moment, never for good.
  EXPECT_TRUE(answer.ok() ||
              within_seconds(20, [&] { return (answer = ask_daemon(folder_, "status")).ok() && !answer->empty(); }));
  EXPECT_TRUE(within_seconds(20, [&] {
    answer = ask_daemon(folder_, "status");
    return answer.ok() && answer->find("Mode advise") != std::string::npos;
  }));
  EXPECT_FALSE(ask_daemon(root_ + "/nowhere", "status").ok());
}

}  // namespace
}  // namespace AIRamp::Daemon
