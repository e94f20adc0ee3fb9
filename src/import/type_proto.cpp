#include "import/type_proto.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace ai_vmm {

Dim Symbols::take(std::string name) {
  Dim d = Dim::symbol(name);
  if (auto [it, fresh] = taken_.emplace(d.to_string(), 2); !fresh) do {
      d = Dim::symbol(it->first + "_" + std::to_string(it->second++));
    } while (!taken_.emplace(d.to_string(), 2).second);
  std::string text = d.to_string();
  int64_t n = 0;
  if (auto [end, error] = std::from_chars(text.data() + 1, text.data() + text.size(), n);
      text[0] == 'u' && error == std::errc() && end == text.data() + text.size() && n < (int64_t(1) << 62))
    first_free_ = std::max(first_free_, n + 1);
  return d;
}

Dim Symbols::named(std::string_view param) {
  auto it = by_param_.find(param);
  if (it == by_param_.end()) it = by_param_.emplace(param, take(std::string(param))).first;
  return it->second;
}

Dim Symbols::unnamed(std::string_view value, size_t axis) {
  return take(std::string(value) + "_" + std::to_string(axis));
}

namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kMaxRank = 64;

struct TypeReader {
  std::string_view value;
  Symbols& symbols;
  bool shapes;

  Status bad(const std::string& what) {
    return Status(Code::invalid_argument, "The type of \"" + std::string(value) + "\" " + what + ".");
  }

  Result<DType> element(int64_t number) {
    if (number < 0 || number >= kDTypeCount)
      return bad("has element type " + std::to_string(number) + ", which this build does not know");
    return DType(number);
  }

  Result<std::vector<Dim>> shape(Bytes bytes) {
    std::vector<Dim> dims;
    ProtoReader r(bytes);
    while (r.next()) {
      if (r.field() != 1) continue;
      if (dims.size() == kMaxRank) return bad("has more than " + std::to_string(kMaxRank) + " dimensions");
      int64_t size = -1;
      std::string_view param;
      ProtoReader d(r.bytes());
      while (d.next()) {
        if (d.field() == 1) size = d.i64();
        if (d.field() == 2) param = d.text();
      }
      AI_VMM_TRY(d.status("Dimension"));
      // Some exporters write "?" for every unknown size: only a name with a letter or digit says that sizes are equal.
      bool named = std::any_of(param.begin(), param.end(), [](unsigned char c) { return std::isalnum(c); });
      dims.push_back(size >= 0 ? Dim(size) : named ? symbols.named(param) : symbols.unnamed(value, dims.size()));
    }
    AI_VMM_TRY(r.status("TensorShapeProto"));
    return dims;
  }

  Result<Type> tensor(Bytes bytes) {
    Type t = Type::tensor(DType::undefined);
    ProtoReader r(bytes);
    while (r.next()) {
      if (r.field() == 1) t.dtype = AI_VMM_TAKE(element(r.i64()));
      if (r.field() == 2) {
        Bytes b = r.bytes();
        if (!shapes) continue;
        t.dims = AI_VMM_TAKE(shape(b));
        t.ranked = true;
      }
    }
    AI_VMM_TRY(r.status("TypeProto"));
    return t;
  }

  Result<Type> nested(Bytes bytes, int depth) {  // the elem_type of a sequence or optional
    Type t;
    ProtoReader r(bytes);
    while (r.next())
      if (r.field() == 1) t = AI_VMM_TAKE(type(r.bytes(), depth));
    AI_VMM_TRY(r.status("TypeProto"));
    return t;
  }

  Result<Type> map(Bytes bytes, int depth) {
    DType key = DType::i64;
    Type t;
    ProtoReader r(bytes);
    while (r.next()) {
      if (r.field() == 1) key = AI_VMM_TAKE(element(r.i64()));
      if (r.field() == 2) t = AI_VMM_TAKE(type(r.bytes(), depth));
    }
    AI_VMM_TRY(r.status("TypeProto"));
    return Type::map(key, std::move(t));
  }

  Result<Type> type(Bytes bytes, int depth) {
    if (depth > kMaxDepth) return bad("is nested more than " + std::to_string(kMaxDepth) + " levels deep");
    Type t;
    ProtoReader r(bytes);
    while (r.next()) {
      switch (r.field()) {
        case 1:
        case 8: t = AI_VMM_TAKE(tensor(r.bytes())); break;
        case 4: {
          // Elements may differ in their sizes, which one symbol cannot say.
          Type element = AI_VMM_TAKE(nested(r.bytes(), depth + 1));
          if (element.ranked && !element.shape()) element = Type::tensor(element.dtype);
          t = Type::sequence(std::move(element));
          break;
        }
        case 5: t = AI_VMM_TAKE(map(r.bytes(), depth + 1)); break;
        case 9: t = Type::optional(AI_VMM_TAKE(nested(r.bytes(), depth + 1))); break;
        case 7: return bad("is opaque, which no operator of this build takes");
        default: break;
      }
    }
    AI_VMM_TRY(r.status("TypeProto"));
    return t;
  }
};

}  // namespace

Result<Type> read_type_proto(Bytes bytes, std::string_view value, Symbols& symbols, bool shapes) {
  return TypeReader{value, symbols, shapes}.type(bytes, 0);
}

}  // namespace ai_vmm
