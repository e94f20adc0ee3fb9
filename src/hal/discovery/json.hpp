// What discovery finds as JSON. Members that are not known are absent.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "ai_vmm/types.hpp"
#include "hal/discovery/accelerator.hpp"

namespace ai_vmm {

nlohmann::ordered_json to_json(const RuntimeReport& report);
Result<RuntimeReport> parse_report(std::string_view text);  // what to_json() gave
nlohmann::ordered_json to_json(const Accelerator& accelerator);

}  // namespace ai_vmm
