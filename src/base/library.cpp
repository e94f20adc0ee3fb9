#include "base/library.hpp"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include "base/text.hpp"

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

bool Library::in_process(const std::string& name) {
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (handle) dlclose(handle);
  return handle != nullptr;
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
    return Status(Code::not_found, join(names, ", ") + (names.size() > 1 ? " are" : " is") + " not " +
                                       (folder.empty() ? "on this machine." : "in " + folder + "."));
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
