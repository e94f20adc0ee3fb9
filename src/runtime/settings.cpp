#include "runtime/settings.hpp"

#include "base/text.hpp"

namespace ai_vmm {

DeployOptions with_settings(DeployOptions given, const Config& config) {
  if (given.backend.empty()) given.backend = config.text("backend");
  if (given.backend == "auto") given.backend.clear();
  // The profile's count is what the machine has; how many of them are fastest is measured.
  if (given.threads <= 0 && config.value("threads").source != Config::Source::profile)
    given.threads = static_cast<int>(config.integer("threads"));
  if (given.precision == Precision::model) {
    const std::string& p = config.text("precision");
    given.precision = p == "f32"    ? Precision::f32
                      : p == "bf16" ? Precision::bf16
                      : p == "int8" ? Precision::int8
                      : p == "auto" ? Precision::automatic
                                    : Precision::model;
  }
  if (given.memory_limit <= 0) given.memory_limit = config.integer("memory_limit");
  if (given.tune_budget_ms <= 0) given.tune_budget_ms = static_cast<int>(config.integer("tune_budget_ms"));
  for (auto [field, setting] : {std::pair(&DeployOptions::copy_weights, "copy_weights"),
                                {&DeployOptions::allow_links, "allow_links"},
                                {&DeployOptions::allow_reference, "allow_reference"},
                                {&DeployOptions::deterministic, "deterministic"},
                                {&DeployOptions::standby, "standby"}})
    if (!(given.*field)) given.*field = config.boolean(setting);
  if (given.failover.empty()) given.failover = config.text("failover");
  if (given.disabled_passes.empty())
    for (std::string_view pass : split(config.text("disabled_passes"), ','))
      if (!trim(pass).empty()) given.disabled_passes.emplace_back(trim(pass));
  return given;
}

}  // namespace ai_vmm
