// aivmm run: load, feed, time, tell. Options, JSON names and exit codes are a contract that scripts rely on.
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ai_vmm/vmm.hpp"
#include "base/npy.hpp"
#include "base/text.hpp"
#include "command.hpp"
#include "compile.hpp"
#include "hal/backends.hpp"
#include "image.hpp"
#include "import/onnx.hpp"
#include "inputs.hpp"
#include "runtime/deployment.hpp"
#include "runtime/settings.hpp"
#include "summary.hpp"
#include "terminal.hpp"

namespace ai_vmm::cli {

namespace {
const std::vector<Option>& options() {
  static const std::vector<Option> all = [] {
    std::vector<Option> o = {
        {"--input", "FILE.npz|NAME=FILE",
         "Inputs by name. FILE is .npy, .npz, .pb (a TensorProto), .png, .jpg, or else raw little-endian bytes.", true},
        {"--random", "SEED", "Draw inputs that are not given: floats N(0,1), integers 0 or 1, booleans true."},
        {"--shape", "NAME=1x3x224x224", "Shape of an input that is drawn, or read from raw bytes.", true},
        {"--output", "FILE.npz|NAME=FILE", "Write the outputs; with NAME one of them, to a .npy or .pb file.", true},
        {"--backend", "NAME", "Run on this backend; auto, or several separated by commas: the fastest by measurement."},
        {"--failover", "DEVICES", "Where requests run when the device fails: names separated by commas, none or auto."},
        {"--standby", nullptr, "Compile for the first of them at load."},
        {"--threads", "N", "Compute threads; without it the fastest count by measurement."},
        {"--precision", "KIND", "Arithmetic; without it as the model says.", false, "f32|bf16|int8|auto"},
        {"--memory-limit", "BYTES", "Tensors alive at once: 1500000, 512M, 2GiB or 50% of the machine; default 80%."},
        {"--warmup", "N", "Untimed runs before the timed ones; default 3, or 0 without --repeat."},
        {"--repeat", "N", "Timed runs; default 1."},
        {"--json", nullptr, "Print one JSON object instead of the summary."},
        {"--decode", "HOW", "Read text off the first output; auto does so when the metadata has the characters.", false,
         "auto|ctc|none"},
        {"--copy-weights", nullptr, "Read weights into memory instead of mapping the file."},
        {"--allow-links", nullptr, "Follow external data through links that leave the model's folder."},
        {"--allow-reference", nullptr, "Let nodes that no device can run fall to the slow reference; the default."},
        {"--strict", nullptr, "Fail when a node would fall to the reference."},
        {"--deterministic", nullptr, "Pin the kernels: nothing is chosen by measurement."},
    };
    auto image = image_options();
    o.insert(o.end(), image.begin(), image.end());
    return o;
  }();
  return all;
}

// The most memory that this process has held. Not getrusage's figure, which a parent's survives exec in.
int64_t peak_rss_bytes() {
  std::string line;
  for (std::ifstream in("/proc/self/status"); std::getline(in, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::atoll(line.c_str() + 6) * 1024;
  return 0;
}

// Times in microseconds. Percentiles are nearest-rank; the median of an even count is the mean of the middle two.
struct Latency {
  double first = 0, median = 0, p90 = 0, p99 = 0, least = 0;

  static Latency of(double first, std::vector<double> times) {
    std::sort(times.begin(), times.end());
    size_t n = times.size();
    auto rank = [&](double share) { return times[static_cast<size_t>(std::ceil(share * double(n))) - 1]; };
    return {first, n % 2 ? times[n / 2] : (times[n / 2 - 1] + times[n / 2]) / 2, rank(0.9), rank(0.99), times[0]};
  }
};

struct Timed {
  Outputs outputs;
  Latency latency;
};

// The first run counts as a warm-up if there are any, as a timed one otherwise.
Result<Timed> run_timed(const Deployment& model, const Inputs& inputs, int64_t warmup, int64_t repeat) {
  Timed timed;
  std::vector<double> times;
  double first = 0;
  std::optional<Progress> progress(std::in_place, "First run, which compiles and measures kernels that are new");
  for (int64_t i = 0; i < warmup + repeat; ++i) {
    auto start = std::chrono::steady_clock::now();
    auto outputs = model.run(inputs);
    double us = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
    if (!outputs.ok()) return std::move(outputs).status();
    if (i == 0) {
      first = us;
      progress.emplace("Running");
    }
    if (i >= warmup) times.push_back(us);
    timed.outputs = *std::move(outputs);
  }
  timed.latency = Latency::of(first, std::move(times));
  return timed;
}

Status check_output_words(const Arguments& arguments, const std::vector<Port>& ports) {
  for (const std::string& word : arguments.all("--output")) {
    size_t equals = word.rfind('=');
    if (equals == word.npos) {
      if (!word.ends_with(".npz"))
        return Status(Code::invalid_argument, "--output \"" + word + "\" is neither FILE.npz nor NAME=FILE.");
      continue;
    }
    std::string name = word.substr(0, equals), path = word.substr(equals + 1);
    std::vector<std::string> names;
    for (const Port& p : ports) names.push_back(p.name);
    if (std::find(names.begin(), names.end(), name) == names.end())
      return Status(Code::invalid_argument,
                    "The model has no output \"" + name + "\"; its outputs are " + join(names, ", ") + ".");
    if (!path.ends_with(".npy") && !path.ends_with(".pb"))
      return Status(Code::invalid_argument, "--output \"" + word + "\": the file must end in .npy or .pb.");
  }
  return {};
}

Status write_outputs(const Arguments& arguments, const Outputs& outputs) {
  auto tensor = [](const std::string& name, const Data& data) -> Result<Tensor> {
    if (data.is_tensor()) return data.tensor();
    return Status(Code::unimplemented,
                  "Output \"" + name + "\" is a " + type_text(data) + "; only tensors can be written to files.");
  };
  for (const std::string& word : arguments.all("--output")) {
    size_t equals = word.rfind('=');
    if (equals == word.npos) {
      NamedTensors arrays;
      for (const auto& [name, data] : outputs) {
        if (data.empty()) continue;  // an optional output that is not there
        Tensor t = AI_VMM_TAKE(tensor(name, data));
        arrays.emplace_back(name, std::move(t));
      }
      AI_VMM_TRY(write_npz(word, arrays));
      continue;
    }
    std::string name = word.substr(0, equals), path = word.substr(equals + 1);
    Tensor t = AI_VMM_TAKE(tensor(name, outputs.at(name)));
    AI_VMM_TRY(path.ends_with(".pb") ? write_file(path, write_onnx_tensor(t, name)) : write_npy(path, t));
  }
  return {};
}

void print_json(const Report& report, const Timed& timed, int64_t warmup, int64_t repeat, const Feed& feed,
                const std::optional<ReadText>& read) {
  auto j = nlohmann::ordered_json::parse(report.to_json());
  const Latency& l = timed.latency;
  j["first_us"] = l.first;
  j["median_us"] = l.median;
  j["p90_us"] = l.p90;
  j["p99_us"] = l.p99;
  j["min_us"] = l.least;
  j["repeat"] = repeat;
  j["warmup"] = warmup;
  j["peak_rss_bytes"] = peak_rss_bytes();
  j["fallback_nodes"] = report.fallbacks.size();
  j["inputs"] = nlohmann::ordered_json::object();
  for (const auto& [name, data] : feed.inputs)
    j["inputs"][name] = {{"type", type_text(data)}, {"from", feed.said.at(name)}};
  j["outputs"] = nlohmann::ordered_json::object();
  for (const auto& [name, data] : timed.outputs) j["outputs"][name] = {{"type", type_text(data)}};
  if (read) {
    j["text"] = read->text;
    j["confidence"] = read->confidence;
  }
  // Names of a model may be any bytes; JSON is UTF-8.
  std::puts(j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
}

void print_row(const char* what, const std::string& text) {
  std::printf("%s%-11s%s%s\n", style(stdout, Style::bold), what, style(stdout, Style::plain), text.c_str());
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

void print_summary(const Deployment& model, const Report& r, const Timed& timed, int64_t repeat, const Feed& feed,
                   const std::optional<ReadText>& read) {
  if (read) {
    char confidence[32];
    std::snprintf(confidence, sizeof confidence, "%.1f%%", 100 * read->confidence);
    print_row("Text", std::string(style(stdout, Style::green)) + "\"" + read->text + "\"" +
                          style(stdout, Style::plain) + "  (mean confidence " + confidence + ")");
  }
  print_row("Model", r.model + (r.model_kind.empty() ? "" : ", " + r.model_kind) + ", " + std::to_string(r.nodes) +
                         " nodes in " + std::to_string(r.regions) + " regions");
  print_row("Device", r.device + ", backend " + r.backend + ", " + std::to_string(r.threads) +
                          (r.threads == 1 ? " thread, " : " threads, ") + r.precision);
  for (const Candidate& c : r.candidates)
    if (c.chosen) print_row("", "because: " + c.reason);
  bool first = true;
  for (const Candidate& c : r.candidates) {
    std::string way = c.backend + (c.simulated ? " (simulated), " : ", ") +
                      (c.threads ? std::to_string(c.threads) + (c.threads == 1 ? " thread, " : " threads, ") : "") +
                      c.precision;
    std::string measured =
        c.runs ? "median " + duration(c.median_us) + ", min " + duration(c.min_us) + " of " + std::to_string(c.runs)
               : "";
    if (!c.chosen || !c.runs) measured += (measured.empty() ? "" : "; ") + c.reason;
    print_row(first ? "Candidates" : "", std::string(c.chosen ? "* " : "  ") + way + ": " + measured);
    first = false;
  }
  for (const Port& p : model.inputs()) {
    auto given = feed.inputs.find(p.name);
    if (given == feed.inputs.end()) continue;
    print_row("Input", p.name + " " + type_text(given->second) + " from " + feed.said.at(p.name));
  }
  for (const Port& p : model.outputs()) {
    const Data& data = timed.outputs.at(p.name);
    print_row("Output", p.name + " " + type_text(data) + ": " + summary(data));
  }
  if (r.simulated_runs)
    print_row("Simulated", duration(r.simulated_us / double(r.simulated_runs)) + " and " +
                               number(r.simulated_joules / double(r.simulated_runs)) + " J a run, mean of " +
                               std::to_string(r.simulated_runs) +
                               ", by the chip's description; the latency below is what simulating it took");
  first = true;
  for (const Report::Transfer& t : r.transfers) {
    print_row(first ? "Transfers" : "", t.from + " to " + t.to + ", " + t.why + ": " +
                                            (t.copied || !t.shared ? size(double(t.copied)) + " copied" : "") +
                                            (t.ahead ? ", " + size(double(t.ahead)) + " of them ahead" : "") +
                                            (t.copied && t.shared ? ", " : "") +
                                            (t.shared ? size(double(t.shared)) + " shared" : "") + " in " +
                                            std::to_string(t.times) + (t.times == 1 ? " transfer" : " transfers"));
    first = false;
  }
  for (const Report::Failover& f : r.failovers)
    print_row("Failover", std::to_string(f.requests) + " requests from " + f.from + " to " + f.to + " (" + f.state +
                              "): " + f.reason);
  const Latency& l = timed.latency;
  if (repeat > 1)
    print_row("Latency", "median " + duration(l.median) + ", min " + duration(l.least) + ", p90 " + duration(l.p90) +
                             ", p99 " + duration(l.p99) + " over " + std::to_string(repeat) + " runs; first run " +
                             duration(l.first));
  else
    print_row("Latency", duration(l.median) + ", one run; --repeat N gives the spread");
  print_row("Loading", duration(double(r.load_us)) + ", compiling and measuring " + duration(double(r.compile_us)));
  print_row("Memory", "peak " + size(double(peak_rss_bytes())) + " of the process, arena " +
                          size(double(r.arena_bytes)) + ", packed weights " + size(double(r.weight_bytes)));
  if (r.fallbacks.empty()) {
    print_row("Fallbacks", r.backend == "reference" ? "none, but reference is itself the slow oracle"
                                                    : "none: every node runs on a native kernel");
    return;
  }
  // One line for each operator and place, with how often.
  std::map<std::string, std::pair<int, std::string>> grouped;
  for (const Fallback& f : r.fallbacks) {
    auto& g = grouped[f.op + " on " + f.runs_on];
    ++g.first;
    g.second = f.reason;
  }
  first = true;
  for (const auto& [what, g] : grouped) {
    print_row(first ? "Fallbacks" : "",
              std::to_string(g.first) + " × " + what + (g.second.empty() ? "" : ": " + g.second));
    first = false;
  }
}

Exit exit_of_deploy(const Status& status) {
  switch (status.code()) {
    case Code::invalid_argument:
    case Code::out_of_range:
    case Code::unimplemented:
    case Code::data_loss:
    case Code::failed_precondition:
    case Code::not_found: return kModel;  // e.g. an external-data file that is not there
    default: return kFailed;
  }
}

int run_run(const Arguments& arguments) {
  const std::string& path = arguments.operands[0];
  auto config = configure(arguments);
  if (!config.ok()) return complain(config.status(), kUsage);
  auto repeat = arguments.integer("--repeat", 1, 1, 1'000'000'000);
  auto warmup = arguments.integer("--warmup", arguments.has("--repeat") ? 3 : 0, 0, 1'000'000'000);
  auto seed = arguments.integer("--random", 0, 0, INT64_MAX);
  auto shapes = parse_shapes(arguments);
  auto how = preprocess_options(arguments);
  for (const Status* s : {&repeat.status(), &warmup.status(), &seed.status(), &shapes.status(), &how.status()})
    if (!s->ok()) return complain(*s, kUsage);
  DeployOptions deploy = with_settings({}, *config);
  for (std::string_view name : split(deploy.backend, ',')) {
    if (trim(name).empty()) continue;
    auto found = find_backend(parse_device(trim(name)).first);
    // Among several, one that exists and cannot be used here is a candidate that loses.
    if (!found.ok() && (name == deploy.backend || found.status().code() == Code::not_found))
      return complain(found.status(), kUsage);
  }
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0 || S_ISDIR(facts.st_mode))
    return complain(Status(Code::not_found, "\"" + path + "\" is no model file: there is " +
                                                (S_ISDIR(facts.st_mode) ? "a folder" : "nothing that can be read") +
                                                " of that name."),
                    kUsage);

  // Inputs before compilation: wrong ones fail at once, and their sizes are what candidates are timed with.
  auto loaded = load(path, deploy);
  if (!loaded.ok()) return complain(loaded.status(), exit_of_deploy(loaded.status()));
  std::vector<Port> ports = ports_of(loaded->graph, loaded->graph.inputs);
  for (const auto& [name, type] : loaded->graph.overridable) {
    ports.push_back(port_of(name, type));
    ports.back().optional = true;
  }
  auto feed = make_feed(ports, arguments);
  if (!feed.ok()) return complain(feed.status(), kUsage);
  if (Status s = check_output_words(arguments, ports_of(loaded->graph, loaded->graph.outputs)); !s.ok())
    return complain(s, kUsage);
  std::vector<std::string> overridden;
  for (const auto& [name, type] : loaded->graph.overridable)
    if (feed->inputs.count(name)) overridden.push_back(name);
  if (!overridden.empty()) {
    loaded = loaded->reread(overridden);
    if (!loaded.ok()) return complain(loaded.status(), exit_of_deploy(loaded.status()));
  }
  for (const auto& [name, data] : feed->inputs)
    if (data.is_tensor()) deploy.shapes[name] = data.tensor().shape();
  for (const std::string& note : feed->notes) std::fprintf(stderr, "aivmm: %s\n", note.c_str());

  auto model = [&]() -> Result<Deployment> {
    Progress progress("Compiling and measuring " + path);
    return Deployment(AI_VMM_TAKE(compile(*std::move(loaded), deploy)));
  }();
  if (!model.ok()) return complain(model.status(), exit_of_deploy(model.status()));

  auto timed = run_timed(*model, feed->inputs, *warmup, *repeat);
  if (!timed.ok()) return complain(timed.status(), kFailed);
  if (Status s = write_outputs(arguments, timed->outputs); !s.ok()) return complain(s, kFailed);

  std::optional<ReadText> read;
  std::string decode = arguments.text("--decode", "auto");
  if (decode != "none" && !model->outputs().empty())
    read = decode_ctc(model->metadata(), timed->outputs.at(model->outputs()[0].name));
  if (decode == "ctc" && !read)
    return complain(
        Status(Code::failed_precondition,
               "--decode ctc wants a first output f32[1, steps, classes] and metadata `character` that lists the "
               "characters of the classes; this model has no such pair."),
        kFailed);
  Report report = model->report();
  if (arguments.has("--json"))
    print_json(report, *timed, *warmup, *repeat, *feed, read);
  else
    print_summary(*model, report, *timed, *repeat, *feed, read);
  return kSuccess;
}
}  // namespace

const Command kRun = {
    "run",
    "MODEL",
    1,
    1,
    "Run a model on inputs from files or at random, and time it",
    "Deploys MODEL (ONNX) on the fastest device, runs it, and prints what came out, where it ran and why.\n"
    "Pictures are resized (bilinear) and normalised as the --image options say; what was done is printed.\n\n"
    "Examples:\n"
    "  aivmm run model.onnx --random 1 --shape x=1x3x224x224 --repeat 100\n"
    "  aivmm run model.onnx --input ids=ids.npy mask=mask.npy --output out.npz --json\n"
    "  aivmm run recogniser.onnx --input x=line.png --image-size 48xW --image-channels bgr\n",
    options(),
    run_run};

}  // namespace ai_vmm::cli
