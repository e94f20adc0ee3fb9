// Runs conformance cases (folders that cases.py and the random generator write) through the public API, each in a
// process of its own, and compares outputs and inferred types with what the case says.
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "ai_vmm/vmm.hpp"
#include "base/numbers.hpp"
#include "base/text.hpp"
#include "hal/device.hpp"
#include "import/onnx.hpp"
#include "ops/ref.hpp"

namespace fs = std::filesystem;
using namespace ai_vmm;

namespace {

constexpr char kHelp[] =
    R"(usage: conformance [--data DIR] [--backend NAME] [--suite NAME]... [--filter TEXT] [--list FILE] [--jobs N] [--batch N]
                   [--threads N] [--timeout SECONDS] [--measured] [--passed] [--refusals [--least N]]

  --data DIR      folder of suites of cases (default build/conformance)
  --backend NAME  backend to deploy on (default reference); nothing falls back to the reference in silence
  --suite NAME    only this suite; may be given again
  --filter TEXT   only cases whose name contains TEXT
  --list FILE     known exceptions: lines "<backend or *> <case> <reason>"; a listed case that passes fails the run;
                  "-<backend> <case> <reason>" takes back, for that backend, what a line above lists
  --jobs N        cases at a time (default 2)
  --batch N       cases that one process runs, one after the other (default 1); a crash costs one case nevertheless
  --threads N     threads of each deployment (default 1)
  --timeout S     seconds a case may take (default 60)
  --measured      kernels are chosen by measurement, as users' deployments do; otherwise by a fixed rule
  --passed        print the names of cases that pass, too
  --refusals      for backends that host another engine: nodes that it refuses fall to the reference, and the case
                  counts as refused; its values must be right nevertheless
  --least N       with --refusals: fewer cases than N that run wholly on the backend fail the run
)";

struct Options {
  fs::path data = "build/conformance";
  std::string backend = "reference", filter, list;
  std::set<std::string> suites;
  int jobs = 2, batch = 1, threads = 1, timeout = 60, least = 0;
  bool print_passed = false, refusals = false, measured = false;
};

struct Slot {  // one data file of a case: input_<k>.pb or output_<k>.pb
  Type type;
  std::string name;
};

struct Case {
  Case(std::string suite_name, std::string case_name, fs::path path)
      : suite(std::move(suite_name)), name(std::move(case_name)), folder(std::move(path)) {}
  std::string suite, name;
  fs::path folder;
  double rtol = 1e-3, atol = 1e-7;
  std::vector<Slot> inputs, outputs;
};

// ---------------------------------------------------------------- reading

Result<std::string> read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Status(Code::not_found, path.string() + " cannot be read.");
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// "seq(optional(tensor))" as cases.py writes it; element types are in the data.
Type parse_kind(std::string_view text) {
  size_t open = text.find('(');
  if (open == std::string_view::npos)
    return text == "map" ? Type::map(DType::undefined, {}) : Type::tensor(DType::undefined);
  Type inner = parse_kind(text.substr(open + 1, text.size() - open - 2));
  return text.substr(0, open) == "seq" ? Type::sequence(std::move(inner)) : Type::optional(std::move(inner));
}

Status read_description(Case& c) {
  std::istringstream text(AI_VMM_TAKE(read_file(c.folder / "case.txt")));
  for (std::string line; std::getline(text, line);) {
    size_t a = line.find(' ');
    std::string key = line.substr(0, a), rest = line.substr(a + 1);
    if (key == "rtol") c.rtol = std::strtod(rest.c_str(), nullptr);
    if (key == "atol") c.atol = std::strtod(rest.c_str(), nullptr);
    if (key != "input" && key != "output") continue;
    size_t b = rest.find(' ');
    (key == "input" ? c.inputs : c.outputs).push_back({parse_kind(rest.substr(0, b)), rest.substr(b + 1)});
  }
  return {};
}

Result<Data> read_data(const fs::path& path, const Type& type) {
  std::string bytes = AI_VMM_TAKE(read_file(path));
  auto data = read_onnx_data(std::as_bytes(std::span(bytes)), type);
  if (!data.ok()) return std::move(data).status().during("reading " + path.filename().string());
  return data;
}

// ---------------------------------------------------------------- comparing

std::string describe(const Data& d) {
  if (d.empty()) return "nothing";
  if (d.is_tensor()) return std::string(name(d.tensor().dtype())) + to_string(d.tensor().shape());
  if (d.is_sequence()) return "a sequence of " + std::to_string(d.sequence().size());
  return "a map";
}

