// The checks, in the order of the certificate. Each is given the plugin's entry function, in a process of its own.
#pragma once

#include <span>

#include "certify/harness.hpp"

namespace ai_vmm::certify {

struct Check {
  const char* name;
  const char* what;
  // A note on what was tried; `kNotOffered` and a reason; or why the plugin fails.
  Result<std::string> (*run)(Subject& subject);
};
inline constexpr const char* kNotOffered = "not offered: ";

// contract.cpp: versions, tables, structs, arguments
Result<std::string> check_entry(Subject&);
Result<std::string> check_newer_host(Subject&);
Result<std::string> check_older_host(Subject&);
Result<std::string> check_other_major(Subject&);
Result<std::string> check_too_new_minimum(Subject&);
Result<std::string> check_devices(Subject&);
Result<std::string> check_struct_sizes(Subject&);
Result<std::string> check_arguments(Subject&);
Result<std::string> check_malformed(Subject&);
// behaviour.cpp: what runs do
Result<std::string> check_query(Subject&);
Result<std::string> check_operators(Subject&);
Result<std::string> check_outputs(Subject&);
Result<std::string> check_alias(Subject&);
Result<std::string> check_repeat(Subject&);
Result<std::string> check_cancel(Subject&);
Result<std::string> check_threads(Subject&);
Result<std::string> check_leaks(Subject&);
Result<std::string> check_failures(Subject&);
// level3.cpp
Result<std::string> check_extensions(Subject&);
Result<std::string> check_buffers(Subject&);
Result<std::string> check_streams(Subject&);
Result<std::string> check_states(Subject&);
Result<std::string> check_layouts(Subject&);

std::span<const Check> checks();

// The first of the supported cases that `fits`, as a small graph to try things on.
const Case* find_case(std::span<const Case* const> list, bool (*fits)(const Case&));
bool plain(const Case& c);            // fixed sizes, one f32 input at least, some elements
bool same_in_and_out(const Case& c);  // output 0 has type and shape of input 0

}  // namespace ai_vmm::certify
