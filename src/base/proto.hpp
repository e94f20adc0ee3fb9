// Reading and writing of the protobuf wire format, in place: a reader walks the fields of one message, and lengths are
// checked against the bytes that are there. Nothing is allocated; nothing is copied.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

static_assert(std::endian::native == std::endian::little, "tensors of a file are viewed in place");

using Bytes = std::span<const std::byte>;

inline std::string_view as_text(Bytes b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }
inline Bytes as_bytes(std::string_view s) { return {reinterpret_cast<const std::byte*>(s.data()), s.size()}; }

//   ProtoReader r(bytes);
//   while (r.next()) switch (r.field()) { case 1: n = r.i64(); break; … }   // fields not asked for are skipped
//   AI_VMM_TRY(r.status("TensorProto"));
class ProtoReader {
 public:
  explicit ProtoReader(Bytes bytes) : p_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  // Goes to the next field; false at the end and after damage.
  bool next() {
    if (damaged_ || p_ == end_) return false;
    uint64_t tag = 0;
    if (!varint(p_, end_, tag) || (tag >> 3) == 0 || (tag >> 3) > 0x1fffffff) return damage();
    field_ = uint32_t(tag >> 3);
    wire_ = int(tag & 7);
    auto left = size_t(end_ - p_);
    switch (wire_) {
      case 0:
        if (!varint(p_, end_, value_)) return damage();
        return true;
      case 1:
      case 5: {
        size_t n = wire_ == 1 ? 8 : 4;
        if (left < n) return damage();
        value_ = 0;
        std::memcpy(&value_, p_, n);
        p_ += n;
        return true;
      }
      case 2: {
        uint64_t n = 0;
        if (!varint(p_, end_, n) || n > uint64_t(end_ - p_)) return damage();
        bytes_ = {p_, size_t(n)};
        p_ += n;
        return true;
      }
      default: return damage();  // groups, which ONNX never had
    }
  }
  uint32_t field() const { return field_; }

  // The value of the current field. A field of another wire type is damage, and 0 or nothing comes back.
  int64_t i64() { return int64_t(u64()); }
  uint64_t u64() { return wire_ == 0 ? value_ : (damage(), 0); }
  float f32() { return wire_ == 5 ? std::bit_cast<float>(uint32_t(value_)) : (damage(), 0.f); }
  Bytes bytes() { return wire_ == 2 ? bytes_ : (damage(), Bytes()); }
  std::string_view text() { return as_text(bytes()); }
  bool packed() const { return wire_ == 2; }

  // Calls f(uint64_t) for the varint, or for every varint of a packed list.
  template <class F>
  void varints(F&& f) {
    if (wire_ == 0) {
      f(value_);
    } else if (wire_ == 2) {
      const std::byte *p = bytes_.data(), *end = p + bytes_.size();
      uint64_t v = 0;
      while (p != end) {
        if (!varint(p, end, v)) {
          damage();
          return;
        }
        f(v);
      }
    } else {
      damage();
    }
  }
  // The same for fixed-size values: T is float or double.
  template <class T, class F>
  void fixed(F&& f) {
    if (wire_ == (sizeof(T) == 4 ? 5 : 1)) {
      T v;
      std::memcpy(&v, &value_, sizeof v);
      f(v);
    } else if (wire_ == 2 && bytes_.size() % sizeof(T) == 0) {
      for (size_t i = 0; i < bytes_.size(); i += sizeof(T)) {
        T v;
        std::memcpy(&v, bytes_.data() + i, sizeof v);
        f(v);
      }
    } else {
      damage();
    }
  }

  Status status(const char* message) const {
    if (!damaged_) return {};
    return Status(Code::data_loss, std::string("The file is not a whole ONNX file: a ") + message +
                                       " is malformed at its field " + std::to_string(field_) +
                                       "; fetch or export the file again.");
  }

 private:
  bool damage() {
    damaged_ = true;
    return false;
  }
  static bool varint(const std::byte*& p, const std::byte* end, uint64_t& out) {
    uint64_t v = 0;
    for (int shift = 0; shift < 70 && p != end; shift += 7) {
      auto b = uint64_t(*p++);
      v |= (b & 0x7f) << (shift < 64 ? shift : 63);
      if (b < 0x80) {
        out = v;
        return true;
      }
    }
    return false;
  }

  const std::byte *p_, *end_;
  uint32_t field_ = 0;
  int wire_ = 0;
  uint64_t value_ = 0;
  Bytes bytes_;
  bool damaged_ = false;
};

// Appends fields to a message.
class ProtoWriter {
 public:
  void varint(uint32_t field, uint64_t value) {
    raw(uint64_t(field) << 3);
    raw(value);
  }
  void bytes(uint32_t field, std::string_view value) {
    raw(uint64_t(field) << 3 | 2);
    raw(value.size());
    out_.append(value);
  }
  void f32(uint32_t field, float value) {
    raw(uint64_t(field) << 3 | 5);
    char four[4];
    std::memcpy(four, &value, 4);
    out_.append(four, 4);
  }
  std::string take() { return std::move(out_); }

 private:
  void raw(uint64_t v) {
    for (; v >= 0x80; v >>= 7) out_.push_back(char(v | 0x80));
    out_.push_back(char(v));
  }
  std::string out_;
};

}  // namespace ai_vmm
