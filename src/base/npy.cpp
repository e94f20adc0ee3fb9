#include "base/npy.hpp"

#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <limits>

#include "base/numbers.hpp"
#include "base/text.hpp"

namespace ai_vmm {

namespace {
Status damaged(const std::string& what) { return Status(Code::data_loss, "The array file is damaged: " + what + "."); }

template <class T>
T little(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof(T));
  return v;
}
template <class T>
void append_little(std::string& out, T v) {
  out.append(reinterpret_cast<const char*>(&v), sizeof(T));
}
static_assert(std::endian::native == std::endian::little);

// ---------------------------------------------------------------- .npy

struct Header {
  std::string descr;
  bool fortran = false;
  Shape shape;
};

// The header is a Python dict literal with three keys, all values of fixed forms.
Result<Header> parse_header(std::string_view text) {
  Header h;
  auto after = [&](std::string_view key) -> std::string_view {
    for (char quote : {'\'', '"'}) {
      std::string quoted = quote + std::string(key) + quote;
      size_t at = text.find(quoted);
      if (at == text.npos) continue;
      std::string_view rest = trim(text.substr(at + quoted.size()));
      return rest.empty() || rest[0] != ':' ? std::string_view() : trim(rest.substr(1));
    }
    return {};
  };
  std::string_view descr = after("descr"), order = after("fortran_order"), shape = after("shape");
  if (!descr.empty() && descr[0] == '[')
    return Status(Code::unimplemented, "The array file holds a structured array; only plain ones can be read.");
  if (descr.size() < 2 || (descr[0] != '\'' && descr[0] != '"')) return damaged("no element type in its header");
  size_t close = descr.find(descr[0], 1);
  if (close > 32) return damaged("no element type in its header");
  h.descr = descr.substr(1, close - 1);
  if (order.substr(0, 4) == "True")
    h.fortran = true;
  else if (order.substr(0, 5) != "False")
    return damaged("no fortran_order in its header");
  size_t end = shape.find(')');
  if (shape.empty() || shape[0] != '(' || end == shape.npos) return damaged("no shape in its header");
  for (std::string_view part : split(shape.substr(1, end - 1), ',')) {
    part = trim(part);
    if (part.empty()) continue;
    if (part.back() == 'L') part.remove_suffix(1);  // Python 2
    int64_t d = 0;
    auto [stop, error] = std::from_chars(part.data(), part.data() + part.size(), d);
    if (error != std::errc() || stop != part.data() + part.size() || d < 0)
      return damaged("a size in its shape is not a number");
    if (h.shape.size() == 64) return damaged("its shape has more than 64 dimensions");
    h.shape.push_back(d);
  }
  return h;
}

struct Element {
  DType dtype = DType::undefined;
  int64_t size = 0;   // bytes in the file
  bool swap = false;  // big-endian
  char text = 0;      // 'U' or 'S' for strings
};

Result<Element> parse_descr(const std::string& descr) {
  Element e;
  auto unknown = [&] {
    return Status(Code::unimplemented, "The array file holds elements of NumPy type \"" + descr +
                                           "\"; numbers, bool, raw V1 and V2, and strings (U, S) can be read.");
  };
  if (descr.size() < 2 || std::string_view("<>|=").find(descr[0]) == std::string_view::npos) return unknown();
  char kind = descr[1];
  if (kind == 'O')
    return Status(Code::unimplemented,
                  "The array file holds Python objects (a pickle), which are not read; save strings as dtype 'U'.");
  int64_t size = 0;
  auto [end, error] = std::from_chars(descr.data() + 2, descr.data() + descr.size(), size);
  if (error != std::errc() || end != descr.data() + descr.size() || size < 0 || size > (int64_t(1) << 40))
    return unknown();
  e.size = size;
  e.swap = descr[0] == '>' && (size > 1 || kind == 'U');
  struct Row {
    char kind;
    int64_t size;
    DType dtype;
  };
  static constexpr Row kRows[] = {
      {'f', 2, DType::f16}, {'f', 4, DType::f32},   {'f', 8, DType::f64},  {'i', 1, DType::i8},
      {'i', 2, DType::i16}, {'i', 4, DType::i32},   {'i', 8, DType::i64},  {'u', 1, DType::u8},
      {'u', 2, DType::u16}, {'u', 4, DType::u32},   {'u', 8, DType::u64},  {'b', 1, DType::boolean},
      {'c', 8, DType::c64}, {'c', 16, DType::c128}, {'V', 2, DType::bf16}, {'V', 1, DType::u8},
  };
  if (kind == 'U' || kind == 'S' || kind == 'a') {
    e.text = kind == 'U' ? 'U' : 'S';
    e.size = kind == 'U' ? size * 4 : size;
    e.dtype = DType::string;
    return e;
  }
  for (const Row& r : kRows)
    if (r.kind == kind && r.size == size) {
      e.dtype = r.dtype;
      return e;
    }
  return unknown();
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | ((c >> 18) & 7));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3f));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  }
}

