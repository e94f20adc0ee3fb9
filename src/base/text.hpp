// Small text helpers.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ai_vmm {

std::vector<std::string_view> split(std::string_view text, char separator);
std::string_view trim(std::string_view text);  // spaces, tabs, line ends
std::string join(std::span<const std::string> parts, std::string_view separator);
// The candidate at the least edit distance, at most a third of the word's length away; "" when none is near.
std::string nearest(std::string_view word, std::span<const std::string> candidates);

}  // namespace ai_vmm
