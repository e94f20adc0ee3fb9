// Trilu and ReverseSequence: elements of any type move, nothing is computed.
#include <algorithm>
#include <cstring>

#include "backends/cpu/kernel.hpp"

namespace ai_vmm::cpu {

namespace {

Made probed() {
  return BindFn([](const Bind&) -> Result<Bound> { return Bound{}; });
}

// Bytes of an element, or 0 for packed types and strings.
int64_t element_size(DType t) { return bits(t) % 8 == 0 ? bits(t) / 8 : 0; }

}  // namespace

Made make_trilu(const Make& m) {
  int64_t size = element_size(m.dtype(0));
  if (!size) return "packed element types";
  if (m.rank(0) >= 0 && m.rank(0) < 2) return "a rank below 2";
  bool upper = m.node.i("upper", 1) != 0;
  return Made(BindFn([size, upper](const Bind& b) -> Result<Bound> {
           const Shape& in = b.in(0);
           if (in.size() < 2)
             return invalid("Trilu takes matrices; the input has shape " + ai_vmm::to_string(in) + ".");
           int64_t k = b.has(1) ? b.ints(1).at(0) : 0, rows = in[in.size() - 2], columns = in.back(),
                   all = product(in) / std::max<int64_t>(1, columns);
           return Bound{[=](Run& r) -> Status {
                          const char* from = r.in<char>(0);
                          char* to = r.out<char>(0);
                          parallel(r.threads, all, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, columns * size)),
                                   [&](int64_t begin, int64_t end) {
                                     for (int64_t i = begin; i < end; ++i) {
                                       // Columns [cut, columns) are kept by the upper triangle, [0, cut) by the lower.
                                       int64_t row = i % rows,
                                               cut = std::clamp<int64_t>(upper ? row + k : row + k + 1, 0, columns);
                                       const char* x = from + i * columns * size;
                                       char* y = to + i * columns * size;
                                       if (x != y) std::memcpy(y, x, size_t(columns * size));
                                       std::memset(upper ? y : y + cut * size, 0,
                                                   size_t((upper ? cut : columns - cut) * size));
                                     }
                                   });
                          return {};
                        },
                        0, "", 0};
         }))
      .needs(1u << 1);
}

Made make_reverse_sequence(const Make& m) {
  int64_t size = element_size(m.dtype(0)), time = m.node.i("time_axis", 0), batch = m.node.i("batch_axis", 1);
  if (!size) return "packed element types";
  if (time + batch != 1) return "axes other than 0 and 1";
  if (m.probe) return probed();
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& in = b.in(0);
    if (in.size() < 2) return invalid("ReverseSequence takes a tensor of rank 2 or more.");
    int64_t steps = in[size_t(time)], count = in[size_t(batch)], item = product(in, 2, in.size()) * size;
    return Bound{[=](Run& r) -> Status {
                   const auto* lengths = r.in<int64_t>(1);
                   for (int64_t k = 0; k < count; ++k)
                     if (lengths[k] < 0 || lengths[k] > steps)
                       return invalid("A sequence length of " + std::to_string(lengths[k]) + " is outside 0 to " +
                                      std::to_string(steps) + ".");
                   auto at = [&](int64_t t, int64_t k) { return (time == 0 ? t * count + k : k * steps + t) * item; };
                   for (int64_t t = 0; t < steps; ++t)
                     for (int64_t k = 0; k < count; ++k)
                       std::memcpy(r.out<char>(0) + at(t, k),
                                   r.in<char>(0) + at(t < lengths[k] ? lengths[k] - 1 - t : t, k), size_t(item));
                   return {};
                 },
                 0, "", 0};
  });
}

}  // namespace ai_vmm::cpu
