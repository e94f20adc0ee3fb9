// The host's plan: a flat list of steps over numbered slots. Made once per graph; immutable; shared by all runs.
// Within a region the backend has a plan and an arena of its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/pool.hpp"
#include "graph/graph.hpp"
#include "hal/device.hpp"
#include "ops/op.hpp"
#include "place/placement.hpp"

namespace ai_vmm {

class Frame;  // plan/frame.hpp

struct Plan {
  Plan();
  ~Plan();

  enum class Kind : uint8_t { region, host, if_, loop, scan, sequence_map };
  struct SubPlan {
    std::shared_ptr<const Plan> plan;
    std::vector<int> captures;  // slots of this plan, in the order of the body's captures
  };
  struct Step {
    Kind kind = Kind::host;
    const Node* node = nullptr;              // of a host or control-flow step; lives in `graph`
    std::shared_ptr<Executable> executable;  // of a region
    std::vector<int> inputs, outputs;        // slots; -1 absent
    std::vector<SubPlan> bodies;             // If: then, else; others: body
    std::vector<int> release;                // slots that nothing reads after this step
  };

  std::shared_ptr<const Graph> graph;
  std::vector<ValueId> values;  // slot → value of `graph`; only values that a step, a body or the caller touches
  std::vector<int> inputs, captures, outputs;
  std::vector<std::pair<int, Data>> constants;  // those that a host step, a body or the caller reads
  std::vector<Step> steps;
  mutable Pool<Frame> frames;  // of runs that have ended

  const Value& value(int slot) const { return graph->value(values[size_t(slot)]); }
  std::string to_text() const;
};

// What planning found out, for the report.
struct PlanFacts {
  int64_t nodes = 0, regions = 0;
  struct Note {
    std::string node, op, runs_on, reason;
  };
  std::vector<Note> fallbacks;  // nodes not on a native kernel of the first device, bodies included
};

// Places a graph and its bodies on the devices (the preferred first), compiles the regions and lays out the steps.
Result<std::shared_ptr<const Plan>> make_plan(std::shared_ptr<const Graph> graph,
                                              std::span<const std::shared_ptr<Device>> devices,
                                              const CompileOptions& options, PlanFacts& facts);

}  // namespace ai_vmm
