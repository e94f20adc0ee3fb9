// Loops on the one compute pool, OpenMP. A region that one thread can do wakes nobody.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace ai_vmm::cpu {

template <class F>
void parallel(int threads, int64_t n, int64_t grain, F&& f) {
  int64_t most = grain > 0 ? n / grain : n;
  int team = int(std::min<int64_t>(threads, most));
  if (team <= 1) {
    if (n > 0) f(int64_t(0), n);
    return;
  }
#pragma omp parallel num_threads(team)
  {
    int64_t t = omp_get_thread_num(), all = omp_get_num_threads();
    int64_t begin = n * t / all, end = n * (t + 1) / all;
    if (begin < end) f(begin, end);
  }
}

}  // namespace ai_vmm::cpu
