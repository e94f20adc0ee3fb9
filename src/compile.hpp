// The whole compiler: a model in, a deployment out.
#pragma once

#include <span>
#include <string>

#include "ai_vmm/vmm.hpp"
#include "graph/graph.hpp"

namespace ai_vmm {

// Of the options only backend, threads, shapes and seed may be unset: see runtime/settings.hpp.
Result<std::shared_ptr<Deployment::Impl>> compile(const std::string& path, const DeployOptions& options);
Result<std::shared_ptr<Deployment::Impl>> compile(std::span<const std::byte> model, const DeployOptions& options);

}  // namespace ai_vmm
