#include "elf.hpp"

#include <dlfcn.h>

#include <cstring>

namespace AIRamp::Interposer::elf {
namespace {

// What PT_DYNAMIC says of an object's symbols.
struct Symbols {
  const ElfW(Sym) * table = nullptr;
  const char* names = nullptr;
  const std::uint32_t* gnu_hash = nullptr;
  const std::uint32_t* sysv_hash = nullptr;
  const std::uint16_t* versions = nullptr;
};

Symbols symbols_of(const Object& object) {
  Symbols s;
  const ElfW(Dyn)* entry = nullptr;
  for (int i = 0; i < object.header_count; i++)
    if (object.headers[i].p_type == PT_DYNAMIC)
      entry = reinterpret_cast<const ElfW(Dyn)*>(object.base + object.headers[i].p_vaddr);
  for (; entry && entry->d_tag != DT_NULL; entry++) {
    // glibc has added the base to these already; musl and the kernel's own object have not.
    std::uintptr_t at = entry->d_un.d_ptr < object.base ? object.base + entry->d_un.d_ptr : entry->d_un.d_ptr;
    switch (entry->d_tag) {
      case DT_SYMTAB: s.table = reinterpret_cast<const ElfW(Sym)*>(at); break;
      case DT_STRTAB: s.names = reinterpret_cast<const char*>(at); break;
      case DT_GNU_HASH: s.gnu_hash = reinterpret_cast<const std::uint32_t*>(at); break;
      case DT_HASH: s.sysv_hash = reinterpret_cast<const std::uint32_t*>(at); break;
      case DT_VERSYM: s.versions = reinterpret_cast<const std::uint16_t*>(at); break;
    }
  }
  return s;
}

// Whether the symbol is a definition of that name in its default version (bit 15 of a version marks the others).
bool matches(const Symbols& s, std::uint32_t index, const char* name) {
  const ElfW(Sym)& symbol = s.table[index];
  return symbol.st_shndx != SHN_UNDEF && !(s.versions && (s.versions[index] & 0x8000)) &&
         std::strcmp(s.names + symbol.st_name, name) == 0;
}

// The number of the symbol, or 0.
std::uint32_t index_of(const Symbols& s, const char* name) {
  if (!s.table || !s.names) return 0;
  if (s.gnu_hash) {
    std::uint32_t hash = 5381;
    for (const char* c = name; *c; c++) hash = hash * 33 + static_cast<unsigned char>(*c);
    std::uint32_t buckets = s.gnu_hash[0], first = s.gnu_hash[1], filter_words = s.gnu_hash[2];
    auto* filter = reinterpret_cast<const std::uintptr_t*>(s.gnu_hash + 4);
    constexpr std::uint32_t kBits = 8 * sizeof(std::uintptr_t);
    std::uintptr_t word = filter[(hash / kBits) % filter_words];
    if (!((word >> (hash % kBits)) & (word >> ((hash >> s.gnu_hash[3]) % kBits)) & 1)) return 0;
    auto* bucket = reinterpret_cast<const std::uint32_t*>(filter + filter_words);
    const std::uint32_t* chain = bucket + buckets;
    for (std::uint32_t i = bucket[hash % buckets]; i >= first && i != 0; i++) {
      std::uint32_t found = chain[i - first];
      if ((found | 1) == (hash | 1) && matches(s, i, name)) return i;
      if (found & 1) break;
    }
    return 0;
  }
  if (!s.sysv_hash) return 0;
  std::uint32_t hash = 0;
  for (const char* c = name; *c; c++) {
    hash = (hash << 4) + static_cast<unsigned char>(*c);
    hash ^= (hash >> 24) & 0xf0;
  }
  hash &= 0x0fffffff;
  const std::uint32_t* bucket = s.sysv_hash + 2;
  const std::uint32_t* chain = bucket + s.sysv_hash[0];
  for (std::uint32_t i = bucket[hash % s.sysv_hash[0]]; i != 0; i = chain[i])
    if (matches(s, i, name)) return i;
  return 0;
}

struct Search {
  const char* name = nullptr;
  const void* address = nullptr;
  bool after_us = false;
  Object found;
  void* result = nullptr;
};

Object from(const dl_phdr_info& info) {
  return {info.dlpi_name, static_cast<std::uintptr_t>(info.dlpi_addr), info.dlpi_phdr, info.dlpi_phnum};
}

int visit_names(dl_phdr_info* info, std::size_t, void* data) {
  auto& search = *static_cast<Search*>(data);
  Object object = from(*info);
  if (object.contains(reinterpret_cast<const void*>(&visit_names))) {
    search.after_us = true;
    return 0;
  }
  if (!search.after_us) return 0;
  search.result = find_in(object, search.name);
  if (search.result) search.found = object;
  return search.result != nullptr;
}

// The first object is the program itself.
int visit_program(dl_phdr_info* info, std::size_t, void* data) {
  static_cast<Search*>(data)->found = from(*info);
  return 1;
}

int visit_addresses(dl_phdr_info* info, std::size_t, void* data) {
  auto& search = *static_cast<Search*>(data);
  Object object = from(*info);
  if (!object.contains(search.address)) return 0;
  search.found = object;
  return 1;
}

}  // namespace

bool Object::contains(const void* address) const {
  auto a = reinterpret_cast<std::uintptr_t>(address);
  for (int i = 0; i < header_count; i++) {
    const auto& h = headers[i];
    if (h.p_type == PT_LOAD && a - (base + h.p_vaddr) < h.p_memsz) return true;
  }
  return false;
}

void* find_in(const Object& object, const char* name) {
  Symbols s = symbols_of(object);
  std::uint32_t index = index_of(s, name);
  if (!index) return nullptr;
  const ElfW(Sym)& symbol = s.table[index];
  void* address = reinterpret_cast<void*>(object.base + symbol.st_value);
  // Its value is a function that chooses the implementation for this processor.
  if (ELF64_ST_TYPE(symbol.st_info) == STT_GNU_IFUNC) return reinterpret_cast<void* (*)()>(address)();
  return address;
}

void* find(const char* name, Object* where) {
  Search search{.name = name};
  dl_iterate_phdr(visit_names, &search);
  if (where) *where = search.found;
  return search.result;
}

void* find_variable(const Object& object, const char* name) {
  Search search;
  dl_iterate_phdr(visit_program, &search);
  void* copy = find_in(search.found, name);
  return copy ? copy : find_in(object, name);
}

void* load(const char* library) {
  auto* open = reinterpret_cast<void* (*)(const char*, int)>(find("dlopen"));
  return open && library && *library ? open(library, RTLD_LAZY | RTLD_LOCAL) : nullptr;
}

Object object_of(const void* address) {
  Search search{.address = address};
  dl_iterate_phdr(visit_addresses, &search);
  return search.found;
}

}  // namespace AIRamp::Interposer::elf
