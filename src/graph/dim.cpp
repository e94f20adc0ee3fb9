#include "graph/dim.hpp"

#include <algorithm>
#include <cctype>

#include "base/check.hpp"

namespace ai_vmm {

namespace {
enum class Kind : uint8_t { symbol, floor_div, ceil_div, mod, max, min, bcast };
constexpr const char* kKindNames[] = {"", "floor_div", "ceil_div", "mod", "max", "min", "bcast"};

struct Atom {
  Kind kind;
  std::string key;  // its text: the name of a symbol, or "max(a, b)"; equal keys are equal atoms
  Dim a, b;
};
using AtomPtr = std::shared_ptr<const Atom>;
using Monomial = std::vector<AtomPtr>;  // sorted by key; a power is a repetition

bool less(const Monomial& x, const Monomial& y) {
  if (x.size() != y.size()) return x.size() > y.size();
  for (size_t i = 0; i < x.size(); ++i)
    if (int c = x[i]->key.compare(y[i]->key)) return c < 0;
  return false;
}
bool equal(const Monomial& x, const Monomial& y) {
  return x.size() == y.size() &&
         std::equal(x.begin(), x.end(), y.begin(), [](const AtomPtr& p, const AtomPtr& q) { return p->key == q->key; });
}
bool key_less(const AtomPtr& p, const AtomPtr& q) { return p->key < q->key; }

struct Term {
  Monomial atoms;
  int64_t factor;
};
}  // namespace

struct Dim::Poly {
  std::vector<Term> terms;  // sorted, factors not zero, the constant term (if any) last
};

namespace {
std::vector<Term> terms_of(const Dim& d) {
  if (d.poly()) return d.poly()->terms;
  if (d.is(0)) return {};
  return {{{}, *d.constant()}};
}

// A factor beyond int64 cannot belong to a size: it saturates, so that allocation refuses what comes of it.
int64_t saturating_add(int64_t a, int64_t b) {
  int64_t v;
  return __builtin_add_overflow(a, b, &v) ? (a < 0 ? INT64_MIN : INT64_MAX) : v;
}
int64_t saturating_mul(int64_t a, int64_t b) {
  int64_t v;
  return __builtin_mul_overflow(a, b, &v) ? ((a < 0) != (b < 0) ? INT64_MIN : INT64_MAX) : v;
}

Dim normalise(std::vector<Term> terms) {
  std::stable_sort(terms.begin(), terms.end(), [](const Term& x, const Term& y) { return less(x.atoms, y.atoms); });
  std::vector<Term> out;
  for (auto& t : terms) {
    if (!out.empty() && equal(out.back().atoms, t.atoms))
      out.back().factor = saturating_add(out.back().factor, t.factor);
    else
      out.push_back(std::move(t));
  }
  std::erase_if(out, [](const Term& t) { return t.factor == 0; });
  if (out.empty()) return Dim(0);
  if (out.size() == 1 && out[0].atoms.empty()) return Dim(out[0].factor);
  return Dim::from_poly({std::move(out)});
}

Dim atom(Kind kind, const Dim& a, const Dim& b) {
  auto p = std::make_shared<Atom>();
  p->kind = kind;
  p->a = a;
  p->b = b;
  p->key = std::string(kKindNames[int(kind)]) + "(" + a.to_string() + ", " + b.to_string() + ")";
  return Dim::from_poly({{{{std::move(p)}, 1}}});
}

int64_t int_floor_div(int64_t a, int64_t b) {
  if (b == -1) return saturating_mul(a, -1);
  return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}
int64_t int_ceil_div(int64_t a, int64_t b) { return saturating_mul(int_floor_div(saturating_mul(a, -1), b), -1); }
int64_t int_mod(int64_t a, int64_t b) { return b == -1 ? 0 : a - b * int_floor_div(a, b); }

bool divide(const Monomial& x, const Monomial& y, Monomial& quotient) {
  quotient.clear();
  size_t j = 0;
  for (const auto& p : x) {
    if (j < y.size() && p->key == y[j]->key)
      ++j;
    else
      quotient.push_back(p);
  }
  return j == y.size();
}

// a / b when b divides every term of a; nullopt otherwise.
std::optional<Dim> divide_exactly(const Dim& a, const Dim& b) {
  auto bt = terms_of(b);
  if (bt.empty()) return std::nullopt;
  if (a == b) return Dim(1);
  if (bt.size() == 1) {
    std::vector<Term> out;
    for (const Term& t : terms_of(a)) {
      Monomial q;
      if (t.factor % bt[0].factor != 0 || !divide(t.atoms, bt[0].atoms, q)) return std::nullopt;
      out.push_back({std::move(q), t.factor / bt[0].factor});
    }
    return normalise(std::move(out));
  }
  // b has several terms: try the quotient that the leading terms suggest, once, and verify it.
  auto at = terms_of(a);
  Dim quotient = 0, rest = a;
  for (int step = 0; step < 8; ++step) {
    at = terms_of(rest);
    if (at.empty()) return quotient;
    Monomial q;
    if (at[0].factor % bt[0].factor != 0 || !divide(at[0].atoms, bt[0].atoms, q)) return std::nullopt;
    Dim t = normalise({{std::move(q), at[0].factor / bt[0].factor}});
    quotient = quotient + t;
    rest = rest - t * b;
  }
  return std::nullopt;
}
}  // namespace

// A hostile chain of products or quotients doubles an expression at every step. Beyond these limits an expression
// becomes one symbol named by its content, which is known only once the size itself is.
constexpr size_t kMaxTerms = 256, kMaxText = 8192;

Dim Dim::from_poly(Poly poly) {
  size_t text = 0;
  for (const Term& t : poly.terms)
    for (const auto& p : t.atoms) text += p->key.size();
  Dim d;
  bool large = poly.terms.size() > kMaxTerms || text > kMaxText;
  d.poly_ = std::make_shared<const Poly>(std::move(poly));
  return large ? symbol("large_" + std::to_string(std::hash<std::string>()(d.to_string()))) : d;
}

Dim Dim::symbol(std::string_view name) {
  auto p = std::make_shared<Atom>();
  p->kind = Kind::symbol;
  for (char c : name)
    p->key += std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '/' || c == ':' ? c : '_';
  if (p->key.empty() || std::isdigit(static_cast<unsigned char>(p->key[0]))) p->key.insert(0, "_");
  return from_poly({{{{std::move(p)}, 1}}});
}

bool Dim::is_symbol() const {
  return poly_ && poly_->terms.size() == 1 && poly_->terms[0].factor == 1 && poly_->terms[0].atoms.size() == 1 &&
         poly_->terms[0].atoms[0]->kind == Kind::symbol;
}

std::string Dim::to_string() const {
  if (!poly_) return std::to_string(constant_);
  std::string s;
  for (const Term& t : poly_->terms) {
    int64_t f = t.factor;
    if (s.empty()) {
      if (f < 0) s += "-";
    } else {
      s += f < 0 ? " - " : " + ";
    }
    f = f < 0 ? -f : f;
    bool first = true;
    if (f != 1 || t.atoms.empty()) {
      s += std::to_string(f);
      first = false;
    }
    for (const auto& p : t.atoms) {
      if (!first) s += "*";
      s += p->key;
      first = false;
    }
  }
  return s;
}

void Dim::collect_symbols(std::vector<std::string>& out) const {
  if (!poly_) return;
  for (const Term& t : poly_->terms)
    for (const auto& p : t.atoms) {
      if (p->kind == Kind::symbol) {
        if (std::find(out.begin(), out.end(), p->key) == out.end()) out.push_back(p->key);
      } else {
        p->a.collect_symbols(out);
        p->b.collect_symbols(out);
      }
    }
}

std::optional<int64_t> Dim::evaluate(const Lookup& lookup) const {
  if (!poly_) return constant_;
  int64_t sum = 0;
  for (const Term& t : poly_->terms) {
    int64_t v = t.factor;
    for (const auto& p : t.atoms) {
      std::optional<int64_t> x;
      if (p->kind == Kind::symbol) {
        x = lookup(p->key);
      } else {
        auto a = p->a.evaluate(lookup), b = p->b.evaluate(lookup);
        if (!a || !b) return std::nullopt;
        switch (p->kind) {
          case Kind::floor_div: x = *b ? std::optional(int_floor_div(*a, *b)) : std::nullopt; break;
          case Kind::ceil_div: x = *b ? std::optional(int_ceil_div(*a, *b)) : std::nullopt; break;
          case Kind::mod: x = *b ? std::optional(int_mod(*a, *b)) : std::nullopt; break;
          case Kind::max: x = std::max(*a, *b); break;
          case Kind::min: x = std::min(*a, *b); break;
          case Kind::bcast: x = *a == 1 ? *b : (*b == 1 || *a == *b) ? std::optional(*a) : std::nullopt; break;
          case Kind::symbol: break;
        }
      }
      if (!x || __builtin_mul_overflow(v, *x, &v)) return std::nullopt;
    }
    if (__builtin_add_overflow(sum, v, &sum)) return std::nullopt;
  }
  return sum;
}

Dim Dim::substitute(const std::function<std::optional<Dim>(std::string_view)>& replace) const {
  if (!poly_) return *this;
  Dim sum = 0;
  for (const Term& t : poly_->terms) {
    Dim v = t.factor;
    for (const auto& p : t.atoms) {
      Dim x;
      if (p->kind == Kind::symbol) {
        auto r = replace(p->key);
        x = r ? *r : symbol(p->key);
      } else {
        Dim a = p->a.substitute(replace), b = p->b.substitute(replace);
        switch (p->kind) {
          case Kind::floor_div: x = ai_vmm::floor_div(a, b); break;
          case Kind::ceil_div: x = ai_vmm::ceil_div(a, b); break;
          case Kind::mod: x = ai_vmm::mod(a, b); break;
          case Kind::max: x = ai_vmm::max(a, b); break;
          case Kind::min: x = ai_vmm::min(a, b); break;
          case Kind::bcast: x = ai_vmm::bcast(a, b); break;
          case Kind::symbol: break;
        }
      }
      v = v * x;
    }
    sum = sum + v;
  }
  return sum;
}

bool operator==(const Dim& a, const Dim& b) {
  if (!a.poly_ || !b.poly_) return !a.poly_ && !b.poly_ && a.constant_ == b.constant_;
  if (a.poly_ == b.poly_) return true;
  const auto &x = a.poly_->terms, &y = b.poly_->terms;
  return x.size() == y.size() && std::equal(x.begin(), x.end(), y.begin(), [](const Term& p, const Term& q) {
           return p.factor == q.factor && equal(p.atoms, q.atoms);
         });
}

Dim operator+(const Dim& a, const Dim& b) {
  int64_t sum;
  if (a.is_constant() && b.is_constant() && !__builtin_add_overflow(*a.constant(), *b.constant(), &sum)) return sum;
  auto t = terms_of(a), u = terms_of(b);
  t.insert(t.end(), u.begin(), u.end());
  return normalise(std::move(t));
}
Dim operator-(const Dim& a, const Dim& b) { return a + b * Dim(-1); }
Dim operator*(const Dim& a, const Dim& b) {
  if (a.is_constant() && b.is_constant()) return saturating_mul(*a.constant(), *b.constant());
  std::vector<Term> out;
  for (const Term& x : terms_of(a))
    for (const Term& y : terms_of(b)) {
      Term t{x.atoms, saturating_mul(x.factor, y.factor)};
      t.atoms.insert(t.atoms.end(), y.atoms.begin(), y.atoms.end());
      std::sort(t.atoms.begin(), t.atoms.end(), key_less);
      out.push_back(std::move(t));
    }
  return normalise(std::move(out));
}

bool known_non_negative(const Dim& d) {
  auto non_negative = [](const AtomPtr& p) {
    if (p->kind == Kind::symbol) return true;
    bool a = known_non_negative(p->a), b = known_non_negative(p->b);
    return p->kind == Kind::max ? a || b : p->kind == Kind::mod ? b : a && b;
  };
  for (const Term& t : terms_of(d))
    if (t.factor < 0 || !std::all_of(t.atoms.begin(), t.atoms.end(), non_negative)) return false;
  return true;
}
Dim floor_div(const Dim& a, const Dim& b) {
  if (b.is(1)) return a;
  if (a.is_constant() && b.is_constant() && !b.is(0)) return int_floor_div(*a.constant(), *b.constant());
  if (auto q = divide_exactly(a, b)) return *q;
  if (auto c = b.constant(); c && *c > 0 && a.poly()) {  // (2*x + 3) / 2 = x + 1
    std::vector<Term> whole, rest;
    for (const Term& t : a.poly()->terms) {
      if (t.atoms.empty()) {
        int64_t q = int_floor_div(t.factor, *c);
        if (q) whole.push_back({{}, q});
        if (t.factor - q * *c) rest.push_back({{}, t.factor - q * *c});
      } else if (t.factor % *c == 0) {
        whole.push_back({t.atoms, t.factor / *c});
      } else {
        rest.push_back(t);
      }
    }
    if (!whole.empty()) return normalise(std::move(whole)) + floor_div(normalise(std::move(rest)), b);
  }
  return atom(Kind::floor_div, a, b);
}
Dim ceil_div(const Dim& a, const Dim& b) {
  if (b.is(1)) return a;
  if (a.is_constant() && b.is_constant() && !b.is(0)) return int_ceil_div(*a.constant(), *b.constant());
  if (auto q = divide_exactly(a, b)) return *q;
  if (auto c = b.constant(); c && *c > 0) return floor_div(a + Dim(*c - 1), b);
  return atom(Kind::ceil_div, a, b);
}
Dim mod(const Dim& a, const Dim& b) {
  if (b.is(1)) return 0;
  if (a.is_constant() && b.is_constant() && !b.is(0)) return int_mod(*a.constant(), *b.constant());
  if (divide_exactly(a, b)) return 0;
  return atom(Kind::mod, a, b);
}
Dim max(const Dim& a, const Dim& b) {
  if (known_non_negative(a - b)) return a;
  if (known_non_negative(b - a)) return b;
  return a.to_string() < b.to_string() ? atom(Kind::max, a, b) : atom(Kind::max, b, a);
}
Dim min(const Dim& a, const Dim& b) {
  if (known_non_negative(a - b)) return b;
  if (known_non_negative(b - a)) return a;
  return a.to_string() < b.to_string() ? atom(Kind::min, a, b) : atom(Kind::min, b, a);
}
Dim bcast(const Dim& a, const Dim& b) {
  if (a == b || b.is(1)) return a;
  if (a.is(1)) return b;
  // One known size other than 1 decides: the other is 1 or equal to it, else the run fails.
  if (a.is_constant()) return a;
  if (b.is_constant()) return b;
  return a.to_string() < b.to_string() ? atom(Kind::bcast, a, b) : atom(Kind::bcast, b, a);
}
Dim exact_div(const Dim& a, const Dim& b) {
  if (auto q = divide_exactly(a, b)) return *q;
  return floor_div(a, b);
}
Dim product(const std::vector<Dim>& dims) {
  Dim p = 1;
  for (const Dim& d : dims) p = p * d;
  return p;
}

std::string to_string(const std::vector<Dim>& dims) {
  std::string s = "[";
  for (size_t i = 0; i < dims.size(); ++i) s += (i ? "," : "") + dims[i].to_string();
  return s + "]";
}
std::optional<Shape> constant_shape(const std::vector<Dim>& dims) {
  Shape s;
  for (const Dim& d : dims) {
    if (!d.is_constant()) return std::nullopt;
    s.push_back(*d.constant());
  }
  return s;
}
std::vector<Dim> to_dims(const Shape& shape) { return {shape.begin(), shape.end()}; }

// ---------------------------------------------------------------- parser

namespace {
struct Parser {
  std::string_view s;
  size_t i = 0;
  int depth = 0;

