// Graph → Program: lowering to what kernels compute, fusion, one flat list of steps over slots.
#include <algorithm>
#include <cstring>
#include <set>
#include <unordered_map>

#include "gpu/lower.hpp"
#include "gpu/program.hpp"
#include "kit/prepare.hpp"
#include "ops/op.hpp"

namespace ai_vmm::gpu {

namespace {

class Lower {
 public:
  Lower(Graph& graph, Program& program) : g_(graph), p_(program) {}

  Status run() {
    make_slots();
    AI_VMM_TRY(make_steps(fuse(g_, p_.driver->traits())));
    share_storage();
    return {};
  }

 private:
  int expr(const Dim& d) {
    auto [it, fresh] = expr_ids_.emplace(d.to_string(), int(p_.exprs.size()));
    if (fresh) p_.exprs.push_back(d);
    return it->second;
  }

  void make_slots() {
    p_.slots.resize(g_.values.size());
    for (size_t i = 0; i < g_.values.size(); ++i) {
      const Value& v = g_.values[i];
      Slot& s = p_.slots[i];
      s.name = v.name;
      s.dtype = v.type.dtype;
      s.root = int(i);
      for (const Dim& d : v.type.dims) s.dims.push_back(expr(d));
      if (v.ints)
        for (const Dim& d : *v.ints) s.ints.push_back(expr(d));
      if (v.constant) {
        s.kind = Slot::Kind::constant;
        s.constant = v.constant;
      }
    }
    for (size_t k = 0; k < g_.inputs.size(); ++k) {
      Slot& s = p_.slots[size_t(g_.inputs[k])];
      s.kind = Slot::Kind::input;
      s.index = int(k);
    }
    p_.inputs.assign(g_.inputs.begin(), g_.inputs.end());
    p_.outputs.assign(g_.outputs.begin(), g_.outputs.end());
    for (const Node& n : g_.nodes)
      for (ValueId v : n.outputs)
        if (v != kAbsent && known_integers(g_, v)) p_.slots[size_t(v)].kind = Slot::Kind::ints;
  }

  // Steps that only make known integers, or that nothing reads, are dropped.
  std::vector<char> needed(const std::vector<Group>& groups) {
    std::vector<char> live(p_.slots.size(), 0), needed(groups.size(), 0);
    for (int v : p_.outputs) live[size_t(v)] = 1;
    for (size_t i = groups.size(); i-- > 0;) {
      for (ValueId v : groups[i].node.outputs)
        if (v != kAbsent && live[size_t(v)] && p_.slots[size_t(v)].kind == Slot::Kind::unused) needed[i] = 1;
      if (!needed[i]) continue;
      for (ValueId v : groups[i].node.inputs)
        if (v != kAbsent) live[size_t(v)] = 1;
    }
    return needed;
  }

  Status make_steps(const std::vector<Group>& groups) {
    auto wanted = needed(groups);
    std::string missing;
    for (size_t i = 0; i < groups.size(); ++i) {
      if (!wanted[i]) continue;
      const Group& group = groups[i];
      const Node& n = group.node;
      if (shares_storage(n)) {
        Slot &in = p_.slots[size_t(n.inputs[0])], &out = p_.slots[size_t(n.outputs[0])];
        out.root = n.inputs[0];
        out.kind = in.kind == Slot::Kind::unused ? Slot::Kind::arena : in.kind;
        continue;
      }
      Make make{g_, n, p_.driver->traits(), group.epilogue, group.expression};
      Made made = make_kernel(make);
      if (!made.bind) {
        missing += "\n  " + n.label() + ": " + (made.refusal ? made.refusal : "refused") + ".";
        continue;
      }
      Step step;
      step.op = group.expression ? "Elementwise" : n.op;
      step.label = n.label();
      step.bind = std::move(made.bind);
      step.values = made.values;
      step.in.assign(n.inputs.begin(), n.inputs.end());
      step.out.assign(n.outputs.begin(), n.outputs.end());
      for (int v : step.out)
        if (v >= 0) p_.slots[size_t(v)].kind = Slot::Kind::arena;
      p_.steps.push_back(std::move(step));
    }
    if (!missing.empty()) return Status(Code::unimplemented, "These nodes cannot run on the device:" + missing);
    return {};
  }

  void share_storage() {
    auto& slots = p_.slots;
    auto root = [&](int v) {
      while (slots[size_t(v)].root != v) v = slots[size_t(v)].root;
      return v;
    };
    for (size_t i = 0; i < slots.size(); ++i) slots[i].root = root(int(i));
    for (size_t i = 0; i < slots.size(); ++i) slots[size_t(slots[i].root)].members.push_back(int(i));
    p_.output_copy.assign(p_.outputs.size(), 1);
    for (size_t k = 0; k < p_.outputs.size(); ++k) {
      Slot& r = slots[size_t(slots[size_t(p_.outputs[k])].root)];
      if (r.kind != Slot::Kind::arena) continue;
      r.kind = Slot::Kind::output;
      r.index = int(k);
      p_.output_copy[k] = 0;
    }
    for (size_t s = 0; s < p_.steps.size(); ++s)
      for (const auto* list : {&p_.steps[s].in, &p_.steps[s].out})
        for (int v : *list)
          if (v >= 0) {
            Slot& r = slots[size_t(slots[size_t(v)].root)];
            if (r.first < 0) r.first = int(s);
            r.last = int(s);
          }
    for (int v : p_.outputs) slots[size_t(slots[size_t(v)].root)].last = int(p_.steps.size());
  }

