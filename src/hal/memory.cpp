#include "hal/memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "ai_vmm/compute_backend.hpp"
#include "base/memory_budget.hpp"
#include "hal/backends.hpp"
#include "hal/device.hpp"

namespace ai_vmm {

using backend::make;

const char* name(Why why) {
  switch (why) {
    case Why::input: return "input";
    case Why::region: return "between regions";
    case Why::host: return "host step";
    case Why::output: return "output";
    case Why::backend: return "by the backend";
    case Why::state: return "state";
  }
  return "?";
}

void Transfers::add(std::string_view from, std::string_view to, Why why, int64_t copied, int64_t shared,
                    int64_t ahead) {
  std::lock_guard lock(mutex_);
  auto row = std::find_if(rows_.begin(), rows_.end(),
                          [&](const Transfer& t) { return t.why == why && t.from == from && t.to == to; });
  if (row == rows_.end()) row = rows_.insert(rows_.end(), {std::string(from), std::string(to), why});
  ++row->times;
  row->copied += copied;
  row->shared += shared;
  row->ahead += ahead;
}

std::vector<Transfer> Transfers::rows() const {
  std::lock_guard lock(mutex_);
  return rows_;
}

void Transfers::clear() {
  std::lock_guard lock(mutex_);
  rows_.clear();
}

// ---------------------------------------------------------------- blocks

DeviceBlock& DeviceBlock::operator=(DeviceBlock&& b) noexcept {
  if (this == &b) return *this;
  release();
  device_ = std::move(b.device_);
  budget_ = std::move(b.budget_);
  buffer_ = std::exchange(b.buffer_, nullptr);
  pending_ = std::exchange(b.pending_, nullptr);
  address_ = b.address_;
  bytes_ = b.bytes_;
  pool_ = b.pool_;
  return *this;
}

DeviceMemory& DeviceBlock::memory() const { return *device_->memory(); }

void DeviceBlock::release() {
  if (!buffer_) return;
  (void)memory().settle(*this);  // what becomes of the write no longer matters, but its source must outlive it
  memory().give_back(*this);
  buffer_ = nullptr;
  budget_ = nullptr;
  device_ = nullptr;
}

// ---------------------------------------------------------------- the memory of a device

namespace {
constexpr uint64_t kForEver = UINT64_MAX;
constexpr int64_t kSmallest = 256;
}  // namespace

// Two pieces of the host's memory between two devices.
struct DeviceMemory::Staging {
  static constexpr int64_t kBytes = 4 << 20;
  explicit Staging(const AiVmmBuffers& api) : api_(api) {}
  ~Staging() {
    for (int i = 0; i < 2; ++i) {
      if (known[i]) api_.release(known[i]);
      std::free(data[i]);
    }
  }
  void* data[2] = {};
  AiVmmBuffer* known[2] = {};

