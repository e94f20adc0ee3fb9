// airampd at work: what happens in the folder, in the machine and at the doors, one after the other in one loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "control.hpp"
#include "observation.hpp"
#include "publication.hpp"
#include "server.hpp"

namespace AIRamp::Daemon {

struct Options {
  Policy policy;
  std::vector<std::string> folders;  // candidates
  std::string http;                  // address of the metrics; "" for none
  ai_vmm::telemetry::Roots roots;
  std::string library_folder;  // of vendors' libraries; "" for the system's
  int64_t period_ns = 2'000'000'000;
};

class Daemon {
 public:
  // Takes the folder over and publishes what holds at the start. In a dry run there is no folder, and nothing is
  // published.
  static Result<std::unique_ptr<Daemon>> start(Options options, std::function<void(const std::string&)> log);

  // Serves until `stop` is readable.
  Status run(int stop);

  // The parts of the loop, for tests.
  void folder_changed();
  void observed(const Observation& seen);
  std::string command(const std::string& line);
  std::string metrics() const;

  const Publication* publication() const { return publication_.get(); }
  const Controller& controller() const { return *controller_; }
  const Server& server() const { return server_; }

 private:
  Daemon(Options options, std::function<void(const std::string&)> log);
  Status open_folder();
  bool publish();
  // `base` is what the text was made from: keys that it leaves as they were there keep what they have now.
  void take_edit(const Result<std::string>& text, const Settings& base);
  void log_once(const std::string& sentence);

  Options options_;
  std::function<void(const std::string&)> log_;
  std::unique_ptr<Publication> publication_;
  std::unique_ptr<Controller> controller_;
  Settings published_;
  Server server_;
  Observation seen_;
  std::vector<std::string> absent_;
  std::string last_said_;
  bool folder_lost_ = false;
  uint64_t rejected_edits_ = 0, publish_failures_ = 0;
};

}  // namespace AIRamp::Daemon
