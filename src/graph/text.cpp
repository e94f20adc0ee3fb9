#include "graph/text.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "base/check.hpp"
#include "base/hash.hpp"
#include "base/numbers.hpp"
#include "base/text.hpp"

namespace ai_vmm {

uint64_t content_hash(const Tensor& t) {
  if (t.dtype() != DType::string) return hash_bytes({static_cast<const std::byte*>(t.data()), size_t(t.bytes())});
  uint64_t h = uint64_t(t.count());
  for (const std::string& s : t.as<std::string>()) h = hash_bytes(std::as_bytes(std::span<const char>(s)), h);
  return h;
}

// ---------------------------------------------------------------- writing

namespace {

constexpr int kMaxDepth = 64;

bool plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
         c == '/' || c == ':' || c == '-';
}

std::string quote(std::string_view s) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (char c : s) {
    auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (u < 0x20 || u == 0x7f) {
      out += "\\x";
      out += kHex[u >> 4];
      out += kHex[u & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

// A word as it is where its characters allow that. (A final colon would
// read as the start of a type, two as the end of a domain.)
std::string word(const std::string& s) {
  return !s.empty() && s.back() != ':' && s.find("::") == s.npos && std::all_of(s.begin(), s.end(), plain) ? s
                                                                                                           : quote(s);
}

std::string hex(uint64_t v, int digits) {
  std::string s(size_t(digits), '0');
  for (int i = digits; i-- > 0; v >>= 4) s[size_t(i)] = "0123456789abcdef"[v & 15];
  return s;
}

// Always distinguishable from an integer. NaN carries its bits.
template <class T>
std::string real(T v) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  if (std::isnan(v)) return "nan:" + hex(std::bit_cast<Bits>(v), int(sizeof(T)) * 2);
  if (std::isinf(v)) return v < 0 ? "-inf" : "inf";
  char buffer[64];
  auto end = std::to_chars(buffer, buffer + sizeof buffer, v).ptr;
  std::string s(buffer, end);
  return s.find_first_of(".e") == s.npos ? s + ".0" : s;
}

std::string element(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::string: return quote(t.as<std::string>()[size_t(i)]);
    case DType::boolean: return read_int64(t.dtype(), t.data(), i) ? "true" : "false";
    case DType::u64: return std::to_string(uint64_t(read_int64(t.dtype(), t.data(), i)));
    case DType::f32:
    case DType::c64: {
      float v;
      std::memcpy(&v, static_cast<const char*>(t.data()) + i * 4, 4);
      return real(v);
    }
    case DType::f64:
    case DType::c128: {
      double v;
      std::memcpy(&v, static_cast<const char*>(t.data()) + i * 8, 8);
      return real(v);
    }
    default: break;
  }
  if (is_integer(t.dtype())) return std::to_string(read_int64(t.dtype(), t.data(), i));
  // A narrow float: its value where that reads back to the same bits.
  double v = read_double(t.dtype(), t.data(), i);
  int width = bits(t.dtype());
  uint64_t original = 0, again = 0;
  if (width < 8) {
    original = static_cast<const uint8_t*>(t.data())[i * width / 8] >> (i * width % 8) & ((1 << width) - 1);
    write_double(t.dtype(), &again, 0, v);
    again &= (1u << width) - 1;
  } else {
    std::memcpy(&original, static_cast<const char*>(t.data()) + i * width / 8, size_t(width / 8));
    write_double(t.dtype(), &again, 0, v);
  }
  return !std::isnan(v) && original == again ? real(v) : "bits:" + hex(original, (width + 3) / 4);
}

std::string tensor_text(const Tensor& t) {
  std::string s = std::string(name(t.dtype())) + to_string(t.shape());
  if (t.count() > kInlineElements) return s + " #" + hex(content_hash(t), 16);
  s += " [";
  int64_t n = t.count() * (is_complex(t.dtype()) ? 2 : 1);
  for (int64_t i = 0; i < n; ++i) s += (i ? ", " : "") + element(t, i);
  return s + "]";
}

template <class T, class F>
std::string list_text(const char* empty, const std::vector<T>& items, F&& one) {
  if (items.empty()) return empty;
  std::string s = "[";
  for (size_t i = 0; i < items.size(); ++i) s += (i ? ", " : "") + one(items[i]);
  return s + "]";
}

std::string attribute_text(const AttrValue& value) {
  struct Visitor {
    std::string operator()(int64_t v) { return std::to_string(v); }
    std::string operator()(float v) { return real(v); }
    std::string operator()(const std::string& v) { return quote(v); }
    std::string operator()(const Tensor& v) { return "tensor " + tensor_text(v); }
    std::string operator()(const std::vector<int64_t>& v) {
      return list_text("ints[]", v, [](int64_t i) { return std::to_string(i); });
    }
    std::string operator()(const std::vector<float>& v) { return list_text("floats[]", v, real<float>); }
    std::string operator()(const std::vector<std::string>& v) { return list_text("strings[]", v, quote); }
    std::string operator()(const std::vector<Tensor>& v) {
      return list_text("tensors[]", v, [](const Tensor& t) { return "tensor " + tensor_text(t); });
    }
    std::string operator()(const Type& v) { return "type " + v.to_string(); }
  };
  return std::visit(Visitor(), value);
}

struct Writer {
  std::string out;

  std::string ref(const Graph& g, ValueId v) {
    if (v == kAbsent) return "_";
    return "%" + word(g.value(v).name);
  }
  std::string typed(const Graph& g, ValueId v) {
    const Value& value = g.value(v);
    std::string s = ref(g, v) + ": " + value.type.to_string();
    if (value.ints) s += " " + elements(*value.ints);
    return s;
  }
  static std::string elements(const std::vector<Dim>& ints) {
    std::string s = "<";
    for (size_t i = 0; i < ints.size(); ++i) s += (i ? ", " : "") + ints[i].to_string();
    return s + ">";
  }
  std::string refs(const Graph& g, const std::vector<ValueId>& list) {
    std::string s;
    for (size_t i = 0; i < list.size(); ++i) s += (i ? ", " : "") + ref(g, list[i]);
    return s;
  }

  void graph(const Graph& g, const std::string& indent, const std::string& head, const Graph* outer, const Body* body) {
    const std::string in = indent + "  ";
    out += indent + head + "graph " + quote(g.name) + " {\n";
    for (const auto& [key, value] : g.metadata) out += in + "meta " + quote(key) + " = " + quote(value) + "\n";
    if (g.symbols) out += in + "symbols " + std::to_string(g.symbols) + "\n";
    std::vector<char> listed(g.values.size(), 0);
    for (ValueId v : g.inputs) {
      out += in + "input " + typed(g, v) + "\n";
      listed[size_t(v)] = 1;
    }
    std::vector<char> captured(g.values.size(), 0);
    for (size_t i = 0; i < g.captures.size(); ++i) {
      out += in + "capture " + typed(g, g.captures[i]) + (outer ? " = " + ref(*outer, body->captures[i]) : "") + "\n";
      listed[size_t(g.captures[i])] = captured[size_t(g.captures[i])] = 1;
    }
    for (size_t v = 0; v < g.values.size(); ++v) {
      const Value& value = g.values[v];
      if (!value.constant || (captured[v] && outer)) continue;
      out += in + "const " + ref(g, ValueId(v));
      // The type is that of the tensor nearly always.
      bool usual = value.type == Type::tensor(value.constant.dtype(), to_dims(value.constant.shape()));
      if (!usual && !listed[v]) out += ": " + value.type.to_string();
      if (value.ints && !listed[v]) out += " " + elements(*value.ints);
      out += " = " + tensor_text(value.constant) + "\n";
      listed[v] = 1;
    }
    for (const Node& n : g.nodes) {
      std::string line = in;
      if (n.outputs.empty()) line += "()";
      for (size_t i = 0; i < n.outputs.size(); ++i) {
        line += (i ? ", " : "") + (n.outputs[i] == kAbsent ? "_" : typed(g, n.outputs[i]));
        if (n.outputs[i] != kAbsent) listed[size_t(n.outputs[i])] = 1;
      }
      line += " = " + (n.domain.empty() ? "" : word(n.domain) + "::") + word(n.op) + "(" + refs(g, n.inputs) + ")";
      for (size_t i = 0; i < n.attributes.size(); ++i)
        line += (i ? ", " : " {") + word(n.attributes[i].name) + "=" + attribute_text(n.attributes[i].value);
      if (!n.attributes.empty()) line += "}";
      if (!n.name.empty()) line += " @" + quote(n.name);
      out += line + "\n";
      for (const Body& b : n.bodies) graph(*b.graph, in + "  ", "body " + word(b.attribute) + " ", &g, &b);
    }
    for (size_t v = 0; v < g.values.size(); ++v)
      if (!listed[v]) out += in + "value " + typed(g, ValueId(v)) + "\n";
    for (ValueId v : g.outputs) out += in + "output " + ref(g, v) + "\n";
    out += indent + "}\n";
  }
};

}  // namespace

std::string to_text(const Graph& graph) {
  Writer w;
  w.graph(graph, "", "", nullptr, nullptr);
  return std::move(w.out);
}

std::string Graph::to_text() const { return ai_vmm::to_text(*this); }

namespace {
void collect(const Graph& graph, std::unordered_map<uint64_t, std::vector<Tensor>>& by_hash) {
  auto add = [&](const Tensor& t) {
    if (t && t.count() > kInlineElements) by_hash[content_hash(t)].push_back(t);
  };
  for (const Value& v : graph.values) add(v.constant);
  for (const Node& n : graph.nodes) {
    for (const Attribute& a : n.attributes) {
      if (const auto* t = std::get_if<Tensor>(&a.value)) add(*t);
      if (const auto* list = std::get_if<std::vector<Tensor>>(&a.value)) std::for_each(list->begin(), list->end(), add);
    }
    for (const Body& b : n.bodies) collect(*b.graph, by_hash);
  }
}
}  // namespace

ConstantResolver constants_of(const Graph& graph) {
  auto by_hash = std::make_shared<std::unordered_map<uint64_t, std::vector<Tensor>>>();
  collect(graph, *by_hash);
  return [by_hash](DType dtype, const Shape& shape, uint64_t hash) -> Result<Tensor> {
    if (auto it = by_hash->find(hash); it != by_hash->end())
      for (const Tensor& t : it->second)
        if (t.dtype() == dtype && t.shape() == shape) return t;
    return Status(Code::not_found, "No constant has the hash " + hex(hash, 16) + ".");
  };
}

// ---------------------------------------------------------------- parsing

namespace {

struct TextParser {
  const ConstantResolver& resolver;
  std::vector<std::string_view> lines;
  size_t line = 0;              // the next line
  std::string_view text, rest;  // the current line, and what is left of it

