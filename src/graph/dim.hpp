// A dimension: an integer, or an integer expression over named symbols ("batch", "past + seq").
//
// Expressions are kept in one normal form: a sum of products of atoms with integer coefficients, where an atom is a
// symbol or one of floor_div, ceil_div, mod, max, min, bcast of two expressions. Two dimensions that are equal as
// polynomials compare equal; so `known_equal` is sound, and its "false" means "not known".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

class Dim {
 public:
  Dim(int64_t value = 0) : constant_(value) {}  // NOLINT: implicit, so that shape rules read as arithmetic
  static Dim symbol(std::string_view name);     // a name of letters, digits and '_' '.' '/' ':'; others become '_'
  static Result<Dim> parse(std::string_view text);

  bool is_constant() const { return poly_ == nullptr; }
  std::optional<int64_t> constant() const { return poly_ ? std::nullopt : std::optional<int64_t>(constant_); }
  bool is(int64_t value) const { return !poly_ && constant_ == value; }
  bool is_symbol() const;                                     // exactly one symbol
  std::string to_string() const;                              // parses back to an equal Dim
  void collect_symbols(std::vector<std::string>& out) const;  // appends names not yet in `out`

  // The value under the bindings; nullopt when a symbol has none, on overflow, or on division by zero. A bcast of two
  // unequal sizes, neither 1, is nullopt too: the caller reports it as a shape mismatch.
  using Lookup = std::function<std::optional<int64_t>(std::string_view symbol)>;
  std::optional<int64_t> evaluate(const Lookup& lookup) const;
  Dim substitute(const std::function<std::optional<Dim>(std::string_view)>& replace) const;

  friend bool operator==(const Dim& a, const Dim& b);

  friend Dim operator+(const Dim& a, const Dim& b);
  friend Dim operator-(const Dim& a, const Dim& b);
  friend Dim operator*(const Dim& a, const Dim& b);

  struct Poly;
  const Poly* poly() const { return poly_.get(); }
  static Dim from_poly(Poly poly);

 private:
  int64_t constant_ = 0;
  std::shared_ptr<const Poly> poly_;
};

inline bool known_equal(const Dim& a, const Dim& b) { return a == b; }
inline bool known_different(const Dim& a, const Dim& b) {
  auto d = (a - b).constant();
  return d && *d != 0;
}
// Sound, not complete: true when no sizes of the symbols (all of them >= 0) can make `d` negative.
bool known_non_negative(const Dim& d);
Dim floor_div(const Dim& a, const Dim& b);  // rounds toward minus infinity
Dim ceil_div(const Dim& a, const Dim& b);
Dim mod(const Dim& a, const Dim& b);  // has the sign of b
Dim max(const Dim& a, const Dim& b);
Dim min(const Dim& a, const Dim& b);
Dim bcast(const Dim& a, const Dim& b);  // numpy broadcasting: b where a is 1, a where b is 1 or equal
// a / b where the quotient is known to be exact (the inferred -1 of a Reshape).
Dim exact_div(const Dim& a, const Dim& b);
Dim product(const std::vector<Dim>& dims);

std::string to_string(const std::vector<Dim>& dims);  // "[batch,3,2*H]"
std::optional<Shape> constant_shape(const std::vector<Dim>& dims);
std::vector<Dim> to_dims(const Shape& shape);

}  // namespace ai_vmm
