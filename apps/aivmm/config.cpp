#include "base/config.hpp"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/text.hpp"
#include "command.hpp"
#include "terminal.hpp"

namespace ai_vmm::cli {

namespace {
constexpr Option kOptions[] = {
    {"--json", nullptr, "Print one JSON array."},
    {"--doc", nullptr, "Also say what each setting means, and its unit."},
};

int run_config(const Arguments& arguments) {
  auto config = Config::load();
  if (!config.ok()) return complain(config.status(), kUsage);
  std::string only = arguments.operands.empty() ? "" : arguments.operands[0];
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  std::vector<std::string> known;
  bool found = only.empty();
  for (const Setting& s : settings()) {
    known.push_back(s.name);
    if (!only.empty() && only != s.name) continue;
    found = true;
    const Config::Value& v = config->value(s.name);
    if (arguments.has("--json")) {
      rows.push_back({{"name", s.name},
                      {"value", v.text},
                      {"source", name(v.source)},
                      {"origin", v.origin},
                      {"type", name(s.kind)},
                      {"unit", s.unit},
                      {"default", s.fallback},
                      {"doc", s.doc}});
      continue;
    }
    std::string from = name(v.source);
    if (!v.origin.empty()) from += ": " + v.origin;
    std::printf("%s%-16s%s = %-12s %s# %s%s\n", style(stdout, Style::bold), s.name, style(stdout, Style::plain),
                v.text.empty() ? "\"\"" : v.text.c_str(), style(stdout, Style::dim), from.c_str(),
                style(stdout, Style::plain));
    if (arguments.has("--doc"))
      std::printf("    %s (%s%s%s%s%s)\n", s.doc, name(s.kind), *s.unit ? ", in " : "", s.unit, *s.choices ? ": " : "",
                  s.choices);
  }
  if (!found) {
    std::string near = nearest(only, known);
    return complain(Status(Code::invalid_argument, "There is no setting \"" + only + "\"" +
                                                       (near.empty() ? ". Known are: " + join(known, ", ") + "."
                                                                     : "; did you mean " + near + "?")),
                    kUsage);
  }
  if (arguments.has("--json")) std::puts(rows.dump(2).c_str());
  return kSuccess;
}
}  // namespace

const Command kConfig = {
    "config",
    "[SETTING]",
    0,
    1,
    "Print every setting and where its value comes from",
    "A value comes from the highest of: default, hardware profile, file, environment, API, command line.\n"
    "The file is $AI_VMM_CONFIG, or aivmm/config.toml in $XDG_CONFIG_HOME (~/.config), with lines `name = value`.\n"
    "The environment variable of a setting is its name in capitals after AI_VMM_, such as AI_VMM_THREADS.\n\n"
    "Examples:\n"
    "  aivmm config --doc\n"
    "  AI_VMM_THREADS=1 aivmm config threads\n",
    kOptions,
    run_config};

}  // namespace ai_vmm::cli
