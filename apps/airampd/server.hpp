// Two doors of the daemon: a socket in its folder for airampd's own commands, and HTTP for Prometheus. Everything is
// done from one poll loop; a client that is slow, silent or too long is dropped and holds nothing up.
#pragma once

#include <poll.h>

#include <functional>
#include <string>
#include <vector>

#include "settings.hpp"

namespace AIRamp::Daemon {

class Server {
 public:
  // Answers one line of a command with text.
  using Answer = std::function<std::string(const std::string& line)>;

  ~Server();
  Server() = default;
  Server(const Server&) = delete;

  // A socket that only this user can reach; `folder` has been checked.
  Status listen_for_commands(const std::string& folder, Answer answer);
  // "127.0.0.1:9479", "[::1]:9479": GET /metrics answers with the text of `metrics`.
  Status listen_for_http(const std::string& address, std::function<std::string()> metrics);
  int http_port() const { return http_port_; }

  void add_to(std::vector<pollfd>& polled) const;
  // Serves what poll reported, and drops clients whose time is over.
  void serve(const std::vector<pollfd>& polled, int64_t now_ns);
  bool has_clients() const { return !clients_.empty(); }

 private:
  struct Client {
    int fd;
    bool http;
    int64_t deadline_ns;
    std::string in, out;
    size_t sent = 0;
  };
  void accept_from(int listener, bool http, int64_t now_ns);
  bool advance(Client& client);  // false: done with it

  int commands_ = -1, http_ = -1, http_port_ = 0;
  std::string command_path_;
  Answer answer_;
  std::function<std::string()> metrics_;
  std::vector<Client> clients_;
};

// Sends a line to the daemon that publishes in `folder`, and returns its answer.
Result<std::string> ask_daemon(const std::string& folder, const std::string& line);

}  // namespace AIRamp::Daemon
