// Fake vendor libraries for tests of discovery: they say what an environment variable tells them to.
//
//   FAKE_CUDA="0000:3b:00.0 0000:af:00.0"  devices at these addresses ("-": a device that tells no address)
//   FAKE_CUDA="error 803"                  initialisation fails with that number
//   FAKE_CUDA="crash" or "hang"            initialisation does that
//
// Unset: no devices.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace fake {

struct Address {
  unsigned domain = 0, bus = 0, device = 0, function = 0;
  bool told = false;
};

inline std::string script(const char* variable) {
  const char* text = std::getenv(variable);
  return text ? text : "";
}

inline int start(const char* variable) {
  std::string s = script(variable);
  if (s == "crash") std::abort();
  if (s == "hang") pause();
  int error = 0;
  return std::sscanf(s.c_str(), "error %d", &error) == 1 ? error : 0;
}

inline std::vector<Address> devices(const char* variable) {
  std::vector<Address> list;
  std::istringstream in(script(variable));
  for (std::string word; in >> word;) {
    Address a;
    a.told = std::sscanf(word.c_str(), "%x:%x:%x.%x", &a.domain, &a.bus, &a.device, &a.function) == 4;
    list.push_back(a);
  }
  return list;
}

inline void uuid_of(const Address& a, unsigned char bytes[16]) {
  std::memset(bytes, 0xfa, 16);
  bytes[14] = static_cast<unsigned char>(a.bus);
  bytes[15] = static_cast<unsigned char>(a.device);
}

}  // namespace fake

#define FAKE extern "C" __attribute__((visibility("default")))
