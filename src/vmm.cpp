#include "ai_vmm/vmm.hpp"

#include "base/log.hpp"
#include "compile.hpp"
#include "runtime/settings.hpp"

namespace ai_vmm {

struct VMM::Impl {};

VMM::VMM() : impl_(std::make_unique<Impl>()) {}
VMM::~VMM() = default;
VMM::VMM(VMM&&) noexcept = default;
VMM& VMM::operator=(VMM&&) noexcept = default;

namespace {
Result<DeployOptions> settle(const DeployOptions& options) {
  Config config = AI_VMM_TAKE(Config::load());
  set_log_level(config.text("log_level"));
  return with_settings(options, config);
}
}  // namespace

Result<Deployment> VMM::deploy(const std::string& path, const DeployOptions& options) const {
  DeployOptions settled = AI_VMM_TAKE(settle(options));
  return Deployment(AI_VMM_TAKE(compile(AI_VMM_TAKE(load(path, settled)), settled)));
}
Result<Deployment> VMM::deploy(std::span<const std::byte> model, const DeployOptions& options) const {
  DeployOptions settled = AI_VMM_TAKE(settle(options));
  return Deployment(AI_VMM_TAKE(compile(AI_VMM_TAKE(load(model, settled)), settled)));
}

}  // namespace ai_vmm
