#include "gpu/level3.hpp"

#include <cstdlib>
#include <vector>

#include "kit/streams.hpp"

namespace ai_vmm::gpu {

int32_t DeviceBuffers::device_type() const {
  switch (driver_->traits().dialect) {
    case Dialect::cuda: return 2;
    case Dialect::hip: return 10;
    default: return 4;  // OpenCL
  }
}

void DeviceBuffers::add(const MemoryRef& memory) {
  std::lock_guard lock(mutex_);
  by_address_[memory->address()] = memory;
}
void DeviceBuffers::remove(const Memory& memory) {
  std::lock_guard lock(mutex_);
  by_address_.erase(memory.address());
}
Result<MemoryRef> DeviceBuffers::find(const void* address) {
  std::lock_guard lock(mutex_);
  auto it = by_address_.find(address);
  if (it != by_address_.end()) return it->second;
  return Status(Code::invalid_argument, "A tensor's data is the address of no buffer of this device.");
}

namespace {

using backend::guarded;

struct Buffer {
  std::shared_ptr<DeviceBuffers> device;
  MemoryRef memory;
  uint64_t bytes = 0;
  void* host = nullptr;      // where the device works in the host's memory: the memory itself
  bool own_host = false;     // it was taken for this buffer
  std::vector<char> shadow;  // else: what a mapping shows
  ~Buffer() {
    if (memory) device->remove(*memory);
    memory = nullptr;  // before what it may lie in
    if (own_host) std::free(host);
    if (own_host || !host) device->taken -= int64_t(bytes);
  }
};
Buffer& of(AiVmmBuffer* b) { return *reinterpret_cast<Buffer*>(b); }

Status in_range(const Buffer& b, uint64_t offset, uint64_t bytes) {
  if (offset <= b.bytes && bytes <= b.bytes - offset) return {};
  return Status(Code::out_of_range, "Bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) +
                                        " leave the buffer of " + std::to_string(b.bytes) + " bytes.");
}

// Now, or in its turn on the stream.
template <class F>
int32_t on_stream(AiVmmStream* stream, AiVmmStatus* s, F work) {
  return guarded(s, [&]() -> Status {
    if (!stream) return work();
    enqueue(stream, std::move(work));
    return {};
  });
}

Result<std::unique_ptr<Buffer>> allocate(const std::shared_ptr<DeviceBuffers>& device, uint64_t bytes) {
  Driver& driver = device->driver();
  const Traits& t = driver.traits();
  if (bytes > uint64_t(t.max_allocation) || (t.memory_bytes && bytes > uint64_t(t.memory_bytes)))
    return Status(Code::resource_exhausted, "The device takes no buffer of " + std::to_string(bytes) + " bytes.");
  auto b = std::make_unique<Buffer>();
  b->device = device;
  const auto n = int64_t(std::max<uint64_t>(bytes, 1));
  if (t.host_memory) {
    b->host = std::aligned_alloc(4096, size_t(n + 4095) / 4096 * 4096);
    if (!b->host)
      return Status(Code::resource_exhausted, "The machine has no memory for " + std::to_string(bytes) + " bytes.");
    b->own_host = true;
  }
  b->bytes = bytes;
  device->taken += int64_t(bytes);
  b->memory = AI_VMM_TAKE(t.host_memory ? driver.wrap(b->host, n) : driver.allocate(n));
  device->add(b->memory);
  return b;
}

}  // namespace

const void* level3(std::string_view name) {
  if (name == AI_VMM_EXTENSION_STREAMS) return &streams();
  if (name != AI_VMM_EXTENSION_BUFFERS) return nullptr;
  static const AiVmmBuffers table = [] {
    auto t = backend::make<AiVmmBuffers>();
    t.memory = [](AiVmmDevice* d, AiVmmMemory* theirs, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        const auto& device = buffers_of(d);
        const Traits& traits = device->driver().traits();
        auto m = backend::make<AiVmmMemory>();
        m.total_bytes = uint64_t(std::max<int64_t>(traits.memory_bytes, 0));
        m.free_bytes = uint64_t(std::max<int64_t>(traits.memory_bytes - device->taken, 0));
        m.alignment = traits.dialect == Dialect::opencl ? 1 : uint64_t(traits.alignment);  // OpenCL's are handles
        m.device_type = device->device_type();
        m.host_visible = traits.host_memory;
        m.imports = m.exports = traits.host_memory ? 1u << AI_VMM_EXTERNAL_HOST : 0;
        backend::publish(m, theirs);
        return {};
      });
    };
    t.allocate = [](AiVmmDevice* d, uint64_t bytes, AiVmmBuffer** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        *out = reinterpret_cast<AiVmmBuffer*>(AI_VMM_TAKE(allocate(buffers_of(d), bytes)).release());
        return {};
      });
    };
    t.release = [](AiVmmBuffer* b) { delete &of(b); };
    t.address = [](AiVmmBuffer* b) { return of(b).memory->address(); };
    t.map = [](AiVmmBuffer* buffer, void** host, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        Buffer& b = of(buffer);
        if (!b.host) b.shadow.resize(size_t(b.bytes));
        *host = b.host ? b.host : b.shadow.data();
        if (!b.bytes) return {};
        return b.device->on_queue([&](Queue& q) { return q.read(*b.memory, *host, int64_t(b.bytes)); });
      });
    };
    t.unmap = [](AiVmmBuffer* buffer, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        Buffer& b = of(buffer);
        void* host = b.host ? b.host : b.shadow.data();
        if (b.bytes) {
          AI_VMM_TRY(b.device->on_queue([&](Queue& q) -> Status {
            AI_VMM_TRY(q.write(*b.memory, host, int64_t(b.bytes)));
            return q.finish();
          }));
        }
        b.shadow = {};
        return {};
      });
    };
    t.write = [](AiVmmBuffer* buffer, uint64_t offset, const void* from, uint64_t bytes, AiVmmStream* stream,
                 AiVmmStatus* s) {
      Buffer& b = of(buffer);
      if (int32_t code = guarded(s, [&] { return in_range(b, offset, bytes); })) return code;
      return on_stream(stream, s, [&b, offset, from, bytes]() -> Status {
        if (!bytes) return {};
        return b.device->on_queue([&](Queue& q) -> Status {
          AI_VMM_TRY(q.write(*b.memory, from, int64_t(bytes), int64_t(offset)));
          return q.finish();
        });
      });
    };
    t.read = [](AiVmmBuffer* buffer, uint64_t offset, void* to, uint64_t bytes, AiVmmStream* stream, AiVmmStatus* s) {
      Buffer& b = of(buffer);
      if (int32_t code = guarded(s, [&] { return in_range(b, offset, bytes); })) return code;
      return on_stream(stream, s, [&b, offset, to, bytes]() -> Status {
        if (!bytes) return {};
        return b.device->on_queue([&](Queue& q) { return q.read(*b.memory, to, int64_t(bytes), int64_t(offset)); });
      });
    };
    t.copy = [](AiVmmBuffer* target, uint64_t to_offset, AiVmmBuffer* source, uint64_t from_offset, uint64_t bytes,
                AiVmmStream* stream, AiVmmStatus* s) {
      Buffer &to = of(target), &from = of(source);
      if (int32_t code = guarded(s, [&]() -> Status {
            AI_VMM_TRY(in_range(to, to_offset, bytes));
            return in_range(from, from_offset, bytes);
          }))
        return code;
      return on_stream(stream, s, [&to, &from, to_offset, from_offset, bytes]() -> Status {
        if (!bytes) return {};
        return to.device->on_queue([&](Queue& q) -> Status {
          AI_VMM_TRY(q.copy(*from.memory, *to.memory, int64_t(bytes), int64_t(from_offset), int64_t(to_offset)));
          return q.finish();
        });
      });
    };
    t.import_ = [](AiVmmDevice* d, const AiVmmExternal* theirs, AiVmmBuffer** out, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        const AiVmmExternal e = backend::local(theirs);
        const auto& device = buffers_of(d);
        if (e.kind != AI_VMM_EXTERNAL_HOST || !device->driver().traits().host_memory)
          return Status(Code::unimplemented, "The device takes no memory of kind " + std::to_string(e.kind) + ".");
        auto b = std::make_unique<Buffer>();
        b->device = device;
        b->bytes = e.bytes;
        b->host = static_cast<char*>(e.pointer) + e.offset;
        b->memory = AI_VMM_TAKE(device->driver().wrap(b->host, int64_t(std::max<uint64_t>(e.bytes, 1))));
        device->add(b->memory);
        *out = reinterpret_cast<AiVmmBuffer*>(b.release());
        return {};
      });
    };
    t.export_ = [](AiVmmBuffer* buffer, int32_t kind, AiVmmExternal* theirs, AiVmmStatus* s) {
      return guarded(s, [&]() -> Status {
        Buffer& b = of(buffer);
        if (kind != AI_VMM_EXTERNAL_HOST || !b.host)
          return Status(Code::unimplemented, "This buffer cannot be exported as kind " + std::to_string(kind) + ".");
        auto e = backend::make<AiVmmExternal>();
        e.kind = kind;
        e.fd = -1;
        e.pointer = b.host;
        e.bytes = b.bytes;
        backend::publish(e, theirs);
        return {};
      });
    };
    return t;
  }();
  return &table;
}

}  // namespace ai_vmm::gpu
