// The host's side: a table of the interface whose every entry is a message to the child.
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <mutex>

#include "ai_vmm/cancel.hpp"
#include "ai_vmm/compute_backend.hpp"
#include "base/config.hpp"
#include "base/log.hpp"
#include "hal/backends.hpp"
#include "hal/isolate/isolate.hpp"
#include "hal/isolate/wire.hpp"

extern char** environ;

namespace ai_vmm::isolate {

namespace {

using backend::guarded;
using Clock = std::chrono::steady_clock;

// The program to start: the setting, or aivmm-plugin-host beside this program, beside this library, or in its ../bin.
Result<std::string> host_program() {
  Config config = AI_VMM_TAKE(Config::load());
  if (const std::string& given = config.text("plugin_host"); !given.empty()) return given;
  namespace fs = std::filesystem;
  std::error_code error;
  std::vector<fs::path> places = {fs::read_symlink("/proc/self/exe", error).parent_path()};
  Dl_info here{};
  if (dladdr(reinterpret_cast<void*>(&host_program), &here) && here.dli_fname) {
    fs::path folder = fs::absolute(here.dli_fname, error).parent_path();
    for (const char* near : {"", "bin", "../bin", "../../bin"}) places.push_back(folder / near);
  }
  for (const fs::path& p : places)
    if (fs::path program = p / "aivmm-plugin-host"; access(program.c_str(), X_OK) == 0) return program.string();
  return Status(
      Code::not_found,
      "An isolated backend needs the program aivmm-plugin-host, which is neither beside this program nor beside "
      "the library; the setting plugin_host says where it is.");
}

// A child process and the socket to it.
class Process {
 public:
  static Result<std::shared_ptr<Process>> start(const std::string& subject) {
    Config config = AI_VMM_TAKE(Config::load());
    std::string program = AI_VMM_TAKE(host_program());
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
      return Status(Code::resource_exhausted, "The process has no descriptor left.");
    // Descriptor 3 of the child must not be one that dup2 would leave close-on-exec.
    int theirs = fcntl_above(ends[1]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, theirs, 3);
    char* argv[] = {program.data(), const_cast<char*>(subject.c_str()), nullptr};
    pid_t pid = 0;
    int failed = posix_spawn(&pid, program.c_str(), &actions, nullptr, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(theirs);
    if (failed) {
      close(ends[0]);
      return Status(Code::unavailable, "The program \"" + program + "\" cannot be started: " + strerror(failed) + ".");
    }
    auto p = std::shared_ptr<Process>(new Process);
    p->subject_ = subject;
    p->pid_ = pid;
    p->socket_ = ends[0];
    p->limit_ = std::chrono::milliseconds(config.integer("isolate_limit_ms"));
    return p;
  }
  ~Process() {
    close(socket_);  // the child sees that and ends
    std::lock_guard lock(end_);
    if (!reaped_) {
      auto deadline = Clock::now() + std::chrono::milliseconds(200);
      while (waitpid(pid_, nullptr, WNOHANG) == 0) {
        if (Clock::now() > deadline) kill(pid_, SIGKILL);
        usleep(1000);
      }
    }
  }

  bool alive() const { return !dead_.load(); }

  // One question and its answer. Takes no descriptor. A child that has gone or is late is lost.
  Result<std::string> ask(Call call, const std::string& payload, int fd = -1) {
    std::lock_guard lock(mutex_);
    return exchange(socket_, call, payload, fd, nullptr, {});
  }

  // The same on any of the child's sockets. While it waits, a caller who gives up is passed on through `flag`.
  Result<std::string> exchange(int socket, Call call, const std::string& payload, int fd,
                               const volatile int32_t* cancel, volatile int32_t* flag) {
    if (!alive()) return lost();
    if (!send_message(socket, call, payload, fd)) return end(false);
    auto deadline = Clock::now() + limit_;
    for (;;) {
      pollfd p{socket, POLLIN, 0};
      auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
      if (left <= 0) return end(true);
      int n = poll(&p, 1, int(std::min<int64_t>(left, cancel ? 2 : 1000)));
      if (n > 0) break;
      if (cancelled(cancel)) __atomic_store_n(flag, 1, __ATOMIC_RELAXED);
      if (!alive()) return lost();
    }
    std::string reply;
    if (!receive_message(socket, call, reply, nullptr)) return end(false);
    return reply;
  }

  // The child is to be gone; says why it is.
  Status end(bool late) {
    std::lock_guard lock(end_);
    if (!dead_.exchange(true)) {
      int status = 0;
      if (late) kill(pid_, SIGKILL);
      auto deadline = Clock::now() + std::chrono::seconds(2);
      while (waitpid(pid_, &status, WNOHANG) == 0) {
        if (Clock::now() > deadline) kill(pid_, SIGKILL);
        usleep(1000);
      }
      reaped_ = true;
      cause_ = late                  ? "did not answer for " + std::to_string(limit_.count()) + " ms and was killed"
               : WIFSIGNALED(status) ? std::string("was ended by signal ") + strsignal(WTERMSIG(status))
                                     : "ended with status " + std::to_string(WEXITSTATUS(status));
      log(LogLevel::warning, "The process of " + subject_ + " " + cause_ + ".");
    }
    return gone();
  }
  Status lost() {
    std::lock_guard lock(end_);
    return gone();
  }

 private:
  Process() = default;
  static int fcntl_above(int fd) {
    if (fd > 3) return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    close(fd);
    return high;
  }
  Status gone() const {
    return Status(Code::unavailable, "The process of " + subject_ + " " + cause_ + "; its devices are lost.")
        .on_device(DeviceState::lost);
  }
  std::string subject_, cause_;
  pid_t pid_ = 0;
  int socket_ = -1;
  std::chrono::milliseconds limit_{};
  std::mutex mutex_;  // of the control socket
  std::mutex end_;    // of the end
  std::atomic<bool> dead_{false};
  bool reaped_ = false;
};

// What the table's `self` is.
struct Remote {
  std::string subject, name, version;
  AiVmmBackend table{};
  std::mutex mutex;
  std::shared_ptr<Process> process;

