// Chains of elementwise operators of equal size become one program: one pass over memory.
#include <unordered_map>

#include "backends/cpu/elementwise.hpp"
#include "backends/cpu/rewrite.hpp"

namespace ai_vmm::cpu {

namespace {

constexpr size_t kMaxInputs = 16, kMaxCode = 40;

// Input `k` of `second`, made by `first`, is computed in place.
BlockProgram join(const BlockProgram& first, const BlockProgram& second, ValueId through) {
  BlockProgram p;
  p.inputs = first.inputs;
  for (ValueId v : second.inputs)
    if (v != through && std::find(p.inputs.begin(), p.inputs.end(), v) == p.inputs.end()) p.inputs.push_back(v);
  int n = int(p.inputs.size()), n1 = int(first.inputs.size()), n2 = int(second.inputs.size());
  auto first_operand = [&](int k) { return k < n1 ? k : k - n1 + n; };
  auto second_operand = [&](int k) {
    if (k < 0) return -1;
    if (k >= n2) return k - n2 + n + int(first.code.size());
    ValueId v = second.inputs[size_t(k)];
    if (v == through) return n + first.results[0];
    return int(std::find(p.inputs.begin(), p.inputs.end(), v) - p.inputs.begin());
  };
  for (Instruction i : first.code) {
    i.a = i.a < 0 ? -1 : first_operand(i.a);
    i.b = i.b < 0 ? -1 : first_operand(i.b);
    i.c = i.c < 0 ? -1 : first_operand(i.c);
    p.code.push_back(i);
  }
  for (Instruction i : second.code) {
    i.a = second_operand(i.a);
    i.b = second_operand(i.b);
    i.c = second_operand(i.c);
    p.code.push_back(i);
  }
  for (int k : second.results) p.results.push_back(k + int(first.code.size()));
  return p;
}

}  // namespace

Status fuse_elementwise(Lowering& l) {
  Graph& g = l.graph;
  Rewriter r(g);
  std::vector<std::optional<BlockProgram>> programs;
  for (const Node& n : g.nodes) {
    bool ranked = true;
    for (ValueId v : n.outputs) ranked &= v != kAbsent && r.type(v).ranked;
    // Shape arithmetic on a few integers is left alone: most of it is known before the run.
    if (ranked && n.outputs.size() == 1 && g.value(n.outputs[0]).ints) ranked = false;
    programs.push_back(ranked && n.outputs.size() == 1 ? block_program(g, n) : std::nullopt);
  }
  // Each node takes in those of its operands that nobody else reads.
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    if (!programs[i]) continue;
    for (bool again = true; again;) {
      again = false;
      for (ValueId v : programs[i]->inputs) {
        int from = r.producer[size_t(v)];
        if (from < 0 || !programs[size_t(from)] || g.is_constant(v) || !r.same_dims(v, g.nodes[i].outputs[0])) continue;
        int readers = 0;
        for (ValueId w : g.nodes[i].inputs) readers += w == v;
        if (r.uses[size_t(v)] != readers) continue;
        const BlockProgram& first = *programs[size_t(from)];
        if (first.inputs.size() + programs[i]->inputs.size() > kMaxInputs ||
            first.code.size() + programs[i]->code.size() > kMaxCode)
          continue;
        programs[i] = join(first, *programs[i], v);
        std::string name = g.nodes[i].name;
        g.nodes[i] = program_node(*programs[i], g.nodes[i].outputs);
        g.nodes[i].name = name;
        Rewriter::kill(g.nodes[size_t(from)]);
        programs[size_t(from)].reset();
        r.refresh();
        again = true;
        break;
      }
    }
  }
  r.sweep();
  return {};
}

}  // namespace ai_vmm::cpu
