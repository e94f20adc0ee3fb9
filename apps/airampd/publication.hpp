// The folder in which airampd publishes: made, checked, locked and watched by one daemon at a time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "settings.hpp"

namespace AIRamp::Daemon {

class Publication {
 public:
  // The first folder of `candidates` that can be made, or is there and belongs to this user alone. What a former daemon
  // published there is taken over. unavailable: none can be used, with the reason for each; already_exists: another
  // daemon has it.
  static Result<std::unique_ptr<Publication>> open(const std::vector<std::string>& candidates);
  // Where this user's daemon looks: /dev/shm/airamp-accel, then /run/airamp-accel for root and
  // $XDG_RUNTIME_DIR/airamp-accel for others; $AIRAMP_TUNING_DIR alone if set.
  static std::vector<std::string> default_candidates();
  ~Publication();
  Publication(const Publication&) = delete;

  const std::string& folder() const { return path_; }
  uint64_t generation() const { return generation_; }
  // What a former daemon left, if its text is whole and of this version.
  const std::optional<Settings>& inherited() const { return inherited_; }

  // Writes the text beside the old one, reads it back with the library's own parser, lets the two change places, and
  // raises the generation word. On failure everything is as before.
  Status publish(const Settings& settings);
  // A text that the last publication took the place of although nobody had seen it: somebody's edit of that moment.
  std::optional<std::string> take_displaced() { return std::exchange(displaced_, {}); }

  // Readable when something happened in the folder.
  int watch() const { return inotify_; }
  enum class Seen {
    nothing,  // or only what we did ourselves
    edited,   // tuning.conf holds something else than we published
    removed,  // tuning.conf is gone
    lost,     // the folder or the page is gone: open it anew
  };
  Seen look();  // drains the watch
  // The text that stands there now. Fails when it is a link, too large, another user's …
  Result<std::string> text();
  // Keeps a text that was refused as tuning.conf.rejected, with the reason above it.
  Status keep_rejected(const std::string& text, const std::string& reason);

 private:
  Publication() = default;
  Status start(const std::string& path);
  Status open_page();
  // With `exchange`, what stood there is beside it afterwards, under the name with kFreshSuffix.
  Status write_file(const char* name, const std::string& text, bool exchange = false) const;
  Result<std::string> read_text(const char* name) const;

  std::string path_;
  int folder_ = -1, lock_ = -1, inotify_ = -1;
  Interposer::TuningPage* page_ = nullptr;
  uint64_t generation_ = 0;
  std::string published_, seen_;  // the texts that tuning.conf may hold without being news
  std::optional<std::string> displaced_;
  std::optional<Settings> inherited_;
};

}  // namespace AIRamp::Daemon
