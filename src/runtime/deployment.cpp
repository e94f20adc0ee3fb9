#include "runtime/deployment.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <nlohmann/json.hpp>
#include <thread>

#include "ai_vmm/compute_backend.hpp"
#include "base/memory_budget.hpp"
#include "base/numbers.hpp"
#include "base/text.hpp"
#include "import/onnx.hpp"
#include "runtime/execute.hpp"
#include "runtime/state.hpp"

namespace ai_vmm {

namespace {
Status bad(std::string text) { return Status(Code::invalid_argument, std::move(text)); }

// Why `name` is none of `ports`; `kind` is "input" or "output".
Status no_such_port(const char* kind, const std::string& name, const std::vector<Port>& ports) {
  std::vector<std::string> names;
  for (const Port& p : ports) names.push_back(p.name);
  std::string near = nearest(name, names);
  return bad(std::string("The model has no ") + kind + " \"" + name + "\"; " +
             (near.empty() ? std::string("its ") + kind + "s are " + join(names, ", ") + "."
                           : "did you mean \"" + near + "\"?"));
}

Status check_present(const std::vector<Port>& ports, std::span<const Data* const> given,
                     std::span<HeldState* const> states) {
  std::string missing;
  for (size_t i = 0; i < ports.size(); ++i)
    if (given[i]->empty() && !ports[i].optional && (states.empty() || !states[i]))
      missing += (missing.empty() ? "" : ", ") + ports[i].name + " " + ports[i].type;
  return missing.empty() ? Status() : bad("Missing inputs: " + missing + ".");
}

const Port* find_port(const std::vector<Port>& ports, const std::string& name) {
  for (const Port& p : ports)
    if (p.name == name) return &p;
  return nullptr;
}
}  // namespace

Port port_of(const std::string& name, const Type& t) {
  Port p;
  p.name = name;
  p.type = t.to_string();
  p.is_tensor = t.is_tensor();
  p.optional = t.kind == Type::Kind::optional;
  p.dtype = t.dtype;
  for (const Dim& d : t.dims) {
    p.shape.push_back(d.constant().value_or(-1));
    p.dims.push_back(d.to_string());
  }
  if (t.is_tensor() && !t.ranked) p.dims = {"..."};
  return p;
}

std::vector<Port> ports_of(const Graph& graph, const std::vector<ValueId>& values) {
  std::vector<Port> ports;
  for (ValueId v : values) ports.push_back(port_of(graph.value(v).name, graph.value(v).type));
  return ports;
}

Result<Inputs> random_inputs(const std::vector<Port>& ports, const std::map<std::string, Shape>& shapes,
                             uint64_t seed) {
  Inputs inputs;
  Random random{seed};
  for (const auto& [name, shape] : shapes)
    if (!find_port(ports, name)) return no_such_port("input", name, ports);
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

void Deployment::Impl::set_interface(const Graph& graph) {
  inputs = ports_of(graph, graph.inputs);
  outputs = ports_of(graph, graph.outputs);
  metadata = graph.metadata;
  symbols_.clear();
  first_use_.clear();
  for (const Port& p : inputs) {
    auto& numbers = symbols_.emplace_back(p.shape.size(), -1);
    for (size_t i = 0; i < p.shape.size(); ++i) {
      if (p.shape[i] >= 0) continue;
      auto known =
          std::find_if(first_use_.begin(), first_use_.end(), [&](auto& use) { return use.first == p.dims[i]; });
      numbers[i] = int(known - first_use_.begin());
      if (known == first_use_.end()) first_use_.emplace_back(p.dims[i], p.name);
    }
  }
}

Status Deployment::Impl::find(const Inputs& given, Outputs& wanted, Call& call) const {
  static const Data kAbsent;
  size_t used = 0;
  for (const Port& p : inputs) {
    auto it = given.find(p.name);
    used += it != given.end();
    call.inputs.push_back(it == given.end() ? &kAbsent : &it->second);
  }
  if (used != given.size())
    for (const auto& [key, value] : given)
      if (!find_port(inputs, key)) {
        // A wrong name often means a missing one; both are said.
        Status unknown = no_such_port("input", key, inputs), missing = check_present(inputs, call.inputs, call.states);
        return missing.ok() ? std::move(unknown) : bad(unknown.message() + " " + missing.message());
      }
  for (const Port& p : outputs) call.outputs.push_back(&wanted.try_emplace(p.name).first->second);
  if (wanted.size() != outputs.size())
    for (const auto& [key, value] : wanted)
      if (!find_port(outputs, key)) return no_such_port("output", key, outputs);
  return {};
}

Status Deployment::Impl::check(Call& call) const {
  AI_VMM_TRY(check_present(inputs, call.inputs, call.states));
  call.sizes.assign(first_use_.size(), -1);
  for (size_t k = 0; k < inputs.size(); ++k) {
    const Port& p = inputs[k];
    const Data& given = *call.inputs[k];
    const PagedState* state = call.states.empty() || !call.states[k] ? nullptr : &call.states[k]->rows();
    if (!p.is_tensor || (given.empty() && !state)) continue;
    if (!state && !given.is_tensor()) return bad("Input \"" + p.name + "\" must be a tensor.");
    const DType dtype = state ? state->dtype() : given.tensor().dtype();
    const Shape rows = state ? state->shape() : Shape();
    const Shape& shape = state ? rows : given.tensor().shape();
    if (p.dtype != DType::undefined && dtype != p.dtype)
      return bad("Input \"" + p.name + "\" is " + name(dtype) + "; the model takes " + name(p.dtype) + ".");
    if (p.dims.size() == 1 && p.dims[0] == "...") {
      call.sizes.push_back(int64_t(shape.size()));
      call.sizes.insert(call.sizes.end(), shape.begin(), shape.end());
      continue;
    }
    bool fits = shape.size() == p.shape.size();
    for (size_t i = 0; fits && i < p.shape.size(); ++i) {
      const int64_t size = shape[i];
      if (p.shape[i] >= 0) {
        fits = size == p.shape[i];
        continue;
      }
      auto symbol = size_t(symbols_[k][i]);
      int64_t& known = call.sizes[symbol];
      if (known < 0) known = size;
      if (known != size)
        return bad("The size \"" + p.dims[i] + "\" is " + std::to_string(known) + " in input \"" +
                   first_use_[symbol].second + "\" and " + std::to_string(size) + " in input \"" + p.name +
                   "\"; they must be equal.");
    }
    if (!fits)
      return bad("Input \"" + p.name + "\" has shape " + to_string(shape) + "; the model takes " + p.type + ".");
  }
  for (size_t k = 0; k < outputs.size(); ++k) {
    const Data& buffer = *call.outputs[k];
    if (buffer.empty()) continue;
    if (!buffer.is_tensor()) return bad("The buffer for output \"" + outputs[k].name + "\" must be a tensor.");
    const Tensor& t = buffer.tensor();
    if (t.dtype() != outputs[k].dtype)  // devices write into a buffer by its shape alone
      return bad("The buffer given for output \"" + outputs[k].name + "\" is " + name(t.dtype()) +
                 to_string(t.shape()) + "; the output is " + outputs[k].type + ".");
  }
  return {};
}

std::unique_ptr<Deployment::Impl::Call> Deployment::Impl::begin() {
  auto call = calls_.take();
  if (!call) call = std::make_unique<Call>();
  call->inputs.clear();
  call->outputs.clear();
  call->states.clear();
  return call;
}

Status Deployment::Impl::run(const Inputs& given, Outputs& wanted, int run_threads, const volatile int32_t* cancel,
                             const std::map<std::string, HeldState*>& states) {
  auto call = begin();
  if (!states.empty())
    for (const Port& p : inputs) {
      auto it = states.find(p.name);
      call->states.push_back(it == states.end() ? nullptr : it->second);
    }
  Status found = find(given, wanted, *call);
  return run(std::move(call), std::move(found), run_threads, cancel);
}

Status Deployment::Impl::run(std::span<const Data> given, std::span<Data> wanted, int run_threads,
                             const volatile int32_t* cancel) {
  auto count = [](size_t is, size_t should, const char* what) {
    return bad("The model has " + std::to_string(should) + " " + what + "s; " + std::to_string(is) + " are given.");
  };
  if (given.size() != inputs.size()) return count(given.size(), inputs.size(), "input");
  if (wanted.size() != outputs.size()) return count(wanted.size(), outputs.size(), "output");
  auto call = begin();
  for (const Data& d : given) call->inputs.push_back(&d);
  for (Data& d : wanted) call->outputs.push_back(&d);
  return run(std::move(call), {}, run_threads, cancel);
}

Status Deployment::Impl::run(std::unique_ptr<Call> call, Status status, int run_threads,
                             const volatile int32_t* cancel) {
  if (status.ok()) status = check(*call);
  // Other sizes than before may read weights again, to choose and prepare kernels for them.
  if (status.ok() && call->sizes != call->last_sizes) {
    status = verify_files(*plan->graph);
    call->last_sizes = call->sizes;
  }
  if (!call->budget) call->budget = std::make_shared<MemoryBudget>(memory_limit);
  if (status.ok()) {
    MemoryBudget::Scope scope(call->budget);
    Execution x;
    uint64_t nth = runs.fetch_add(1, std::memory_order_relaxed);
    Random mixer{seed ? seed : 0x5eedULL + nth};
    AiVmmRunInfo info = backend::make<AiVmmRunInfo>();
    x.request = {
        .threads = run_threads, .seed = mixer.next(), .cancel = cancel, .info = &info, .transfers = &transfers};
    const uint64_t state = mixer.next();
    auto attempt = [&](const Plan& on) {
      info = backend::make<AiVmmRunInfo>();
      x.random.state = state;
      return execute(on, call->inputs, {}, call->outputs, x, call->states);
    };
    status = failover ? failover->run(cancel, attempt) : attempt(*plan);
    if (simulated && status.ok() && info.device_ns > 0) {
      ++simulated_runs;
      simulated_ns += int64_t(info.device_ns);
      simulated_nanojoules += int64_t(info.joules * 1e9);
    }
  }
  // Tensors that outlive the run, such as its outputs, stay charged to its budget; the next one has its own.
  if (call->budget.use_count() > 1) call->budget = std::make_shared<MemoryBudget>(memory_limit);
  calls_.give(std::move(call));
  return status;
}

Result<std::shared_ptr<Deployment::Impl>> Deployment::Impl::variant(const Inputs& given) {
  std::vector<std::string> overridden;
  for (const Port& p : overridable)
    if (given.count(p.name)) overridden.push_back(p.name);
  if (overridden.empty()) return std::shared_ptr<Impl>();
  std::lock_guard lock(variants_mutex);
  auto at = std::ranges::find(variants, overridden, [](auto& v) { return v.first; });
  if (at == variants.end()) {
    auto compiled = recompile(overridden);
    if (!compiled.ok())
      return std::move(compiled).status().during("the compiling with " + join(overridden, ", ") + " as inputs");
    if (variants.size() == kVariants) variants.pop_back();
    at = variants.emplace(variants.end(), std::move(overridden), *std::move(compiled));
  }
  std::rotate(variants.begin(), at, at + 1);
  return variants.front().second;
}

const std::vector<Port>& Deployment::inputs() const { return impl_->inputs; }
const std::vector<Port>& Deployment::outputs() const { return impl_->outputs; }
const std::vector<Port>& Deployment::overridable() const { return impl_->overridable; }
const std::map<std::string, std::string>& Deployment::metadata() const { return impl_->metadata; }

namespace {
// Appends what the run made beyond each state's rows: to all states, or to none.
Status append_rows(const std::map<std::string, StateUse>& uses, const std::map<std::string, HeldState*>& states,
                   const Outputs& outputs) {
  std::vector<std::pair<HeldState*, int64_t>> grown;
  for (const auto& [input, use] : uses) {
    if (use.output.empty()) continue;
    HeldState& held = *states.at(input);
    const int64_t rows = held.rows().rows();
    const Data& made = outputs.at(use.output);
    Status done = made.is_tensor() ? held.append(made.tensor(), rows) : bad("The output is no tensor.");
    if (!done.ok()) {
      for (auto [state, was] : grown) AI_VMM_TRY(state->truncate(was));
      return std::move(done).during("appending output \"" + use.output + "\" to the state for \"" + input + "\"");
    }
    grown.emplace_back(&held, rows);
  }
  return {};
}
}  // namespace

Result<Outputs> Deployment::run(const Inputs& inputs, const RunOptions& options) const {
  std::shared_ptr<Impl> variant = AI_VMM_TAKE(impl_->variant(inputs));
  Impl* impl = variant ? variant.get() : impl_.get();
  Outputs outputs = options.outputs;
  std::vector<std::unique_lock<std::mutex>> locks;
  std::map<std::string, HeldState*> states;
  for (const auto& [input, use] : options.states) {
    if (!find_port(impl->inputs, input)) return no_such_port("input", input, impl->inputs);
    if (inputs.count(input)) return bad("Input \"" + input + "\" is given as a tensor and as a state.");
    if (!use.output.empty() && !find_port(impl->outputs, use.output))
      return no_such_port("output", use.output, impl->outputs);
    locks.emplace_back(use.state.impl_->mutex, std::try_to_lock);
    if (!locks.back())
      return Status(Code::failed_precondition,
                    "The state for input \"" + input + "\" is in use, by another run or by another input of this one.");
    states[input] = &use.state.impl_->held;
  }
  AI_VMM_TRY(impl->run(inputs, outputs, impl_->threads, options.cancel, states));
  AI_VMM_TRY(append_rows(options.states, states, outputs));
  for (const auto& [input, use] : options.states) outputs.erase(use.output);
  return outputs;
}

Result<State> Deployment::make_state(const std::string& input, int64_t capacity,
                                     const std::map<std::string, int64_t>& sizes) const {
  const Port* p = find_port(impl_->inputs, input);
  if (!p) return no_such_port("input", input, impl_->inputs);
  Shape dims = p->shape;
  std::vector<size_t> open;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] >= 0) continue;
    if (auto size = sizes.find(p->dims[i]); size != sizes.end())
      dims[i] = size->second;
    else
      open.push_back(i);
  }
  if (!p->is_tensor || open.size() != 1)
    return bad("Input \"" + input + "\" is " + p->type + ", of which " + std::to_string(open.size()) +
               " sizes are open; a state grows along the only one. Give the others, or make it with State::make.");
  dims[open[0]] = capacity;
  return State::make(p->dtype, std::move(dims), int64_t(open[0]));
}

