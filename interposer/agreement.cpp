#include "agreement.hpp"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "elf.hpp"
#include "library.hpp"

namespace AIRamp::Interposer::agreement {
namespace {

// PMIx's binary interface, as its standard (versions 3 to 5) lays it out.
struct PmixProcess {
  char job[256];
  std::uint32_t rank;
};
struct PmixValue {
  std::uint16_t type;
  union {
    char* string;
    bool flag;
    std::uint64_t widest[3];
  } data;
};
struct PmixInfo {
  char key[512];
  std::uint32_t flags;
  PmixValue value;
};
constexpr std::uint16_t kPmixBool = 1, kPmixString = 3;
constexpr std::uint8_t kPmixGlobal = 3;
constexpr const char* kKey = "airamp.agreement";

using PmixPut = int(std::uint8_t scope, const char* key, PmixValue* value);
using PmixGet = int(const PmixProcess*, const char* key, const PmixInfo*, std::size_t, PmixValue**);

const char* line = nullptr;
bool published = false;
char reason[200];

// Looks only into what the barrier of MPI_Init has brought here: never waits, never asks a server.
bool published_by(PmixGet* get, std::uint32_t rank) {
  PmixProcess process = {};
  snprintf(process.job, sizeof process.job, "%s", getenv("PMIX_NAMESPACE"));
  process.rank = rank;
  PmixInfo local_only = {};
  snprintf(local_only.key, sizeof local_only.key, "pmix.optional");
  local_only.value.type = kPmixBool;
  local_only.value.data.flag = true;
  PmixValue* value = nullptr;
  if (get(&process, kKey, &local_only, 1, &value) != 0 || !value) {
    snprintf(reason, sizeof reason, "rank %u runs without libairamp", rank);
    return false;
  }
  bool same = value->type == kPmixString && value->data.string && strcmp(value->data.string, line) == 0;
  if (!same) snprintf(reason, sizeof reason, "rank %u runs another version of libairamp or other settings", rank);
  if (value->type == kPmixString) free(value->data.string);
  free(value);
  return same;
}

}  // namespace

void prepare(const char* text) { line = text; }

void publish_with_pmix() {
  if (!line || published) return;
  auto* put = reinterpret_cast<PmixPut*>(elf::find("PMIx_Put"));
  if (!put) return;
  PmixValue value = {};
  value.type = kPmixString;
  value.data.string = const_cast<char*>(line);
  published = put(kPmixGlobal, kKey, &value) == 0;
}

const char* verdict(int size) {
  if (!published) return "this MPI's launcher offers no channel that libairamp knows, so that ranks cannot agree";
  auto* get = reinterpret_cast<PmixGet*>(elf::find("PMIx_Get"));
  if (!get || !getenv("PMIX_NAMESPACE")) return "PMIx offers no PMIx_Get";
  for (int rank = 0; rank < size; rank++)
    if (!published_by(get, static_cast<std::uint32_t>(rank))) return reason;
  return nullptr;
}

}  // namespace AIRamp::Interposer::agreement
