#include "hal/backends.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>

#include "ai_vmm/compute_backend.hpp"
#include "base/config.hpp"
#include "base/log.hpp"
#include "base/memory_budget.hpp"
#include "base/text.hpp"
#include "hal/isolate/isolate.hpp"
#include "hal/tuning.hpp"

namespace ai_vmm {

namespace cpu {
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);
}
namespace cuda {
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);
}
namespace hip {
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);
}
namespace null {
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);
}
namespace onnxruntime {
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);
}
namespace opencl {
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);
}
namespace openvino {
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);
}
namespace reference {
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);
}
namespace sim {
const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status);
}

std::span<const InTreeBackend> in_tree_backends() {
  static constexpr InTreeBackend kBackends[] = {
      {"cpu", cpu::entry, true},
      {"reference", reference::entry, true},
      {"openvino", openvino::entry, false},
      {"onnxruntime", onnxruntime::entry, false},
      {"cuda", cuda::entry, false},
      {"hip", hip::entry, false},
      {"opencl", opencl::entry, false},
      {"null", null::entry, false},
      {"sim", sim::entry, false},
  };
  return kBackends;
}

const AiVmmHost& host_services() {
  static const AiVmmHost table = [] {
    auto h = backend::make<AiVmmHost>();
    h.abi_major = AI_VMM_ABI_MAJOR;
    h.abi_minor_min = 0;
    h.abi_minor_max = AI_VMM_ABI_MINOR;
    h.parallel_for = [](void*, int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* arg) {
      if (count <= 0) return;
      if (grain <= 0) grain = count;
      int64_t chunks = (count + grain - 1) / grain;
#pragma omp parallel for schedule(static) if (chunks > 1)
      for (int64_t c = 0; c < chunks; ++c) body(arg, c * grain, std::min(count, (c + 1) * grain));
    };
    h.log = [](void*, int32_t level, const char* text, uint64_t size) {
      static constexpr LogLevel kLevels[] = {LogLevel::debug, LogLevel::info, LogLevel::warning, LogLevel::error};
      log(kLevels[std::clamp(level, 0, 3)], {text, static_cast<size_t>(size)});
    };
    h.tuning_get = [](void*, AiVmmText key, char* value, uint64_t capacity) -> uint64_t {
      auto kept = TuningStore::of_process().get(backend::view(key));
      if (!kept) return 0;
      std::memcpy(value, kept->data(), std::min<size_t>(kept->size(), size_t(capacity)));
      return kept->size();
    };
    h.tuning_put = [](void*, AiVmmText key, AiVmmText value) {
      TuningStore::of_process().put(backend::view(key), backend::view(value));
    };
    h.memory_charge = [](void*, int64_t bytes) -> int32_t {
      const auto& budget = MemoryBudget::current();
      if (!budget) return 0;
      if (bytes < 0) return budget->release(-bytes), 0;
      return static_cast<int32_t>(budget->charge(bytes).code());
    };
    return h;
  }();
  return table;
}

Status to_status(int32_t code, const AiVmmStatus& s) {
  std::string text = s.text_size ? std::string(s.text, std::min<size_t>(s.text_size, sizeof s.text))
                                 : "The backend failed and gave no reason.";
  auto state = s.device_state >= 0 && s.device_state <= AI_VMM_DEVICE_DRIVER_MISMATCH
                   ? static_cast<DeviceState>(s.device_state)
                   : DeviceState::ok;
  return Status(code > 0 && code <= 16 ? static_cast<Code>(code) : Code::unknown, std::move(text))
      .on_device(state, s.retry_after_ms);
}

Result<const AiVmmBackend*> connect(AiVmmBackendEntry entry, const AiVmmHost& host) {
  auto bad = [](const std::string& what) {
    return Status(Code::failed_precondition, "The backend broke the interface: " + what + ".");
  };
  auto s = backend::make<AiVmmStatus>();
  const AiVmmBackend* theirs = entry(&host, &s);
  if (!theirs) return to_status(s.code ? s.code : static_cast<int32_t>(Code::unknown), s);
  if (theirs->head.size < offsetof(AiVmmBackend, extension))
    return bad("its table has " + std::to_string(theirs->head.size) + " bytes and lacks required entries");
  const AiVmmBackend t = backend::local(theirs);
  auto version = std::to_string(t.abi_major) + "." + std::to_string(t.abi_minor);
  if (t.abi_major != host.abi_major || t.abi_minor < host.abi_minor_min || t.abi_minor > host.abi_minor_max)
    return Status(Code::unimplemented, "The plugin speaks version " + version +
                                           " of the backend interface; this host " + std::to_string(host.abi_major) +
                                           "." + std::to_string(host.abi_minor_min) + " to " +
                                           std::to_string(host.abi_major) + "." + std::to_string(host.abi_minor_max) +
                                           ". Take a plugin for this release, or build it anew.");
  for (auto [there, what] : {std::pair(t.device_count != nullptr, "device_count"),
                             {t.device_info != nullptr, "device_info"},
                             {t.open_device != nullptr, "open_device"},
                             {t.close_device != nullptr, "close_device"},
                             {t.compile != nullptr, "compile"},
                             {t.release_executable != nullptr, "release_executable"},
                             {t.executable_info != nullptr, "executable_info"},
                             {t.create_context != nullptr, "create_context"},
                             {t.release_context != nullptr, "release_context"},
                             {t.execute != nullptr, "execute"}})
    if (!there) return bad(std::string("the required entry ") + what + " is null");
  std::string_view name = t.name ? t.name : "";
  if (name.empty() || name.size() > 64 || name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") != name.npos)
    return bad("its name is \"" + std::string(name) + "\", but must be of a-z, 0-9, _ and -");
  if (!t.version) return bad("its version is null");
  return new AiVmmBackend(t);  // never freed: devices and executables refer to it
}

Result<AiVmmBackendEntry> load_plugin(const std::string& file) {
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* why = dlerror();
    return Status(Code::not_found, "The plugin \"" + file + "\" cannot be loaded: " + (why ? why : "unknown") + ".");
  }
  if (void* symbol = dlsym(library, "ai_vmm_backend_entry")) return reinterpret_cast<AiVmmBackendEntry>(symbol);
  dlclose(library);
  return Status(Code::failed_precondition,
                "\"" + file + "\" is a library but no plugin: it exports no ai_vmm_backend_entry.");
}

