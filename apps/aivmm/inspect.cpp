#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "analysis/analyse.hpp"
#include "base/text.hpp"
#include "command.hpp"
#include "import/onnx.hpp"
#include "inputs.hpp"
#include "terminal.hpp"

namespace ai_vmm::cli {

namespace {
constexpr Option kOptions[] = {
    {"--text", nullptr, "Print the whole graph, one node a line."},
    {"--shape", "NAME=1x3x224x224",
     "Sizes of an input, for operations and memory; symbolic ones that are not given count as 1.", true},
    {"--json", nullptr, "Print one JSON object."},
    {"--copy-weights", nullptr, "Read weights into memory instead of mapping the file."},
    {"--allow-links", nullptr, "Follow external data through links that leave the model's folder."},
};

std::string count_text(double n) {
  char text[32];
  const char* unit = n < 1e3 ? "" : n < 1e6 ? " k" : n < 1e9 ? " M" : n < 1e12 ? " G" : " T";
  double scaled = n < 1e3 ? n : n < 1e6 ? n / 1e3 : n < 1e9 ? n / 1e6 : n < 1e12 ? n / 1e9 : n / 1e12;
  std::snprintf(text, sizeof text, "%.*f%s", n < 1e3 ? 0 : 2, scaled, unit);
  return text;
}

int run_inspect(const Arguments& arguments) {
  const std::string& path = arguments.operands[0];
  auto config = configure(arguments);
  if (!config.ok()) return complain(config.status(), kUsage);
  auto shapes = parse_shapes(arguments);
  if (!shapes.ok()) return complain(shapes.status(), kUsage);
  struct stat is {};
  if (stat(path.c_str(), &is) != 0 || S_ISDIR(is.st_mode))
    return complain(Status(Code::not_found, "\"" + path + "\" is no model file."), kUsage);
  auto graph = import_onnx(
      path, {.copy_weights = config->boolean("copy_weights"), .allow_links = config->boolean("allow_links")});
  if (!graph.ok()) return complain(graph.status(), kModel);

  // Symbols of the inputs: from --shape, else 1.
  std::map<std::string, int64_t, std::less<>> sizes;
  for (ValueId v : graph->inputs) {
    const Value& value = graph->value(v);
    auto asked = shapes->find(value.name);
    if (asked != shapes->end()) {
      if (value.type.ranked && value.type.dims.size() != asked->second.size())
        return complain(Status(Code::invalid_argument, "Input \"" + value.name + "\" is " + value.type.to_string() +
                                                           "; --shape gives it " + to_string(asked->second) + "."),
                        kUsage);
      for (size_t i = 0; i < value.type.dims.size(); ++i)
        if (value.type.dims[i].is_symbol()) sizes[value.type.dims[i].to_string()] = asked->second[i];
      shapes->erase(asked);
    }
  }
  if (!shapes->empty())
    return complain(Status(Code::invalid_argument, "The model has no input \"" + shapes->begin()->first + "\"."),
                    kUsage);
  std::string assumed;
  for (ValueId v : graph->inputs) {
    std::vector<std::string> symbols;
    for (const Dim& d : graph->value(v).type.dims) d.collect_symbols(symbols);
    for (const std::string& s : symbols)
      if (sizes.emplace(s, 1).second) assumed += (assumed.empty() ? "" : ", ") + s + " = 1";
  }
  Analysis facts = analyse(*graph, [&](std::string_view symbol) -> std::optional<int64_t> {
    auto it = sizes.find(symbol);
    return it == sizes.end() ? std::nullopt : std::optional(it->second);
  });

  auto ports = [&](const std::vector<ValueId>& values) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (ValueId v : values)
      list.push_back({{"name", graph->value(v).name}, {"type", graph->value(v).type.to_string()}});
    return list;
  };
  if (arguments.has("--json")) {
    nlohmann::ordered_json j;
    j["model"] = path;
    j["inputs"] = ports(graph->inputs);
    j["outputs"] = ports(graph->outputs);
    j["kind"] = name(facts.kind);
    j["kind_reason"] = facts.why;
    j["nodes"] = facts.nodes;
    j["parameters"] = facts.parameters;
    j["weight_bytes"] = facts.weight_bytes;
    j["flops"] = facts.flops;
    j["bytes"] = facts.bytes;
    j["unsized_nodes"] = facts.unsized;
    j["peak_intermediate_bytes"] = facts.peak_bytes;
    j["sizes"] = sizes;
    j["operators"] = nlohmann::ordered_json::object();
    for (const auto& [op_name, op] : facts.operators)
      j["operators"][op_name] = {{"count", op.count}, {"flops", op.flops}, {"bytes", op.bytes}};
    j["metadata"] = graph->metadata;
    if (arguments.has("--text")) j["graph"] = graph->to_text();
    std::puts(j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
    return kSuccess;
  }
  if (arguments.has("--text")) {
    std::fputs(graph->to_text().c_str(), stdout);
    return kSuccess;
  }
  auto row = [](const char* what, const std::string& text) {
    std::printf("%s%-12s%s%s\n", style(stdout, Style::bold), what, style(stdout, Style::plain), text.c_str());
  };
  row("Model", path + (graph->name.empty() ? "" : " (" + graph->name + ")"));
  for (const auto& [key, text] : graph->metadata) {
    std::string line(split(text, '\n')[0]);
    row("", key + ": " +
                (line.size() > 60 || line.size() < text.size()
                     ? line.substr(0, 60) + " … (" + std::to_string(text.size()) + " bytes)"
                     : line));
  }
  for (const auto& p : ports(graph->inputs))
    row("Input", p["name"].get<std::string>() + " " + p["type"].get<std::string>());
  for (const auto& p : ports(graph->outputs))
    row("Output", p["name"].get<std::string>() + " " + p["type"].get<std::string>());
  row("Kind", std::string(name(facts.kind)) + ": " + facts.why);
  row("Parameters", count_text(double(facts.parameters)) + " in " + size(double(facts.weight_bytes)));
  row("Operations", count_text(facts.flops) +
                        (facts.unsized ? ", without " + std::to_string(facts.unsized) +
                                             " nodes whose sizes are known only at run time"
                                       : "") +
                        (assumed.empty() ? "" : "; with " + assumed));
  row("Memory", size(double(facts.peak_bytes)) + " of intermediate values at once, before any plan");
  row("Nodes", std::to_string(facts.nodes));
  std::vector<std::pair<std::string, OpStatistics>> order(facts.operators.begin(), facts.operators.end());
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.second.count > b.second.count; });
  for (const auto& [op_name, op] : order)
    std::printf("  %6lld × %-28s %s\n", static_cast<long long>(op.count), op_name.c_str(),
                op.flops > 0 ? (count_text(op.flops) + " operations").c_str() : "");
  return kSuccess;
}
}  // namespace

const Command kInspect = {"inspect",
                          "MODEL",
                          1,
                          1,
                          "Show what is in a model: ports, operators, parameters, operations, memory",
                          "Nothing is run. A multiply-add counts as two operations.\n\n"
                          "Examples:\n"
                          "  aivmm inspect model.onnx --shape x=1x3x224x224\n"
                          "  aivmm inspect model.onnx --text | less\n",
                          kOptions,
                          run_inspect};

}  // namespace ai_vmm::cli
