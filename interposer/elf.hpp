#pragma once

#include <elf.h>
#include <link.h>

#include <cstddef>
#include <cstdint>

// Functions of the libraries that the process has loaded, found in their own symbol tables. Neither dlsym(RTLD_NEXT),
// which misses what was loaded with RTLD_LOCAL, nor a soname, which a Python wheel may have changed, is asked.
namespace AIRamp::Interposer::elf {

// A loaded shared object. Valid while it stays loaded.
struct Object {
  const char* path = nullptr;  // borrowed from the dynamic linker
  std::uintptr_t base = 0;
  const ElfW(Phdr) * headers = nullptr;
  int header_count = 0;

  explicit operator bool() const { return headers != nullptr; }
  // Whether the address lies in one of its segments.
  bool contains(const void* address) const;
};

// The default version of a function or variable that the object defines; nullptr if it defines none of that name.
void* find_in(const Object& object, const char* name);

// The first definition among the objects that stand after this library in load order, so that wrapping tools that stand
// before it are never taken for the real function. `where` receives the object.
void* find(const char* name, Object* where = nullptr);

// A variable of the object, or the copy of it in the program's own memory that the linker made the one in use.
void* find_variable(const Object& object, const char* name);

// Loads a library by name or path, as dlopen does with RTLD_LAZY | RTLD_LOCAL; nullptr if it cannot be had. Neither
// dlopen nor dlsym is linked to: their versions in younger glibcs are too young.
void* load(const char* library);

// The object that holds the address.
Object object_of(const void* address);

}  // namespace AIRamp::Interposer::elf
