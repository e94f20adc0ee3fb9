#include "gpu/expression.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "base/check.hpp"
#include "base/numbers.hpp"

namespace ai_vmm::gpu {

namespace {

struct Row {
  const char* name;
  int arity;
  bool predicate;
  const char* float_rule;
  const char* int_rule;
  const char* a = nullptr;
  double a_default = 0;
  const char* b = nullptr;
  double b_default = 0;
};

// Functions of reduce.def, in the prelude for each computing type.
constexpr std::string_view kReducing[] = {"plus", "times",     "magnitude", "quotient",
                                          "root", "logarithm", "larger",    "smaller"};

constexpr Row kRows[] = {
#define UNARY(name, flops, types, fr, ir, meaning) {#name, 1, false, #fr, #ir},
#define BINARY(name, flops, types, fr, ir, meaning) {#name, 2, false, #fr, #ir},
#define PREDICATE_UNARY(name, flops, types, fr, ir, meaning) {#name, 1, true, #fr, #ir},
#define PREDICATE_BINARY(name, flops, types, fr, ir, meaning) {#name, 2, true, #fr, #ir},
#define ACTIVATION1(name, flops, a, ad, rule, meaning) {#name, 1, false, #rule, "NA", a, ad},
#define ACTIVATION2(name, flops, a, ad, b, bd, rule, meaning) {#name, 1, false, #rule, "NA", a, ad, b, bd},
#include "ops/elementwise.def"
};

const Row* find_row(const std::string& op) {
  for (const Row& r : kRows)
    if (op == r.name) return &r;
  return nullptr;
}

std::string compute_of(DType t) { return element(t).compute; }
bool is_int(DType t) { return compute_of(t).find("long") != std::string::npos; }

std::string number(double v) {
  char text[48];
  std::snprintf(text, sizeof text, "%.17g", v);
  return text;
}

bool word_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// The identifier `name` replaced by `text`.
std::string substitute(const std::string& rule, const std::string& name, const std::string& text) {
  std::string out;
  for (size_t i = 0; i < rule.size();) {
    if (!word_char(rule[i])) {
      out += rule[i++];
      continue;
    }
    size_t end = i;
    while (end < rule.size() && (word_char(rule[end]) || (rule[end] == '.' && std::isdigit(rule[i])))) ++end;
    std::string word = rule.substr(i, end - i);
    out += word == name ? text : word;
    i = end;
  }
  return out;
}

// Builds the expression of one node.
class Builder {
 public:
  Builder(const Graph& g, const Node& n) : g_(g), n_(n) {}

  std::optional<Expression> build() {
    for (ValueId v : n_.inputs)
      if (v != kAbsent && (!g_.value(v).type.is_tensor() || !element(g_.value(v).type.dtype).name)) return std::nullopt;
    if (n_.outputs.size() != 1 || n_.outputs[0] == kAbsent || n_.inputs.empty()) return std::nullopt;
    out_ = g_.value(n_.outputs[0]).type.dtype;
    if (!element(out_).name) return std::nullopt;
    if (!node()) return std::nullopt;
    return std::move(e_);
  }

 private:
  DType type_of(int arg) const { return arg >= 0 ? e_.code[size_t(arg)].to : e_.types[size_t(~arg)]; }

  // Input k of the node as an argument: a literal where it is a constant scalar.
  int arg(size_t k) {
    ValueId v = n_.inputs[k];
    const Value& value = g_.value(v);
    DType t = value.type.dtype;
    if (value.constant && value.constant.count() == 1 && value.constant.rank() <= out_rank()) {
      std::string text = is_int(t) ? literal_int(read_int64(t, value.constant.data(), 0), t)
                                   : "R(" + number(read_double(t, value.constant.data(), 0)) + ")";
      return emit("lit", text, {}, t);
    }
    for (size_t i = 0; i < e_.inputs.size(); ++i)
      if (e_.inputs[i] == v) return ~int(i);
    e_.inputs.push_back(v);
    e_.types.push_back(t);
    return ~int(e_.inputs.size() - 1);
  }
  int64_t out_rank() const { return std::max<int64_t>(0, g_.value(n_.outputs[0]).type.rank()); }
  static std::string literal_int(int64_t v, DType t) {
    if (t == DType::u64) return std::to_string(uint64_t(v)) + "ul";
    return v == INT64_MIN ? "INT_MIN64" : "((long)" + std::to_string(v) + "l)";
  }

