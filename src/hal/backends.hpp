// The backends that this process can reach: those linked into the build, and plugins loaded from files.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ai_vmm/backend_abi.h"
#include "ai_vmm/types.hpp"

namespace ai_vmm {

struct InTreeBackend {
  const char* name;
  AiVmmBackendEntry entry;
  // Takes part where the caller named no backend. Others run only by name.
  bool automatic;
};

// The one list of backends linked into this build, the preferred first.
std::span<const InTreeBackend> in_tree_backends();

struct Backend {
  std::string name;
  std::string origin;                 // "built in", or the plugin's file
  const AiVmmBackend* api = nullptr;  // as large as this build's table, whatever the plugin's; lives for ever
  bool automatic = false;
  std::string problem;  // why it cannot be used; then api is null
};

// The host's side of the interface, the same for every backend.
const AiVmmHost& host_services();

// Calls an entry function and verifies what comes back. The table is copied: fields that the plugin lacks are null.
Result<const AiVmmBackend*> connect(AiVmmBackendEntry entry, const AiVmmHost& host = host_services());

// Opens a plugin's file and finds its entry function. A plugin stays loaded.
Result<AiVmmBackendEntry> load_plugin(const std::string& file);

// By name: a backend of the build, else a plugin of the setting `plugins`. Fails with the known names. The names that
// start with "file:" are paths of plugins, which are loaded whatever the setting says.
Result<const Backend*> find_backend(std::string_view name);

// "sim:1" is device 1 of backend sim; without a number device 0 is meant.
std::pair<std::string, int> parse_device(std::string_view text);

// All of them; loads the plugins and connects the built-in ones. Backends that cannot be used are in the list.
std::vector<const Backend*> all_backends();

// A table of level 3; null when the backend does not offer it.
template <class Table>
const Table* extension(const AiVmmBackend& api, const char* name) {
  if (!api.extension) return nullptr;
  const auto* table = static_cast<const Table*>(api.extension(api.self, name));
  return table && table->head.size >= sizeof(Table) ? table : nullptr;
}

// A failure as it crossed the interface.
Status to_status(int32_t code, const AiVmmStatus& status);

}  // namespace ai_vmm