  Status bad(const std::string& what) const {
    return Status(Code::invalid_argument, "Line " + std::to_string(line) + " of the graph text: " + what + " (at \"" +
                                              std::string(rest.substr(0, 40)) + "\").");
  }
  bool next_line() {
    while (line < lines.size()) {
      text = rest = trim(lines[line++]);
      if (!rest.empty()) return true;
    }
    return false;
  }
  void space() {
    while (!rest.empty() && rest[0] == ' ') rest.remove_prefix(1);
  }
  bool eat(std::string_view word) {
    space();
    if (rest.substr(0, word.size()) != word) return false;
    rest.remove_prefix(word.size());
    return true;
  }
  Status expect(std::string_view word) { return eat(word) ? Status() : bad("\"" + std::string(word) + "\" expected"); }
  std::string_view take_while(bool (*accept)(char)) {
    space();
    size_t n = 0;
    while (n < rest.size() && accept(rest[n])) ++n;
    auto word = rest.substr(0, n);
    rest.remove_prefix(n);
    return word;
  }

  Result<std::string> string() {
    AI_VMM_TRY(expect("\""));
    std::string s;
    for (size_t i = 0; i < rest.size(); ++i) {
      if (rest[i] == '"') {
        rest.remove_prefix(i + 1);
        return s;
      }
      if (rest[i] != '\\') {
        s += rest[i];
        continue;
      }
      if (++i == rest.size()) break;
      if (rest[i] == 'n') {
        s += '\n';
      } else if (rest[i] == 'x') {
        uint8_t v = 0;
        if (i + 2 >= rest.size() ||
            std::from_chars(rest.data() + i + 1, rest.data() + i + 3, v, 16).ptr != rest.data() + i + 3)
          return bad("an escape is malformed");
        s += char(v);
        i += 2;
      } else {
        s += rest[i];
      }
    }
    return bad("a string has no end");
  }