  int emit(const std::string& name, const std::string& rule, std::vector<int> args, DType to) {
    Instruction i{name, rule, std::move(args), {}, to};
    for (int a : i.args) i.from.push_back(type_of(a));
    e_.code.push_back(std::move(i));
    return int(e_.code.size()) - 1;
  }
  int add(const std::string& op, std::vector<int> args) {
    const Row* r = find_row(op);
    DType t = type_of(args[0]);
    return emit(op, is_int(t) ? r->int_rule : r->float_rule, std::move(args), t);
  }
  int larger(int x, int y) { return emit("larger", "larger(x, y)", {x, y}, type_of(x)); }
  int smaller(int x, int y) { return emit("smaller", "smaller(x, y)", {x, y}, type_of(x)); }

  int gelu(int x, bool tanh_form) {
    if (tanh_form)
      return emit("gelu_tanh",
                  "(R(0.5) * x * (R(1) + tanh(R(0.79788456080286535588) * (x + R(0.044715) * x * x * x))))", {x},
                  type_of(x));
    return emit("gelu", "(R(0.5) * x * (R(1) + erf(x * R(0.70710678118654752440))))", {x}, type_of(x));
  }

  int cast(int x, DType to) {
    DType from = type_of(x);
    if (from == to) return x;
    std::string rule = "x";
    if (to == DType::boolean)
      rule = is_int(from) ? "(long)(x != 0)" : "(long)(x != R(0))";
    else if (!is_int(from) && is_int(to))
      rule = std::string(from == DType::f64 ? "double" : "float") + "_to_long(x)";
    else if (to == DType::f16 || to == DType::bf16)
      rule = std::string(to == DType::f16 ? "round_f16" : "round_bf16") + "((float)x)";
    else if (!is_int(to))
      rule = std::string("(") + element(to).compute + ")x";
    return emit(std::string("cast_") + name(from) + "_" + name(to), rule, {x}, to);
  }

  bool node() {
    const std::string& op = n_.op;
    const DType t = g_.value(n_.inputs[0] == kAbsent ? n_.outputs[0] : n_.inputs[0]).type.dtype;
    if (n_.domain == "com.microsoft") return contrib(op);
    if (n_.domain == "gpu" && op == "MultiplyAdd") {  // of what lower() makes: one rounding
      int a = arg(0), b = arg(1), c = arg(2);
      emit("multiply_add", "fma(x, y, z)", {a, b, c}, t);
      return true;
    }
    if (!n_.domain.empty() || n_.inputs[0] == kAbsent) return false;
    if (const Row* r = find_row(op)) {
      if (n_.inputs.size() != size_t(r->arity)) return false;
      std::string rule = is_int(t) ? r->int_rule : r->float_rule, called = op;
      if (rule == "NA") return false;
      for (auto [attribute, fallback, letter] :
           {std::tuple(r->a, r->a_default, "a"), std::tuple(r->b, r->b_default, "b")})
        if (attribute) {
          std::string value = number(double(n_.f(attribute, float(fallback))));
          rule = substitute(rule, letter, "R(" + value + ")");
          called += "_" + value;
        }
      std::vector<int> args;
      for (size_t k = 0; k < n_.inputs.size(); ++k) args.push_back(arg(k));
      emit(called, rule, args, r->predicate ? DType::boolean : t);
      return true;
    }
    if (op == "Identity") return arg(0), e_.inputs.size() == 1;
    if (op == "Gelu") return gelu(arg(0), n_.s("approximate", "none") == "tanh"), true;
    if (op == "Cast" || op == "CastLike") {
      int x = arg(0), y = cast(x, out_);
      if (y == x) emit("same", "x", {x}, out_);
      return true;
    }
    if (op == "IsInf") {
      bool p = n_.i("detect_positive", 1), m = n_.i("detect_negative", 1);
      emit(std::string("isinf_") + (p ? "p" : "") + (m ? "m" : ""),
           p && m ? "(x == R(inf) || x == R(-inf))"
           : p    ? "(x == R(inf))"
           : m    ? "(x == R(-inf))"
                  : "(x != x && x == x)",
           {arg(0)}, DType::boolean);
      return true;
    }
    if (op == "Where") {
      int c = arg(0), x = arg(1), y = arg(2);
      emit("where", "(x ? y : z)", {c, x, y}, out_);
      return true;
    }
    if (op == "Clip") {
      int x = arg(0);
      if (n_.has_input(1)) x = emit("clip_low", "(x < y ? y : x)", {x, arg(1)}, t);
      if (n_.has_input(2)) x = emit("clip_high", "(y < x ? y : x)", {x, arg(2)}, t);
      if (x < 0) emit("same", "x", {x}, t);
      return true;
    }
    if (op == "Max" || op == "Min" || op == "Sum" || op == "Mean") {
      int acc = arg(0);
      for (size_t k = 1; k < n_.inputs.size(); ++k) {
        if (!n_.has_input(k)) return false;
        int x = arg(k);
        acc = op == "Max" ? larger(acc, x) : op == "Min" ? smaller(acc, x) : add("Add", {acc, x});
      }
      if (op == "Mean")
        acc = emit("over" + std::to_string(n_.inputs.size()), "(x / R(" + std::to_string(n_.inputs.size()) + "))",
                   {acc}, t);
      if (acc < 0) emit("same", "x", {acc}, t);
      return true;
    }
    if (op == "Pow") {
      DType y = g_.value(n_.inputs[1]).type.dtype;
      if (is_int(t) && !is_int(y)) return false;
      const Tensor& exponent = g_.value(n_.inputs[1]).constant;
      if (exponent && exponent.count() == 1 && exponent.rank() <= out_rank() && !is_int(t)) {
        double p = read_double(y, exponent.data(), 0);
        const char* rule = p == 2 ? "(x * x)" : p == 3 ? "(x * x * x)" : p == 0.5 ? "sqrt(x)" : p == 1 ? "x" : nullptr;
        if (rule) return emit("pow" + std::to_string(int(p * 2)), rule, {arg(0)}, t), true;
      }
      int a = arg(0), b = arg(1);
      if (is_int(t))
        emit("i_pow", "i_pow(x, y)", {a, b}, t);
      else
        emit(std::string("pow_") + name(y),
             compute_of(y) == compute_of(t) ? "pow(x, y)" : "pow(x, (" + compute_of(t) + ")y)", {a, b}, t);
      return true;
    }
    if (op == "Mod") {
      bool truncated = n_.i("fmod") != 0;
      int a = arg(0), b = arg(1);
      if (is_int(t))
        emit(truncated ? "i_rem" : "i_mod", truncated ? "i_rem(x, y)" : "i_mod(x, y)", {a, b}, t);
      else if (truncated)
        emit("fmod", "fmod(x, y)", {a, b}, t);
      else
        emit("floored_mod",
             "(fmod(x, y) == R(0) ? copysign(R(0), y) : (fmod(x, y) < R(0)) != (y < R(0)) ? fmod(x, y) + y : fmod(x, "
             "y))",
             {a, b}, t);
      return true;
    }
    if (op == "BitShift") {
      bool left = n_.s("direction") == "LEFT";
      int a = arg(0), b = arg(1);
      emit(left ? "i_shl" : "i_shr", left ? "i_shl(x, y)" : "i_shr(x, y)", {a, b}, t);
      return true;
    }
    return false;
  }

