// aivmm: the command line. One file a subcommand; command.hpp says what they have in common.
#include <cstdio>
#include <new>
#include <string>
#include <vector>

#include "base/text.hpp"
#include "command.hpp"

using namespace ai_vmm;
using namespace ai_vmm::cli;

namespace {
int dispatch(const std::vector<std::string>& words) {
  if (words.empty() || words[0] == "--help" || words[0] == "-h") {
    std::fputs(overview().c_str(), words.empty() ? stderr : stdout);
    return words.empty() ? kUsage : kSuccess;
  }
  if (words[0] == "--version") {
    std::puts("aivmm " AI_VMM_VERSION);
    return kSuccess;
  }
  std::vector<std::string> known;
  for (const Command* c : commands()) {
    known.push_back(c->name);
    if (words[0] != c->name) continue;
    auto arguments = parse(*c, std::span(words).subspan(1));
    if (!arguments.ok()) return complain(arguments.status(), kUsage);
    if (arguments->has("--help")) {
      std::fputs(help(*c).c_str(), stdout);
      return kSuccess;
    }
    return c->run(*arguments);
  }
  std::string near = nearest(words[0], known);
  return complain(
      Status(Code::invalid_argument, "There is no command \"" + words[0] + "\"" +
                                         (near.empty() ? "; see `aivmm --help`." : "; did you mean " + near + "?")),
      kUsage);
}
}  // namespace

int main(int argc, char** argv) {
  try {
    int status = dispatch({argv + 1, argv + argc});
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
      complain(Status(Code::unavailable, "The output cannot be written: the other end is closed or the disk is full."),
               kFailed);
      if (status == kSuccess) status = kFailed;
    }
    return status;
  } catch (const std::bad_alloc&) {
    return complain(Status(Code::resource_exhausted, "The machine has no memory left for this."), kFailed);
  } catch (const std::exception& e) {
    return complain(Status(Code::internal, std::string("An unexpected failure: ") + e.what() + "."), kFailed);
  }
}
