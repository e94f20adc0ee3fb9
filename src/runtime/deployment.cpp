#include "runtime/deployment.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/check.hpp"
#include "base/memory_budget.hpp"
#include "base/numbers.hpp"
#include "base/text.hpp"
#include "runtime/execute.hpp"

namespace ai_vmm {

std::vector<Port> ports_of(const Graph& graph, const std::vector<ValueId>& values) {
  std::vector<Port> ports;
  for (ValueId v : values) {
    const Type& t = graph.value(v).type;
    Port p;
    p.name = graph.value(v).name;
    p.type = t.to_string();
    p.is_tensor = t.is_tensor();
    p.optional = t.kind == Type::Kind::optional;
    p.dtype = t.dtype;
    for (const Dim& d : t.dims) {
      p.shape.push_back(d.constant().value_or(-1));
      p.dims.push_back(d.to_string());
    }
    if (t.is_tensor() && !t.ranked) p.dims = {"..."};
    ports.push_back(std::move(p));
  }
  return ports;
}

Result<Inputs> random_inputs(const std::vector<Port>& ports, const std::map<std::string, Shape>& shapes,
                             uint64_t seed) {
  Inputs inputs;
  Random random{seed};
  for (const auto& [name, shape] : shapes)
    if (std::none_of(ports.begin(), ports.end(), [&](const Port& p) { return p.name == name; })) {
      std::vector<std::string> names;
      for (const Port& p : ports) names.push_back(p.name);
      return Status(Code::invalid_argument,
                    "The model has no input \"" + name + "\"; its inputs are " + join(names, ", ") + ".");
    }
  for (const Port& p : ports) {
    if (!p.is_tensor) {
      if (!p.optional) inputs[p.name] = Data(std::make_shared<Sequence>());
      continue;
    }
    Shape shape = p.shape;
    for (int64_t& d : shape) d = d < 0 ? 1 : d;
    if (auto it = shapes.find(p.name); it != shapes.end()) shape = it->second;
    Tensor t = AI_VMM_TAKE(Tensor::make(p.dtype, shape, true));
    if (p.dtype != DType::string)
      for (int64_t i = 0; i < t.count(); ++i) {
        if (is_float(p.dtype) || is_complex(p.dtype))
          write_double(p.dtype, t.mutable_data(), i, random.normal());
        else
          write_int64(p.dtype, t.mutable_data(), i, p.dtype == DType::boolean ? 1 : int64_t(random.next() & 1));
      }
    inputs[p.name] = Data(std::move(t));
  }
  return inputs;
}

namespace {
Status bad(std::string text) { return {Code::invalid_argument, std::move(text)}; }
}  // namespace

Result<std::vector<Data>> Deployment::Impl::in_order(const Inputs& given) const {
  std::vector<Data> ordered(inputs.size());
  size_t used = 0;
  for (size_t i = 0; i < inputs.size(); ++i)
    if (auto it = given.find(inputs[i].name); it != given.end()) {
      ++used;
      ordered[i] = it->second;
    }
  if (used == given.size()) return ordered;
  std::vector<std::string> names;
  for (const Port& p : inputs) names.push_back(p.name);
  for (const auto& [key, value] : given)
    if (std::find(names.begin(), names.end(), key) == names.end()) {
      std::string near = nearest(key, names);
      // A wrong name often means a missing one; both are said.
      Status missing = check(ordered);
      return bad("The model has no input \"" + key + "\"; " +
                 (near.empty() ? "its inputs are " + join(names, ", ") + "." : "did you mean \"" + near + "\"?") +
                 (missing.message().starts_with("Missing") ? " " + missing.message() : ""));
    }
  return ordered;
}

Status Deployment::Impl::check(std::span<const Data> given) const {
  if (given.size() != inputs.size())
    return bad("The model has " + std::to_string(inputs.size()) + " inputs; " + std::to_string(given.size()) +
               " are given.");
  std::string missing;
  for (size_t i = 0; i < inputs.size(); ++i)
    if (given[i].empty() && !inputs[i].optional)
      missing += (missing.empty() ? "" : ", ") + inputs[i].name + " " + inputs[i].type;
  if (!missing.empty()) return bad("Missing inputs: " + missing + ".");
  struct Size {
    const std::string *symbol, *input;
    int64_t value;
  };
  std::vector<Size> sizes;
  for (size_t n = 0; n < inputs.size(); ++n) {
    const Port& p = inputs[n];
    if (!p.is_tensor || given[n].empty()) continue;
    if (!given[n].is_tensor()) return bad("Input \"" + p.name + "\" must be a tensor.");
    const Tensor& t = given[n].tensor();
    if (p.dtype != DType::undefined && t.dtype() != p.dtype)
      return bad("Input \"" + p.name + "\" is " + name(t.dtype()) + "; the model takes " + name(p.dtype) + ".");
    if (p.dims.size() == 1 && p.dims[0] == "...") continue;
    bool fits = t.shape().size() == p.shape.size();
    for (size_t i = 0; fits && i < p.shape.size(); ++i) {
      const int64_t size = t.dim(int64_t(i));
      if (p.shape[i] >= 0) {
        fits = size == p.shape[i];
        continue;
      }
      auto same = std::find_if(sizes.begin(), sizes.end(), [&](const Size& s) { return *s.symbol == p.dims[i]; });
      if (same == sizes.end())
        sizes.push_back({&p.dims[i], &p.name, size});
      else if (same->value != size)
        return bad("The size \"" + p.dims[i] + "\" is " + std::to_string(same->value) + " in input \"" + *same->input +
                   "\" and " + std::to_string(size) + " in input \"" + p.name + "\"; they must be equal.");
    }
    if (!fits)
      return bad("Input \"" + p.name + "\" has shape " + to_string(t.shape()) + "; the model takes " + p.type + ".");
  }
  return {};
}

Status Deployment::Impl::run(std::span<const Data> in, std::span<Data> out, int run_threads,
                             const volatile int32_t* cancel) {
  MemoryBudget::Scope scope(std::make_shared<MemoryBudget>(memory_limit));
  Execution x;
  uint64_t nth = runs.fetch_add(1, std::memory_order_relaxed);
  Random mixer{seed ? seed : 0x5eedULL + nth};
  x.request = {.threads = run_threads, .seed = mixer.next(), .cancel = cancel};
  x.random.state = mixer.next();
  return execute(*plan, in, {}, out, x);
}

const std::vector<Port>& Deployment::inputs() const { return impl_->inputs; }
const std::vector<Port>& Deployment::outputs() const { return impl_->outputs; }
const std::map<std::string, std::string>& Deployment::metadata() const { return impl_->metadata; }

Result<Outputs> Deployment::run(const Inputs& inputs, const RunOptions& options) const {
  auto in = AI_VMM_TAKE(impl_->in_order(inputs));
  std::vector<Data> out(impl_->outputs.size());
  for (const auto& [key, value] : options.outputs) {
    auto it = std::find_if(impl_->outputs.begin(), impl_->outputs.end(), [&](const Port& p) { return p.name == key; });
    if (it == impl_->outputs.end()) return Status(Code::invalid_argument, "The model has no output \"" + key + "\".");
    if (!value.is_tensor())
      return Status(Code::invalid_argument, "The buffer for output \"" + key + "\" must be a tensor.");
    out[size_t(it - impl_->outputs.begin())] = value;
  }
  AI_VMM_TRY(run(in, out, options.cancel));
  Outputs result;
  for (size_t k = 0; k < out.size(); ++k) result[impl_->outputs[k].name] = std::move(out[k]);
  return result;
}

Status Deployment::run(std::span<const Data> inputs, std::span<Data> outputs, const volatile int32_t* cancel) const {
  AI_VMM_TRY(impl_->check(inputs));
  if (outputs.size() != impl_->outputs.size())
    return bad("The model has " + std::to_string(impl_->outputs.size()) + " outputs; there is room for " +
               std::to_string(outputs.size()) + ".");
  for (size_t k = 0; k < outputs.size(); ++k) {
    // Devices write into a buffer by its shape alone.
    const Port& p = impl_->outputs[k];
    if (outputs[k].is_tensor() && outputs[k].tensor().dtype() != p.dtype)
      return bad("The buffer given for output \"" + p.name + "\" is " + name(outputs[k].tensor().dtype()) +
                 to_string(outputs[k].tensor().shape()) + "; the output is " + p.type + ".");
  }
  return impl_->run(inputs, outputs, impl_->threads, cancel);
}

namespace {
// Threads that wait for asynchronous runs. They only drive; kernels use the compute pool.
class Drivers {
 public:
  static Drivers& get() {
    static Drivers* d = new Drivers;  // never destroyed: a run may outlive main's statics
    return *d;
  }
  void post(std::function<void()> job) {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    if (idle_ == 0 && threads_ < 8) {
      ++threads_;
      std::thread([this] { loop(); }).detach();
    }
    ready_.notify_one();
  }

