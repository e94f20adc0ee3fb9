// One look at the machine, and the thread that takes them.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "telemetry/device.hpp"
#include "telemetry/machine.hpp"

namespace AIRamp::Daemon {

using ai_vmm::telemetry::Reading;

struct Observation {
  int64_t now_ns = 0;  // of a steady clock
  std::vector<ai_vmm::telemetry::DeviceSample> devices;
  std::vector<ai_vmm::telemetry::NetworkSample> links;
  std::vector<ai_vmm::telemetry::DiskSample> disks;
  ai_vmm::telemetry::PressureSample pressure;
  ai_vmm::telemetry::MemorySample memory;
  ai_vmm::telemetry::TcpSample tcp;
  Reading pack_rate;  // bytes of float32 per second that one thread rounds to bf16 and widens again
};

class Observer {
 public:
  Observer(const ai_vmm::telemetry::Roots& roots, const std::string& library_folder);
  Observation look(int64_t now_ns);
  // Why sources of readings are not there.
  const std::vector<std::string>& absent() const { return devices_.absent(); }

 private:
  ai_vmm::telemetry::Roots roots_;
  ai_vmm::telemetry::DeviceReaders devices_;
  ai_vmm::telemetry::NetworkReader network_;
  ai_vmm::telemetry::DiskReader disks_;
  Reading pack_rate_;
};

// Rounds and widens a buffer that no cache holds, a few times, and takes the best.
Reading measure_pack_rate();

// Looks every `period`; a vendor's library that takes its time, or never returns, does not hold up the rest of the
// daemon.
class ObserverThread {
 public:
  ObserverThread(Observer observer, int64_t period_ns);
  ~ObserverThread();                            // leaves a look that does not end within two seconds to itself
  int ready() const { return shared_->event; }  // readable when there is a new observation
  Observation take();

 private:
  struct Shared {
    Shared(Observer o, int64_t period_ns);
    ~Shared();
    Observer observer;
    int64_t period_ns;
    int event;
    std::mutex mutex;
    std::condition_variable wake, ended;
    bool stop = false, done = false;
    Observation latest;
  };
  static void run(const std::shared_ptr<Shared>& shared);
  std::shared_ptr<Shared> shared_;
};

int64_t steady_ns();

}  // namespace AIRamp::Daemon
