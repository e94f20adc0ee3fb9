#include "compile.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <thread>

#include "analysis/analyse.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "base/memory_budget.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "import/onnx.hpp"
#include "passes/pass.hpp"
#include "plan/plan.hpp"
#include "runtime/choose.hpp"
#include "runtime/deployment.hpp"

namespace ai_vmm {

namespace {

int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Files are the same when they were opened under the same names and hold the same bytes.
Status check_same_files(const Graph& before, const Graph& now) {
  bool same = before.files.size() == now.files.size();
  for (size_t i = 0; same && i < now.files.size(); ++i)
    same = before.files[i]->path() == now.files[i]->path() && before.files[i]->hash() == now.files[i]->hash();
  if (same) return {};
  return Status(Code::data_loss, "The model's files have changed since it was loaded; deploy it again.");
}

// `before`: an earlier reading, whose files these must be; or null.
Result<Model> read_file(const std::string& path, const ImportOptions& options, const Graph* before) {
  int64_t started = now_us();
  Model m;
  m.name = path;
  m.graph = AI_VMM_TAKE(import_onnx(path, options));
  if (before) AI_VMM_TRY(check_same_files(*before, m.graph));
  m.load_us = now_us() - started;
  // What is kept of the first reading: the names and hashes of its files, and their descriptors.
  auto kept = std::make_shared<Graph>();
  kept->files = m.graph.files;
  m.reread = [path, options, kept](const std::vector<std::string>& overridden) {
    ImportOptions again = options;
    again.overridden = overridden;
    return read_file(path, again, kept.get());
  };
  return m;
}

Result<Model> read_bytes(std::shared_ptr<const std::vector<std::byte>> bytes, const ImportOptions& options) {
  int64_t started = now_us();
  Model m;
  m.name = "(bytes)";
  m.graph = AI_VMM_TAKE(import_onnx(*bytes, options));
  m.load_us = now_us() - started;
  m.reread = [bytes, options](const std::vector<std::string>& overridden) {
    ImportOptions again = options;
    again.overridden = overridden;
    return read_bytes(bytes, again);
  };
  return m;
}

}  // namespace

Result<Model> load(const std::string& path, const DeployOptions& options) {
  return read_file(path, {.copy_weights = *options.copy_weights, .allow_links = *options.allow_links}, nullptr);
}

Result<Model> load(std::span<const std::byte> bytes, const DeployOptions&) {
  return read_bytes(std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end()), {});
}

