#include "nccl_library.hpp"

#include <string.h>

#include "elf.hpp"
#include "once.hpp"

namespace AIRamp::Interposer {

const NcclLibrary& nccl() {
  static NcclLibrary library;
  static Once once;
  once.run([] {
    elf::Object object;
    if (!elf::find("ncclAllReduce", &object)) {
      library.why_not = "neither NCCL nor RCCL is loaded";
      return;
    }
    const char* file = object.path ? strrchr(object.path, '/') : nullptr;
    if (strstr(file ? file : "", "rccl")) library.vendor = Vendor::kAmd;
#define X(name, ...)                                                                           \
  library.name = reinterpret_cast<decltype(library.name)>(elf::find_in(object, "nccl" #name)); \
  if (!library.name) library.why_not = "the communication library lacks nccl" #name;
    AIRAMP_NCCL_FUNCTIONS(X)
#undef X
    if (library.why_not) return;
    // Averages are as old as 2.10, bfloat16 too.
    int version = 0;
    if (library.GetVersion(&version) != kNcclSuccess || version < 21000)
      library.why_not = "the communication library is older than version 2.10";
  });
  return library;
}

}  // namespace AIRamp::Interposer
