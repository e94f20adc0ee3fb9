#include "ai_vmm/types.hpp"

#include <sys/mman.h>

#include <array>
#include <cstdlib>
#include <new>

#include "base/check.hpp"
#include "base/memory_budget.hpp"

namespace ai_vmm {

const char* name(Code code) {
  static constexpr const char* kNames[] = {
      "ok",        "cancelled",      "unknown",           "invalid argument",   "deadline exceeded",
      "not found", "already exists", "permission denied", "resource exhausted", "failed precondition",
      "aborted",   "out of range",   "unimplemented",     "internal",           "unavailable",
      "data loss", "unauthenticated"};
  auto i = static_cast<size_t>(code);
  return i < std::size(kNames) ? kNames[i] : "unknown";
}

namespace {
struct DTypeFacts {
  const char* name;
  const char* onnx;   // as in TensorProto.DataType, lower case, also the text form of ONNX's own tools
  const char* numpy;  // NumPy's or ml_dtypes' name
  int bits;
};
constexpr std::array<DTypeFacts, kDTypeCount> kFacts = {{
    {"undefined", "undefined", "undefined", 0},
    {"f32", "float", "float32", 32},
    {"u8", "uint8", "uint8", 8},
    {"i8", "int8", "int8", 8},
    {"u16", "uint16", "uint16", 16},
    {"i16", "int16", "int16", 16},
    {"i32", "int32", "int32", 32},
    {"i64", "int64", "int64", 64},
    {"string", "string", "object", 0},
    {"bool", "bool", "bool", 8},
    {"f16", "float16", "float16", 16},
    {"f64", "double", "float64", 64},
    {"u32", "uint32", "uint32", 32},
    {"u64", "uint64", "uint64", 64},
    {"c64", "complex64", "complex64", 64},
    {"c128", "complex128", "complex128", 128},
    {"bf16", "bfloat16", "bfloat16", 16},
    {"f8e4m3fn", "float8e4m3fn", "float8_e4m3fn", 8},
    {"f8e4m3fnuz", "float8e4m3fnuz", "float8_e4m3fnuz", 8},
    {"f8e5m2", "float8e5m2", "float8_e5m2", 8},
    {"f8e5m2fnuz", "float8e5m2fnuz", "float8_e5m2fnuz", 8},
    {"u4", "uint4", "uint4", 4},
    {"i4", "int4", "int4", 4},
    {"f4e2m1", "float4e2m1", "float4_e2m1fn", 4},
    {"f8e8m0", "float8e8m0", "float8_e8m0fnu", 8},
    {"u2", "uint2", "uint2", 2},
    {"i2", "int2", "int2", 2},
}};
const DTypeFacts& facts(DType type) {
  auto i = static_cast<size_t>(type);
  return kFacts[i < kFacts.size() ? i : 0];
}
}  // namespace

const char* name(DeviceState state) {
  static constexpr const char* kNames[] = {"ok", "busy", "out of memory", "lost", "driver mismatch"};
  auto i = static_cast<size_t>(state);
  return i < std::size(kNames) ? kNames[i] : "unknown state";
}

const char* name(DType type) { return facts(type).name; }
int bits(DType type) { return facts(type).bits; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (size_t i = 1; i < kFacts.size(); ++i)
    if (name == kFacts[i].name || name == kFacts[i].onnx || name == kFacts[i].numpy) return static_cast<DType>(i);
  return std::nullopt;
}

bool is_float(DType t) {
  switch (t) {
    case DType::f32:
    case DType::f64:
    case DType::f16:
    case DType::bf16:
    case DType::f8e4m3fn:
    case DType::f8e4m3fnuz:
    case DType::f8e5m2:
    case DType::f8e5m2fnuz:
    case DType::f8e8m0:
    case DType::f4e2m1: return true;
    default: return false;
  }
}
bool is_signed_integer(DType t) {
  return t == DType::i2 || t == DType::i4 || t == DType::i8 || t == DType::i16 || t == DType::i32 || t == DType::i64;
}
bool is_integer(DType t) {
  return is_signed_integer(t) || t == DType::u2 || t == DType::u4 || t == DType::u8 || t == DType::u16 ||
         t == DType::u32 || t == DType::u64;
}
bool is_complex(DType t) { return t == DType::c64 || t == DType::c128; }

std::optional<int64_t> element_count(std::span<const int64_t> shape) {
  int64_t n = 1;
  bool zero = false;
  for (int64_t d : shape) {
    if (d < 0) return std::nullopt;
    if (d == 0) {
      zero = true;
      continue;
    }
    if (__builtin_mul_overflow(n, d, &n)) return std::nullopt;
  }
  return zero ? 0 : n;
}

std::string to_string(std::span<const int64_t> shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? "," : "") + std::to_string(shape[i]);
  return s + "]";
}

namespace {
// One allocation: the bytes, and what must be undone when the last Tensor that shares them goes.
struct Storage {
  void* data = nullptr;
  int64_t bytes = 0;
  int64_t strings = 0;
  std::shared_ptr<MemoryBudget> budget;
  ~Storage() {
    if (strings) std::destroy_n(static_cast<std::string*>(data), static_cast<size_t>(strings));
    std::free(data);
    if (budget) budget->release(bytes);
  }
};
}  // namespace

