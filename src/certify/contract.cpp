#include <algorithm>
#include <cstring>

#include "ai_vmm/compute_backend.hpp"
#include "certify/checks.hpp"
#include "certify/child.hpp"
#include "hal/backends.hpp"
#include "ops/op.hpp"

namespace ai_vmm::certify {

namespace {

constexpr size_t kBehind = 128;

// A struct of the interface with bytes behind it that nobody may touch, and any head.size.
template <class T>
struct Padded {
  alignas(16) unsigned char bytes[sizeof(T) + kBehind];
  explicit Padded(uint32_t size) {
    std::memset(bytes, 0xa7, sizeof bytes);
    std::memset(bytes, 0, std::min<size_t>(size, sizeof(T)));
    get()->head.size = size;
    get()->head.kind = 0;
    get()->head.next = nullptr;
  }
  T* get() { return reinterpret_cast<T*>(bytes); }
  bool intact(uint32_t size) const {
    return std::all_of(bytes + std::min<size_t>(size, sizeof(T)), bytes + sizeof bytes,
                       [](unsigned char b) { return b == 0xa7; });
  }
};

// Runs one case on a freshly connected subject.
Status run_one(Subject& subject, uint32_t extra_size = 0) {
  auto list = AI_VMM_TAKE(subject.supported());
  const Case* c = find_case(list, plain);
  doing("running " + c->name);
  auto compiled = AI_VMM_TAKE(Compiled::make(subject, c->graph, false, extra_size));
  RunSetup setup;
  setup.extra_size = extra_size;
  return compiled->compare(c->inputs, setup);
}

// Refused with code 12 and a sentence.
Result<std::string> refused(Subject& subject, const AiVmmHost& host, const char* what) {
  AiVmmStatus s = new_status();
  if (const AiVmmBackend* t = subject.entry(&host, &s))
    return broken(std::string("it accepted ") + what + " and answered with version " + std::to_string(t->abi_major) +
                  "." + std::to_string(t->abi_minor));
  std::string text;
  AI_VMM_TRY(sentence(s.code, s, &text));
  if (s.code != 12) return broken("it refused with code " + std::to_string(s.code) + " and not 12 (unimplemented)");
  return "refused: " + text;
}

}  // namespace

Result<std::string> check_entry(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  const AiVmmBackend& t = *s.api;
  bool all = t.query && t.extension && t.device_state;
  return "interface " + std::to_string(t.abi_major) + "." + std::to_string(t.abi_minor) + ", all required entries" +
         (all       ? " and all optional ones"
          : t.query ? ""
                    : ", no query (level 1)");
}

Result<std::string> check_newer_host(Subject& s) {
  // A host of a later minor version: its table and every struct it passes are larger.
  struct {
    AiVmmHost host;
    char newer[64];
  } h;
  std::memset(&h, 0x5a, sizeof h);
  h.host = host_services();
  h.host.head.size = sizeof h;
  h.host.abi_minor_max = 1000;
  auto connected = connect(s.entry, h.host);
  if (!connected.ok()) return std::move(connected).status();
  if ((*connected)->abi_minor > AI_VMM_ABI_MINOR)
    return std::string("speaks minor version ") + std::to_string((*connected)->abi_minor) + ", newer than this tool";
  AI_VMM_TRY(s.open(h.host));
  AI_VMM_TRY(run_one(s, 64));
  return std::string("works, with all structs 64 bytes larger");
}

Result<std::string> check_older_host(Subject& s) {
  // The first host there was: version 1.0, and a table that ends before the services it lacks.
  static unsigned char bytes[sizeof(AiVmmHost)];
  std::memset(bytes, 0xa7, sizeof bytes);
  const uint32_t size = offsetof(AiVmmHost, tuning_get);
  AiVmmHost copy = host_services();
  copy.head.size = size;
  copy.abi_minor_min = copy.abi_minor_max = 0;
  std::memcpy(bytes, &copy, size);
  const auto& host = *reinterpret_cast<const AiVmmHost*>(bytes);
  AI_VMM_TRY(s.open(host));
  AI_VMM_TRY(run_one(s));
  return std::string("works with a host of version 1.0 that lacks tuning and memory services");
}

Result<std::string> check_other_major(Subject& s) {
  AiVmmHost host = host_services();
  host.abi_major += 1;
  return refused(s, host, "a host of the next major version");
}

Result<std::string> check_too_new_minimum(Subject& s) {
  AiVmmHost host = host_services();
  host.abi_minor_min = 1000;
  host.abi_minor_max = 1001;
  return refused(s, host, "a host that speaks only much newer minor versions");
}

Result<std::string> check_devices(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  const AiVmmBackend& t = *s.api;
  int32_t n = t.device_count(t.self);
  if (n < 0) return broken("device_count is " + std::to_string(n));
  std::string names;
  for (int32_t i = 0; i < n; ++i) {
    auto info = backend::make<AiVmmDeviceInfo>();
    AiVmmStatus status = new_status();
    std::string text;
    if (int32_t code = t.device_info(t.self, i, &info, &status)) {
      AI_VMM_TRY(sentence(code, status, &text));
      return broken("device_info of device " + std::to_string(i) + " failed: " + text);
    }
    for (auto [field, what] : {std::pair(std::string_view(info.name, sizeof info.name), "name"),
                               {std::string_view(info.resource, sizeof info.resource), "resource"}})
      if (field.find('\0') == 0 || field.find('\0') == field.npos)
        return broken(std::string("device ") + std::to_string(i) + " has no " + what + ", or one without end");
    if (!(info.score >= 0) || info.memory_bytes < 0) return broken("a device's score or memory is negative");
    names += (names.empty() ? "" : "; ") + std::string(info.name);
  }
  for (int32_t i : {-1, n, INT32_MAX}) {
    doing("asking for device " + std::to_string(i) + " of " + std::to_string(n));
    auto info = backend::make<AiVmmDeviceInfo>();
    AiVmmStatus status = new_status();
    AiVmmDevice* none = nullptr;
    int32_t code = t.device_info(t.self, i, &info, &status);
    if (!code) return broken("it described device " + std::to_string(i) + " of " + std::to_string(n));
    AI_VMM_TRY(sentence(code, status, nullptr));
    status = new_status();
    code = t.open_device(t.self, i, &none, &status);
    if (!code) return broken("it opened device " + std::to_string(i) + " of " + std::to_string(n));
    AI_VMM_TRY(sentence(code, status, nullptr));
  }
  return std::to_string(n) + (n == 1 ? " device: " : " devices: ") + names;
}

Result<std::string> check_struct_sizes(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  const AiVmmBackend& t = *s.api;
  auto list = AI_VMM_TAKE(s.supported());
  auto compiled = AI_VMM_TAKE(Compiled::make(s, find_case(list, plain)->graph));
  // As large as in version 1.0, and larger than anything known today.
  for (uint32_t size : {uint32_t(offsetof(AiVmmDeviceInfo, flags)), uint32_t(sizeof(AiVmmDeviceInfo) + 64)}) {
    doing("device_info into " + std::to_string(size) + " bytes");
    Padded<AiVmmDeviceInfo> info(size);
    AiVmmStatus status = new_status();
    if (t.device_info(t.self, s.index, info.get(), &status))
      return broken("device_info failed for another struct size");
    if (!info.intact(size))
      return broken("device_info wrote beyond the " + std::to_string(size) + " bytes that the host's struct has");
  }
  for (uint32_t size : {uint32_t(sizeof(AiVmmExecutableInfo)), uint32_t(sizeof(AiVmmExecutableInfo) + 64)}) {
    Padded<AiVmmExecutableInfo> info(size);
    AiVmmStatus status = new_status();
    if (t.executable_info(compiled->executable, info.get(), &status)) return broken("executable_info failed");
    if (!info.intact(size)) return broken("executable_info wrote beyond the host's struct");
  }
  for (uint32_t size : {uint32_t(sizeof(AiVmmStatus)), uint32_t(sizeof(AiVmmStatus) + 64)}) {
    doing("a status of " + std::to_string(size) + " bytes");
    Padded<AiVmmStatus> status(size);
    AiVmmDevice* none = nullptr;
    (void)t.open_device(t.self, -1, &none, status.get());
    if (!status.intact(size)) return broken("a failure wrote beyond the host's status");
  }
  if (t.query) {
    GraphView view(find_case(list, plain)->graph);
    for (uint32_t size : {uint32_t(sizeof(AiVmmVerdict)), uint32_t(sizeof(AiVmmVerdict) + 64)}) {
      Padded<AiVmmVerdict> verdict(size);
      AiVmmVerdict* verdicts[] = {verdict.get()};
      AiVmmStatus status = new_status();
      if (t.query(s.device, view.get(), verdicts, &status)) return broken("query failed for another struct size");
      if (!verdict.intact(size)) return broken("query wrote beyond the host's verdict");
    }
  }
  return std::string("structs of version 1.0 and larger ones are filled within their size");
}

Result<std::string> check_arguments(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  auto list = AI_VMM_TAKE(s.supported());
  const Case* c = find_case(list, plain);
  auto compiled = AI_VMM_TAKE(Compiled::make(s, c->graph));
  const size_t n = c->inputs.size(), m = c->graph.outputs.size();
  auto right = AI_VMM_TAKE(expected(c->graph, c->inputs));

  struct Call {
    std::vector<AiVmmTensor> tensors;
    std::vector<const AiVmmTensor*> in, out;
  };
  int tried = 0;
  auto attempt = [&](const char* what, auto&& spoil) -> Status {
    doing(std::string("executing ") + c->name + " with " + what);
    Call call;
    std::vector<Tensor> memory;
    call.tensors.resize(n + m);
    for (size_t i = 0; i < n + m; ++i) {
      Tensor t = AI_VMM_TAKE((i < n ? c->inputs[i] : right[i - n]).clone());
      AiVmmTensor& d = call.tensors[i];
      d = backend::make<AiVmmTensor>();
      d.data = t.mutable_data();
      d.dtype = int32_t(t.dtype());
      d.rank = int32_t(t.rank());
      d.shape = (i < n ? c->inputs[i] : right[i - n]).shape().data();
      d.device_type = 1;
      memory.push_back(std::move(t));
      (i < n ? call.in : call.out).push_back(&d);
    }
    spoil(call);
    auto run = backend::make<AiVmmRun>();
    run.allocate = [](void*, uint32_t, int32_t, int32_t, const int64_t*) -> void* { return nullptr; };
    AiVmmStatus status = new_status();
    int32_t code = s.api->execute(compiled->context, call.in.data(), uint32_t(call.in.size()), call.out.data(),
                                  uint32_t(call.out.size()), &run, &status);
    if (!code) return broken(std::string("it ran ") + c->name + " with " + what);
    AI_VMM_TRY(sentence(code, status, nullptr));
    if (status.device_state == AI_VMM_DEVICE_LOST) return broken(std::string("it reported a lost device for ") + what);
    ++tried;
    RunSetup setup;  // and what is right still works
    return compiled->compare(c->inputs, setup).during(std::string("running properly after ") + what);
  };
  AI_VMM_TRY(attempt("an input too few", [](Call& x) { x.in.pop_back(); }));
  AI_VMM_TRY(attempt("an input too many", [](Call& x) { x.in.push_back(x.in[0]); }));
  AI_VMM_TRY(attempt("an output too many", [](Call& x) { x.out.push_back(x.out[0]); }));
  AI_VMM_TRY(attempt("no tensor as an input", [](Call& x) { x.in[0] = nullptr; }));
  AI_VMM_TRY(attempt("no memory for an input", [](Call& x) { x.tensors[0].data = nullptr; }));
  AI_VMM_TRY(attempt("another element type", [](Call& x) { x.tensors[0].dtype = int32_t(DType::i64); }));
  AI_VMM_TRY(attempt("another rank", [](Call& x) { x.tensors[0].rank -= 1; }));
  static int64_t sizes[16];
  auto reshape = [](Call& x, int64_t size) {
    std::copy_n(x.tensors[0].shape, x.tensors[0].rank, sizes);
    sizes[0] = size;
    x.tensors[0].shape = sizes;
  };
  AI_VMM_TRY(attempt("a larger size than was compiled", [&](Call& x) { reshape(x, 1000); }));
  AI_VMM_TRY(attempt("a negative size", [&](Call& x) { reshape(x, -2); }));
  return std::to_string(tried) + " calls with bad arguments were refused with a sentence, and good ones still ran";
}

Result<std::string> check_malformed(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  auto list = AI_VMM_TAKE(s.supported());
  const Case* c = find_case(list, plain);
  int tried = 0;
  auto attempt = [&](const char* what, auto&& spoil, auto&& options_for) -> Status {
    doing(std::string("compiling a graph with ") + what);
    GraphView view(c->graph);
    AiVmmGraph graph = *view.get();
    AiVmmNode node = *graph.nodes[0];
    const AiVmmNode* nodes[] = {&node};
    graph.nodes = nodes;
    spoil(graph, node);
    auto options = backend::make<AiVmmCompileOptions>();
    options_for(options);
    AiVmmExecutable* e = nullptr;
    AiVmmStatus status = new_status();
    int32_t code = s.api->compile(s.device, &graph, &options, &e, &status);
    if (!code) return broken(std::string("it compiled a graph with ") + what);
    ++tried;
    return sentence(code, status, nullptr);
  };
  auto keep = [](AiVmmGraph&, AiVmmNode&) {};
  auto no_options = [](AiVmmCompileOptions&) {};
  static const int32_t far[] = {9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999};
  AI_VMM_TRY(attempt(
      "an unknown operator", [](AiVmmGraph&, AiVmmNode& n) { n.op = backend::text("NoSuchOperator"); }, no_options));
  AI_VMM_TRY(attempt(
      "an unknown domain", [](AiVmmGraph&, AiVmmNode& n) { n.domain = backend::text("no.such"); }, no_options));
  if (c->graph.nodes[0].inputs.size() <= 8) {
    AI_VMM_TRY(attempt(
        "a node that reads value 9999", [&](AiVmmGraph&, AiVmmNode& n) { n.inputs = far; }, no_options));
    AI_VMM_TRY(attempt(
        "a node that writes value 9999",
        [&](AiVmmGraph&, AiVmmNode& n) {
          n.outputs = far;
          n.output_count = 1;
        },
        no_options));
    AI_VMM_TRY(attempt(
        "an input that is no value", [&](AiVmmGraph& g, AiVmmNode&) { g.inputs = far; }, no_options));
    AI_VMM_TRY(attempt(
        "an output that is no value",
        [&](AiVmmGraph& g, AiVmmNode&) {
          g.outputs = far;
          g.output_count = 1;
        },
        no_options));
  }
  if (s.api->abi_minor >= 1) {
    static const uint32_t absurd[] = {0xffffu, 0xffffu, 0xffffu, 0xffffu, 0xffffu, 0xffffu, 0xffffu, 0xffffu};
    if (c->graph.inputs.size() <= 8)
      AI_VMM_TRY(attempt("a layout token that it never proposed", keep,
                         [&](AiVmmCompileOptions& o) { o.input_layouts = absurd; }));
  }
  return std::to_string(tried) + " malformed or unknown graphs were refused with a sentence";
}

}  // namespace ai_vmm::certify
