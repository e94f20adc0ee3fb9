#include "runtime/failover.hpp"

#include <algorithm>

#include "ai_vmm/cancel.hpp"
#include "base/log.hpp"
#include "hal/backends.hpp"

namespace ai_vmm {

namespace {
constexpr int kBusyTries = 3;
constexpr auto kLongestAdvice = std::chrono::milliseconds(1000);
constexpr auto kLongestPause = std::chrono::milliseconds(60'000);

// False when the caller gave up.
bool sleep(std::chrono::milliseconds time, const volatile int32_t* cancel) {
  auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
    if (cancelled(cancel)) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return !cancelled(cancel);
}
}  // namespace

FailoverChain::FailoverChain(std::vector<std::string> devices, Made first, Maker make, std::chrono::milliseconds pause)
    : make_(std::move(make)), pause_(pause) {
  for (std::string& d : devices) {
    Way w;
    w.device = std::move(d);
    w.name = w.device;
    w.pause = pause_;
    ways_.push_back(std::move(w));
  }
  ways_[0].plan = std::move(first.plan);
  ways_[0].name = std::move(first.name);
}

FailoverChain::~FailoverChain() {
  std::thread probe;
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
    probe = std::move(probe_);
  }
  if (probe.joinable()) probe.join();
}

// Makes the way's plan. mutex_ is let go meanwhile: a compilation stops no request that needs none.
Status FailoverChain::compile(Way& way, std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  Status done;
  {
    std::lock_guard one(compiling_);
    lock.lock();
    if (way.plan || !way.problem.empty()) return {};  // another request has made it, or found that it cannot be
    lock.unlock();
    auto made = make_(way.device);
    lock.lock();
    if (made.ok()) {
      way.plan = std::move(made->plan);
      way.name = std::move(made->name);
      ++way.life;
      return {};
    }
    done = std::move(made).status();
    lock.unlock();
  }
  lock.lock();
  if (done.device_state() == DeviceState::ok || done.device_state() == DeviceState::driver_mismatch) {
    way.problem = done.message();
  } else {
    lose(way);
  }
  return done;
}

void FailoverChain::lose(Way& w) {
  w.lost = true;
  w.plan = nullptr;
  w.retry_at = Clock::now() + w.pause;
  w.pause = std::min(w.pause * 2, kLongestPause);
  troubled_ = true;
}

std::shared_ptr<const Plan> FailoverChain::pick(Try& t) {
  std::unique_lock lock(mutex_);
  for (size_t i = 0; i < ways_.size(); ++i) {
    Way& w = ways_[i];
    if (w.lost && w.retry && ways_.size() > 1 && Clock::now() >= w.retry_at) start_probe(i);
    if (w.lost || std::find(t.tried.begin(), t.tried.end(), i) != t.tried.end()) continue;
    if (!t.excluded.empty()) {
      if (w.resource.empty()) {
        lock.unlock();
        std::string resource = device_resource(w.device);
        lock.lock();
        w.resource = std::move(resource);
      }
      if (std::find(t.excluded.begin(), t.excluded.end(), w.resource) != t.excluded.end()) continue;
    }
    if (!w.plan && w.problem.empty()) (void)compile(w, lock);
    if (!w.plan) continue;
    return take(t, i);
  }
  // Nothing else is left: a lost device whose pause is over is opened here and now.
  for (size_t i = 0; i < ways_.size(); ++i) {
    Way& w = ways_[i];
    if (!w.lost || !w.retry || Clock::now() < w.retry_at) continue;
    if (std::find(t.tried.begin(), t.tried.end(), i) != t.tried.end()) continue;
    (void)compile(w, lock);
    if (!w.plan) continue;
    w.lost = false;
    return take(t, i);
  }
  return nullptr;
}

std::shared_ptr<const Plan> FailoverChain::take(Try& t, size_t way) {
  if (!t.tried.empty()) record(t.tried.back(), way, t.failure);
  t.way = way;
  t.life = ways_[way].life;
  return ways_[way].plan;
}

// After a failure of the device: whether another attempt makes sense, which pick() then chooses.
bool FailoverChain::again(Try& t, const volatile int32_t* cancel) {
  const DeviceState state = t.failure.device_state();
  if (state == DeviceState::busy && ++t.busy <= kBusyTries) {
    auto advice = std::chrono::milliseconds(t.failure.fault()->retry_after_ms);
    return sleep(std::min(std::max(advice, std::chrono::milliseconds(1)), kLongestAdvice), cancel);
  }
  std::string device;
  {
    std::lock_guard lock(mutex_);
    device = ways_[t.way].resource.empty() ? ways_[t.way].device : "";
  }
  std::string resource = device.empty() ? "" : device_resource(device);
  std::lock_guard lock(mutex_);
  Way& w = ways_[t.way];
  if (!device.empty()) w.resource = std::move(resource);
  t.tried.push_back(t.way);
  t.excluded.push_back(w.resource);
  t.busy = 0;
  if ((state == DeviceState::lost || state == DeviceState::driver_mismatch) && t.life == w.life && !w.lost) {
    w.retry = state == DeviceState::lost;
    lose(w);
    log(LogLevel::warning, "Device " + w.device + " (" + w.name + ") is lost: " + t.failure.message());
  }
  return true;
}

void FailoverChain::succeeded(const Try& t) {
  std::lock_guard lock(mutex_);
  Way& w = ways_[t.way];
  if (t.life == w.life && !w.lost) w.pause = pause_;  // it is well again
}

Status FailoverChain::no_device_left(Try& t) {
  std::lock_guard lock(mutex_);
  std::string others;
  for (const Way& w : ways_)
    others += (others.empty() ? "" : "; ") + w.device + ": " +
              (w.lost               ? "lost"
               : !w.problem.empty() ? w.problem
               : std::find(t.excluded.begin(), t.excluded.end(), w.resource) != t.excluded.end()
                   ? "failed, or shares what failed"
                   : "not usable");
  if (t.failure.ok())
    return Status(Code::unavailable, "Every device of the deployment is lost (" + others + ").")
        .on_device(DeviceState::lost);
  return Status(t.failure.code(), t.failure.message() + " No other device is left (" + others + ").")
      .on_device(t.failure.device_state(), t.failure.fault()->retry_after_ms);
}

// Opens a lost device anew, beside the requests. mutex_ is held.
void FailoverChain::start_probe(size_t index) {
  if (probing_ || ending_) return;
  if (probe_.joinable()) probe_.join();  // it has ended: probing_ is false
  probing_ = true;
  probe_ = std::thread([this, index] {
    std::string device;
    {
      std::lock_guard lock(mutex_);
      device = ways_[index].device;
    }
    Result<Made> made = [&] {
      std::lock_guard one(compiling_);
      return make_(device);
    }();
    std::lock_guard lock(mutex_);
    Way& w = ways_[index];
    if (!w.lost) {
      // A request has opened it meanwhile.
    } else if (made.ok()) {
      w.plan = std::move(made->plan);
      w.lost = false;
      ++w.life;
      log(LogLevel::warning, "Device " + w.device + " (" + w.name + ") is back.");
    } else {
      w.retry_at = Clock::now() + w.pause;
      w.pause = std::min(w.pause * 2, kLongestPause);
    }
    probing_ = false;
  });
}

void FailoverChain::record(size_t from, size_t to, const Status& why) {
  const char* state = name(why.device_state());
  for (Report::Failover& m : moves_)
    if (m.from == ways_[from].device && m.to == ways_[to].device && m.state == state) {
      ++m.requests;
      return;
    }
  moves_.push_back({ways_[from].device, ways_[to].device, state, why.message(), 1});
}

Status FailoverChain::warm_next() {
  std::unique_lock lock(mutex_);
  if (ways_.size() < 2 || ways_[1].plan) return {};
  return compile(ways_[1], lock);
}

void FailoverChain::add_to(Report& r) const {
  std::lock_guard lock(mutex_);
  for (const Way& w : ways_)
    if (!w.lost && w.plan) {
      if (&w != &ways_[0]) {
        r.backend = parse_device(w.device).first;
        r.device = w.name;
      }
      break;
    }
  r.failovers.insert(r.failovers.end(), moves_.begin(), moves_.end());
}

std::shared_ptr<const Plan> FailoverChain::plan() const {
  std::lock_guard lock(mutex_);
  for (const Way& w : ways_)
    if (!w.lost && w.plan) return w.plan;
  return nullptr;
}

}  // namespace ai_vmm
