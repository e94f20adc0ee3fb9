#include "observation.hpp"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>

#include "interposer/bf16.hpp"

namespace AIRamp::Daemon {

using namespace ai_vmm::telemetry;

int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Reading measure_pack_rate() {
  constexpr size_t kElements = 8 << 20;  // 32 MiB of float32
  const auto& kernels = AIRamp::Interposer::bf16::kernels();
  std::vector<float> wide(kElements, 1.5f);
  std::vector<uint16_t> narrow(kElements, 0);
  double best = 0;
  for (int round = 0; round < 4; ++round) {
    int64_t start = steady_ns();
    kernels.pack_bf16_v4(wide.data(), narrow.data(), kElements);
    kernels.unpack_bf16_v4(narrow.data(), wide.data(), kElements);
    auto seconds = double(steady_ns() - start) * 1e-9;
    // The first round warms the processor up.
    if (round > 0 && seconds > 0) best = std::max(best, kElements * sizeof(float) / seconds);
  }
  return wide[kElements / 2] == 1.5f ? Reading(best) : Reading::unknown("rounding and widening gave a wrong value");
}

Observer::Observer(const Roots& roots, const std::string& library_folder)
    : roots_(roots), devices_(roots, library_folder), network_(roots), disks_(roots), pack_rate_(measure_pack_rate()) {}

Observation Observer::look(int64_t now_ns) {
  Observation o;
  o.now_ns = now_ns;
  o.devices = devices_.read(now_ns);
  o.links = network_.read(now_ns);
  o.disks = disks_.read(now_ns);
  o.pressure = read_pressure(roots_);
  o.memory = read_memory(roots_);
  o.tcp = read_tcp();
  o.pack_rate = pack_rate_;
  return o;
}

ObserverThread::ObserverThread(Observer observer, int64_t period_ns)
    : observer_(std::move(observer)), period_ns_(period_ns), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  // Signals are the main thread's business.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ObserverThread::~ObserverThread() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  close(event_);
}

void ObserverThread::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    lock.unlock();
    Observation o = observer_.look(steady_ns());
    lock.lock();
    latest_ = std::move(o);
    uint64_t one = 1;
    (void)!write(event_, &one, sizeof one);
    wake_.wait_for(lock, std::chrono::nanoseconds(period_ns_), [&] { return stop_; });
  }
}

Observation ObserverThread::take() {
  uint64_t count;
  (void)!read(event_, &count, sizeof count);
  std::lock_guard lock(mutex_);
  return latest_;
}

}  // namespace AIRamp::Daemon
