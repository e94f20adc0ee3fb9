#include "nccl_meeting.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "library.hpp"

namespace AIRamp::Interposer {

constinit thread_local Thread thread __attribute__((tls_model("initial-exec"))) = {};

namespace {

// As NCCL lays it out: 8 bytes, and an address.
NcclId unique_id(int family = AF_INET) {
  NcclId id = {};
  std::memset(id.internal, 0x5a, 8);
  sockaddr_in v4 = {};
  v4.sin_family = AF_INET;
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr_in6 v6 = {};
  v6.sin6_family = AF_INET6;
  v6.sin6_addr = in6addr_loopback;
  std::memcpy(id.internal + 8, family == AF_INET ? static_cast<void*>(&v4) : &v6,
              family == AF_INET ? sizeof v4 : sizeof v6);
  return id;
}

int port_of(const NcclId& id) {
  std::uint16_t port;
  std::memcpy(&port, id.internal + 112, 2);
  return ntohs(port);
}

// What a rank does after it has spoken; all have, before the first comes back.
enum Then { kComeBack, kLeave };
std::vector<bool> meet(const NcclId& id, const std::vector<std::string>& lines, int ranks,
                       const std::vector<Then>& then) {
  std::vector<int> meetings;
  for (std::size_t i = 0; i < lines.size(); i++) {
    meetings.push_back(meeting::speak(id, static_cast<int>(i), ranks, lines[i].c_str()));
    EXPECT_GE(meetings.back(), 0);
  }
  for (std::size_t i = 0; i < meetings.size(); i++) {
    if (then[i] == kComeBack) {
      meeting::come_back(meetings[i]);
    } else {
      meeting::leave(meetings[i]);
    }
  }
  std::vector<bool> answers;
  for (std::size_t i = 0; i < meetings.size(); i++)
    if (then[i] == kComeBack) answers.push_back(meeting::answer(meetings[i]));
  return answers;
}

TEST(NcclMeeting, AllWhoSpeakAlikeAgree) {
  for (int family : {AF_INET, AF_INET6}) {
    NcclId id = unique_id(family), before = id;
    if (!meeting::offer(&id)) {
      ASSERT_EQ(family, AF_INET6) << "nobody can listen";
      continue;  // a machine without IPv6
    }
    EXPECT_EQ(std::memcmp(id.internal, before.internal, 64), 0) << "NCCL's own part was changed";
    EXPECT_EQ(meet(id, {"a", "a", "a"}, 3, {kComeBack, kComeBack, kComeBack}), std::vector<bool>(3, true));
  }
}

TEST(NcclMeeting, NobodyAgreesIfOneIsMissingLeavesOrDiffers) {
  auto fresh = [] {
    NcclId id = unique_id();
    EXPECT_TRUE(meeting::offer(&id));
    return id;
  };
  std::vector<Then> stay(3, kComeBack);
  EXPECT_EQ(meet(fresh(), {"a", "a"}, 3, {kComeBack, kComeBack}), std::vector<bool>(2, false));
  EXPECT_EQ(meet(fresh(), {"a", "b", "a"}, 3, stay), std::vector<bool>(3, false));
  EXPECT_EQ(meet(fresh(), {"a", "a", "a"}, 3, {kLeave, kComeBack, kComeBack}), std::vector<bool>(2, false));
  EXPECT_EQ(meet(fresh(), {"a", "a", "a"}, 3, {kComeBack, kComeBack, kLeave}), std::vector<bool>(2, false));
}

// Who waits for the answer gets it only when all are back.
TEST(NcclMeeting, YesWaitsForTheLast) {
  NcclId id = unique_id();
  ASSERT_TRUE(meeting::offer(&id));
  int first = meeting::speak(id, 0, 2, "a"), second = meeting::speak(id, 1, 2, "a");
  meeting::come_back(first);
  char byte;
  usleep(50000);
  EXPECT_EQ(recv(first, &byte, 1, MSG_DONTWAIT | MSG_PEEK), -1);
  meeting::come_back(second);
  EXPECT_TRUE(meeting::answer(first));
  EXPECT_TRUE(meeting::answer(second));
}

TEST(NcclMeeting, StrangersAreNotHeard) {
  NcclId id = unique_id();
  ASSERT_TRUE(meeting::offer(&id));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port_of(id)));
  std::vector<int> strangers;
  for (const std::string& words :
       {std::string(), std::string("GET / HTTP/1.1\r\nHost: somebody\r\n\r\n"), std::string(7, 'x')}) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(send(fd, words.data(), words.size(), 0), static_cast<ssize_t>(words.size()));
    strangers.push_back(fd);
  }
  NcclId forged = id;
  forged.internal[127] = static_cast<char>(forged.internal[127] ^ 1);
  EXPECT_EQ(meeting::speak(forged, 0, 2, "a"), -1);
  EXPECT_EQ(meet(id, {"a", "a"}, 2, {kComeBack, kComeBack}), std::vector<bool>(2, true));
  for (int fd : strangers) close(fd);
}

TEST(NcclMeeting, IdsThatCarryNothing) {
  NcclId id = unique_id();
  EXPECT_EQ(meeting::speak(id, 0, 2, "a"), -1) << "nobody has offered";
  id.internal[120] = 1;
  EXPECT_FALSE(meeting::offer(&id)) << "these bytes are in use";
  NcclId strange = {};
  EXPECT_FALSE(meeting::offer(&strange)) << "there is no address";
}

}  // namespace
}  // namespace AIRamp::Interposer
