// Graph → Program: lowering to what kernels compute, fusion, one flat list of steps over slots.
#include <algorithm>
#include <cstring>
#include <set>
#include <unordered_map>

#include "gpu/decompose.hpp"
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
        if (v != kAbsent && known_integers(g_, g_.inputs, v)) p_.slots[size_t(v)].kind = Slot::Kind::ints;
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

void Program::drop(const std::string& key) const {
  std::lock_guard lock(mutex_);
  auto it = packed_.find(key);
  if (it == packed_.end()) return;
  weight_bytes_ -= it->second->bytes;
  packed_.erase(it);
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

namespace {

bool symbols_within(const Type& t, const std::set<std::string>& known) {
  std::vector<std::string> used;
  for (const Dim& d : t.dims) d.collect_symbols(used);
  return t.ranked && std::all_of(used.begin(), used.end(), [&](const auto& s) { return known.count(s) > 0; });
}
void add_symbols(const Type& t, std::set<std::string>& to) {
  std::vector<std::string> s;
  for (const Dim& d : t.dims) d.collect_symbols(s);
  to.insert(s.begin(), s.end());
}

// A rank or a size follows neither from the graph nor from what its inputs show as symbols.
bool open_ended(const Graph& g) {
  std::set<std::string> plain;
  for (ValueId v : g.inputs)
    for (const Dim& d : g.value(v).type.dims)
      if (d.is_symbol()) plain.insert(d.to_string());
  auto closed = [&](ValueId v) { return v == kAbsent || symbols_within(g.value(v).type, plain); };
  return !std::all_of(g.inputs.begin(), g.inputs.end(), closed) ||
         !std::all_of(g.nodes.begin(), g.nodes.end(),
                      [&](const Node& n) { return std::all_of(n.outputs.begin(), n.outputs.end(), closed); });
}

}  // namespace

Result<std::shared_ptr<const Program>> Program::settled(std::span<const Tensor> inputs) const {
  if (inputs.size() != open->inputs.size())
    return invalid("The region takes " + std::to_string(open->inputs.size()) + " inputs; the call has " +
                   std::to_string(inputs.size()) + ".");
  std::string key;
  for (const Tensor& t : inputs) key += ai_vmm::to_string(t.shape());
  std::lock_guard lock(mutex_);
  if (auto it = settled_.find(key); it != settled_.end()) return it->second;
  Graph g = open->clone();
  std::unordered_map<std::string, int64_t> symbols;
  for (size_t k = 0; k < inputs.size(); ++k) {
    const Type& t = g.value(g.inputs[k]).type;
    const Shape& shape = inputs[k].shape();
    for (size_t d = 0; d < t.dims.size() && t.dims.size() == shape.size(); ++d)
      if (t.dims[d].is_symbol()) symbols[t.dims[d].to_string()] = shape[d];
  }
  auto number = [&](std::string_view name) -> std::optional<Dim> {
    auto it = symbols.find(std::string(name));
    return it == symbols.end() ? std::nullopt : std::optional(Dim(it->second));
  };
  for (Value& v : g.values)
    if (!v.constant) v.type = Type::tensor(v.type.dtype);
  for (size_t k = 0; k < inputs.size(); ++k) {
    Value& v = g.value(g.inputs[k]);
    v.type.ranked = true;
    v.type.dims = to_dims(inputs[k].shape());
    if (v.ints)
      for (Dim& d : *v.ints) d = d.substitute(number);
  }
  for (const Node& n : g.nodes)
    for (ValueId v : n.outputs)
      if (v != kAbsent) g.value(v).ints.reset();
  AI_VMM_TRY(infer_types(g));
  auto program = AI_VMM_TAKE(compile(std::move(g), driver, options));
  if (program->open) return invalid("Sizes inside the region do not follow from the shapes " + key + ".");
  constexpr size_t kMostSettled = 16;
  if (settled_.size() >= kMostSettled) settled_.clear();
  settled_[key] = program;
  return program;
}

Result<std::shared_ptr<const Program>> Program::compile(Graph region, std::shared_ptr<Driver> driver,
                                                        const Options& options) {
  auto program = std::make_shared<Program>();
  program->driver = std::move(driver);
  program->options = options;
  program->name = region.name;
  AI_VMM_TRY(prepare(region, "gpu"));
  if (open_ended(region)) {
    program->open = std::make_shared<const Graph>(std::move(region));
    return std::shared_ptr<const Program>(program);
  }
  if (decompose(region)) AI_VMM_TRY(prepare(region, "gpu"));  // weights lose their zero points once
  AI_VMM_TRY(lower(region, program->driver->traits()));
  AI_VMM_TRY(Lower(region, *program).run());
  return std::shared_ptr<const Program>(program);
}

namespace {

// `inputs`: the values whose sizes are known when the node runs.
NodeVerdict judge(const Graph& graph, std::span<const ValueId> inputs, const Node& node, const Traits& traits) {
  if (shares_storage(node))
    return element(graph.value(node.outputs[0]).type.dtype).name
               ? NodeVerdict{AI_VMM_SUPPORTED, nullptr}
               : NodeVerdict{AI_VMM_REFUSED_DTYPE, "no kernel for this element type"};
  auto alone = [&](const Graph& g, const Node& n) {
    Made made = make_kernel(Make{g, n, traits, nullptr, nullptr});
    for (size_t k = 0; made.bind && k < n.inputs.size(); ++k)
      if (made.values >> k & 1 && n.has_input(k) && !g.is_constant(n.inputs[k]) &&
          !known_integers(g, inputs, n.inputs[k]))
        return NodeVerdict{AI_VMM_REFUSED_DYNAMIC, "elements of an input must be known before the run"};
    return NodeVerdict{made.reason, made.refusal};
  };
  auto parts = lowered(graph, node, traits);
  if (!parts) return alone(graph, node);
  for (const Node& part : parts->nodes)
    if (!shares_storage(part))
      if (NodeVerdict v = alone(*parts, part); v.reason != AI_VMM_SUPPORTED) return v;
  return {AI_VMM_SUPPORTED, nullptr};
}

// A node of inputs of unknown rank or size: would it run once they are known? Tried with every rank; sizes of outputs
// must follow from those of inputs.
NodeVerdict judge_open(const Graph& graph, const Node& node, const Traits& traits) {
  const NodeVerdict refused{AI_VMM_REFUSED_DYNAMIC, "a size is known only when the node runs"};
  constexpr int kMostRank = 6;
  if (!node.def || !node.bodies.empty()) return refused;
  bool fits = false;
  for (int rank = 0; rank <= kMostRank; ++rank) {
    Graph g;
    Node n = node;
    std::set<std::string> known;
    int symbols = 0;
    for (ValueId& v : n.inputs) {
      if (v == kAbsent) continue;
      const Value& value = graph.value(v);
      if (value.constant) {
        v = g.add_constant("", value.constant);
        continue;
      }
      std::vector<Dim> dims(size_t(value.type.ranked ? value.type.rank() : rank));
      for (Dim& d : dims) d = Dim::symbol("size" + std::to_string(symbols++));
      if (value.type.ranked)
        for (size_t d = 0; d < dims.size(); ++d)
          if (value.type.dims[d].is_constant()) dims[d] = value.type.dims[d];
      v = g.add_value("", Type::tensor(value.type.dtype, dims));
      g.inputs.push_back(v);
      add_symbols(g.value(v).type, known);
    }
    for (ValueId& v : n.outputs)
      if (v != kAbsent) v = g.add_value("", Type::tensor(graph.value(v).type.dtype));
    g.outputs = n.outputs;
    g.nodes.push_back(std::move(n));
    if (!infer_types(g).ok()) continue;
    const Node& tried = g.nodes[0];
    fits = true;
    bool integers = true;
    for (ValueId v : tried.outputs) {
      if (v == kAbsent) continue;
      if (!symbols_within(g.value(v).type, known)) return refused;
      integers &= known_integers(g, g.inputs, v);
    }
    if (integers) continue;
    if (NodeVerdict v = judge(g, g.inputs, tried, traits); v.reason != AI_VMM_SUPPORTED) return v;
  }
  return fits ? NodeVerdict{AI_VMM_SUPPORTED, nullptr} : refused;
}

}  // namespace

std::vector<NodeVerdict> query(const Graph& graph, const Traits& traits) {
  std::vector<NodeVerdict> verdicts;
  std::set<std::string> symbols;
  // A body also reads values of the graph around it.
  std::vector<ValueId> inputs = graph.inputs;
  std::vector<char> made(graph.values.size(), 0);
  for (ValueId v : inputs) made[size_t(v)] = 1;
  for (const Node& n : graph.nodes) {
    for (ValueId v : n.inputs)
      if (v != kAbsent && !made[size_t(v)] && !graph.is_constant(v)) {
        made[size_t(v)] = 1;
        inputs.push_back(v);
      }
    for (ValueId v : n.outputs)
      if (v != kAbsent) made[size_t(v)] = 1;
  }
  for (ValueId v : inputs) add_symbols(graph.value(v).type, symbols);
  for (const Node& n : graph.nodes) {
    // A size that nothing before the node has shown comes from the elements of a tensor, or from a rank not known.
    bool dynamic = false, host = false;
    for (ValueId v : n.inputs) {
      if (v == kAbsent) continue;
      const Type& t = graph.value(v).type;
      host |= !t.is_tensor() || t.dtype == DType::string;
      dynamic |= !t.ranked;
    }
    for (ValueId v : n.outputs) {
      if (v == kAbsent) continue;
      const Type& t = graph.value(v).type;
      host |= !t.is_tensor() || t.dtype == DType::string;
      dynamic |= !symbols_within(t, symbols);
    }
    dynamic |= n.domain.empty() && (n.op == "Shape" || n.op == "Size");  // of what is inside its region
    for (ValueId v : n.outputs)
      if (v != kAbsent) add_symbols(graph.value(v).type, symbols);
    bool folded = !n.outputs.empty();
    for (ValueId v : n.outputs) folded &= v != kAbsent && known_integers(graph, inputs, v);
    if (host)
      verdicts.push_back({AI_VMM_REFUSED_HOST_ONLY, "strings, sequences, optionals and maps are run by the host"});
    else if (folded)
      verdicts.push_back({AI_VMM_SUPPORTED, nullptr});
    else
      verdicts.push_back(dynamic ? judge_open(graph, n, traits) : judge(graph, inputs, n, traits));
  }
  return verdicts;
}

}  // namespace ai_vmm::gpu