Status mismatch(const std::string& where, const std::string& what) { return {Code::data_loss, where + ": " + what}; }

std::string at(const Tensor& t, int64_t flat) {
  Shape index(t.shape().size());
  for (size_t i = index.size(); i-- > 0;) {
    index[i] = flat % t.shape()[i];
    flat /= t.shape()[i];
  }
  return to_string(index);
}

// |actual - expected| ≤ atol + rtol·|expected|, NaN equals NaN and infinities themselves, as numpy.allclose.
bool allclose(double actual, double expected, double rtol, double atol) {
  if (std::isnan(actual) || std::isnan(expected)) return std::isnan(actual) && std::isnan(expected);
  if (std::isinf(actual) || std::isinf(expected)) return actual == expected;
  return std::fabs(actual - expected) <= atol + rtol * std::fabs(expected);
}

Status compare_tensors(const std::string& where, const Tensor& actual, const Tensor& expected, double rtol,
                       double atol) {
  if (actual.dtype() != expected.dtype() || actual.shape() != expected.shape())
    return mismatch(where, "got " + describe(actual) + ", expected " + describe(expected));
  int64_t wrong = 0, first = 0;
  auto count = [&](int64_t i, bool equal) {
    if (!equal && wrong++ == 0) first = i;
  };
  auto report = [&](auto&& text_of) -> Status {
    if (wrong == 0) return {};
    return mismatch(where, std::to_string(wrong) + " of " + std::to_string(actual.count()) + " elements of " +
                               describe(actual) + " differ, first at " + at(actual, first) + ": got " +
                               text_of(actual) + ", expected " + text_of(expected));
  };
  auto number = [](double v) {
    char text[32];
    std::snprintf(text, sizeof text, "%.9g", v);
    return std::string(text);
  };
  DType type = actual.dtype();
  if (type == DType::string) {
    auto a = actual.as<std::string>(), e = expected.as<std::string>();
    for (int64_t i = 0; i < actual.count(); ++i) count(i, a[size_t(i)] == e[size_t(i)]);
    return report([&](const Tensor& t) { return "\"" + t.as<std::string>()[size_t(first)] + "\""; });
  }
  if (is_complex(type)) {
    auto a = ref::load<ref::Complex>(actual), e = ref::load<ref::Complex>(expected);
    for (size_t i = 0; i < a.size(); ++i) count(int64_t(i), std::abs(a[i] - e[i]) <= atol + rtol * std::abs(e[i]));
    return report([&](const Tensor& t) {
      auto v = (&t == &actual ? a : e)[size_t(first)];
      return number(v.real()) + "+" + number(v.imag()) + "i";
    });
  }
  if (is_float(type)) {
    if (type == DType::bf16) rtol = std::max(rtol, 0x1p-6);  // two units in the last place, as onnx's own runner
    for (int64_t i = 0; i < actual.count(); ++i)
      count(i, allclose(read_double(type, actual.data(), i), read_double(type, expected.data(), i), rtol, atol));
    return report([&](const Tensor& t) { return number(read_double(type, t.data(), first)); });
  }
  for (int64_t i = 0; i < actual.count(); ++i)
    count(i, read_int64(type, actual.data(), i) == read_int64(type, expected.data(), i));
  return report([&](const Tensor& t) { return std::to_string(read_int64(type, t.data(), first)); });
}

Status compare(const std::string& where, const Data& actual, const Data& expected, double rtol, double atol) {
  if (actual.index() != expected.index())
    return mismatch(where, "got " + describe(actual) + ", expected " + describe(expected));
  if (actual.is_tensor()) return compare_tensors(where, actual.tensor(), expected.tensor(), rtol, atol);
  if (actual.is_sequence()) {
    const Sequence &a = actual.sequence(), &e = expected.sequence();
    if (a.size() != e.size()) return mismatch(where, "got " + describe(actual) + ", expected " + describe(expected));
    for (size_t i = 0; i < a.size(); ++i)
      AI_VMM_TRY(compare(where + "[" + std::to_string(i) + "]", a[i], e[i], rtol, atol));
  }
  if (actual.is_map()) {
    AI_VMM_TRY(compare_tensors(where + " keys", actual.map().keys, expected.map().keys, rtol, atol));
    AI_VMM_TRY(compare_tensors(where + " values", actual.map().values, expected.map().values, rtol, atol));
  }
  return {};
}

