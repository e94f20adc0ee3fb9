// The vocabulary every part of AI VMM speaks: Status, Result, DType, Shape, Tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace ai_vmm {

// ---------------------------------------------------------------- Status

// Numbers are those of gRPC, so that they cross process and plugin edges by a cast.
enum class Code : int32_t {
  ok = 0,
  cancelled = 1,
  unknown = 2,
  invalid_argument = 3,  // the caller gave something that cannot be right
  deadline_exceeded = 4,
  not_found = 5,
  already_exists = 6,
  permission_denied = 7,
  resource_exhausted = 8,  // memory limit, disk, handles
  failed_precondition = 9,
  aborted = 10,
  out_of_range = 11,
  unimplemented = 12,  // valid, but no part of this build can do it
  internal = 13,       // our own bug, found at an edge where a CHECK would kill the host
  unavailable = 14,
  data_loss = 15,  // a file or a message is damaged
  unauthenticated = 16,
};

const char* name(Code code);

// What a failure says of the device it happened on. Numbers are those of AiVmmDeviceState.
enum class DeviceState : int32_t {
  ok = 0,               // nothing: the request is at fault, or the host
  busy = 1,             // the same call may succeed a little later
  out_of_memory = 2,    // the device's own memory, not a limit that the caller set
  lost = 3,             // every handle of the device is dead; opening it anew may help
  driver_mismatch = 4,  // no call will succeed before something is installed
};

const char* name(DeviceState state);

// Why something failed: a sentence that names the value and the way out.
struct Fault {
  Code code;
  std::string text;
  const char* file;
  int line;
  DeviceState device = DeviceState::ok;
  uint32_t retry_after_ms = 0;  // 0: no advice
};

// Success (one null pointer) or a Fault. A moved-from Status reads as success: never test one after moving it.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string text, const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : fault_(new Fault{code, std::move(text), file, line}) {}
  bool ok() const { return fault_ == nullptr; }
  const Fault* fault() const { return fault_.get(); }
  Code code() const { return fault_ ? fault_->code : Code::ok; }
  const std::string& message() const {  // "" when ok
    static const std::string empty;
    return fault_ ? fault_->text : empty;  // NOLINT(clang-analyzer-core.uninitialized.UndefReturn): never null
  }
  // Appends what the caller was doing: "…, during <step>."
  Status during(std::string_view step) && {
    if (fault_) {
      if (!fault_->text.empty() && fault_->text.back() == '.') fault_->text.pop_back();
      fault_->text.append(", during ").append(step).append(".");
    }
    return std::move(*this);
  }
  // Marks a failure as one of a device.
  Status on_device(DeviceState state, uint32_t retry_after_ms = 0) && {
    if (fault_) {
      fault_->device = state;
      fault_->retry_after_ms = retry_after_ms;
    }
    return std::move(*this);
  }
  DeviceState device_state() const { return fault_ ? fault_->device : DeviceState::ok; }
  Status copy() const {
    Status s;
    if (fault_) s.fault_ = std::make_unique<Fault>(*fault_);
    return s;
  }

 private:
  std::unique_ptr<Fault> fault_;
};

