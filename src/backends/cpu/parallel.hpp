// Loops on the one compute pool, OpenMP. A region that one thread can do wakes nobody.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace ai_vmm::cpu {

// Which thread of the innermost `parallel` this is, from 0: the index of its share of scratch. Not OpenMP's own number,
// which belongs to the caller's region where a loop runs without one.
inline thread_local int worker_index = 0;

template <class F>
void parallel(int threads, int64_t n, int64_t grain, F&& f) {
  int64_t most = grain > 0 ? n / grain : n;
  int team = int(std::min<int64_t>(threads, most));
  if (team <= 1) {
    int outer = worker_index;
    worker_index = 0;
    if (n > 0) f(int64_t(0), n);
    worker_index = outer;
    return;
  }
#pragma omp parallel num_threads(team)
  {
    int64_t t = omp_get_thread_num(), all = omp_get_num_threads();
    worker_index = int(t);
    int64_t begin = n * t / all, end = n * (t + 1) / all;
    if (begin < end) f(begin, end);
  }
}

}  // namespace ai_vmm::cpu
