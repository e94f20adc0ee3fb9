#include "gpu/module/driver.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "base/amd_topology.hpp"
#include "base/config.hpp"
#include "base/log.hpp"
#include "base/pci.hpp"
#include "gpu/driver_base.hpp"
#include "gpu/module/api.hpp"
#include "gpu/module/compiler.hpp"
#include "gpu/module/libraries.hpp"

namespace ai_vmm::gpu {

namespace {

const char* vendor_name(Dialect d) { return d == Dialect::cuda ? "CUDA" : "HIP"; }

Status failure(const DeviceApi& api, int error, const std::string& what) {
  if (error == 0) return {};
  const std::string text = what + " failed with " + vendor_name(api.dialect) + " error " + api.error_text(error);
  switch (error) {
    case DeviceApi::kOutOfMemory:
      return Status(Code::resource_exhausted, text + ": the device has no memory left for it.")
          .on_device(DeviceState::out_of_memory);
    case DeviceApi::kIllegalAddress:
    case DeviceApi::kLaunchFailed:  // the context is of no use any more
      return Status(Code::unavailable, text + ": the device is lost to this process.").on_device(DeviceState::lost);
    default: return Status(Code::internal, text + ".");
  }
}

Result<const DeviceApi*> load(Dialect dialect) {
  auto* api = new DeviceApi(dialect);  // for ever
  const bool cuda = dialect == Dialect::cuda;
  Status s =
      cuda ? api->load({"libcuda.so.1"}) : api->load({"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"});
  if (!s.ok())
    return Status(Code::unavailable, s.message() + (cuda ? " It comes with NVIDIA's driver."
                                                         : " It comes with ROCm (Debian: libamdhip64-5)."));
  if (int e = api->init(0))
    return Status(Code::unavailable,
                  std::string(vendor_name(dialect)) + " finds no device that it can use: " + api->error_text(e) + ".");
  return api;
}

// Loaded and initialised by the first call that wants it.
Result<const DeviceApi*> device_api(Dialect dialect) {
  auto given = [](const Result<const DeviceApi*>& r) -> Result<const DeviceApi*> {
    if (!r.ok()) return r.status().copy();
    return *r;
  };
  if (dialect == Dialect::cuda) {
    static const Result<const DeviceApi*> cuda = load(dialect);
    return given(cuda);
  }
  static const Result<const DeviceApi*> hip = load(dialect);
  return given(hip);
}

// What outlives calls: memory may be released after the driver.
struct Shared {
  const DeviceApi& api;
  const int device;
  Handle context = nullptr;
  Handle memory_stream = nullptr;  // on which memory is taken and given back
  bool pooled = false;             // there is stream-ordered memory
  // Calls act on what is current in the thread; the caller's threads come and go.
  void enter() const {
    if (api.dialect == Dialect::cuda)
      api.context_current(context);
    else
      api.device_current(device);
  }
  Status check(int error, const std::string& what) const { return failure(api, error, what); }
  ~Shared() {
    enter();
    if (memory_stream) api.stream_destroy(memory_stream);
  }
};
using SharedRef = std::shared_ptr<const Shared>;

class Block : public Memory {
 public:
  Block(SharedRef s, Address a, int64_t size, MemoryRef whole)
      : Memory(size), at(a), shared_(std::move(s)), whole_(std::move(whole)) {}
  ~Block() override {
    if (whole_) return;
    shared_->enter();
    if (shared_->pooled)
      shared_->api.free_async(at, shared_->memory_stream);
    else
      shared_->api.free(at);
  }
  void* address() const override { return reinterpret_cast<void*>(at); }
  const Address at;

 private:
  SharedRef shared_;
  MemoryRef whole_;  // that this is a part of
};
Address address_of(const Memory& m) { return static_cast<const Block&>(m).at; }

// Arguments lie in fixed places, so that a launch passes pointers only.
class ModuleCall : public Call {
 public:
  Status set(size_t argument, const Memory& memory) override { return keep(argument, address_of(memory)); }
  Status set(size_t argument, const Scalar& value) override {
    return std::visit([&](auto v) { return keep(argument, v); }, value);
  }
  // Waits for nothing.
  virtual Status start(const Shared& s, const Size3& groups, const Size3& local, Handle stream) = 0;

 protected:
  std::vector<uint64_t> values_;

