// The child's side: one thread for the control socket, one for each context.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mutex>
#include <thread>

#include "ai_vmm/compute_backend.hpp"
#include "hal/backends.hpp"
#include "hal/isolate/isolate.hpp"
#include "hal/isolate/wire.hpp"

namespace ai_vmm::isolate {

namespace {

// A whole memory object, mapped for reading.
struct Mapping {
  const char* data = nullptr;
  size_t size = 0;
  explicit Mapping(int fd) {
    struct stat facts {};
    if (fd >= 0 && fstat(fd, &facts) == 0 && facts.st_size > 0) {
      void* at = mmap(nullptr, size_t(facts.st_size), PROT_READ, MAP_SHARED, fd, 0);
      if (at != MAP_FAILED) {
        data = static_cast<const char*>(at);
        size = size_t(facts.st_size);
      }
    }
    if (fd >= 0) close(fd);
  }
  ~Mapping() {
    if (data) munmap(const_cast<char*>(data), size);
  }
  Mapping(const Mapping&) = delete;
};

struct Compiled {
  std::unique_ptr<Mapping> constants;  // outlives the executable
  AiVmmExecutable* executable = nullptr;
};

template <class T>
T* handle(Reader& r) {
  return reinterpret_cast<T*>(r.get<uint64_t>());
}
uint64_t number(const void* p) { return reinterpret_cast<uint64_t>(p); }

AiVmmStatus new_status() { return backend::make<AiVmmStatus>(); }

// Memory for outputs behind the inputs in the region.
struct Outputs {
  Region& region;
  uint64_t end;
  struct Made {
    bool there = false;
    int32_t dtype = 0;
    std::vector<int64_t> shape;
    uint64_t offset = 0;
  };
  std::vector<Made> made;
};

void* allocate(void* user, uint32_t index, int32_t dtype, int32_t rank, const int64_t* shape) {
  auto& o = *static_cast<Outputs*>(user);
  if (index >= o.made.size() || rank < 0 || rank > 4096 || (rank && !shape)) return nullptr;
  int64_t count = 1, bits = backend::bits_of(dtype), total = 0;
  for (int32_t d = 0; d < rank; ++d)
    if (shape[d] < 0 || __builtin_mul_overflow(count, shape[d], &count)) return nullptr;
  if (bits == 0 || __builtin_mul_overflow(count, bits, &total) || uint64_t(total) / 8 > Region::kSpan) return nullptr;
  uint64_t at = (o.end + 63) / 64 * 64, bytes = (uint64_t(total) + 7) / 8;
  if (!o.region.reserve(at + bytes)) return nullptr;
  o.end = at + bytes;
  auto& m = o.made[index];
  m = {true, dtype, {shape, shape + rank}, at};
  return o.region.at(at);
}

// Serves the runs of one context until the host closes its end.
void serve_context(const AiVmmBackend& api, AiVmmContext* context, int socket, std::unique_ptr<Region> region) {
  std::string payload;
  Call call{};
  while (receive_message(socket, call, payload, nullptr)) {
    Reader r(payload);
    auto threads = r.get<int32_t>();
    auto seed = r.get<uint64_t>();
    auto end = r.get<uint64_t>();
    struct Shaped {
      AiVmmTensor tensor;
      std::vector<int64_t> shape;
    };
    auto tensors = [&](uint32_t n) {
      std::vector<Shaped> list(n);
      for (Shaped& s : list) {
        s.tensor = backend::make<AiVmmTensor>();
        auto offset = r.get<uint64_t>();  // 0: no memory
        s.tensor.data = offset ? region->at(offset) : nullptr;
        s.tensor.dtype = r.get<int32_t>();
        s.tensor.rank = r.get<int32_t>();
        s.shape = r.list<int64_t>();
        s.tensor.shape = s.shape.data();
        s.tensor.device_type = 1;
      }
      return list;
    };
    auto n = r.get<uint32_t>();
    auto in = tensors(std::min(n, 1u << 20));
    auto m = r.get<uint32_t>();
    auto out = tensors(std::min(m, 1u << 20));
    std::vector<const AiVmmTensor*> pointers;
    for (auto* list : {&in, &out})
      for (Shaped& s : *list) pointers.push_back(&s.tensor);
    Outputs outputs{*region, end, {}};
    outputs.made.resize(out.size());
    auto run = backend::make<AiVmmRun>();
    run.allocate = allocate;
    run.user = &outputs;
    run.threads = threads;
    run.seed = seed;
    run.cancel = region->cancel();
    auto info = backend::make<AiVmmRunInfo>();
    run.info = &info;
    AiVmmStatus s = new_status();
    int32_t code = 3;
    if (region->reserve(end))
      code = api.execute(context, pointers.data(), uint32_t(in.size()), pointers.data() + in.size(),
                         uint32_t(out.size()), &run, &s);
    Writer w;
    put_status(w, code, s);
    if (!code) {
      w.put(info);
      for (const auto& made : outputs.made) {
        w.put(uint8_t(made.there));
        if (made.there) w.put(made.dtype).list(made.shape.data(), made.shape.size()).put(made.offset);
      }
    }
    if (!send_message(socket, call, w.bytes())) break;
  }
  api.release_context(context);
  close(socket);
}

class Worker {
 public:
  Worker(const AiVmmBackend& api, int control) : api_(api), control_(control) {}

  int run() {
    std::string payload;
    Call call{};
    int fd = -1;
    while (receive_message(control_, call, payload, &fd)) {
      Reader r(payload);
      Writer w;
      answer(call, r, w, fd);
      if (!send_message(control_, call, w.bytes())) break;
    }
    return 0;
  }

