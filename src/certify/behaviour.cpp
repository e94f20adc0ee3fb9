#include <dirent.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "ai_vmm/compute_backend.hpp"
#include "certify/checks.hpp"
#include "certify/child.hpp"
#include "hal/backends.hpp"
#include "ops/op.hpp"

namespace ai_vmm::certify {

const Case* find_case(std::span<const Case* const> list, bool (*fits)(const Case&)) {
  for (const Case* c : list)
    if (fits(*c)) return c;
  return list[0];
}

bool plain(const Case& c) {
  if (c.inputs.empty() || c.inputs[0].count() < 4 || c.inputs[0].dtype() != DType::f32) return false;
  for (ValueId v : c.graph.inputs)
    if (!c.graph.value(v).type.shape()) return false;
  return true;
}

bool same_in_and_out(const Case& c) {
  if (!plain(c)) return false;
  const Type &x = c.graph.value(c.graph.inputs[0]).type, &y = c.graph.value(c.graph.outputs[0]).type;
  return x.shape() && x == y;
}

namespace {

// Nodes x → op → op → … → y, of an operator that keeps its input's type.
Graph chain(const Case& c, int length) {
  Graph g = c.graph.clone();
  const Node first = g.nodes[0];
  ValueId last = first.outputs[0];
  const Type type = g.value(last).type;
  for (int i = 1; i < length; ++i) {
    ValueId next = g.add_value("chain", type);
    Node n = first;
    n.name = "link" + std::to_string(i);
    n.inputs[0] = last;
    n.outputs = {next};
    g.nodes.push_back(std::move(n));
    last = next;
  }
  g.outputs = {last};
  return g;
}

bool chains(const Case& c) {
  return same_in_and_out(c) && c.graph.nodes[0].outputs.size() == 1 && c.inputs.size() == 1;
}

struct Footprint {
  int64_t heap = 0, mapped = 0, descriptors = 0, threads = 0;
  static Footprint now() {
    auto entries = [](const char* folder) {
      int64_t n = 0;
      if (DIR* d = opendir(folder)) {
        while (readdir(d)) ++n;
        closedir(d);
      }
      return n;
    };
    Footprint f;
    struct mallinfo2 m = mallinfo2();
    f.heap = int64_t(m.uordblks + m.hblkhd);
    std::string line;
    for (std::ifstream in("/proc/self/maps"); std::getline(in, line);)
      if (line.find("[heap]") == line.npos) {
        uint64_t begin = 0, end = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) == 2) f.mapped += int64_t(end - begin);
      }
    f.descriptors = entries("/proc/self/fd");
    f.threads = entries("/proc/self/task");
    return f;
  }
};

// Repeats `step` and compares what the process holds: "" or how it grew in every one of three windows.
Result<std::string> growth(const char* what, int repeats, const std::function<Status()>& step) {
  Footprint f[4];
  f[0] = Footprint::now();
  for (int window = 1; window <= 3; ++window) {
    for (int i = 0; i < repeats; ++i) AI_VMM_TRY(step());
    f[window] = Footprint::now();
  }
  auto grows = [&](int64_t Footprint::*field, int64_t least) {
    return f[1].*field - f[0].*field >= least && f[2].*field - f[1].*field >= least &&
           f[3].*field - f[2].*field >= least;
  };
  auto each = [&](int64_t Footprint::*field) { return std::to_string((f[3].*field - f[0].*field) / (3 * repeats)); };
  const std::string which = std::string("each ") + what + " leaks ";
  if (grows(&Footprint::heap, int64_t(repeats) * 8)) return which + each(&Footprint::heap) + " bytes of the heap";
  if (grows(&Footprint::mapped, int64_t(repeats) * 4096))
    return which + each(&Footprint::mapped) + " bytes of mapped memory";
  if (grows(&Footprint::descriptors, repeats / 2)) return which + "a file descriptor";
  if (grows(&Footprint::threads, repeats / 2)) return which + "a thread";
  return std::string();
}

