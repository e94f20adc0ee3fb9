#include "hal/discovery/runtimes.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>

#include "base/library.hpp"
#include "hal/discovery/json.hpp"

namespace ai_vmm {

namespace {
using Clock = std::chrono::steady_clock;

struct Row {
  Runtime runtime;
  const char *name, *identifier;
  Status (*ask)(const std::string& folder, RuntimeReport& report);
  const char* library;  // start of the file name that a process has loaded which uses the runtime
};
constexpr Row kRows[] = {
    {Runtime::opencl, "OpenCL", "opencl", ask_opencl, "libOpenCL.so"},
    {Runtime::cuda, "CUDA", "cuda", ask_cuda, "libcuda.so"},
    {Runtime::nvml, "NVML", "nvml", ask_nvml, "libnvidia-ml.so"},
    {Runtime::hip, "HIP", "hip", ask_hip, "libamdhip64.so"},
    {Runtime::level_zero, "Level Zero", "level_zero", ask_level_zero, "libze_loader.so"},
    {Runtime::openvino, "OpenVINO", "openvino", ask_openvino, "libopenvino"},
};
const Row& row(Runtime runtime) {
  return *std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.runtime == runtime; });
}

RuntimeReport unanswered(Runtime runtime, std::string problem) {
  RuntimeReport r;
  r.runtime = runtime;
  r.present = true;
  r.problem = std::move(problem);
  return r;
}

// A child that asks one runtime and writes the report as JSON into a pipe.
struct Child {
  Runtime runtime;
  pid_t pid = -1;
  int pipe = -1;
  std::string answer;
  bool done = false;
};

[[noreturn]] void answer_and_end(Runtime runtime, const std::string& folder, int pipe) {
  // Drivers print as they like, and their crashes are expected.
  int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(nowhere, fd);
  rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTERM, SIGPIPE}) std::signal(signal, SIG_DFL);
  std::string text = to_json(ask_here(runtime, folder)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  for (size_t sent = 0; sent < text.size();) {
    ssize_t n = write(pipe, text.data() + sent, text.size() - sent);
    if (n <= 0) break;
    sent += size_t(n);
  }
  _exit(0);
}

Child start(Runtime runtime, const std::string& folder) {
  Child child{runtime, -1, -1, "", false};
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return child;
  child.pid = fork();
  if (child.pid == 0) answer_and_end(runtime, folder, ends[1]);
  close(ends[1]);
  if (child.pid < 0) close(ends[0]);
  child.pipe = child.pid < 0 ? -1 : ends[0];
  return child;
}

// Reads what all children have to say until the deadline.
void listen(std::vector<Child>& children, Clock::time_point deadline) {
  for (;;) {
    std::vector<pollfd> polled;
    for (const Child& c : children) polled.push_back({c.done ? -1 : c.pipe, POLLIN, 0});
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    bool open = std::any_of(polled.begin(), polled.end(), [](const pollfd& p) { return p.fd >= 0; });
    if (!open || left <= 0) return;
    if (poll(polled.data(), polled.size(), int(std::min<long>(left, 1 << 20))) < 0 && errno != EINTR) return;
    for (size_t i = 0; i < children.size(); ++i) {
      if (polled[i].fd < 0 || !polled[i].revents) continue;
      char piece[4096];
      ssize_t n = read(polled[i].fd, piece, sizeof piece);
      if (n > 0) children[i].answer.append(piece, size_t(n));
      if (n == 0 || (n < 0 && errno != EINTR) || children[i].answer.size() > (8u << 20)) children[i].done = true;
    }
  }
}

// How the child ended; nullopt when it cannot be told. One that hangs in the kernel cannot be killed, and is left
// behind.
std::optional<int> end(const Child& child) {
  if (!child.done) kill(child.pid, SIGKILL);
  for (int tries = 0; tries < 100; ++tries) {
    int status = 0;
    pid_t ended = waitpid(child.pid, &status, WNOHANG);
    if (ended == child.pid) return status;
    if (ended < 0 && errno != EINTR) return std::nullopt;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  kill(child.pid, SIGKILL);
  return std::nullopt;
}

RuntimeReport hear(const Child& child, const AskOptions& options) {
  const std::string who = std::string(name(child.runtime)) + ", asked for its devices, ";
  if (child.pid < 0)
    return unanswered(child.runtime, "No process can be made to ask " + std::string(name(child.runtime)) + ".");
  std::optional<int> status = end(child);
  if (!child.done)
    return unanswered(child.runtime,
                      who + "did not answer within " + std::to_string(options.patience.count()) + " ms.");
  if (status && WIFSIGNALED(*status))
    return unanswered(child.runtime, who + "crashed with signal " + std::to_string(WTERMSIG(*status)) + " (" +
                                         strsignal(WTERMSIG(*status)) + ").");
  auto report = parse_report(child.answer);
  if (!report.ok()) return unanswered(child.runtime, who + "ended without an answer.");
  return *std::move(report);
}
}  // namespace

const char* name(Runtime runtime) { return row(runtime).name; }
const char* identifier(Runtime runtime) { return row(runtime).identifier; }

std::string uuid_text(const unsigned char bytes[16]) {
  std::string text;
  for (int i = 0; i < 16; ++i) {
    char two[4];
    std::snprintf(two, sizeof two, "%02x", bytes[i]);
    text += (i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "") + std::string(two);
  }
  return text;
}

RuntimeReport ask_here(Runtime runtime, const std::string& folder) {
  RuntimeReport report;
  report.runtime = runtime;
  Status s = row(runtime).ask(folder, report);
  report.present = s.code() != Code::not_found;
  report.answered = s.ok();
  if (!s.ok()) report.problem = s.message();
  return report;
}

std::vector<RuntimeReport> ask(std::span<const Runtime> which, const AskOptions& options) {
  std::vector<Child> children;
  for (Runtime r : which)
    if (!Library::in_process(row(r).library)) children.push_back(start(r, options.folder));
  auto deadline = Clock::now() + options.patience;
  std::vector<RuntimeReport> here;
  for (Runtime r : which)
    if (std::none_of(children.begin(), children.end(), [&](const Child& c) { return c.runtime == r; }))
      here.push_back(ask_here(r, options.folder));
  listen(children, deadline);
  std::vector<RuntimeReport> reports;
  for (Runtime r : which) {
    for (RuntimeReport& h : here)
      if (h.runtime == r) reports.push_back(std::move(h));
    for (Child& c : children)
      if (c.runtime == r) reports.push_back(hear(c, options));
  }
  for (const Child& c : children)
    if (c.pipe >= 0) close(c.pipe);
  return reports;
}

}  // namespace ai_vmm
