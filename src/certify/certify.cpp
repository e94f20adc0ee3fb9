#include "certify/certify.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ai_vmm/compute_backend.hpp"
#include "base/text.hpp"
#include "certify/checks.hpp"
#include "certify/child.hpp"
#include "hal/backends.hpp"

namespace ai_vmm {

namespace certify {

std::span<const Check> checks() {
  static constexpr Check kChecks[] = {
      {"entry", "the entry function gives a whole table", check_entry},
      {"newer_host", "a host of a later minor version is served", check_newer_host},
      {"older_host", "a host of version 1.0 is served", check_older_host},
      {"other_major", "another major version is refused with a sentence", check_other_major},
      {"too_new_minimum", "a host that is too new is refused with a sentence", check_too_new_minimum},
      {"devices", "devices are described, others refused", check_devices},
      {"struct_sizes", "structs are read and filled within their size", check_struct_sizes},
      {"query", "what query takes, compile takes", check_query},
      {"operators", "every supported operator gives right results", check_operators},
      {"outputs", "outputs go where the host says, and nowhere else", check_outputs},
      {"alias", "an output may be written over its input", check_alias},
      {"repeat", "equal runs give equal bits", check_repeat},
      {"arguments", "bad arguments are refused, and harm nothing", check_arguments},
      {"malformed", "malformed graphs are refused", check_malformed},
      {"cancel", "a caller who gives up is heard", check_cancel},
      {"failures", "failures of the host's services are survived", check_failures},
      {"threads", "runs on several threads do not disturb each other", check_threads},
      {"leaks", "nothing is left behind", check_leaks},
      {"extensions", "extensions are found by name", check_extensions},
      {"buffers", "buffers hold, share and give back memory", check_buffers},
      {"streams", "streams order work and carry failures", check_streams},
      {"states", "states grow, fork, snapshot and end", check_states},
      {"layouts", "proposed layouts are taken", check_layouts},
  };
  return kChecks;
}

namespace {

// The entry of a plugin file, or of a backend of this build.
Result<AiVmmBackendEntry> entry_of(const std::string& subject) {
  if (subject.find('/') == subject.npos)
    for (const InTreeBackend& b : in_tree_backends())
      if (subject == b.name) return b.entry;
  return load_plugin(subject.find('/') == subject.npos ? "./" + subject : subject);
}

// What the certificate says of the plugin itself, as JSON, so that it can come from a child process.
std::string describe(const std::string& subject) {
  nlohmann::json j;
  auto entry = entry_of(subject);
  if (!entry.ok()) {
    j["problem"] = entry.status().message();
    return j.dump();
  }
  auto api = connect(*entry);
  if (!api.ok()) {
    j["problem"] = api.status().message();
    return j.dump();
  }
  const AiVmmBackend& t = **api;
  j["backend"] = t.name;
  j["version"] = t.version;
  j["interface"] = std::to_string(t.abi_major) + "." + std::to_string(t.abi_minor);
  j["query"] = t.query != nullptr;
  j["devices"] = nlohmann::json::array();
  for (int32_t i = 0, n = t.device_count(t.self); i < n; ++i) {
    auto info = backend::make<AiVmmDeviceInfo>();
    AiVmmStatus s = new_status();
    if (t.device_info(t.self, i, &info, &s) == 0)
      j["devices"].push_back(std::string(info.name, strnlen(info.name, sizeof info.name)));
  }
  j["extensions"] = nlohmann::json::array();
  if (t.extension)
    for (const char* name :
         {AI_VMM_EXTENSION_BUFFERS, AI_VMM_EXTENSION_STREAMS, AI_VMM_EXTENSION_STATES, AI_VMM_EXTENSION_LAYOUTS})
      if (t.extension(t.self, name)) j["extensions"].push_back(name);
  return j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// '+' passed, '-' failed, '0' not offered; then the text.
std::string run_check(const Check& check, const std::string& subject, int device) {
  Subject s;
  s.index = device;
  auto entry = entry_of(subject);
  if (!entry.ok()) return "-" + entry.status().message();
  s.entry = *entry;
  auto result = check.run(s);
  if (!result.ok()) return "-" + result.status().message();
  if (result->starts_with(kNotOffered)) return "0" + result->substr(std::string_view(kNotOffered).size());
  return "+" + *result;
}

}  // namespace

}  // namespace certify

std::vector<CheckDescription> check_list() {
  std::vector<CheckDescription> list;
  for (const auto& c : certify::checks()) list.push_back({c.name, c.what});
  return list;
}

Result<Certificate> check_plugin(const std::string& subject, const CertifyOptions& options) {
  Certificate out;
  out.subject = subject;
  std::vector<std::string> known;
  for (const auto& c : certify::checks()) known.emplace_back(c.name);
  for (const std::string& name : options.only)
    if (std::find(known.begin(), known.end(), name) == known.end())
      return Status(Code::invalid_argument, "There is no check \"" + name + "\"; there are " + join(known, ", ") + ".");

  auto said = certify::in_child(options.timeout_seconds, [&] { return certify::describe(subject); });
  if (!said.finished) return Status(Code::failed_precondition, "The plugin cannot even be loaded: " + said.text + ".");
  auto j = nlohmann::json::parse(said.text, nullptr, false);
  if (j.is_discarded() || j.contains("problem"))
    return Status(Code::failed_precondition,
                  j.is_discarded() ? "The plugin's answer cannot be read." : j["problem"].get<std::string>());
  out.backend = j["backend"];
  out.version = j["version"];
  out.interface = j["interface"];
  for (const auto& d : j["devices"]) out.devices.push_back(d);
  for (const auto& e : j["extensions"]) out.extensions.push_back(e);
  out.level = !out.extensions.empty() ? 3 : j["query"] ? 2 : 1;

  for (const auto& check : certify::checks()) {
    if (!options.only.empty() && std::find(options.only.begin(), options.only.end(), check.name) == options.only.end())
      continue;
    auto child =
        certify::in_child(options.timeout_seconds, [&] { return certify::run_check(check, subject, options.device); });
    CheckResult r;
    r.name = check.name;
    r.what = check.what;
    r.seconds = child.seconds;
    if (!child.finished || child.text.empty()) {
      r.outcome = CheckResult::Outcome::failed;
      r.detail = child.text + (child.doing.empty() ? "" : "; it was " + child.doing);
    } else {
      r.outcome = child.text[0] == '+'   ? CheckResult::Outcome::passed
                  : child.text[0] == '0' ? CheckResult::Outcome::not_offered
                                         : CheckResult::Outcome::failed;
      r.detail = child.text.substr(1);
    }
    out.checks.push_back(std::move(r));
  }
  return out;
}

bool Certificate::passed() const {
  return std::none_of(checks.begin(), checks.end(),
                      [](const CheckResult& c) { return c.outcome == CheckResult::Outcome::failed; });
}

namespace {
const char* word(CheckResult::Outcome o) {
  switch (o) {
    case CheckResult::Outcome::passed: return "passed";
    case CheckResult::Outcome::failed: return "FAILED";
    case CheckResult::Outcome::not_offered: return "not offered";
  }
  return "";
}
}  // namespace

std::string Certificate::to_text() const {
  std::string s = "Plugin " + subject + ": backend " + backend + " " + version + ", interface " + interface +
                  ", level " + std::to_string(level) + "\n";
  for (const std::string& d : devices) s += "  device " + d + "\n";
  int counts[3] = {};
  for (const CheckResult& c : checks) {
    ++counts[int(c.outcome)];
    char line[64];
    std::snprintf(line, sizeof line, "  %-11s  %-15s  ", word(c.outcome), c.name.c_str());
    s += line + (c.outcome == CheckResult::Outcome::failed ? c.what + ": " : "") + c.detail + "\n";
  }
  return s + (passed() ? "Passed: " : "Failed: ") + std::to_string(counts[0]) + " checks passed, " +
         std::to_string(counts[1]) + " failed, " + std::to_string(counts[2]) + " not offered.\n";
}

std::string Certificate::to_json() const {
  nlohmann::ordered_json j;
  j["plugin"] = subject;
  j["backend"] = backend;
  j["version"] = version;
  j["interface"] = interface;
  j["host_interface"] = std::to_string(AI_VMM_ABI_MAJOR) + "." + std::to_string(AI_VMM_ABI_MINOR);
  j["level"] = level;
  j["devices"] = devices;
  j["extensions"] = extensions;
  j["passed"] = passed();
  j["checks"] = nlohmann::ordered_json::array();
  for (const CheckResult& c : checks)
    j["checks"].push_back({{"name", c.name},
                           {"what", c.what},
                           {"outcome", c.outcome == CheckResult::Outcome::passed   ? "passed"
                                       : c.outcome == CheckResult::Outcome::failed ? "failed"
                                                                                   : "not offered"},
                           {"detail", c.detail},
                           {"seconds", c.seconds}});
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace ai_vmm
