#include "passes/pass.hpp"

#include <algorithm>
#include <chrono>

#include "base/text.hpp"
#include "ops/op.hpp"

namespace ai_vmm {

std::span<const Pass> all_passes() { return {}; }

Result<std::vector<PassReport>> run_passes(Graph& graph, std::span<const std::string> disabled) {
  std::vector<std::string> names;
  for (const Pass& pass : all_passes()) names.push_back(pass.name);
  for (const std::string& name : disabled)
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      std::string near = nearest(name, names);
      return Status(Code::invalid_argument, "There is no pass \"" + name + "\"" +
                                                (near.empty() ? "." : "; the nearest name is \"" + near + "\"."));
    }
  std::vector<PassReport> reports;
  for (const Pass& pass : all_passes()) {
    if (std::find(disabled.begin(), disabled.end(), pass.name) != disabled.end()) continue;
    auto start = std::chrono::steady_clock::now();
    PassReport report{pass.name, 0, 0};
    report.changes = AI_VMM_TAKE(pass.run(graph));
    if (report.changes) {
      Status s = graph.verify();
      if (s.ok()) s = infer_types(graph);
      if (!s.ok()) return Status(Code::internal, s.message() + " This is a defect of pass \"" + pass.name + "\"; disable it by name.");
    }
    report.us = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start).count();
    reports.push_back(std::move(report));
  }
  return reports;
}

}  // namespace ai_vmm