// What the deployment says of an output before the run must hold of the output itself.
Status check_inferred(const Port& port, const Data& actual) {
  std::string where = "output " + port.name + " was inferred as " + port.type + " but is " + describe(actual);
  if (port.type.starts_with("seq(")) return actual.is_sequence() ? Status() : Status(Code::data_loss, where);
  if (!port.is_tensor || port.dtype == DType::undefined) return {};
  if (!actual.is_tensor() || actual.tensor().dtype() != port.dtype) return {Code::data_loss, where};
  if (port.type.find("[...]") != std::string::npos) return {};
  const Shape& shape = actual.tensor().shape();
  bool fits = shape.size() == port.shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = port.shape[i] == -1 || port.shape[i] == shape[i];
  return fits ? Status() : Status(Code::data_loss, where);
}

// ---------------------------------------------------------------- one case

// `refused` receives why nodes ran on the reference instead of the backend.
Status run_case(Case c, const Options& options, std::string& refused) {
  AI_VMM_TRY(read_description(c));
  VMM vmm;
  DeployOptions how;
  how.backend = options.backend;
  how.threads = options.threads;
  how.allow_reference = options.backend == "reference" || options.refusals;
  how.deterministic = !options.measured;
  how.seed = 1;
  auto deployed = vmm.deploy((c.folder / "model.onnx").string(), how);
  if (!deployed.ok()) return std::move(deployed).status().during("deploying");
  if (options.refusals)
    for (const Fallback& f : deployed->report().fallbacks)
      if (f.runs_on == "reference") refused += (refused.empty() ? "" : "; ") + f.op + ": " + f.reason;
  for (int set = 0;; ++set) {
    fs::path folder = c.folder / ("test_data_set_" + std::to_string(set));
    if (!fs::exists(folder)) return set > 0 ? Status() : Status(Code::not_found, "The case has no data set.");
    Inputs inputs;
    for (size_t k = 0; k < c.inputs.size(); ++k)
      inputs[c.inputs[k].name] =
          AI_VMM_TAKE(read_data(folder / ("input_" + std::to_string(k) + ".pb"), c.inputs[k].type));
    auto ran = deployed->run(inputs);
    if (!ran.ok()) return std::move(ran).status().during("running");
    for (size_t k = 0; k < c.outputs.size(); ++k) {
      const std::string& output = c.outputs[k].name;
      auto found = ran->find(output);
      if (found == ran->end()) return {Code::not_found, "Output " + output + " is missing."};
      Data expected = AI_VMM_TAKE(read_data(folder / ("output_" + std::to_string(k) + ".pb"), c.outputs[k].type));
      AI_VMM_TRY(compare("output " + output, found->second, expected, c.rtol, c.atol));
      for (const Port& port : deployed->outputs())
        if (port.name == output) AI_VMM_TRY(check_inferred(port, found->second));
    }
    // A second run reuses plan and arena and must give the same bits.
    auto again = deployed->run(inputs);
    if (!again.ok()) return std::move(again).status().during("running again");
    for (const auto& [output, value] : *ran)
      AI_VMM_TRY(compare("second run, output " + output, (*again)[output], value, 0, 0));
  }
}

// ---------------------------------------------------------------- processes

using Clock = std::chrono::steady_clock;

// A process that runs cases one after the other.
struct Worker {
  std::span<const Case> cases;  // the first one is running
  pid_t pid;
  int pipe;
  Clock::time_point deadline;  // of the first
  std::string text;            // what the worker wrote: for each case its stderr, kVerdict, the verdict, kEnd
};

constexpr char kVerdict = '\x01', kEnd = '\x02';
constexpr std::string_view kOk = "ok", kRefused = "refused: ";

Worker start(std::span<const Case> cases, const Options& options) {
  int ends[2];
  if (pipe(ends) != 0) {
    std::perror("conformance: pipe");
    std::exit(2);
  }
  std::fflush(nullptr);
  pid_t pid = fork();
  if (pid < 0) {
    std::perror("conformance: fork");
    std::exit(2);
  }
  if (pid == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    for (const Case& c : cases) {
      std::string refused;
      Status status = run_case(c, options, refused);
      std::string verdict = kVerdict +
                            (!status.ok()      ? status.message()
                             : refused.empty() ? std::string(kOk)
                                               : std::string(kRefused) + refused) +
                            kEnd;
      for (size_t done = 0; done < verdict.size();) {
        ssize_t n = write(STDERR_FILENO, verdict.data() + done, verdict.size() - done);
        if (n <= 0) break;
        done += size_t(n);
      }
    }
    _exit(0);
  }
  close(ends[1]);
  return {cases, pid, ends[0], Clock::now() + std::chrono::seconds(options.timeout), ""};
}

