#include "backends/opencl/driver.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "base/config.hpp"
#include "base/pci.hpp"
#include "gpu/driver_base.hpp"

namespace ai_vmm::opencl {

namespace {

using gpu::MemoryRef;
using gpu::Scalar;
using gpu::Size3;

template <class T>
T device_value(const Api& cl, cl_device_id d, cl_device_info what) {
  T v{};
  cl.clGetDeviceInfo(d, what, sizeof v, &v, nullptr);
  return v;
}
std::string device_text(const Api& cl, cl_device_id d, cl_device_info what) {
  size_t n = 0;
  if (cl.clGetDeviceInfo(d, what, 0, nullptr, &n) != CL_SUCCESS || n == 0) return "";
  std::string s(n, 0);
  cl.clGetDeviceInfo(d, what, n, s.data(), nullptr);
  s.resize(std::strlen(s.c_str()));
  return s;
}

// Owns the objects that outlive calls: buffers may be released after the backend's tables.
struct Shared {
  const Api& cl;
  cl_context context = nullptr;
  cl_device_id device = nullptr;
  explicit Shared(const Api& table) : cl(table) {}
  ~Shared() {
    if (context) cl.clReleaseContext(context);
  }
};

class Buffer : public gpu::Memory {
 public:
  Buffer(std::shared_ptr<Shared> s, cl_mem m, int64_t size, MemoryRef whole = nullptr, void* host = nullptr)
      : Memory(size), mem(m), host_pointer(host), shared_(std::move(s)), whole_(std::move(whole)) {}
  ~Buffer() override { shared_->cl.clReleaseMemObject(mem); }
  void* address() const override { return mem; }
  cl_mem mem;
  void* host_pointer;  // of wrapped memory

 private:
  std::shared_ptr<Shared> shared_;
  MemoryRef whole_;  // a slice keeps what it is part of
};
cl_mem mem_of(const gpu::Memory& m) { return static_cast<const Buffer&>(m).mem; }

class Kernel : public gpu::Call {
 public:
  Kernel(std::shared_ptr<Shared> s, cl_kernel k) : kernel(k), shared_(std::move(s)) {}
  ~Kernel() override { shared_->cl.clReleaseKernel(kernel); }
  Status set(size_t argument, const gpu::Memory& memory) override {
    cl_mem m = mem_of(memory);
    return failure(shared_->cl.clSetKernelArg(kernel, cl_uint(argument), sizeof m, &m), "clSetKernelArg");
  }
  Status set(size_t argument, const Scalar& value) override {
    return std::visit(
        [&](auto v) {
          return failure(shared_->cl.clSetKernelArg(kernel, cl_uint(argument), sizeof v, &v), "clSetKernelArg");
        },
        value);
  }
  cl_kernel kernel;

 private:
  std::shared_ptr<Shared> shared_;
};

class InOrderQueue : public gpu::Queue {
 public:
  InOrderQueue(std::shared_ptr<Shared> s, cl_command_queue q) : shared_(std::move(s)), cl_(shared_->cl), queue_(q) {}
  ~InOrderQueue() override {
    cl_.clFinish(queue_);
    cl_.clReleaseCommandQueue(queue_);
  }
  Status launch(gpu::Call& call, const Size3& global, const Size3& local) override {
    const size_t g[3] = {size_t(global[0]), size_t(global[1]), size_t(global[2])},
                 l[3] = {size_t(local[0]), size_t(local[1]), size_t(local[2])};
    return failure(
        cl_.clEnqueueNDRangeKernel(queue_, static_cast<Kernel&>(call).kernel, 3, nullptr, g, l, 0, nullptr, nullptr),
        "clEnqueueNDRangeKernel");
  }
  Status write(gpu::Memory& to, const void* from, int64_t bytes, int64_t at) override {
    return failure(
        cl_.clEnqueueWriteBuffer(queue_, mem_of(to), CL_TRUE, size_t(at), size_t(bytes), from, 0, nullptr, nullptr),
        "clEnqueueWriteBuffer");
  }
  Status read(const gpu::Memory& from, void* to, int64_t bytes, int64_t at) override {
    // Wrapped memory is where it belongs once it has been mapped.
    if (const auto& b = static_cast<const Buffer&>(from); b.host_pointer == to && at == 0) {
      cl_int code = CL_SUCCESS;
      void* mapped =
          cl_.clEnqueueMapBuffer(queue_, b.mem, CL_TRUE, CL_MAP_READ, 0, size_t(bytes), 0, nullptr, nullptr, &code);
      AI_VMM_TRY(failure(code, "clEnqueueMapBuffer"));
      return failure(cl_.clEnqueueUnmapMemObject(queue_, b.mem, mapped, 0, nullptr, nullptr),
                     "clEnqueueUnmapMemObject");
    }
    return failure(
        cl_.clEnqueueReadBuffer(queue_, mem_of(from), CL_TRUE, size_t(at), size_t(bytes), to, 0, nullptr, nullptr),
        "clEnqueueReadBuffer");
  }
  Status copy(const gpu::Memory& from, gpu::Memory& to, int64_t bytes, int64_t from_at, int64_t to_at) override {
    return failure(cl_.clEnqueueCopyBuffer(queue_, mem_of(from), mem_of(to), size_t(from_at), size_t(to_at),
                                           size_t(bytes), 0, nullptr, nullptr),
                   "clEnqueueCopyBuffer");
  }
  Status finish() override { return failure(cl_.clFinish(queue_), "clFinish"); }

