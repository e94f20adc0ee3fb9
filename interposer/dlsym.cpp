#include <dlfcn.h>

#include "elf.hpp"
#include "library.hpp"

namespace AIRamp::Interposer {
namespace {

using Dlsym = void* (*)(void*, const char*);
std::atomic<Dlsym> real_dlsym;

Dlsym find_dlsym() {
  auto found = reinterpret_cast<Dlsym>(elf::find("dlsym"));
  real_dlsym.store(found, std::memory_order_relaxed);
  return found;
}

// What a program gets that asks a handle for a hooked name: our wrapper, unless the name belongs to a second library of
// the same interface, whose calls must not end up in the first.
void* hooked(Dlsym find, void* handle, const char* name, Call call) {
  void* found = find(handle, name);
  if (!found) return nullptr;
  unsigned i = static_cast<unsigned>(call);
  if (is_ours(found)) {
    // Our own export must not make a program believe that a library is there that is not. Asked for what stands after
    // us, dlsym finds nothing and says so in dlerror.
    if (real_functions[i].load() || elf::find(name)) return found;
    void* nothing = find(RTLD_NEXT, name);
    asm volatile("" ::: "memory");  // so that this is a call, from here, and not a jump
    return nothing;
  }
  return set_real(call, found, "dlsym") ? wrapper_of(call) : found;
}

}  // namespace
}  // namespace AIRamp::Interposer

// All but hooked names are passed on by a jump, so that dlsym sees the program's own return address, by which it
// decides what RTLD_NEXT and RTLD_DEFAULT mean. Built with -foptimize-sibling-calls; a test holds it.
extern "C" __attribute__((visibility("default"))) void* dlsym(void* handle, const char* name) noexcept {
  using namespace AIRamp::Interposer;
  auto find = real_dlsym.load(std::memory_order_relaxed);
  if (__builtin_expect(!find, 0)) find = find_dlsym();
  if (handle != RTLD_NEXT) {
    Call call = call_named(name);
    if (__builtin_expect(call != Call::kCount && options.allowed[kCallApis[static_cast<unsigned>(call)]], 0))
      return hooked(find, handle, name, call);
  }
  return find(handle, name);
}