  // The process, started again if it has ended.
  Result<std::shared_ptr<Process>> running() {
    std::lock_guard lock(mutex);
    if (!process || !process->alive()) process = AI_VMM_TAKE(start());
    return process;
  }
  Result<std::shared_ptr<Process>> start();
};

// The failure in a reply, if it is one; the rest of the reply stays in `r`.
Status failure(Reader& r) {
  auto s = backend::make<AiVmmStatus>();
  int32_t code = get_status(r, &s);
  if (!r.ok()) return Status(Code::data_loss, "An isolated backend sent a damaged answer.");
  return code ? to_status(code, s) : Status();
}

Result<std::shared_ptr<Process>> Remote::start() {
  auto p = AI_VMM_TAKE(Process::start(subject));
  std::string reply = AI_VMM_TAKE(p->ask(Call::hello, ""));
  Reader r(reply);
  AI_VMM_TRY(failure(r));
  std::string name_now(r.text()), version_now(r.text());
  if (name.empty()) {  // the table points to these: they stay as they were first
    name = name_now;
    version = version_now;
  }
  table.abi_minor = r.get<uint32_t>();
  bool answers = r.get<uint8_t>() != 0;
  if (!r.ok()) return Status(Code::data_loss, "An isolated backend sent a damaged answer.");
  if (!answers) table.query = nullptr;
  return p;
}

struct Device {
  std::shared_ptr<Process> process;
  uint64_t number = 0;
};
struct Executable {
  std::shared_ptr<Process> process;
  uint64_t number = 0;
};
struct Context {
  std::shared_ptr<Process> process;
  int socket = -1;
  std::unique_ptr<Region> region;
  ~Context() {
    if (socket < 0) return;
    // The child releases its context before it closes its end; only then may the executable go.
    shutdown(socket, SHUT_WR);
    pollfd p{socket, POLLIN, 0};
    if (process->alive()) poll(&p, 1, 10'000);
    close(socket);
  }
};

Remote& of(void* self) { return *static_cast<Remote*>(self); }
Device& of(AiVmmDevice* d) { return *reinterpret_cast<Device*>(d); }
Executable& of(AiVmmExecutable* e) { return *reinterpret_cast<Executable*>(e); }
Context& of(AiVmmContext* c) { return *reinterpret_cast<Context*>(c); }

// A graph's constants as a memory object; -1 where there are none.
Result<int> share(const std::string& constants) {
  if (constants.empty()) return -1;
  int fd = memfd_create("ai_vmm_constants", MFD_CLOEXEC);
  size_t done = 0;
  while (fd >= 0 && done < constants.size()) {
    ssize_t n = write(fd, constants.data() + done, constants.size() - done);
    if (n <= 0) break;
    done += size_t(n);
  }
  if (fd >= 0 && done == constants.size()) return fd;
  if (fd >= 0) close(fd);
  return Status(Code::resource_exhausted, "The machine has no shared memory left for the constants.");
}

// Asks with a graph at the end of the message.
Result<std::string> ask_with_graph(Process& p, Call call, Writer& w, const AiVmmGraph& graph) {
  std::string constants;
  std::string encoded = encode(graph, constants);
  int fd = AI_VMM_TAKE(share(constants));
  auto reply = p.ask(call, w.bytes() + encoded, fd);
  if (fd >= 0) close(fd);
  return reply;
}

Status query(Device& d, const AiVmmGraph& graph, AiVmmVerdict* const* verdicts) {
  // Details must outlive the call as literals do; there are few, and each is kept once.
  static std::mutex mutex;
  static std::deque<std::string>* details = new std::deque<std::string>;
  std::string reply = AI_VMM_TAKE(ask_with_graph(*d.process, Call::query, Writer().put(d.number), graph));
  Reader r(reply);
  AI_VMM_TRY(failure(r));
  for (uint32_t n = 0; n < graph.node_count; ++n) {
    verdicts[n]->reason = r.get<int32_t>();
    verdicts[n]->est_ns = r.get<double>();
    verdicts[n]->est_bytes = r.get<double>();
    std::string_view detail = r.text();
    verdicts[n]->detail = nullptr;
    if (detail.empty()) continue;
    std::lock_guard lock(mutex);
    auto known = std::find(details->begin(), details->end(), detail);
    if (known == details->end() && details->size() < 1000) known = details->emplace(details->end(), detail);
    if (known != details->end()) verdicts[n]->detail = known->c_str();
  }
  return r.ok() ? Status() : Status(Code::data_loss, "An isolated backend sent a damaged answer.");
}

Status create_context(Executable& e, AiVmmContext** out) {
  auto c = std::make_unique<Context>();
  c->process = e.process;
  c->region = AI_VMM_TAKE(Region::make());
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return Status(Code::resource_exhausted, "The process has no descriptor left.");
  c->socket = ends[0];
  bool sent = send_message(ends[0], Call::create_context, "", c->region->fd());
  auto reply = sent ? e.process->ask(Call::create_context, Writer().put(e.number).bytes(), ends[1])
                    : Result<std::string>(e.process->end(false));
  close(ends[1]);
  if (!reply.ok()) return std::move(reply).status();
  Reader r(*reply);
  AI_VMM_TRY(failure(r));
  *out = reinterpret_cast<AiVmmContext*>(c.release());
  return {};
}

Status execute(Context& c, std::span<const AiVmmTensor* const> in, std::span<const AiVmmTensor* const> out,
               const AiVmmRun& run) {
  // Inputs, then memory for outputs that were given some, one after the other.
  uint64_t end = Region::kData;
  auto place = [&](uint64_t bytes) {
    uint64_t at = (end + 63) / 64 * 64;
    end = at + bytes;
    return at;
  };
  auto bytes_of = [](const AiVmmTensor& t) { return uint64_t(backend::bytes_of(t.dtype, t.rank, t.shape)); };
  Writer tensors;
  std::vector<uint64_t> offsets;
  auto describe = [&](std::span<const AiVmmTensor* const> list) {
    tensors.put(uint32_t(list.size()));
    for (const AiVmmTensor* t : list) {
      offsets.push_back(t->data ? place(bytes_of(*t)) : 0);
      tensors.put(offsets.back()).put(t->dtype).put(t->rank);
      tensors.list(t->shape, t->shape ? size_t(t->rank) : 0);
    }
  };
  describe(in);
  describe(out);
  if (!c.region->reserve(end))
    return Status(Code::resource_exhausted, "The machine has no shared memory left for the tensors of a run.");
  for (size_t i = 0; i < in.size(); ++i)
    if (uint64_t n = in[i]->data ? bytes_of(*in[i]) : 0)
      std::memcpy(c.region->at(offsets[i]), backend::data_of(*in[i]), n);
  *c.region->cancel() = cancelled(run.cancel);
  Writer w;
  w.put(run.threads).put(run.seed).put(end);
  std::string reply = AI_VMM_TAKE(
      c.process->exchange(c.socket, Call::execute, w.bytes() + tensors.bytes(), -1, run.cancel, c.region->cancel()));
  Reader r(reply);
  AI_VMM_TRY(failure(r));
  auto info = r.get<AiVmmRunInfo>();
  if (run.info) backend::publish(info, run.info);
  for (uint32_t k = 0; k < out.size(); ++k) {
    if (r.get<uint8_t>() == 0) {  // written where it was given
      const AiVmmTensor& t = *out[k];
      if (!t.data) return Status(Code::internal, "The isolated backend made no output " + std::to_string(k) + ".");
      if (uint64_t n = bytes_of(t))
        std::memcpy(static_cast<char*>(t.data) + t.byte_offset, c.region->at(offsets[in.size() + k]), n);
      continue;
    }
    auto dtype = r.get<int32_t>();
    auto shape = r.list<int64_t>();
    auto offset = r.get<uint64_t>();
    uint64_t bytes = 0;
    for (int64_t d : shape)
      if (d < 0) return Status(Code::data_loss, "An isolated backend sent a damaged answer.");
    if (r.ok()) bytes = uint64_t(backend::bytes_of(dtype, int32_t(shape.size()), shape.data()));
    if (!r.ok() || offset > Region::kSpan || bytes > Region::kSpan - offset || !c.region->reserve(offset + bytes))
      return Status(Code::data_loss, "An isolated backend sent a damaged answer.");
    void* to = AI_VMM_TAKE(backend::allocate(run, k, dtype, int32_t(shape.size()), shape.data()));
    if (bytes) std::memcpy(to, c.region->at(offset), bytes);
  }
  return {};
}

}  // namespace

Result<const AiVmmBackend*> connect(const std::string& subject) {
  auto remote = std::make_unique<Remote>();
  remote->subject = subject;
  AiVmmBackend& t = remote->table;
  t = backend::make<AiVmmBackend>();
  t.abi_major = AI_VMM_ABI_MAJOR;
  t.self = remote.get();
  t.device_count = [](void* self) -> int32_t {
    auto p = of(self).running();
    if (!p.ok()) return 0;
    auto reply = (*p)->ask(Call::device_count, "");
    if (!reply.ok()) return 0;
    Reader r(*reply);
    return failure(r).ok() ? r.get<int32_t>() : 0;
  };
  t.device_info = [](void* self, int32_t index, AiVmmDeviceInfo* theirs, AiVmmStatus* s) {
    return guarded(s, [&]() -> Status {
      auto p = AI_VMM_TAKE(of(self).running());
      std::string reply = AI_VMM_TAKE(p->ask(Call::device_info, Writer().put(index).bytes()));
      Reader r(reply);
      AI_VMM_TRY(failure(r));
      backend::publish(r.get<AiVmmDeviceInfo>(), theirs);
      return {};
    });
  };
  t.open_device = [](void* self, int32_t index, AiVmmDevice** out, AiVmmStatus* s) {
    return guarded(s, [&]() -> Status {
      auto d = std::make_unique<Device>();
      d->process = AI_VMM_TAKE(of(self).running());
      std::string reply = AI_VMM_TAKE(d->process->ask(Call::open_device, Writer().put(index).bytes()));
      Reader r(reply);
      AI_VMM_TRY(failure(r));
      d->number = r.get<uint64_t>();
      *out = reinterpret_cast<AiVmmDevice*>(d.release());
      return {};
    });
  };
  t.close_device = [](AiVmmDevice* d) {
    (void)of(d).process->ask(Call::close_device, Writer().put(of(d).number).bytes());
    delete &of(d);
  };
  t.device_state = [](AiVmmDevice* d, AiVmmStatus* s) {
    return guarded(s, [&]() -> Status {
      std::string reply = AI_VMM_TAKE(of(d).process->ask(Call::device_state, Writer().put(of(d).number).bytes()));
      Reader r(reply);
      return failure(r);
    });
  };
  t.query = [](AiVmmDevice* d, const AiVmmGraph* graph, AiVmmVerdict* const* verdicts, AiVmmStatus* s) {
    return guarded(s, [&] { return query(of(d), *graph, verdicts); });
  };
  t.compile = [](AiVmmDevice* d, const AiVmmGraph* graph, const AiVmmCompileOptions* theirs, AiVmmExecutable** out,
                 AiVmmStatus* s) {
    return guarded(s, [&]() -> Status {
      AI_VMM_TRY(backend::detail::check(graph, true));
      const AiVmmCompileOptions o = backend::local(theirs);
      AI_VMM_TRY(backend::detail::check_layouts(*graph, o));
      Writer w;
      w.put(of(d).number).put(o.threads).put(o.deterministic).put(o.memory_limit);
      w.list(o.alias, o.alias ? graph->output_count : 0);
      auto e = std::make_unique<Executable>();
      e->process = of(d).process;
      std::string reply = AI_VMM_TAKE(ask_with_graph(*e->process, Call::compile, w, *graph));
      Reader r(reply);
      AI_VMM_TRY(failure(r));
      e->number = r.get<uint64_t>();
      *out = reinterpret_cast<AiVmmExecutable*>(e.release());
      return {};
    });
  };
  t.release_executable = [](AiVmmExecutable* e) {
    (void)of(e).process->ask(Call::release_executable, Writer().put(of(e).number).bytes());
    delete &of(e);
  };
  t.executable_info = [](AiVmmExecutable* e, AiVmmExecutableInfo* theirs, AiVmmStatus* s) {
    return guarded(s, [&]() -> Status {
      std::string reply = AI_VMM_TAKE(of(e).process->ask(Call::executable_info, Writer().put(of(e).number).bytes()));
      Reader r(reply);
      AI_VMM_TRY(failure(r));
      backend::publish(r.get<AiVmmExecutableInfo>(), theirs);
      return {};
    });
  };
  t.create_context = [](AiVmmExecutable* e, AiVmmContext** out, AiVmmStatus* s) {
    return guarded(s, [&] { return create_context(of(e), out); });
  };
  t.release_context = [](AiVmmContext* c) { delete &of(c); };
  t.execute = [](AiVmmContext* c, const AiVmmTensor* const* in, uint32_t n, const AiVmmTensor* const* out, uint32_t m,
                 const AiVmmRun* run, AiVmmStatus* s) {
    return guarded(s, [&] { return execute(of(c), {in, n}, {out, m}, backend::local(run)); });
  };
  remote->process = AI_VMM_TAKE(remote->start());
  t.name = remote->name.c_str();
  t.version = remote->version.c_str();
  return &remote.release()->table;  // never freed: devices and executables refer to it
}

}  // namespace ai_vmm::isolate
