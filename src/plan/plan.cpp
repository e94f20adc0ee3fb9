#include "plan/plan.hpp"

#include <algorithm>

#include "plan/frame.hpp"

namespace ai_vmm {

Plan::Plan() = default;
Plan::~Plan() = default;

namespace {
Plan::Kind kind_of(const Node& n) {
  if (!(n.def->traits & kControlFlow)) return Plan::Kind::host;
  if (n.op == "If") return Plan::Kind::if_;
  if (n.op == "Loop") return Plan::Kind::loop;
  if (n.op == "Scan") return Plan::Kind::scan;
  return Plan::Kind::sequence_map;
}

// A plan is first made with values for slots; most values live inside regions and need none.
void number_slots(Plan& plan, size_t values) {
  std::vector<int> slot(values, -1);
  auto number = [&](int& v) {
    if (v < 0) return;
    int& s = slot[size_t(v)];
    if (s < 0) {
      s = int(plan.values.size());
      plan.values.push_back(ValueId(v));
    }
    v = s;
  };
  for (auto* list : {&plan.inputs, &plan.captures, &plan.outputs})
    for (int& v : *list) number(v);
  for (auto& [v, data] : plan.constants) number(v);
  for (Plan::Step& step : plan.steps) {
    for (auto* list : {&step.inputs, &step.outputs, &step.release})
      for (int& v : *list) number(v);
    for (Plan::SubPlan& body : step.bodies)
      for (int& v : body.captures) number(v);
  }
}

}  // namespace

Result<std::shared_ptr<const Plan>> make_plan(std::shared_ptr<const Graph> graph,
                                              std::span<const std::shared_ptr<Device>> devices,
                                              const CompileOptions& options, PlanFacts& facts) {
  const Graph& g = *graph;
  auto plan = std::make_shared<Plan>();
  plan->graph = graph;
  plan->inputs.assign(g.inputs.begin(), g.inputs.end());
  plan->captures.assign(g.captures.begin(), g.captures.end());
  plan->outputs.assign(g.outputs.begin(), g.outputs.end());

  Placement placement = AI_VMM_TAKE(place(g, devices));
  facts.nodes += int64_t(g.nodes.size());
  for (size_t n = 0; n < g.nodes.size(); ++n) {
    const PlacedNode& p = placement.nodes[n];
    if (p.device == 0 && p.reason == AI_VMM_SUPPORTED) continue;
    const Node& node = g.nodes[n];
    PlanFacts::Note note{node.name, node.op, p.device == kHost ? "host" : devices[size_t(p.device)]->backend(),
                         p.refusals};
    if (p.device != kHost && p.reason == AI_VMM_SUPPORTED_GENERIC) note.runs_on = "generic";
    if (p.device == kHost)
      note.reason = node.def->traits & kControlFlow ? "control flow belongs to the host"
                                                    : "strings, sequences and optionals belong to the host";
    if (note.runs_on == "generic" && note.reason.empty()) note.reason = "no native kernel";
    facts.fallbacks.push_back(std::move(note));
  }

  std::vector<char> host_reads(g.values.size(), 0);
  for (ValueId v : g.outputs) host_reads[size_t(v)] = 1;
  for (const Region& region : placement.regions) {
    Plan::Step step;
    if (region.device == kHost) {
      const Node& node = g.nodes[size_t(region.nodes[0])];
      step.kind = kind_of(node);
      step.node = &node;
      step.inputs.assign(node.inputs.begin(), node.inputs.end());
      step.outputs.assign(node.outputs.begin(), node.outputs.end());
      for (const char* attribute : {"then_branch", "else_branch", "body"})
        if (const Body* b = node.body(attribute)) {
          Plan::SubPlan sub;
          auto made = make_plan(b->graph, devices, options, facts);
          if (!made.ok()) return std::move(made).status();
          sub.plan = *std::move(made);
          sub.captures.assign(b->captures.begin(), b->captures.end());
          for (int c : sub.captures) host_reads[size_t(c)] = 1;
          step.bodies.push_back(std::move(sub));
        }
      for (int v : step.inputs)
        if (v >= 0) host_reads[size_t(v)] = 1;
    } else {
      step.kind = Plan::Kind::region;
      std::vector<ValueId> in, out;
      auto sub = std::make_shared<Graph>();
      *sub = AI_VMM_TAKE(extract(g, region, in, out));
      if (out.empty()) continue;
      step.executable = AI_VMM_TAKE(devices[size_t(region.device)]->compile(sub, options));
      step.inputs.assign(in.begin(), in.end());
      step.outputs.assign(out.begin(), out.end());
      ++facts.regions;
    }
    plan->steps.push_back(std::move(step));
  }
  for (size_t v = 0; v < g.values.size(); ++v)
    if (g.values[v].constant && host_reads[v]) plan->constants.emplace_back(int(v), Data(g.values[v].constant));

  // Release every slot after its last reader, unless it leaves the graph or is a constant.
  std::vector<int> last(g.values.size(), -1);
  for (size_t s = 0; s < plan->steps.size(); ++s) {
    const auto& step = plan->steps[s];
    for (int v : step.inputs)
      if (v >= 0) last[size_t(v)] = int(s);
    for (const auto& b : step.bodies)
      for (int v : b.captures) last[size_t(v)] = int(s);
    for (int v : step.outputs)
      if (v >= 0) last[size_t(v)] = std::max(last[size_t(v)], int(s));
  }
  for (ValueId v : g.outputs) last[size_t(v)] = -1;
  for (size_t v = 0; v < g.values.size(); ++v)
    if (last[v] >= 0 && !g.values[v].constant) plan->steps[size_t(last[v])].release.push_back(int(v));
  number_slots(*plan, g.values.size());
  return std::shared_ptr<const Plan>(std::move(plan));
}

std::string Plan::to_text() const {
  static constexpr const char* kNames[] = {"region", "host", "if", "loop", "scan", "sequence_map"};
  std::string s;
  auto list = [&](const std::vector<int>& slots) {
    std::string t;
    for (int v : slots) t += (t.empty() ? "" : ", ") + (v < 0 ? std::string("-") : value(v).name);
    return t;
  };
  for (const Step& step : steps) {
    s += kNames[int(step.kind)];
    if (step.executable)
      s += " " + step.executable->device().backend() + " (" + std::to_string(step.executable->graph().nodes.size()) +
           " nodes)";
    else
      s += " " + step.node->op;
    s += ": " + list(step.inputs) + " -> " + list(step.outputs) + "\n";
    for (const SubPlan& b : step.bodies) {
      std::string inner = b.plan->to_text();
      for (size_t i = 0; i < inner.size();) {
        size_t end = inner.find('\n', i);
        s += "  | " + inner.substr(i, end - i) + "\n";
        i = end + 1;
      }
    }
  }
  return s;
}

}  // namespace ai_vmm
