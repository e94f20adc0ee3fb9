// What programs do to libraries that are put into them. pitfall_program CASE TOY_LIBRARY: exit 0 if the case works as
// it does without AIRamp. Every hooked call is one of the toy's.

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

using Allreduce = int (*)(const void*, void*, int, void*, void*, void*);

int failures = 0;

#define EXPECT(condition)                                                        \
  do {                                                                           \
    if (!(condition)) {                                                          \
      failures++;                                                                \
      std::fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition); \
    }                                                                            \
  } while (0)

Allreduce from(void* handle) { return reinterpret_cast<Allreduce>(dlsym(handle, "MPI_Allreduce")); }

int call(Allreduce f) { return f(nullptr, nullptr, 7, nullptr, nullptr, nullptr); }

Allreduce at_exit = nullptr;

void* many_calls(void* f) {
  for (int i = 0; i < 1000; i++) call(reinterpret_cast<Allreduce>(f));
  return nullptr;
}

int in_clone(void* f) { return call(reinterpret_cast<Allreduce>(f)) == 1008 ? 0 : 1; }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::string what = argv[1];
  if (what == "absent") {
    // No MPI library is there: the program must be able to see that.
    dlerror();
    EXPECT(dlsym(RTLD_DEFAULT, "MPI_Allreduce") == nullptr);
    const char* error = dlerror();
    EXPECT(error && std::strstr(error, "MPI_Allreduce"));
    void* self = dlopen(nullptr, RTLD_NOW);
    EXPECT(dlsym(self, "MPI_Allreduce") == nullptr);
    EXPECT(dlsym(RTLD_DEFAULT, "no_such_function") == nullptr);
    EXPECT(dlerror() != nullptr);
    EXPECT(dlsym(RTLD_DEFAULT, "malloc") != nullptr);
    EXPECT(dlerror() == nullptr);
    // After this program stands libairamp.so, but RTLD_NEXT must find what it finds without it.
    EXPECT(dlsym(RTLD_NEXT, "getpid") == reinterpret_cast<void*>(&getpid));
    EXPECT(dlsym(RTLD_NEXT, "main") == nullptr);
    return failures != 0;
  }
  int flags = RTLD_NOW | (what == "deepbind" ? RTLD_DEEPBIND : RTLD_LOCAL);
  void* toy = dlopen(argv[2], flags);
  if (!toy) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  Allreduce f = from(toy);
  auto* calls = static_cast<int*>(dlsym(toy, "toy_calls"));
  if (what == "local" || what == "deepbind") {
    for (int i = 0; i < 10; i++) EXPECT(call(f) == 1008);
    EXPECT(*calls == 20);
  } else if (what == "fork") {
    EXPECT(call(f) == 1008);
    pid_t child = fork();
    if (child == 0) {
      EXPECT(call(f) == 1008);
      std::exit(failures);
    }
    int status = 1;
    waitpid(child, &status, 0);
    EXPECT(status == 0);
    static char stack[65536];
    child = clone(in_clone, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, reinterpret_cast<void*>(f));
    waitpid(child, &status, 0);
    EXPECT(status == 0);
    EXPECT(call(f) == 1008);
  } else if (what == "threads") {
    pthread_t threads[40];
    for (auto& t : threads) pthread_create(&t, nullptr, many_calls, reinterpret_cast<void*>(f));
    for (auto& t : threads) pthread_join(t, nullptr);
    EXPECT(*calls == 80000);
  } else if (what == "exit") {
    at_exit = f;
    std::atexit([] {
      if (call(at_exit) != 1008) _exit(9);
    });
  } else if (what == "reload") {
    for (int i = 0; i < 50; i++) {
      dlclose(toy);
      toy = dlopen(argv[2], flags);
      EXPECT(call(from(toy)) == 1008);
    }
  } else if (what == "wait") {
    call(f);
    std::puts("ready");
    std::fflush(stdout);
    pause();
  } else {
    failures = 2;
  }
  return failures;
}
