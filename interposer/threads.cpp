#include "threads.hpp"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>

#include "elf.hpp"

namespace AIRamp::Interposer {

// Not linked to: the versions of these functions in younger glibcs are too young.
bool start_thread(void* (*run)(void*), void* argument) {
  auto* create = reinterpret_cast<decltype(&pthread_create)>(elf::find("pthread_create"));
  auto* detach = reinterpret_cast<decltype(&pthread_detach)>(elf::find("pthread_detach"));
  if (!create || !detach) return false;
  std::uint64_t all = ~std::uint64_t{0}, before = 0;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
  pthread_t id;
  bool started = create(&id, nullptr, run, argument) == 0;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before);
  if (started) detach(id);
  return started;
}

}  // namespace AIRamp::Interposer
