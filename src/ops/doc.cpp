#include "ops/doc.hpp"

#include <map>

#include "base/text.hpp"
#include "ops/op.hpp"

namespace ai_vmm {

namespace {

std::string formals(const std::vector<Formal>& list) {
  std::string out;
  for (const Formal& f : list)
    out += (out.empty() ? "`" : ", `") + f.name + "`: " + f.type +
           (f.variadic   ? ", any number"
            : f.optional ? ", optional"
                         : "");
  return out.empty() ? "none" : out;
}

std::string attributes(const std::vector<AttrDef>& list) {
  std::string out;
  for (const AttrDef& a : list)
    out += (out.empty() ? "`" : ", `") + a.name + "`: " + a.type +
           (a.required       ? ", required"
            : a.has_fallback ? " = " + a.fallback
                             : "");
  return out;
}

std::string traits(uint32_t bits) {
  static constexpr std::pair<Trait, const char*> kNames[] = {{kElementwise, "elementwise"},
                                                             {kReduces, "reduces"},
                                                             {kMovesData, "moves data"},
                                                             {kComposite, "composite"},
                                                             {kRandom, "random"},
                                                             {kDataDependent, "sizes depend on the data"},
                                                             {kControlFlow, "control flow"},
                                                             {kHostOnly, "runs on the host"},
                                                             {kTraining, "training"}};
  std::string out;
  for (auto [bit, name] : kNames)
    if (bits & bit) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

// Text of ours in a table or list: nothing of it is markup.
std::string plain(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '*' || c == '_' || c == '<' || c == '|' || c == '[' || c == '`') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

}  // namespace

std::string ops_markdown() {
  std::map<std::string, std::vector<const OpDef*>> domains;
  for (const OpDef* op : all_ops()) domains[*op->domain ? op->domain : "ai.onnx"].push_back(op);
  std::string out =
      "# Which operators are there, and what do they mean?\n\n"
      "Written by `aivmm ops --markdown > docs/operators.md` from the operator tables in `src/ops`; a test compares. "
      "Operators are\n"
      "those of the newest version of their domain: older models are converted when they are read. Types are f32, f64, "
      "f16, bf16,\n"
      "the f8 and f4 kinds, (i/u)2 to 64, bool, c64, c128 and string; *int*, *float*, *numeric* and *tensor* stand for "
      "groups of\n"
      "them, *any* for every value.\n\n";
  for (const auto& [domain, ops] : domains) {
    std::string anchor = domain;
    std::erase(anchor, '.');
    out += "- [" + domain + "](#" + anchor + "): " + std::to_string(ops.size()) + " operators\n";
  }
  for (const auto& [domain, ops] : domains) {
    out += "\n## " + domain + "\n";
    for (const OpDef* op : ops) {
      const Schema& s = schema(*op);
      out += "\n### " + std::string(op->name) + "\n\n" + plain(op->doc) + "\n\n";
      out += "- inputs: " + formals(s.inputs) + "\n- outputs: " + formals(s.outputs) + "\n";
      for (const auto& [variable, admitted] : s.types) out += "- " + variable + ": " + join(admitted, ", ") + "\n";
      if (!s.attributes.empty()) out += "- attributes: " + attributes(s.attributes) + "\n";
      out += "- since version " + std::to_string(op->since);
      if (std::string t = traits(op->traits); !t.empty()) out += "; " + t;
      out += "\n";
    }
  }
  return out;
}

}  // namespace ai_vmm
