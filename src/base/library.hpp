// A shared library that is loaded at run time, as one typed list of the symbols we use:
//
//     struct CudaDriver : Library {
//       Symbol<int(unsigned flags)> cuInit{this, "cuInit"};
//       Symbol<int(const char** text)> newer{this, "cuNewer", optional};
//     };
//     CudaDriver cuda;
//     AI_VMM_TRY(cuda.load({"libcuda.so.1"}));
//     cuda.cuInit(0);
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

class Library {
 public:
  Library() = default;
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // Loads the first of `names` that exists and binds every symbol. With `folder`, names are looked for there and
  // nowhere else. not_found: none of the names is there; unavailable: one is there but cannot be loaded (the loader's
  // reason is in the text); failed_precondition: it lacks a symbol. Never unloaded: such libraries leave threads and
  // handlers behind.
  Status load(std::span<const std::string> names, const std::string& folder = "");
  Status load(std::initializer_list<std::string> names, const std::string& folder = "") {
    return load(std::span(names.begin(), names.size()), folder);
  }
  bool loaded() const { return handle_ != nullptr; }
  const std::string& path() const { return path_; }  // the file, as the loader found it; "" before load

  // Whether this process has loaded a library whose file name starts so, in whatever folder and version.
  static bool in_process(std::string_view prefix);

 protected:
  enum Presence { required, optional };

 public:
  // One function. Callable once the library is loaded; an optional one may be null.
  template <class Signature>
  class Symbol {
   public:
    Symbol(Library* library, const char* name, Presence presence = required) {
      library->slots_.push_back({name, reinterpret_cast<void**>(&function_), presence});
    }
    Symbol(const Symbol&) = delete;
    operator Signature*() const { return function_; }

   private:
    Signature* function_ = nullptr;
  };

 private:
  struct Slot {
    const char* name;
    void** pointer;
    Presence presence;
  };
  std::vector<Slot> slots_;
  void* handle_ = nullptr;
  std::string path_;
};

}  // namespace ai_vmm
