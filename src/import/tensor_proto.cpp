#include "import/tensor_proto.hpp"

#include <algorithm>
#include <charconv>
#include <vector>

#include "base/numbers.hpp"
#include "import/onnx.hpp"

namespace ai_vmm {

namespace {

constexpr size_t kMaxRank = 64;
constexpr size_t kCopyUnaligned = 4096;  // bytes; smaller tensors are aligned by a copy

struct Parts {
  Shape dims;
  int64_t dtype = 0;
  std::string_view name;
  Bytes raw;
  bool has_raw = false, external = false, segment = false;
  std::vector<std::pair<std::string, std::string>> external_data;
  // Elements in the typed fields (float_data, int32_data, …), and where they lie when they are one packed list.
  uint32_t data_field = 0;
  uint64_t entries = 0;
  Bytes packed;
  int chunks = 0;
};

Status damaged(std::string_view name, const std::string& what) {
  return Status(Code::data_loss, "The tensor \"" + std::string(name) + "\" is damaged: " + what + ".");
}

Result<Parts> parse(Bytes bytes) {
  Parts t;
  ProtoReader r(bytes);
  bool two_fields = false;
  auto data = [&](uint64_t entries) {
    if (!entries) return;
    two_fields |= t.data_field && t.data_field != r.field();
    t.data_field = r.field();
    t.entries += entries;
    ++t.chunks;
  };
  auto count_varints = [&] {
    uint64_t n = 0;
    r.varints([&](uint64_t) { ++n; });
    data(n);
  };
  auto count_fixed = [&](size_t size) {
    if (r.packed()) t.packed = r.bytes();
    uint64_t n = 0;
    if (size == 4)
      r.fixed<float>([&](float) { ++n; });
    else
      r.fixed<double>([&](double) { ++n; });
    data(n);
  };
  while (r.next()) {
    switch (r.field()) {
      case 1: r.varints([&](uint64_t d) { t.dims.size() <= kMaxRank ? t.dims.push_back(int64_t(d)) : void(); }); break;
      case 2: t.dtype = r.i64(); break;
      case 3: t.segment = true; break;
      case 4: count_fixed(4); break;
      case 5: count_varints(); break;
      case 6:
        r.bytes();
        data(1);
        break;
      case 7: count_varints(); break;
      case 8: t.name = r.text(); break;
      case 9:
        t.raw = r.bytes();
        t.has_raw = true;
        break;
      case 10: count_fixed(8); break;
      case 11: count_varints(); break;
      case 13: {
        ProtoReader e(r.bytes());
        std::string key, value;
        while (e.next()) {
          if (e.field() == 1) key = e.text();
          if (e.field() == 2) value = e.text();
        }
        AI_VMM_TRY(e.status("StringStringEntryProto"));
        t.external_data.emplace_back(std::move(key), std::move(value));
        break;
      }
      case 14: t.external = r.i64() == 1; break;
      default: break;
    }
  }
  AI_VMM_TRY(r.status("TensorProto"));
  if (two_fields) return damaged(t.name, "its elements stand in two fields of different types");
  if (t.segment)
    return damaged(t.name, "it is one segment of several, a form that was never completed; export the model again");
  return t;
}

// The tensor whose bytes are `data`: a view where that is allowed.
Result<Tensor> place(DType dtype, Shape shape, Bytes data, const std::shared_ptr<const void>& owner, bool copy) {
  auto align = size_t(std::max(bits(dtype) / 8, 1));
  if (is_complex(dtype)) align /= 2;
  bool aligned = reinterpret_cast<uintptr_t>(data.data()) % align == 0;
  // A bool that is neither 0 nor 1 must not be viewed.
  bool odd =
      dtype == DType::boolean && std::any_of(data.begin(), data.end(), [](std::byte b) { return b > std::byte{1}; });
  if (!copy && !odd && !data.empty() && (aligned || data.size() >= kCopyUnaligned))
    return Tensor::view(dtype, std::move(shape), data.data(), owner);
  Tensor t = AI_VMM_TAKE(Tensor::make(dtype, std::move(shape)));
  if (!data.empty()) std::memcpy(t.mutable_data(), data.data(), data.size());
  if (odd)
    for (auto p = static_cast<uint8_t*>(t.mutable_data()), end = p + data.size(); p != end; ++p) *p = *p != 0;
  return t;
}

uint32_t typed_field(DType t) {
  switch (t) {
    case DType::f32:
    case DType::c64: return 4;
    case DType::string: return 6;
    case DType::i64: return 7;
    case DType::f64:
    case DType::c128: return 10;
    case DType::u32:
    case DType::u64: return 11;
    default: return 5;
  }
}

Result<uint64_t> number(const Parts& t, const std::string& key, const std::string& text) {
  uint64_t v = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size())
    return damaged(t.name, "the " + key + " of its external data is \"" + text + "\", not a number");
  return v;
}

Result<Tensor> external(const Parts& t, DType dtype, int64_t need, TensorSource& source) {
  std::string location;
  uint64_t offset = 0, length = uint64_t(need);
  for (const auto& [key, value] : t.external_data) {
    if (key == "location") location = value;
    if (key == "offset") offset = AI_VMM_TAKE(number(t, key, value));
    if (key == "length") length = AI_VMM_TAKE(number(t, key, value));
  }
  if (dtype == DType::string) return damaged(t.name, "strings cannot be external data");
  if (length != uint64_t(need))
    return damaged(t.name, "its external data has " + std::to_string(length) + " bytes, its shape " +
                               to_string(t.dims) + " needs " + std::to_string(need));
  if (!source.external)
    return Status(Code::invalid_argument,
                  "The tensor \"" + std::string(t.name) + "\" lies in the file \"" + location +
                      "\", but the model was given as bytes, without a folder; give its path instead.");
  Bytes file;
  auto opened = source.external(location, file);
  if (!opened.ok()) return std::move(opened).status().during("the reading of tensor \"" + std::string(t.name) + "\"");
  if (offset > file.size() || length > file.size() - offset)
    return damaged(t.name, "bytes " + std::to_string(offset) + " to " + std::to_string(offset + length) +
                               " are beyond the end of \"" + location + "\", which has " + std::to_string(file.size()));
  return place(dtype, t.dims, file.subspan(offset, length), *opened, false);
}

// Elements from the typed fields. `entries` has been checked.
Result<Tensor> decode(const Parts& t, DType dtype, Bytes bytes) {
  Tensor out = AI_VMM_TAKE(Tensor::make(dtype, t.dims, true));
  size_t i = 0;
  ProtoReader r(bytes);
  auto* to = static_cast<std::byte*>(out.mutable_data());
  auto put = [&](const auto& v, size_t size) {
    std::memcpy(to + i * size, &v, size);
    ++i;
  };
  auto wide = size_t(std::max(bits(dtype) / 8, 1));
  while (r.next()) {
    if (r.field() != t.data_field) continue;
    switch (t.data_field) {
      case 4: r.fixed<float>([&](float v) { put(v, 4); }); break;
      case 10: r.fixed<double>([&](double v) { put(v, 8); }); break;
      case 6: out.as_mutable<std::string>()[i++] = std::string(r.text()); break;
      default:
        // Low bytes first: 8-bit entries of int32_data also hold several packed 2- or 4-bit elements.
        if (dtype == DType::boolean)
          r.varints([&](uint64_t v) { put(uint8_t(v != 0), 1); });
        else
          r.varints([&](uint64_t v) { put(v, wide); });
    }
  }
  AI_VMM_TRY(r.status("TensorProto"));
  return out;
}

}  // namespace

