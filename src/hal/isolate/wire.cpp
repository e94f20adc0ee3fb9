#include "hal/isolate/wire.hpp"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "ai_vmm/compute_backend.hpp"

namespace ai_vmm::isolate {

namespace {
struct Header {
  uint32_t call;
  uint32_t has_fd;
  uint64_t size;
};
constexpr uint64_t kLargestMessage = uint64_t(1) << 32;  // constants do not travel in messages

bool send_all(int socket, const char* data, size_t size) {
  while (size) {
    ssize_t n = send(socket, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= size_t(n);
  }
  return true;
}

bool receive_all(int socket, char* data, size_t size) {
  while (size) {
    ssize_t n = recv(socket, data, size, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= size_t(n);
  }
  return true;
}
}  // namespace

bool send_message(int socket, Call call, const std::string& payload, int fd) {
  Header h{uint32_t(call), fd >= 0 ? 1u : 0u, payload.size()};
  iovec part{&h, sizeof h};
  msghdr m{};
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  ssize_t n = 0;
  do n = sendmsg(socket, &m, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n <= 0) return false;
  if (size_t(n) < sizeof h && !send_all(socket, reinterpret_cast<char*>(&h) + n, sizeof h - size_t(n))) return false;
  return send_all(socket, payload.data(), payload.size());
}

bool receive_message(int socket, Call& call, std::string& payload, int* fd) {
  Header h{};
  iovec part{&h, sizeof h};
  msghdr m{};
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  ssize_t n = 0;
  do n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n <= 0) return false;
  int received = -1;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
      std::memcpy(&received, CMSG_DATA(c), sizeof received);
  if (fd)
    *fd = received;
  else if (received >= 0)
    close(received);
  if (size_t(n) < sizeof h && !receive_all(socket, reinterpret_cast<char*>(&h) + n, sizeof h - size_t(n))) return false;
  if (h.size > kLargestMessage) return false;
  call = static_cast<Call>(h.call);
  payload.resize(h.size);
  return receive_all(socket, payload.data(), payload.size());
}

void put_status(Writer& w, int32_t code, const AiVmmStatus& s) {
  w.put(code);
  if (code) w.put(s.device_state).put(s.retry_after_ms).text({s.text, std::min<size_t>(s.text_size, sizeof s.text)});
}

int32_t get_status(Reader& r, AiVmmStatus* s) {
  auto code = r.get<int32_t>();
  if (!code) return 0;
  s->code = code;
  s->device_state = r.get<int32_t>();
  s->retry_after_ms = r.get<uint32_t>();
  std::string_view text = r.text();
  s->text_size = uint32_t(std::min(text.size(), sizeof s->text));
  std::memcpy(s->text, text.data(), s->text_size);
  return code;
}

// ---------------------------------------------------------------- shared memory

Result<std::unique_ptr<Region>> Region::make() {
  int fd = memfd_create("ai_vmm_context", MFD_CLOEXEC);
  if (fd < 0) return Status(Code::resource_exhausted, "The process has no descriptor left for shared memory.");
  auto r = AI_VMM_TAKE(open(fd));
  if (!r->reserve(kData)) return Status(Code::resource_exhausted, "The machine has no shared memory left.");
  return r;
}

Result<std::unique_ptr<Region>> Region::open(int fd) {
  auto r = std::unique_ptr<Region>(new Region);
  r->fd_ = fd;
  void* base = mmap(nullptr, kSpan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (base == MAP_FAILED) return Status(Code::resource_exhausted, "Shared memory cannot be mapped.");
  r->base_ = static_cast<char*>(base);
  return r;
}

Region::~Region() {
  if (base_) munmap(base_, kSpan);
  if (fd_ >= 0) close(fd_);
}

bool Region::reserve(uint64_t bytes) {
  if (bytes <= size_) return true;
  if (bytes > kSpan) return false;
  struct stat facts {};
  if (fstat(fd_, &facts) != 0) return false;
  uint64_t now = uint64_t(facts.st_size);
  if (bytes > now) {
    now = std::max(bytes, std::min(kSpan, now * 2));
    if (ftruncate(fd_, off_t(now)) != 0) return false;
  }
  size_ = now;
  return true;
}

// ---------------------------------------------------------------- graphs

namespace {

void put_value(Writer& w, const AiVmmValue& v, std::string& constants) {
  w.text(backend::view(v.name)).put(v.dtype).put(v.rank);
  w.list(v.dims, size_t(std::max(0, v.rank)));
  w.put(uint8_t(v.data != nullptr));
  if (v.data) {
    constants.resize((constants.size() + 63) / 64 * 64);
    w.put(uint64_t(constants.size())).put(v.bytes);
    constants.append(static_cast<const char*>(v.data), v.bytes);
  }
  w.put(v.int_count).list(v.ints, size_t(std::max<int64_t>(0, v.int_count)));
}

}  // namespace

std::string encode(const AiVmmGraph& g, std::string& constants) {
  Writer w;
  w.text(backend::view(g.name)).put(g.expression_count);
  for (uint32_t i = 0; i < g.expression_count; ++i) w.text(backend::view(g.expressions[i]));
  w.put(g.value_count);
  for (uint32_t i = 0; i < g.value_count; ++i) put_value(w, *g.values[i], constants);
  w.put(g.node_count);
  for (uint32_t i = 0; i < g.node_count; ++i) {
    const AiVmmNode& n = *g.nodes[i];
    w.text(backend::view(n.name)).text(backend::view(n.op)).text(backend::view(n.domain)).put(n.version);
    w.list(n.inputs, n.input_count).list(n.outputs, n.output_count).put(n.attribute_count);
    for (uint32_t k = 0; k < n.attribute_count; ++k) {
      const AiVmmAttribute& a = *n.attributes[k];
      w.text(backend::view(a.name)).put(a.kind).put(a.count).put(a.i).put(a.f).text(backend::view(a.s));
      if (a.kind == AI_VMM_ATTRIBUTE_INTS) w.list(a.ints, a.count);
      if (a.kind == AI_VMM_ATTRIBUTE_FLOATS) w.list(a.floats, a.count);
      if (a.kind == AI_VMM_ATTRIBUTE_STRINGS)
        for (uint32_t s = 0; s < a.count; ++s) w.text(backend::view(a.strings[s]));
      if (a.kind == AI_VMM_ATTRIBUTE_TENSOR) put_value(w, *a.tensor, constants);
    }
  }
  w.list(g.inputs, g.input_count).list(g.outputs, g.output_count);
  return w.bytes();
}

AiVmmText DecodedGraph::text(Reader& r) {
  texts_.emplace_back(r.text());
  return backend::text(texts_.back());
}

AiVmmValue* DecodedGraph::value(Reader& r, std::span<const char> constants) {
  auto v = backend::make<AiVmmValue>();
  v.name = text(r);
  v.dtype = r.get<int32_t>();
  v.rank = r.get<int32_t>();
  auto dims = r.list<int64_t>();
  v.rank = v.rank < 0 ? -1 : int32_t(dims.size());
  v.dims = keep(std::move(dims));
  if (r.get<uint8_t>()) {
    auto offset = r.get<uint64_t>();
    v.bytes = r.get<uint64_t>();
    static const char kEmpty = 0;
    bool inside = offset <= constants.size() && v.bytes <= constants.size() - offset;
    if (!inside) (void)r.text(), v.bytes = 0;
    v.data = inside && v.bytes ? constants.data() + offset : &kEmpty;
  }
  v.int_count = r.get<int64_t>();
  auto ints = r.list<int64_t>();
  if (v.int_count >= 0) v.int_count = int64_t(ints.size());
  v.ints = keep(std::move(ints));
  values_.push_back(v);
  return &values_.back();
}

Result<std::unique_ptr<DecodedGraph>> DecodedGraph::from(Reader& r, std::span<const char> constants) {
  auto d = std::make_unique<DecodedGraph>();
  AiVmmGraph& g = d->graph_ = backend::make<AiVmmGraph>();
  g.name = d->text(r);
  std::vector<AiVmmText> expressions;
  for (uint32_t i = 0, n = r.get<uint32_t>(); i < n && r.ok(); ++i) expressions.push_back(d->text(r));
  std::vector<const AiVmmValue*> values;
  for (uint32_t i = 0, n = r.get<uint32_t>(); i < n && r.ok(); ++i) values.push_back(d->value(r, constants));
  std::vector<const AiVmmNode*> nodes;
  for (uint32_t i = 0, n = r.get<uint32_t>(); i < n && r.ok(); ++i) {
    auto node = backend::make<AiVmmNode>();
    node.name = d->text(r);
    node.op = d->text(r);
    node.domain = d->text(r);
    node.version = r.get<int32_t>();
    auto inputs = r.list<int32_t>(), outputs = r.list<int32_t>();
    node.input_count = uint32_t(inputs.size());
    node.output_count = uint32_t(outputs.size());
    node.inputs = d->keep(std::move(inputs));
    node.outputs = d->keep(std::move(outputs));
    std::vector<const AiVmmAttribute*> attributes;
    for (uint32_t k = 0, m = r.get<uint32_t>(); k < m && r.ok(); ++k) {
      auto a = backend::make<AiVmmAttribute>();
      a.name = d->text(r);
      a.kind = r.get<int32_t>();
      a.count = r.get<uint32_t>();
      a.i = r.get<int64_t>();
      a.f = r.get<float>();
      a.s = d->text(r);
      if (a.kind == AI_VMM_ATTRIBUTE_INTS) {
        auto list = r.list<int64_t>();
        a.count = uint32_t(list.size());
        a.ints = d->keep(std::move(list));
      } else if (a.kind == AI_VMM_ATTRIBUTE_FLOATS) {
        auto list = r.list<float>();
        a.count = uint32_t(list.size());
        a.floats = d->keep(std::move(list));
      } else if (a.kind == AI_VMM_ATTRIBUTE_STRINGS) {
        std::vector<AiVmmText> list;
        for (uint32_t s = 0; s < a.count && r.ok(); ++s) list.push_back(d->text(r));
        a.strings = d->keep(std::move(list));
      } else if (a.kind == AI_VMM_ATTRIBUTE_TENSOR) {
        a.tensor = d->value(r, constants);
      }
      d->attributes_.push_back(a);
      attributes.push_back(&d->attributes_.back());
    }
    node.attribute_count = uint32_t(attributes.size());
    node.attributes = d->keep(std::move(attributes));
    d->nodes_.push_back(node);
    nodes.push_back(&d->nodes_.back());
  }
  auto inputs = r.list<int32_t>(), outputs = r.list<int32_t>();
  if (!r.ok()) return Status(Code::data_loss, "The message with the graph is damaged.");
  g.expression_count = uint32_t(expressions.size());
  g.value_count = uint32_t(values.size());
  g.node_count = uint32_t(nodes.size());
  g.input_count = uint32_t(inputs.size());
  g.output_count = uint32_t(outputs.size());
  g.expressions = d->keep(std::move(expressions));
  g.values = d->keep(std::move(values));
  g.nodes = d->keep(std::move(nodes));
  g.inputs = d->keep(std::move(inputs));
  g.outputs = d->keep(std::move(outputs));
  return d;
}

}  // namespace ai_vmm::isolate
