// A program that follows the tuning: prints where its values come from, then OCL_CHUNK_BYTES each time it changes,
// until its input ends.
#include <poll.h>

#include <cstdio>

#include "interposer/tuning.hpp"

using namespace AIRamp::Interposer;

int main() {
  tuning.look_for_daemon();
  std::printf("%s\n", tuning.state());
  for (int64_t last = -1;;) {
    int64_t now = tuning.get<Key::OCL_CHUNK_BYTES>();
    if (now != last) std::printf("%lld\n", static_cast<long long>(now));
    last = now;
    std::fflush(stdout);
    pollfd in{0, POLLIN, 0};
    if (poll(&in, 1, 1) > 0) return 0;
  }
}
