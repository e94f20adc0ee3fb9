// airampd: watches the machine and tunes programs that run under libairamp.so.
#include <sys/signalfd.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <map>
#include <new>
#include <optional>
#include <thread>

#include "base/text.hpp"
#include "daemon.hpp"
#include "report.hpp"

using namespace AIRamp::Daemon;

namespace {

enum Exit : int { kSuccess = 0, kFailed = 1, kUsage = 2 };

struct OptionRow {
  const char* name;
  const char* value;  // null: a flag
  const char* doc;
};
constexpr OptionRow kOptions[] = {
    {"--mode", "MODE", "off, advise (the default), supervised or auto"},
    {"--dry-run", nullptr, "Say what would be changed; touch and publish nothing"},
    {"--once", nullptr, "Look twice, a second apart, and leave; in mode auto, publish what that gives"},
    {"--explain", nullptr,
     "With --once: print every reading, what is reckoned from them, and every key with its reason"},
    {"--period", "SECONDS", "Between two looks at the machine; default 2"},
    {"--veto-window", "SECONDS", "In mode supervised: how long a change waits for a veto; default 60"},
    {"--metrics", "ADDRESS:PORT", "Serve Prometheus there, under /metrics"},
    {"--folder", "DIR", "Publish in this folder, not in the usual one"},
    {"--sys-root", "DIR", "Read this tree in place of /sys"},
    {"--proc-root", "DIR", "Read this tree in place of /proc"},
    {"--vendor-libraries", "DIR", "Look for libnvidia-ml and librocm_smi64 here and nowhere else"},
    {"--status", nullptr, "Ask the running daemon what it changed, what waits, and why"},
    {"--approve", "KEY|all", "Make a change that waits, in any mode"},
    {"--veto", "KEY|all", "Forbid a change that waits, or take back one that is being watched"},
    {"--set-mode", "MODE", "Change the mode of the running daemon"},
    {"--check", "FILE", "Say what is wrong with an edited tuning.conf; publish nothing"},
    {"--version", nullptr, "Print the version"},
    {"--help", nullptr, "Print this text"},
};

std::string help() {
  std::string out =
      "airampd [OPTION...]\n\n"
      "Reads accelerators, network, disks and memory pressure, and publishes values that programs under libairamp.so\n"
      "follow while they run: tuning.conf in /dev/shm/airamp-accel. Edits of that file are checked and published "
      "too.\n\n"
      "Modes: off publishes the defaults and what people hold. advise proposes, and a person approves. supervised "
      "announces\n"
      "a change and makes it unless a person vetoes it in time. auto makes it at once. A change that did not help is "
      "taken\n"
      "back in every mode.\n\n";
  for (const auto& o : kOptions) {
    std::string left = std::string("  ") + o.name + (o.value ? std::string(" ") + o.value : "");
    left.resize(std::max<size_t>(left.size() + 1, 28), ' ');
    out += left + o.doc + ".\n";
  }
  out += "\nKeys of tuning.conf\n";
  for (int i = 0; i < kKeyCount; ++i)
    out += std::string("  ") + kKeys[i].name + ": " + kKeys[i].meaning + " (default " +
           value_text(Key{i}, kKeys[i].fallback) + ")\n";
  return out + "\nExamples\n  airampd --once --explain\n  airampd --mode supervised --metrics 127.0.0.1:9479\n";
}

int complain(const Status& s, Exit code) {
  std::fprintf(stderr, "airampd: %s\n", s.message().c_str());
  return code;
}

using Given = std::map<std::string, std::string, std::less<>>;

Result<Given> parse(int argc, char** argv) {
  Given given;
  std::vector<std::string> known;
  for (const auto& o : kOptions) known.emplace_back(o.name);
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i], value;
    size_t equals = word.find('=');
    bool has_value = equals != word.npos;
    if (has_value) value = word.substr(equals + 1), word.resize(equals);
    const OptionRow* option = nullptr;
    for (const auto& o : kOptions)
      if (word == o.name) option = &o;
    if (!option) {
      std::string near = ai_vmm::nearest(word, known);
      return Status(Code::invalid_argument,
                    "There is no option \"" + word + "\"" +
                        (near.empty() ? "; see airampd --help." : "; did you mean " + near + "?"));
    }
    if (!option->value && has_value) return Status(Code::invalid_argument, word + " takes no value.");
    if (option->value && !has_value) {
      if (++i == argc) return Status(Code::invalid_argument, word + " needs a value: " + option->value + ".");
      value = argv[i];
    }
    given[word] = value;
  }
  return given;
}

Result<int64_t> seconds(const Given& given, const char* option, double fallback, double least, double most) {
  auto it = given.find(option);
  double v = fallback;
  if (it != given.end()) {
    const std::string& t = it->second;
    auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), v);
    if (error != std::errc() || end != t.data() + t.size() || !(v >= least && v <= most))
      return Status(Code::invalid_argument, std::string(option) + " is \"" + t +
                                                "\", but must be a number of seconds from " + std::to_string(least) +
                                                " to " + std::to_string(most) + ".");
  }
  return int64_t(v * 1e9);
}

