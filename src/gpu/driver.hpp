// What a device of OpenCL, CUDA or HIP does for the programs of this layer: memory, kernels from text, ordered queues.
// Failures carry codes that the plugin interface understands: resource_exhausted (no device memory), unavailable (the
// device is lost).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "ai_vmm/types.hpp"
#include "gpu/dialect.hpp"

namespace ai_vmm::gpu {

// Units that multiply small matrices: mma of NVIDIA's warps of 32 lanes, mfma of AMD's waves of 64.
enum class MatrixUnit : uint8_t { none, mma, mfma };
// What the factors of a product are rounded to. tf32 has the range of float32 and 10 bits of fraction.
enum class Arithmetic : uint8_t { f32, tf32, bf16, f16 };

// What kernels are chosen by.
struct Traits {
  Dialect dialect = Dialect::opencl;
  std::string identity;      // device and driver: measured choices and binaries belong to it
  bool wide = false;         // a work item is a core with wide registers (CPUs); otherwise one lane of many
  bool host_memory = false;  // the device reads and writes the host's memory in place
  bool f64 = false;
  MatrixUnit matrix = MatrixUnit::none;
  Arithmetic products = Arithmetic::f32;  // the least that products of float32 may be computed in
  bool libraries = false;                 // Driver::library_call may have answers
  int units = 1;                          // cores or multiprocessors
  int max_group = 256;                    // work items
  int64_t local_bytes = 0;                // of group memory
  int64_t alignment = 128;                // of a slice
  int64_t memory_bytes = 0, max_allocation = INT64_MAX;
  int vector() const { return wide ? 16 : 1; }  // floats that one work item computes on at once
};

class Memory {
 public:
  explicit Memory(int64_t size) : bytes(size) {}
  virtual ~Memory() = default;
  virtual void* address() const = 0;  // the vendor's: a pointer of the device, or a handle
  const int64_t bytes;
};
using MemoryRef = std::shared_ptr<Memory>;

using Size3 = std::array<int64_t, 3>;
using Scalar = std::variant<int32_t, int64_t, float, double>;

// A kernel with its arguments. Used by one queue at a time.
class Call {
 public:
  virtual ~Call() = default;
  virtual Status set(size_t argument, const Memory& memory) = 0;
  virtual Status set(size_t argument, const Scalar& value) = 0;
};

// Launches noted once, to be done again as one.
class Recording {
 public:
  virtual ~Recording() = default;
};

// Runs what it is given in order.
class Queue {
 public:
  virtual ~Queue() = default;
  // `global` counts work items, a multiple of `local` in each direction.
  virtual Status launch(Call& call, const Size3& global, const Size3& local) = 0;
  // Each from byte `at` of the device's memory on. write returns when `from` may be reused, read waits for the bytes.
  virtual Status write(Memory& to, const void* from, int64_t bytes, int64_t at = 0) = 0;
  virtual Status read(const Memory& from, void* to, int64_t bytes, int64_t at = 0) = 0;
  virtual Status copy(const Memory& from, Memory& to, int64_t bytes, int64_t from_at = 0, int64_t to_at = 0) = 0;
  virtual Status finish() = 0;

  // Launches between begin_recording and end_recording are noted and not done. Nothing else may be asked in between.
  virtual bool records() const { return false; }
  virtual Status begin_recording() { return Status(Code::unimplemented, "The queue records nothing."); }
  virtual Result<std::unique_ptr<Recording>> end_recording() {
    return Status(Code::unimplemented, "The queue records nothing.");
  }
  virtual Status replay(Recording&) { return Status(Code::unimplemented, "The queue records nothing."); }
};

struct Source {  // of one kernel
  std::string name, text;
};

// Work that a vendor's library may do. Addresses: the two operands, the result, kLibraryWorkspace bytes of scratch
// memory.
constexpr int64_t kLibraryWorkspace = int64_t(32) << 20;

// C[batch, m, n] = alpha · Σk A[batch, m, k] · B[batch, k, n], by strides in elements; C is dense. Sums are of float32,
// the result is of `type`.
struct LibraryProduct {
  DType type;
  Arithmetic arithmetic;
  float alpha;
  int64_t m, n, k, am, ak, bk, bn, batches, a_batch, b_batch;
};
// Dense pictures and weights, channels first.
struct LibraryConvolution {
  DType type;
  Arithmetic arithmetic;
  int64_t n, c, o, groups, h, w, oh, ow, kh, kw, sh, sw, dh, dw, top, left;
};
using LibraryTask = std::variant<LibraryProduct, LibraryConvolution>;

class Driver {
 public:
  virtual ~Driver() = default;
  virtual const Traits& traits() const = 0;
  virtual Result<MemoryRef> allocate(int64_t bytes) = 0;
  // The host's memory as the device's; only with Traits::host_memory. What the device wrote is there after a
  // Queue::read of it into itself.
  virtual Result<MemoryRef> wrap(void* host, int64_t bytes) = 0;
  // A part of `whole`; `offset` is a multiple of Traits::alignment.
  virtual Result<MemoryRef> slice(const MemoryRef& whole, int64_t offset, int64_t bytes) = 0;
  // Compiles those kernels that are not loaded yet, as one program; binaries are kept between processes.
  virtual Status load(std::span<const Source> kernels) = 0;
  virtual Result<std::unique_ptr<Call>> call(const std::string& kernel) = 0;
  // unimplemented: no library does this.
  virtual Result<std::unique_ptr<Call>> library_call(const LibraryTask&) {
    return Status(Code::unimplemented, "There is no library for this device.");
  }
  virtual Result<std::unique_ptr<Queue>> queue() = 0;
  virtual int64_t compilations() const = 0;
  // Measured choices kept between processes; "" when there is none.
  virtual std::string remembered(const std::string& key) = 0;
  virtual void remember(const std::string& key, const std::string& value) = 0;
};

}  // namespace ai_vmm::gpu
