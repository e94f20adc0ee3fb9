#include "certify/child.hpp"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "base/text.hpp"

namespace ai_vmm::certify {

namespace {
using Clock = std::chrono::steady_clock;

// Messages travel on the child's stderr between these, so that whatever else a plugin prints there can be told apart.
constexpr char kDoing = '\x01', kText = '\x02', kEnd = '\x03';

void send(char kind, const std::string& text) {
  std::string message = kind + text + kEnd;
  for (size_t done = 0; done < message.size();) {
    ssize_t n = write(STDERR_FILENO, message.data() + done, message.size() - done);
    if (n <= 0) return;
    done += size_t(n);
  }
}

// The last complete message of a kind; false when there is none. `rest` is the stream without messages.
bool last_message(const std::string& stream, char kind, std::string& text) {
  size_t begin = stream.rfind(kind);
  if (begin == stream.npos) return false;
  size_t end = stream.find(kEnd, begin);
  if (end == stream.npos) return false;
  text = stream.substr(begin + 1, end - begin - 1);
  return true;
}

std::string without_messages(const std::string& stream) {
  std::string rest;
  bool inside = false;
  for (char c : stream) {
    if (c == kDoing || c == kText) inside = true;
    if (!inside) rest += c;
    if (c == kEnd) inside = false;
  }
  return rest;
}
}  // namespace

void doing(const std::string& what) { send(kDoing, what); }

ChildResult in_child(int timeout_seconds, const std::function<std::string()>& function) {
  ChildResult result;
  auto start = Clock::now();
  int ends[2];
  std::fflush(nullptr);
  if (pipe(ends) != 0) {
    result.text = "this process has no descriptor left";
    return result;
  }
  pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDERR_FILENO);
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    send(kText, function());
    _exit(0);
  }
  close(ends[1]);
  std::string stream;
  auto deadline = start + std::chrono::seconds(timeout_seconds);
  bool late = false;
  for (;;) {
    pollfd fd{ends[0], POLLIN, 0};
    int wait = int(std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count());
    if (wait <= 0 || (poll(&fd, 1, wait) == 0 && Clock::now() >= deadline)) {
      late = true;
      break;
    }
    if (!fd.revents) continue;
    char buffer[4096];
    ssize_t n = read(ends[0], buffer, sizeof buffer);
    if (n <= 0) break;
    stream.append(buffer, size_t(n));
    if (stream.size() > 1 << 20) stream.erase(0, stream.size() / 2);
  }
  if (late) kill(pid, SIGKILL);
  close(ends[0]);
  int status = 0;
  if (pid > 0) waitpid(pid, &status, 0);
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  last_message(stream, kDoing, result.doing);
  if (!late && last_message(stream, kText, result.text)) {
    result.finished = true;
    return result;
  }
  result.text = late                  ? "it took longer than " + std::to_string(timeout_seconds) + " s and was killed"
                : WIFSIGNALED(status) ? std::string("it was ended by signal ") + strsignal(WTERMSIG(status))
                                      : "it left the process with status " + std::to_string(WEXITSTATUS(status));
  std::string tail(trim(without_messages(stream)));
  if (tail.size() > 300) tail = "…" + tail.substr(tail.size() - 300);
  if (!tail.empty()) result.text += ", after printing: " + tail;
  return result;
}

}  // namespace ai_vmm::certify