  Graph& g_;
  Program& p_;
  std::unordered_map<std::string, int> expr_ids_;
};

}  // namespace

Result<MemoryRef> Program::packed(const std::string& key, int64_t bytes,
                                  const std::function<void(void*)>& write) const {
  std::lock_guard lock(mutex_);
  if (auto it = packed_.find(key); it != packed_.end()) return it->second;
  MemoryRef memory = AI_VMM_TAKE(driver->allocate(bytes));
  std::vector<std::byte> data(static_cast<size_t>(bytes));
  write(data.data());
  auto queue = AI_VMM_TAKE(driver->queue());
  AI_VMM_TRY(queue->write(*memory, data.data(), bytes));
  AI_VMM_TRY(queue->finish());
  weight_bytes_ += bytes;
  packed_[key] = memory;
  return memory;
}

Result<MemoryRef> Program::constant(int value) const {
  const Tensor& t = slots[size_t(value)].constant;
  const std::string key = "constant " + std::to_string(value);
  if (!driver->traits().host_memory || t.bytes() < 4096)
    return packed(key, std::max<int64_t>(t.bytes(), 1),
                  [&](void* to) { std::memcpy(to, t.data(), size_t(t.bytes())); });
  std::lock_guard lock(mutex_);
  if (auto it = packed_.find(key); it != packed_.end()) return it->second;
  MemoryRef memory = AI_VMM_TAKE(driver->wrap(const_cast<void*>(t.data()), t.bytes()));
  packed_[key] = memory;
  return memory;
}

std::string Program::to_text() const {
  std::string s;
  for (size_t i = 0; i < steps.size(); ++i) {
    s += std::to_string(i) + " " + steps[i].op + " " + steps[i].label + ":";
    for (const auto* list : {&steps[i].in, &steps[i].out}) {
      if (list == &steps[i].out) s += " ->";
      for (int v : *list) {
        if (v < 0) {
          s += " -";
          continue;
        }
        const Slot& slot = slots[size_t(v)];
        s += " %" + std::to_string(v) + ":" + ai_vmm::name(slot.dtype) + "[";
        for (size_t d = 0; d < slot.dims.size(); ++d) s += (d ? "," : "") + exprs[size_t(slot.dims[d])].to_string();
        s += "]";
      }
    }
    s += "\n";
  }
  return s;
}

Result<std::shared_ptr<const Program>> Program::compile(Graph region, std::shared_ptr<Driver> driver,
                                                        const Options& options) {
  auto program = std::make_shared<Program>();
  program->driver = std::move(driver);
  program->options = options;
  program->name = region.name;
  AI_VMM_TRY(prepare(region, "gpu"));
  AI_VMM_TRY(lower(region));
  AI_VMM_TRY(Lower(region, *program).run());
  return std::shared_ptr<const Program>(program);
}

std::vector<NodeVerdict> query(const Graph& graph, const Traits& traits) {
  std::vector<NodeVerdict> verdicts;
  std::set<std::string> symbols;
  auto see = [&](ValueId v) {
    std::vector<std::string> s;
    for (const Dim& d : graph.value(v).type.dims) d.collect_symbols(s);
    symbols.insert(s.begin(), s.end());
  };
  for (ValueId v : graph.inputs) see(v);
  for (const Node& n : graph.nodes) {
    // A size that nothing before the node has shown comes from the elements of a tensor.
    bool dynamic = false, host = false;
    for (ValueId v : n.outputs) {
      if (v == kAbsent) continue;
      const Type& t = graph.value(v).type;
      host |= !t.is_tensor() || t.dtype == DType::string;
      dynamic |= !t.ranked;
      std::vector<std::string> s;
      for (const Dim& d : t.dims) d.collect_symbols(s);
      for (const std::string& x : s) dynamic |= symbols.count(x) == 0;
      see(v);
    }
    for (ValueId v : n.inputs)
      host |= v != kAbsent && (!graph.value(v).type.is_tensor() || graph.value(v).type.dtype == DType::string);
    if (host) {
      verdicts.push_back({AI_VMM_REFUSED_HOST_ONLY, "strings, sequences, optionals and maps are run by the host"});
    } else if (dynamic) {
      verdicts.push_back({AI_VMM_REFUSED_DYNAMIC, "a size is known only when the node runs"});
    } else if (shares_storage(n)) {
      bool held = element(graph.value(n.outputs[0]).type.dtype).name != nullptr;
      verdicts.push_back(held ? NodeVerdict{AI_VMM_SUPPORTED, nullptr}
                              : NodeVerdict{AI_VMM_REFUSED_DTYPE, "no kernel for this element type"});
    } else {
      bool folded = !n.outputs.empty();
      for (ValueId v : n.outputs) folded &= v != kAbsent && known_integers(graph, v);
      if (folded) {
        verdicts.push_back({AI_VMM_SUPPORTED, nullptr});
        continue;
      }
      NodeVerdict verdict{AI_VMM_SUPPORTED, nullptr};
      auto judge = [&](const Graph& g, const Node& part) {
        if (verdict.reason != AI_VMM_SUPPORTED || shares_storage(part)) return;
        Made made = make_kernel(Make{g, part, traits, nullptr, nullptr});
        verdict = {made.reason, made.refusal};
      };
      if (auto parts = lowered(graph, n))
        for (const Node& part : parts->nodes) judge(*parts, part);
      else
        judge(graph, n);
      verdicts.push_back(verdict);
    }
  }
  return verdicts;
}

}  // namespace ai_vmm::gpu
