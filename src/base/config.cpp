#include "base/config.hpp"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "base/check.hpp"
#include "base/memory_budget.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"

namespace ai_vmm {

namespace {
using Kind = Setting::Kind;
constexpr Setting kSettings[] = {
    {"backend", Kind::text, "", "auto",
     "Backend that runs models; auto takes the fastest of our own by measurement, names separated by commas, such as "
     "cpu,openvino,onnxruntime, the fastest of those.",
     ""},
    {"threads", Kind::integer, "threads", "",
     "Compute threads of a deployment. The profile is what affinity and the cgroup quota allow.", "", 1, 4096,
     [] { return std::to_string(available_threads()); }},
    {"precision", Kind::choice, "", "model",
     "Arithmetic of a model: as the model says, one kind, or auto: lower where the accuracy contract holds.",
     "model|f32|bf16|int8|auto"},
    {"memory_limit", Kind::bytes, "bytes", "",
     "Tensors that one deployment may hold at once. The profile is 80 % of the machine or of the cgroup.", "", 1, 0,
     [] { return std::to_string(MemoryBudget::default_limit()); }},
    {"copy_weights", Kind::boolean, "", "false",
     "Read weights into memory instead of mapping the file, so that a file cut short later harms nobody.", ""},
    {"allow_links", Kind::boolean, "", "false", "External data may be links that leave the model's folder.", ""},
    {"allow_reference", Kind::boolean, "", "true",
     "Nodes that no device can run fall to the slow reference backend, and are reported; false makes that an error.",
     ""},
    {"deterministic", Kind::boolean, "", "false", "Pin kernel choices across loads: nothing is chosen by measurement.",
     ""},
    {"tune_budget_ms", Kind::integer, "ms", "200", "Time for measuring candidates at load, beyond one run of each.", "",
     1},
    {"cpu_isa", Kind::choice, "", "auto",
     "Instruction set of the cpu backend at most; auto: the best of the machine. Read once a process.",
     "auto|generic|avx2|avx512"},
    {"cpu_profile", Kind::boolean, "", "false",
     "The cpu backend prints the time of each step to stderr when a deployment ends. Read once a process.", ""},
    {"plugins", Kind::text, "files", "",
     "Backends to load beside those of the build: plugins (.so) or folders of them, separated by colons.", ""},
    {"isolate", Kind::text, "names", "",
     "Backends that run in a process of their own, so that a crash costs the device alone: names, files of plugins, or "
     "plugins for all of them, separated by commas.",
     ""},
    {"isolate_limit_ms", Kind::integer, "ms", "30000",
     "An isolated backend that answers a call no sooner is killed, and its devices are lost.", "", 1},
    {"plugin_host", Kind::text, "file", "",
     "The program that isolated backends run in; without it aivmm-plugin-host beside this program or library.", ""},
    {"tuning_folder", Kind::text, "folder", "",
     "Where measured choices of backends are kept between processes; none: nowhere. Without it aivmm/tuning in the "
     "user's "
     "cache.",
     ""},
    {"failover", Kind::text, "", "auto",
     "Devices on which requests run when the chosen one fails, separated by commas; none, or auto: cpu, then "
     "reference.",
     ""},
    {"standby", Kind::boolean, "", "false",
     "Compile for the first failover device at load, so that a failure costs no compilation.", ""},
    {"sim_chips", Kind::text, "files", "",
     "Descriptions of simulated chips, separated by colons; without one there is a single example. Read once a "
     "process.",
     ""},
    {"openvino_library", Kind::text, "path", "",
     "libopenvino_c.so to host; empty: the one that the loader finds, else that of a Python installation.", ""},
    {"onnxruntime_library", Kind::text, "path", "",
     "libonnxruntime.so to host; empty: the one that the loader finds, else that of a Python installation.", ""},
    {"onnxruntime_providers", Kind::text, "paths", "",
     "Libraries of execution providers for ONNX Runtime, separated by colons; those beside it are found by themselves.",
     ""},
    {"device_profile", Kind::boolean, "", "false",
     "Backends of accelerators print the time of each step to stderr when a deployment ends, waiting after each.", ""},
    {"kernel_folder", Kind::text, "folder", "",
     "Where backends of accelerators write the text of each kernel that they compile, a file each; empty: nowhere.",
     ""},
    {"gpu_products", Kind::choice, "", "f32",
     "What factors of float32 may be rounded to in products and convolutions on the matrix units of GPUs: f32 not at "
     "all; sums are of float32 always.",
     "f32|tf32|bf16|f16"},
    {"opencl_kernels", Kind::choice, "", "auto",
     "Kernels of the opencl backend: wide for a few cores with wide registers, lanes for many narrow ones; auto: as "
     "the "
     "device is.",
     "auto|wide|lanes"},
    {"opencl_memory", Kind::choice, "", "auto",
     "auto: the opencl backend works in the host's memory where the device does; own: values are copied to the device "
     "all the same, as to a card.",
     "auto|own"},
    {"disabled_passes", Kind::text, "names", "", "Graph passes to leave out, separated by commas.", ""},
    {"as_onnxruntime", Kind::boolean, "", "false",
     "Python programs that import onnxruntime get AI VMM. Read from the environment when Python starts.", ""},
    {"log_level", Kind::choice, "", "warning", "What is written to stderr.", "error|warning|info|debug"},
};

constexpr const char* kSourceNames[] = {"default", "hardware profile", "file", "environment", "API", "command line"};
constexpr const char* kPrefix = "AI_VMM_";
constexpr const char* kFileVariable = "AI_VMM_CONFIG";

const Setting* find(std::string_view name) {
  for (const Setting& s : kSettings)
    if (name == s.name) return &s;
  return nullptr;
}

std::string variable(const Setting& setting) {
  std::string v = kPrefix;
  for (const char* c = setting.name; *c; ++c) v += static_cast<char>(std::toupper(static_cast<unsigned char>(*c)));
  return v;
}

std::string hint(std::string_view word, std::span<const std::string> known) {
  std::string near = nearest(word, known);
  return near.empty() ? "Known are: " + join(known, ", ") + "." : "Did you mean \"" + near + "\"?";
}

// The value in its normal form (bytes as a number, booleans as true or false).
Result<std::string> normal(const Setting& setting, std::string_view text) {
  auto wrong = [&](const std::string& want) {
    return Status(Code::invalid_argument, std::string("Setting ") + setting.name + " is \"" + std::string(text) +
                                              "\", but must be " + want + ".");
  };
  switch (setting.kind) {
    case Kind::text: return std::string(text);
    case Kind::integer: {
      int64_t n = 0;
      auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
      if (error != std::errc() || end != text.data() + text.size() || n < setting.least || n > setting.most)
        return wrong("a whole number from " + std::to_string(setting.least) + " to " + std::to_string(setting.most));
      return std::to_string(n);
    }
    case Kind::bytes: {
      auto n = parse_bytes(text, MemoryBudget::default_limit() / 8 * 10);
      if (!n.ok() || *n < setting.least) return wrong("a number of bytes such as 1500000, 512M, 2GiB or 50%");
      return std::to_string(*n);
    }
    case Kind::boolean:
      for (const char* yes : {"true", "yes", "on", "1"})
        if (text == yes) return std::string("true");
      for (const char* no : {"false", "no", "off", "0"})
        if (text == no) return std::string("false");
      return wrong("true or false");
    case Kind::choice:
      for (std::string_view choice : split(setting.choices, '|'))
        if (text == choice) return std::string(text);
      return wrong(std::string("one of ") + setting.choices);
  }
  return std::string(text);
}
}  // namespace

std::span<const Setting> settings() { return kSettings; }

const char* name(Setting::Kind kind) {
  constexpr const char* kNames[] = {"text", "integer", "boolean", "bytes", "choice"};
  return kNames[static_cast<int>(kind)];
}
const char* name(Config::Source source) { return kSourceNames[static_cast<int>(source)]; }

Result<int64_t> parse_bytes(std::string_view text, int64_t whole) {
  auto wrong = [&] {
    return Status(Code::invalid_argument,
                  "\"" + std::string(text) + "\" is not a number of bytes; write 1500000, 512M, 2GiB or 50%.");
  };
  double n = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || !std::isfinite(n) || n < 0) return wrong();
  std::string_view suffix = trim({end, static_cast<size_t>(text.data() + text.size() - end)});
  double unit = 1;
  if (suffix == "%") {
    unit = static_cast<double>(whole) / 100;
  } else if (!suffix.empty() && suffix != "B") {
    auto power = std::string_view("kMGT").find(suffix[0] == 'K' ? 'k' : suffix[0]);
    std::string_view rest = suffix.substr(1);
    if (power == std::string_view::npos || (!rest.empty() && rest != "i" && rest != "iB" && rest != "B"))
      return wrong();
    unit = std::pow(rest == "B" ? 1000.0 : 1024.0, static_cast<double>(power + 1));
  }
  if (n * unit >= 0x1p62) return wrong();
  return static_cast<int64_t>(n * unit);
}

