// What a deployment does when its device fails: the request runs again on the next device, and the lost one is tried
// again later. A request that the caller or the host got wrong is not repeated.
//
//   busy           tried again after the device's advice, a few times; then elsewhere
//   out of memory  this request runs elsewhere
//   lost           this request and those that follow run elsewhere; after a pause that doubles with every loss the
//   device
//                  is opened anew beside the traffic, and the next request goes to it
//   driver mismatch  as lost, but not tried again
//
// Nothing moves to a device on the same physical resource: it shares the capacity and the fate.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ai_vmm/vmm.hpp"
#include "plan/plan.hpp"

namespace ai_vmm {

class FailoverChain {
 public:
  // A plan of the model on one device. Called when the device is needed, and again after it was lost.
  struct Made {
    std::shared_ptr<const Plan> plan;
    std::string name;  // of the device, for the report
  };
  using Maker = std::function<Result<Made>(const std::string& device)>;

  // `devices` ("sim:1", "cpu") in the order of preference; the first runs `plan` already. `pause` before a lost device
  // is tried again for the first time.
  FailoverChain(std::vector<std::string> devices, Made first, Maker make,
                std::chrono::milliseconds pause = std::chrono::seconds(1));
  ~FailoverChain();

  // Calls attempt(plan) until it succeeds, fails for a reason of its own, or no device is left. The same attempt may be
  // made several times; its inputs must stay.
  template <class Attempt>
  Status run(const volatile int32_t* cancel, Attempt&& attempt) {
    Try t;
    for (;;) {
      auto plan = pick(t);
      if (!plan) return no_device_left(t);
      t.failure = attempt(*plan);
      if (t.failure.ok()) {
        if (troubled_.load(std::memory_order_relaxed)) succeeded(t);
        return {};
      }
      if (t.failure.device_state() == DeviceState::ok || !again(t, cancel)) return std::move(t.failure);
    }
  }

  // Compiles for the next device now, so that a failure costs no compilation.
  Status warm_next();

  void add_to(Report& report) const;  // where requests run now, and every move
  // The plan that requests run on now.
  std::shared_ptr<const Plan> plan() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Way {
    std::string device, resource, name;
    std::shared_ptr<const Plan> plan;  // null: not compiled, or lost
    std::string problem;               // why it cannot be compiled; tried once
    bool lost = false, retry = true;   // retry: a lost device may come back
    Clock::time_point retry_at{};
    std::chrono::milliseconds pause{};
    int64_t life = 0;  // counts the plans, so that a late failure of an old one does not lose the new one
  };
  struct Try {  // one request
    size_t way = 0;
    int64_t life = 0;
    int busy = 0;
    std::vector<std::string> excluded;  // resources
    std::vector<size_t> tried;
    Status failure;
  };

  std::shared_ptr<const Plan> pick(Try& t);
  bool again(Try& t, const volatile int32_t* cancel);
  void succeeded(const Try& t);
  Status no_device_left(Try& t);
  Status compile(Way& way, std::unique_lock<std::mutex>& lock);
  std::shared_ptr<const Plan> take(Try& t, size_t way);
  void lose(Way& way);
  void start_probe(size_t way);
  void record(size_t from, size_t to, const Status& why);

  mutable std::mutex mutex_;  // guards all below
  std::mutex compiling_;      // one compilation at a time, without mutex_
  std::vector<Way> ways_;
  std::vector<Report::Failover> moves_;
  std::thread probe_;
  bool probing_ = false, ending_ = false;
  const Maker make_;
  const std::chrono::milliseconds pause_;
  std::atomic<bool> troubled_{false};  // a way is lost, or has been
};

}  // namespace ai_vmm
