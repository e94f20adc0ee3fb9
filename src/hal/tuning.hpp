// What backends measured and want to find again in the next process: the host's services tuning_get and tuning_put.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace ai_vmm {

// A value a file, named after a hash of its key and holding both, in a folder that processes share. A file appears
// whole or not at all; a damaged one, a full disk and a folder that cannot be written to mean that nothing is
// remembered.
class TuningStore {
 public:
  // The folder is made when something is first put. "": values live as long as this object.
  explicit TuningStore(std::string folder) : folder_(std::move(folder)) {}
  std::optional<std::string> get(std::string_view key);
  void put(std::string_view key, std::string_view value);

  // That of the process: the setting `tuning_folder`, or aivmm/tuning under $XDG_CACHE_HOME (~/.cache).
  static TuningStore& of_process();

 private:
  std::string file(std::string_view key) const;
  std::string folder_;
  std::mutex mutex_;
  std::map<std::string, std::string, std::less<>> known_;
};

}  // namespace ai_vmm
