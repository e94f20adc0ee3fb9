#include "compile.hpp"

#include <chrono>

#include "analysis/analyse.hpp"
#include "base/log.hpp"
#include "base/memory_budget.hpp"
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

// bytes ──import──▶ Graph ──passes──▶ Graph ──place, plan──▶ Plan ──measure──▶ Deployment
Result<std::shared_ptr<Deployment::Impl>> compile(Result<Graph> imported, int64_t started, const std::string& name,
                                                  const DeployOptions& options) {
  if (!imported.ok()) return std::move(imported).status();
  Graph graph = *std::move(imported);
  int64_t loaded = now_us();
  if (options.precision != Precision::model && options.precision != Precision::f32 &&
      options.precision != Precision::automatic)
    return Status(Code::unimplemented,
                  "Only the model's own precision and f32 are available; leave --precision out or give f32 or auto.");

  auto d = std::make_shared<Deployment::Impl>();
  d->memory_limit = options.memory_limit;
  d->seed = options.seed;
  MemoryBudget::Scope scope(std::make_shared<MemoryBudget>(d->memory_limit));

  d->report.model_kind = ai_vmm::name(recognise(graph).kind);
  auto passes = run_passes(graph, options.disabled_passes);
  if (!passes.ok()) return std::move(passes).status();
  d->inputs = ports_of(graph, graph.inputs);
  d->outputs = ports_of(graph, graph.outputs);
  d->metadata = graph.metadata;

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
  r.model = name;
  r.backend = devices[0]->backend();
  r.device = devices[0]->name();
  r.precision = "f32";
  r.nodes = facts.nodes;
  r.regions = facts.regions;
  for (auto& f : facts.fallbacks) r.fallbacks.push_back({f.node, f.op, f.runs_on, f.reason});
  r.load_us = loaded - started;

  const int all = options.threads > 0 ? options.threads : available_threads();
  d->threads = r.threads = all;
  if (options.backend.empty() && !*options.deterministic) {
    std::vector<int> counts{all};
    if (options.threads == 0 && all > 1) counts.push_back(1);
    choose_threads(*d, counts, options.shapes, options.tune_budget_ms);
    for (size_t i = 1; i < devices.size(); ++i) {
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
    c.reason = options.backend.empty() ? "deterministic: nothing is chosen by measurement" : "named by the caller";
    r.candidates.push_back(std::move(c));
  }
  r.compile_us = now_us() - loaded;
  for (const Candidate& c : r.candidates)
    if (c.chosen)
      log(LogLevel::info,
          name + " runs on " + c.backend + " with " + std::to_string(c.threads) + " threads: " + c.reason);
  return d;
}

}  // namespace

Result<std::shared_ptr<Deployment::Impl>> compile(const std::string& path, const DeployOptions& options) {
  int64_t started = now_us();
  return compile(import_onnx(path, {.copy_weights = *options.copy_weights, .allow_links = *options.allow_links}),
                 started, path, options);
}

Result<std::shared_ptr<Deployment::Impl>> compile(std::span<const std::byte> model, const DeployOptions& options) {
  int64_t started = now_us();
  auto copy = std::make_shared<std::vector<std::byte>>(model.begin(), model.end());
  auto d = compile(import_onnx(*copy, {.copy_weights = true}), started, "(bytes)", options);
  return d;
}

}  // namespace ai_vmm
