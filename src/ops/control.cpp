// Control flow: If, Loop, Scan, SequenceMap. The host runs them; here are their schemas and types.
#include "ops/control.hpp"

#include <algorithm>
#include <map>

#include "ops/all_ops.hpp"

namespace ai_vmm {

Type join_types(Infer& c, const Type& a, const Type& b) {
  using Kind = Type::Kind;
  if (a.kind == Kind::optional && b.kind != Kind::optional)
    return Type::optional(join_types(c, a.element ? *a.element : Type{}, b));
  if (b.kind == Kind::optional && a.kind != Kind::optional) return join_types(c, b, a);
  if (a.kind != b.kind || a.kind == Kind::unknown) return {};
  Type t = a;
  if (a.dtype != b.dtype) t.dtype = DType::undefined;
  if (a.element || b.element)
    t.element = a.element && b.element ? std::make_shared<Type>(join_types(c, *a.element, *b.element)) : nullptr;
  if (!b.ranked || a.dims.size() != b.dims.size()) {
    t.ranked = false;
    t.dims.clear();
  }
  for (size_t i = 0; i < t.dims.size(); ++i)
    if (!known_equal(a.dims[i], b.dims[i])) t.dims[i] = c.fresh();
  return t;
}

namespace {

// The symbols that have a value outside a body. Sizes that a body names itself get new names on the way out: inside,
// one name may stand for a different size in every round.
class Scope {
 public:
  explicit Scope(const Infer& c) {
    for (size_t k = 0; k < c.inputs(); ++k) add(c.type(k));
  }
  void add_captures(const Body& body) {
    for (ValueId v : body.graph->captures) {
      const Value& value = body.graph->value(v);
      add(value.type);
      if (value.ints)
        for (const Dim& d : *value.ints) d.collect_symbols(names_);
    }
  }
  Type escape(Infer& c, Type t) {
    for (Dim& d : t.dims) d = escape(c, d);
    if (t.element) t.element = std::make_shared<Type>(escape(c, *t.element));
    return t;
  }

 private:
  void add(const Type& t) {
    for (const Dim& d : t.dims) d.collect_symbols(names_);
    if (t.element) add(*t.element);
  }
  Dim escape(Infer& c, const Dim& d) {
    std::vector<std::string> used;
    d.collect_symbols(used);
    for (const std::string& s : used)
      if (std::find(names_.begin(), names_.end(), s) == names_.end()) {
        auto [it, fresh] = renamed_.try_emplace(d.to_string());
        if (fresh) it->second = c.fresh();
        return it->second;
      }
    return d;
  }

