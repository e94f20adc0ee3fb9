// Test data: serialized tensors, sequences, optionals and maps, read and written.
#include <algorithm>

#include "base/proto.hpp"
#include "import/onnx.hpp"
#include "import/tensor_proto.hpp"

namespace ai_vmm {

namespace {

constexpr int kMaxDepth = 64;

// SequenceProto.DataType and OptionalProto.DataType
enum ElementKind : int64_t { kUndefined = 0, kTensor = 1, kSparse = 2, kSequence = 3, kMap = 4, kOptional = 5 };

struct DataReader {
  TensorSource source{.owner = {}, .copy = true, .external = {}};
  int depth = 0;

  Result<Data> nested(ElementKind kind, Bytes bytes) {
    if (++depth > kMaxDepth)
      return Status(Code::invalid_argument,
                    "The data is nested more than " + std::to_string(kMaxDepth) + " levels deep.");
    auto result = read(kind, bytes);
    --depth;
    return result;
  }

  Result<Data> read(ElementKind kind, Bytes bytes) {
    switch (kind) {
      case kTensor: {
        NamedTensor t = AI_VMM_TAKE(read_tensor_proto(bytes, source));
        return Data(std::move(t.tensor));
      }
      case kSparse: {
        NamedTensor t = AI_VMM_TAKE(read_sparse_tensor_proto(bytes, source));
        return Data(std::move(t.tensor));
      }
      case kSequence: return sequence(bytes);
      case kMap: return map(bytes);
      case kOptional: return optional(bytes);
      case kUndefined: break;
    }
    return Data();
  }

  Result<Data> sequence(Bytes bytes) {
    // Elements of the kind that elem_type names stand in field kind + 2.
    auto list = std::make_shared<Sequence>();
    uint32_t field = 0;
    ProtoReader r(bytes);
    while (r.next()) {
      if (r.field() < 3 || r.field() > 7) continue;
      if (field && field != r.field())
        return Status(Code::data_loss, "A sequence holds elements of different kinds; the file is damaged.");
      field = r.field();
      list->push_back(AI_VMM_TAKE(nested(ElementKind(field - 2), r.bytes())));
    }
    AI_VMM_TRY(r.status("SequenceProto"));
    return Data(std::move(list));
  }

  Result<Data> optional(Bytes bytes) {
    Data value;
    ProtoReader r(bytes);
    while (r.next()) {
      switch (r.field()) {
        case 3:
        case 4: value = AI_VMM_TAKE(nested(ElementKind(r.field() - 2), r.bytes())); break;
        case 5: value = AI_VMM_TAKE(nested(kSequence, r.bytes())); break;
        case 6: value = AI_VMM_TAKE(nested(kMap, r.bytes())); break;
        case 7: value = AI_VMM_TAKE(nested(kOptional, r.bytes())); break;
        default: break;
      }
    }
    AI_VMM_TRY(r.status("OptionalProto"));
    return value;
  }

