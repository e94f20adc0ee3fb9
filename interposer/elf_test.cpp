#include "elf.hpp"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <math.h>

#include <cstring>

namespace AIRamp::Interposer::elf {
namespace {

// In a test program nothing stands before the program itself, so that find() sees all libraries.
TEST(Elf, FindsWhatDlsymFinds) {
  for (const char* name : {"malloc", "cos", "dlopen", "strlen", "pthread_create"}) {
    Object where;
    void* found = find(name, &where);
    ASSERT_NE(found, nullptr) << name;
    EXPECT_TRUE(where.contains(found)) << name;
    EXPECT_EQ(found, dlsym(RTLD_NEXT, name)) << name;  // strlen and cos are chosen for the processor by an ifunc
  }
  EXPECT_EQ(find("no_library_defines_this"), nullptr);
}

TEST(Elf, OnlyTheDefaultVersion) {
  // glibc keeps an old memcpy beside the one that programs are linked to.
  EXPECT_EQ(find("memcpy"), dlvsym(RTLD_NEXT, "memcpy", "GLIBC_2.14"));
  EXPECT_NE(find("memcpy"), dlvsym(RTLD_NEXT, "memcpy", "GLIBC_2.2.5"));
}

TEST(Elf, ALibraryLoadedForOneCallerOnly) {
  ASSERT_EQ(find("deflateInit_"), nullptr);
  void* handle = dlopen("libz.so.1", RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(handle, nullptr) << dlerror();
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "deflateInit_"), nullptr);
  Object where;
  EXPECT_EQ(find("deflateInit_", &where), dlsym(handle, "deflateInit_"));
  EXPECT_NE(std::strstr(where.path, "libz.so.1"), nullptr);
  dlclose(handle);
}

TEST(Elf, KnowsWhereAnAddressIs) {
  EXPECT_TRUE(object_of(reinterpret_cast<void*>(&object_of)).contains(reinterpret_cast<void*>(&find)));
  int local = 0;
  EXPECT_FALSE(object_of(&local));
}

}  // namespace
}  // namespace AIRamp::Interposer::elf
