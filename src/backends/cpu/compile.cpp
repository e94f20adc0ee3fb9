// Graph → Program: passes, then one flat list of steps over slots.
#include <algorithm>
#include <unordered_map>

#include "backends/cpu/onednn.hpp"
#include "backends/cpu/program_impl.hpp"
#include "base/check.hpp"
#include "kit/prepare.hpp"
#include "ops/op.hpp"

namespace ai_vmm::cpu {

namespace {

// A node that gives its input's elements in the same order: the output shares the input's storage.
bool shares_storage(const Lowering& l, const Node& n) {
  static const char* const kNames[] = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"};
  bool alias = n.domain == "cpu" && n.op == "Alias";
  if (n.outputs.size() != 1 ||
      (!alias && (!n.domain.empty() ||
                  std::none_of(std::begin(kNames), std::end(kNames), [&](const char* k) { return n.op == k; }))))
    return false;
  size_t in = size_t(n.inputs[0]), out = size_t(n.outputs[0]);
  if (l.layouts[in] != l.layouts[out]) return false;
  return l.layouts[in].block == 0 || n.op == "Identity";
}

class Lower {
 public:
  Lower(Lowering& l, Program::Impl& p) : l_(l), g_(l.graph), p_(p) {}

  Status run() {
    collect_symbols();
    make_slots();
    AI_VMM_TRY(make_steps());
    share_storage();
    make_segments();
    return {};
  }

 private:
  int expr(const Dim& d) {
    auto [it, fresh] = expr_ids_.emplace(d.to_string(), int(p_.exprs.size()));
    if (fresh) p_.exprs.push_back(d);
    return it->second;
  }
  bool known_at_start(const Dim& d) const {
    std::vector<std::string> s;
    d.collect_symbols(s);
    return std::all_of(s.begin(), s.end(), [&](const auto& x) { return from_inputs_.count(x) > 0; });
  }
  bool known(const Dim& d) const {
    std::vector<std::string> s;
    d.collect_symbols(s);
    return std::all_of(s.begin(), s.end(),
                       [&](const auto& x) { return from_inputs_.count(x) || from_steps_.count(x); });
  }
  bool known(ValueId v) const {
    const Type& t = g_.value(v).type;
    return t.ranked && std::all_of(t.dims.begin(), t.dims.end(), [&](const Dim& d) { return known(d); });
  }

  void collect_symbols() {
    for (ValueId v : g_.inputs)
      for (const Dim& d : g_.value(v).type.dims)
        if (d.is_symbol()) from_inputs_.emplace(d.to_string(), 1);
  }

  void make_slots() {
    p_.slots.resize(g_.values.size());
    for (size_t i = 0; i < g_.values.size(); ++i) {
      const Value& v = g_.values[i];
      Slot& s = p_.slots[i];
      p_.slot_names.push_back(v.name);
      s.dtype = v.type.dtype;
      s.ranked = v.type.ranked;
      s.layout = l_.layouts[i];
      s.root = int(i);
      for (const Dim& d : v.type.dims) s.dims.push_back(expr(d));
      if (v.constant) {
        s.kind = Slot::Kind::constant;
        s.constant = v.constant;
      }
    }
    for (size_t k = 0; k < g_.inputs.size(); ++k) {
      Slot& s = p_.slots[size_t(g_.inputs[k])];
      s.kind = Slot::Kind::input;
      s.index = int(k);
      p_.inputs.push_back({g_.inputs[k], g_.value(g_.inputs[k]).name});
    }
    p_.outputs.assign(g_.outputs.begin(), g_.outputs.end());
    // Small integers that follow from the inputs' sizes need no step.
    for (const Node& n : g_.nodes)
      for (ValueId v : n.outputs) {
        if (v == kAbsent || g_.is_constant(v)) continue;
        const Value& value = g_.value(v);
        if (!value.ints || (value.type.dtype != DType::i64 && value.type.dtype != DType::i32) || !value.type.ranked)
          continue;
        if (!std::all_of(value.ints->begin(), value.ints->end(), [&](const Dim& d) { return known_at_start(d); }))
          continue;
        if (!std::all_of(value.type.dims.begin(), value.type.dims.end(),
                         [&](const Dim& d) { return known_at_start(d); }))
          continue;
        Slot& s = p_.slots[size_t(v)];
        s.kind = Slot::Kind::ints;
        for (const Dim& d : *value.ints) s.ints.push_back(expr(d));
      }
    // Elements known in part (later symbols) still serve kernels that need them.
    for (size_t i = 0; i < g_.values.size(); ++i)
      if (g_.values[i].ints && p_.slots[i].ints.empty())
        for (const Dim& d : *g_.values[i].ints) p_.slots[i].ints.push_back(expr(d));
  }

