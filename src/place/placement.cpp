#include "place/placement.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "ops/op.hpp"

namespace ai_vmm {

namespace {
bool crosses(const Graph& g, ValueId v) {
  if (v == kAbsent) return true;
  const Type& t = g.value(v).type;
  return t.is_tensor() && t.dtype != DType::string && t.dtype != DType::undefined;
}

bool host_only(const Graph& g, const Node& n) {
  if (n.def->traits & (kControlFlow | kHostOnly)) return true;
  return !std::all_of(n.inputs.begin(), n.inputs.end(), [&](ValueId v) { return crosses(g, v); }) ||
         !std::all_of(n.outputs.begin(), n.outputs.end(), [&](ValueId v) { return crosses(g, v); });
}
}  // namespace

Result<Placement> place(const Graph& g, std::span<const std::shared_ptr<Device>> devices) {
  Placement p;
  p.nodes.resize(g.nodes.size());
  std::vector<char> open(g.nodes.size(), 0);
  for (size_t n = 0; n < g.nodes.size(); ++n) open[n] = !host_only(g, g.nodes[n]);

  for (size_t d = 0; d < devices.size() && std::count(open.begin(), open.end(), 1); ++d) {
    auto verdicts = AI_VMM_TAKE(devices[d]->query(g));
    for (size_t n = 0; n < g.nodes.size(); ++n) {
      if (!open[n]) continue;
      PlacedNode& node = p.nodes[n];
      if (verdicts[n].reason == AI_VMM_SUPPORTED || verdicts[n].reason == AI_VMM_SUPPORTED_GENERIC) {
        node.device = int(d);
        node.reason = verdicts[n].reason;
        open[n] = 0;
      } else {
        if (!node.refusals.empty()) node.refusals += "; ";
        node.refusals += devices[d]->backend() + ": " + name(verdicts[n].reason);
        if (!verdicts[n].detail.empty()) node.refusals += " (" + verdicts[n].detail + ")";
      }
    }
  }
  std::string refused;
  for (size_t n = 0; n < g.nodes.size(); ++n)
    if (open[n]) refused += (refused.empty() ? "" : ", ") + g.nodes[n].label() + " [" + p.nodes[n].refusals + "]";
  if (!refused.empty())
    return Status(Code::unimplemented, "No device takes these operators: " + refused +
                                           ". Pass --allow-reference to run them slowly where the reference has them.");

  std::vector<int> device;
  for (const PlacedNode& n : p.nodes) device.push_back(n.device);
  p.regions = make_regions(g, device);
  return p;
}

std::vector<Region> make_regions(const Graph& g, std::span<const int> device) {
  auto producer = g.producers();
  std::vector<int> stage(g.nodes.size(), 0);
  std::map<std::tuple<int, int, int>, Region> regions;  // (stage, device, node for the host)
  for (size_t n = 0; n < g.nodes.size(); ++n) {
    auto depend = [&](ValueId v) {
      if (v == kAbsent || producer[size_t(v)] < 0) return;
      auto q = size_t(producer[size_t(v)]);
      bool elsewhere = device[q] != device[n] || device[n] == kHost;
      stage[n] = std::max(stage[n], stage[q] + elsewhere);
    };
    for (ValueId v : g.nodes[n].inputs) depend(v);
    for (const Body& b : g.nodes[n].bodies)
      for (ValueId v : b.captures) depend(v);
    Region& r = regions[std::tuple(stage[n], device[n], device[n] == kHost ? int(n) : -1)];
    r.device = device[n];
    r.nodes.push_back(int(n));
  }
  std::vector<Region> ordered;
  for (auto& [key, region] : regions) ordered.push_back(std::move(region));
  return ordered;
}

std::string Placement::to_text(const Graph& g, std::span<const std::shared_ptr<Device>> devices) const {
  std::string s;
  for (const Region& r : regions) {
    s += "region on " + (r.device == kHost ? std::string("host") : devices[size_t(r.device)]->backend()) + ":\n";
    for (int n : r.nodes) {
      const PlacedNode& p = nodes[size_t(n)];
      s += "  " + g.nodes[size_t(n)].label();
      if (p.reason == AI_VMM_SUPPORTED_GENERIC) s += " generic";
      if (!p.refusals.empty()) s += "  # " + p.refusals;
      s += "\n";
    }
  }
  return s;
}

Result<Graph> extract(const Graph& g, const Region& region, std::vector<ValueId>& inputs,
                      std::vector<ValueId>& outputs) {
  Graph r;
  r.name = g.name;
  r.symbols = g.symbols;
  std::vector<ValueId> to(g.values.size(), kAbsent);
  std::vector<char> made(g.values.size(), 0), inside(g.nodes.size(), 0);
  for (int n : region.nodes) {
    inside[size_t(n)] = 1;
    for (ValueId v : g.nodes[size_t(n)].outputs)
      if (v != kAbsent) made[size_t(v)] = 1;
  }
  auto map = [&](ValueId v) {
    if (v == kAbsent) return kAbsent;
    ValueId& t = to[size_t(v)];
    if (t == kAbsent) {
      t = ValueId(r.values.size());
      r.values.push_back(g.value(v));
      if (!made[size_t(v)] && !g.is_constant(v)) {
        inputs.push_back(v);
        r.inputs.push_back(t);
      }
    }
    return t;
  };
  for (int n : region.nodes) {
    Node node = g.nodes[size_t(n)];
    for (ValueId& v : node.inputs) v = map(v);
    for (ValueId& v : node.outputs) v = map(v);
    r.nodes.push_back(std::move(node));
  }
  std::vector<char> leaves(g.values.size(), 0);
  for (ValueId v : g.outputs) leaves[size_t(v)] = 1;
  for (size_t n = 0; n < g.nodes.size(); ++n) {
    if (inside[n]) continue;
    for (ValueId v : g.nodes[n].inputs)
      if (v != kAbsent) leaves[size_t(v)] = 1;
    for (const Body& b : g.nodes[n].bodies)
      for (ValueId v : b.captures) leaves[size_t(v)] = 1;
  }
  for (size_t v = 0; v < g.values.size(); ++v)
    if (made[v] && leaves[v]) {
      outputs.push_back(ValueId(v));
      r.outputs.push_back(to[v]);
    }

  // A symbol is explained when it stands alone as a dimension of an input.
  std::vector<std::string> explained;
  for (ValueId v : r.inputs)
    for (const Dim& d : r.value(v).type.dims)
      if (d.is_symbol()) explained.push_back(d.to_string());
  auto known = [&](const Dim& d) {
    std::vector<std::string> symbols;
    d.collect_symbols(symbols);
    return std::all_of(symbols.begin(), symbols.end(), [&](const std::string& s) {
      return std::find(explained.begin(), explained.end(), s) != explained.end();
    });
  };
  bool changed = false;
  std::map<std::string, Dim> renamed;
  for (ValueId v : r.inputs) {
    Value& value = r.value(v);
    for (Dim& d : value.type.dims)
      if (!known(d)) {
        auto [it, fresh] = renamed.emplace(d.to_string(), Dim());
        if (fresh) it->second = Dim::symbol("size:" + std::to_string(renamed.size() - 1));
        d = it->second;
        changed = true;
      }
    if (value.ints && !std::all_of(value.ints->begin(), value.ints->end(), known)) {
      value.ints.reset();
      changed = true;
    }
  }
  if (changed) {
    for (Node& n : r.nodes)
      for (ValueId v : n.outputs)
        if (v != kAbsent) {
          Value& value = r.value(v);
          value.type = Type::tensor(value.type.dtype);
          value.ints.reset();
        }
    AI_VMM_TRY(infer_types(r));
  }
  return r;
}

}  // namespace ai_vmm
