#include "daemon.hpp"

#include <poll.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/text.hpp"
#include "report.hpp"

namespace AIRamp::Daemon {

Daemon::Daemon(Options options, std::function<void(const std::string&)> log)
    : options_(std::move(options)), log_(std::move(log)) {}

Result<std::unique_ptr<Daemon>> Daemon::start(Options options, std::function<void(const std::string&)> log) {
  std::unique_ptr<Daemon> d(new Daemon(std::move(options), std::move(log)));
  Settings initial;
  if (!d->options_.policy.dry_run) {
    AI_VMM_TRY(d->open_folder());
    if (d->publication_->inherited()) initial = *d->publication_->inherited();
  }
  d->controller_ = std::make_unique<Controller>(d->options_.policy, initial, d->log_);
  d->published_ = initial;
  if (d->publication_) {
    AI_VMM_TRY(d->publication_->publish(d->controller_->settings()));
    d->published_ = d->controller_->settings();
  }
  if (!d->options_.http.empty())
    AI_VMM_TRY(d->server_.listen_for_http(d->options_.http, [p = d.get()] { return p->metrics(); }));
  return d;
}

Status Daemon::open_folder() {
  publication_.reset();
  publication_ = AI_VMM_TAKE(Publication::open(options_.folders));
  log_("Publishing in \"" + publication_->folder() + "\".");
  return server_.listen_for_commands(publication_->folder(), [this](const std::string& line) { return command(line); });
}

void Daemon::log_once(const std::string& sentence) {
  if (sentence != last_said_) log_(sentence);
  last_said_ = sentence;
}

// Values that cannot be published do not hold: programs would not see them.
bool Daemon::publish() {
  if (!publication_) return false;
  Status s = publication_->publish(controller_->settings());
  if (s.ok()) {
    Settings before = std::exchange(published_, controller_->settings());
    last_said_.clear();
    if (auto edited = publication_->take_displaced()) take_edit(*edited, before);
    return true;
  }
  ++publish_failures_;
  log_once(s.message() + " Programs keep the values they have.");
  controller_->revert_to(published_);
  return false;
}

void Daemon::take_edit(const Result<std::string>& text, const Settings& base) {
  auto edit = text.ok() ? parse_edit(*text, base) : Result<Settings>(text.status().copy());
  if (edit.ok()) {
    for (int i = 0; i < kKeyCount; ++i) {
      auto at = size_t(i);
      if (edit->held[at] != base.held[at] || edit->values.of[i] != base.values.of[i]) continue;
      edit->held[at] = published_.held[at], edit->values.of[i] = published_.values.of[i];
    }
    for (int i = 0; i < kKeyCount; ++i) {
      auto at = size_t(i);
      if (edit->held[at] == published_.held[at] && edit->values.of[i] == published_.values.of[i]) continue;
      log_(std::string(kKeys[i].name) + ": " + value_text(Key{i}, published_.values.of[i]) + " to " +
           value_text(Key{i}, edit->values.of[i]) + ", because a person edited it; " +
           (edit->held[at] ? "held from now on." : "no longer held."));
    }
    controller_->adopt(*edit);
  } else {
    ++rejected_edits_;
    log_("An edit is refused: " + edit.status().message() + " The last good values stand" +
         (text.ok() ? "; the text is kept as tuning.conf.rejected." : "."));
    if (text.ok())
      if (Status s = publication_->keep_rejected(*text, edit.status().message()); !s.ok()) log_(s.message());
  }
  publish();  // with a checksum and in our own form, whatever was edited
}

void Daemon::folder_changed() {
  switch (publication_->look()) {
    case Publication::Seen::nothing: break;
    case Publication::Seen::edited: take_edit(publication_->text(), published_); break;
    case Publication::Seen::removed:
      log_("tuning.conf was removed: the values stand, and it is written again.");
      publish();
      break;
    case Publication::Seen::lost: {
      log_once("The folder \"" + publication_->folder() + "\" or the page in it was removed; it is made again.");
      Status s = open_folder();
      folder_lost_ = !s.ok();
      if (s.ok())
        publish();
      else
        log_once(s.message());
      break;
    }
  }
}

void Daemon::observed(const Observation& seen) {
  seen_ = seen;
  if (folder_lost_) {
    Status s = open_folder();
    folder_lost_ = !s.ok();
    if (s.ok())
      publish();
    else
      log_once(s.message());
  }
  if (controller_->step(seen)) publish();
}

std::string Daemon::command(const std::string& line) {
  auto words = ai_vmm::split(ai_vmm::trim(line), ' ');
  std::string_view verb = words[0], what = words.size() > 1 ? words[1] : "";
  auto done = [&](Result<bool> changed) -> std::string {
    if (!changed.ok()) return "error: " + changed.status().message() + "\n";
    if (*changed && !publish()) return "error: it could not be published; see the log of airampd.\n";
    return describe_changes(*controller_);
  };
  if (verb == "status") return describe_changes(*controller_) + describe_keys(*controller_);
  if (verb == "explain") return describe(seen_, absent_) + describe_keys(*controller_);
  if (verb == "approve") return done(controller_->approve(what, steady_ns()));
  if (verb == "veto") return done(controller_->veto(what, steady_ns()));
  if (verb == "mode") {
    auto mode = mode_named(what);
    if (!mode)
      return "error: There is no mode \"" + std::string(what) + "\"; there are off, advise, supervised and auto.\n";
    log_(std::string("The mode is now ") + name(*mode) + ".");
    return done(controller_->set_mode(*mode, steady_ns()));
  }
  return "error: airampd does not know \"" + std::string(verb.substr(0, 40)) + "\".\n";
}

std::string Daemon::metrics() const {
  return ::AIRamp::Daemon::metrics(
      seen_, *controller_,
      {steady_ns(), publication_ ? publication_->generation() : 0, rejected_edits_, publish_failures_});
}

Status Daemon::run(int stop) {
  Observer observer(options_.roots, options_.library_folder);
  absent_ = observer.absent();
  for (const std::string& a : absent_) log_(a);
  ObserverThread thread(std::move(observer), options_.period_ns);
  for (;;) {
    std::vector<pollfd> polled{{stop, POLLIN, 0}, {thread.ready(), POLLIN, 0}};
    if (publication_) polled.push_back({publication_->watch(), POLLIN, 0});
    size_t own = polled.size();
    server_.add_to(polled);
    if (poll(polled.data(), polled.size(), server_.has_clients() ? 200 : -1) < 0 && errno != EINTR)
      return Status(Code::internal, std::string("poll fails: ") + std::strerror(errno) + ".");
    if (polled[0].revents) return {};
    // Edits first: a person, and the programs, wait for them.
    if (own > 2 && polled[2].revents) folder_changed();
    if (polled[1].revents) observed(thread.take());
    server_.serve({polled.begin() + long(own), polled.end()}, steady_ns());
  }
}

}  // namespace AIRamp::Daemon