Status Deployment::run(std::span<const Data> inputs, std::span<Data> outputs, const volatile int32_t* cancel) const {
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
void collect(const Transfers& transfers, Report& r) {
  for (const Transfer& t : transfers.rows())
    r.transfers.push_back({t.from, t.to, name(t.why), t.times, t.copied, t.shared, t.ahead});
}
}  // namespace

Report Deployment::report() const {
  Report r = impl_->report;
  r.arena_bytes = r.compilations = 0;
  auto now = impl_->failover ? impl_->failover->plan() : nullptr;
  collect(now ? *now : *impl_->plan, r);
  if (impl_->failover) impl_->failover->add_to(r);
  r.simulated_runs = impl_->simulated_runs;
  r.simulated_us = double(impl_->simulated_ns) / 1e3;
  r.simulated_joules = double(impl_->simulated_nanojoules) * 1e-9;
  collect(impl_->transfers, r);
  std::lock_guard lock(impl_->variants_mutex);
  for (const auto& [names, variant] : impl_->variants) {
    collect(*variant->plan, r);
    collect(variant->transfers, r);
  }
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
                               {"simulated", c.simulated},
                               {"reason", c.reason}});
  j["fallbacks"] = nlohmann::ordered_json::array();
  for (const Fallback& f : fallbacks)
    j["fallbacks"].push_back({{"node", f.node}, {"op", f.op}, {"runs_on", f.runs_on}, {"reason", f.reason}});
  j["failovers"] = nlohmann::ordered_json::array();
  for (const Failover& f : failovers)
    j["failovers"].push_back(
        {{"from", f.from}, {"to", f.to}, {"state", f.state}, {"reason", f.reason}, {"requests", f.requests}});
  if (simulated_runs)
    j["simulated"] = {{"runs", simulated_runs},
                      {"us_per_run", simulated_us / double(simulated_runs)},
                      {"joules_per_run", simulated_joules / double(simulated_runs)}};
  j["transfers"] = nlohmann::ordered_json::array();
  for (const Transfer& t : transfers)
    j["transfers"].push_back({{"from", t.from},
                              {"to", t.to},
                              {"why", t.why},
                              {"times", t.times},
                              {"copied_bytes", t.copied},
                              {"shared_bytes", t.shared},
                              {"ahead_bytes", t.ahead}});
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
