#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/text.hpp"
#include "command.hpp"
#include "ops/doc.hpp"
#include "ops/op.hpp"
#include "terminal.hpp"

namespace ai_vmm::cli {

namespace {
constexpr Option kOptions[] = {
    {"--domain", "NAME", "Only operators of this domain; ai.onnx is the default domain."},
    {"--json", nullptr, "Print one JSON array."},
    {"--markdown", nullptr, "Print the reference of all operators as Markdown (docs/operators.md)."},
};

std::string domain(const OpDef& op) { return *op.domain ? op.domain : "ai.onnx"; }

void print(const OpDef& op) {
  std::printf("%s%s%s  %s, version %d\n", style(stdout, Style::bold), op.name, style(stdout, Style::plain),
              domain(op).c_str(), op.since);
  std::printf("  signature:  %s\n", op.signature);
  if (*op.attributes) std::printf("  attributes: %s\n", op.attributes);
  std::printf("  %s\n", op.doc);
}

int run_ops(const Arguments& arguments) {
  if (arguments.has("--markdown")) {
    std::fputs(ops_markdown().c_str(), stdout);
    return kSuccess;
  }
  std::string only = arguments.operands.empty() ? "" : arguments.operands[0];
  std::string in_domain = arguments.text("--domain");
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  std::vector<std::string> known;
  size_t shown = 0;
  for (const OpDef* op : all_ops()) {
    known.push_back(op->name);
    if ((!only.empty() && only != op->name) || (!in_domain.empty() && in_domain != domain(*op))) continue;
    ++shown;
    if (arguments.has("--json"))
      rows.push_back({{"name", op->name},
                      {"domain", domain(*op)},
                      {"since", op->since},
                      {"signature", op->signature},
                      {"attributes", op->attributes},
                      {"doc", op->doc}});
    else if (!only.empty())
      print(*op);
    else
      std::printf("%-16s %-32s %s\n", domain(*op).c_str(), op->name, std::string(split(op->doc, '\n')[0]).c_str());
  }
  if (!shown) {
    std::string near = nearest(only, known);
    std::string what =
        only.empty() ? "No operator is of domain \"" + in_domain + "\""
                     : "There is no operator \"" + only + "\"" + (in_domain.empty() ? "" : " in domain " + in_domain);
    return complain(
        Status(Code::not_found, what + (near.empty() ? "; `aivmm ops` lists all." : "; did you mean " + near + "?")),
        kUsage);
  }
  if (arguments.has("--json"))
    std::puts(rows.dump(2).c_str());
  else if (only.empty())
    std::printf("%zu operators\n", shown);
  return kSuccess;
}
}  // namespace

const Command kOps = {
    "ops",
    "[NAME]",
    0,
    1,
    "List the operators, or explain one",
    "Operators are those of ONNX at their newest version; older models are converted when they are loaded.\n\n"
    "Examples:\n"
    "  aivmm ops Conv\n"
    "  aivmm ops --domain com.microsoft\n",
    kOptions,
    run_ops};

}  // namespace ai_vmm::cli