// A leak grows however often one looks. What a driver's threads have not given back yet, or keep for later, does not.
Status watch(const char* what, int repeats, const std::function<Status()>& step) {
  constexpr int kLooks = 4;
  doing(std::string("repeating ") + what);
  for (int i = 0; i < repeats; ++i) AI_VMM_TRY(step());
  std::string grew;
  for (int look = 0; look < kLooks; ++look) {
    grew = AI_VMM_TAKE(growth(what, repeats, step));
    if (grew.empty()) return {};
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return broken(grew);
}

}  // namespace

Result<std::string> check_query(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  auto list = AI_VMM_TAKE(s.supported());
  std::set<std::string> operators;
  for (const Case* c : list) {
    doing("compiling " + c->name);
    auto compiled = Compiled::make(s, c->graph);
    if (!compiled.ok())
      return broken("query takes " + c->name + ", but compile refuses it: " + compiled.status().message());
    operators.insert(c->op);
  }
  return "takes " + std::to_string(list.size()) + " of " + std::to_string(cases().size()) + " cases, " +
         std::to_string(operators.size()) + " operators, and compiles all of them";
}

Result<std::string> check_operators(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  auto list = AI_VMM_TAKE(s.supported());
  int wrong = 0, tried = 0;
  std::string first;
  for (const Case* c : list) {
    doing("running " + c->name);
    auto compiled = Compiled::make(s, c->graph);
    if (!compiled.ok()) return broken(c->name + ": " + compiled.status().message());
    // Open sizes are run at several values with one executable.
    bool open = false;
    for (ValueId v : c->graph.inputs) open = open || !c->graph.value(v).type.shape();
    for (int64_t size : open ? std::vector<int64_t>{5, 9, 1, 5} : std::vector<int64_t>{0}) {
      auto inputs = open ? make_inputs(c->graph, uint64_t(size), size) : c->inputs;
      RunSetup setup;
      Status result = (*compiled)->compare(inputs, setup);
      ++tried;
      if (result.ok()) continue;
      if (++wrong == 1) first = c->name + ": " + result.message();
    }
  }
  if (wrong) return broken(std::to_string(wrong) + " of " + std::to_string(tried) + " runs are wrong, first " + first);
  return std::to_string(tried) + " runs agree with the reference";
}

Result<std::string> check_outputs(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  auto list = AI_VMM_TAKE(s.supported());
  for (const Case* c : list) {
    doing("running " + c->name + " with outputs from allocate");
    auto compiled = AI_VMM_TAKE(Compiled::make(s, c->graph));
    RunSetup setup;
    setup.in_place = false;
    AI_VMM_TRY(compiled->compare(make_inputs(c->graph, 3), setup)
                   .during("running " + c->name + " with outputs from allocate"));
  }
  return std::to_string(list.size()) + " cases, outputs in given memory and from allocate, no byte beyond them written";
}

Result<std::string> check_alias(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  auto list = AI_VMM_TAKE(s.supported());
  int tried = 0;
  for (const Case* c : list) {
    if (!same_in_and_out(*c)) continue;
    doing("running " + c->name + " with the output over the input");
    auto compiled = AI_VMM_TAKE(Compiled::make(s, c->graph, true));
    RunSetup setup;
    setup.alias_first = true;
    AI_VMM_TRY(compiled->compare(c->inputs, setup).during("running " + c->name + " with the output over the input"));
    ++tried;
  }
  if (!tried) return std::string(kNotOffered) + "no supported case has an output like its input";
  return std::to_string(tried) + " cases with the output over the input";
}

