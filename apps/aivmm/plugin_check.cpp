// aivmm plugin-check: does a plugin keep the contract? Names of checks and JSON keys are a contract that scripts rely
// on.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "base/text.hpp"
#include "certify/certify.hpp"
#include "command.hpp"
#include "terminal.hpp"

namespace ai_vmm::cli {

namespace {
constexpr Option kOptions[] = {
    {"--json", nullptr, "Print the certificate as one JSON object."},
    {"--device", "N", "Check this device of the plugin; without it device 0."},
    {"--only", "NAME", "Only this check; may be given again. A wrong name lists them.", true},
    {"--timeout", "SECONDS", "The most that one check may take before it is killed; default 60."},
};

// What a thread frees stays in a cache of its own in the C library, and looks like a leak of drivers that free on other
// threads than they allocate on. Whether there are such caches is settled before a process starts, so it starts anew.
void start_without_thread_caches() {
  const char* given = std::getenv("GLIBC_TUNABLES");
  const std::string tunables = given ? given : "";
  if (tunables.find("glibc.malloc.tcache_count") != std::string::npos) return;
  setenv("GLIBC_TUNABLES", (tunables + (tunables.empty() ? "" : ":") + "glibc.malloc.tcache_count=0").c_str(), 1);
  std::ifstream file("/proc/self/cmdline");
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  if (!words.empty()) execv("/proc/self/exe", argv.data());  // where that fails, the check is only less sharp
}

int run_plugin_check(const Arguments& arguments) {
  start_without_thread_caches();
  auto device = arguments.integer("--device", 0, 0, 100'000);
  auto timeout = arguments.integer("--timeout", 60, 1, 100'000);
  for (const Status* s : {&device.status(), &timeout.status()})
    if (!s->ok()) return complain(*s, kUsage);
  CertifyOptions options;
  options.device = int(*device);
  options.timeout_seconds = int(*timeout);
  options.only = arguments.all("--only");
  auto certificate = check_plugin(arguments.operands[0], options);
  if (!certificate.ok())
    return complain(certificate.status(), certificate.status().code() == Code::invalid_argument ? kUsage : kModel);
  std::fputs(arguments.has("--json") ? (certificate->to_json() + "\n").c_str() : certificate->to_text().c_str(),
             stdout);
  return certificate->passed() ? kSuccess : kFailed;
}
}  // namespace

const Command kPluginCheck = {
    "plugin-check",
    "FILE.so|BACKEND",
    1,
    1,
    "Check that a backend plugin keeps the interface's contract",
    "Loads the plugin and tries it, each check in a process of its own: version skew, struct sizes, operators against\n"
    "the reference, bad arguments, cancelling, threads, leaks, failures of the host, and what it offers of level 3.\n"
    "Prints a certificate. Exit status: 0 passed, 1 failed, 2 wrong usage, 3 there is no plugin to check.\n\n"
    "Examples:\n"
    "  aivmm plugin-check build/libmychip.so\n"
    "  aivmm plugin-check sim --only leaks --json\n",
    kOptions,
    run_plugin_check};

}  // namespace ai_vmm::cli