 private:
  template <class T>
  Status keep(size_t argument, T value) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    if (argument >= values_.size()) values_.resize(argument + 1);
    std::memcpy(&values_[argument], &value, sizeof value);
    return {};
  }
};

class Kernel : public ModuleCall {
 public:
  explicit Kernel(Handle f) : function_(f) {}
  Status start(const Shared& s, const Size3& groups, const Size3& local, Handle stream) override {
    pointers_.resize(values_.size());
    for (size_t i = 0; i < values_.size(); ++i) pointers_[i] = &values_[i];
    return s.check(
        s.api.launch(function_, unsigned(groups[0]), unsigned(groups[1]), unsigned(groups[2]), unsigned(local[0]),
                     unsigned(local[1]), unsigned(local[2]), 0, stream, pointers_.data(), nullptr),
        "starting a kernel");
  }

 private:
  const Handle function_;
  std::vector<void*> pointers_;
};

class LibraryCall : public ModuleCall {
 public:
  explicit LibraryCall(std::unique_ptr<LibraryWork> work) : work_(std::move(work)) {}
  Status start(const Shared&, const Size3&, const Size3&, Handle stream) override {
    return work_->start(values_, stream);
  }

 private:
  std::unique_ptr<LibraryWork> work_;
};

// Between pageable memory and the device: two pieces of pinned memory in turn, so that the processor copies one while
// the device copies the other.
class Staging {
 public:
  static constexpr size_t kPiece = 4 << 20;
  explicit Staging(const Shared& s) : s_(s) {}
  ~Staging() {
    for (Piece& p : pieces_) {
      if (p.memory) s_.api.free_pinned(p.memory);
      if (p.ready) s_.api.event_destroy(p.ready);
    }
  }
  Status upload(Address to, const void* from, size_t bytes, Handle stream) {
    AI_VMM_TRY(prepare());
    for (size_t at = 0; at < bytes; at += kPiece) {
      Piece& p = next();
      const size_t n = std::min(kPiece, bytes - at);
      AI_VMM_TRY(s_.check(s_.api.event_wait(p.ready), "waiting for a copy"));
      std::memcpy(p.memory, static_cast<const char*>(from) + at, n);
      AI_VMM_TRY(s_.check(s_.api.upload(to + at, p.memory, n, stream),
                          "copying " + std::to_string(n) + " bytes to the device"));
      AI_VMM_TRY(s_.check(s_.api.event_record(p.ready, stream), "recording an event"));
    }
    return {};
  }
  Status download(void* to, Address from, size_t bytes, Handle stream) {
    AI_VMM_TRY(prepare());
    struct Arriving {
      Piece* piece;
      size_t at, bytes;
    };
    std::vector<Arriving> arriving;
    auto land = [&]() -> Status {
      Arriving a = arriving.front();
      arriving.erase(arriving.begin());
      AI_VMM_TRY(s_.check(s_.api.event_wait(a.piece->ready), "waiting for a copy"));
      std::memcpy(static_cast<char*>(to) + a.at, a.piece->memory, a.bytes);
      return {};
    };
    for (size_t at = 0; at < bytes; at += kPiece) {
      if (arriving.size() == 2) AI_VMM_TRY(land());
      Piece& p = next();
      const size_t n = std::min(kPiece, bytes - at);
      AI_VMM_TRY(s_.check(s_.api.event_wait(p.ready), "waiting for a copy"));
      AI_VMM_TRY(s_.check(s_.api.download(p.memory, from + at, n, stream),
                          "copying " + std::to_string(n) + " bytes from the device"));
      AI_VMM_TRY(s_.check(s_.api.event_record(p.ready, stream), "recording an event"));
      arriving.push_back({&p, at, n});
    }
    while (!arriving.empty()) AI_VMM_TRY(land());
    return {};
  }

 private:
  struct Piece {
    void* memory = nullptr;
    Handle ready = nullptr;  // the last copy from or to it is done
  };
  Status prepare() {
    for (Piece& p : pieces_) {
      if (!p.memory) AI_VMM_TRY(s_.check(s_.api.allocate_pinned(&p.memory, kPiece, 0), "taking pinned memory"));
      if (!p.ready) AI_VMM_TRY(s_.check(s_.api.event_create(&p.ready, DeviceApi::kNoTiming), "making an event"));
    }
    return {};
  }
  Piece& next() { return pieces_[turn_ ^= 1]; }
  const Shared& s_;
  Piece pieces_[2];
  size_t turn_ = 0;
};

class RecordedGraph : public Recording {
 public:
  RecordedGraph(SharedRef s, Handle e) : executable(e), shared_(std::move(s)) {}
  ~RecordedGraph() override {
    shared_->enter();
    shared_->api.graph_free(executable);
  }
  const Handle executable;

