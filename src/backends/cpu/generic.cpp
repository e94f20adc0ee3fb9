// The kernel of last resort: an operator's reference semantics.
#include <cstring>

#include "backends/cpu/program_impl.hpp"
#include "ops/op.hpp"

namespace ai_vmm::cpu {

Made make_generic(const Make& m) {
  const OpDef* def = m.node.def;
  if (!def || !def->eval || !m.node.bodies.empty()) return "control flow is run by the host";
  if (def->traits & (kHostOnly | kControlFlow)) return "sequences, strings and control flow are run by the host";
  std::vector<DType> in_types, out_types;
  for (size_t k = 0; k < m.inputs(); ++k) {
    if (m.has(k) && (!m.type(k).is_tensor() || m.dtype(k) == DType::string))
      return "strings and sequences are run by the host";
    in_types.push_back(m.dtype(k));
  }
  bool dynamic = def->traits & kDataDependent;
  for (size_t k = 0; k < m.outputs(); ++k) {
    if (m.has_out(k) && (!m.out_type(k).is_tensor() || m.out_dtype(k) == DType::string))
      return "strings and sequences are run by the host";
    out_types.push_back(m.out_dtype(k));
  }
  if (m.probe) return Made(BindFn([](const Bind&) -> Result<Bound> { return Bound{}; }));
  auto node = std::make_shared<Node>(m.node);
  Made made(BindFn([node, in_types, out_types](const Bind& b) -> Result<Bound> {
    std::vector<Shape> in(in_types.size()), out(out_types.size());
    std::vector<char> known(out_types.size(), 0);
    for (size_t k = 0; k < in.size(); ++k)
      if (b.has(k)) in[k] = b.in(k);
    for (size_t k = 0; k < out.size(); ++k)
      if (b.out_shapes[k]) out[k] = b.out(k), known[k] = 1;
    return Bound{[=](Run& r) -> Status {
                   std::vector<Data> args;
                   for (size_t k = 0; k < in.size(); ++k)
                     args.push_back(r.in_ids[k] < 0 ? Data() : Data(Tensor::view(in_types[k], in[k], r.in<void>(k))));
                   Random random;
                   random.state ^= r.seed;
                   auto results = AI_VMM_TAKE(evaluate(*node, args, random));
                   for (size_t k = 0; k < out.size(); ++k) {
                     if (r.out_ids[k] < 0) continue;
                     if (k >= results.size() || !results[k].is_tensor())
                       return Status(Code::internal, node->label() + " made no output " + std::to_string(k) + ".");
                     const Tensor& t = results[k].tensor();
                     if (r.dynamic) {
                       r.set(k, t.owns_memory() ? t : AI_VMM_TAKE(t.clone()));
                       continue;
                     }
                     if (t.dtype() != out_types[k] || t.shape() != out[k])
                       return Status(Code::internal, node->label() + " made " + name(t.dtype()) +
                                                         ai_vmm::to_string(t.shape()) + " where its type rule says " +
                                                         name(out_types[k]) + ai_vmm::to_string(out[k]) + ".");
                     if (t.bytes()) std::memcpy(r.out<void>(k), t.data(), size_t(t.bytes()));
                   }
                   return {};
                 },
                 0, "reference", 0};
  }));
  return dynamic ? std::move(made).makes_outputs() : std::move(made);
}

Made make_kernel(const Make& m, bool& generic) {
  generic = false;
  const KernelEntry* entry = find_kernel(m.node.domain, m.node.op);
  Made made = entry ? entry->make(m) : Made("no kernel of its own");
  if (made.bind) return made;
  if (!m.node.def) return made;
  const char* why = made.refusal;
  generic = true;
  Made fallback = make_generic(m);
  if (fallback.bind) fallback.refusal = why;
  return fallback;
}

NodeVerdict query(const Graph& graph, const Node& node) {
  static const Options options;
  std::vector<Layout> layouts(graph.values.size());
  Make m{graph, node, layouts, options, nullptr, true};
  bool generic = false;
  for (ValueId v : node.outputs)
    if (v != kAbsent && (!graph.value(v).type.is_tensor() || graph.value(v).type.dtype == DType::undefined))
      return {Verdict::unsupported, "strings, sequences, optionals and maps are run by the host"};
  Made made = make_kernel(m, generic);
  if (!made.bind) return {Verdict::unsupported, made.refusal};
  return {generic ? Verdict::generic : Verdict::native, made.refusal};
}

}  // namespace ai_vmm::cpu