  void space() {
    while (i < s.size() && s[i] == ' ') ++i;
  }
  bool eat(char c) {
    space();
    if (i < s.size() && s[i] == c) return ++i, true;
    return false;
  }
  Status bad(const char* what) {
    return Status(Code::invalid_argument, "The dimension \"" + std::string(s) + "\" is not an expression: " + what +
                                              " at position " + std::to_string(i) + ".");
  }
  Result<Dim> sum() {
    if (++depth > 64) return bad("nested too deeply");
    bool negative = eat('-');
    Dim v = AI_VMM_TAKE(term());
    if (negative) v = Dim(0) - v;
    for (;;) {
      if (eat('+'))
        v = v + AI_VMM_TAKE(term());
      else if (eat('-'))
        v = v - AI_VMM_TAKE(term());
      else
        break;
    }
    --depth;
    return v;
  }
  Result<Dim> term() {
    Dim v = AI_VMM_TAKE(factor());
    while (eat('*')) v = v * AI_VMM_TAKE(factor());
    return v;
  }
  Result<Dim> factor() {
    space();
    if (eat('(')) {
      Dim v = AI_VMM_TAKE(sum());
      if (!eat(')')) return bad("')' expected");
      return v;
    }
    size_t start = i;
    auto word = [&](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '/' || c == ':';
    };
    while (i < s.size() && word(s[i])) ++i;
    std::string_view w = s.substr(start, i - start);
    if (w.empty()) return bad("a number or a name expected");
    if (std::isdigit(static_cast<unsigned char>(w[0]))) {
      int64_t v = 0;
      for (char c : w) {
        if (!std::isdigit(static_cast<unsigned char>(c)) || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, c - '0', &v))
          return bad("a number is malformed");
      }
      return Dim(v);
    }
    if (eat('(')) {
      Dim a = AI_VMM_TAKE(sum());
      if (!eat(',')) return bad("',' expected");
      Dim b = AI_VMM_TAKE(sum());
      if (!eat(')')) return bad("')' expected");
      if (w == "floor_div") return floor_div(a, b);
      if (w == "ceil_div") return ceil_div(a, b);
      if (w == "mod") return mod(a, b);
      if (w == "max") return max(a, b);
      if (w == "min") return min(a, b);
      if (w == "bcast") return bcast(a, b);
      return bad("the function is unknown");
    }
    return Dim::symbol(w);
  }
};
}  // namespace

Result<Dim> Dim::parse(std::string_view text) {
  Parser p{text};
  Dim v = AI_VMM_TAKE(p.sum());
  p.space();
  if (p.i != text.size()) return p.bad("more text");
  return v;
}

}  // namespace ai_vmm