 private:
  SharedRef shared_;
};

class Stream : public Queue {
 public:
  Stream(SharedRef s, Handle stream) : shared_(std::move(s)), stream_(stream), staging_(*shared_) {}
  ~Stream() override {
    shared_->enter();
    shared_->api.stream_wait(stream_);
    shared_->api.stream_destroy(stream_);
  }
  Status launch(Call& call, const Size3& global, const Size3& local) override {
    Size3 groups;
    for (size_t d = 0; d < 3; ++d) {
      groups[d] = global[d] / local[d];
      if (const int64_t most = d == 0 ? INT32_MAX : 65535; groups[d] > most)
        return Status(Code::unimplemented, "The work has " + std::to_string(groups[d]) + " groups along axis " +
                                               std::to_string(d) + "; the device takes " + std::to_string(most) + ".");
    }
    shared_->enter();
    return static_cast<ModuleCall&>(call).start(*shared_, groups, local, stream_);
  }
  Status write(Memory& to, const void* from, int64_t bytes, int64_t at) override {
    shared_->enter();
    return staging_.upload(address_of(to) + Address(at), from, size_t(bytes), stream_);
  }
  Status read(const Memory& from, void* to, int64_t bytes, int64_t at) override {
    shared_->enter();
    return staging_.download(to, address_of(from) + Address(at), size_t(bytes), stream_);
  }
  Status copy(const Memory& from, Memory& to, int64_t bytes, int64_t from_at, int64_t to_at) override {
    shared_->enter();
    return shared_->check(
        shared_->api.copy(address_of(to) + Address(to_at), address_of(from) + Address(from_at), size_t(bytes), stream_),
        "copying on the device");
  }
  Status finish() override {
    shared_->enter();
    return shared_->check(shared_->api.stream_wait(stream_), "waiting for the device");
  }

  bool records() const override {
    const DeviceApi& api = shared_->api;
    return api.capture_begin && api.capture_end && api.graph_instantiate && api.graph_destroy && api.graph_launch &&
           api.graph_free;
  }
  Status begin_recording() override {
    shared_->enter();
    return shared_->check(shared_->api.capture_begin(stream_, DeviceApi::kCaptureThreadLocal), "recording a graph");
  }
  Result<std::unique_ptr<Recording>> end_recording() override {
    shared_->enter();
    Handle graph = nullptr, executable = nullptr;
    AI_VMM_TRY(shared_->check(shared_->api.capture_end(stream_, &graph), "ending a graph"));
    int error = shared_->api.graph_instantiate(&executable, graph, 0);
    shared_->api.graph_destroy(graph);
    AI_VMM_TRY(shared_->check(error, "making a graph that runs"));
    return std::unique_ptr<Recording>(new RecordedGraph(shared_, executable));
  }
  Status replay(Recording& recording) override {
    shared_->enter();
    return shared_->check(shared_->api.graph_launch(static_cast<RecordedGraph&>(recording).executable, stream_),
                          "starting a graph");
  }

 private:
  SharedRef shared_;
  Handle stream_;
  Staging staging_;
};

class ModuleDriver : public DriverBase {
 public:
  ModuleDriver(SharedRef s, Traits traits, std::string architecture, std::unique_ptr<Compiler> compiler,
               std::unique_ptr<Libraries> libraries, const AiVmmHost* host)
      : DriverBase(std::move(traits), host, ""),
        shared_(std::move(s)),
        architecture_(std::move(architecture)),
        compiler_(std::move(compiler)),
        libraries_(std::move(libraries)) {}
  ~ModuleDriver() override {
    shared_->enter();
    libraries_ = nullptr;
    for (Handle m : modules_) shared_->api.module_unload(m);
  }