// Code points of UTF-8 text; nullopt where it is not UTF-8.
std::optional<std::u32string> decode_utf8(std::string_view s) {
  std::u32string out;
  for (size_t i = 0; i < s.size();) {
    auto c = static_cast<uint8_t>(s[i]);
    int more = c < 0x80 ? 0 : (c >> 5) == 6 ? 1 : (c >> 4) == 14 ? 2 : (c >> 3) == 30 ? 3 : -1;
    if (more < 0 || i + static_cast<size_t>(more) >= s.size()) return std::nullopt;
    uint32_t point = more == 0 ? c : c & (0x3fu >> more);
    for (int k = 1; k <= more; ++k) {
      auto b = static_cast<uint8_t>(s[i + static_cast<size_t>(k)]);
      if ((b & 0xc0) != 0x80) return std::nullopt;
      point = (point << 6) | (b & 0x3f);
    }
    out += static_cast<char32_t>(point);
    i += static_cast<size_t>(more) + 1;
  }
  return out;
}

std::string read_text(const std::byte* p, const Element& e) {
  std::string s;
  if (e.text == 'S') {
    s.assign(reinterpret_cast<const char*>(p), static_cast<size_t>(e.size));
  } else {
    for (int64_t i = 0; i < e.size; i += 4) {
      auto c = little<uint32_t>(p + i);
      append_utf8(s, e.swap ? __builtin_bswap32(c) : c);
    }
  }
  while (!s.empty() && s.back() == 0) s.pop_back();  // NumPy pads with zeros
  return s;
}

// Copies `count` elements, in Fortran order if so, swapping parts of `part` bytes when big-endian.
template <class Put>
void for_each_element(const Shape& shape, bool fortran, int64_t count, const Put& put) {
  if (!fortran || shape.size() < 2) {
    for (int64_t i = 0; i < count; ++i) put(i, i);
    return;
  }
  std::vector<int64_t> stride(shape.size()), index(shape.size());
  int64_t s = 1;
  for (size_t a = 0; a < shape.size(); ++a) {
    stride[a] = s;
    s *= shape[a];
  }
  int64_t from = 0;
  for (int64_t i = 0; i < count; ++i) {
    put(i, from);
    for (size_t a = shape.size(); a-- > 0;) {
      from += stride[a];
      if (++index[a] < shape[a]) break;
      from -= stride[a] * shape[a];
      index[a] = 0;
    }
  }
}
}  // namespace

Result<Tensor> parse_npy(std::span<const std::byte> bytes) {
  if (bytes.size() < 10 || std::memcmp(bytes.data(), "\x93NUMPY", 6) != 0)
    return Status(Code::data_loss, "The file is no .npy file: it does not begin with NumPy's mark.");
  int version = std::to_integer<int>(bytes[6]);
  size_t header_at = version >= 2 ? 12 : 10;
  if (version < 1 || version > 3) return damaged("its version is " + std::to_string(version));
  if (bytes.size() < header_at) return damaged("it ends within its header");
  size_t length = version >= 2 ? little<uint32_t>(&bytes[8]) : little<uint16_t>(&bytes[8]);
  if (bytes.size() - header_at < length) return damaged("it ends within its header");
  Header h = AI_VMM_TAKE(parse_header({reinterpret_cast<const char*>(&bytes[8]) + (header_at - 8), length}));
  Element e = AI_VMM_TAKE(parse_descr(h.descr));

  std::span<const std::byte> body = bytes.subspan(header_at + length);
  auto count = element_count(h.shape);
  int64_t need = 0;
  if (!count || __builtin_mul_overflow(*count, e.size, &need) || need > static_cast<int64_t>(body.size()))
    return damaged("its shape " + to_string(h.shape) + " needs more bytes than the " + std::to_string(body.size()) +
                   " it has");
  Tensor t = AI_VMM_TAKE(Tensor::make(e.dtype, h.shape));
  if (e.dtype == DType::string) {
    auto out = t.as_mutable<std::string>();
    for_each_element(h.shape, h.fortran, *count, [&](int64_t to, int64_t from) {
      out[static_cast<size_t>(to)] = read_text(body.data() + from * e.size, e);
    });
    return t;
  }
  auto* out = static_cast<std::byte*>(t.mutable_data());
  if (!e.swap && (!h.fortran || h.shape.size() < 2)) {
    if (need) std::memcpy(out, body.data(), static_cast<size_t>(need));
    return t;
  }
  auto size = static_cast<size_t>(e.size), part = is_complex(e.dtype) ? size / 2 : size;
  for_each_element(h.shape, h.fortran, *count, [&](int64_t to, int64_t from) {
    std::byte* p = out + to * e.size;
    std::memcpy(p, body.data() + from * e.size, size);
    if (e.swap)
      for (size_t k = 0; k < size; k += part) std::reverse(p + k, p + k + part);
  });
  return t;
}

