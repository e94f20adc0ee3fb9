// The extension "buffers" of the simulated chips: memory that is charged to the chip and lies in the host's.
#include <sys/mman.h>
#include <unistd.h>

#include "backends/sim/extensions.hpp"

namespace ai_vmm::sim {

namespace {

using backend::guarded;

struct Buffer {
  std::shared_ptr<Silicon> silicon;
  int64_t life = 0;  // of the chip
  char* data = nullptr;
  uint64_t bytes = 0;
  uint64_t mapped = 0;  // bytes of the mapping; 0: the memory is the importer's
  void* mapping = nullptr;
  int fd = -1;
  int64_t charged = 0;
  ~Buffer() {
    if (mapped) munmap(mapping, mapped);
    if (fd >= 0) close(fd);
    silicon->release(charged);
  }
};
Buffer& of(AiVmmBuffer* b) { return *reinterpret_cast<Buffer*>(b); }

Status usable(const Buffer& b, uint64_t offset, uint64_t bytes) {
  AI_VMM_TRY(b.silicon->alive(b.life));
  if (offset <= b.bytes && bytes <= b.bytes - offset) return {};
  return Status(Code::out_of_range, "Bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) +
                                        " leave the buffer of " + std::to_string(b.bytes) + " bytes.");
}

// A buffer over `fd` from `offset` on. Takes the descriptor.
Result<std::unique_ptr<Buffer>> map_fd(const SimDeviceBase& device, int fd, uint64_t offset, uint64_t bytes) {
  auto b = std::make_unique<Buffer>();
  b->silicon = device.silicon();
  b->life = device.life();
  b->fd = fd;
  b->bytes = bytes;
  uint64_t skip = offset % uint64_t(sysconf(_SC_PAGESIZE));
  if (off_t end = lseek(fd, 0, SEEK_END); end < 0 || uint64_t(end) < offset || uint64_t(end) - offset < bytes)
    return Status(Code::invalid_argument,
                  "The memory object is smaller than " + std::to_string(offset + bytes) + " bytes.");
  if (bytes == 0) return b;
  void* at = mmap(nullptr, bytes + skip, PROT_READ | PROT_WRITE, MAP_SHARED, fd, off_t(offset - skip));
  if (at == MAP_FAILED) return Status(Code::invalid_argument, "The memory object cannot be mapped.");
  b->mapping = at;
  b->mapped = bytes + skip;
  b->data = static_cast<char*>(at) + skip;
  return b;
}

int32_t copy_on(AiVmmStream* stream, AiVmmStatus* s, void* to, const void* from, uint64_t bytes) {
  if (!stream) {
    if (bytes) std::memmove(to, from, bytes);
    return 0;
  }
  return guarded(s, [&]() -> Status {
    enqueue(stream, [=]() -> Status {
      if (bytes) std::memmove(to, from, bytes);
      return {};
    });
    return {};
  });
}

}  // namespace

const AiVmmBuffers& buffers() {
  static const AiVmmBuffers table = [] {
    auto t = backend::make<AiVmmBuffers>();
    t.memory = [](AiVmmDevice* d, AiVmmMemory* theirs, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        AI_VMM_TRY(sim_device(d).alive());
        auto m = backend::make<AiVmmMemory>();
        const Silicon& silicon = *sim_device(d).silicon();
        m.total_bytes = uint64_t(silicon.chip.memory);
        m.free_bytes = uint64_t(std::max<int64_t>(0, silicon.chip.memory - silicon.used()));
        m.alignment = 64;
        m.device_type = kDeviceType;
        const Chip& chip = silicon.chip;
        m.host_visible = chip.shares_host();
        m.imports = 1u << AI_VMM_EXTERNAL_HOST;
        if (chip.link_peers) m.imports |= 1u << AI_VMM_EXTERNAL_FD;
        m.exports = m.imports;
        m.link_ns = chip.link_ns;
        m.link_bandwidth = chip.link_bandwidth;
        m.link_watts = chip.idle_watts;
        backend::publish(m, theirs);
        return {};
      });
    };
    t.allocate = [](AiVmmDevice* d, uint64_t bytes, AiVmmBuffer** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        AI_VMM_TRY(sim_device(d).alive());
        const auto& silicon = sim_device(d).silicon();
        if (bytes > uint64_t(INT64_MAX)) return silicon->charge(INT64_MAX / 2);
        AI_VMM_TRY(silicon->charge(int64_t(bytes)));
        int fd = memfd_create("ai_vmm_sim", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, off_t(bytes)) != 0) {
          if (fd >= 0) close(fd);
          silicon->release(int64_t(bytes));
          return Status(Code::resource_exhausted, "The machine has no memory for the simulated buffer.");
        }
        auto b = map_fd(sim_device(d), fd, 0, bytes);
        if (!b.ok()) {
          silicon->release(int64_t(bytes));
          return std::move(b).status();
        }
        (*b)->charged = int64_t(bytes);
        *out = reinterpret_cast<AiVmmBuffer*>((*b).release());
        return {};
      });
    };
    t.release = [](AiVmmBuffer* b) { delete &of(b); };
    t.address = [](AiVmmBuffer* b) -> void* { return of(b).data; };
    t.map = [](AiVmmBuffer* b, void** host, AiVmmStatus*) -> int32_t {
      *host = of(b).data;
      return 0;
    };
    t.unmap = [](AiVmmBuffer*, AiVmmStatus*) -> int32_t { return 0; };
    t.write = [](AiVmmBuffer* b, uint64_t offset, const void* from, uint64_t bytes, AiVmmStream* stream,
                 AiVmmStatus* s) {
      if (int32_t code = guarded(s, [&] { return usable(of(b), offset, bytes); })) return code;
      return copy_on(stream, s, of(b).data + offset, from, bytes);
    };
    t.read = [](AiVmmBuffer* b, uint64_t offset, void* to, uint64_t bytes, AiVmmStream* stream, AiVmmStatus* s) {
      if (int32_t code = guarded(s, [&] { return usable(of(b), offset, bytes); })) return code;
      return copy_on(stream, s, to, of(b).data + offset, bytes);
    };
    t.copy = [](AiVmmBuffer* to, uint64_t to_offset, AiVmmBuffer* from, uint64_t from_offset, uint64_t bytes,
                AiVmmStream* stream, AiVmmStatus* s) {
      if (int32_t code = guarded(s, [&]() -> Status {
            AI_VMM_TRY(usable(of(to), to_offset, bytes));
            return usable(of(from), from_offset, bytes);
          }))
        return code;
      return copy_on(stream, s, of(to).data + to_offset, of(from).data + from_offset, bytes);
    };
    t.import_ = [](AiVmmDevice* d, const AiVmmExternal* theirs, AiVmmBuffer** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        AI_VMM_TRY(sim_device(d).alive());
        const AiVmmExternal e = backend::local(theirs);
        if (e.kind == AI_VMM_EXTERNAL_HOST) {
          auto b = std::make_unique<Buffer>();
          b->silicon = sim_device(d).silicon();
          b->life = sim_device(d).life();
          b->data = static_cast<char*>(e.pointer) + e.offset;
          b->bytes = e.bytes;
          *out = reinterpret_cast<AiVmmBuffer*>(b.release());
          return {};
        }
        if (e.kind != AI_VMM_EXTERNAL_FD || !sim_device(d).silicon()->chip.link_peers)
          return Status(Code::unimplemented,
                        "Simulated chips import host memory and, with link.peers, descriptors only.");
        int fd = dup(e.fd);
        if (fd < 0) return Status(Code::invalid_argument, "Descriptor " + std::to_string(e.fd) + " is not open.");
        auto b = AI_VMM_TAKE(map_fd(sim_device(d), fd, e.offset, e.bytes));
        *out = reinterpret_cast<AiVmmBuffer*>(b.release());
        return {};
      });
    };
    t.export_ = [](AiVmmBuffer* b, int32_t kind, AiVmmExternal* theirs, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        auto e = backend::make<AiVmmExternal>();
        e.kind = kind;
        e.fd = -1;
        e.bytes = of(b).bytes;
        if (kind == AI_VMM_EXTERNAL_HOST) {
          e.pointer = of(b).data;
        } else if (kind == AI_VMM_EXTERNAL_FD && of(b).fd >= 0 && of(b).silicon->chip.link_peers) {
          e.fd = dup(of(b).fd);
          if (e.fd < 0) return Status(Code::resource_exhausted, "The process has no descriptor left.");
          e.offset = of(b).mapped - of(b).bytes;
        } else {
          return Status(Code::unimplemented, "This buffer cannot be exported as kind " + std::to_string(kind) + ".");
        }
        backend::publish(e, theirs);
        return {};
      });
    };
    return t;
  }();
  return table;
}

}  // namespace ai_vmm::sim