Result<Config> Config::load(const Environment& environment, std::span<const std::string> variables) {
  Config config;
  for (const Setting& s : kSettings) {
    config.values_[s.name] = {s.fallback, Source::fallback, ""};
    if (s.profile) config.values_[s.name] = {s.profile(), Source::profile, "this machine"};
  }

  if (auto path = environment(kFileVariable); path && !path->empty()) {
    if (access(path->c_str(), R_OK) != 0)
      return Status(Code::not_found, std::string(kFileVariable) + " names \"" + *path + "\", which cannot be read.");
    AI_VMM_TRY(config.read_file(*path));
  } else {
    auto folder = environment("XDG_CONFIG_HOME");
    auto home = environment("HOME");
    std::string file = folder && !folder->empty() ? *folder : home && !home->empty() ? *home + "/.config" : "";
    if (!file.empty() && access((file += "/aivmm/config.toml").c_str(), R_OK) == 0) AI_VMM_TRY(config.read_file(file));
  }

  std::vector<std::string> known = {kFileVariable};
  for (const Setting& s : kSettings) {
    known.push_back(variable(s));
    if (auto text = environment(known.back()))
      AI_VMM_TRY(config.set(s.name, trim(*text), Source::environment, known.back())
                     .during("reading the environment variable " + known.back()));
  }
  for (const std::string& v : variables)
    if (std::find(known.begin(), known.end(), v) == known.end())
      return Status(Code::invalid_argument,
                    "The environment variable " + v + " sets nothing that AI VMM knows. " + hint(v, known));
  return config;
}