 private:
  void loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
      ++idle_;
      ready_.wait(lock, [&] { return !jobs_.empty(); });
      --idle_;
      auto job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      lock.lock();
    }
  }
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> jobs_;
  int idle_ = 0, threads_ = 0;
};
}  // namespace

std::future<Result<Outputs>> Deployment::run_async(Inputs inputs, RunOptions options) const {
  auto promise = std::make_shared<std::promise<Result<Outputs>>>();
  auto future = promise->get_future();
  Drivers::get().post([self = *this, promise, inputs = std::move(inputs), options = std::move(options)] {
    promise->set_value(self.run(inputs, options));
  });
  return future;
}

namespace {
void collect(const Plan& plan, Report& r) {
  for (const auto& step : plan.steps) {
    if (step.executable) {
      AiVmmExecutableInfo info = step.executable->info();
      r.arena_bytes += info.arena_bytes;
      r.compilations += info.compilations;
      r.weight_bytes += info.weight_bytes;
    }
    for (const auto& b : step.bodies) collect(*b.plan, r);
  }
}
}  // namespace

Report Deployment::report() const {
  Report r = impl_->report;
  r.arena_bytes = r.compilations = 0;
  collect(*impl_->plan, r);
  return r;
}
std::string Deployment::graph_text() const { return impl_->plan->graph->to_text(); }
std::string Deployment::plan_text() const { return impl_->plan->to_text(); }

std::string Report::to_json() const {
  nlohmann::ordered_json j;
  j["model"] = model;
  j["model_kind"] = model_kind;
  j["device"] = device;
  j["backend"] = backend;
  j["precision"] = precision;
  j["threads"] = threads;
  j["candidates"] = nlohmann::ordered_json::array();
  for (const Candidate& c : candidates)
    j["candidates"].push_back({{"backend", c.backend},
                               {"device", c.device},
                               {"threads", c.threads},
                               {"precision", c.precision},
                               {"median_us", c.median_us},
                               {"min_us", c.min_us},
                               {"runs", c.runs},
                               {"chosen", c.chosen},
                               {"reason", c.reason}});
  j["fallbacks"] = nlohmann::ordered_json::array();
  for (const Fallback& f : fallbacks)
    j["fallbacks"].push_back({{"node", f.node}, {"op", f.op}, {"runs_on", f.runs_on}, {"reason", f.reason}});
  j["nodes"] = nodes;
  j["regions"] = regions;
  j["load_us"] = load_us;
  j["compile_us"] = compile_us;
  j["weight_bytes"] = weight_bytes;
  j["arena_bytes"] = arena_bytes;
  j["compilations"] = compilations;
  return j.dump(2);
}

}  // namespace ai_vmm
