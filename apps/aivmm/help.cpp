#include <cstdio>

#include "base/text.hpp"
#include "command.hpp"

namespace ai_vmm::cli {

namespace {
int run_help(const Arguments& arguments) {
  if (arguments.operands.empty()) {
    std::fputs(overview().c_str(), stdout);
    return kSuccess;
  }
  std::vector<std::string> known;
  for (const Command* c : commands()) {
    known.push_back(c->name);
    if (arguments.operands[0] == c->name) {
      std::fputs(help(*c).c_str(), stdout);
      return kSuccess;
    }
  }
  return complain(Status(Code::invalid_argument, "There is no command \"" + arguments.operands[0] +
                                                     "\". Known are: " + join(known, ", ") + "."),
                  kUsage);
}
}  // namespace

const Command kHelp = {"help", "[COMMAND]", 0, 1, "Explain a command", "Without COMMAND all are listed.\n",
                       {},     run_help};

}  // namespace ai_vmm::cli