  Result<MemoryRef> allocate(int64_t bytes) override {
    shared_->enter();
    Address a = 0;
    const size_t n = size_t(std::max<int64_t>(bytes, 1));
    const std::string what = "taking " + std::to_string(n) + " bytes of device memory";
    if (shared_->pooled) {
      AI_VMM_TRY(shared_->check(shared_->api.allocate_async(&a, n, shared_->memory_stream), what));
      // Other streams may use it as soon as this returns.
      AI_VMM_TRY(shared_->check(shared_->api.stream_wait(shared_->memory_stream), what));
    } else {
      AI_VMM_TRY(shared_->check(shared_->api.allocate(&a, n), what));
    }
    return MemoryRef(std::make_shared<Block>(shared_, a, bytes, nullptr));
  }
  Result<MemoryRef> wrap(void*, int64_t) override {
    return Status(Code::unimplemented, "The device does not work in the host's memory.");
  }
  Result<MemoryRef> slice(const MemoryRef& whole, int64_t offset, int64_t bytes) override {
    return MemoryRef(std::make_shared<Block>(shared_, address_of(*whole) + Address(offset), bytes, whole));
  }
  Result<std::unique_ptr<Call>> call(const std::string& kernel) override {
    shared_->enter();
    Handle module = AI_VMM_TAKE(program_of(kernel)), function = nullptr;
    AI_VMM_TRY(shared_->check(shared_->api.module_function(&function, module, kernel.c_str()),
                              "finding the kernel " + kernel));
    return std::unique_ptr<Call>(new Kernel(function));
  }
  Result<std::unique_ptr<Call>> library_call(const LibraryTask& task) override {
    shared_->enter();
    const auto* product = std::get_if<LibraryProduct>(&task);
    auto work = AI_VMM_TAKE(product ? libraries_->product(*product)
                                    : libraries_->convolution(std::get<LibraryConvolution>(task)));
    return std::unique_ptr<Call>(new LibraryCall(std::move(work)));
  }
  Result<std::unique_ptr<Queue>> queue() override {
    shared_->enter();
    Handle stream = nullptr;
    AI_VMM_TRY(shared_->check(shared_->api.stream_create(&stream, DeviceApi::kNonBlocking), "making a stream"));
    return std::unique_ptr<Queue>(new Stream(shared_, stream));
  }

 protected:
  Result<Handle> program_from_text(const std::string& text, std::string& binary) override {
    binary = AI_VMM_TAKE(compiler_->compile(text, architecture_));
    return program_from_binary(binary);
  }
  Result<Handle> program_from_binary(const std::string& binary) override {
    shared_->enter();
    Handle module = nullptr;
    AI_VMM_TRY(shared_->check(shared_->api.module_load(&module, binary.data()), "loading kernels"));
    std::lock_guard lock(modules_mutex_);
    modules_.push_back(module);
    return module;
  }