namespace {

// Whether the setting `isolate` names this backend. A plugin's name before it is loaded is that of its file.
bool isolated(const std::string& name, const std::string& file) {
  auto config = Config::load();
  if (!config.ok()) return false;
  for (std::string_view part : split(config->text("isolate"), ',')) {
    part = trim(part);
    if (part == name || (!file.empty() && (part == file || part == "plugins"))) return true;
  }
  return false;
}

// Everything connected so far. Entries are never removed, and pointers to them stay valid.
class Registry {
 public:
  static Registry& get() {
    static Registry* r = new Registry;  // never destroyed: devices may outlive main's statics
    return *r;
  }

  const Backend* built_in(std::string_view name) {
    std::lock_guard lock(mutex_);
    for (const InTreeBackend& b : in_tree_backends()) {
      if (name != b.name) continue;
      auto [it, fresh] = known_.try_emplace(b.name);
      if (fresh) {
        it->second = {b.name, "built in", nullptr, b.automatic, ""};
        settle(it->second, isolated(b.name, "") ? isolate::connect(b.name) : connect(b.entry));
      }
      return &it->second;
    }
    return nullptr;
  }

  const Backend* plugin(const std::string& file) {
    std::lock_guard lock(mutex_);
    auto [it, fresh] = files_.try_emplace(file);
    if (fresh) {
      Backend& b = it->second;
      b = {std::filesystem::path(file).stem(), file, nullptr, false, ""};
      if (isolated(b.name, file)) {
        settle(b, isolate::connect(file));
      } else if (auto entry = load_plugin(file); entry.ok()) {
        settle(b, connect(*entry));
      } else {
        b.problem = entry.status().message();
      }
      if (b.api) b.name = b.api->name;
    }
    return &it->second;
  }

 private:
  static void settle(Backend& b, Result<const AiVmmBackend*> api) {
    if (api.ok())
      b.api = *api;
    else
      b.problem = api.status().message();
  }
  std::mutex mutex_;
  std::map<std::string, Backend, std::less<>> known_, files_;
};

// The files that the setting `plugins` names; folders stand for the .so files in them.
std::vector<std::string> plugin_files() {
  std::vector<std::string> files;
  auto config = Config::load();
  if (!config.ok()) return files;  // whoever deploys or lists says so
  for (std::string_view part : split(config->text("plugins"), ':')) {
    std::filesystem::path path(trim(part));
    if (path.empty()) continue;
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) {
      files.push_back(path.string());
      continue;
    }
    std::vector<std::string> inside;
    for (const auto& entry : std::filesystem::directory_iterator(path, error))
      if (entry.path().extension() == ".so") inside.push_back(entry.path().string());
    std::sort(inside.begin(), inside.end());
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

std::vector<const Backend*> plugins() {
  std::vector<const Backend*> list;
  for (const std::string& file : plugin_files()) list.push_back(Registry::get().plugin(file));
  return list;
}

}  // namespace

Result<const Backend*> find_backend(std::string_view wanted) {
  auto usable = [](const Backend* b) -> Result<const Backend*> {
    if (b->api) return b;
    return Status(Code::unavailable, "Backend " + b->name + " cannot be used: " + b->problem);
  };
  if (wanted.starts_with("file:")) return usable(Registry::get().plugin(std::string(wanted.substr(5))));
  if (const Backend* b = Registry::get().built_in(wanted)) return usable(b);
  std::vector<std::string> names;
  for (const InTreeBackend& b : in_tree_backends()) names.push_back(b.name);
  for (const Backend* b : plugins()) {
    if (b->name == wanted) return usable(b);
    names.push_back(b->name);
  }
  std::string near = nearest(wanted, names);
  return Status(Code::not_found, "There is no backend \"" + std::string(wanted) + "\"; known are " + join(names, ", ") +
                                     (near.empty() ? "." : ". Did you mean " + near + "?"));
}

std::pair<std::string, int> parse_device(std::string_view text) {
  size_t colon = text.rfind(':');
  if (colon != text.npos && colon + 1 < text.size() && text.size() - colon < 6 &&
      text.find_first_not_of("0123456789", colon + 1) == text.npos)
    return {std::string(text.substr(0, colon)), std::stoi(std::string(text.substr(colon + 1)))};
  return {std::string(text), 0};
}

std::vector<const Backend*> all_backends() {
  std::vector<const Backend*> list;
  for (const InTreeBackend& b : in_tree_backends()) list.push_back(Registry::get().built_in(b.name));
  for (const Backend* b : plugins()) list.push_back(b);
  return list;
}

}  // namespace ai_vmm
