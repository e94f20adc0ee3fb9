// Traces: read from files, and made by rule.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ai_vmm/types.hpp"
#include "interposer/allocation_trace.hpp"

namespace AIRamp::Trace {

using Interposer::Obs;
using Interposer::ObsKind;
using Events = std::vector<Obs>;

ai_vmm::Result<Events> read_trace(const std::string& path);

struct Workload {
  const char* name;
  const char* what;
  Events (*make)(unsigned seed);
};
const std::vector<Workload>& workloads();  // made by rule, each of 200 steps with boundaries

}  // namespace AIRamp::Trace
