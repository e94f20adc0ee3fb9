// airamp: starts programs with libairamp.so in them, and tells what it does in running ones.

#include <fcntl.h>
#include <glob.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "../calls.hpp"
#include "../page.hpp"
#include "install.hpp"
#include "program.hpp"

namespace AIRamp::Command {
namespace {

using Interposer::Page;
using Interposer::State;

constexpr const char* kHelp =
    R"(airamp run [OPTION]... -- PROGRAM [ARGUMENT]...   run a program with libairamp.so in it
airamp status [PID]                               what is hooked and gained in running programs
airamp explain PID                                the same of one program, call by call, with reasons
airamp install --system [--allow=NAMES] [--deny=NAMES]   observe every program of this machine, or those whose files
                                                  have these names, separated by commas; airamp uninstall --system

Without options a run only observes. Options:
  --bf16-wire[=always]      float32 sums over MPI, NCCL, RCCL and Gloo travel as bfloat16 where that saves time
                            (always: wherever possible)
  --bf16-mode=B|A|D         how: B all-to-all and local float32 sums (default), A the library's own over bfloat16,
                            D float32 reduce-scatter and bfloat16 all-gather
  --bf16-allgather          all-gathers of float32 too
  --bf16-min=BYTES          least payload that is compressed (1048576; with always 1024)
  --pool[=always]           freed OpenCL buffers and blocks of CUDA's and HIP's device memory are kept and handed out
                            again, as long as that saves time (always: even if not)
  --pin[=always]            large copies between pageable memory and a device go through pinned buffers, as long as that
                            saves time (always: even if not)
  --ocl-chunk[=BYTES]       large OpenCL transfers are split into pieces
  --shadow                  change no result; sum a second time as --bf16-wire would, and report error and time
  --report FILE             write a report as JSON when the program ends

The environment: AIRAMP=off switches libairamp.so off, AIRAMP_DISABLE=mpi,… its hooks for these interfaces.
docs/airamp.md says more.
)";

int fail(const std::string& message) {
  std::fprintf(stderr, "airamp: %s\n", message.c_str());
  return 2;
}

std::string library_path() {
  namespace fs = std::filesystem;
  fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  for (const char* place : {"../lib/libairamp.so", "../lib/x86_64-linux-gnu/libairamp.so",
                            "../lib/aarch64-linux-gnu/libairamp.so", "libairamp.so"})
    if (fs::exists(here / place)) return fs::canonical(here / place);
  return {};
}

// Field 22 of /proc/PID/stat, 0 if there is no such process.
std::uint64_t start_time(std::uint32_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  std::size_t at = text.rfind(')');
  for (int field = 2; at != std::string::npos && field < 22; field++) at = text.find(' ', at + 1);
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + 1, nullptr, 10);
}

// Processes that a launcher starts with an `airamp run` each belong to one run: the launcher's.
std::string run_name() {
  for (const char* variable : {"AIRAMP_RUN", "PMIX_NAMESPACE", "SLURM_STEP_ID"})
    if (const char* value = std::getenv(variable); value && *value) {
      const char* job = std::getenv("SLURM_JOB_ID");
      return std::strcmp(variable, "SLURM_STEP_ID") == 0 ? "slurm." + std::string(job ? job : "") + "." + value : value;
    }
  // Hydra names no job: its proxy, which is our parent, does.
  if (std::getenv("PMI_RANK") || std::getenv("PMI_ID")) {
    auto parent = static_cast<std::uint32_t>(getppid());
    return "hydra." + std::to_string(parent) + "." + std::to_string(start_time(parent));
  }
  std::random_device random;
  char text[32];
  std::snprintf(text, sizeof text, "%08x%08x", random(), random());
  return text;
}

// A report from the start: what a program leaves that cannot be hooked, or is killed.
void begin_report(const std::string& file, const std::string& run, const std::string& why_not) {
  const std::string reason = why_not.empty() ? "no program of this run called it" : why_not;
  std::ofstream out(file);
  out << "{\n\"run\": \"" << run << "\",\n\"processes\": 0,\n\"hooks\": [";
  const char* comma = "";
  for (const char* api : Interposer::kApiNames) {
    out << comma << "\n{\"api\": \"" << api
        << "\", \"door\": \"\", \"calls\": 0, \"passed\": 0, \"state\": \"inactive\", \"reason\": \"" << reason
        << "\"}";
    comma = ",";
  }
  out << "\n],\n\"mechanisms\": [";
  comma = "";
  for (const char* name : Interposer::kMechanismNames) {
    out << comma << "\n{\"name\": \"" << name
        << "\", \"calls\": 0, \"bytes_saved\": 0, \"seconds_saved\": 0.000000000, \"state\": \"off\", \"reason\": \""
        << why_not << "\"}";
    comma = ",";
  }
  out << "\n]\n}\n";
}

bool is_number(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos && text.size() < 19;
}