Result<Tensor> Tensor::make(DType dtype, Shape shape, bool zero) {
  auto count = element_count(shape);
  int64_t bytes = 0;
  int64_t size_bits = dtype == DType::string ? int64_t(sizeof(std::string)) * 8 : bits(dtype);
  AI_VMM_CHECK(size_bits > 0, "tensor of undefined element type");
  if (!count || __builtin_mul_overflow(*count, size_bits, &bytes) || bytes > (int64_t(1) << 62))
    return Status(Code::resource_exhausted, "A tensor of shape " + to_string(shape) + " and type " + name(dtype) +
                                                " is larger than any memory; check the shape.");
  bytes = (bytes + 7) / 8;
  auto storage = std::make_shared<Storage>();
  if (const auto& budget = MemoryBudget::current()) {
    AI_VMM_TRY(budget->charge(bytes));
    storage->budget = budget;
    storage->bytes = bytes;
  }
  size_t padded = (static_cast<size_t>(bytes) + 127) / 64 * 64;  // room for vector loads past the end
  if (padded >= (size_t(64) << 20)) {
    storage->data = std::aligned_alloc(size_t(2) << 20, (padded + (size_t(2) << 20) - 1) >> 21 << 21);
    if (storage->data) madvise(storage->data, padded, MADV_HUGEPAGE);
  } else {
    storage->data = std::aligned_alloc(64, padded);
  }
  if (!storage->data)
    return Status(Code::resource_exhausted,
                  "The machine has no memory for a tensor of " + std::to_string(bytes) + " bytes.");
  if (dtype == DType::string) {
    std::uninitialized_value_construct_n(static_cast<std::string*>(storage->data), static_cast<size_t>(*count));
    storage->strings = *count;
  } else if (zero) {
    std::memset(storage->data, 0, static_cast<size_t>(bytes));
  } else if (bits(dtype) < 8 && bytes > 0) {
    static_cast<uint8_t*>(storage->data)[bytes - 1] = 0;  // unused bits of the last byte compare equal
  }
  Tensor t;
  t.dtype_ = dtype;
  t.shape_ = std::move(shape);
  t.count_ = *count;
  t.data_ = storage->data;
  t.owner_ = std::move(storage);
  return t;
}

Tensor Tensor::view(DType dtype, Shape shape, const void* data, std::shared_ptr<const void> owner) {
  Tensor t;
  auto count = element_count(shape);
  AI_VMM_CHECK(count, "view of shape " + to_string(shape));
  t.dtype_ = dtype;
  t.shape_ = std::move(shape);
  t.count_ = *count;
  t.data_ = data;
  t.owner_ = std::move(owner);
  return t;
}

Result<Tensor> Tensor::clone() const {
  auto copy = make(dtype_, shape_);
  if (!copy.ok()) return copy;
  if (dtype_ == DType::string) {
    auto from = as<std::string>();
    auto to = copy->as_mutable<std::string>();
    for (size_t i = 0; i < from.size(); ++i) to[i] = from[i];
  } else if (count_) {
    std::memcpy(copy->mutable_data(), data_, static_cast<size_t>(bytes()));
  }
  return copy;
}

Tensor Tensor::reshaped(Shape shape) const {
  AI_VMM_CHECK(element_count(shape) == count_, to_string(shape_) + " reshaped to " + to_string(shape));
  Tensor t = *this;
  t.shape_ = std::move(shape);
  return t;
}

void Tensor::check_element(size_t size, bool is_string) const {
  bool fits = is_string
                  ? dtype_ == DType::string
                  : dtype_ != DType::string && (int(size) * 8 == bits(dtype_) || (bits(dtype_) < 8 && size == 1) ||
                                                (is_complex(dtype_) && int(size) * 16 == bits(dtype_)) || count_ == 0);
  AI_VMM_CHECK(fits,
               std::string("a tensor of ") + name(dtype_) + " read as elements of " + std::to_string(size) + " bytes");
}

bool identical(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape()) return false;
  if (a.dtype() == DType::string) {
    auto x = a.as<std::string>(), y = b.as<std::string>();
    return std::equal(x.begin(), x.end(), y.begin());
  }
  return a.bytes() == 0 || std::memcmp(a.data(), b.data(), static_cast<size_t>(a.bytes())) == 0;
}

const Tensor& Data::tensor() const {
  AI_VMM_CHECK(is_tensor(), "a value is not a tensor");
  return std::get<Tensor>(*this);
}
const Sequence& Data::sequence() const {
  AI_VMM_CHECK(is_sequence(), "a value is not a sequence");
  return *std::get<std::shared_ptr<Sequence>>(*this);
}
const MapData& Data::map() const {
  AI_VMM_CHECK(index() == 3, "a value is not a map");
  return *std::get<std::shared_ptr<MapData>>(*this);
}

namespace detail {
void tensor_of_mismatch(size_t values, std::span<const int64_t> shape) {
  check_failed(__FILE__, __LINE__, "Tensor::of", std::to_string(values) + " values for shape " + to_string(shape));
}
void tensor_of_failed(const Status& status) { check_failed(__FILE__, __LINE__, "Tensor::of", status.message()); }
}  // namespace detail

}  // namespace ai_vmm
