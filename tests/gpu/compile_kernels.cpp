// Compiles kernel texts for GPUs that need not be there: `compile_kernels FOLDER cuda 300 sm_80 sm_90`; at least 300
// are expected.
//
// FOLDER/cuda is what the setting kernel_folder collected while the kernels ran on the emulator. What
// compiled once is noted in FOLDER/compiled under a hash of compiler, target and text, and not compiled again. Nothing
// is run here. Exit status 77: the compiler is not installed.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "base/hash.hpp"
#include "gpu/dialect.hpp"
#include "gpu/module/compiler.hpp"

using namespace ai_vmm;
using namespace ai_vmm::gpu;
namespace fs = std::filesystem;

namespace {
using Clock = std::chrono::steady_clock;

struct Kernel {
  std::string name, text;
  fs::path note;  // exists: it compiles
};

int complain(const std::string& text) {
  std::fprintf(stderr, "compile_kernels: %s\n", text.c_str());
  return 1;
}

std::string program(Dialect dialect, const std::vector<Kernel>& kernels, size_t first, size_t last) {
  std::string text = prelude(dialect, true);
  for (size_t i = first; i < last; ++i) text += kernels[i].text + "\n";
  return text;
}

int compile_all(const Compiler& compiler, Dialect dialect, const std::string& architecture,
                const std::map<std::string, std::string>& texts, const fs::path& notes) {
  const auto start = Clock::now();
  std::vector<Kernel> fresh;
  const std::string common = compiler.version() + architecture + prelude(dialect, true);
  for (const auto& [kernel, text] : texts) {
    const std::string all = common + text;
    char file[24];
    std::snprintf(file, sizeof file, "%016llx",
                  static_cast<unsigned long long>(hash_bytes(std::as_bytes(std::span(all)))));
    if (!fs::exists(notes / file)) fresh.push_back({kernel, text, notes / file});
  }
  size_t wrong = 0;
  // Many kernels a program: the prelude is parsed once for all. One that fails is found by compiling each alone.
  for (size_t first = 0, last; first < fresh.size(); first = last) {
    last = std::min(first + 50, fresh.size());
    const bool together = compiler.compile(program(dialect, fresh, first, last), architecture).ok();
    size_t wrong_here = 0;
    for (size_t i = first; i < last; ++i) {
      if (!together)
        if (auto alone = compiler.compile(program(dialect, fresh, i, i + 1), architecture); !alone.ok()) {
          if (++wrong_here <= 3) complain(fresh[i].name + ": " + alone.status().message());
          continue;
        }
      std::ofstream(fresh[i].note) << fresh[i].name << "\n";
    }
    if (!together && !wrong_here) {
      ++wrong_here;
      complain(fresh[first].name + " to " + fresh[last - 1].name + " compile alone, not together.");
    }
    wrong += wrong_here;
  }
  std::printf("%s: %zu of %zu kernels compile for %s (%zu of them known from before), %.1f s; not run\n",
              compiler.version().c_str(), texts.size() - wrong, texts.size(), architecture.c_str(),
              texts.size() - fresh.size(), std::chrono::duration<double>(Clock::now() - start).count());
  std::fflush(stdout);
  return wrong ? 1 : 0;
}
}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 4 ? argv[2] : "";
  if (name != "cuda" && name != "hip") return complain("usage: compile_kernels FOLDER cuda|hip LEAST ARCHITECTURE…");
  const fs::path folder = argv[1];
  const Dialect dialect = name == "cuda" ? Dialect::cuda : Dialect::hip;
  const size_t least = std::strtoul(argv[3], nullptr, 10);

  std::map<std::string, std::string> texts;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder / name, error)) {
    std::ifstream in(entry.path());
    texts[entry.path().stem()] = {std::istreambuf_iterator<char>(in), {}};
  }
  if (texts.size() < least)
    return complain((folder / name).string() + " holds " + std::to_string(texts.size()) + " kernels; at least " +
                    std::to_string(least) + " are expected.");
  fs::create_directories(folder / "compiled");

  auto compiler = Compiler::load(dialect);
  if (!compiler.ok()) {
    complain("Skipped. " + compiler.status().message());
    return compiler.status().code() == Code::not_found ? 77 : 1;
  }
  // A process for each target: not every compiler takes calls from several threads at once.
  std::vector<pid_t> children;
  for (int i = 4; i < argc; ++i) {
    pid_t child = fork();
    if (child == 0) _exit(compile_all(**compiler, dialect, argv[i], texts, folder / "compiled"));
    children.push_back(child);
  }
  bool failed = false;
  for (pid_t child : children) {
    int status = 0;
    failed |= child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  }
  return failed ? 1 : 0;
}