int run(std::vector<std::string> arguments) {
  std::vector<std::string> forwarded = {"LD_PRELOAD", "OPENCL_LAYERS"};
  auto set = [](const char* name, const std::string& value) { setenv(name, value.c_str(), 1); };
  std::string report;
  std::size_t i = 0;
  for (; i < arguments.size(); i++) {
    const std::string& a = arguments[i];
    auto value = [&](const char* option) {
      std::size_t n = std::strlen(option);
      return a.compare(0, n, option) == 0 && a.size() > n + 1 && a[n] == '=' ? a.substr(n + 1) : std::string();
    };
    if (a == "--") {
      i++;
      break;
    }
    if (a.empty() || a[0] != '-') break;
    if (a == "--bf16-wire") {
      set("AIRAMP_BF16_WIRE", "1");
    } else if (value("--bf16-wire") == "always") {
      set("AIRAMP_BF16_WIRE", "always");
    } else if (auto mode = value("--bf16-mode"); mode == "A" || mode == "B" || mode == "D") {
      set("AIRAMP_BF16_MODE", mode);
    } else if (a == "--bf16-allgather") {
      set("AIRAMP_BF16_ALLGATHER", "1");
    } else if (auto least = value("--bf16-min"); is_number(least)) {
      set("AIRAMP_BF16_MIN", least);
    } else if (a == "--pool") {
      set("AIRAMP_POOL", "1");
    } else if (value("--pool") == "always") {
      set("AIRAMP_POOL", "always");
    } else if (a == "--pin") {
      set("AIRAMP_PIN", "1");
    } else if (value("--pin") == "always") {
      set("AIRAMP_PIN", "always");
    } else if (a == "--ocl-chunk") {
      set("AIRAMP_OCL_CHUNK", "1");
    } else if (auto bytes = value("--ocl-chunk"); is_number(bytes)) {
      if (std::stoull(bytes) < 4096)
        return fail("Chunks of " + bytes + " bytes are too small; --ocl-chunk takes 4096 at least.");
      set("AIRAMP_OCL_CHUNK", bytes);
    } else if (a == "--shadow") {
      set("AIRAMP_SHADOW", "1");
    } else if (a == "--report" && i + 1 < arguments.size()) {
      report = std::filesystem::absolute(arguments[++i]);
    } else if (!value("--report").empty()) {
      report = std::filesystem::absolute(value("--report"));
    } else {
      return fail("The option " + a + " is not known or lacks its value; airamp --help lists the options.");
    }
  }
  arguments.erase(arguments.begin(), arguments.begin() + static_cast<std::ptrdiff_t>(i));
  if (arguments.empty()) return fail("No program was named; airamp run [OPTION]... -- PROGRAM [ARGUMENT]...");

  Program program = examine(arguments[0]);
  if (program.path.empty()) {
    fail("The program " + arguments[0] + " was not found along PATH.");
    return 127;
  }
  std::string library = library_path();
  if (library.empty() && program.not_hookable.empty())
    program.not_hookable = "libairamp.so was not found beside this command";
  const char* off = std::getenv("AIRAMP");
  if (off && std::strcmp(off, "off") == 0) program.not_hookable = "AIRAMP=off is set";
  if (!report.empty()) {
    std::string name = run_name();
    bool launched = std::getenv("PMIX_NAMESPACE") || std::getenv("PMI_RANK") || std::getenv("PMI_ID") ||
                    std::getenv("SLURM_STEP_ID") || std::getenv("AIRAMP_RUN");
    set("AIRAMP_REPORT", report);
    set("AIRAMP_RUN", name);
    // Under a launcher, the others of this run may have written already.
    if (!launched || !program.not_hookable.empty()) begin_report(report, name, program.not_hookable);
  }
  if (!program.not_hookable.empty()) {
    fail("Nothing is hooked in " + arguments[0] + ": " + program.not_hookable + ".");
  }
  // What a program that cannot be hooked starts may be hookable, unless its linker stops at our library.
  if (!library.empty() && !program.preload_breaks) {
    const char* before = std::getenv("LD_PRELOAD");
    std::string preload = library;
    if (before && std::string(before).find(library) != std::string::npos) {
      preload = before;
    } else if (before && *before) {
      preload += std::string(":") + before;
    }
    setenv("LD_PRELOAD", preload.c_str(), 1);
    // OpenCL loaders take layers by this list, the last first: next to the program, under the user's own.
    const char* layers = std::getenv("OPENCL_LAYERS");
    if (!layers || std::string(layers).find(library) == std::string::npos)
      setenv("OPENCL_LAYERS", (layers && *layers ? library + ":" + layers : library).c_str(), 1);
    // Ranks on other hosts get the user's own variables too.
    for (char** variable = environ; *variable; variable++) {
      std::string name(*variable, std::strcspn(*variable, "="));
      if (name.rfind("AIRAMP", 0) == 0) forwarded.push_back(name);
    }
    if (program.open_mpi_launcher) arguments = with_forwarding(arguments, forwarded);
  }
  std::vector<char*> pointers;
  for (std::string& a : arguments) pointers.push_back(a.data());
  pointers.push_back(nullptr);
  execv(program.path.c_str(), pointers.data());
  int error = errno;
  fail("The program " + program.path + " cannot be started: " + std::strerror(error) + ".");
  return error == ENOENT ? 127 : 126;
}