 private:
  std::shared_ptr<Shared> shared_;
  const Api& cl_;
  cl_command_queue queue_;
};

class ClDriver : public gpu::DriverBase {
 public:
  // `keeps_binaries`: the driver of the device keeps what it compiles between processes.
  ClDriver(std::shared_ptr<Shared> s, gpu::Traits traits, const AiVmmHost* host, bool keeps_binaries)
      : DriverBase(std::move(traits), host, kOptions),
        shared_(std::move(s)),
        cl_(shared_->cl),
        keeps_binaries_(keeps_binaries) {}
  ~ClDriver() override {
    for (cl_program p : owned_) cl_.clReleaseProgram(p);
  }

  Result<MemoryRef> allocate(int64_t bytes) override {
    cl_int code = CL_SUCCESS;
    cl_mem_flags flags = CL_MEM_READ_WRITE | (traits().host_memory ? CL_MEM_ALLOC_HOST_PTR : 0);
    cl_mem m = cl_.clCreateBuffer(shared_->context, flags, size_t(std::max<int64_t>(bytes, 1)), nullptr, &code);
    AI_VMM_TRY(failure(code, "clCreateBuffer of " + std::to_string(bytes) + " bytes"));
    return MemoryRef(std::make_shared<Buffer>(shared_, m, bytes));
  }
  Result<MemoryRef> wrap(void* host, int64_t bytes) override {
    cl_int code = CL_SUCCESS;
    cl_mem m =
        cl_.clCreateBuffer(shared_->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, size_t(bytes), host, &code);
    AI_VMM_TRY(failure(code, "clCreateBuffer around " + std::to_string(bytes) + " bytes"));
    return MemoryRef(std::make_shared<Buffer>(shared_, m, bytes, nullptr, host));
  }
  Result<MemoryRef> slice(const MemoryRef& whole, int64_t offset, int64_t bytes) override {
    cl_int code = CL_SUCCESS;
    cl_buffer_region region{size_t(offset), size_t(bytes)};
    cl_mem m = cl_.clCreateSubBuffer(mem_of(*root_of(whole)), CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION,
                                     place(whole, region), &code);
    AI_VMM_TRY(failure(code, "clCreateSubBuffer"));
    auto b = std::make_shared<Slice>(shared_, m, bytes, root_of(whole), int64_t(region.origin));
    return MemoryRef(b);
  }

  Result<std::unique_ptr<gpu::Call>> call(const std::string& kernel) override {
    auto program = static_cast<cl_program>(AI_VMM_TAKE(program_of(kernel)));
    cl_int code = CL_SUCCESS;
    cl_kernel k = cl_.clCreateKernel(program, kernel.c_str(), &code);
    AI_VMM_TRY(failure(code, "clCreateKernel of " + kernel));
    return std::unique_ptr<gpu::Call>(new Kernel(shared_, k));
  }
  Result<std::unique_ptr<gpu::Queue>> queue() override {
    cl_int code = CL_SUCCESS;
    cl_command_queue q = cl_.clCreateCommandQueue(shared_->context, shared_->device, 0, &code);
    AI_VMM_TRY(failure(code, "clCreateCommandQueue"));
    return std::unique_ptr<gpu::Queue>(new InOrderQueue(shared_, q));
  }

