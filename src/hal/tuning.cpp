#include "hal/tuning.hpp"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <sstream>

#include "base/config.hpp"
#include "base/hash.hpp"
#include "base/log.hpp"

namespace ai_vmm {

namespace fs = std::filesystem;

namespace {
constexpr std::string_view kMagic = "aivmm tuning 1\n";

std::string cache_folder() {
  auto config = Config::load();
  if (config.ok() && !config->text("tuning_folder").empty())
    return config->text("tuning_folder") == "none" ? "" : config->text("tuning_folder");
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (cache && *cache) return std::string(cache) + "/aivmm/tuning";
  return home && *home ? std::string(home) + "/.cache/aivmm/tuning" : "";
}
}  // namespace

TuningStore& TuningStore::of_process() {
  static TuningStore* store = new TuningStore(cache_folder());  // never destroyed: backends may ask at any time
  return *store;
}

std::string TuningStore::file(std::string_view key) const {
  char name[24];
  std::snprintf(name, sizeof name, "/%016llx",
                static_cast<unsigned long long>(hash_bytes(std::as_bytes(std::span<const char>(key)))));
  return folder_ + name;
}

std::optional<std::string> TuningStore::get(std::string_view key) {
  std::lock_guard lock(mutex_);
  if (auto it = known_.find(key); it != known_.end()) return it->second;
  if (folder_.empty()) return std::nullopt;
  std::ifstream in(file(key), std::ios::binary);
  std::ostringstream all;
  if (!in || !(all << in.rdbuf())) return std::nullopt;
  // magic, size of the key, key, size of the value, value; all of it or nothing.
  std::string text = std::move(all).str();
  std::string head = std::string(kMagic) + std::to_string(key.size()) + "\n" + std::string(key);
  if (!text.starts_with(head)) return std::nullopt;
  size_t end = text.find('\n', head.size());
  if (end == text.npos) return std::nullopt;
  std::string value = text.substr(end + 1);
  if (text.substr(head.size(), end - head.size()) != std::to_string(value.size())) return std::nullopt;
  return known_.emplace(key, std::move(value)).first->second;
}

void TuningStore::put(std::string_view key, std::string_view value) {
  std::lock_guard lock(mutex_);
  known_.insert_or_assign(std::string(key), std::string(value));
  if (folder_.empty()) return;
  std::error_code error;
  fs::create_directories(folder_, error);
  static std::atomic<int> number{0};
  std::string to = file(key), part = to + "." + std::to_string(getpid()) + "." + std::to_string(number++);
  {
    std::ofstream out(part, std::ios::binary);
    out << kMagic << key.size() << "\n" << key << value.size() << "\n" << value;
    out.flush();
    if (!out) {
      fs::remove(part, error);
      log(LogLevel::info, "Measured choices cannot be kept in " + folder_ + "; they are measured again next time.");
      return;
    }
  }
  fs::rename(part, to, error);
  if (error) fs::remove(part, error);
}

}  // namespace ai_vmm
