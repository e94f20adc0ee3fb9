#include "base/library.hpp"

#include <dlfcn.h>
#include <link.h>

namespace ai_vmm {

namespace {
std::string loader_message() {
  const char* text = dlerror();
  return text ? text : "the loader gives no reason";
}
// The loader says this of the library itself when there is none; of a library that it needs, under that one's name.
bool says_missing(const std::string& message, const std::string& name) {
  return message.starts_with(name + ": cannot open shared object file: No such file");
}
}  // namespace

bool Library::in_process(std::string_view prefix) {
  return dl_iterate_phdr(
             [](dl_phdr_info* info, size_t, void* wanted) {
               std::string_view path = info->dlpi_name ? info->dlpi_name : "";
               return int(path.substr(path.rfind('/') + 1).starts_with(*static_cast<std::string_view*>(wanted)));
             },
             &prefix) != 0;
}

Status Library::load(std::span<const std::string> names, const std::string& folder) {
  for (const std::string& name : names) {
    std::string file = folder.empty() ? name : folder + "/" + name;
    handle_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_) break;
    std::string why = loader_message();
    if (!says_missing(why, file)) return Status(Code::unavailable, name + " cannot be loaded: " + why + ".");
  }
  if (!handle_)
    return Status(Code::not_found, names.front() + (names.size() > 1 ? " and its other versions are" : " is") +
                                       " not " + (folder.empty() ? "on this machine." : "in " + folder + "."));
  link_map* map = nullptr;
  if (dlinfo(handle_, RTLD_DI_LINKMAP, &map) == 0 && map) path_ = map->l_name;
  for (const Slot& slot : slots_) {
    *slot.pointer = dlsym(handle_, slot.name);
    if (*slot.pointer || slot.presence == optional) continue;
    handle_ = nullptr;
    return Status(Code::failed_precondition,
                  path_ + " lacks the symbol " + slot.name + "; it is too old, or not the library that its name says.");
  }
  return {};
}

}  // namespace ai_vmm