Result<std::string> format_npy(const Tensor& t) {
  std::string descr, body;
  switch (t.dtype()) {
    case DType::f16: descr = "<f2"; break;
    case DType::f32: descr = "<f4"; break;
    case DType::f64: descr = "<f8"; break;
    case DType::i8: descr = "|i1"; break;
    case DType::i16: descr = "<i2"; break;
    case DType::i32: descr = "<i4"; break;
    case DType::i64: descr = "<i8"; break;
    case DType::u8: descr = "|u1"; break;
    case DType::u16: descr = "<u2"; break;
    case DType::u32: descr = "<u4"; break;
    case DType::u64: descr = "<u8"; break;
    case DType::boolean: descr = "|b1"; break;
    case DType::c64: descr = "<c8"; break;
    case DType::c128: descr = "<c16"; break;
    case DType::bf16: descr = "|V2"; break;
    case DType::f8e4m3fn:
    case DType::f8e4m3fnuz:
    case DType::f8e5m2:
    case DType::f8e5m2fnuz:
    case DType::f8e8m0: descr = "|V1"; break;
    case DType::i4:
    case DType::i2:
    case DType::u4:
    case DType::u2:
      descr = is_signed_integer(t.dtype()) ? "|i1" : "|u1";
      for (int64_t i = 0; i < t.count(); ++i) body += static_cast<char>(read_int64(t.dtype(), t.data(), i));
      break;
    case DType::f4e2m1:
      descr = "|V1";
      for (int64_t i = 0; i < t.count(); ++i) body += static_cast<char>(read_int64(DType::u4, t.data(), i));
      break;
    case DType::string: {
      std::vector<std::u32string> texts;
      size_t width = 1;
      for (const std::string& s : t.as<std::string>()) {
        auto points = decode_utf8(s);
        if (!points)
          return Status(Code::invalid_argument, "A string of the array is not UTF-8 and cannot be written to .npy.");
        width = std::max(width, points->size());
        texts.push_back(*std::move(points));
      }
      descr = "<U" + std::to_string(width);
      for (auto& s : texts) {
        s.resize(width, U'\0');
        body.append(reinterpret_cast<const char*>(s.data()), s.size() * 4);
      }
      break;
    }
    case DType::undefined:
      return Status(Code::invalid_argument, "A tensor without element type cannot be written to .npy.");
  }
  std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (";
  for (int64_t d : t.shape()) header += std::to_string(d) + ", ";
  if (t.rank() > 1) header.resize(header.size() - 2);
  if (t.rank() == 1) header.pop_back();
  header += "), }";
  header.append(63 - (10 + header.size()) % 64, ' ');  // data starts at a multiple of 64
  header += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  append_little(out, static_cast<uint16_t>(header.size()));
  out += header;
  if (body.empty() && t.bytes() && t.dtype() != DType::string)
    out.append(static_cast<const char*>(t.data()), static_cast<size_t>(t.bytes()));
  return out + body;
}

// ---------------------------------------------------------------- .npz

namespace {
// Zip (PKWARE APPNOTE.TXT): local headers with data, then the central directory, then its end record; ZIP64 records
// where a size or an offset needs more than 32 bits.
constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr uint32_t k32 = 0xffffffff;

struct Entry {
  std::string name;
  uint16_t method = 0;
  uint32_t crc = 0;
  uint64_t packed = 0, size = 0, offset = 0;
};

Result<std::vector<Entry>> directory(std::span<const std::byte> zip) {
  constexpr size_t kEndSize = 22;
  auto bad = [] {
    return Status(Code::data_loss, "The file is no .npz file, or it is cut short: it has no zip directory.");
  };
  if (zip.size() < kEndSize) return bad();
  size_t end = zip.size() - kEndSize, stop = end > 0xffff ? end - 0xffff : 0;
  while (little<uint32_t>(&zip[end]) != kEnd) {
    if (end == stop) return bad();
    --end;
  }
  uint64_t count = little<uint16_t>(&zip[end + 10]), start = little<uint32_t>(&zip[end + 16]);
  if (end >= 20 && little<uint32_t>(&zip[end - 20]) == kLocator64) {
    uint64_t at = little<uint64_t>(&zip[end - 12]);
    if (at > zip.size() || zip.size() - at < 56 || little<uint32_t>(&zip[at]) != kEnd64) return bad();
    count = little<uint64_t>(&zip[at + 32]);
    start = little<uint64_t>(&zip[at + 48]);
  }
  std::vector<Entry> entries;
  uint64_t at = start;
  for (uint64_t i = 0; i < count; ++i) {
    if (at > zip.size() || zip.size() - at < 46 || little<uint32_t>(&zip[at]) != kCentral) return bad();
    const std::byte* p = &zip[at];
    uint64_t name = little<uint16_t>(p + 28), extra = little<uint16_t>(p + 30), comment = little<uint16_t>(p + 32);
    if (zip.size() - at < 46 + name + extra + comment) return bad();
    Entry e{std::string(reinterpret_cast<const char*>(p) + 46, name),
            little<uint16_t>(p + 10),
            little<uint32_t>(p + 16),
            little<uint32_t>(p + 20),
            little<uint32_t>(p + 24),
            little<uint32_t>(p + 42)};
    if (little<uint16_t>(p + 8) & 1)
      return Status(Code::unimplemented, "Member \"" + e.name + "\" of the .npz file is encrypted.");
    for (uint64_t x = 0; x + 4 <= extra;) {  // fields of 64-bit sizes, in this order, each only where it is needed
      const std::byte* f = p + 46 + name + x;
      uint64_t size = little<uint16_t>(f + 2), used = 0;
      if (x + 4 + size > extra) break;
      if (little<uint16_t>(f) == 1)
        for (uint64_t* field : {&e.size, &e.packed, &e.offset})
          if (*field == k32 && used + 8 <= size) {
            *field = little<uint64_t>(f + 4 + used);
            used += 8;
          }
      x += 4 + size;
    }
    entries.push_back(std::move(e));
    at += 46 + name + extra + comment;
  }
  return entries;
}

Result<Tensor> read_member(std::span<const std::byte> zip, const Entry& e) {
  auto bad = [&](const char* what) {
    return Status(Code::data_loss, "Member \"" + e.name + "\" of the .npz file " + what + ".");
  };
  if (e.offset > zip.size() || zip.size() - e.offset < 30 || little<uint32_t>(&zip[e.offset]) != kLocal)
    return bad("is not where the directory says");
  uint64_t data = e.offset + 30 + little<uint16_t>(&zip[e.offset + 26]) + little<uint16_t>(&zip[e.offset + 28]);
  if (data > zip.size() || zip.size() - data < e.packed) return bad("ends after the file");
  std::span<const std::byte> packed = zip.subspan(data, e.packed);
  std::string inflated;
  std::span<const std::byte> bytes = packed;
  if (e.method == 8) {
    // Deflate makes at most 1032 bytes of one; a directory that promises more lies.
    if (e.size / 1032 > e.packed + 1) return bad("has an impossible size");
    inflated.resize(e.size);
    z_stream z{};
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK) return Status(Code::resource_exhausted, "zlib could not be started.");
    size_t in = 0, out = 0;
    int rc = Z_OK;
    while (rc == Z_OK) {  // zlib counts in 32 bits
      z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data()) + in);
      z.avail_in = static_cast<uInt>(std::min<size_t>(packed.size() - in, 1u << 30));
      z.next_out = reinterpret_cast<Bytef*>(inflated.data()) + out;
      z.avail_out = static_cast<uInt>(std::min<size_t>(inflated.size() - out, 1u << 30));
      uInt had_in = z.avail_in, had_out = z.avail_out;
      rc = inflate(&z, Z_NO_FLUSH);
      in += had_in - z.avail_in;
      out += had_out - z.avail_out;
      if (rc == Z_OK && had_in == z.avail_in && had_out == z.avail_out) rc = Z_BUF_ERROR;
    }
    inflateEnd(&z);
    if (rc != Z_STREAM_END || out != e.size) return bad("cannot be unpacked");
    bytes = std::as_bytes(std::span(inflated));
  } else if (e.method != 0) {
    return Status(Code::unimplemented, "Member \"" + e.name + "\" of the .npz file is packed by method " +
                                           std::to_string(e.method) + "; stored and deflate can be read.");
  }
  if (bytes.size() != e.size) return bad("has two sizes");
  if (crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()) != e.crc) return bad("fails its checksum");
  auto t = parse_npy(bytes);
  if (!t.ok()) return std::move(t).status().during("reading member \"" + e.name + "\"");
  return t;
}
}  // namespace