  // Nodes that only make constants and known integers are dropped, and what fed only them.
  std::vector<char> needed_nodes() {
    std::vector<char> live(g_.values.size(), 0), needed(g_.nodes.size(), 0);
    for (ValueId v : g_.outputs) live[size_t(v)] = 1;
    for (size_t n = g_.nodes.size(); n-- > 0;) {
      const Node& node = g_.nodes[n];
      for (ValueId v : node.outputs)
        if (v != kAbsent && live[size_t(v)] && p_.slots[size_t(v)].kind == Slot::Kind::unused) needed[n] = 1;
      if (!needed[n]) continue;
      for (ValueId v : node.inputs)
        if (v != kAbsent) live[size_t(v)] = 1;
    }
    return needed;
  }

  Status make_steps() {
    auto needed = needed_nodes();
    std::string missing;
    for (size_t n = 0; n < g_.nodes.size(); ++n) {
      if (!needed[n]) continue;
      const Node& node = g_.nodes[n];
      bool sizes_known = true;
      for (ValueId v : node.outputs)
        if (v != kAbsent) sizes_known &= known(v);
      for (ValueId v : node.inputs)
        if (v != kAbsent) sizes_known &= known(v) || g_.is_constant(v);
      if (sizes_known && shares_storage(l_, node)) {
        Slot &in = p_.slots[size_t(node.inputs[0])], &out = p_.slots[size_t(node.outputs[0])];
        out.root = in.root;
        out.kind = in.kind == Slot::Kind::unused ? Slot::Kind::arena : in.kind;
        continue;
      }
      Step step;
      bool generic = false;
      Make make{g_, node, l_.layouts, l_.options, l_.pack, false};
      Made made = make_kernel(make, generic);
      if (!made.bind) {
        missing += "\n  " + node.label() + ": " + made.refusal + ".";
        continue;
      }
      step.kernel = generic ? "generic " + node.op : node.op;
      step.label = node.label();
      step.bind = std::move(made.bind);
      step.values = made.values;
      step.makes_outputs = made.dynamic;
      step.dynamic = made.dynamic || !sizes_known;
      for (size_t k = 0; k < node.inputs.size(); ++k)
        if (made.values >> k & 1 && node.inputs[k] != kAbsent && !g_.is_constant(node.inputs[k])) {
          const auto& ints = g_.value(node.inputs[k]).ints;
          if (!ints || !std::all_of(ints->begin(), ints->end(), [&](const Dim& d) { return known(d); }))
            step.dynamic = true;
        }
      step.sized = true;
      for (ValueId v : node.outputs)
        if (v != kAbsent) step.sized &= known(v);
      if (step.dynamic) step.node = node;
      step.in.assign(node.inputs.begin(), node.inputs.end());
      step.out.assign(node.outputs.begin(), node.outputs.end());
      for (int v : step.out)
        if (v >= 0) {
          Slot& s = p_.slots[size_t(v)];
          s.kind = step.dynamic ? Slot::Kind::own : Slot::Kind::arena;
          if (step.dynamic)
            for (const Dim& d : g_.value(v).type.dims)
              if (d.is_symbol() && !from_inputs_.count(d.to_string())) from_steps_.emplace(d.to_string(), 1);
        }
      in_place_.push_back(step.dynamic ? 0 : made.in_place);
      p_.steps.push_back(std::move(step));
    }
    if (!missing.empty()) return Status(Code::unimplemented, "The cpu backend cannot run these nodes:" + missing);
    return {};
  }

  int root(int v) const {
    while (p_.slots[size_t(v)].root != v) v = p_.slots[size_t(v)].root;
    return v;
  }