  bool contrib(const std::string& op) {
    if (op == "QuickGelu") {
      std::string alpha = number(double(n_.f("alpha", 1.702f)));
      emit("quick_gelu_" + alpha, "(x / (R(1) + exp(-R(" + alpha + ") * x)))", {arg(0)}, out_);
      return true;
    }
    if (op != "Gelu" && op != "BiasGelu" && op != "FastGelu") return false;
    int x = arg(0);
    if (n_.has_input(1)) x = add("Add", {x, arg(1)});
    gelu(x, op == "FastGelu");
    return true;
  }

  const Graph& g_;
  const Node& n_;
  DType out_ = DType::undefined;
  Expression e_;
};

// The function of an instruction: its name with the types that it is made for.
std::string function_name(const Instruction& i, int width) {
  std::string s = "f_" + i.name;
  for (char& c : s)
    if (!word_char(c)) c = c == '-' ? 'm' : c == '.' ? 'p' : '_';
  for (DType t : i.from) s += std::string("_") + name(t);
  return s + "_" + name(i.to) + (width > 1 ? "x" + std::to_string(width) : "");
}

std::string variable_type(DType t, int width) { return width > 1 ? vector_type(width) : compute_of(t); }

// The computing type of the rule's constants: that of the first argument, for Where of the second.
std::string rule_type(const Instruction& i, int width) {
  if (width > 1) return vector_type(width);
  DType t = i.from.empty() ? i.to : i.from.size() == 3 ? i.from[1] : i.from[0];
  return compute_of(t);
}

// An integer result holds what its element type holds.
std::string narrowed(const std::string& text, DType to) {
  if (!is_int(to) || to == DType::i64 || to == DType::u64) return text;
  if (to == DType::boolean) return "(long)((" + text + ") != 0)";
  return std::string("(long)(") + element(to).storage + ")(" + text + ")";
}

}  // namespace

std::string literal(double value, const std::string& type) {
  if (std::isnan(value)) return "((" + type + ")NAN)";
  if (std::isinf(value)) return "((" + type + ")" + (value > 0 ? "INFINITY)" : "(-INFINITY))");
  char text[48];
  if (type.find("long") != std::string::npos) {
    std::snprintf(text, sizeof text, "%lld", static_cast<long long>(value));
    return "((" + type + ")" + text + ")";
  }
  bool wide = type == "double";
  std::snprintf(text, sizeof text, wide ? "%.17g" : "%.9g", wide ? value : double(float(value)));
  std::string s = text;
  if (s.find_first_of(".e") == std::string::npos) s += ".0";
  return "((" + type + ")(" + s + (wide ? "))" : "f))");
}

bool Expression::all_f32() const {
  for (DType t : types)
    if (t != DType::f32) return false;
  for (const Instruction& i : code)
    if (i.to != DType::f32) return false;
  return true;
}

std::optional<Expression> expression_of(const Graph& graph, const Node& node) { return Builder(graph, node).build(); }

Expression join(const Expression& first, const Expression& second, ValueId through) {
  Expression e;
  e.inputs = first.inputs;
  e.types = first.types;
  e.code = first.code;
  std::vector<int> input(second.inputs.size());
  for (size_t k = 0; k < second.inputs.size(); ++k) {
    ValueId v = second.inputs[k];
    if (v == through) {
      input[k] = first.code.empty() ? ~0 : int(first.code.size()) - 1;
      continue;
    }
    auto found = std::find(e.inputs.begin(), e.inputs.end(), v);
    input[k] = ~int(found - e.inputs.begin());
    if (found == e.inputs.end()) {
      e.inputs.push_back(v);
      e.types.push_back(second.types[k]);
    }
  }
  int shift = int(first.code.size());
  for (Instruction i : second.code) {
    for (int& a : i.args) a = a >= 0 ? a + shift : input[size_t(~a)];
    e.code.push_back(std::move(i));
  }
  return e;
}

std::string rule_text(const std::string& rule, const std::string& type) {
  std::string out;
  for (size_t i = 0; i < rule.size();) {
    if (!word_char(rule[i])) {
      out += rule[i++];
      continue;
    }
    size_t end = i;
    while (end < rule.size() && word_char(rule[end])) ++end;
    std::string word = rule.substr(i, end - i);
    if (word == "R" && end < rule.size() && rule[end] == '(') {
      size_t close = rule.find(')', end);
      std::string inside = rule.substr(end + 1, close - end - 1);
      char* stop = nullptr;
      double value = std::strtod(inside.c_str(), &stop);
      out += stop == inside.c_str() + inside.size() ? literal(value, type) : "((" + type + ")(" + inside + "))";
      i = close + 1;
      continue;
    }
    if (word == "I")
      out += "(" + type + ")";
    else if (word.rfind("i_", 0) == 0)
      out += word + "_" + type;
    else if (std::find(std::begin(kReducing), std::end(kReducing), word) != std::end(kReducing))
      out += word + "_" + (type.find("long") == std::string::npos ? "float" : type);
    else
      out += word;
    i = end;
  }
  return out;
}

std::string functions(const Expression& e, int width) {
  std::string out;
  static constexpr const char* kNames[] = {"x", "y", "z"};
  for (const Instruction& i : e.code) {
    if (i.args.empty()) continue;
    std::string f = function_name(i, width), params;
    for (size_t k = 0; k < i.args.size(); ++k)
      params += (k ? ", " : "") + variable_type(i.from[k], width) + " " + kNames[k];
    out += "#ifndef D_" + f + "\n#define D_" + f + "\nDEVICE " + variable_type(i.to, width) + " " + f + "(" + params +
           ") { return " + narrowed(rule_text(i.rule, rule_type(i, width)), i.to) + "; }\n#endif\n";
  }
  return out;
}

std::string statements(const Expression& e, int width, const std::vector<std::string>& inputs,
                       const std::string& prefix, std::string& result) {
  std::string out;
  auto variable = [&](int a) { return a >= 0 ? prefix + std::to_string(a) : inputs[size_t(~a)]; };
  for (size_t k = 0; k < e.code.size(); ++k) {
    const Instruction& i = e.code[k];
    std::string value;
    if (i.args.empty()) {
      value = rule_text(i.rule, rule_type(i, width));
    } else {
      for (int a : i.args) value += (value.empty() ? "" : ", ") + variable(a);
      value = function_name(i, width) + "(" + value + ")";
    }
    out += "const " + variable_type(i.to, width) + " " + variable(int(k)) + " = " + value + ";\n";
  }
  result = e.code.empty() ? inputs[0] : variable(int(e.code.size()) - 1);
  return out;
}

}  // namespace ai_vmm::gpu
