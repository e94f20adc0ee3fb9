#include "nccl_meeting.hpp"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "library.hpp"
#include "threads.hpp"

namespace AIRamp::Interposer::meeting {
namespace {

// A unique id begins with 8 bytes of NCCL's and the address, of either kind, at which the process that made it listens.
constexpr std::size_t kAddressAt = 8;

// Its last bytes. NCCL's own part of the 128 has never been longer than 64.
struct Mark {
  char magic[8];
  std::uint16_t port;  // as it stands in an address
  char zero[6];
  std::uint64_t cookie;  // who does not know it is not heard
};
constexpr std::size_t kMarkAt = sizeof(NcclId) - sizeof(Mark);
constexpr char kMagic[9] = "AIRAMP-1";

struct Speech {
  std::uint64_t cookie;
  std::uint32_t rank, ranks;
  std::uint64_t line_hash;
};
constexpr char kHeard = 'h', kBack = 'b', kYes = 'y', kNo = 'n';
constexpr std::uint32_t kMostRanks = 1024;

union Address {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
};

socklen_t size_of(const Address& a) { return a.any.sa_family == AF_INET ? sizeof a.v4 : sizeof a.v6; }

bool is_internet(const Address& a) { return a.any.sa_family == AF_INET || a.any.sa_family == AF_INET6; }

// Waits until the descriptor can be read or written.
bool ready(int fd, short what, int milliseconds) {
  pollfd p = {fd, what, 0};
  int n;
  while ((n = poll(&p, 1, milliseconds)) < 0 && errno == EINTR) continue;
  return n > 0;
}

// The one who listens: a thread for each unique id.
class Host {
 public:
  Host(int listener, std::uint64_t cookie) : listener_(listener), cookie_(cookie) {}

  static void* run(void* self) {
    thread.depth = 1;
    auto* host = static_cast<Host*>(self);
    host->serve();
    close(host->listener_);
    free(host->guests_);
    free(host);
    return nullptr;
  }

 private:
  enum Stage { kNew, kSpoken, kReturned, kGone };
  struct Guest {
    int fd;
    Stage stage;
    std::size_t got;
    Speech speech;
  };

  void serve() {
    for (;;) {
      auto* polled = static_cast<pollfd*>(calloc(count_ + 1, sizeof(pollfd)));
      if (!polled) return;
      polled[0] = {listener_, POLLIN, 0};
      for (unsigned i = 0; i < count_; i++) polled[i + 1] = {guests_[i].stage == kGone ? -1 : guests_[i].fd, POLLIN, 0};
      unsigned before = count_;
      if (poll(polled, before + 1, -1) > 0) {
        for (unsigned i = 0; i < before; i++)
          if (polled[i + 1].revents) listen_to(guests_[i]);
        if (polled[0].revents) welcome();
      }
      free(polled);
      decide();
      bool somebody = false;
      for (unsigned i = 0; i < count_; i++) somebody = somebody || guests_[i].stage != kGone;
      if (verdict_ && !somebody) return;
    }
  }

  void welcome() {
    int fd = accept(listener_, nullptr, nullptr);
    if (fd < 0) return;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    auto* more = count_ < 2 * kMostRanks
                     ? static_cast<Guest*>(realloc(static_cast<void*>(guests_), (count_ + 1) * sizeof(Guest)))
                     : nullptr;
    if (!more) {
      close(fd);
      return;
    }
    guests_ = more;
    guests_[count_++] = {fd, kNew, 0, {}};
  }

  void listen_to(Guest& guest) {
    if (guest.stage == kNew) {
      ssize_t n = recv(guest.fd, reinterpret_cast<char*>(&guest.speech) + guest.got, sizeof(Speech) - guest.got, 0);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
      guest.got += n > 0 ? static_cast<std::size_t>(n) : 0;
      if (n <= 0 || (guest.got == sizeof(Speech) && guest.speech.cookie != cookie_)) return dismiss(guest);
      if (guest.got < sizeof(Speech)) return;
      guest.stage = kSpoken;
      tell(guest, kHeard);
      return;
    }
    char byte = 0;
    ssize_t n = recv(guest.fd, &byte, 1, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n == 1 && byte == kBack) {
      guest.stage = kReturned;
      return;
    }
    somebody_left_ = true;
    dismiss(guest);
  }

  static bool has_spoken(const Guest& guest) { return guest.stage == kSpoken || guest.stage == kReturned; }