Result<NamedTensors> read_npz(const std::string& path) {
  std::string bytes = AI_VMM_TAKE(read_file(path));
  auto zip = std::as_bytes(std::span(bytes));
  auto entries = directory(zip);
  if (!entries.ok()) return std::move(entries).status().during("reading " + path);
  NamedTensors arrays;
  for (const Entry& e : *entries) {
    auto t = read_member(zip, e);
    if (!t.ok()) return std::move(t).status().during("reading " + path);
    std::string_view name = e.name;
    if (name.ends_with(".npy")) name.remove_suffix(4);
    arrays.emplace_back(name, *std::move(t));
  }
  return arrays;
}

Result<Tensor> read_npy(const std::string& path) {
  std::string bytes = AI_VMM_TAKE(read_file(path));
  auto t = parse_npy(std::as_bytes(std::span(bytes)));
  if (!t.ok()) return std::move(t).status().during("reading " + path);
  return t;
}

Status write_npy(const std::string& path, const Tensor& tensor) {
  return write_file(path, AI_VMM_TAKE(format_npy(tensor)));
}

Status write_npz(const std::string& path, const NamedTensors& arrays) {
  std::string out, central;
  for (const auto& [key, tensor] : arrays) {
    std::string body = AI_VMM_TAKE(format_npy(tensor));
    std::string name = key + ".npy";
    if (name.size() > 0xffff)
      return Status(Code::invalid_argument, "A name of 64 KiB cannot be written to " + path + ".");
    uint64_t size = body.size(), offset = out.size();
    auto crc = static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(body.data()), body.size()));
    bool big = size >= k32 || offset >= k32;
    auto common = [&](std::string& to) {
      append_little<uint16_t>(to, big ? 45 : 20);  // version needed
      append_little<uint16_t>(to, 1 << 11);        // names are UTF-8
      append_little<uint16_t>(to, 0);              // stored
      append_little<uint16_t>(to, 0);              // time
      append_little<uint16_t>(to, (1 << 5) | 1);   // date: 1 January 1980, so that equal arrays make equal files
      append_little<uint32_t>(to, crc);
      append_little<uint32_t>(to, big ? k32 : static_cast<uint32_t>(size));
      append_little<uint32_t>(to, big ? k32 : static_cast<uint32_t>(size));
      append_little<uint16_t>(to, static_cast<uint16_t>(name.size()));
    };
    append_little(out, kLocal);
    common(out);
    append_little<uint16_t>(out, big ? 20 : 0);
    out += name;
    if (big) {
      append_little<uint16_t>(out, 1);
      append_little<uint16_t>(out, 16);
      append_little(out, size);
      append_little(out, size);
    }
    out += body;
    append_little(central, kCentral);
    append_little<uint16_t>(central, big ? 45 : 20);
    common(central);
    append_little<uint16_t>(central, big ? 28 : 0);
    central.append(10, '\0');  // comment length, disk, internal and external attributes
    append_little<uint32_t>(central, big ? k32 : static_cast<uint32_t>(offset));
    central += name;
    if (big) {
      append_little<uint16_t>(central, 1);
      append_little<uint16_t>(central, 24);
      append_little(central, size);
      append_little(central, size);
      append_little(central, offset);
    }
  }
  uint64_t start = out.size(), count = arrays.size();
  out += central;
  if (start >= k32 || count >= 0xffff || central.size() >= k32) {
    uint64_t at = out.size();
    append_little(out, kEnd64);
    append_little<uint64_t>(out, 44);
    append_little<uint16_t>(out, 45);
    append_little<uint16_t>(out, 45);
    append_little<uint64_t>(out, 0);
    append_little(out, count);
    append_little(out, count);
    append_little<uint64_t>(out, central.size());
    append_little(out, start);
    append_little(out, kLocator64);
    append_little<uint32_t>(out, 0);
    append_little(out, at);
    append_little<uint32_t>(out, 1);
  }
  append_little(out, kEnd);
  append_little<uint32_t>(out, 0);
  append_little(out, static_cast<uint16_t>(std::min<uint64_t>(count, 0xffff)));
  append_little(out, static_cast<uint16_t>(std::min<uint64_t>(count, 0xffff)));
  append_little(out, static_cast<uint32_t>(std::min<uint64_t>(central.size(), k32)));
  append_little(out, static_cast<uint32_t>(std::min<uint64_t>(start, k32)));
  append_little<uint16_t>(out, 0);
  return write_file(path, out);
}