Result<std::string> check_repeat(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  auto list = AI_VMM_TAKE(s.supported());
  for (const Case* c : list) {
    doing("repeating " + c->name);
    auto compiled = AI_VMM_TAKE(Compiled::make(s, c->graph));
    RunSetup setup;
    auto inputs = make_inputs(c->graph, 3);
    auto one = AI_VMM_TAKE(compiled->run(inputs, setup));
    (void)compiled->run(make_inputs(c->graph, 4), setup);
    auto two = AI_VMM_TAKE(compiled->run(inputs, setup));
    for (size_t k = 0; k < one.size(); ++k)
      if (!identical(one[k], two[k]))
        return broken("two runs of " + c->name + " on the same inputs differ in their bits");
  }
  return std::to_string(list.size()) + " cases give the same bits again";
}

Result<std::string> check_cancel(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  auto list = AI_VMM_TAKE(s.supported());
  const Case* c = find_case(list, plain);
  auto compiled = AI_VMM_TAKE(Compiled::make(s, c->graph));
  volatile int32_t given_up = 1;
  RunSetup setup;
  setup.cancel = &given_up;
  doing("running " + c->name + " for a caller who has given up");
  auto ran = compiled->run(c->inputs, setup);
  if (ran.ok() || setup.code != 1)
    return broken("a run whose caller had given up before gave code " + std::to_string(setup.code) +
                  " and not 1 (cancelled)");
  setup.cancel = nullptr;
  AI_VMM_TRY(compiled->compare(c->inputs, setup).during("running after a cancelled run"));

  const Case* link = find_case(list, chains);
  if (!chains(*link)) return std::string("a caller who gave up before the run is heard");
  doing("giving up in the middle of 3000 times " + link->name);
  auto made = Compiled::make(s, chain(*link, 3000));
  if (!made.ok()) return std::string("a caller who gave up before the run is heard; long chains are not taken");
  given_up = 0;
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    given_up = 1;
  });
  setup.cancel = &given_up;
  setup.in_place = false;
  auto interrupted = (*made)->run(link->inputs, setup);
  later.join();
  if (setup.code != 0 && setup.code != 1)
    return broken("a run given up in its middle gave code " + std::to_string(setup.code));
  return std::string("a caller who gave up is heard before the run and within it");
}

Result<std::string> check_threads(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  auto list = AI_VMM_TAKE(s.supported());
  const Case* c = find_case(list, plain);
  const Case* link = find_case(list, chains);
  Graph graph = chains(*link) ? chain(*link, 8) : c->graph.clone();
  if (chains(*link)) {
    if (!Compiled::make(s, graph).ok())
      graph = c->graph.clone();
    else
      c = link;
  }
  doing("running " + c->name + " on four threads");
  auto compiled = AI_VMM_TAKE(Compiled::make(s, graph));
  std::mutex mutex;
  Status failure;
  auto fail = [&](Status f) {
    std::lock_guard lock(mutex);
    if (failure.ok()) failure = std::move(f);
  };
  std::vector<std::thread> threads;
  constexpr int kThreads = 4, kRuns = 60;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      AiVmmStatus status = new_status();
      AiVmmContext* own = nullptr;
      if (s.api->create_context(compiled->executable, &own, &status))
        return fail(broken("a further context of one executable cannot be made"));
      for (int i = 0; i < kRuns; ++i) {
        RunSetup setup;
        if (Status r = compiled->compare(make_inputs(graph, uint64_t(100 * t + i)), setup, own); !r.ok()) {
          fail(std::move(r).during("running on four threads, a context each"));
          break;
        }
      }
      s.api->release_context(own);
    });
  threads.emplace_back([&] {  // meanwhile others compile and open
    for (int i = 0; i < kRuns / 4; ++i) {
      if (auto other = Compiled::make(s, graph); !other.ok()) return fail(std::move(other).status());
      AiVmmDevice* device = nullptr;
      AiVmmStatus status = new_status();
      if (!s.api->open_device(s.api->self, s.index, &device, &status)) s.api->close_device(device);
    }
  });
  for (auto& t : threads) t.join();
  AI_VMM_TRY(std::move(failure));
  return std::to_string(kThreads * kRuns) + " runs on four threads while a fifth compiles agree with the reference";
}

