#include "base/check.hpp"

#include <cstdio>
#include <cstdlib>

namespace ai_vmm {
void check_failed(const char* file, int line, const char* condition, const std::string& detail) {
  std::fprintf(stderr, "ai_vmm: bug at %s:%d: check `%s` failed%s%s. Please report it with this line.\n", file, line,
               condition, detail.empty() ? "" : ": ", detail.c_str());
  std::abort();
}
}  // namespace ai_vmm
