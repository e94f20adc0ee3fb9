// Runs a function in a child process.
#pragma once

#include <functional>
#include <string>

namespace ai_vmm::certify {

struct ChildResult {
  bool finished = false;  // the function returned; `text` is what it gave
  std::string text;       // else: how the process ended, with the end of its stderr
  std::string doing;      // the last thing it said it was doing
  double seconds = 0;
};

// The function's text comes back; it may call doing(). A child that takes longer is killed.
ChildResult in_child(int timeout_seconds, const std::function<std::string()>& function);

void doing(const std::string& what);  // of the current child

}  // namespace ai_vmm::certify
