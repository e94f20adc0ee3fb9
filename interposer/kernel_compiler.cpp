#include "kernel_compiler.hpp"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>

#include "bf16_kernels_text.hpp"
#include "checked_files.hpp"
#include "elf.hpp"
#include "library.hpp"
#include "threads.hpp"

namespace AIRamp::Interposer {

KernelCode KernelCode::all_[kMost];

namespace {

std::uint64_t hash_of(const void* data, std::size_t size, std::uint64_t hash = 14695981039346656037u) {
  for (std::size_t i = 0; i < size; i++) hash = (hash ^ static_cast<const unsigned char*>(data)[i]) * 1099511628211u;
  return hash;
}

// What stands before the code in a file.
struct Header {
  char magic[8];
  std::uint64_t size, hash;
};
constexpr char kMagic[9] = "AIRKERN1";
constexpr std::size_t kLargest = std::size_t{16} << 20;

// The two libraries have the same functions under names that differ in their first letters.
struct Compiler {
  elf::Object object;
  const char* prefix;

  template <class F>
  F* function(const char* name) const {
    char whole[64];
    snprintf(whole, sizeof whole, "%s%s", prefix, name);
    return reinterpret_cast<F*>(elf::find_in(object, whole));
  }
};

Compiler find_compiler(Vendor vendor) {
  bool nvidia = vendor == Vendor::kNvidia;
  Compiler c = {{}, nvidia ? "nvrtc" : "hiprtc"};
  const char* create = nvidia ? "nvrtcCreateProgram" : "hiprtcCreateProgram";
  if (elf::find(create, &c.object)) return c;
  // Before ROCm 5.3 the compiler was a part of the runtime.
  constexpr const char* kNvidia[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"};
  constexpr const char* kAmd[] = {"libhiprtc.so.7", "libhiprtc.so.6", "libhiprtc.so.5", "libhiprtc.so"};
  for (const char* name : nvidia ? kNvidia : kAmd)
    if (elf::load(name) && elf::find(create, &c.object)) return c;
  return c;
}

// Opens the cache's folder, which is made if need be; -1 if there is none that is safe.
int open_cache() {
  char path[4096];
  const char* cache = getenv("XDG_CACHE_HOME");
  const char* home = getenv("HOME");
  if (cache && cache[0] == '/') {
    snprintf(path, sizeof path, "%s", cache);
  } else if (home && home[0] == '/') {
    snprintf(path, sizeof path, "%s/.cache", home);
  } else {
    return -1;
  }
  mkdir(path, 0700);
  std::size_t length = strlen(path);
  snprintf(path + length, sizeof path - length, "/airamp");
  mkdir(path, 0700);
  FileFault fault;
  return open_checked_folder(path, &fault);
}

}  // namespace

KernelCode* KernelCode::begin(Vendor vendor, const char* architecture) {
  for (KernelCode& code : all_) {
    int expected = kFree;
    if (__atomic_compare_exchange_n(&code.stage_, &expected, kClaimed, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
      code.vendor_ = vendor;
      snprintf(code.architecture_, sizeof code.architecture_, "%s", architecture);
      __atomic_store_n(&code.stage_, kWorking, __ATOMIC_RELEASE);
      if (!start_thread(&KernelCode::run, &code)) {
        snprintf(code.why_not_, sizeof code.why_not_, "no thread could be started to compile the kernels");
        __atomic_store_n(&code.stage_, kFailed, __ATOMIC_RELEASE);
      }
      return &code;
    }
    while (__atomic_load_n(&code.stage_, __ATOMIC_ACQUIRE) == kClaimed) continue;
    if (code.vendor_ == vendor && strcmp(code.architecture_, architecture) == 0) return &code;
  }
  return nullptr;
}

bool KernelCode::wait() {
  const timespec millisecond = {0, 1000000};
  for (int i = 0; i < 30000 && __atomic_load_n(&stage_, __ATOMIC_ACQUIRE) == kWorking; i++)
    nanosleep(&millisecond, nullptr);
  int stage = __atomic_load_n(&stage_, __ATOMIC_ACQUIRE);
  if (stage == kWorking) snprintf(why_not_, sizeof why_not_, "the kernels were not compiled within half a minute");
  return stage == kThere;
}

void* KernelCode::run(void* self) {
  thread.depth = 1;  // what the compiler calls is not the program's call
  static_cast<KernelCode*>(self)->get();
  return nullptr;
}

// A program for one architecture is the same whoever compiled it: the compiler's version is no part of the name.
void KernelCode::get() {
  std::uint64_t hash = hash_of(kBf16Kernels, sizeof kBf16Kernels);
  hash = hash_of(AIRAMP_VERSION, sizeof AIRAMP_VERSION, hash);
  char name[96];
  snprintf(name, sizeof name, "kernels-%s-%016llx", architecture_, static_cast<unsigned long long>(hash));
  int folder = open_cache();
  bool there = folder >= 0 && read_cache(folder, name);
  if (!there) {
    there = compile();
    if (there && folder >= 0) write_cache(folder, name);
  }
  if (folder >= 0) close(folder);
  __atomic_store_n(&stage_, there ? kThere : kFailed, __ATOMIC_RELEASE);
}

bool KernelCode::read_cache(int folder, const char* name) {
  FileFacts facts;
  FileFault fault;
  int file = open_checked_file(folder, name, O_RDONLY, kLargest, &facts, &fault);
  if (file < 0) return false;
  auto* bytes = static_cast<char*>(malloc(facts.bytes + 1));
  long size = bytes ? read_whole(file, bytes, facts.bytes) : -1;
  close(file);
  Header header = {};
  if (size > static_cast<long>(sizeof header)) memcpy(&header, bytes, sizeof header);
  if (memcmp(header.magic, kMagic, sizeof header.magic) != 0 || header.size != size - sizeof header ||
      header.hash != hash_of(bytes + sizeof header, header.size)) {
    free(bytes);
    return false;
  }
  data_ = bytes + sizeof header;
  size_ = header.size;
  return true;
}

void KernelCode::write_cache(int folder, const char* name) const {
  char temporary[128];
  snprintf(temporary, sizeof temporary, "%s.%d", name, static_cast<int>(getpid()));
  int file = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file < 0) return;
  Header header = {{}, size_, hash_of(data_, size_)};
  memcpy(header.magic, kMagic, sizeof header.magic);
  bool whole =
      write(file, &header, sizeof header) == sizeof header && write(file, data_, size_) == static_cast<ssize_t>(size_);
  close(file);
  if (!whole || renameat(folder, temporary, folder, name) != 0) unlinkat(folder, temporary, 0);
}

bool KernelCode::compile() {
  bool nvidia = vendor_ == Vendor::kNvidia;
  Compiler c = find_compiler(vendor_);
  if (!c.object) {
    snprintf(why_not_, sizeof why_not_, "there is no %s to compile the kernels with",
             nvidia ? "libnvrtc (Python: nvidia-cuda-nvrtc)" : "libhiprtc");
    return false;
  }
  using Program = void*;
  auto* create = c.function<int(Program*, const char*, const char*, int, const char**, const char**)>("CreateProgram");
  auto* compile = c.function<int(Program, int, const char**)>("CompileProgram");
  auto* destroy = c.function<int(Program*)>("DestroyProgram");
  auto* code_size = c.function<int(Program, std::size_t*)>(nvidia ? "GetCUBINSize" : "GetCodeSize");
  auto* code = c.function<int(Program, char*)>(nvidia ? "GetCUBIN" : "GetCode");
  char target[64];
  snprintf(target, sizeof target, "%s%s", nvidia ? "--gpu-architecture=" : "--offload-arch=", architecture_);
  const char* options[] = {target, "-std=c++17"};
  Program program = nullptr;
  if (!create || !compile || !destroy || !code_size || !code ||
      create(&program, kBf16Kernels, "bf16_kernels", 0, nullptr, nullptr) != 0) {
    snprintf(why_not_, sizeof why_not_, "%s cannot be used", c.prefix);
    return false;
  }
  int error = compile(program, 2, options);
  if (error == 0) error = code_size(program, &size_);
  if (error == 0) data_ = malloc(size_);
  if (error == 0 && data_) error = code(program, static_cast<char*>(data_));
  destroy(&program);
  if (error == 0 && data_ && size_) return true;
  snprintf(why_not_, sizeof why_not_, "%s does not compile the kernels for %s (error %d)", c.prefix, architecture_,
           error);
  return false;
}

}  // namespace AIRamp::Interposer
