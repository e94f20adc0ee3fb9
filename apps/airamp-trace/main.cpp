// airamp-trace: records, replays and compares traces of allocations.
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "model.hpp"

using namespace AIRamp::Trace;

namespace {

constexpr int64_t kTimeToLive = 10'000'000'000;  // the pool's default
constexpr int kTrimSteps = 20, kSeeds = 5;

constexpr char kHelp[] =
    "airamp-trace COMMAND ...\n\n"
    "  record [--least BYTES] FILE -- PROGRAM [ARGUMENT...]\n"
    "      Runs the program and writes its host allocations of at least BYTES (default 65536) into FILE.\n"
    "  synthesise NAME SEED FILE\n"
    "      Writes a trace made by rule; without arguments the names are listed.\n"
    "  replay FILE...\n"
    "      What each predictor would have foreseen of the trace, and what the engine says of it.\n"
    "  compare [FILE...]\n"
    "      Tables in Markdown over all traces made by rule, several seeds each, and over the files.\n\n"
    "A trace is text: \"TIME_NS a BYTES\" for an allocation, \"TIME_NS r BYTES\" for a release, \"TIME_NS b\" where a "
    "step ends.\n";

int complain(const std::string& sentence, int code = 1) {
  std::fprintf(stderr, "airamp-trace: %s\n", sentence.c_str());
  return code;
}

int record(std::vector<std::string> words) {
  std::string least = "65536";
  if (words.size() > 2 && words[0] == "--least") {
    least = words[1];
    words.erase(words.begin(), words.begin() + 2);
  }
  if (words.size() < 3 || words[1] != "--" || least.find_first_not_of("0123456789") != least.npos)
    return complain("record [--least BYTES] FILE -- PROGRAM [ARGUMENT...]", 2);
  char self[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n <= 0) return complain("The place of this program cannot be found.");
  std::string folder(self, size_t(n));
  folder.resize(folder.rfind('/'));
  std::string library;
  for (const std::string& place : {folder + "/../lib/libairamp_record_host.so", folder + "/libairamp_record_host.so"})
    if (library.empty() && access(place.c_str(), R_OK) == 0) library = place;
  if (library.empty()) return complain("libairamp_record_host.so is not beside this program; build or install it.");
  const char* preload = std::getenv("LD_PRELOAD");
  setenv("LD_PRELOAD", preload && *preload ? (library + ":" + preload).c_str() : library.c_str(), 1);
  setenv("AIRAMP_TRACE_FILE", words[0].c_str(), 1);
  setenv("AIRAMP_TRACE_LEAST", least.c_str(), 1);
  std::vector<char*> arguments;
  for (size_t i = 2; i < words.size(); ++i) arguments.push_back(words[i].data());
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  return complain("\"" + words[2] + "\" cannot be started: " + std::strerror(errno) + ".", 127);
}

int synthesise(const std::vector<std::string>& words) {
  if (words.size() != 3) {
    for (const auto& w : workloads()) std::printf("%s: %s\n", w.name, w.what);
    return words.empty() ? 0 : 2;
  }
  for (const auto& w : workloads()) {
    if (words[0] != w.name) continue;
    FILE* f = std::fopen(words[2].c_str(), "we");
    if (!f) return complain("\"" + words[2] + "\" cannot be written.");
    AIRamp::Interposer::TraceWriter writer(fileno(f));
    for (const Obs& o : w.make(unsigned(std::strtoul(words[1].c_str(), nullptr, 10)))) writer.record(o);
    writer.flush();
    return std::fclose(f) == 0 ? 0 : complain("\"" + words[2] + "\" cannot be written.");
  }
  return complain("There is no workload \"" + words[0] + "\".", 2);
}

std::string percent(double share) {
  char text[16];
  std::snprintf(text, sizeof text, "%.0f %%", share * 100);
  return text;
}

// "98 % / 1 %", with the largest difference between seeds where there are several.
std::string cell(const std::vector<Accuracy>& seeds) {
  double hit = 0, waste = 0, least = 1, most = 0;
  for (const Accuracy& a : seeds) {
    hit += a.hit_rate / double(seeds.size()), waste += a.waste_rate / double(seeds.size());
    least = std::min(least, a.hit_rate), most = std::max(most, a.hit_rate);
  }
  std::string out = percent(hit) + " / " + percent(waste);
  if (most - least >= 0.01) out += " (hits " + percent(least) + " to " + percent(most) + ")";
  return out;
}

void accuracy_row(const std::string& name, const std::vector<Events>& runs) {
  std::vector<std::vector<Accuracy>> by_predictor(predictor_names().size());
  for (const Events& e : runs) {
    auto a = compare(e);
    for (size_t p = 0; p < a.size(); ++p) by_predictor[p].push_back(a[p]);
  }
  std::printf("| %s |", name.c_str());
  for (const auto& seeds : by_predictor) std::printf(" %s |", cell(seeds).c_str());
  std::puts("");
}

void accuracy_head() {
  std::printf("| trace |");
  for (const auto& n : predictor_names()) std::printf(" %s |", n.c_str());
  std::puts("\n|---|---|---|---|---|---|");
}

void pool_rows(const std::string& name, const Events& events) {
  static constexpr PoolPolicy kPolicies[] = {
      {"cache alone"}, {"kept longer", true, false}, {"pre-warmed", false, true}, {"both", true, true}};
  for (const PoolPolicy& policy : kPolicies) {
    PoolResult r = simulate(events, policy, kTimeToLive, kTrimSteps);
    double per = r.requests ? 1000.0 / double(r.requests) : 0;
    std::printf("| %s | %s | %.1f | %.1f | %s | %.3g |\n", name.c_str(), policy.name, double(r.driver_calls) * per,
                double(r.first_step_calls) * per,
                r.prewarmed ? percent(r.unused_bytes / r.prewarmed_bytes).c_str() : "nothing pre-warmed",
                r.idle_byte_seconds * per / (1 << 30));
  }
}

int read_all(const std::vector<std::string>& files, std::vector<std::pair<std::string, Events>>& out) {
  for (const std::string& file : files) {
    auto events = read_trace(file);
    if (!events.ok()) return complain(events.status().message());
    std::string name = file.substr(file.rfind('/') + 1);
    out.emplace_back(name.substr(0, name.find('.')), *std::move(events));
  }
  return 0;
}

int replay(const std::vector<std::string>& files) {
  std::vector<std::pair<std::string, Events>> traces;
  if (files.empty()) return complain("replay FILE...", 2);
  if (int e = read_all(files, traces)) return e;
  for (const auto& [name, events] : traces) {
    std::printf("%s: %zu observations, %llu steps; %s.\n", name.c_str(), events.size(),
                static_cast<unsigned long long>(count_steps(events)), explanation(events).c_str());
    auto a = compare(events);
    for (size_t p = 0; p < a.size(); ++p)
      std::printf("  %-18s hits %s, waste %s\n", predictor_names()[p].c_str(), percent(a[p].hit_rate).c_str(),
                  percent(a[p].waste_rate).c_str());
  }
  return 0;
}

int compare_all(const std::vector<std::string>& files) {
  std::vector<std::pair<std::string, Events>> recorded;
  if (int e = read_all(files, recorded)) return e;
  std::printf("## Needs foreseen / predicted bytes that nothing used\n\n");
  accuracy_head();
  for (const auto& w : workloads()) {
    std::vector<Events> runs;
    for (unsigned seed = 1; seed <= kSeeds; ++seed) runs.push_back(w.make(seed));
    accuracy_row(w.name, runs);
  }
  for (const auto& [name, events] : recorded) accuracy_row("*" + name + "*", {events});
  std::printf("\n## What the engine says after each trace\n\n");
  for (const auto& w : workloads()) std::printf("- %s: %s.\n", w.name, explanation(w.make(1)).c_str());
  for (const auto& [name, events] : recorded)
    std::printf("- *%s* (%zu observations): %s.\n", name.c_str(), events.size(), explanation(events).c_str());
  std::printf(
      "\n## In a model of the pool\n\n| trace | policy | driver calls | of these in the first step after a trim | "
      "pre-warmed bytes never used | idle GiB s |\n|---|---|---|---|---|---|\n");
  for (const auto& w : workloads()) pool_rows(w.name, w.make(1));
  for (const auto& [name, events] : recorded) pool_rows("*" + name + "*", events);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  std::string command = words.empty() ? "" : words[0];
  if (!words.empty()) words.erase(words.begin());
  int code = command == "record"       ? record(words)
             : command == "synthesise" ? synthesise(words)
             : command == "replay"     ? replay(words)
             : command == "compare"    ? compare_all(words)
             : command == "--help"     ? (std::fputs(kHelp, stdout), 0)
                                       : (std::fputs(kHelp, stderr), 2);
  return std::fflush(stdout) == 0 ? code : 1;
}