namespace {

// bytes ──import──▶ Graph ──passes──▶ Graph ──place, plan──▶ Plan ──measure──▶ Deployment
// The plan of a graph on one device, which the reference stands behind.
Result<FailoverChain::Made> plan_on(const std::shared_ptr<const Graph>& graph, const std::string& name,
                                    const DeployOptions& options) {
  AI_VMM_TRY(verify_files(*graph));
  MemoryBudget::Scope scope(std::make_shared<MemoryBudget>(options.memory_limit));
  std::vector<std::shared_ptr<Device>> devices{AI_VMM_TAKE(Device::open(name))};
  if (name != "reference" && *options.allow_reference) devices.push_back(AI_VMM_TAKE(Device::open("reference")));
  PlanFacts facts;
  auto plan = AI_VMM_TAKE(make_plan(
      graph, devices,
      {.threads = options.threads, .deterministic = *options.deterministic, .memory_limit = options.memory_limit},
      facts));
  return FailoverChain::Made{std::move(plan), devices[0]->name()};
}

// Where requests go when the device fails: the setting's devices but for the one at hand.
std::vector<std::string> failover_devices(const DeployOptions& options, const std::string& at_hand) {
  std::vector<std::string> names;
  auto add = [&](const std::string& name) {
    if (name.empty() || name == at_hand || (name == "reference" && !*options.allow_reference)) return;
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  for (std::string_view name : split(options.failover, ',')) {
    if (trim(name) == "none") continue;
    if (trim(name) != "auto")
      add(std::string(trim(name)));
    else
      for (const std::string& automatic : automatic_backend_names()) add(automatic);
  }
  return names;
}

Result<std::shared_ptr<Deployment::Impl>> compile_on(Model model, const DeployOptions& options, bool measure) {
  int64_t started = now_us();
  Graph graph = std::move(model.graph);
  if (options.precision != Precision::model && options.precision != Precision::f32 &&
      options.precision != Precision::automatic)
    return Status(Code::unimplemented,
                  "Only the model's own precision and f32 are available; leave --precision out or give f32 or auto.");

  auto d = std::make_shared<Deployment::Impl>();
  d->memory_limit = options.memory_limit;
  d->seed = options.seed;
  MemoryBudget::Scope scope(std::make_shared<MemoryBudget>(d->memory_limit));

  for (const auto& [name, type] : graph.overridable) d->overridable.push_back(port_of(name, type));
  d->report.model_kind = ai_vmm::name(recognise(graph).kind);
  auto passes = run_passes(graph, options.disabled_passes);
  if (!passes.ok()) return std::move(passes).status();
  d->set_interface(graph);

  // The devices that may take nodes, the preferred first. The reference stands behind every other one.
  std::vector<std::string> names =
      options.backend.empty() ? automatic_backend_names() : std::vector<std::string>{options.backend};
  if (!options.backend.empty() && options.backend != "reference" && *options.allow_reference)
    names.emplace_back("reference");
  if (!*options.allow_reference && options.backend.empty()) std::erase(names, "reference");
  std::vector<std::shared_ptr<Device>> devices;
  for (const std::string& n : names) {
    auto device = AI_VMM_TAKE(Device::open(n));
    devices.push_back(std::move(device));
  }

  CompileOptions compile_options{
      .threads = options.threads, .deterministic = *options.deterministic, .memory_limit = d->memory_limit};
  PlanFacts facts;
  d->plan = AI_VMM_TAKE(make_plan(std::make_shared<const Graph>(std::move(graph)), devices, compile_options, facts));

  Report& r = d->report;
  r.model = model.name;
  d->simulated = devices[0]->simulated();
  r.backend = devices[0]->backend();
  r.device = devices[0]->name();
  r.precision = "f32";
  r.nodes = facts.nodes;
  r.regions = facts.regions;
  for (auto& f : facts.fallbacks) r.fallbacks.push_back({f.node, f.op, f.runs_on, f.reason});
  r.load_us = model.load_us;

  const int all = options.threads > 0 ? options.threads : available_threads();
  d->threads = r.threads = all;
  if (measure) {
    std::vector<int> counts{all};
    if (options.threads == 0 && all > 1) counts.push_back(1);
    choose_threads(*d, counts, options.shapes, options.tune_budget_ms);
    d->transfers.clear();  // those of the measuring
    for (size_t i = 1; i < devices.size() && options.backend.empty(); ++i) {
      Candidate c;
      c.backend = devices[i]->backend();
      c.device = devices[i]->name();
      c.precision = "f32";
      c.reason = "not measured: the oracle and the fallback of last resort, never a competitor";
      r.candidates.push_back(std::move(c));
    }
  } else {
    Candidate c;
    c.backend = r.backend;
    c.device = r.device;
    c.threads = all;
    c.precision = r.precision;
    c.chosen = true;
    c.simulated = d->simulated;
    c.reason = options.backend.empty() ? "deterministic: nothing is chosen by measurement" : "named by the caller";
    r.candidates.push_back(std::move(c));
  }
  std::vector<std::string> chain = failover_devices(options, names[0]);
  chain.insert(chain.begin(), names[0]);
  d->failover = std::make_unique<FailoverChain>(
      std::move(chain), FailoverChain::Made{d->plan, r.device},
      [graph = d->plan->graph, options](const std::string& name) { return plan_on(graph, name, options); });
  if (*options.standby) AI_VMM_TRY(d->failover->warm_next());
  r.compile_us = now_us() - started;
  d->recompile = [reread = std::move(model.reread), options, backend = names[0], threads = d->threads](
                     const std::vector<std::string>& overridden) -> Result<std::shared_ptr<Deployment::Impl>> {
    DeployOptions same = options;
    same.backend = backend;
    same.threads = threads;
    return compile(AI_VMM_TAKE(reread(overridden)), same);
  };
  return d;
}

Candidate& chosen(Deployment::Impl& d) {
  return *std::ranges::find_if(d.report.candidates, [](const Candidate& c) { return c.chosen; });
}

// The fastest of several backends. Each is compiled and measured alone, after a pause in which the threads of the one
// before fall asleep; one that cannot take the model is a candidate with that reason.
Result<std::shared_ptr<Deployment::Impl>> compile_fastest(Model model, const std::vector<std::string>& backends,
                                                          DeployOptions options) {
  constexpr auto kPause = std::chrono::milliseconds(20);
  options.failover = options.backend + "," + options.failover;  // those that lose stand behind the one that wins
  int64_t started = now_us();
  auto reread = model.reread;
  std::optional<Model> first = std::move(model);
  std::shared_ptr<Deployment::Impl> best;
  std::vector<Candidate> lost;
  Status failure;
  auto keep = [&](Deployment::Impl& d) {
    for (Candidate& c : d.report.candidates) lost.push_back(std::move(c));
  };
  for (const std::string& name : backends) {
    options.backend = name;
    std::this_thread::sleep_for(kPause);
    auto d = compile_on(first ? *std::exchange(first, std::nullopt) : AI_VMM_TAKE(reread({})), options, true);
    if (!d.ok()) {
      Candidate c;
      c.backend = name;
      c.precision = "f32";
      c.reason = "not usable: " + d.status().message();
      lost.push_back(std::move(c));
      failure = std::move(d).status();
      continue;
    }
    double us = chosen(**d).median_us, least = best ? chosen(*best).median_us : 0;
    bool better = !best || (us > 0 && (least == 0 || us < least));
    if (best) keep(better ? *best : **d);
    if (better) best = *std::move(d);
  }
  if (!best) return failure;
  Report& r = best->report;
  double least = chosen(*best).median_us;
  for (Candidate& c : lost) {
    if (c.chosen && c.median_us > 0) {
      char ratio[48];
      std::snprintf(ratio, sizeof ratio, "slower: %.2f x the chosen one", c.median_us / least);
      c.reason = ratio;
    }
    c.chosen = false;
    r.candidates.push_back(std::move(c));
  }
  r.compile_us = now_us() - started;
  return best;
}

}  // namespace

Result<std::shared_ptr<Deployment::Impl>> compile(Model model, const DeployOptions& options) {
  std::vector<std::string> backends;
  for (std::string_view name : split(options.backend, ',')) backends.emplace_back(trim(name));
  if (backends.size() > 1 && *options.deterministic)
    return Status(Code::invalid_argument, "Backends \"" + options.backend +
                                              "\" are chosen among by measurement, which a deterministic deployment "
                                              "does not allow; name one.");
  auto reread = model.reread;
  auto d = backends.size() > 1
               ? compile_fastest(std::move(model), backends, options)
               : compile_on(std::move(model), options, options.backend.empty() && !*options.deterministic);
  if (!d.ok() && d.status().device_state() != DeviceState::ok && backends.size() == 1 && !options.backend.empty()) {
    // The device itself failed, while the model was compiled for it: the next one takes it.
    Report::Failover move{options.backend, "", name(d.status().device_state()), d.status().message(), 0};
    for (const std::string& next : failover_devices(options, options.backend)) {
      DeployOptions there = options;
      there.backend = next;
      auto other = compile_on(AI_VMM_TAKE(reread({})), there, false);
      if (!other.ok()) continue;
      move.to = next;
      chosen(**other).reason = "the device asked for, " + options.backend + ", failed: " + move.reason;
      (*other)->report.failovers.push_back(move);
      d = std::move(other);
      break;
    }
  }
  if (!d.ok()) return d;
  const Candidate& c = chosen(**d);
  log(LogLevel::info,
      (*d)->report.model + " runs on " + c.backend + " with " + std::to_string(c.threads) + " threads: " + c.reason);
  return d;
}

}  // namespace ai_vmm