// ---------------------------------------------------------------- types and files

Result<Tensor> fit_dtype(const Tensor& t, DType wanted) {
  if (t.dtype() == wanted || wanted == DType::undefined) return t;
  auto mismatch = [&] {
    return Status(Code::invalid_argument, std::string("The elements are ") + name(t.dtype()) + ", but " + name(wanted) +
                                              " is wanted; convert them first.");
  };
  int width = bits(wanted);
  bool byte = t.dtype() == DType::u8 || t.dtype() == DType::i8;
  if ((width == 8 && is_float(wanted) && t.dtype() == DType::u8) ||
      (t.dtype() == DType::u16 && (wanted == DType::f16 || wanted == DType::bf16)))
    return Tensor::view(wanted, t.shape(), t.data(), t.owner());
  if (width >= 8 || width == 0 || !byte) return mismatch();
  Tensor packed = AI_VMM_TAKE(Tensor::make(wanted, t.shape(), true));
  DType raw = wanted == DType::f4e2m1 ? DType::u4 : wanted;
  for (int64_t i = 0; i < t.count(); ++i) {
    int64_t v = read_int64(t.dtype(), t.data(), i);
    write_int64(raw, packed.mutable_data(), i, v);
    if (read_int64(raw, packed.data(), i) != v)
      return Status(Code::invalid_argument,
                    "The value " + std::to_string(v) + " does not fit the type " + name(wanted) + ".");
  }
  return packed;
}

