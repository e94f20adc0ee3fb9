// The text form of a graph, one line a value or node:
//
//   graph "name" {
//     input x: f32[N,3,224,224]
//     w: f32[4] = const [1, 2, 3, 4]
//     big: f32[64,3,7,7] = const #9f86d081884c7d65
//     y: f32[N,64,112,112] = Conv(x, big, _) {strides=[2, 2], auto_pad="SAME_UPPER"} "node name"
//     a: f32[1], b: f32[1] = If(cond) {then_branch=graph(x) "t" { … }}
//     output y
//   }
#include <charconv>
#include <cstdio>

#include "base/numbers.hpp"
#include "graph/graph.hpp"

namespace ai_vmm {

namespace {

constexpr int64_t kInlineElements = 16;

std::string quoted(std::string_view s) {
  std::string q = "\"";
  for (char c : s) {
    if (c == '"' || c == '\\') q += '\\';
    if (c == '\n') {
      q += "\\n";
    } else {
      q += c;
    }
  }
  return q + "\"";
}

// A value's name as written: quoted when it is not a plain word.
std::string word(std::string_view s) {
  bool plain = !s.empty() && s != "_";
  for (char c : s)
    plain &= std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '/' || c == ':';
  return plain ? std::string(s) : quoted(s);
}

template <class T>
std::string number(T v) {  // the shortest text that reads back as the same number
  char text[40];
  auto r = std::to_chars(text, text + sizeof text, v);
  return {text, r.ptr};
}

uint64_t hash(const Tensor& t) {  // FNV-1a
  uint64_t h = 0xcbf29ce484222325ull;
  auto eat = [&](const void* p, size_t n) {
    for (size_t i = 0; i < n; ++i) h = (h ^ static_cast<const uint8_t*>(p)[i]) * 0x100000001b3ull;
  };
  if (t.dtype() == DType::string) {
    for (const std::string& s : t.as<std::string>()) eat(s.data(), s.size() + 1);
  } else {
    eat(t.data(), size_t(t.bytes()));
  }
  return h;
}

std::string elements(const Tensor& t) {
  if (t.count() > kInlineElements) {
    char text[20];
    std::snprintf(text, sizeof text, "#%016llx", static_cast<unsigned long long>(hash(t)));
    return text;
  }
  std::string s = "[";
  for (int64_t i = 0; i < t.count(); ++i) {
    if (i) s += ", ";
    if (t.dtype() == DType::string) {
      s += quoted(t.as<std::string>()[size_t(i)]);
    } else if (is_complex(t.dtype())) {
      bool wide = t.dtype() == DType::c128;
      auto part = [&](int64_t k) { return read_double(wide ? DType::f64 : DType::f32, t.data(), k); };
      s += "(" + number(part(2 * i)) + ", " + number(part(2 * i + 1)) + ")";
    } else if (is_float(t.dtype())) {
      s += t.dtype() == DType::f32 ? number(t.as<float>()[size_t(i)]) : number(read_double(t.dtype(), t.data(), i));
    } else if (t.dtype() == DType::u64) {
      s += number(t.as<uint64_t>()[size_t(i)]);
    } else {
      s += number(read_int64(t.dtype(), t.data(), i));
    }
  }
  return s + "]";
}

std::string tensor_text(const Tensor& t) { return name(t.dtype()) + to_string(t.shape()) + elements(t); }

template <class T, class F>
std::string list(const std::vector<T>& v, F f) {
  std::string s = "[";
  for (size_t i = 0; i < v.size(); ++i) s += (i ? ", " : "") + f(v[i]);
  return s + "]";
}

std::string attribute_text(const AttrValue& value) {
  struct Visitor {
    std::string operator()(int64_t v) const { return number(v); }
    std::string operator()(float v) const {  // a float always shows that it is one
      std::string s = number(v);
      return s.find_first_of(".einf") == s.npos ? s + ".0" : s;
    }
    std::string operator()(const std::string& v) const { return quoted(v); }
    std::string operator()(const Tensor& v) const { return "tensor " + tensor_text(v); }
    std::string operator()(const std::vector<int64_t>& v) const { return list(v, [](int64_t x) { return number(x); }); }
    std::string operator()(const std::vector<float>& v) const { return "floats" + list(v, *this); }
    std::string operator()(const std::vector<std::string>& v) const { return "strings" + list(v, *this); }
    std::string operator()(const std::vector<Tensor>& v) const { return "tensors" + list(v, *this); }
    std::string operator()(const Type& v) const { return "type " + v.to_string(); }
  };
  return std::visit(Visitor(), value);
}

void print(const Graph& g, const std::string& indent, std::string& s) {
  auto name = [&](ValueId v) { return v == kAbsent ? std::string("_") : word(g.value(v).name); };
  auto typed = [&](ValueId v) { return v == kAbsent ? std::string("_") : name(v) + ": " + g.value(v).type.to_string(); };
  auto names = [&](const std::vector<ValueId>& values) {
    std::string t;
    for (ValueId v : values) t += (t.empty() ? "" : ", ") + name(v);
    return t;
  };
  s += "graph " + quoted(g.name) + " {\n";
  const std::string in = indent + "  ";
  for (ValueId v : g.inputs) s += in + "input " + typed(v) + "\n";
  for (ValueId v : g.captures) s += in + "capture " + typed(v) + "\n";
  std::vector<char> is_input(g.values.size(), 0);
  for (ValueId v : g.inputs) is_input[size_t(v)] = 1;
  for (ValueId v : g.captures) is_input[size_t(v)] = 1;
  for (size_t v = 0; v < g.values.size(); ++v)
    if (g.values[v].constant && !is_input[v]) s += in + typed(ValueId(v)) + " = const " + elements(g.values[v].constant) + "\n";
  for (const Node& n : g.nodes) {
    std::string outputs;
    for (ValueId v : n.outputs) outputs += (outputs.empty() ? "" : ", ") + typed(v);
    s += in + outputs + " = " + (n.domain.empty() ? n.op : n.domain + "." + n.op) + "(" + names(n.inputs) + ")";
    if (!n.attributes.empty() || !n.bodies.empty()) {
      s += " {";
      bool first = true;
      for (const Attribute& a : n.attributes) {
        s += (first ? "" : ", ") + a.name + "=" + attribute_text(a.value);
        first = false;
      }
      for (const Body& b : n.bodies) {
        s += (first ? "" : ", ") + b.attribute + "=body(" + names(b.captures) + ") ";
        print(*b.graph, in, s);
        first = false;
      }
      s += "}";
    }
    if (!n.name.empty()) s += " " + quoted(n.name);
    s += "\n";
  }
  s += in + "output " + names(g.outputs) + "\n" + indent + "}";
}

}  // namespace

std::string Graph::to_text() const {
  std::string s;
  print(*this, "", s);
  return s + "\n";
}

}  // namespace ai_vmm
