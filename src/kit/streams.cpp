#include "kit/streams.hpp"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "ai_vmm/compute_backend.hpp"

namespace ai_vmm {

namespace {

using backend::guarded;

// What an event stands for since it was last recorded.
struct Point {
  std::mutex mutex;
  std::condition_variable done_changed;
  bool done = false;
  Status failure;
  void finish(Status s) {
    std::lock_guard lock(mutex);
    failure = std::move(s);
    done = true;
    done_changed.notify_all();
  }
};

struct Event {
  std::mutex mutex;
  std::shared_ptr<Point> point;  // null: never recorded
  std::shared_ptr<Point> now() {
    std::lock_guard lock(mutex);
    return point;
  }
};
Event& of(AiVmmEvent* e) { return *reinterpret_cast<Event*>(e); }

class Stream {
 public:
  Stream() : thread_([this] { loop(); }) {}
  ~Stream() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    ready_.notify_all();
    thread_.join();
  }
  void post(std::function<Status()> work) {
    {
      std::lock_guard lock(mutex_);
      queue_.push_back(std::move(work));
    }
    ready_.notify_all();
  }
  Status take_failure() { return std::exchange(failure_, Status()); }  // on the stream's own thread

 private:
  void loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
      ready_.wait(lock, [&] { return ending_ || !queue_.empty(); });
      if (queue_.empty()) return;
      auto work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      Status s = work();
      if (!s.ok() && failure_.ok()) failure_ = std::move(s);  // the first one since the last event
      lock.lock();
    }
  }
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<Status()>> queue_;
  bool ending_ = false;
  Status failure_;
  std::thread thread_;
};
Stream& of(AiVmmStream* s) { return *reinterpret_cast<Stream*>(s); }

}  // namespace

void enqueue(AiVmmStream* stream, std::function<Status()> work) { of(stream).post(std::move(work)); }

const AiVmmStreams& streams() {
  static const AiVmmStreams table = [] {
    auto t = backend::make<AiVmmStreams>();
    t.create_stream = [](AiVmmDevice* d, AiVmmStream** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        AI_VMM_TRY(backend::object(d).state());
        *out = reinterpret_cast<AiVmmStream*>(new Stream);
        return {};
      });
    };
    t.release_stream = [](AiVmmStream* s) { delete &of(s); };
    t.create_event = [](AiVmmDevice*, AiVmmEvent** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        *out = reinterpret_cast<AiVmmEvent*>(new Event);
        return {};
      });
    };
    t.release_event = [](AiVmmEvent* e) { delete &of(e); };
    t.record = [](AiVmmEvent* e, AiVmmStream* stream, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        auto point = std::make_shared<Point>();
        {
          std::lock_guard lock(of(e).mutex);
          of(e).point = point;
        }
        enqueue(stream, [point, stream]() -> Status {
          point->finish(of(stream).take_failure());
          return {};
        });
        return {};
      });
    };
    t.wait = [](AiVmmStream* stream, AiVmmEvent* e, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        auto point = of(e).now();
        if (!point) return {};
        enqueue(stream, [point]() -> Status {
          std::unique_lock lock(point->mutex);
          point->done_changed.wait(lock, [&] { return point->done; });
          return point->failure.copy();  // what waits for a failure fails by it
        });
        return {};
      });
    };
    t.synchronize = [](AiVmmEvent* e, uint64_t timeout_ns, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        auto point = of(e).now();
        if (!point) return {};
        std::unique_lock lock(point->mutex);
        auto limit = std::chrono::nanoseconds(std::min<uint64_t>(timeout_ns, 1'000'000'000'000'000));
        if (!point->done_changed.wait_for(lock, limit, [&] { return point->done; }))
          return Status(Code::deadline_exceeded, "The event is not done after " + std::to_string(timeout_ns) + " ns.");
        return point->failure.copy();
      });
    };
    t.execute = [](AiVmmContext* c, const AiVmmTensor* const* in, uint32_t n, const AiVmmTensor* const* out, uint32_t m,
                   const AiVmmRun* run, AiVmmStream* stream, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        std::vector<backend::TensorRef> inputs(in, in + n), outputs(out, out + m);
        enqueue(stream, [c, inputs, outputs, run] {
          return backend::checked_execute(c, inputs, outputs, backend::local(run));
        });
        return {};
      });
    };
    return t;
  }();
  return table;
}

}  // namespace ai_vmm