 private:
  // Takes `fd`.
  void answer(Call call, Reader& r, Writer& w, int fd) {
    AiVmmStatus s = new_status();
    switch (call) {
      case Call::hello:
        put_status(w, 0, s);
        w.text(api_.name).text(api_.version).put(api_.abi_minor).put(uint8_t(api_.query != nullptr));
        break;
      case Call::device_count:
        put_status(w, 0, s);
        w.put(api_.device_count(api_.self));
        break;
      case Call::device_info: {
        auto info = backend::make<AiVmmDeviceInfo>();
        put_status(w, api_.device_info(api_.self, r.get<int32_t>(), &info, &s), s);
        w.put(info);
        break;
      }
      case Call::open_device: {
        AiVmmDevice* device = nullptr;
        put_status(w, api_.open_device(api_.self, r.get<int32_t>(), &device, &s), s);
        w.put(number(device));
        break;
      }
      case Call::close_device:
        api_.close_device(handle<AiVmmDevice>(r));
        put_status(w, 0, s);
        break;
      case Call::device_state: {
        auto* device = handle<AiVmmDevice>(r);
        put_status(w, api_.device_state ? api_.device_state(device, &s) : 0, s);
        break;
      }
      case Call::query: query(r, w, fd); return;
      case Call::compile: compile(r, w, fd); return;
      case Call::release_executable: {
        auto* c = handle<Compiled>(r);
        api_.release_executable(c->executable);
        delete c;
        put_status(w, 0, s);
        break;
      }
      case Call::executable_info: {
        auto info = backend::make<AiVmmExecutableInfo>();
        put_status(w, api_.executable_info(handle<Compiled>(r)->executable, &info, &s), s);
        w.put(info);
        break;
      }
      case Call::create_context: create_context(r, w, fd); return;
      case Call::execute: put_status(w, 3, s); break;  // goes through the context's own socket
    }
    if (fd >= 0) close(fd);
  }

  void query(Reader& r, Writer& w, int fd) {
    Mapping constants(fd);
    AiVmmStatus s = new_status();
    auto* device = handle<AiVmmDevice>(r);
    auto graph = DecodedGraph::from(r, {constants.data, constants.size});
    if (!graph.ok()) return put_status(w, backend::guarded(&s, [&] { return std::move(graph).status(); }), s);
    std::vector<AiVmmVerdict> verdicts((*graph)->get()->node_count, backend::make<AiVmmVerdict>());
    std::vector<AiVmmVerdict*> pointers;
    for (auto& v : verdicts) pointers.push_back(&v);
    put_status(w, api_.query(device, (*graph)->get(), pointers.data(), &s), s);
    for (const auto& v : verdicts) w.put(v.reason).put(v.est_ns).put(v.est_bytes).text(v.detail ? v.detail : "");
  }

  void compile(Reader& r, Writer& w, int fd) {
    auto c = std::make_unique<Compiled>();
    c->constants = std::make_unique<Mapping>(fd);
    AiVmmStatus s = new_status();
    auto* device = handle<AiVmmDevice>(r);
    auto options = backend::make<AiVmmCompileOptions>();
    options.threads = r.get<int32_t>();
    options.deterministic = r.get<int32_t>();
    options.memory_limit = r.get<int64_t>();
    auto alias = r.list<int32_t>();
    if (!alias.empty()) options.alias = alias.data();
    auto graph = DecodedGraph::from(r, {c->constants->data, c->constants->size});
    if (!graph.ok()) return put_status(w, backend::guarded(&s, [&] { return std::move(graph).status(); }), s);
    int32_t code = api_.compile(device, (*graph)->get(), &options, &c->executable, &s);
    put_status(w, code, s);
    w.put(number(code ? nullptr : c.release()));
  }

  void create_context(Reader& r, Writer& w, int fd) {
    AiVmmStatus s = new_status();
    auto* c = handle<Compiled>(r);
    // The region's descriptor follows on the context's own socket.
    Call call{};
    std::string nothing;
    int memory = -1;
    if (!receive_message(fd, call, nothing, &memory) || memory < 0) {
      close(fd);
      return put_status(w, backend::guarded(&s, [] { return Status(Code::data_loss, "The region is missing."); }), s);
    }
    auto region = Region::open(memory);
    if (!region.ok()) {
      close(fd);
      return put_status(w, backend::guarded(&s, [&] { return std::move(region).status(); }), s);
    }
    AiVmmContext* context = nullptr;
    int32_t code = api_.create_context(c->executable, &context, &s);
    put_status(w, code, s);
    if (code) {
      close(fd);
      return;
    }
    std::thread([this, context, fd, region = std::move(*region)]() mutable {
      serve_context(api_, context, fd, std::move(region));
    }).detach();
  }

  const AiVmmBackend& api_;
  int control_;
};

}  // namespace

int serve(const std::string& subject, int control) {
  auto connected = [&]() -> Result<const AiVmmBackend*> {
    for (const InTreeBackend& b : in_tree_backends())
      if (subject == b.name) return ai_vmm::connect(b.entry);
    return ai_vmm::connect(AI_VMM_TAKE(load_plugin(subject)));
  }();
  if (connected.ok()) return Worker(**connected, control).run();
  // The first question is answered with why there is no backend.
  Call call{};
  std::string payload;
  if (!receive_message(control, call, payload, nullptr)) return 1;
  AiVmmStatus s = new_status();
  Writer w;
  put_status(w, backend::guarded(&s, [&] { return connected.status().copy(); }), s);
  (void)send_message(control, call, w.bytes());
  return 1;
}

}  // namespace ai_vmm::isolate
