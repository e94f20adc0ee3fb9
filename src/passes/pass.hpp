// Host passes: target-independent rewrites of the Graph between import and placement. They emit standard operators
// only.
//
// `kPasses` in pass.cpp is the one ordered list. Each pass can be disabled by name, is timed, and is followed by a
// check that the graph is still well formed and, where it changed anything, by a new type inference.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ai_vmm/types.hpp"
#include "graph/graph.hpp"

namespace ai_vmm {

struct Pass {
  const char* name;
  const char* doc;                 // what it rewrites, one sentence
  Result<int64_t> (*run)(Graph&);  // the number of changes; bodies included
};
std::span<const Pass> all_passes();  // in the order they run

struct PassReport {
  std::string name;
  int64_t changes = 0;
  int64_t us = 0;
};

// Runs every pass that is not in `disabled`, round after round until none changes anything; one report a pass, over all
// rounds. An unknown name in `disabled` is invalid_argument. A pass that breaks the graph is `internal`.
Result<std::vector<PassReport>> run_passes(Graph& graph, std::span<const std::string> disabled = {});

}  // namespace ai_vmm