  // Everybody's answer is one.
  void decide() {
    if (!verdict_) {
      unsigned spoken = 0, returned = 0, ranks = 0;
      std::uint64_t line = 0;
      bool alike = true;
      for (unsigned i = 0; i < count_; i++) {
        const Guest& g = guests_[i];
        if (!has_spoken(g)) continue;
        if (spoken++ == 0) {
          ranks = g.speech.ranks;
          line = g.speech.line_hash;
        }
        alike = alike && g.speech.ranks == ranks && g.speech.line_hash == line;
        for (unsigned j = 0; j < i; j++)
          alike = alike && (!has_spoken(guests_[j]) || guests_[j].speech.rank != g.speech.rank);
        returned += g.stage == kReturned;
      }
      bool complete = alike && spoken == ranks && !somebody_left_;
      if (returned && !complete) verdict_ = kNo;
      if (returned && complete && returned == ranks) verdict_ = kYes;
    }
    for (unsigned i = 0; verdict_ && i < count_; i++) {
      if (guests_[i].stage != kReturned) continue;
      tell(guests_[i], verdict_);
      dismiss(guests_[i]);
    }
  }

  static void tell(const Guest& guest, char what) { (void)!send(guest.fd, &what, 1, MSG_NOSIGNAL); }

  static void dismiss(Guest& guest) {
    close(guest.fd);
    guest.stage = kGone;
  }

  int listener_;
  std::uint64_t cookie_;
  Guest* guests_ = nullptr;
  unsigned count_ = 0;
  bool somebody_left_ = false;
  char verdict_ = 0;
};

}  // namespace

bool offer(NcclId* id) {
  Address address = {};
  Mark mark = {};
  memcpy(&address, id->internal + kAddressAt, sizeof address);
  if (!is_internet(address) || memcmp(id->internal + kMarkAt, &mark, sizeof mark) != 0) return false;
  Address any = {};
  any.any.sa_family = address.any.sa_family;
  int listener = socket(any.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0) return false;
  socklen_t size = size_of(any);
  bool there = bind(listener, &any.any, size) == 0 && listen(listener, 1024) == 0 &&
               getsockname(listener, &any.any, &size) == 0 &&
               syscall(SYS_getrandom, &mark.cookie, sizeof mark.cookie, 0) == sizeof mark.cookie;
  void* place = there ? malloc(sizeof(Host)) : nullptr;
  auto* host = place ? new (place) Host(listener, mark.cookie) : nullptr;
  if (!host || !start_thread(&Host::run, host)) {
    free(place);
    close(listener);
    return false;
  }
  memcpy(mark.magic, kMagic, sizeof mark.magic);
  mark.port = any.any.sa_family == AF_INET ? any.v4.sin_port : any.v6.sin6_port;
  memcpy(id->internal + kMarkAt, &mark, sizeof mark);
  return true;
}

int speak(const NcclId& id, int rank, int ranks, const char* line) {
  Address address = {};
  Mark mark = {};
  memcpy(&mark, id.internal + kMarkAt, sizeof mark);
  memcpy(&address, id.internal + kAddressAt, sizeof address);
  if (memcmp(mark.magic, kMagic, sizeof mark.magic) != 0 || !is_internet(address)) return -1;
  if (address.any.sa_family == AF_INET) {
    address.v4.sin_port = mark.port;
  } else {
    address.v6.sin6_port = mark.port;
  }
  int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  int error = 0;
  socklen_t size = sizeof error;
  bool there = connect(fd, &address.any, size_of(address)) == 0 ||
               (errno == EINPROGRESS && ready(fd, POLLOUT, 5000) &&
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0);
  Speech speech = {mark.cookie, static_cast<std::uint32_t>(rank), static_cast<std::uint32_t>(ranks),
                   14695981039346656037u};
  for (const char* c = line; *c; c++)
    speech.line_hash = (speech.line_hash ^ static_cast<unsigned char>(*c)) * 1099511628211u;
  there = there && send(fd, &speech, sizeof speech, MSG_NOSIGNAL) == sizeof speech;
  char heard = 0;
  // Who is not heard leaves, which the host notices: a late answer must be the same for all.
  there = there && ready(fd, POLLIN, 10000) && recv(fd, &heard, 1, 0) == 1 && heard == kHeard;
  if (there) return fd;
  close(fd);
  return -1;
}

void come_back(int meeting) { (void)!send(meeting, &kBack, 1, MSG_NOSIGNAL); }

bool answer(int meeting) {
  char byte = 0;
  ssize_t n = 0;
  do {
    ready(meeting, POLLIN, -1);
    n = recv(meeting, &byte, 1, 0);
  } while (n < 0 && (errno == EAGAIN || errno == EINTR));
  close(meeting);
  return n == 1 && byte == kYes;
}

void leave(int meeting) { close(meeting); }

}  // namespace AIRamp::Interposer::meeting
