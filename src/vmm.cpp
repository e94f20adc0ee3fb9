#include "ai_vmm/vmm.hpp"

#include "compile.hpp"

namespace ai_vmm {

struct VMM::Impl {};

VMM::VMM() : impl_(std::make_unique<Impl>()) {}
VMM::~VMM() = default;
VMM::VMM(VMM&&) noexcept = default;
VMM& VMM::operator=(VMM&&) noexcept = default;

Result<Deployment> VMM::deploy(const std::string& path, const DeployOptions& options) const {
  return Deployment(AI_VMM_TAKE(compile(path, options)));
}
Result<Deployment> VMM::deploy(std::span<const std::byte> model, const DeployOptions& options) const {
  return Deployment(AI_VMM_TAKE(compile(model, options)));
}

}  // namespace ai_vmm