Result<Config> Config::load() {
  std::vector<std::string> variables;
  for (char** entry = environ; entry && *entry; ++entry) {
    std::string_view e = *entry;
    if (e.substr(0, std::char_traits<char>::length(kPrefix)) == kPrefix)
      variables.emplace_back(e.substr(0, e.find('=')));
  }
  return load(
      [](const std::string& name) -> std::optional<std::string> {
        const char* text = std::getenv(name.c_str());
        return text ? std::optional<std::string>(text) : std::nullopt;
      },
      variables);
}

Status Config::read_file(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    std::string origin = path + ":" + std::to_string(number);
    std::string_view text = trim(line);
    if (text.empty() || text[0] == '#') continue;
    size_t equals = text.find('=');
    if (equals == text.npos)
      return Status(Code::invalid_argument,
                    origin + ": \"" + std::string(text) + "\" is not of the form name = value.");
    std::string_view value = trim(text.substr(equals + 1));
    if (!value.empty() && (value[0] == '"' || value[0] == '\'')) {
      size_t close = value.find(value[0], 1);
      std::string_view rest = close == value.npos ? value : trim(value.substr(close + 1));
      if (close == value.npos || (!rest.empty() && rest[0] != '#'))
        return Status(Code::invalid_argument, origin + ": the quotes in " + std::string(value) + " do not match.");
      value = value.substr(1, close - 1);
    } else {
      value = trim(value.substr(0, value.find('#')));
    }
    Status s = set(trim(text.substr(0, equals)), value, Source::file, origin);
    AI_VMM_TRY(std::move(s).during("reading " + origin));
  }
  return {};
}

Status Config::set(std::string_view setting, std::string_view text, Source source, std::string origin) {
  const Setting* s = find(setting);
  if (!s) {
    std::vector<std::string> known;
    for (const Setting& k : kSettings) known.push_back(k.name);
    return Status(Code::invalid_argument,
                  "There is no setting \"" + std::string(setting) + "\". " + hint(setting, known));
  }
  auto value = AI_VMM_TAKE(normal(*s, text));
  Value& slot = values_[s->name];
  if (source >= slot.source) slot = {std::move(value), source, std::move(origin)};
  return {};
}

const Config::Value& Config::value(std::string_view setting) const {
  auto it = values_.find(setting);
  AI_VMM_CHECK(it != values_.end(), std::string(setting));
  return it->second;
}

int64_t Config::integer(std::string_view setting) const {
  const std::string& t = text(setting);
  int64_t n = 0;
  auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), n);
  AI_VMM_CHECK(error == std::errc() && end == t.data() + t.size(), std::string(setting) + " is " + t);
  return n;
}

bool Config::boolean(std::string_view setting) const { return text(setting) == "true"; }

}  // namespace ai_vmm
