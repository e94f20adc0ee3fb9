// The CPU backend behind the plugin interface.
#include <dlfcn.h>
#include <fcntl.h>
#include <omp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "ai_vmm/compute_backend.hpp"
#include "backends/cpu/program.hpp"
#include "kit/view.hpp"

namespace ai_vmm::cpu {

namespace {

class CpuContext : public backend::Context {
 public:
  explicit CpuContext(std::shared_ptr<const Program> program) : context_(std::move(program)) {}

  Status execute(std::span<const backend::TensorRef> inputs, std::span<const backend::TensorRef> outputs,
                 const AiVmmRun& run) override {
    inputs_.clear();
    for (backend::TensorRef t : inputs)
      inputs_.push_back({static_cast<DType>(t->dtype),
                         {t->shape, size_t(t->rank)},
                         static_cast<const char*>(t->data) + t->byte_offset});
    slots_.resize(outputs.size());
    for (size_t k = 0; k < outputs.size(); ++k) {
      const AiVmmTensor& t = *outputs[k];
      slots_[k].data = t.data ? static_cast<char*>(t.data) + t.byte_offset : nullptr;
      slots_[k].shape = {t.shape, t.shape ? size_t(t.rank) : 0};
      slots_[k].allocate = [&run, k](DType dtype, const Shape& shape) -> Result<void*> {
        return backend::allocate(run, uint32_t(k), int32_t(dtype), int32_t(shape.size()), shape.data());
      };
    }
    return context_.run(inputs_, slots_, {run.threads, run.seed, run.cancel});
  }

 private:
  cpu::Context context_;
  std::vector<Input> inputs_;
  std::vector<OutputSlot> slots_;
};

class CpuExecutable : public backend::Executable {
 public:
  explicit CpuExecutable(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  Result<std::unique_ptr<backend::Context>> create_context() override {
    return std::unique_ptr<backend::Context>(new CpuContext(program_));
  }
  void info(AiVmmExecutableInfo& info) const override {
    info.weight_bytes = program_->weight_bytes();
    info.arena_bytes = program_->arena_bytes();
    info.compilations = program_->compilations();
  }

 private:
  std::shared_ptr<const Program> program_;
};

class CpuDevice : public backend::Device {
 public:
  Status query(const AiVmmGraph& view, std::span<AiVmmVerdict* const> verdicts) override {
    Graph graph = AI_VMM_TAKE(graph_from_view(view));
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      NodeVerdict v = cpu::query(graph, graph.nodes[n]);
      verdicts[n]->reason = v.verdict == Verdict::native    ? AI_VMM_SUPPORTED
                            : v.verdict == Verdict::generic ? AI_VMM_SUPPORTED_GENERIC
                                                            : AI_VMM_REFUSED_HOST_ONLY;
      verdicts[n]->detail = v.reason;
    }
    return {};
  }
  Result<std::unique_ptr<backend::Executable>> compile(const AiVmmGraph& view, const AiVmmCompileOptions& o) override {
    Graph graph = AI_VMM_TAKE(graph_from_view(view));
    Options options;
    options.threads = o.threads;
    options.deterministic = o.deterministic != 0;
    auto program = AI_VMM_TAKE(Program::compile(std::move(graph), options));
    return std::unique_ptr<backend::Executable>(new CpuExecutable(std::move(program)));
  }
};

std::string processor_name() {
  std::ifstream f("/proc/cpuinfo");
  for (std::string line; std::getline(f, line);)
    if (line.rfind("model name", 0) == 0)
      if (auto colon = line.find(": "); colon != line.npos) return line.substr(colon + 2);
  return "CPU";
}

// The OpenMP library that serves this process: "libomp" or "libgomp".
const char* openmp_library() {
  Dl_info where;
  if (!dladdr(reinterpret_cast<void*>(&omp_get_max_threads), &where) || !where.dli_fname)
    return "an unknown OpenMP library";
  return std::string_view(where.dli_fname).find("gomp") == std::string_view::npos ? "libomp" : "libgomp";
}

// LLVM's library registers itself under a name in shared memory when it is first used, and ends the process if it
// cannot (openmp/runtime/src/kmp_runtime.cpp, __kmp_register_library_startup).
Status openmp_starts() {
  if (std::string_view(openmp_library()) != "libomp") return {};
  const std::string name = "/ai_vmm_" + std::to_string(getpid());
  int file = shm_open(name.c_str(), O_CREAT | O_RDWR, 0600);
  if (file >= 0) {
    close(file);
    shm_unlink(name.c_str());
    return {};
  }
  return Status(Code::unavailable,
                std::string("The OpenMP library needs shared memory, and /dev/shm cannot be written (") +
                    std::strerror(errno) +
                    "). Mount a tmpfs there; a container gets one unless it is started with --ipc=none.");
}

class CpuBackend : public backend::ComputeBackend {
 public:
  const char* name() const override { return "cpu"; }
  const char* version() const override { return "1"; }
  Status initialize(const AiVmmHost&) override { return openmp_starts(); }
  Status capabilities(int32_t, AiVmmDeviceInfo& info) const override {
    std::snprintf(info.name, sizeof info.name, "%s, %d cores, %s, %s", processor_name().c_str(), omp_get_num_procs(),
                  cpu::name(isa()), openmp_library());
    std::snprintf(info.resource, sizeof info.resource, "cpu:0");
    info.memory_bytes = int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
    return {};
  }
  Result<std::unique_ptr<backend::Device>> open(int32_t) override {
    return std::unique_ptr<backend::Device>(new CpuDevice);
  }
};

}  // namespace

const AiVmmBackend* entry(const AiVmmHost* host, AiVmmStatus* status) {
  return backend::entry<CpuBackend>(host, status);
}

}  // namespace ai_vmm::cpu