  // Which values share storage, how long storages live, and which are the caller's.
  void share_storage() {
    auto& slots = p_.slots;
    std::vector<int> last(slots.size(), -1);
    for (size_t i = 0; i < slots.size(); ++i) slots[i].root = root(int(i));
    for (size_t s = 0; s < p_.steps.size(); ++s)
      for (const auto* list : {&p_.steps[s].in, &p_.steps[s].out})
        for (int v : *list)
          if (v >= 0) last[size_t(slots[size_t(v)].root)] = int(s);
    for (int v : p_.outputs) last[size_t(slots[size_t(v)].root)] = INT32_MAX;
    for (size_t s = 0; s < p_.steps.size(); ++s) {
      const Step& step = p_.steps[s];
      if (!in_place_[s] || step.out.empty() || step.out[0] < 0) continue;
      int out = root(step.out[0]);
      for (size_t k = 0; k < step.in.size(); ++k) {
        if (!(in_place_[s] >> k & 1) || step.in[k] < 0) continue;
        int in = root(step.in[k]);
        const Slot &a = slots[size_t(step.in[k])], &b = slots[size_t(step.out[0])];
        if (slots[size_t(in)].kind != Slot::Kind::arena || last[size_t(in)] != int(s)) continue;
        if (a.dims != b.dims || a.layout != b.layout || bits(a.dtype) != bits(b.dtype)) continue;
        int readers = 0;
        for (int v : step.in) readers += v >= 0 && root(v) == in;
        if (readers != 1) continue;
        last[size_t(in)] = std::max(last[size_t(in)], last[size_t(out)]);
        slots[size_t(out)].root = in;
        break;
      }
    }
    for (size_t i = 0; i < slots.size(); ++i) slots[i].root = root(int(i));
    for (size_t i = 0; i < slots.size(); ++i) slots[size_t(slots[i].root)].members.push_back(int(i));
    // The first output of a storage made by a step is written in place; every other is copied at the end.
    p_.output_copy.assign(p_.outputs.size(), 1);
    for (size_t k = 0; k < p_.outputs.size(); ++k) {
      int v = p_.outputs[k];
      Slot& r = slots[size_t(slots[size_t(v)].root)];
      if (r.kind == Slot::Kind::arena || (r.kind == Slot::Kind::own && r.root == v && r.index < 0)) {
        if (r.kind == Slot::Kind::arena) r.kind = Slot::Kind::output;
        r.index = int(k);
        p_.output_copy[k] = 0;
      }
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

  void make_segments() {
    for (size_t s = 0; s < p_.steps.size();) {
      size_t e = s + 1;
      bool dynamic = p_.steps[s].dynamic;
      if (!dynamic)
        while (e < p_.steps.size() && !p_.steps[e].dynamic) ++e;
      p_.segments.push_back({int(s), int(e), dynamic});
      s = e;
    }
  }

  Lowering& l_;
  Graph& g_;
  Program::Impl& p_;
  std::unordered_map<std::string, int> expr_ids_;
  std::unordered_map<std::string, int> from_inputs_, from_steps_;
  std::vector<uint32_t> in_place_;
};

}  // namespace

Program::~Program() = default;
int64_t Program::weight_bytes() const { return impl_->pack->bytes(); }
int64_t Program::arena_bytes() const { return impl_->arena_bytes; }
int64_t Program::compilations() const { return impl_->compilations + onednn::compilations(); }

std::string Program::to_text() const {
  std::string s;
  for (size_t i = 0; i < impl_->steps.size(); ++i) {
    const Step& step = impl_->steps[i];
    auto list = [&](const std::vector<int>& ids) {
      for (int v : ids) {
        if (v < 0) {
          s += " -";
          continue;
        }
        const Slot& slot = impl_->slots[size_t(v)];
        s += " %" + std::to_string(v) + ":" + ai_vmm::name(slot.dtype) + "[";
        for (size_t d = 0; d < slot.dims.size(); ++d)
          s += (d ? "," : "") + impl_->exprs[size_t(slot.dims[d])].to_string();
        s += "]";
        if (slot.layout.block) s += "b" + std::to_string(slot.layout.block);
        if (slot.root != v) s += "@" + std::to_string(slot.root);
      }
    };
    s += std::to_string(i) + (step.dynamic ? "* " : " ") + step.kernel + " " + step.label + ":";
    list(step.in);
    s += " ->";
    list(step.out);
    s += "\n";
  }
  return s;
}

Result<std::shared_ptr<const Program>> Program::compile(Graph region, const Options& options) {
  std::shared_ptr<Program> program(new Program);
  program->impl_ = std::make_unique<Impl>();
  Impl& p = *program->impl_;
  p.options = options;
  p.name = region.name;
  p.pack = std::make_shared<Pack>();
  AI_VMM_TRY(prepare(region, "cpu"));
  Lowering l{std::move(region), {}, p.options, p.pack};
  AI_VMM_TRY(run_passes(l));
  AI_VMM_TRY(Lower(l, p).run());
  return std::shared_ptr<const Program>(program);
}

}  // namespace ai_vmm::cpu
