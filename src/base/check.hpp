// AI_VMM_CHECK: for our own bugs only. Stays on in release builds; never used on data from a file, a peer or a plugin.
#pragma once

#include <string>

namespace ai_vmm {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& detail);
}

#define AI_VMM_CHECK(condition, ...)                                                      \
  do {                                                                                    \
    if (__builtin_expect(!(condition), 0))                                                \
      ::ai_vmm::check_failed(__FILE__, __LINE__, #condition, ::std::string(__VA_ARGS__)); \
  } while (0)