Result<NamedTensor> read_tensor_proto(Bytes bytes, TensorSource& source) {
  Parts t = AI_VMM_TAKE(parse(bytes));
  if (t.dtype <= 0 || t.dtype >= kDTypeCount)
    return Status(t.dtype == 27 || t.dtype == 28 ? Code::unimplemented : Code::data_loss,
                  "The tensor \"" + std::string(t.name) + "\" has element type " + std::to_string(t.dtype) +
                      ", which this build does not know.");
  auto dtype = DType(t.dtype);
  if (t.dims.size() > kMaxRank)
    return Status(Code::invalid_argument, "The tensor \"" + std::string(t.name) + "\" has more than " +
                                              std::to_string(kMaxRank) + " dimensions.");
  auto count = element_count(t.dims);
  if (!count || *count > (int64_t(1) << 56))
    return damaged(t.name, "its shape " + to_string(t.dims) + " is negative or larger than any memory");
  int64_t need = bytes_for(dtype, *count);

  if (t.external) return NamedTensor{t.name, AI_VMM_TAKE(external(t, dtype, need, source))};
  if (t.has_raw && t.entries && !t.raw.empty()) return damaged(t.name, "it has both raw_data and typed elements");
  if (dtype == DType::string && !t.raw.empty()) return damaged(t.name, "strings cannot be raw_data");
  if (t.has_raw && !t.entries && dtype != DType::string) {
    if (int64_t(t.raw.size()) != need)
      return damaged(t.name, "it has " + std::to_string(t.raw.size()) + " bytes; its shape " + to_string(t.dims) +
                                 " of " + name(dtype) + " needs " + std::to_string(need));
    return NamedTensor{t.name, AI_VMM_TAKE(place(dtype, t.dims, t.raw, source.owner, source.copy))};
  }
  if (t.entries && t.data_field != typed_field(dtype))
    return damaged(t.name, "elements of " + std::string(name(dtype)) + " do not belong into field " +
                               std::to_string(t.data_field));
  auto expected = uint64_t(bits(dtype) > 0 && bits(dtype) < 8 ? need : is_complex(dtype) ? *count * 2 : *count);
  if (t.entries != expected)
    return damaged(t.name, "it has " + std::to_string(t.entries) + " entries; its shape " + to_string(t.dims) + " of " +
                               name(dtype) + " needs " + std::to_string(expected));
  if (t.chunks == 1 && (t.data_field == 4 || t.data_field == 10) && t.packed.size() == size_t(need))
    return NamedTensor{t.name, AI_VMM_TAKE(place(dtype, t.dims, t.packed, source.owner, source.copy))};
  return NamedTensor{t.name, AI_VMM_TAKE(decode(t, dtype, bytes))};
}