 protected:
  Result<Program> program_from_binary(const std::string& binary) override {
    if (keeps_binaries_) return Program(AI_VMM_TAKE(build(binary)));
    cl_int code = CL_SUCCESS, status = CL_SUCCESS;
    const auto* data = reinterpret_cast<const unsigned char*>(binary.data());
    const size_t size = binary.size();
    cl_program p = cl_.clCreateProgramWithBinary(shared_->context, 1, &shared_->device, &size, &data, &status, &code);
    AI_VMM_TRY(failure(code, "clCreateProgramWithBinary"));
    if (status == CL_SUCCESS) status = cl_.clBuildProgram(p, 1, &shared_->device, kOptions, nullptr, nullptr);
    if (status != CL_SUCCESS) {
      cl_.clReleaseProgram(p);
      return failure(status, "clBuildProgram of a binary");
    }
    own(p);
    return Program(p);
  }
  Result<Program> program_from_text(const std::string& text, std::string& binary) override {
    cl_program p = AI_VMM_TAKE(build(text));
    // Asked for a binary, PoCL would compile every kernel once more, for groups of any size; the text is enough to find
    // what it keeps.
    if (keeps_binaries_) {
      binary = text;
      return Program(p);
    }
    size_t size = 0;
    if (cl_.clGetProgramInfo(p, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, nullptr) == CL_SUCCESS && size > 0) {
      binary.resize(size);
      auto* to = reinterpret_cast<unsigned char*>(binary.data());
      if (cl_.clGetProgramInfo(p, CL_PROGRAM_BINARIES, sizeof to, &to, nullptr) != CL_SUCCESS) binary.clear();
    }
    return Program(p);
  }

 private:
  // OpenCL has no slices of slices: a slice knows the buffer it lies in and where.
  class Slice : public Buffer {
   public:
    Slice(std::shared_ptr<Shared> s, cl_mem m, int64_t size, MemoryRef whole, int64_t at)
        : Buffer(std::move(s), m, size, whole), root(std::move(whole)), offset(at) {}
    MemoryRef root;
    int64_t offset;
  };
  static MemoryRef root_of(const MemoryRef& m) {
    auto* s = dynamic_cast<Slice*>(m.get());
    return s ? s->root : m;
  }
  static const cl_buffer_region* place(const MemoryRef& m, cl_buffer_region& region) {
    if (auto* s = dynamic_cast<Slice*>(m.get())) region.origin += size_t(s->offset);
    return &region;
  }

  Result<cl_program> build(const std::string& text) {
    cl_int code = CL_SUCCESS;
    const char* source = text.c_str();
    const size_t length = text.size();
    cl_program p = cl_.clCreateProgramWithSource(shared_->context, 1, &source, &length, &code);
    AI_VMM_TRY(failure(code, "clCreateProgramWithSource"));
    own(p);
    code = cl_.clBuildProgram(p, 1, &shared_->device, kOptions, nullptr, nullptr);
    if (code == CL_SUCCESS) return p;
    size_t n = 0;
    cl_.clGetProgramBuildInfo(p, shared_->device, CL_PROGRAM_BUILD_LOG, 0, nullptr, &n);
    std::string log(n, 0);
    cl_.clGetProgramBuildInfo(p, shared_->device, CL_PROGRAM_BUILD_LOG, n, log.data(), nullptr);
    return Status(Code::internal,
                  "Kernels do not compile on this device (" + std::to_string(code) + "): " + log.substr(0, 800));
  }
  void own(cl_program p) {
    std::lock_guard lock(owned_mutex_);
    owned_.push_back(p);
  }

  // No relaxed arithmetic: subnormals, infinities and NaN are what the operators define.
  static constexpr const char* kOptions = "-cl-std=CL1.2";