// Takes the first case's verdict from the text: "" when it passed wholly on the backend, otherwise why not; begins with
// kRefused when the reference helped. False: there is none yet.
bool take_verdict(Worker& w, std::string& why) {
  size_t end = w.text.find(kEnd);
  if (end == std::string::npos) return false;
  size_t mark = w.text.find(kVerdict);
  why = w.text.substr(mark + 1, end - mark - 1);
  if (why == kOk) why.clear();
  w.text.erase(0, end + 1);
  return true;
}

// How a worker left that made no verdict on its case.
std::string finish(Worker& w, bool late, int timeout) {
  if (late) kill(w.pid, SIGKILL);
  int status = 0;
  waitpid(w.pid, &status, 0);
  close(w.pipe);
  if (late) return "took longer than " + std::to_string(timeout) + " s";
  std::string how = WIFSIGNALED(status) ? std::string("killed by signal ") + strsignal(WTERMSIG(status))
                                        : "left with exit status " + std::to_string(WEXITSTATUS(status));
  std::string tail(trim(w.text));
  if (tail.size() > 400) tail = "…" + tail.substr(tail.size() - 400);
  return tail.empty() ? how : how + ": " + tail;
}

// Calls done(case, why) for each case, with its verdict or how its process left; those behind it get a new process.
template <class F>
void run_all(const std::vector<Case>& cases, const Options& options, F&& done) {
  std::vector<Worker> workers;
  const std::span<const Case> all(cases);
  size_t next = 0;
  while (next < cases.size() || !workers.empty()) {
    while (next < cases.size() && workers.size() < size_t(options.jobs)) {
      const size_t many = std::min(size_t(options.batch), cases.size() - next);
      workers.push_back(start(all.subspan(next, many), options));
      next += many;
    }
    std::vector<pollfd> fds;
    for (const Worker& w : workers) fds.push_back({w.pipe, POLLIN, 0});
    poll(fds.data(), nfds_t(fds.size()), 1000);
    for (size_t i = workers.size(); i-- > 0;) {
      Worker& w = workers[i];
      bool ended = false;
      if (fds[i].revents != 0) {
        char buffer[4096];
        ssize_t n = read(w.pipe, buffer, sizeof buffer);
        if (n > 0) w.text.append(buffer, size_t(n));
        ended = n <= 0;
      }
      for (std::string why; !w.cases.empty() && take_verdict(w, why);) {
        done(w.cases[0], why);
        w.cases = w.cases.subspan(1);
        w.deadline = Clock::now() + std::chrono::seconds(options.timeout);
      }
      bool late = !ended && Clock::now() > w.deadline;
      if (!ended && !late) continue;
      const std::string how = finish(w, late, options.timeout);
      std::span<const Case> left = w.cases;
      if (!left.empty()) {
        done(left[0], how);
        left = left.subspan(1);
      }
      workers.erase(workers.begin() + long(i));
      if (!left.empty()) workers.push_back(start(left, options));
    }
  }
}

// ---------------------------------------------------------------- the program

std::vector<Case> find_cases(const Options& options) {
  std::vector<Case> cases;
  for (const auto& suite : fs::directory_iterator(options.data)) {
    std::string suite_name = suite.path().filename();
    if (!suite.is_directory() || (!options.suites.empty() && !options.suites.contains(suite_name))) continue;
    for (const auto& folder : fs::directory_iterator(suite.path())) {
      std::string case_name = folder.path().filename();
      if (folder.is_directory() && case_name.find(options.filter) != std::string::npos)
        cases.emplace_back(suite_name, case_name, folder.path());
    }
  }
  std::ranges::sort(cases, {}, [](const Case& c) { return std::pair(c.suite, c.name); });
  return cases;
}

// Case name → reason, of the lines that speak of this backend.
std::map<std::string, std::string> read_exceptions(const Options& options) {
  std::map<std::string, std::string> listed;
  if (options.list.empty()) return listed;
  std::ifstream in(options.list);
  if (!in) {
    std::fprintf(stderr, "conformance: the list %s cannot be read.\n", options.list.c_str());
    std::exit(2);
  }
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (trim(line).empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string backend, name, reason;
    words >> backend >> name;
    std::getline(words, reason);
    if (trim(reason).empty()) {
      std::fprintf(stderr, "%s:%d: a line is \"<backend, *, or -backend> <case> <reason>\".\n", options.list.c_str(),
                   number);
      std::exit(2);
    }
    if (backend == "*" || backend == options.backend) listed[name] = trim(reason);
    if (backend == "-" + options.backend) listed.erase(name);
  }
  return listed;
}