  template <class T>
  Result<T> integer(int base = 10) {
    space();
    T v{};
    auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), v, base);
    if (error != std::errc()) return bad("a number expected");
    rest.remove_prefix(size_t(end - rest.data()));
    return v;
  }
  template <class T>
  Result<T> real() {
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    if (eat("nan:")) return std::bit_cast<T>(AI_VMM_TAKE(integer<Bits>(16)));
    space();
    T v{};
    auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), v);
    if (error != std::errc()) return bad("a number expected");
    rest.remove_prefix(size_t(end - rest.data()));
    return v;
  }

  // Dimensions up to `close`, which is eaten; commas inside parentheses belong to an expression.
  Result<std::vector<Dim>> dims(char close) {
    std::vector<Dim> out;
    size_t start = 0;
    int depth = 0;
    for (size_t i = 0; i < rest.size(); ++i) {
      depth += rest[i] == '(';
      depth -= rest[i] == ')';
      if (depth || (rest[i] != ',' && rest[i] != close)) continue;
      std::string_view item = trim(rest.substr(start, i - start));
      bool last = rest[i] == close;
      if (!(last && item.empty() && out.empty())) {
        auto d = Dim::parse(item);
        if (!d.ok()) return bad(d.status().message());
        out.push_back(*std::move(d));
      }
      start = i + 1;
      if (last) {
        rest.remove_prefix(start);
        return out;
      }
    }
    return bad("a list of sizes has no end");
  }

  Result<Type> type(int depth = 0) {
    if (depth > kMaxDepth) return bad("a type is nested too deeply");
    if (eat("seq(")) {
      Type t = Type::sequence(AI_VMM_TAKE(type(depth + 1)));
      AI_VMM_TRY(expect(")"));
      return t;
    }
    if (eat("optional(")) {
      Type t = Type::optional(AI_VMM_TAKE(type(depth + 1)));
      AI_VMM_TRY(expect(")"));
      return t;
    }
    if (eat("map(")) {
      DType key = AI_VMM_TAKE(dtype());
      AI_VMM_TRY(expect(","));
      Type t = Type::map(key, AI_VMM_TAKE(type(depth + 1)));
      AI_VMM_TRY(expect(")"));
      return t;
    }
    DType element = DType::undefined;
    if (eat("?")) {
      if (rest.empty() || rest[0] != '[') return Type();
    } else {
      element = AI_VMM_TAKE(dtype());
    }
    AI_VMM_TRY(expect("["));
    if (eat("...]")) return Type::tensor(element);
    return Type::tensor(element, AI_VMM_TAKE(dims(']')));
  }
  Result<DType> dtype() {
    auto word = take_while([](char c) { return plain(c) && c != ':'; });
    if (word == "undefined") return DType::undefined;
    auto t = dtype_from_name(word);
    if (!t) return bad("\"" + std::string(word) + "\" is not an element type");
    return *t;
  }

  Status element(Tensor& t, int64_t i) {
    auto* p = static_cast<char*>(t.mutable_data());
    switch (t.dtype()) {
      case DType::string: t.as_mutable<std::string>()[size_t(i)] = AI_VMM_TAKE(string()); return {};
      case DType::f32:
      case DType::c64: {
        float v = AI_VMM_TAKE(real<float>());
        std::memcpy(p + i * 4, &v, 4);
        return {};
      }
      case DType::f64:
      case DType::c128: {
        double v = AI_VMM_TAKE(real<double>());
        std::memcpy(p + i * 8, &v, 8);
        return {};
      }
      case DType::boolean: {
        bool v = eat("true");
        if (!v) AI_VMM_TRY(expect("false"));
        p[i] = v;
        return {};
      }
      case DType::u64: write_int64(t.dtype(), p, i, int64_t(AI_VMM_TAKE(integer<uint64_t>()))); return {};
      default: break;
    }
    if (is_integer(t.dtype())) {
      int64_t v = AI_VMM_TAKE(integer<int64_t>());
      write_int64(t.dtype(), p, i, v);
      return {};
    }
    if (eat("bits:")) {
      auto v = AI_VMM_TAKE(integer<uint32_t>(16));
      int width = bits(t.dtype());
      if (width >= 8)
        std::memcpy(p + i * width / 8, &v, size_t(width / 8));
      else
        p[i * width / 8] = char(p[i * width / 8] | int(v & ((1u << width) - 1)) << (i * width % 8));
      return {};
    }
    double v = AI_VMM_TAKE(real<double>());
    write_double(t.dtype(), p, i, v);
    return {};
  }

  Result<Tensor> tensor() {
    DType t = AI_VMM_TAKE(dtype());
    AI_VMM_TRY(expect("["));
    std::vector<Dim> sizes = AI_VMM_TAKE(dims(']'));
    auto shape = constant_shape(sizes);
    auto count = shape ? element_count(*shape) : std::nullopt;
    if (!count || t == DType::undefined) return bad("a constant must have a known shape and type");
    if (eat("#")) {
      auto hash = AI_VMM_TAKE(integer<uint64_t>(16));
      if (!resolver) return bad("a large constant stands by its hash, and no resolver was given");
      Tensor found = AI_VMM_TAKE(resolver(t, *shape, hash));
      if (found.dtype() != t || found.shape() != *shape || content_hash(found) != hash)
        return bad("the constant found has another content");
      return found;
    }
    if (*count > kInlineElements) return bad("a constant of so many elements stands by its hash");
    Tensor out = AI_VMM_TAKE(Tensor::make(t, *shape, true));
    AI_VMM_TRY(expect("["));
    for (int64_t i = 0, n = *count * (is_complex(t) ? 2 : 1); i < n; ++i) {
      if (i) AI_VMM_TRY(expect(","));
      AI_VMM_TRY(element(out, i));
    }
    AI_VMM_TRY(expect("]"));
    return out;
  }

  // An int, or a float, which has a point, an exponent or a letter.
  Result<AttrValue> number() {
    auto end = std::min(rest.find_first_of(",]} "), rest.size());
    if (rest.substr(0, end).find_first_of(".enia") != rest.npos) return AttrValue(AI_VMM_TAKE(real<float>()));
    return AttrValue(AI_VMM_TAKE(integer<int64_t>()));
  }

  Result<AttrValue> attribute() {
    space();
    if (eat("tensor ")) return AttrValue(AI_VMM_TAKE(tensor()));
    if (eat("type ")) return AttrValue(AI_VMM_TAKE(type()));
    if (eat("ints[]")) return AttrValue(std::vector<int64_t>());
    if (eat("floats[]")) return AttrValue(std::vector<float>());
    if (eat("strings[]")) return AttrValue(std::vector<std::string>());
    if (eat("tensors[]")) return AttrValue(std::vector<Tensor>());
    if (!rest.empty() && rest[0] == '"') return AttrValue(AI_VMM_TAKE(string()));
    if (!eat("[")) return number();
    // A list; the first element says of what.
    std::vector<AttrValue> items;
    do {
      items.push_back(AI_VMM_TAKE(attribute()));
      if (items.back().index() != items[0].index() || items[0].index() > 3) return bad("a list mixes types");
    } while (eat(","));
    AI_VMM_TRY(expect("]"));
    auto gather = [&]<class T>(const T&) {
      std::vector<T> v;
      for (AttrValue& i : items) v.push_back(std::get<T>(std::move(i)));
      return AttrValue(std::move(v));
    };
    switch (items[0].index()) {
      case 0: return gather(int64_t());
      case 1: return gather(float());
      case 2: return gather(std::string());
      default: return gather(Tensor());
    }
  }

  // --- one graph

  struct Names {
    Graph& graph;
    std::unordered_map<std::string, ValueId> ids = {};
  };

  // A word, quoted or not. Colons that end it belong to what follows.
  Result<std::string> word() {
    space();
    if (!rest.empty() && rest[0] == '"') return string();
    size_t n = 0;
    while (n < rest.size() && plain(rest[n])) ++n;
    // "domain::op": the word is the domain.
    if (auto colons = rest.substr(0, n).find("::"); colons != rest.npos) n = colons;
    while (n && rest[n - 1] == ':') --n;
    if (!n) return bad("a name expected");
    std::string s(rest.substr(0, n));
    rest.remove_prefix(n);
    return s;
  }
  Result<std::string> value_name() {
    AI_VMM_TRY(expect("%"));
    return word();
  }
  ValueId declare(Names& names, std::string name) {
    auto [it, fresh] = names.ids.emplace(name, ValueId(names.graph.values.size()));
    if (fresh) {
      Value v;
      v.name = std::move(name);
      names.graph.values.push_back(std::move(v));
    }
    return it->second;
  }
  // %name: type <ints>, of a value that this makes known.
  Result<ValueId> typed(Names& names) {
    std::string name = AI_VMM_TAKE(value_name());
    if (names.ids.count(name)) return bad("the value %" + name + " is made twice");
    ValueId v = declare(names, std::move(name));
    AI_VMM_TRY(expect(":"));
    names.graph.value(v).type = AI_VMM_TAKE(type());
    if (eat("<")) names.graph.value(v).ints = AI_VMM_TAKE(dims('>'));
    return v;
  }
  Result<ValueId> use(Names& names) {
    if (eat("_")) return kAbsent;
    std::string name = AI_VMM_TAKE(value_name());
    auto it = names.ids.find(name);
    if (it == names.ids.end()) return bad("nothing before makes %" + name);
    return it->second;
  }

  Status constant(Names& names) {
    std::string name = AI_VMM_TAKE(value_name());
    ValueId v = declare(names, std::move(name));
    if (names.graph.value(v).constant) return bad("a constant is given twice");
    bool typed = names.graph.value(v).type.kind != Type::Kind::unknown;
    if (eat(":")) {
      names.graph.value(v).type = AI_VMM_TAKE(type());
      typed = true;
    }
    if (eat("<")) names.graph.value(v).ints = AI_VMM_TAKE(dims('>'));
    AI_VMM_TRY(expect("="));
    Tensor t = AI_VMM_TAKE(tensor());
    if (!typed) names.graph.value(v).type = Type::tensor(t.dtype(), to_dims(t.shape()));
    names.graph.value(v).constant = std::move(t);
    return {};
  }

  Status node(Names& names) {
    Node n;
    if (!eat("()")) {
      do {
        n.outputs.push_back(eat("_") ? kAbsent : AI_VMM_TAKE(typed(names)));
      } while (eat(","));
    }
    AI_VMM_TRY(expect("="));
    space();
    n.op = AI_VMM_TAKE(word());
    if (eat("::")) {
      n.domain = std::move(n.op);
      n.op = AI_VMM_TAKE(word());
    }
    AI_VMM_TRY(expect("("));
    if (!eat(")")) {
      do {
        n.inputs.push_back(AI_VMM_TAKE(use(names)));
      } while (eat(","));
      AI_VMM_TRY(expect(")"));
    }
    if (eat("{")) {
      do {
        space();
        std::string key = AI_VMM_TAKE(word());
        AI_VMM_TRY(expect("="));
        auto value = AI_VMM_TAKE(attribute());
        n.attributes.push_back({std::move(key), std::move(value)});
      } while (eat(","));
      AI_VMM_TRY(expect("}"));
    }
    if (eat("@")) n.name = AI_VMM_TAKE(string());
    names.graph.nodes.push_back(std::move(n));
    return end_of_line();
  }

  Status end_of_line() {
    space();
    return rest.empty() ? Status() : bad("the line goes on");
  }

  // After "graph": the name, the statements, the closing brace.
  Result<Graph> graph(Names* outer, Body* body, int depth) {
    if (depth > kMaxDepth) return bad("bodies are nested too deeply");
    Graph g;
    Names names{g};
    g.name = AI_VMM_TAKE(string());
    AI_VMM_TRY(expect("{"));
    AI_VMM_TRY(end_of_line());
    while (next_line()) {
      if (eat("}")) {
        AI_VMM_TRY(end_of_line());
        return g;
      }
      if (eat("meta ")) {
        std::string key = AI_VMM_TAKE(string());
        AI_VMM_TRY(expect("="));
        g.metadata[key] = AI_VMM_TAKE(string());
      } else if (eat("symbols ")) {
        g.symbols = AI_VMM_TAKE(integer<int64_t>());
      } else if (eat("input ")) {
        g.inputs.push_back(AI_VMM_TAKE(typed(names)));
      } else if (eat("capture ")) {
        ValueId v = AI_VMM_TAKE(typed(names));
        g.captures.push_back(v);
        if (outer) {
          AI_VMM_TRY(expect("="));
          ValueId from = AI_VMM_TAKE(use(*outer));
          if (from == kAbsent) return bad("a capture has no source");
          body->captures.push_back(from);
          g.value(v).constant = outer->graph.value(from).constant;
        }
      } else if (eat("const ")) {
        AI_VMM_TRY(constant(names));
      } else if (eat("value ")) {
        (void)AI_VMM_TAKE(typed(names));
      } else if (eat("output ")) {
        g.outputs.push_back(AI_VMM_TAKE(use(names)));
        if (g.outputs.back() == kAbsent) return bad("an output has no value");
      } else if (eat("body ")) {
        if (g.nodes.empty()) return bad("a body without a node");
        Body b;
        b.attribute = AI_VMM_TAKE(word());
        AI_VMM_TRY(expect("graph "));
        b.graph = std::make_shared<Graph>(AI_VMM_TAKE(graph(&names, &b, depth + 1)));
        g.nodes.back().bodies.push_back(std::move(b));
        continue;  // its last line is consumed
      } else {
        AI_VMM_TRY(node(names));
        continue;
      }
      AI_VMM_TRY(end_of_line());
    }
    return bad("a graph has no end");
  }
};

}  // namespace

Result<Graph> parse_text(std::string_view text, const ConstantResolver& resolver) {
  TextParser p{resolver, split(text, '\n')};
  if (!p.next_line()) return p.bad("it is empty");
  AI_VMM_TRY(p.expect("graph "));
  Graph g = AI_VMM_TAKE(p.graph(nullptr, nullptr, 0));
  if (p.next_line()) return p.bad("text after the graph");
  return g;
}

}  // namespace ai_vmm
