// Round-trip times and delivery rates of TCP connections, from the kernel's socket diagnosis (sock_diag(7)).
#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "telemetry/machine.hpp"

namespace ai_vmm::telemetry {

namespace {

constexpr int kEstablished = 1;

bool is_loopback(const inet_diag_msg& m) {
  const auto* a = m.id.idiag_dst;
  if (m.idiag_family == AF_INET) return (ntohl(a[0]) >> 24) == 127;
  bool mapped = a[0] == 0 && a[1] == 0 && ntohl(a[2]) == 0xffff && (ntohl(a[3]) >> 24) == 127;
  return mapped || (a[0] == 0 && a[1] == 0 && a[2] == 0 && ntohl(a[3]) == 1);
}

void take(const nlmsghdr* h, bool loopback, TcpSample& out) {
  if (h->nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg))) return;
  const auto* m = static_cast<const inet_diag_msg*>(NLMSG_DATA(h));
  if (!loopback && is_loopback(*m)) return;
  ++out.connections;
  auto left = int(h->nlmsg_len - NLMSG_LENGTH(sizeof *m));
  for (auto* a = reinterpret_cast<const rtattr*>(m + 1); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
    if (a->rta_type != INET_DIAG_INFO) continue;
    // Older kernels send a shorter structure; what it lacks stays zero.
    tcp_info info{};
    std::memcpy(&info, RTA_DATA(a), std::min(size_t(RTA_PAYLOAD(a)), sizeof info));
    // The kernel starts the least round-trip time at the largest number.
    if (info.tcpi_min_rtt > 0 && info.tcpi_min_rtt != ~0u) {
      double seconds = info.tcpi_min_rtt * 1e-6;
      if (!out.min_rtt.known() || seconds < out.min_rtt.value()) out.min_rtt = seconds;
    }
    if (info.tcpi_delivery_rate > 0 && !info.tcpi_delivery_rate_app_limited) {
      auto rate = double(info.tcpi_delivery_rate);
      if (!out.delivery_rate.known() || rate > out.delivery_rate.value()) out.delivery_rate = rate;
    }
  }
}

}  // namespace

TcpSample read_tcp(bool loopback) {
  TcpSample out;
  out.min_rtt = Reading::unknown("there is no connection");
  out.delivery_rate = Reading::unknown("no connection sent at its full rate");
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  auto give_up = [&](const char* what) {
    out.min_rtt = out.delivery_rate = Reading::unknown(std::string(what) + ": " + std::strerror(errno));
    if (fd >= 0) close(fd);
    return out;
  };
  if (fd < 0) return give_up("no socket diagnosis");
  timeval wait{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  for (int family : {AF_INET, AF_INET6}) {
    struct {
      nlmsghdr head;
      inet_diag_req_v2 request;
    } ask{};
    ask.head.nlmsg_len = sizeof ask;
    ask.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    ask.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    ask.request.sdiag_family = uint8_t(family);
    ask.request.sdiag_protocol = IPPROTO_TCP;
    ask.request.idiag_ext = 1 << (INET_DIAG_INFO - 1);
    ask.request.idiag_states = 1u << kEstablished;
    if (send(fd, &ask, sizeof ask, 0) != ssize_t(sizeof ask)) return give_up("the socket diagnosis takes no question");
    for (bool done = false; !done;) {
      alignas(nlmsghdr) char buffer[32 << 10];
      ssize_t n = recv(fd, buffer, sizeof buffer, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return give_up("the socket diagnosis does not answer");
      auto left = int(n);
      for (auto* h = reinterpret_cast<nlmsghdr*>(buffer); NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
        done = done || h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR;
        if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY) take(h, loopback, out);
      }
    }
  }
  close(fd);
  if (out.connections > 0 && !out.min_rtt.known())
    out.min_rtt = Reading::unknown("no connection has a round-trip time yet");
  return out;
}

}  // namespace ai_vmm::telemetry
