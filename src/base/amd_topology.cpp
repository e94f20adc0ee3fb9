#include "base/amd_topology.hpp"

#include <cstdio>
#include <map>

#include "base/text.hpp"

namespace ai_vmm {

// One folder a node with a file of "key value" lines. Processors are nodes too, without vector units.
std::vector<AmdNode> amd_nodes(const Tree& tree) {
  const std::string folder = "/sys/class/kfd/kfd/topology/nodes";
  std::vector<AmdNode> nodes;
  for (const std::string& n : tree.names(folder)) {
    std::map<std::string, int64_t> p;
    const std::string properties = tree.text(folder + "/" + n + "/properties").value_or("");
    for (std::string_view line : split(properties, '\n')) {
      size_t space = line.find(' ');
      if (space == line.npos) continue;
      if (auto value = parse_number(trim(line.substr(space)))) p[std::string(line.substr(0, space))] = *value;
    }
    if (p["simd_count"] <= 0 || !p.count("location_id")) continue;
    int64_t place = p["location_id"];
    auto pci = PciAddress::of(p["domain"], place >> 8, (place >> 3) & 31, place & 7);
    if (!pci) continue;
    AmdNode node{*pci, ""};
    if (int64_t v = p["gfx_target_version"]; v > 0 && v < 1000000) {  // 90010 is gfx90a
      char text[32];
      std::snprintf(text, sizeof text, "gfx%d%x%x", int(v / 10000), unsigned(v / 100 % 100), unsigned(v % 100));
      node.architecture = text;
    }
    nodes.push_back(std::move(node));
  }
  return nodes;
}

}  // namespace ai_vmm
