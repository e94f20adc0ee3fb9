#include "run.hpp"

#include <pthread.h>
#include <signal.h>

namespace ai_vmm::python {

namespace {

pthread_t main_thread;
volatile int32_t* interrupted = nullptr;  // the flag of the run that the main thread is in
struct sigaction before;                  // Python's handler

void on_interrupt(int number, siginfo_t* info, void* context) {
  if (interrupted) *interrupted = 1;
  if (before.sa_flags & SA_SIGINFO)
    before.sa_sigaction(number, info, context);
  else
    before.sa_handler(number);
}

// While it lives, SIGINT sets `flag` before it reaches Python's handler. Does nothing off the main thread, which is
// where Python handles signals, or when SIGINT is ignored or ends the process.
class Interruptible {
 public:
  explicit Interruptible(volatile int32_t* flag) {
    if (!pthread_equal(pthread_self(), main_thread) || interrupted) return;
    struct sigaction ours {};
    ours.sa_sigaction = on_interrupt;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    if (sigaction(SIGINT, nullptr, &before) != 0) return;
    if (!(before.sa_flags & SA_SIGINFO) && (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN)) return;
    interrupted = flag;
    active_ = sigaction(SIGINT, &ours, nullptr) == 0;
    if (!active_) interrupted = nullptr;
  }
  ~Interruptible() {
    if (!active_) return;
    sigaction(SIGINT, &before, nullptr);
    interrupted = nullptr;
  }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

 private:
  bool active_ = false;
};

// `attempt(flag)` runs once; see run.hpp.
template <class F>
Status interruptible(Cancel* cancel, F&& attempt) {
  Cancel own;
  Cancel& flag = cancel ? *cancel : own;
  for (;;) {
    const bool asked = flag.set != 0;  // by the caller, before the run
    Status status;
    {
      nanobind::gil_scoped_release release;
      Interruptible scope(&flag.set);
      status = attempt(&flag.set);
    }
    if (status.code() != Code::cancelled || asked) return status;
    if (PyErr_CheckSignals() != 0) {
      flag.set = 0;
      throw nanobind::python_error();
    }
    if (cancel) return status;
    flag.set = 0;
  }
}

}  // namespace

void remember_main_thread() {
  // Python may be loaded by a thread that is not the process's first; its signal handlers run in its main thread.
  nanobind::object threading = nanobind::module_::import_("threading");
  main_thread = pthread_t(nanobind::cast<unsigned long>(threading.attr("main_thread")().attr("ident")));
}

Status run(const Deployment& deployment, std::span<const Data> inputs, std::span<Data> outputs, Cancel* cancel) {
  return interruptible(cancel, [&](const volatile int32_t* flag) { return deployment.run(inputs, outputs, flag); });
}

Status run(const Deployment& deployment, const Inputs& inputs, Outputs& outputs, Cancel* cancel) {
  return interruptible(cancel, [&](const volatile int32_t* flag) -> Status {
    outputs = AI_VMM_TAKE(deployment.run(inputs, {.outputs = outputs, .cancel = flag}));
    return {};
  });
}

}  // namespace ai_vmm::python
