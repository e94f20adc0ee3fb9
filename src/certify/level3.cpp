#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "ai_vmm/compute_backend.hpp"
#include "certify/checks.hpp"
#include "certify/child.hpp"
#include "hal/backends.hpp"

namespace ai_vmm::certify {

namespace {

// The table of an extension; null when the plugin has none of that name.
template <class T>
const T* table(Subject& s, const char* name) {
  return s.api->extension ? static_cast<const T*>(s.api->extension(s.api->self, name)) : nullptr;
}

std::string none(const char* name) { return std::string(kNotOffered) + "no extension " + name; }

// A call that must succeed.
Status must(int32_t code, const AiVmmStatus& status, const char* what) {
  if (!code) return {};
  std::string text;
  AI_VMM_TRY(sentence(code, status, &text));
  return broken(std::string(what) + " failed: " + text);
}
// A call that must fail with one of two codes and a sentence.
Status must_fail(int32_t code, const AiVmmStatus& status, const char* what, int32_t with, int32_t or_with = -1) {
  if (code != with && code != or_with)
    return broken(std::string(what) + " gave code " + std::to_string(code) + " and not " + std::to_string(with));
  return sentence(code, status, nullptr);
}

std::vector<unsigned char> pattern(size_t n, unsigned seed) {
  std::vector<unsigned char> v(n);
  for (size_t i = 0; i < n; ++i) v[i] = static_cast<unsigned char>(i * 31 + seed * 7 + 1);
  return v;
}

constexpr uint64_t kBytes = 100'000;

}  // namespace

Result<std::string> check_extensions(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  if (!s.api->extension) return std::string(kNotOffered) + "the entry extension is null";
  for (const char* name : {"", "ai_vmm.no_such.1", "ai_vmm.buffers.999"})
    if (s.api->extension(s.api->self, name))
      return broken(std::string("it offers an extension \"") + name + "\", which there is not");
  std::string offered;
  for (const char* name :
       {AI_VMM_EXTENSION_BUFFERS, AI_VMM_EXTENSION_STREAMS, AI_VMM_EXTENSION_STATES, AI_VMM_EXTENSION_LAYOUTS})
    if (const void* t = s.api->extension(s.api->self, name)) {
      if (static_cast<const AiVmmHead*>(t)->size < sizeof(AiVmmHead) + sizeof(void*))
        return broken(std::string("the table of ") + name + " has no size");
      offered += (offered.empty() ? "" : ", ") + std::string(name);
    }
  return offered.empty() ? "none offered; unknown names are answered with null" : offered;
}

Result<std::string> check_buffers(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  const auto* t = table<AiVmmBuffers>(s, AI_VMM_EXTENSION_BUFFERS);
  if (!t) return none(AI_VMM_EXTENSION_BUFFERS);
  AiVmmStatus st = new_status();
  auto before = backend::make<AiVmmMemory>(), during = before, after = before;
  AI_VMM_TRY(must(t->memory(s.device, &before, &st), st, "memory"));
  AiVmmBuffer *a = nullptr, *b = nullptr;
  doing("allocating, writing, copying and reading buffers");
  AI_VMM_TRY(must(t->allocate(s.device, kBytes, &a, &st), st, "allocate"));
  AI_VMM_TRY(must(t->allocate(s.device, kBytes, &b, &st), st, "allocate"));
  AI_VMM_TRY(must(t->memory(s.device, &during, &st), st, "memory"));
  if (before.total_bytes && during.free_bytes + 2 * kBytes > before.free_bytes + 4096)
    return broken("free_bytes did not fall by what was allocated");
  if (reinterpret_cast<uintptr_t>(t->address(a)) % std::max<uint64_t>(1, before.alignment))
    return broken("a buffer's address is less aligned than its memory promises");
  auto out = pattern(kBytes, 1);
  std::vector<unsigned char> in(kBytes);
  AI_VMM_TRY(must(t->write(a, 0, out.data(), kBytes, nullptr, &st), st, "write"));
  AI_VMM_TRY(must(t->copy(b, 10, a, 20, kBytes - 30, nullptr, &st), st, "copy"));
  AI_VMM_TRY(must(t->read(b, 10, in.data(), kBytes - 30, nullptr, &st), st, "read"));
  if (!std::equal(in.begin(), in.begin() + long(kBytes - 30), out.begin() + 20))
    return broken("what was written, copied and read came back different");
  void* host = nullptr;
  AI_VMM_TRY(must(t->map(a, &host, &st), st, "map"));
  if (!host || std::memcmp(host, out.data(), kBytes) != 0) return broken("a mapped buffer shows other bytes");
  static_cast<unsigned char*>(host)[5] = 99;
  AI_VMM_TRY(must(t->unmap(a, &st), st, "unmap"));
  AI_VMM_TRY(must(t->read(a, 5, in.data(), 1, nullptr, &st), st, "read"));
  if (in[0] != 99) return broken("what was written into a mapping is lost after unmap");
  doing("leaving the range of a buffer");
  st = new_status();
  AI_VMM_TRY(must_fail(t->write(a, kBytes - 1, out.data(), 2, nullptr, &st), st, "a write past the end", 11));
  AI_VMM_TRY(must_fail(t->read(a, UINT64_MAX, in.data(), 2, nullptr, &st), st, "a read far past the end", 11));
  AI_VMM_TRY(must_fail(t->copy(b, 0, a, 1, kBytes, nullptr, &st), st, "a copy past the end", 11));
  doing("asking for more memory than there is");
  AiVmmBuffer* huge = nullptr;
  st = new_status();
  AI_VMM_TRY(must_fail(t->allocate(s.device, uint64_t(1) << 60, &huge, &st), st, "an allocation of 2^60 bytes", 8));
  if (st.device_state != AI_VMM_DEVICE_OUT_OF_MEMORY)
    return broken("an allocation that does not fit does not say out of memory");
  std::string ways;
  doing("importing and exporting");
  for (int32_t kind : {AI_VMM_EXTERNAL_HOST, AI_VMM_EXTERNAL_FD}) {
    auto e = backend::make<AiVmmExternal>();
    AiVmmBuffer* same = nullptr;
    if (!(before.exports & 1u << kind)) {
      AI_VMM_TRY(must_fail(t->export_(a, kind, &e, &st), st, "an export of a kind that is not offered", 12));
      continue;
    }
    AI_VMM_TRY(must(t->export_(a, kind, &e, &st), st, "export"));
    if (before.imports & 1u << kind) {
      AI_VMM_TRY(must(t->import_(s.device, &e, &same, &st), st, "import"));
      unsigned char byte = static_cast<unsigned char>(40 + kind);
      AI_VMM_TRY(must(t->write(same, 7, &byte, 1, nullptr, &st), st, "write to an import"));
      AI_VMM_TRY(must(t->read(a, 7, in.data(), 1, nullptr, &st), st, "read of an export"));
      if (in[0] != byte) return broken("an import is not the memory that was exported");
      t->release(same);
      ways += kind == AI_VMM_EXTERNAL_FD ? ", descriptors" : ", host memory";
    }
    if (kind == AI_VMM_EXTERNAL_FD && e.fd >= 0) close(e.fd);
  }
  auto nonsense = backend::make<AiVmmExternal>();
  nonsense.kind = 77;
  AiVmmBuffer* no = nullptr;
  st = new_status();
  AI_VMM_TRY(must_fail(t->import_(s.device, &nonsense, &no, &st), st, "an import of an unknown kind", 12));
  t->release(a);
  t->release(b);
  AI_VMM_TRY(must(t->memory(s.device, &after, &st), st, "memory"));
  if (after.free_bytes != before.free_bytes) return broken("released buffers did not give their memory back");
  return "allocated, copied, mapped, bounds and exhaustion refused" +
         (ways.empty() ? "" : "; shared as" + ways.substr(1));
}

Result<std::string> check_streams(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  const auto* t = table<AiVmmStreams>(s, AI_VMM_EXTENSION_STREAMS);
  if (!t) return none(AI_VMM_EXTENSION_STREAMS);
  AiVmmStatus st = new_status();
  AiVmmStream *one = nullptr, *two = nullptr;
  AiVmmEvent *event = nullptr, *done = nullptr;
  AI_VMM_TRY(must(t->create_stream(s.device, &one, &st), st, "create_stream"));
  AI_VMM_TRY(must(t->create_stream(s.device, &two, &st), st, "create_stream"));
  AI_VMM_TRY(must(t->create_event(s.device, &event, &st), st, "create_event"));
  AI_VMM_TRY(must(t->create_event(s.device, &done, &st), st, "create_event"));
  AI_VMM_TRY(must(t->synchronize(done, 0, &st), st, "waiting for an event that was never recorded"));

  auto list = AI_VMM_TAKE(s.supported());
  const Case* c = find_case(list, plain);
  auto compiled = AI_VMM_TAKE(Compiled::make(s, c->graph));
  auto right = AI_VMM_TAKE(expected(c->graph, c->inputs));
  std::vector<Tensor> made;
  std::vector<AiVmmTensor> tensors;
  auto describe = [&](const Tensor& x) {
    auto d = backend::make<AiVmmTensor>();
    d.data = const_cast<void*>(x.data());
    d.dtype = int32_t(x.dtype());
    d.rank = int32_t(x.rank());
    d.shape = x.shape().data();
    d.device_type = 1;
    tensors.push_back(d);
  };
  for (const Tensor& x : c->inputs) describe(x);
  for (const Tensor& x : right) made.push_back(AI_VMM_TAKE(Tensor::make(x.dtype(), x.shape(), true)));
  for (const Tensor& x : made) describe(x);
  std::vector<const AiVmmTensor*> pointers;
  for (const AiVmmTensor& d : tensors) pointers.push_back(&d);
  const auto n = uint32_t(c->inputs.size()), m = uint32_t(made.size());
  auto run = backend::make<AiVmmRun>();
  run.allocate = [](void*, uint32_t, int32_t, int32_t, const int64_t*) -> void* { return nullptr; };
  doing("running " + c->name + " on a stream, and waiting for it on another");
  AI_VMM_TRY(
      must(t->execute(compiled->context, pointers.data(), n, pointers.data() + n, m, &run, one, &st), st, "execute"));
  AI_VMM_TRY(must(t->record(event, one, &st), st, "record"));
  AI_VMM_TRY(must(t->wait(two, event, &st), st, "wait"));
  AI_VMM_TRY(must(t->record(done, two, &st), st, "record"));
  AI_VMM_TRY(must(t->synchronize(done, 20'000'000'000, &st), st, "synchronize"));
  for (size_t k = 0; k < made.size(); ++k) AI_VMM_TRY(compare("an output made on a stream", made[k], right[k]));
  // A failure comes out at the event, not before, and not at the next one.
  doing("failing on a stream");
  AiVmmTensor wrong = tensors[0];
  wrong.dtype = int32_t(DType::i64);
  auto spoiled = pointers;
  spoiled[0] = &wrong;
  st = new_status();
  int32_t at_once = t->execute(compiled->context, spoiled.data(), n, spoiled.data() + n, m, &run, one, &st);
  AI_VMM_TRY(must(t->record(event, one, &st), st, "record"));
  if (!at_once) {
    st = new_status();
    AI_VMM_TRY(must_fail(t->synchronize(event, 20'000'000'000, &st), st, "waiting for a run that failed", 3));
  }
  AI_VMM_TRY(
      must(t->execute(compiled->context, pointers.data(), n, pointers.data() + n, m, &run, one, &st), st, "execute"));
  AI_VMM_TRY(must(t->record(event, one, &st), st, "record"));
  AI_VMM_TRY(must(t->synchronize(event, 20'000'000'000, &st), st, "waiting for a good run after a failed one"));
  for (AiVmmStream* x : {one, two}) t->release_stream(x);
  for (AiVmmEvent* x : {event, done}) t->release_event(x);
  return std::string("runs, waits between streams, and failures that come out at their event");
}

Result<std::string> check_states(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  const auto* t = table<AiVmmStates>(s, AI_VMM_EXTENSION_STATES);
  if (!t) return none(AI_VMM_EXTENSION_STATES);
  AiVmmStatus st = new_status();
  const int64_t dims[] = {2, 50, 3};
  auto shape = backend::make<AiVmmStateShape>();
  shape.dtype = int32_t(DType::f32);
  shape.rank = 3;
  shape.dims = dims;
  shape.axis = 1;
  AiVmmState *state = nullptr, *fork = nullptr, *back = nullptr, *no = nullptr;
  doing("creating, filling and forking a state");
  AI_VMM_TRY(must(t->create(s.device, &shape, &state, &st), st, "create"));
  struct Rows {
    std::vector<float> v;
    int64_t shape[3];
    AiVmmTensor t = backend::make<AiVmmTensor>();
    Rows(int64_t rows, float first) : v(size_t(6 * rows)), shape{2, rows, 3} {
      for (size_t i = 0; i < v.size(); ++i) v[i] = first + float(i);
      t.data = v.data();
      t.dtype = int32_t(DType::f32);
      t.rank = 3;
      t.shape = shape;
      t.device_type = 1;
    }
  };
  auto append = [&](AiVmmState* to, int64_t rows, float first) {
    Rows r(rows, first);
    st = new_status();
    return t->append(to, &r.t, &st);
  };
  auto content = [&](AiVmmState* from, int64_t rows) -> Result<std::vector<float>> {
    Rows r(rows, -1);
    AI_VMM_TRY(must(t->read(from, 0, &r.t, &st), st, "read"));
    return r.v;
  };
  AI_VMM_TRY(must(append(state, 7, 0), st, "append"));
  AI_VMM_TRY(must(append(state, 30, 500), st, "append"));
  auto before = AI_VMM_TAKE(content(state, 37));
  if (before[0] != 0 || before[7 * 3] != 500 || before[37 * 3] != 21)
    return broken("appended rows are read back in another order");
  auto i = backend::make<AiVmmStateInfo>();
  AI_VMM_TRY(must(t->info(state, &i, &st), st, "info"));
  if (i.rows != 37 || i.capacity != 50) return broken("info gives another number of rows, or another capacity");
  AI_VMM_TRY(must(t->fork(state, &fork, &st), st, "fork"));
  AI_VMM_TRY(must(append(fork, 2, 9000), st, "append to a fork"));
  AI_VMM_TRY(must(append(state, 1, 7000), st, "append to the forked"));
  auto in_fork = AI_VMM_TAKE(content(fork, 39));
  auto in_state = AI_VMM_TAKE(content(state, 38));
  if (in_fork[37 * 3] != 9000 || in_state[37 * 3] != 7000) return broken("two forks write to each other's rows");
  doing("appending beyond the capacity");
  AI_VMM_TRY(must_fail(append(state, 13, 0), st, "appending beyond the capacity", 8));
  if (AI_VMM_TAKE(content(state, 38)) != in_state) return broken("a refused append changed the state");
  doing("snapshot and restore");
  std::string bytes;
  auto write = [](void* user, const void* p, uint64_t n) -> int32_t {
    static_cast<std::string*>(user)->append(static_cast<const char*>(p), n);
    return 0;
  };
  AI_VMM_TRY(must(t->snapshot(state, write, &bytes, &st), st, "snapshot"));
  AI_VMM_TRY(must(t->restore(s.device, bytes.data(), bytes.size(), &back, &st), st, "restore"));
  if (AI_VMM_TAKE(content(back, 38)) != in_state) return broken("a restored state differs from what was snapshot");
  for (size_t cut : {size_t(0), size_t(1), bytes.size() / 2, bytes.size() - 1}) {
    st = new_status();
    int32_t code = t->restore(s.device, bytes.data(), cut, &no, &st);
    if (!code) return broken("it restored a state from a snapshot cut to " + std::to_string(cut) + " bytes");
    AI_VMM_TRY(sentence(code, st, nullptr));
  }
  AI_VMM_TRY(must(t->truncate(state, 5, &st), st, "truncate"));
  AI_VMM_TRY(must_fail(t->truncate(state, 6, &st), st, "truncating to more rows than there are", 11));
  uint64_t pages = 0;
  AI_VMM_TRY(must(t->page_table(back, 0, nullptr, &pages, &st), st, "page_table"));
  std::vector<void*> table_of(pages, nullptr);
  AI_VMM_TRY(must(t->page_table(back, pages, table_of.data(), &pages, &st), st, "page_table"));
  if (pages == 0 || std::count(table_of.begin(), table_of.end(), nullptr)) return broken("a filled state has no pages");
  for (AiVmmState* x : {state, fork, back}) t->free(x);
  return std::to_string(pages) + " pages; rows appended, forked, truncated, snapshot and restored";
}

Result<std::string> check_layouts(Subject& s) {
  AI_VMM_TRY(s.open(host_services()));
  const auto* t = table<AiVmmLayouts>(s, AI_VMM_EXTENSION_LAYOUTS);
  if (!t) return none(AI_VMM_EXTENSION_LAYOUTS);
  auto list = AI_VMM_TAKE(s.supported());
  int proposed = 0;
  for (const Case* c : list) {
    GraphView view(c->graph);
    for (size_t i = 0; i < c->graph.inputs.size(); ++i) {
      AiVmmStatus st = new_status();
      uint32_t tokens[16] = {}, count = 0;
      doing("asking for the layouts of " + c->name);
      AI_VMM_TRY(must(t->propose(s.device, view.get(), c->graph.inputs[i], 16, tokens, &count, &st), st, "propose"));
      for (uint32_t k = 0; k < std::min<uint32_t>(count, 16); ++k) {
        if (tokens[k] == AI_VMM_LAYOUT_ROW_MAJOR) continue;
        ++proposed;
        std::vector<uint32_t> layouts(c->graph.inputs.size(), 0);
        layouts[i] = tokens[k];
        auto options = backend::make<AiVmmCompileOptions>();
        options.input_layouts = layouts.data();
        AiVmmExecutable* e = nullptr;
        AI_VMM_TRY(
            must(s.api->compile(s.device, view.get(), &options, &e, &st), st, "compiling with a proposed layout"));
        s.api->release_executable(e);
      }
    }
  }
  return std::to_string(proposed) + " proposed layouts compile";
}

}  // namespace ai_vmm::certify
