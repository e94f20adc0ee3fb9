#include "passes/pass.hpp"

#include <algorithm>
#include <chrono>

#include "base/text.hpp"
#include "ops/op.hpp"
#include "passes/list.hpp"

namespace ai_vmm {

namespace {

constexpr Pass kPasses[] = {
    {"known_sizes", "Integer values whose elements shape inference knows become constants.", known_sizes},
    {"fold_constants", "Nodes whose inputs are all constant are computed now.", fold_constants},
    {"constant_branches", "An If with a constant condition is replaced by its branch.", constant_branches},
    {"simplify", "Nodes that give back their input go, pairs of transposes and reshapes become one.", simplify},
    {"merge_duplicates", "Nodes that compute the same are computed once.", merge_duplicates},
    {"fold_into_weights",
     "Per-channel arithmetic after convolutions and matrix products goes into their weights, padding into their pads.",
     fold_into_weights},
    {"recognise_composites",
     "LayerNormalization, RMSNormalization, Gelu, Swish, HardSwish and Mish that were written out become one node.",
     recognise_composites},
    {"dead_code", "Nodes, optional outputs, captures and values that nobody reads go.", dead_code},
};

// Most graphs are done after two; a bound keeps a pair of passes that undo each other from hanging a load.
constexpr int kMaxRounds = 8;

}  // namespace

std::span<const Pass> all_passes() { return kPasses; }

Result<std::vector<PassReport>> run_passes(Graph& graph, std::span<const std::string> disabled) {
  std::vector<std::string> names;
  for (const Pass& pass : kPasses) names.push_back(pass.name);
  for (const std::string& name : disabled)
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      std::string near = nearest(name, names);
      return Status(Code::invalid_argument, "There is no pass \"" + name + "\"" +
                                                (near.empty() ? ", only " + join(names, ", ") + "."
                                                              : "; the nearest name is \"" + near + "\"."));
    }
  std::vector<PassReport> reports;
  for (const Pass& pass : kPasses)
    if (std::find(disabled.begin(), disabled.end(), pass.name) == disabled.end()) reports.push_back({pass.name, 0, 0});
  bool changed = true;
  for (int round = 0; changed && round < kMaxRounds; ++round) {
    changed = false;
    auto report = reports.begin();
    for (const Pass& pass : kPasses) {
      if (report == reports.end() || report->name != pass.name) continue;
      auto start = std::chrono::steady_clock::now();
      int64_t changes = AI_VMM_TAKE(pass.run(graph));
      if (changes) {
        changed = true;
        Status s = graph.verify();
        if (s.ok()) s = infer_types(graph);
        if (!s.ok())
          return Status(Code::internal,
                        s.message() + " This is a defect of the pass \"" + pass.name + "\"; disable it by name.");
      }
      report->changes += changes;
      report->us +=
          std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start).count();
      ++report;
    }
  }
  return reports;
}

}  // namespace ai_vmm