Result<std::string> check_leaks(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  auto list = AI_VMM_TAKE(s.supported());
  const Case* c = find_case(list, plain);
  constexpr int kRepeats = 40;
  {
    auto compiled = AI_VMM_TAKE(Compiled::make(s, c->graph));
    AI_VMM_TRY(watch("run", kRepeats, [&]() -> Status {
      RunSetup setup;
      auto out = compiled->run(c->inputs, setup);
      return out.ok() ? Status() : std::move(out).status();
    }));
    volatile int32_t given_up = 1;
    AI_VMM_TRY(watch("cancelled run", kRepeats, [&]() -> Status {
      RunSetup setup;
      setup.cancel = &given_up;
      (void)compiled->run(c->inputs, setup);
      return {};
    }));
  }
  AI_VMM_TRY(watch("compilation", kRepeats, [&]() -> Status {
    auto made = Compiled::make(s, c->graph);
    return made.ok() ? Status() : std::move(made).status();
  }));
  AI_VMM_TRY(watch("compilation with a run", kRepeats, [&]() -> Status {
    auto made = AI_VMM_TAKE(Compiled::make(s, c->graph));
    RunSetup setup;
    auto out = made->run(c->inputs, setup);
    return out.ok() ? Status() : std::move(out).status();
  }));
  AI_VMM_TRY(watch("opened device", kRepeats, [&]() -> Status {
    AiVmmDevice* device = nullptr;
    AiVmmStatus status = new_status();
    if (s.api->open_device(s.api->self, s.index, &device, &status)) return broken("a device cannot be opened twice");
    s.api->close_device(device);
    return {};
  }));
  return "heap, mappings, descriptors and threads stand still over " + std::to_string(4 * kRepeats) +
         " runs, cancelled runs, compilations and openings each";
}

Result<std::string> check_failures(Subject& s) {
  // A host whose services fail or answer nonsense.
  AiVmmHost host = host_services();
  host.memory_charge = [](void*, int64_t bytes) -> int32_t { return bytes > 0 ? 8 : 0; };
  host.tuning_get = [](void*, AiVmmText, char* value, uint64_t capacity) -> uint64_t {
    std::memset(value, 0xff, capacity);
    return capacity + 1'000'000;
  };
  host.tuning_put = [](void*, AiVmmText, AiVmmText) {};
  AI_VMM_TRY(s.open(host));
  auto list = AI_VMM_TAKE(s.supported());
  const Case* c = find_case(list, plain);
  auto compiled = AI_VMM_TAKE(Compiled::make(s, c->graph));
  doing("running " + c->name + " where the host grants no memory for outputs");
  RunSetup setup;
  setup.in_place = false;
  setup.refuse_memory = true;
  auto refused = compiled->run(c->inputs, setup);
  if (setup.code == 0) return broken("a run whose outputs were refused memory reported success");
  if (refused.status().code() == Code::failed_precondition) return std::move(refused).status();
  if (setup.code != 8)
    return broken("a run whose outputs were refused memory gave code " + std::to_string(setup.code) +
                  " and not 8 (resource exhausted)");
  if (setup.status.device_state == AI_VMM_DEVICE_LOST)
    return broken("it called the device lost for want of host memory");
  doing("running " + c->name + " under a memory budget that refuses everything");
  RunSetup again;
  auto ran = compiled->run(c->inputs, again);
  if (!ran.ok() && again.code != 8) return std::move(ran).status();
  doing("closing in every order");
  // Executables outlive contexts; the device is closed last. Several of each at once.
  auto second = AI_VMM_TAKE(Compiled::make(s, c->graph));
  compiled.reset();
  RunSetup last;
  if (auto out = second->run(c->inputs, last); !out.ok() && last.code != 8) return std::move(out).status();
  return std::string("refused memory, a refusing budget and nonsense from the tuning store end in sentences");
}

}  // namespace ai_vmm::certify