// A value, or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: must be a failure
  bool ok() const { return value_.has_value(); }
  const Fault* fault() const { return status_.fault(); }
  const Status& status() const& { return status_; }
  Status&& status() && { return std::move(status_); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

// Return the failure of `expr` to the caller; go on when it succeeded.
#define AI_VMM_TRY(expr)                                                                                         \
  do {                                                                                                           \
    if (::ai_vmm::Status ai_vmm_s_ = (expr); !ai_vmm_s_.ok()) return static_cast<::ai_vmm::Status&&>(ai_vmm_s_); \
  } while (0)

// `auto v = AI_VMM_TAKE(result);`: the value, or return the failure. Not beside an owning temporary: gcc leaks it.
#define AI_VMM_TAKE(expr)                                      \
  __extension__({                                              \
    auto ai_vmm_r_ = (expr);                                   \
    if (!ai_vmm_r_.ok()) return std::move(ai_vmm_r_).status(); \
    *std::move(ai_vmm_r_);                                     \
  })

// ---------------------------------------------------------------- element types

// Numbers are those of ONNX TensorProto.DataType.
enum class DType : uint8_t {
  undefined = 0,
  f32 = 1,
  u8 = 2,
  i8 = 3,
  u16 = 4,
  i16 = 5,
  i32 = 6,
  i64 = 7,
  string = 8,
  boolean = 9,
  f16 = 10,
  f64 = 11,
  u32 = 12,
  u64 = 13,
  c64 = 14,
  c128 = 15,
  bf16 = 16,
  f8e4m3fn = 17,
  f8e4m3fnuz = 18,
  f8e5m2 = 19,
  f8e5m2fnuz = 20,
  u4 = 21,
  i4 = 22,
  f4e2m1 = 23,
  f8e8m0 = 24,
  u2 = 25,
  i2 = 26,
};
inline constexpr int kDTypeCount = 27;

const char* name(DType type);  // "f32"; "undefined" for an unknown number
std::optional<DType> dtype_from_name(
    std::string_view name);  // also ONNX's and NumPy's names: "float", "float32", "int64"
int bits(DType type);        // bits of one element; 0 for string and undefined
inline int64_t bytes_for(DType type, int64_t count) { return (count * bits(type) + 7) / 8; }  // packed; strings: 0
bool is_float(DType type);    // f16, bf16, f32, f64 and the 8- and 4-bit float kinds
bool is_integer(DType type);  // signed and unsigned, 2 to 64 bits; not boolean
bool is_signed_integer(DType type);
bool is_complex(DType type);

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<uint8_t>() {
  return DType::u8;
}
template <>
constexpr DType dtype_of<int8_t>() {
  return DType::i8;
}
template <>
constexpr DType dtype_of<uint16_t>() {
  return DType::u16;
}
template <>
constexpr DType dtype_of<int16_t>() {
  return DType::i16;
}
template <>
constexpr DType dtype_of<uint32_t>() {
  return DType::u32;
}
template <>
constexpr DType dtype_of<int32_t>() {
  return DType::i32;
}
template <>
constexpr DType dtype_of<uint64_t>() {
  return DType::u64;
}
template <>
constexpr DType dtype_of<int64_t>() {
  return DType::i64;
}
template <>
constexpr DType dtype_of<bool>() {
  return DType::boolean;
}
template <>
constexpr DType dtype_of<std::string>() {
  return DType::string;
}

// ---------------------------------------------------------------- Shape

using Shape = std::vector<int64_t>;  // row-major, outermost first; a scalar has rank 0

// Product of the dimensions; nullopt when one is negative or the product overflows int64.
std::optional<int64_t> element_count(std::span<const int64_t> shape);
std::string to_string(std::span<const int64_t> shape);  // "[2,3]"

// ---------------------------------------------------------------- Tensor

// Counts the bytes of live tensors against a limit. Shared by everything one run allocates.
class MemoryBudget;

// A dense row-major array. Copying a Tensor shares its storage; `clone` copies it.
// Sub-byte types are packed, first element in the low bits, as ONNX does. Strings are std::string objects.
// A default-made Tensor (dtype undefined) stands for an absent optional input.
class Tensor {
 public:
  Tensor() = default;

  // New zeroed-or-uninitialised storage (`zero`), 64-byte aligned, charged to the current MemoryBudget.
  // Fails with resource_exhausted (limit, or the machine) or invalid_argument (absurd shape).
  static Result<Tensor> make(DType dtype, Shape shape, bool zero = false);

  // A view of memory that belongs to someone else; `owner`, if given, is kept alive as long as the view.
  static Tensor view(DType dtype, Shape shape, const void* data, std::shared_ptr<const void> owner = {});

  // From values, for tests and small constants. CHECKs that the count fits the shape.
  template <class T>
  static Tensor of(Shape shape, const std::vector<T>& values);
  template <class T>
  static Tensor scalar(T value) {
    return of<T>({}, std::vector<T>{value});
  }
  template <class T>
  static Tensor vector(const std::vector<T>& values) {
    return of<T>({static_cast<int64_t>(values.size())}, values);
  }

  explicit operator bool() const { return dtype_ != DType::undefined; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t rank() const { return static_cast<int64_t>(shape_.size()); }
  int64_t dim(int64_t axis) const { return shape_[static_cast<size_t>(axis)]; }
  int64_t count() const { return count_; }
  int64_t bytes() const {
    return dtype_ == DType::string ? count_ * int64_t(sizeof(std::string)) : bytes_for(dtype_, count_);
  }

  // Memory that `make` gave is 64-byte aligned. A view starts where its owner's bytes lie: weights of a mapped model
  // file may start at any byte, so code that is given constants must load them with instructions that take any address
  // (all compiled loads do on x86-64 and AArch64; intrinsics: loadu), or copy them first.
  const void* data() const { return data_; }
  void* mutable_data() { return const_cast<void*>(data_); }  // the caller must know that the storage may be written

  // Elements as T. CHECKs that T fits the dtype (uint16_t reads f16 and bf16, uint8_t any 8-bit or packed type).
  template <class T>
  std::span<const T> as() const;
  template <class T>
  std::span<T> as_mutable();

  Result<Tensor> clone() const;
  Tensor reshaped(Shape shape) const;  // shares storage; CHECKs that the count is unchanged
  bool owns_memory() const { return owner_ != nullptr; }
  const std::shared_ptr<const void>& owner() const { return owner_; }

 private:
  void check_element(size_t size, bool is_string) const;

  DType dtype_ = DType::undefined;
  Shape shape_;
  int64_t count_ = 0;
  const void* data_ = nullptr;
  std::shared_ptr<const void> owner_;
};

bool identical(const Tensor& a, const Tensor& b);  // same dtype, shape and bits

// ---------------------------------------------------------------- Data

struct Data;
using Sequence = std::vector<Data>;
struct MapData {  // a map of ai.onnx.ml: two vectors of equal length
  Tensor keys, values;
};

// What a model takes and gives: nothing (an absent input, an empty optional), a tensor, a sequence or a map.
// An optional that holds something is that thing. Copies share storage; sequences are immutable once shared.
struct Data : std::variant<std::monostate, Tensor, std::shared_ptr<Sequence>, std::shared_ptr<MapData>> {
  using variant::variant;
  bool empty() const { return index() == 0; }
  bool is_tensor() const { return index() == 1; }
  bool is_sequence() const { return index() == 2; }
  bool is_map() const { return index() == 3; }
  const Tensor& tensor() const;      // CHECKs that it is one
  const Sequence& sequence() const;  // likewise
  const MapData& map() const;        // likewise
};

// ---------------------------------------------------------------- implementation of templates

template <class T>
std::span<const T> Tensor::as() const {
  check_element(sizeof(T), std::is_same_v<T, std::string>);
  size_t n = static_cast<size_t>(dtype_ != DType::string && bits(dtype_) < 8 ? bytes() : count_);
  return {static_cast<const T*>(data_), n};
}

template <class T>
std::span<T> Tensor::as_mutable() {
  auto s = as<T>();
  return {const_cast<T*>(s.data()), s.size()};
}

namespace detail {
[[noreturn]] void tensor_of_mismatch(size_t values, std::span<const int64_t> shape);
[[noreturn]] void tensor_of_failed(const Status& status);
}  // namespace detail

template <class T>
Tensor Tensor::of(Shape shape, const std::vector<T>& values) {
  if (element_count(shape) != static_cast<int64_t>(values.size())) detail::tensor_of_mismatch(values.size(), shape);
  auto made = make(dtype_of<T>(), std::move(shape));
  if (!made.ok()) detail::tensor_of_failed(made.status());
  T* out = static_cast<T*>((*made).mutable_data());
  for (size_t i = 0; i < values.size(); ++i) out[i] = values[i];  // vector<bool> has no data()
  return *std::move(made);
}

}  // namespace ai_vmm
