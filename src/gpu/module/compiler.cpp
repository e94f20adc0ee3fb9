#include "gpu/module/compiler.hpp"

#include <dlfcn.h>

#include <mutex>

#include "base/python_packages.hpp"
#include "base/text.hpp"
#include "gpu/module/api.hpp"

namespace ai_vmm::gpu {

namespace {
struct Names {
  const char* name;
  std::vector<std::string> libraries;  // the newest first
  const char* remedy;
};
Names names_of(Dialect dialect) {
  if (dialect == Dialect::cuda)
    return {
        "NVRTC",
        {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"},
        "Install the CUDA toolkit, or the Python package nvidia-cuda-nvrtc, whose folder must be where libraries are "
        "looked for."};
  // Before ROCm 5.3 the compiler was part of the runtime.
  return {"hiprtc",
          {"libhiprtc.so.7", "libhiprtc.so.6", "libhiprtc.so.5", "libamdhip64.so.5"},
          "Install it (Debian: libamdhip64-5 and libhiprtc-builtins5; ROCm: hip-runtime-amd)."};
}
}  // namespace

Compiler::Compiler() = default;
Compiler::~Compiler() = default;

Result<std::unique_ptr<Compiler>> Compiler::load(Dialect dialect, const std::string& folder) {
  std::unique_ptr<Compiler> c(new Compiler);
  c->api_ = std::make_unique<CompilerApi>(dialect);
  Names names = names_of(dialect);
  if (dialect == Dialect::cuda && folder.empty())
    for (const char* package : {"nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"}) {
      for (std::string& f : find_in_python_packages(package, "libnvrtc.so")) names.libraries.push_back(std::move(f));
      // NVRTC asks for its other half by a bare name, under which nothing in a Python package is found unless it is
      // loaded.
      for (const std::string& f : find_in_python_packages(package, "libnvrtc-builtins.so"))
        (void)dlopen(f.c_str(), RTLD_NOW);
    }
  if (Status s = c->api_->load(names.libraries, folder); !s.ok())
    return Status(s.code(), std::string(names.name) + ", which compiles kernels, cannot be used: " + s.message() + " " +
                                names.remedy);
  int major = 0, minor = 0;
  c->api_->version(&major, &minor);
  c->version_ = std::string(names.name) + " " + std::to_string(major) + "." + std::to_string(minor);
  return c;
}

Result<std::string> Compiler::compile(const std::string& text, const std::string& architecture) const {
  const bool cuda = api_->dialect == Dialect::cuda;
  // NVRTC takes calls from several threads at once; nothing of the kind is promised of hiprtc.
  static std::mutex one;
  std::unique_lock<std::mutex> lock(one, std::defer_lock);
  if (!cuda) lock.lock();
  Handle program = nullptr;
  auto failed = [&](const char* what, int error) {
    std::string log;
    size_t size = 0;
    if (program && api_->log_size(program, &size) == 0 && size > 1) {
      log.resize(size);
      api_->log(program, log.data());
      log = trim(log.c_str());
    }
    if (program) api_->destroy(&program);
    return Status(Code::internal, version_ + " does not " + what + " for " + architecture + " (" +
                                      api_->error_text(error) + ")" + (log.empty() ? "." : ": " + log.substr(0, 1500)));
  };
  if (int e = api_->create(&program, text.c_str(), "kernels", 0, nullptr, nullptr))
    return failed("take the kernels", e);
  const std::string target = (cuda ? "--gpu-architecture=" : "--offload-arch=") + architecture;
  const std::vector<const char*> options = cuda ? std::vector<const char*>{target.c_str(), "--std=c++17"}
                                                : std::vector<const char*>{target.c_str(), "-std=c++17", "-O3"};
  if (int e = api_->compile(program, int(options.size()), options.data())) return failed("compile the kernels", e);
  size_t size = 0;
  if (int e = api_->code_size(program, &size)) return failed("tell the size of the code", e);
  std::string code(size, '\0');
  if (int e = api_->code(program, code.data())) return failed("give the code", e);
  api_->destroy(&program);
  return code;
}

}  // namespace ai_vmm::gpu