 private:
  SharedRef shared_;
  std::string architecture_;
  std::unique_ptr<Compiler> compiler_;
  std::unique_ptr<Libraries> libraries_;
  std::mutex modules_mutex_;
  std::vector<Handle> modules_;
};

struct ModuleDevice {
  int ordinal = 0;  // in CUDA's or HIP's own numbering
  std::string name;
  std::string resource;
  std::string architecture;  // "sm_90", "gfx90a"; "" not known
  std::string driver;        // version
  int64_t memory_bytes = 0;
};

// ROCm takes a device for another by this variable: "9.0.10" is gfx90a.
std::string overridden_architecture() {
  const char* text = std::getenv("HSA_OVERRIDE_GFX_VERSION");
  unsigned major = 0, minor = 0, step = 0;
  if (!text || std::sscanf(text, "%u.%u.%u", &major, &minor, &step) != 3) return "";
  char name[32];
  std::snprintf(name, sizeof name, "gfx%u%x%x", major, minor, step);
  return name;
}

Result<std::vector<ModuleDevice>> module_devices(Dialect dialect) {
  const DeviceApi& api = *AI_VMM_TAKE(device_api(dialect));
  int count = 0, version = 0;
  AI_VMM_TRY(failure(api, api.device_count(&count), "counting devices"));
  api.driver_version(&version);
  std::vector<ModuleDevice> devices;
  for (int i = 0; i < count; ++i) {
    ModuleDevice d;
    int device = 0;
    AI_VMM_TRY(failure(api, api.device_get(&device, i), "asking for device " + std::to_string(i)));
    d.ordinal = i;
    char text[256] = "";
    if (api.device_name(text, sizeof text - 1, device) == 0) d.name = text;
    auto pci = api.device_pci(text, sizeof text - 1, device) == 0 ? PciAddress::parse(text) : std::nullopt;
    d.resource = pci ? resource_name(*pci) : std::string(vendor_name(dialect)) + ":" + d.name;
    size_t bytes = 0;
    if (api.device_memory(&bytes, device) == 0) d.memory_bytes = int64_t(bytes);
    d.driver = std::to_string(version);
    if (dialect == Dialect::cuda) {
      d.architecture = "sm_" + api.capability(device);
    } else {
      d.architecture = overridden_architecture();
      for (const AmdNode& n : amd_nodes(Tree("")))
        if (pci && n.pci == *pci && d.architecture.empty()) d.architecture = n.architecture;
    }
    devices.push_back(d);
  }
  return devices;
}

MatrixUnit matrix_unit(Dialect dialect, const std::string& architecture) {
  if (dialect == Dialect::cuda) {
    int capability = 0;
    return std::sscanf(architecture.c_str(), "sm_%d", &capability) == 1 && capability >= 80 ? MatrixUnit::mma
                                                                                            : MatrixUnit::none;
  }
  for (const char* name : {"gfx90a", "gfx940", "gfx941", "gfx942", "gfx950"})
    if (architecture == name) return MatrixUnit::mfma;
  return MatrixUnit::none;
}
Arithmetic allowed_products() {
  auto config = Config::load();
  const std::string text = config.ok() ? config->text("gpu_products") : "f32";
  return text == "tf32"   ? Arithmetic::tf32
         : text == "bf16" ? Arithmetic::bf16
         : text == "f16"  ? Arithmetic::f16
                          : Arithmetic::f32;
}

Result<std::shared_ptr<Driver>> open_module_device(Dialect dialect, const ModuleDevice& device, const AiVmmHost* host) {
  const DeviceApi& api = *AI_VMM_TAKE(device_api(dialect));
  auto compiler = AI_VMM_TAKE(Compiler::load(dialect));
  if (device.architecture.empty())
    return Status(Code::unavailable,
                  "The architecture of " + device.name + " is not known: /sys/class/kfd does not list it.");
  int id = 0;
  AI_VMM_TRY(failure(api, api.device_get(&id, device.ordinal), "asking for " + device.name));
  auto shared = std::make_shared<Shared>(Shared{api, id});
  if (dialect == Dialect::cuda)
    AI_VMM_TRY(failure(api, api.context_retain(&shared->context, id), "opening " + device.name));
  shared->enter();
  AI_VMM_TRY(failure(api, api.stream_create(&shared->memory_stream, DeviceApi::kNonBlocking), "making a stream"));
  // Not every device that has the functions has the memory.
  if (Address a = 0; api.allocate_async && api.free_async && api.allocate_async(&a, 256, shared->memory_stream) == 0)
    shared->pooled = api.free_async(a, shared->memory_stream) == 0;
  // What is given back stays in the pool for the next allocation.
  if (Handle pool = nullptr; api.default_pool && api.pool_set && api.default_pool(&pool, id) == 0) {
    uint64_t keep = UINT64_MAX;
    api.pool_set(pool, DeviceApi::kReleaseThreshold, &keep);
  }
  auto libraries = Libraries::load(dialect);
  Traits t;
  t.dialect = dialect;
  t.identity = device.name + " | " + device.architecture + " | driver " + device.driver + " | " + compiler->version() +
               " | libraries " + libraries->names();
  t.libraries = libraries->names() != "none";
  log(LogLevel::info, "Opened " + t.identity + ".");
  t.f64 = true;
  t.units = std::max(1, api.multiprocessors(id));
  t.max_group = std::max(64, api.max_group(id));
  t.local_bytes = api.shared_bytes(id);
  t.alignment = 256;
  t.memory_bytes = t.max_allocation = device.memory_bytes;
  t.matrix = matrix_unit(dialect, device.architecture);
  t.products = allowed_products();
  return std::shared_ptr<Driver>(std::make_shared<ModuleDriver>(std::move(shared), std::move(t), device.architecture,
                                                                std::move(compiler), std::move(libraries), host));
}

}  // namespace

Result<std::vector<FoundDevice>> find_module_devices(Dialect dialect) {
  std::vector<FoundDevice> found;
  for (const ModuleDevice& d : AI_VMM_TAKE(module_devices(dialect)))
    found.push_back({d.name, d.resource, d.memory_bytes,
                     [d, dialect](const AiVmmHost* host) { return open_module_device(dialect, d, host); }});
  if (found.empty())
    return Status(Code::unavailable,
                  std::string(vendor_name(dialect)) + " is installed and finds no device; `aivmm devices` says why.");
  return found;
}

}  // namespace ai_vmm::gpu
