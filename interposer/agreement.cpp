#include "agreement.hpp"

#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

// Hydra's side of PMI-1: a line of words to the descriptor PMI_FD, a line back. The MPI library speaks the same over
// it, before and after us, but never at the same time.
class Hydra {
 public:
  // Whether Hydra started this process and answers as expected.
  bool open() {
    const char* fd = getenv("PMI_FD");
    bool ours = getenv("HYDI_CONTROL_FD") || getenv("I_MPI_HYDRA_UUID");  // MPICH's, Intel's
    if (!fd || !ours || !getenv("PMI_RANK")) return false;
    fd_ = atoi(fd);
    char answer[kLine];
    if (!ask("cmd=init pmi_version=1 pmi_subversion=1\n", answer) || !strstr(answer, "rc=0")) return false;
    if (!ask("cmd=get_my_kvsname\n", answer)) return false;
    return word(answer, "kvsname=", space_, sizeof space_);
  }

  bool put(const char* key, const char* value) {
    char request[kLine], answer[kLine];
    snprintf(request, sizeof request, "cmd=put kvsname=%s key=%s value=%s\n", space_, key, value);
    return ask(request, answer) && strstr(answer, "rc=0");
  }

  bool get(const char* key, char* value, std::size_t room) {
    char request[kLine], answer[kLine];
    snprintf(request, sizeof request, "cmd=get kvsname=%s key=%s\n", space_, key);
    return ask(request, answer) && strstr(answer, "rc=0") && word(answer, "value=", value, room);
  }

 private:
  static constexpr std::size_t kLine = 1400;

  // Reads no byte behind the answer's line. A launcher that is silent for ten seconds is taken for another one.
  bool ask(const char* request, char* answer) {
    for (std::size_t sent = 0, size = strlen(request); sent < size;) {
      ssize_t n = write(fd_, request + sent, size - sent);
      if (n <= 0) return false;
      sent += static_cast<std::size_t>(n);
    }
    std::size_t size = 0;
    while (size + 1 < kLine) {
      pollfd ready = {fd_, POLLIN, 0};
      if (poll(&ready, 1, 10000) <= 0 || read(fd_, answer + size, 1) != 1) return false;
      if (answer[size] == '\n') {
        answer[size] = 0;
        return true;
      }
      size++;
    }
    return false;
  }

  static bool word(const char* answer, const char* key, char* to, std::size_t room) {
    const char* at = strstr(answer, key);
    if (!at) return false;
    at += strlen(key);
    snprintf(to, room, "%.*s", static_cast<int>(strcspn(at, " \n")), at);
    return true;
  }

  int fd_ = -1;
  char space_[kLine / 4] = {};
};

Hydra hydra;
bool with_hydra = false;

// Values hold no spaces: the line stands for itself by its FNV-1a hash.
void hash_of_line(char* to, std::size_t room) {
  std::uint64_t hash = 14695981039346656037u;
  for (const char* c = line; *c; c++) hash = (hash ^ static_cast<unsigned char>(*c)) * 1099511628211u;
  snprintf(to, room, "%016llx", static_cast<unsigned long long>(hash));
}

bool published_to_hydra_by(int rank) {
  char key[32], ours[32], theirs[64];
  snprintf(key, sizeof key, "airamp-%d", rank);
  if (!hydra.get(key, theirs, sizeof theirs)) {
    snprintf(reason, sizeof reason, "rank %d runs without libairamp", rank);
    return false;
  }
  hash_of_line(ours, sizeof ours);
  if (strcmp(ours, theirs) == 0) return true;
  snprintf(reason, sizeof reason, "rank %d runs another version of libairamp or other settings", rank);
  return false;
}

}  // namespace

void prepare(const char* text) {
  line = text;
  if (!hydra.open()) return;
  char key[32], value[32];
  snprintf(key, sizeof key, "airamp-%s", getenv("PMI_RANK"));
  hash_of_line(value, sizeof value);
  with_hydra = published = hydra.put(key, value);
}

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
  for (int rank = 0; with_hydra && rank < size; rank++)
    if (!published_to_hydra_by(rank)) return reason;
  if (with_hydra) return nullptr;
  auto* get = reinterpret_cast<PmixGet*>(elf::find("PMIx_Get"));
  if (!get || !getenv("PMIX_NAMESPACE")) return "PMIx offers no PMIx_Get";
  for (int rank = 0; rank < size; rank++)
    if (!published_by(get, static_cast<std::uint32_t>(rank))) return reason;
  return nullptr;
}

}  // namespace AIRamp::Interposer::agreement