Result<Mode> mode_option(const Given& given, const char* option, Mode fallback) {
  auto it = given.find(option);
  if (it == given.end()) return fallback;
  if (auto m = mode_named(it->second)) return *m;
  return Status(Code::invalid_argument,
                "There is no mode \"" + it->second + "\"; there are off, advise, supervised and auto.");
}

Result<Options> options_of(const Given& given) {
  Options o;
  auto text = [&](const char* name, const std::string& fallback) {
    auto it = given.find(name);
    return it == given.end() ? fallback : it->second;
  };
  o.policy.mode = AI_VMM_TAKE(mode_option(given, "--mode", Mode::advise));
  o.policy.dry_run = given.count("--dry-run") > 0;
  o.period_ns = AI_VMM_TAKE(seconds(given, "--period", 2, 0.05, 3600));
  o.policy.veto_window_ns = AI_VMM_TAKE(seconds(given, "--veto-window", 60, 0, 86400));
  o.http = text("--metrics", "");
  std::string folder = text("--folder", "");
  o.folders = folder.empty() ? Publication::default_candidates() : std::vector<std::string>{folder};
  o.roots = {text("--sys-root", "/sys"), text("--proc-root", "/proc")};
  o.library_folder = text("--vendor-libraries", "");
  return o;
}

void log_line(const std::string& sentence) { std::fprintf(stderr, "airampd: %s\n", sentence.c_str()); }

int once(Options options, bool explain) {
  options.policy.confirm = 1;
  bool publishes = options.policy.mode == Mode::automatic && !options.policy.dry_run;
  if (!publishes) options.policy.dry_run = true;
  options.http.clear();
  Observer observer(options.roots, options.library_folder);
  observer.look(steady_ns());
  std::this_thread::sleep_for(std::chrono::seconds(1));
  Observation seen = observer.look(steady_ns());
  auto daemon = Daemon::start(
      options, publishes || !explain ? log_line : [](const std::string&) {});
  if (!daemon.ok()) return complain(daemon.status(), kFailed);
  (*daemon)->observed(seen);
  if (explain) std::fputs((describe(seen, observer.absent()) + describe_keys((*daemon)->controller())).c_str(), stdout);
  return std::fflush(stdout) == 0 ? kSuccess : kFailed;
}

int ask(const Options& options, const std::string& line) {
  std::vector<std::string> reasons;
  for (const std::string& folder : options.folders) {
    auto answer = ask_daemon(folder, line);
    if (!answer.ok()) {
      reasons.push_back(answer.status().message());
      continue;
    }
    bool failed = answer->starts_with("error: ");
    std::fputs(answer->c_str() + (failed ? 7 : 0), failed ? stderr : stdout);
    return failed ? kFailed : kSuccess;
  }
  return complain(Status(Code::unavailable, ai_vmm::join(reasons, " ")), kFailed);
}

int check(const std::string& path) {
  FILE* f = std::fopen(path.c_str(), "re");
  if (!f) return complain(Status(Code::not_found, "\"" + path + "\" cannot be opened."), kFailed);
  std::string text(AIRamp::Interposer::kMostTuningBytes + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), f));
  std::fclose(f);
  if (text.size() > AIRamp::Interposer::kMostTuningBytes)
    return complain(Status(Code::out_of_range, "\"" + path + "\" is larger than 16 KiB."), kFailed);
  auto edit = parse_edit(text, Settings());
  if (!edit.ok()) return complain(edit.status(), kFailed);
  std::puts("It would be published as it stands.");
  return kSuccess;
}

int serve(Options options) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // whoever reads our log may go away
  int stop = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  auto daemon = Daemon::start(std::move(options), log_line);
  if (!daemon.ok()) return complain(daemon.status(), kFailed);
  Status s = (*daemon)->run(stop);
  close(stop);
  return s.ok() ? kSuccess : complain(s, kFailed);
}

int dispatch(int argc, char** argv) {
  auto given = parse(argc, argv);
  if (!given.ok()) return complain(given.status(), kUsage);
  if (given->count("--help")) return std::fputs(help().c_str(), stdout) < 0 ? kFailed : kSuccess;
  if (given->count("--version")) return std::puts("airampd " AI_VMM_VERSION) < 0 ? kFailed : kSuccess;
  if (auto c = given->find("--check"); c != given->end()) return check(c->second);
  auto options = options_of(*given);
  if (!options.ok()) return complain(options.status(), kUsage);
  if (given->count("--status")) return ask(*options, "status");
  for (auto [option, verb] : {std::pair{"--approve", "approve "}, {"--veto", "veto "}, {"--set-mode", "mode "}})
    if (auto a = given->find(option); a != given->end()) return ask(*options, verb + a->second);
  if (given->count("--explain") && !given->count("--once"))
    return complain(Status(Code::invalid_argument, "--explain goes with --once."), kUsage);
  if (given->count("--once")) return once(*std::move(options), given->count("--explain") > 0);
  return serve(*std::move(options));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return dispatch(argc, argv);
  } catch (const std::bad_alloc&) {
    return complain(Status(Code::resource_exhausted, "The machine has no memory left for this."), kFailed);
  } catch (const std::exception& e) {
    return complain(Status(Code::internal, std::string("An unexpected failure: ") + e.what() + "."), kFailed);
  }
}