 private:
  const AiVmmBuffers& api_;
};

DeviceMemory::DeviceMemory(Device& device) : device_(device) {}

std::unique_ptr<DeviceMemory> DeviceMemory::of(Device& device, const AiVmmBackend& api, AiVmmDevice* handle) {
  const auto* buffers = extension<AiVmmBuffers>(api, AI_VMM_EXTENSION_BUFFERS);
  if (!buffers) return nullptr;
  std::unique_ptr<DeviceMemory> m(new DeviceMemory(device));
  auto s = make<AiVmmStatus>();
  m->info_ = make<AiVmmMemory>();
  if (buffers->memory(handle, &m->info_, &s)) return nullptr;
  m->handle_ = handle;
  m->api_ = buffers;
  m->streams_ = extension<AiVmmStreams>(api, AI_VMM_EXTENSION_STREAMS);
  m->shares_host_ = m->info_.host_visible && (m->info_.imports & 1u << AI_VMM_EXTERNAL_HOST);
  m->simulated_ = device.simulated();
  return m;
}

DeviceMemory::~DeviceMemory() {
  while (stagings_.take()) {
  }
  trim();
  if (upload_) streams_->release_stream(upload_);
  for (AiVmmEvent* e : events_) streams_->release_event(e);
}

// Sizes 256, 320, 384, 448, 512, 640, …: a block is at most a quarter larger than what is asked for.
int DeviceMemory::class_of(int64_t bytes) {
  const auto n = uint64_t(std::max(bytes, kSmallest));
  const int power = std::bit_width(n) - 1;
  const uint64_t step = uint64_t(1) << (power - 2);
  return (power - 8) * 4 + int((n - (uint64_t(1) << power) + step - 1) / step);
}
int64_t DeviceMemory::size_of(int c) { return (int64_t(4 + c % 4) << (c / 4 + 8)) / 4; }

Result<DeviceBlock> DeviceMemory::take(int64_t bytes) {
  const int c = class_of(bytes);
  if (c >= kClasses)
    return Status(Code::resource_exhausted, std::to_string(bytes) + " bytes are more than any device has.");
  DeviceBlock block;
  if (const auto& budget = MemoryBudget::current()) {
    AI_VMM_TRY(budget->charge(bytes));
    block.budget_ = budget;
  }
  auto guard = [&](Status s) {
    if (block.budget_) block.budget_->release(bytes);
    return s;
  };
  block.bytes_ = bytes;
  block.pool_ = c;
  {
    std::lock_guard lock(mutex_);
    if (!idle_[size_t(c)].empty()) {
      block.buffer_ = idle_[size_t(c)].back().buffer;
      block.address_ = idle_[size_t(c)].back().address;
      idle_[size_t(c)].pop_back();
    }
  }
  if (!block.buffer_) {
    auto s = make<AiVmmStatus>();
    int32_t code = api_->allocate(handle_, uint64_t(size_of(c)), &block.buffer_, &s);
    if (code == int32_t(Code::resource_exhausted)) {  // blocks of other sizes may lie idle
      trim();
      s = make<AiVmmStatus>();
      code = api_->allocate(handle_, uint64_t(size_of(c)), &block.buffer_, &s);
    }
    if (code) {
      block.buffer_ = nullptr;
      return guard(to_status(code, s));
    }
    block.address_ = api_->address(block.buffer_);
  }
  block.device_ = device_.shared_from_this();
  return block;
}

void DeviceMemory::give_back(DeviceBlock& b) {
  if (b.budget_) b.budget_->release(b.bytes_);
  if (b.pool_ < 0) {
    api_->release(b.buffer_);
    return;
  }
  std::lock_guard lock(mutex_);
  idle_[size_t(b.pool_)].push_back({b.buffer_, b.address_});
}

void DeviceMemory::trim() {
  std::lock_guard lock(mutex_);
  for (auto& idle : idle_) {
    for (const Idle& i : idle) api_->release(i.buffer);
    idle.clear();
  }
}

Status DeviceMemory::write(DeviceBlock& to, const void* from, int64_t bytes) {
  auto s = make<AiVmmStatus>();
  if (bytes == 0) return {};
  if (int32_t code = api_->write(to.buffer_, 0, from, uint64_t(bytes), nullptr, &s)) return to_status(code, s);
  return {};
}

Status DeviceMemory::read(const DeviceBlock& from, void* to, int64_t bytes) {
  auto s = make<AiVmmStatus>();
  if (bytes == 0) return {};
  if (int32_t code = api_->read(from.buffer_, 0, to, uint64_t(bytes), nullptr, &s)) return to_status(code, s);
  return {};
}

// Enqueues a write and an event behind it.
Status DeviceMemory::begin_write(AiVmmBuffer* to, int64_t offset, const void* from, int64_t bytes, AiVmmEvent*& event) {
  auto s = make<AiVmmStatus>();
  std::lock_guard lock(upload_mutex_);
  if (!upload_)
    if (int32_t code = streams_->create_stream(handle_, &upload_, &s)) {
      upload_ = nullptr;
      return to_status(code, s);
    }
  AiVmmEvent* e = nullptr;
  if (!events_.empty()) {
    e = events_.back();
    events_.pop_back();
  } else if (int32_t code = streams_->create_event(handle_, &e, &s)) {
    return to_status(code, s);
  }
  int32_t code = api_->write(to, uint64_t(offset), from, uint64_t(bytes), upload_, &s);
  if (!code) code = streams_->record(e, upload_, &s);
  if (code) {
    events_.push_back(e);
    return to_status(code, s);
  }
  event = e;
  return {};
}

Status DeviceMemory::wait(AiVmmEvent*& event) {
  if (!event) return {};
  auto s = make<AiVmmStatus>();
  const int32_t code = streams_->synchronize(event, kForEver, &s);
  std::lock_guard lock(upload_mutex_);
  events_.push_back(std::exchange(event, nullptr));
  if (code) return to_status(code, s);
  return {};
}

Result<bool> DeviceMemory::write_ahead(DeviceBlock& to, const void* from, int64_t bytes) {
  if (!streams_ || bytes == 0) return false;
  AI_VMM_TRY(begin_write(to.buffer_, 0, from, bytes, to.pending_));
  return true;
}

Status DeviceMemory::settle(DeviceBlock& block) { return wait(block.pending_); }

Result<DeviceBlock> DeviceMemory::share(const DeviceBlock& other, int64_t bytes) {
  DeviceMemory& theirs = other.memory();
  for (int32_t kind : {AI_VMM_EXTERNAL_DMA_BUF, AI_VMM_EXTERNAL_FD}) {
    if (!(theirs.info_.exports & info_.imports & 1u << kind)) continue;
    auto s = make<AiVmmStatus>();
    auto external = make<AiVmmExternal>();
    if (theirs.api_->export_(other.buffer_, kind, &external, &s)) continue;
    external.bytes = std::min(external.bytes, uint64_t(std::max<int64_t>(bytes, 1)));
    DeviceBlock block;
    int32_t code = api_->import_(handle_, &external, &block.buffer_, &s);
    if (external.fd >= 0) close(external.fd);
    if (code) {
      block.buffer_ = nullptr;
      if (s.device_state != AI_VMM_DEVICE_OK) return to_status(code, s);
      continue;  // it takes this kind of object, but not this one
    }
    block.device_ = device_.shared_from_this();
    block.address_ = api_->address(block.buffer_);
    return block;
  }
  return DeviceBlock();
}

std::unique_ptr<DeviceMemory::Staging> DeviceMemory::staging() {
  if (auto used = stagings_.take()) return used;
  auto made = std::make_unique<Staging>(*api_);
  for (int i = 0; i < 2; ++i) {
    made->data[i] = std::aligned_alloc(4096, size_t(Staging::kBytes));
    if (!made->data[i]) return nullptr;
    if (!(info_.imports & 1u << AI_VMM_EXTERNAL_HOST)) continue;
    auto s = make<AiVmmStatus>();
    auto external = make<AiVmmExternal>();
    external.kind = AI_VMM_EXTERNAL_HOST;
    external.pointer = made->data[i];
    external.bytes = uint64_t(Staging::kBytes);
    if (api_->import_(handle_, &external, &made->known[i], &s)) made->known[i] = nullptr;  // slower, and as right
  }
  return made;
}

Status DeviceMemory::copy(const DeviceBlock& from, DeviceBlock& to, int64_t bytes) {
  const AiVmmBuffers& theirs = *from.memory().api_;
  auto pieces = staging();
  if (!pieces) return Status(Code::resource_exhausted, "The machine has no memory left to copy between devices.");
  AiVmmEvent* written[2] = {nullptr, nullptr};
  Status done;
  int turn = 0;
  for (int64_t at = 0; at < bytes && done.ok(); at += Staging::kBytes, turn ^= 1) {
    const auto n = uint64_t(std::min(Staging::kBytes, bytes - at));
    done = wait(written[turn]);
    if (!done.ok()) break;
    auto s = make<AiVmmStatus>();
    if (int32_t code = theirs.read(from.buffer_, uint64_t(at), pieces->data[turn], n, nullptr, &s)) {
      done = to_status(code, s);
    } else if (streams_) {
      done = begin_write(to.buffer_, at, pieces->data[turn], int64_t(n), written[turn]);
    } else if (code = api_->write(to.buffer_, uint64_t(at), pieces->data[turn], n, nullptr, &s); code) {
      done = to_status(code, s);
    }
  }
  for (AiVmmEvent*& e : written)
    if (Status s = wait(e); !s.ok() && done.ok()) done = std::move(s);
  stagings_.give(std::move(pieces));
  return done;
}

double DeviceMemory::link_ns(int64_t bytes) const {
  if (!simulated_ || info_.link_bandwidth <= 0 || bytes == 0) return 0;
  return info_.link_ns + double(bytes) / info_.link_bandwidth * 1e9;
}

}  // namespace ai_vmm