Options parse(int argc, char** argv) {
  Options o;
  auto usage = [](const std::string& what) {
    std::fprintf(stderr, "conformance: %s\n%s", what.c_str(), kHelp);
    std::exit(2);
  };
  for (int i = 1; i < argc; ++i) {
    std::string flag = argv[i];
    if (flag == "--help") {
      std::fputs(kHelp, stdout);
      std::exit(0);
    }
    if (flag == "--passed" || flag == "--refusals" || flag == "--measured") {
      (flag == "--passed" ? o.print_passed : flag == "--refusals" ? o.refusals : o.measured) = true;
      continue;
    }
    if (i + 1 == argc) usage("option " + flag + " is unknown or lacks its value.");
    std::string value = argv[++i];
    auto positive = [&](int& target) {
      target = std::atoi(value.c_str());
      if (target < 1) usage(flag + " wants a positive number, not \"" + value + "\".");
    };
    if (flag == "--data")
      o.data = value;
    else if (flag == "--backend")
      o.backend = value;
    else if (flag == "--suite")
      o.suites.insert(value);
    else if (flag == "--filter")
      o.filter = value;
    else if (flag == "--list")
      o.list = value;
    else if (flag == "--jobs")
      positive(o.jobs);
    else if (flag == "--batch")
      positive(o.batch);
    else if (flag == "--threads")
      positive(o.threads);
    else if (flag == "--timeout")
      positive(o.timeout);
    else if (flag == "--least")
      positive(o.least);
    else
      usage("option " + flag + " is unknown.");
  }
  if (!fs::is_directory(o.data)) usage("there is no folder " + o.data.string() + "; cases.py makes it.");
  return o;
}

}  // namespace

int main(int argc, char** argv) {
  Options options = parse(argc, argv);
  std::vector<Case> cases = find_cases(options);
  std::map<std::string, std::string> listed = read_exceptions(options);
  if (cases.empty()) {
    std::fprintf(stderr, "conformance: no case in %s matches.\n", options.data.c_str());
    return 2;
  }
  // An engine's library is loaded once, not in every case's process. OpenCL's threads would not survive the fork.
  if (options.refusals && options.backend != "opencl")
    if (auto device = Device::open(options.backend); !device.ok()) {
      std::fprintf(stderr, "conformance: %s\n", device.status().message().c_str());
      return 2;
    }
  struct Count {
    int passed = 0, failed = 0, skipped = 0, refused = 0;
  };
  std::map<std::string, Count> by_suite;
  Count total;
  bool terminal = isatty(STDERR_FILENO) != 0;
  size_t finished = 0;
  run_all(cases, options, [&](const Case& c, std::string why) {
    Count& suite = by_suite[c.suite];
    bool refused = why.starts_with(kRefused);
    if (refused && options.print_passed) std::printf("ref  %s/%s: %s\n", c.suite.c_str(), c.name.c_str(), why.c_str());
    if (refused) why.clear();
    bool is_listed = listed.contains(c.name);
    if (why.empty() && is_listed)
      std::printf("FAIL %s/%s passes, but is listed: %s\n", c.suite.c_str(), c.name.c_str(), listed[c.name].c_str());
    else if (why.empty() && !refused && options.print_passed)
      std::printf("ok   %s/%s\n", c.suite.c_str(), c.name.c_str());
    else if (!why.empty() && !is_listed)
      std::printf("FAIL %s/%s: %s\n", c.suite.c_str(), c.name.c_str(), why.c_str());
    for (Count* n : {&suite, &total})
      ++(why.empty() == is_listed ? n->failed : is_listed ? n->skipped : refused ? n->refused : n->passed);
    if (++finished % 50 == 0 && terminal) std::fprintf(stderr, "\r%zu of %zu", finished, cases.size());
  });
  if (terminal) std::fputc('\r', stderr);
  std::printf("\n%-20s %8s %8s %8s %8s %8s\n", ("backend " + options.backend).c_str(), "passed", "refused", "failed",
              "listed", "share");
  for (const auto& [suite, n] : by_suite)
    std::printf("%-20s %8d %8d %8d %8d %7.1f%%\n", suite.c_str(), n.passed, n.refused, n.failed, n.skipped,
                100.0 * n.passed / (n.passed + n.refused + n.failed + n.skipped));
  std::printf("%d passed, %d refused, %d failed, %d listed\n", total.passed, total.refused, total.failed,
              total.skipped);
  if (total.passed < options.least)
    std::printf("FAIL only %d cases ran wholly on %s; there must be %d.\n", total.passed, options.backend.c_str(),
                options.least);
  return total.failed == 0 && total.passed >= options.least ? 0 : 1;
}
