// Conversions of element types.

#include <charconv>
#include <cmath>

#include "base/text.hpp"
#include "ops/all_ops.hpp"
#include "ops/common.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

bool is_known(int64_t dtype) { return dtype > 0 && dtype < kDTypeCount; }

// ---------------------------------------------------------------- text

// The shortest text that reads back as the same number; NaN, INF and -INF as the ONNX specification spells them.
template <class T>
std::string float_text(T v) {
  if (std::isnan(v)) return "NaN";
  if (std::isinf(v)) return v > 0 ? "INF" : "-INF";
  char buffer[64];
  auto end = std::to_chars(buffer, buffer + sizeof buffer, v).ptr;
  return std::string(buffer, end);
}

std::string text_of(const Tensor& t, int64_t i) {
  DType d = t.dtype();
  if (d == DType::boolean) return read_int64(d, t.data(), i) ? "1" : "0";
  if (d == DType::u64) return std::to_string(uint64_t(read_int64(d, t.data(), i)));
  if (is_integer(d)) return std::to_string(read_int64(d, t.data(), i));
  double v = read_double(d, t.data(), i);
  return d == DType::f64 ? float_text(v) : float_text(float(v));
}

// Reads all of `text` as a T, "+" and surrounding blanks admitted.
template <class T>
std::optional<T> number(std::string_view text) {
  text = trim(text);
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  T v{};
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (end != text.data() + text.size() || text.empty()) return std::nullopt;
  if (error == std::errc::result_out_of_range && std::is_floating_point_v<T>) {
    // from_chars leaves the value untouched: a magnitude below the least number is 0, one above the greatest infinite.
    double wide = std::strtod(std::string(text).c_str(), nullptr);
    return T(wide);
  }
  return error == std::errc() ? std::optional<T>(v) : std::nullopt;
}

// Writes the number that `text` spells; false when it spells none.
bool parse_into(Tensor& y, int64_t i, std::string_view text) {
  if (is_integer(y.dtype())) {
    if (y.dtype() == DType::u64) {
      if (auto v = number<uint64_t>(text)) return write_int64(y.dtype(), y.mutable_data(), i, int64_t(*v)), true;
    } else if (auto v = number<int64_t>(text)) {
      return write_int64(y.dtype(), y.mutable_data(), i, *v), true;
    }
  }
  if (y.dtype() == DType::f32) {
    auto v = number<float>(text);
    if (v) write_double(y.dtype(), y.mutable_data(), i, double(*v));
    return v.has_value();
  }
  auto v = number<double>(text);
  if (v) write_double(y.dtype(), y.mutable_data(), i, *v);
  return v.has_value();
}

// ---------------------------------------------------------------- numbers

Status convert(Eval& e, DType to) {
  const Tensor& x = e.in(0);
  ref::Narrowing how;
  how.saturate = e.node.i("saturate", 1) != 0;
  std::string mode = e.node.s("round_mode", "up");
  if (mode == "down")
    how.rounding = E8M0Rounding::down;
  else if (mode == "nearest")
    how.rounding = E8M0Rounding::nearest;
  else if (mode != "up")
    return e.error("round_mode \"" + mode + "\" is unknown; it must be up, down or nearest.");
  Tensor* y = AI_VMM_TAKE(e.make(0, to, x.shape()));
  if (x.dtype() == DType::string) {
    auto text = x.as<std::string>();
    for (int64_t i = 0; i < x.count(); ++i) {
      const std::string& s = text[size_t(i)];
      if (to == DType::string)
        y->as_mutable<std::string>()[size_t(i)] = s;
      else if (!parse_into(*y, i, s))
        return e.error("the string \"" + s.substr(0, 80) + "\" is not a number.");
    }
  } else if (to == DType::string) {
    for (int64_t i = 0; i < x.count(); ++i) y->as_mutable<std::string>()[size_t(i)] = text_of(x, i);
  } else if (is_complex(x.dtype()) && is_complex(to)) {
    ref::store(*y, ref::load<ref::Complex>(x));
  } else if (!is_float(to) && !is_complex(to) && !is_float(x.dtype()) && !is_complex(x.dtype())) {
    for (int64_t i = 0; i < x.count(); ++i) write_int64(to, y->mutable_data(), i, read_int64(x.dtype(), x.data(), i));
  } else {
    for (int64_t i = 0; i < x.count(); ++i) ref::write_narrow(*y, i, read_double(x.dtype(), x.data(), i), how);
  }
  return {};
}

void propagate_integers(Infer& c, DType to) {
  if (to != DType::i64 && to != DType::i32) return;
  if (auto v = c.ints(0); v && c.output_type(0).rank() <= 1) c.set_ints(0, std::move(*v));
}

Status infer_to(Infer& c, DType to) {
  if (!c.ranked(0)) {
    c.set_unranked(0, to);
    return {};
  }
  c.set(0, to, c.dims(0));
  propagate_integers(c, to);
  return {};
}

Status infer_cast(Infer& c) {
  int64_t to = c.node.i("to");
  if (!is_known(to)) return c.error("the element type " + std::to_string(to) + " to convert to is not known.");
  return infer_to(c, DType(to));
}
Status eval_cast(Eval& e) { return convert(e, DType(e.node.i("to"))); }

Status infer_cast_like(Infer& c) { return infer_to(c, c.dtype(1)); }
Status eval_cast_like(Eval& e) { return convert(e, e.in(1).dtype()); }

Status infer_bit_cast(Infer& c) {
  int64_t to = c.node.i("to");
  if (!is_known(to)) return c.error("the element type " + std::to_string(to) + " to convert to is not known.");
  if (DType from = c.dtype(0); from != DType::undefined && bits(from) != bits(DType(to)))
    return c.error(std::string("elements of ") + name(from) + " and " + name(DType(to)) + " differ in width.");
  if (c.ranked(0))
    c.set(0, DType(to), c.dims(0));
  else
    c.set_unranked(0, DType(to));
  return {};
}
Status eval_bit_cast(Eval& e) {
  const Tensor& x = e.in(0);
  DType to = DType(e.node.i("to"));
  if (x.dtype() == DType::string || bits(to) != bits(x.dtype()))
    return e.error(std::string("elements of ") + name(x.dtype()) + " and " + name(to) + " differ in width.");
  Tensor* y = AI_VMM_TAKE(e.make(0, to, x.shape()));
  if (x.bytes()) std::memcpy(y->mutable_data(), x.data(), size_t(x.bytes()));
  return {};
}

const OpDef kOps[] = {
    {"Cast", "", 28, "input:any -> output:any", "round_mode:string=up, saturate:int=1, to:int!",
     "Converts elements to the type `to`. Integers keep their low bits; floats round to nearest even, and to an "
     "integer "
     "by truncation. saturate holds the 8-bit float kinds at their greatest number instead of infinity or NaN; "
     "round_mode (up, down, nearest) is for f8e8m0. Numbers become their shortest text, and text that spells a number "
     "becomes that number.",
     kElementwise, infer_cast, nullptr, eval_cast},
    {"CastLike", "", 25, "input:any, target_type:any -> output:any", "round_mode:string=up, saturate:int=1",
     "Cast to the element type of the second input.", kElementwise | kComposite, infer_cast_like, nullptr,
     eval_cast_like},
    {"BitCast", "", 26, "input:any -> output:any", "to:int!",
     "The same bits read as another element type of the same width.", kElementwise, infer_bit_cast, nullptr,
     eval_bit_cast},
};

}  // namespace

std::span<const OpDef> cast_ops() { return kOps; }

}  // namespace ai_vmm
