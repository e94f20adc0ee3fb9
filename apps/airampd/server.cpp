#include "server.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace AIRamp::Daemon {

namespace {
constexpr char kSocketFile[] = "/control";
constexpr size_t kMostClients = 16, kMostRequest = 4096;
constexpr int64_t kPatienceNs = 2'000'000'000;

Status failure(const std::string& what) { return Status(Code::unavailable, what + ": " + std::strerror(errno) + "."); }

Result<sockaddr_un> socket_address(const std::string& folder) {
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::string path = folder + kSocketFile;
  if (path.size() >= sizeof a.sun_path)
    return Status(Code::invalid_argument, "The folder's name \"" + folder + "\" is too long for a socket in it.");
  std::memcpy(a.sun_path, path.c_str(), path.size() + 1);
  return a;
}
}  // namespace

Server::~Server() {
  for (const Client& c : clients_) close(c.fd);
  if (commands_ >= 0) close(commands_), unlink(command_path_.c_str());
  if (http_ >= 0) close(http_);
}

Status Server::listen_for_commands(const std::string& folder, Answer answer) {
  auto address = AI_VMM_TAKE(socket_address(folder));
  if (commands_ >= 0) close(commands_);
  commands_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (commands_ < 0) return failure("No socket can be made");
  command_path_ = address.sun_path;
  unlink(command_path_.c_str());  // of a daemon that is gone: the folder's lock is ours
  mode_t mask = umask(0177);      // born without rights for others
  int bound = bind(commands_, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  umask(mask);
  if (bound != 0 || listen(commands_, 8) != 0) return failure("\"" + command_path_ + "\" cannot be listened on");
  answer_ = std::move(answer);
  return {};
}

Status Server::listen_for_http(const std::string& address, std::function<std::string()> metrics) {
  size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon == address.npos ? 0 : colon), port = address.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  if (colon == address.npos || host.empty() || getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0 || !found)
    return Status(Code::invalid_argument,
                  "\"" + address + "\" is no address and port; give one such as 127.0.0.1:9479.");
  http_ = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int on = 1;
  bool good = http_ >= 0 && setsockopt(http_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
              bind(http_, found->ai_addr, found->ai_addrlen) == 0 && listen(http_, 8) == 0;
  freeaddrinfo(found);
  if (!good) return failure("\"" + address + "\" cannot be listened on");
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  getsockname(http_, reinterpret_cast<sockaddr*>(&bound), &length);
  http_port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                                 : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  metrics_ = std::move(metrics);
  return {};
}

void Server::add_to(std::vector<pollfd>& polled) const {
  for (int listener : {commands_, http_})
    if (listener >= 0) polled.push_back({listener, POLLIN, 0});
  for (const Client& c : clients_) polled.push_back({c.fd, short(c.out.empty() ? POLLIN : POLLOUT), 0});
}

void Server::accept_from(int listener, bool http, int64_t now_ns) {
  for (;;) {
    int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    if (clients_.size() >= kMostClients)
      close(fd);
    else
      clients_.push_back({fd, http, now_ns + kPatienceNs, {}, {}, 0});
  }
}

bool Server::advance(Client& c) {
  if (c.out.empty()) {
    char buffer[1024];
    for (;;) {
      ssize_t n = recv(c.fd, buffer, sizeof buffer, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        if (errno != EAGAIN) return false;
        break;
      }
      if (n == 0) return false;
      c.in.append(buffer, size_t(n));
      if (c.in.size() > kMostRequest) return false;
    }
    if (!c.http) {
      size_t end = c.in.find('\n');
      if (end == c.in.npos) return true;
      c.out = answer_(c.in.substr(0, end));
      if (c.out.empty()) return false;
    } else {
      if (c.in.find("\r\n\r\n") == c.in.npos && c.in.find("\n\n") == c.in.npos) return true;
      std::string line = c.in.substr(0, c.in.find_first_of("\r\n"));
      bool get = line.starts_with("GET "), right = get && (line.starts_with("GET /metrics ") || line == "GET /metrics");
      std::string body = right ? metrics_() : get ? "Only /metrics is here.\n" : "Only GET is understood.\n";
      c.out = std::string("HTTP/1.1 ") +
              (right ? "200 OK"
               : get ? "404 Not Found"
                     : "405 Method Not Allowed") +
              "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nConnection: close\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body;
    }
  }
  while (c.sent < c.out.size()) {
    ssize_t n = send(c.fd, c.out.data() + c.sent, c.out.size() - c.sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    c.sent += size_t(n);
  }
  return false;
}

void Server::serve(const std::vector<pollfd>& polled, int64_t now_ns) {
  for (const pollfd& p : polled) {
    if (!p.revents) continue;
    if (p.fd == commands_ || p.fd == http_) {
      accept_from(p.fd, p.fd == http_, now_ns);
      continue;
    }
    auto c = std::find_if(clients_.begin(), clients_.end(), [&](const Client& k) { return k.fd == p.fd; });
    if (c == clients_.end() || advance(*c)) continue;
    close(c->fd);
    clients_.erase(c);
  }
  std::erase_if(clients_, [&](const Client& c) {
    if (c.deadline_ns > now_ns) return false;
    close(c.fd);
    return true;
  });
}

Result<std::string> ask_daemon(const std::string& folder, const std::string& line) {
  auto address = AI_VMM_TAKE(socket_address(folder));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return failure("No socket can be made");
  timeval patience{5, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  std::string ask = line + "\n", out;
  Status s;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    s = failure("No airampd answers in \"" + folder + "\"");
  else if (send(fd, ask.data(), ask.size(), MSG_NOSIGNAL) != ssize_t(ask.size()))
    s = failure("airampd takes no command");
  while (s.ok()) {
    char buffer[4096];
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) s = failure("airampd does not answer");
    if (n <= 0) break;
    out.append(buffer, size_t(n));
  }
  close(fd);
  if (!s.ok()) return s;
  return out;
}

}  // namespace AIRamp::Daemon