Result<NamedTensor> read_sparse_tensor_proto(Bytes bytes, TensorSource& source) {
  Bytes values_bytes, indices_bytes;
  Shape dims;
  ProtoReader r(bytes);
  while (r.next()) {
    if (r.field() == 1) values_bytes = r.bytes();
    if (r.field() == 2) indices_bytes = r.bytes();
    if (r.field() == 3) r.varints([&](uint64_t d) { dims.size() <= kMaxRank ? dims.push_back(int64_t(d)) : void(); });
  }
  AI_VMM_TRY(r.status("SparseTensorProto"));
  NamedTensor values = AI_VMM_TAKE(read_tensor_proto(values_bytes, source));
  std::string_view name = values.name;
  auto count = element_count(dims);
  if (dims.size() > kMaxRank || !count) return damaged(name, "its shape " + to_string(dims) + " is absurd");
  int64_t entries = values.tensor.count();
  DType dtype = values.tensor.dtype();
  if (values.tensor.rank() != 1 || bits(dtype) < 8)
    return damaged(name, "the values of a sparse tensor must be a list of numbers");
  int64_t size = bits(dtype) / 8;
  if (*count > source.sparse_allowance / size)
    return Status(Code::resource_exhausted,
                  "The sparse tensor \"" + std::string(name) + "\" of shape " + to_string(dims) +
                      " would take more memory when dense than a model may use for such tensors.");
  source.sparse_allowance -= *count * size;
  Tensor indices = Tensor::vector<int64_t>({});
  if (!indices_bytes.empty()) {
    NamedTensor read = AI_VMM_TAKE(read_tensor_proto(indices_bytes, source));
    indices = std::move(read.tensor);
  }
  auto rank = int64_t(dims.size());
  bool linear = indices.rank() == 1 && indices.count() == entries;
  bool by_axis = indices.rank() == 2 && indices.dim(0) == entries && indices.dim(1) == rank;
  if (indices.dtype() != DType::i64 || !(linear || by_axis))
    return damaged(name, "the indices of a sparse tensor must be i64 of shape [" + std::to_string(entries) + "] or [" +
                             std::to_string(entries) + "," + std::to_string(rank) + "]");
  Tensor dense = AI_VMM_TAKE(Tensor::make(dtype, dims, true));
  for (int64_t k = 0; k < entries; ++k) {
    int64_t at = 0;
    bool inside = true;
    for (int64_t a = 0; a < (linear ? 1 : rank); ++a) {
      int64_t i = read_int64(DType::i64, indices.data(), linear ? k : k * rank + a),
              n = linear ? *count : dims[size_t(a)];
      inside = inside && i >= 0 && i < n;
      if (inside) at = at * (linear ? 1 : n) + i;
    }
    if (!inside || *count == 0)
      return damaged(name, "entry " + std::to_string(k) + " lies outside the shape " + to_string(dims));
    std::memcpy(static_cast<char*>(dense.mutable_data()) + at * size,
                static_cast<const char*>(values.tensor.data()) + k * size, size_t(size));
  }
  return NamedTensor{name, std::move(dense)};
}

}  // namespace ai_vmm