Result<std::string> read_file(const std::string& path) {
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0)
    return Status(errno == ENOENT ? Code::not_found : Code::permission_denied,
                  "File \"" + path + "\" cannot be opened: " + std::strerror(errno) + ".");
  if (S_ISDIR(facts.st_mode)) return Status(Code::invalid_argument, "\"" + path + "\" is a folder, not a file.");
  std::ifstream in(path, std::ios::binary);
  if (!in)
    return Status(Code::permission_denied, "File \"" + path + "\" cannot be opened: " + std::strerror(errno) + ".");
  std::string bytes(std::istreambuf_iterator<char>(in), {});
  if (in.bad()) return Status(Code::data_loss, "File \"" + path + "\" cannot be read.");
  return bytes;
}

Status write_file(const std::string& path, std::string_view bytes) {
  auto fail = [&](const std::string& what) {
    return Status(Code::permission_denied,
                  "File \"" + path + "\" cannot be " + what + ": " + std::strerror(errno) + ".");
  };
  struct stat facts {};
  bool plain = stat(path.c_str(), &facts) != 0 || S_ISREG(facts.st_mode);  // /dev/stdout is written directly
  std::string temporary = plain ? path + ".part" + std::to_string(getpid()) : path;
  {
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    if (!out) return fail("written");
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    out.close();
    if (!out) {
      Status s = fail("written");
      if (plain) unlink(temporary.c_str());
      return s;
    }
  }
  if (plain && rename(temporary.c_str(), path.c_str()) != 0) {
    Status s = fail("replaced");
    unlink(temporary.c_str());
    return s;
  }
  return {};
}

}  // namespace ai_vmm