// The pages of the processes that this user may see; those of processes that are gone are deleted.
std::vector<const Page*> pages() {
  std::vector<const Page*> found;
  std::string pattern = geteuid() == 0 ? "/dev/shm/airamp-*/*" : "/dev/shm/airamp-" + std::to_string(geteuid()) + "/*";
  glob_t names = {};
  glob(pattern.c_str(), 0, nullptr, &names);
  for (std::size_t i = 0; i < names.gl_pathc; i++) {
    int file = open(names.gl_pathv[i], O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) continue;
    struct stat info = {};
    void* memory = MAP_FAILED;
    if (fstat(file, &info) == 0 && S_ISREG(info.st_mode) && info.st_size == sizeof(Page))
      memory = mmap(nullptr, sizeof(Page), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) continue;
    auto* page = static_cast<const Page*>(memory);
    if (page->magic != Interposer::kPageMagic || page->version != Interposer::kPageVersion) continue;
    if (start_time(page->pid) != page->start_time) {
      unlink(names.gl_pathv[i]);
      continue;
    }
    found.push_back(page);
  }
  globfree(&names);
  return found;
}

const char* state_name(const Interposer::MechanismRow& row) {
  auto state = static_cast<unsigned>(row.state.load());
  return state < 4 ? Interposer::kStateNames[state] : "unknown";
}

void print_mechanisms(const Page& page) {
  for (const auto& row : page.mechanisms) {
    auto calls = static_cast<unsigned long long>(row.calls.load());
    std::printf("  %-10s %-9s", row.name, state_name(row));
    if (calls)
      std::printf(" %llu calls, %.1f MB and %.3f s saved", calls, static_cast<double>(row.bytes_saved.load()) * 1e-6,
                  static_cast<double>(row.nanoseconds_saved.load()) * 1e-9);
    if (row.reason[0]) std::printf("%s (%.200s)", calls ? "" : " ", row.reason);
    std::printf("\n");
  }
}

void print_status(const Page& page) {
  unsigned bound = 0;
  std::uint64_t calls = 0;
  for (unsigned i = 0; i < page.row_count && i < Interposer::kMaxRows; i++) {
    bound += page.rows[i].door[0] != 0;
    calls += page.calls_of(i);
  }
  std::printf("%u %.256s: %u functions hooked, %llu calls seen\n", page.pid, page.program, bound,
              static_cast<unsigned long long>(calls));
  print_mechanisms(page);
}

void explain(const Page& page) {
  std::printf("Process %u runs %.256s with libairamp.so.\n", page.pid, page.program);
  bool any = false;
  for (unsigned i = 0; i < page.row_count && i < Interposer::kMaxRows; i++) {
    const auto& row = page.rows[i];
    if (!row.door[0]) continue;
    any = true;
    auto passed = static_cast<unsigned long long>(row.passed.load());
    std::printf("%.48s is hooked through %.12s: %llu calls", row.name, row.door,
                static_cast<unsigned long long>(page.calls_of(i)));
    if (passed) std::printf(", %llu passed through unchanged, the last because %.140s", passed, row.reason);
    std::printf(".\n");
  }
  if (!any) std::printf("Nothing is hooked: no function of an interface that libairamp knows has been called yet.\n");
  std::printf("Mechanisms:\n");
  print_mechanisms(page);
}

int status(const std::vector<std::string>& arguments, bool in_detail) {
  unsigned long wanted = arguments.empty() ? 0 : std::strtoul(arguments[0].c_str(), nullptr, 10);
  if (in_detail && wanted == 0) return fail("airamp explain needs the number of a process.");
  bool any = false;
  for (const Page* page : pages()) {
    if (wanted && page->pid != wanted) continue;
    any = true;
    in_detail ? explain(*page) : print_status(*page);
  }
  if (any) return 0;
  if (!wanted) {
    std::puts("No running program has libairamp.so in it.");
    return 0;
  }
  return fail("Process " + std::to_string(wanted) +
              " is not running with libairamp.so, or belongs to another user; start it with: airamp run -- PROGRAM");
}

}  // namespace
}  // namespace AIRamp::Command

int main(int argc, char** argv) {
  using namespace AIRamp::Command;
  std::vector<std::string> arguments(argv + (argc > 1 ? 2 : 1), argv + argc);
  std::string command = argc > 1 ? argv[1] : "--help";
  if (command == "run") return run(std::move(arguments));
  if (command == "status") return status(arguments, false);
  if (command == "explain") return status(arguments, true);
  if (command == "install" || command == "uninstall") return install(library_path(), arguments, command == "uninstall");
  if (command == "--help" || command == "help") return std::fputs(kHelp, stdout) < 0;
  if (command == "--version") return std::puts("airamp " AIRAMP_VERSION) < 0;
  return fail("The command " + command + " is not known; airamp --help lists them.");
}