  std::shared_ptr<Shared> shared_;
  const Api& cl_;
  bool keeps_binaries_;
  std::mutex owned_mutex_;
  std::vector<cl_program> owned_;
};

}  // namespace

Result<std::vector<DeviceId>> find_devices() {
  const Api* table = AI_VMM_TAKE(api());
  const Api& cl = *table;
  cl_uint count = 0;
  std::vector<DeviceId> found;
  // Without any driver the loader answers with a code of its own.
  if (cl.clGetPlatformIDs(0, nullptr, &count) != CL_SUCCESS || count == 0) return found;
  std::vector<cl_platform_id> platforms(count);
  AI_VMM_TRY(failure(cl.clGetPlatformIDs(count, platforms.data(), nullptr), "clGetPlatformIDs"));
  for (cl_platform_id p : platforms) {
    cl_uint n = 0;
    if (cl.clGetDeviceIDs(p, CL_DEVICE_TYPE_ALL, 0, nullptr, &n) != CL_SUCCESS || n == 0) continue;
    std::vector<cl_device_id> devices(n);
    AI_VMM_TRY(failure(cl.clGetDeviceIDs(p, CL_DEVICE_TYPE_ALL, n, devices.data(), nullptr), "clGetDeviceIDs"));
    char platform[256] = {};
    cl.clGetPlatformInfo(p, CL_PLATFORM_NAME, sizeof platform - 1, platform, nullptr);
    for (cl_device_id d : devices) {
      int major = 0, minor = 0;
      if (std::sscanf(device_text(cl, d, CL_DEVICE_VERSION).c_str(), "OpenCL %d.%d", &major, &minor) != 2 ||
          major * 10 + minor < 12)
        continue;
      if (!device_value<cl_bool>(cl, d, CL_DEVICE_AVAILABLE) ||
          !device_value<cl_bool>(cl, d, CL_DEVICE_COMPILER_AVAILABLE))
        continue;
      DeviceId id{p,
                  d,
                  device_text(cl, d, CL_DEVICE_NAME),
                  platform,
                  device_text(cl, d, CL_DRIVER_VERSION),
                  device_value<cl_device_type>(cl, d, CL_DEVICE_TYPE),
                  int64_t(device_value<cl_ulong>(cl, d, CL_DEVICE_GLOBAL_MEM_SIZE)),
                  ""};
      auto pci = opencl_pci_address([&](uint32_t what, void* value, size_t bytes) {
        size_t needed = 0;
        return cl.clGetDeviceInfo(d, what, bytes, value, &needed) == CL_SUCCESS && needed == bytes;
      });
      id.resource = id.type & CL_DEVICE_TYPE_CPU ? "cpu:0" : pci ? resource_name(*pci) : "opencl:" + id.name;
      found.push_back(std::move(id));
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const DeviceId& a, const DeviceId& b) {
    return (a.type & CL_DEVICE_TYPE_CPU) < (b.type & CL_DEVICE_TYPE_CPU);
  });
  return found;
}

Result<std::shared_ptr<gpu::Driver>> open_driver(const DeviceId& id, const AiVmmHost* host, std::optional<bool> wide) {
  const Api* table = AI_VMM_TAKE(api());
  const Api& cl = *table;
  auto shared = std::make_shared<Shared>(cl);
  shared->device = id.device;
  cl_int code = CL_SUCCESS;
  const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, cl_context_properties(id.platform), 0};
  shared->context = cl.clCreateContext(properties, 1, &id.device, nullptr, nullptr, &code);
  AI_VMM_TRY(failure(code, "clCreateContext on " + id.name));

  gpu::Traits t;
  t.dialect = gpu::Dialect::opencl;
  t.identity = id.platform_name + " | " + id.name + " | " + id.driver;
  auto config = Config::load();
  std::string kernels = config.ok() ? config->text("opencl_kernels") : "auto";
  t.wide = wide.value_or(kernels == "wide" || (kernels == "auto" && id.type & CL_DEVICE_TYPE_CPU));
  t.host_memory = device_value<cl_bool>(cl, id.device, CL_DEVICE_HOST_UNIFIED_MEMORY) &&
                  !(config.ok() && config->text("opencl_memory") == "own");
  t.f64 = (" " + device_text(cl, id.device, CL_DEVICE_EXTENSIONS) + " ").find(" cl_khr_fp64 ") != std::string::npos;
  t.units = std::max<int>(1, int(device_value<cl_uint>(cl, id.device, CL_DEVICE_MAX_COMPUTE_UNITS)));
  t.max_group = int(device_value<size_t>(cl, id.device, CL_DEVICE_MAX_WORK_GROUP_SIZE));
  t.local_bytes = int64_t(device_value<cl_ulong>(cl, id.device, CL_DEVICE_LOCAL_MEM_SIZE));
  t.alignment = std::max<int64_t>(128, device_value<cl_uint>(cl, id.device, CL_DEVICE_MEM_BASE_ADDR_ALIGN) / 8);
  t.memory_bytes = id.memory_bytes;
  t.max_allocation = int64_t(device_value<cl_ulong>(cl, id.device, CL_DEVICE_MAX_MEM_ALLOC_SIZE));
  return std::shared_ptr<gpu::Driver>(
      std::make_shared<ClDriver>(shared, std::move(t), host, id.platform_name == "Portable Computing Language"));
}

}  // namespace ai_vmm::opencl