  Result<Data> map(Bytes bytes) {
    std::vector<int64_t> keys;
    std::vector<std::string> string_keys;
    DType key_type = DType::i64;
    Data values;
    ProtoReader r(bytes);
    while (r.next()) {
      switch (r.field()) {
        case 2:
          if (int64_t k = r.i64(); k > 0 && k < kDTypeCount) key_type = DType(k);
          break;
        case 3: r.varints([&](uint64_t k) { keys.push_back(int64_t(k)); }); break;
        case 4: string_keys.emplace_back(r.text()); break;
        case 5: values = AI_VMM_TAKE(nested(kSequence, r.bytes())); break;
        default: break;
      }
    }
    AI_VMM_TRY(r.status("MapProto"));
    auto m = std::make_shared<MapData>();
    auto count = int64_t(key_type == DType::string ? string_keys.size() : keys.size());
    if (key_type == DType::string) {
      m->keys = Tensor::vector(string_keys);
    } else if (key_type == DType::i64) {
      m->keys = Tensor::vector(keys);
    } else {
      return Status(Code::unimplemented, std::string("A map with keys of type ") + name(key_type) +
                                             " is not supported; i64 and string are.");
    }
    // The values are a sequence of one-element tensors, or one tensor of them all.
    Sequence parts = values.is_sequence() ? values.sequence() : Sequence();
    int64_t found = 0;
    for (const Data& p : parts) {
      if (!p.is_tensor() || p.tensor().dtype() != parts[0].tensor().dtype())
        return Status(Code::unimplemented, "The values of a map are not numbers or strings of one type.");
      found += p.tensor().count();
    }
    if (found != count)
      return Status(Code::data_loss,
                    "A map has " + std::to_string(count) + " keys and " + std::to_string(found) + " values.");
    DType value_type = parts.empty() ? DType::f32 : parts[0].tensor().dtype();
    if (bits(value_type) > 0 && bits(value_type) < 8)
      return Status(Code::unimplemented, "A map with packed values is not supported.");
    m->values = AI_VMM_TAKE(Tensor::make(value_type, {count}));
    int64_t at = 0;
    for (const Data& p : parts) {
      const Tensor& t = p.tensor();
      if (value_type == DType::string) {
        auto from = t.as<std::string>();
        std::copy(from.begin(), from.end(), m->values.as_mutable<std::string>().begin() + at);
      } else if (t.count()) {
        int64_t size = bits(value_type) / 8;
        std::memcpy(static_cast<char*>(m->values.mutable_data()) + at * size, t.data(), size_t(t.bytes()));
      }
      at += t.count();
    }
    return Data(std::move(m));
  }
};

std::string tensor_message(const Tensor& t, std::string_view name) {
  ProtoWriter w;
  for (int64_t d : t.shape()) w.varint(1, uint64_t(d));
  w.varint(2, uint64_t(t.dtype()));
  if (t.dtype() == DType::string) {
    for (const std::string& s : t.as<std::string>()) w.bytes(6, s);
  } else {
    w.bytes(9, {static_cast<const char*>(t.data()), size_t(t.bytes())});
  }
  if (!name.empty()) w.bytes(8, name);
  return w.take();
}

ElementKind kind_of(const Data& d) {
  return d.empty() ? kUndefined : d.is_tensor() ? kTensor : d.is_sequence() ? kSequence : kMap;
}

std::string message(const Data& data, std::string_view name);

std::string sequence_message(const Sequence& list, std::string_view name) {
  ProtoWriter w;
  if (!name.empty()) w.bytes(1, name);
  // A list that holds nothing somewhere is one of optionals.
  bool optionals = std::any_of(list.begin(), list.end(), [](const Data& d) { return d.empty(); });
  ElementKind kind = optionals ? kOptional : list.empty() ? kTensor : kind_of(list[0]);
  w.varint(2, uint64_t(kind));
  for (const Data& d : list) {
    if (optionals) {
      ProtoWriter o;
      o.varint(2, uint64_t(kind_of(d)));
      if (!d.empty()) o.bytes(d.is_tensor() ? 3 : d.is_sequence() ? 5 : 6, message(d, ""));
      w.bytes(7, o.take());
    } else {
      w.bytes(uint32_t(kind) + 2, message(d, ""));
    }
  }
  return w.take();
}

std::string map_message(const MapData& m, std::string_view name) {
  ProtoWriter w;
  if (!name.empty()) w.bytes(1, name);
  w.varint(2, uint64_t(m.keys.dtype()));
  if (m.keys.dtype() == DType::string) {
    for (const std::string& k : m.keys.as<std::string>()) w.bytes(4, k);
  } else {
    for (int64_t k : m.keys.as<int64_t>()) w.varint(3, uint64_t(k));
  }
  w.bytes(5, sequence_message({Data(m.values)}, ""));
  return w.take();
}

std::string message(const Data& data, std::string_view name) {
  if (data.is_sequence()) return sequence_message(data.sequence(), name);
  if (data.is_map()) return map_message(data.map(), name);
  return data.is_tensor() ? tensor_message(data.tensor(), name) : std::string();
}

}  // namespace

Result<Tensor> read_onnx_tensor(Bytes bytes) {
  TensorSource source{.owner = {}, .copy = true, .external = {}};
  NamedTensor t = AI_VMM_TAKE(read_tensor_proto(bytes, source));
  return std::move(t.tensor);
}

Result<Data> read_onnx_data(Bytes bytes, const Type& type) {
  DataReader reader;
  switch (type.kind) {
    case Type::Kind::sequence: return reader.read(kSequence, bytes);
    case Type::Kind::optional: return reader.read(kOptional, bytes);
    case Type::Kind::map: return reader.read(kMap, bytes);
    default: return reader.read(kTensor, bytes);
  }
}

std::string write_onnx_tensor(const Tensor& tensor, std::string_view name) { return tensor_message(tensor, name); }

std::string write_onnx_data(const Data& data, const Type& type, std::string_view name) {
  if (type.kind != Type::Kind::optional) return message(data, name);
  ProtoWriter w;
  if (!name.empty()) w.bytes(1, name);
  w.varint(2, uint64_t(kind_of(data)));
  if (!data.empty()) w.bytes(data.is_tensor() ? 3 : data.is_sequence() ? 5 : 6, message(data, ""));
  return w.take();
}

}  // namespace ai_vmm
