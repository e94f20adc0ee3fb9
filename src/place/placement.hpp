// Placement: every node → a device, or the host; nodes that run together form a region.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ai_vmm/types.hpp"
#include "graph/graph.hpp"
#include "hal/device.hpp"

namespace ai_vmm {

inline constexpr int kHost = -1;

struct Region {
  int device = kHost;      // index into the device list
  std::vector<int> nodes;  // ascending; a host region has exactly one
};

struct PlacedNode {
  int device = kHost;
  AiVmmReason reason = AI_VMM_SUPPORTED;  // of the device it runs on
  std::string refusals;                   // of the devices before it in the list: "cpu: operator not implemented"
};

struct Placement {
  std::vector<PlacedNode> nodes;
  std::vector<Region> regions;  // in an order in which every region's inputs exist
  std::string to_text(const Graph& graph, std::span<const std::shared_ptr<Device>> devices) const;
};

// Gives each node to the first device of the list that takes it. Control flow, strings, sequences and optionals stay
// on the host. Fails with one sentence that lists every node that no device takes.
Result<Placement> place(const Graph& graph, std::span<const std::shared_ptr<Device>> devices);

// Regions of nodes that were given devices (kHost: each node a region of its own), in topological order.
// The stage of a node is the greatest over its inputs of the producer's stage, plus one where the producer runs
// elsewhere. Nodes of equal device and stage form a region: an edge never lowers the stage and raises it when the
// device changes, so regions are convex and their order by stage is topological.
std::vector<Region> make_regions(const Graph& graph, std::span<const int> device);

// The region as a graph of its own: inputs are what it reads from outside, outputs what others read or the graph gives.
// `inputs` and `outputs` receive the outer values in the same order. Sizes that only the outside could explain become
// symbols of the region.
Result<Graph> extract(const Graph& graph, const Region& region, std::vector<ValueId>& inputs,
                      std::vector<ValueId>& outputs);

}  // namespace ai_vmm