  std::vector<std::string> names_;
  std::map<std::string, Dim> renamed_;
};

Result<const Body*> body_of(Infer& c, std::string_view attribute, size_t formals, size_t least_outputs) {
  const Body* body = c.node.body(attribute);
  if (!body) return c.error("it lacks its body \"" + std::string(attribute) + "\".");
  if (body->graph->inputs.size() != formals)
    return c.error("its body takes " + std::to_string(body->graph->inputs.size()) + " inputs; the node gives " +
                   std::to_string(formals) + ".");
  if (body->graph->outputs.size() < least_outputs)
    return c.error("its body gives " + std::to_string(body->graph->outputs.size()) + " outputs; at least " +
                   std::to_string(least_outputs) + " are needed.");
  return body;
}

// ---------------------------------------------------------------- If

// A branch may be wrong for the shapes at hand, because it is there for others: Split into 4 where there are 5. As long
// as the other branch is right, the model is; if the wrong one is taken after all, the run says what is wrong.
Status infer_if(Infer& c) {
  std::vector<Type> types[2];
  Status faults[2];
  static constexpr const char* kBranches[] = {"then_branch", "else_branch"};
  for (int b = 0; b < 2; ++b) {
    const Body* body = AI_VMM_TAKE(body_of(c, kBranches[b], 0, c.outputs()));
    auto inner = c.infer_body(*body, {});
    if (!inner.ok()) {
      faults[b] = std::move(inner).status();
      if (faults[b].code() != Code::invalid_argument || (b == 1 && !faults[0].ok())) return std::move(faults[b]);
      continue;
    }
    Scope scope(c);
    scope.add_captures(*body);
    for (Type& t : *inner) types[b].push_back(scope.escape(c, std::move(t)));
  }
  for (int b = 0; b < 2; ++b)
    if (!faults[b].ok()) types[b] = types[1 - b];
  const Tensor* condition = c.constant(0);
  for (size_t k = 0; k < c.outputs(); ++k) {
    if (condition && condition->count() == 1 && condition->dtype() == DType::boolean)
      c.set(k, *static_cast<const uint8_t*>(condition->data()) ? types[0][k] : types[1][k]);
    else
      c.set(k, join_types(c, types[0][k], types[1][k]));
  }
  return {};
}

// ---------------------------------------------------------------- values carried from round to round

constexpr int kRounds = 4;      // of widening, before all that still changes loses its rank
constexpr int kProbeDepth = 3;  // of nested bodies; deeper ones, where probing would multiply, are widened at once

thread_local int probe_depth = 0;
struct DepthGuard {
  DepthGuard() { ++probe_depth; }
  ~DepthGuard() { --probe_depth; }
};

void forget_shape(Type& t) {
  t.ranked = false;
  t.dims.clear();
  if (t.element) {
    Type e = *t.element;
    forget_shape(e);
    t.element = std::make_shared<Type>(std::move(e));
  }
}

// Makes `formal` admit `next` as well; `varying` marks sizes that are already free. True when it had to change.
bool widen(Infer& c, Type& formal, const Type& next, std::vector<bool>& varying, bool element) {
  bool changed = false;
  if (formal.dtype == DType::undefined && formal.kind == next.kind && next.dtype != DType::undefined) {
    formal.dtype = next.dtype;
    changed = true;
  }
  if (formal.element) {
    Type e = *formal.element;
    std::vector<bool> none(e.dims.size(), false);
    bool inner = next.element ? widen(c, e, *next.element, none, true) : (e.ranked ? forget_shape(e), true : false);
    if (inner) formal.element = std::make_shared<Type>(std::move(e));
    return changed || inner;
  }
  if (!formal.ranked) return changed;
  if (!next.ranked || next.dims.size() != formal.dims.size()) {
    forget_shape(formal);
    return true;
  }
  for (size_t i = 0; i < formal.dims.size(); ++i) {
    // A symbol in the type of a sequence's element stands for any size.
    bool free = varying[i] || (element && !formal.dims[i].is_constant());
    if (free || known_equal(formal.dims[i], next.dims[i])) continue;
    formal.dims[i] = c.fresh();
    varying[i] = true;
    changed = true;
  }
  return changed;
}

// Types of the body's outputs once the `count` formals from `first` on admit what the outputs from `first_out` on feed
// back into them. `formals` become those types.
Result<std::vector<Type>> infer_rounds(Infer& c, const Body& body, std::vector<Type>& formals, size_t first,
                                       size_t count, size_t first_out) {
  DepthGuard guard;
  std::vector<std::vector<bool>> varying;
  for (size_t i = 0; i < count; ++i) varying.emplace_back(formals[first + i].dims.size(), false);
  bool settled = count == 0;
  for (int round = 0; !settled && round < kRounds && probe_depth <= kProbeDepth; ++round) {
    Body probe = body;
    probe.graph = std::make_shared<Graph>(body.graph->clone());
    auto outputs = AI_VMM_TAKE(c.infer_body(probe, formals));
    settled = true;
    for (size_t i = 0; i < count; ++i)
      settled &= !widen(c, formals[first + i], outputs[first_out + i], varying[i], false);
  }
  if (!settled)
    for (size_t i = 0; i < count; ++i) forget_shape(formals[first + i]);
  return c.infer_body(body, formals);
}

// ---------------------------------------------------------------- Loop

bool is_true(const Tensor* t) {
  return t && t->dtype() == DType::boolean && t->count() == 1 && *static_cast<const uint8_t*>(t->data());
}

// The body's condition output can only be true: a constant, or the condition it was given.
bool always_goes_on(const Graph& g) {
  ValueId v = g.outputs[0];
  auto producers = g.producers();
  for (size_t hops = 0; hops <= g.nodes.size(); ++hops) {
    if (v == g.inputs[1] || is_true(&g.value(v).constant)) return true;
    int p = producers[size_t(v)];
    if (p < 0 || g.nodes[size_t(p)].op != "Identity" || !g.nodes[size_t(p)].has_input(0)) return false;
    v = g.nodes[size_t(p)].inputs[0];
  }
  return false;
}

Status infer_loop(Infer& c) {
  const Body* given = c.node.body("body");
  if (!given || given->graph->inputs.size() < 2)
    return c.error("its body must take the iteration number, the condition and the carried values.");
  size_t states = given->graph->inputs.size() - 2;
  if (c.inputs() > states + 2)
    return c.error("it carries " + std::to_string(c.inputs() - 2) + " values; its body takes " +
                   std::to_string(states) + ".");
  const Body& body = *AI_VMM_TAKE(body_of(c, "body", states + 2, states + 1));
  size_t scans = body.graph->outputs.size() - 1 - states;
  if (c.outputs() > states + scans)
    return c.error("it has " + std::to_string(c.outputs()) + " outputs; its body gives " +
                   std::to_string(states + scans) + ".");

  std::vector<Type> formals{Type::tensor(DType::i64, {}), Type::tensor(DType::boolean, {})};
  for (size_t i = 0; i < states; ++i) formals.push_back(c.type(i + 2));
  auto outputs = AI_VMM_TAKE(infer_rounds(c, body, formals, 2, states, 1));

  Scope scope(c);
  scope.add_captures(body);
  for (size_t i = 0; i < states; ++i)  // a loop of no rounds gives the initial value
    c.set(i, scope.escape(c, join_types(c, c.type(i + 2), outputs[1 + i])));
  Dim trips = c.fresh();
  if (auto m = c.ints(0); m && m->size() == 1 && (!c.has(1) || is_true(c.constant(1))) && always_goes_on(*body.graph))
    trips = max(Dim(0), m->front());
  for (size_t i = 0; i < scans; ++i) {
    Type t = scope.escape(c, outputs[1 + states + i]);
    if (t.ranked) t.dims.insert(t.dims.begin(), trips);
    c.set(states + i, std::move(t));
  }
  return {};
}

// ---------------------------------------------------------------- Scan

Status infer_scan(Infer& c) {
  int64_t given = c.node.i("num_scan_inputs");
  if (given < 1 || given > int64_t(c.inputs()))
    return c.error("num_scan_inputs is " + std::to_string(given) + " of " + std::to_string(c.inputs()) + " inputs.");
  size_t scanned = size_t(given), states = c.inputs() - scanned;
  const Body& body = *AI_VMM_TAKE(body_of(c, "body", c.inputs(), states));
  size_t scans = body.graph->outputs.size() - states;
  if (c.outputs() > states + scans)
    return c.error("it has " + std::to_string(c.outputs()) + " outputs; its body gives " +
                   std::to_string(states + scans) + ".");
  auto in_axes = c.node.ints("scan_input_axes", std::vector<int64_t>(scanned, 0)),
       out_axes = c.node.ints("scan_output_axes", std::vector<int64_t>(scans, 0));
  if (in_axes.size() != scanned || out_axes.size() != scans)
    return c.error("scan_input_axes or scan_output_axes has the wrong length.");

  std::vector<Type> formals;
  for (size_t i = 0; i < states; ++i) formals.push_back(c.type(i));
  std::optional<Dim> length;
  for (size_t i = 0; i < scanned; ++i) {
    Type t = c.type(states + i);
    if (t.ranked) {
      int64_t axis = AI_VMM_TAKE(c.axis(in_axes[i], t.rank()));
      const Dim& d = t.dims[size_t(axis)];
      if (length && length->is_constant() && d.is_constant() && *length != d)
        return c.error("the scanned inputs differ in length: " + length->to_string() + " and " + d.to_string() + ".");
      if (!length || d.is_constant()) length = d;
      t.dims.erase(t.dims.begin() + axis);
    }
    formals.push_back(std::move(t));
  }
  auto outputs = AI_VMM_TAKE(infer_rounds(c, body, formals, 0, states, 0));

  Scope scope(c);
  scope.add_captures(body);
  for (size_t i = 0; i < states; ++i) c.set(i, scope.escape(c, join_types(c, c.type(i), outputs[i])));
  Dim rounds = length ? *length : c.fresh();
  for (size_t i = 0; i < scans; ++i) {
    Type t = scope.escape(c, outputs[states + i]);
    if (t.ranked) {
      int64_t axis = AI_VMM_TAKE(c.axis(out_axes[i], t.rank() + 1));
      t.dims.insert(t.dims.begin() + axis, rounds);
    }
    c.set(states + i, std::move(t));
  }
  return {};
}

// ---------------------------------------------------------------- SequenceMap

Status infer_sequence_map(Infer& c) {
  const Body& body = *AI_VMM_TAKE(body_of(c, "body", c.inputs(), c.outputs()));
  std::vector<Type> formals;
  for (size_t k = 0; k < c.inputs(); ++k) {
    Type t = c.type(k);
    if (t.kind == Type::Kind::sequence) {
      t = t.element ? Type(*t.element) : Type{};
      for (Dim& d : t.dims)
        if (!d.is_constant()) d = c.fresh();
    }
    formals.push_back(std::move(t));
  }
  auto outputs = AI_VMM_TAKE(c.infer_body(body, formals));
  Scope scope(c);
  scope.add_captures(body);
  for (size_t k = 0; k < c.outputs(); ++k) c.set(k, Type::sequence(scope.escape(c, outputs[k])));
  return {};
}

const OpDef kOps[] = {
    {"If", "", 25, "cond:bool -> outputs:any*", "then_branch:graph!, else_branch:graph!",
     "The outputs of one of two bodies, as the condition says.", kControlFlow, infer_if, nullptr, nullptr},
    {"Loop", "", 25, "M:i64?, cond:bool?, v_initial:any?* -> outputs:any*", "body:graph!",
     "Runs the body with the round's number, the condition and the carried values, at most M times and while the "
     "condition holds. Gives the carried values after the last round, "
     "and of each further output of the body the values of all rounds, stacked along a new first axis.",
     kControlFlow, infer_loop, nullptr, nullptr},
    {"Scan", "", 25, "inputs:tensor* -> outputs:tensor*",
     "body:graph!, num_scan_inputs:int!, scan_input_axes:ints, scan_input_directions:ints, scan_output_axes:ints, "
     "scan_output_directions:ints",
     "Runs the body for each slice of the scanned inputs with values carried from round to round; gives those after "
     "the last round and, stacked along an axis, what each round made.",
     kControlFlow, infer_scan, nullptr, nullptr},
    {"SequenceMap", "", 17, "input_sequence:S, additional_inputs:V?* -> out_sequence:S* | S: seq, V: any",
     "body:graph!",
     "Runs the body for each element of the sequence (together with the elements of further sequences, and with "
     "tensors as they are) and collects the results.",
     kControlFlow, infer_sequence_map, nullptr, nullptr},
};

}  // namespace

std::span<const OpDef> control_ops() { return kOps; }

}  // namespace ai_vmm
