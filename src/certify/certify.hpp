// Does a plugin keep the contract of backend_abi.h? Every check runs in a child process, so that a plugin that crashes
// or hangs fails its check and nothing else.
#pragma once

#include <string>
#include <vector>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

struct CertifyOptions {
  int device = 0;
  int timeout_seconds = 60;       // for each check
  std::vector<std::string> only;  // names of checks; empty: all
};

struct CheckResult {
  enum class Outcome { passed, failed, not_offered };
  std::string name;
  std::string what;  // what the check asks
  Outcome outcome = Outcome::passed;
  std::string detail;  // why it failed, or what was tried
  double seconds = 0;
};

struct Certificate {
  std::string subject;  // the file, or the name of a backend of this build
  std::string backend, version, interface;
  int level = 1;
  std::vector<std::string> devices, extensions;
  std::vector<CheckResult> checks;
  bool passed() const;
  std::string to_text() const;
  std::string to_json() const;
};

struct CheckDescription {
  const char* name;
  const char* what;
};
std::vector<CheckDescription> check_list();

// `subject` is a plugin's file, or the name of a backend of this build. Fails when there is no plugin to check at all.
Result<Certificate> check_plugin(const std::string& subject, const CertifyOptions& options);

}  // namespace ai_vmm
