// Reads files under a root that need not be "/": the real system, a copy of another machine's, or a hostile one.
// Nothing outside the root is read; devices, pipes and endless files are not either.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ai_vmm {

class Tree {
 public:
  explicit Tree(const std::string& root);

  // All paths are absolute within the tree.
  std::optional<std::string> text(const std::string& path) const;   // of a regular file, at most 1 MiB, trimmed
  std::optional<int64_t> number(const std::string& path) const;     // decimal, or hexadecimal after 0x
  std::vector<std::string> names(const std::string& folder) const;  // sorted
  // The path with links followed; nullopt if it does not exist, loops or leaves the tree.
  std::optional<std::string> resolve(const std::string& path) const;
  std::string file(const std::string& path) const { return root_ + path; }  // in the real file system
  const std::string& root() const { return root_; }                         // "" for the system itself

 private:
  std::string root_;
};

std::optional<int64_t> parse_number(std::string_view text);

}  // namespace ai_vmm
