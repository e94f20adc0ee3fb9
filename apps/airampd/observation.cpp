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

ObserverThread::Shared::Shared(Observer o, int64_t period)
    : observer(std::move(o)), period_ns(period), event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
ObserverThread::Shared::~Shared() { close(event); }

ObserverThread::ObserverThread(Observer observer, int64_t period_ns)
    : shared_(std::make_shared<Shared>(std::move(observer), period_ns)) {
  // Signals are the main thread's business.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([shared = shared_] { run(shared); }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ObserverThread::~ObserverThread() {
  std::unique_lock lock(shared_->mutex);
  shared_->stop = true;
  shared_->wake.notify_all();
  shared_->ended.wait_for(lock, std::chrono::seconds(2), [&] { return shared_->done; });
}

void ObserverThread::run(const std::shared_ptr<Shared>& shared) {
  std::unique_lock lock(shared->mutex);
  while (!shared->stop) {
    lock.unlock();
    Observation o = shared->observer.look(steady_ns());
    lock.lock();
    shared->latest = std::move(o);
    uint64_t one = 1;
    (void)!write(shared->event, &one, sizeof one);
    shared->wake.wait_for(lock, std::chrono::nanoseconds(shared->period_ns), [&] { return shared->stop; });
  }
  shared->done = true;
  shared->ended.notify_all();
}

Observation ObserverThread::take() {
  uint64_t count;
  (void)!read(shared_->event, &count, sizeof count);
  std::lock_guard lock(shared_->mutex);
  return shared_->latest;
}

}  // namespace AIRamp::Daemon
