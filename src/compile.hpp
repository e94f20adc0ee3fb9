// The whole compiler: a model in, a deployment out.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ai_vmm/vmm.hpp"
#include "graph/graph.hpp"

namespace ai_vmm {

// A model that is read and not yet compiled.
struct Model {
  std::string name;
  Graph graph;
  int64_t load_us = 0;
  // Reads it again, with these of Graph::overridable as inputs. Fails with data_loss when its files have changed.
  std::function<Result<Model>(const std::vector<std::string>& overridden)> reread;
};

// Of the options only backend, threads, shapes and seed may be unset: see runtime/settings.hpp.
Result<Model> load(const std::string& path, const DeployOptions& options);
Result<Model> load(std::span<const std::byte> bytes, const DeployOptions& options);
Result<std::shared_ptr<Deployment::Impl>> compile(Model model, const DeployOptions& options);

}  // namespace ai_vmm
