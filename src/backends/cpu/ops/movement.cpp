// Operators that copy elements: Transpose, Concat, Split, Slice, Expand, Tile, Pad, Reshape and their like.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "backends/cpu/kernel.hpp"
#include "backends/cpu/strided.hpp"
#include "base/numbers.hpp"

namespace ai_vmm::cpu {

namespace {

// Bytes of an element; 0 where elements are packed or wider than a machine word.
int64_t element_size(const Make& m, size_t k) {
  int b = bits(m.dtype(k));
  return b == 8 || b == 16 || b == 32 || b == 64 ? b / 8 : 0;
}
constexpr const char* kPacked = "packed and 128-bit elements have no copying kernel";

// One copy from input 0 to output 0; `views` gives (dims, from strides, offset) for the sizes.
struct View {
  Shape dims, from, to;
  int64_t from_offset = 0, to_offset = 0;
};
Bound one_copy(View v, int64_t size) {
  auto copy = std::make_shared<StridedCopy>(v.dims, v.from, v.to, size);
  return Bound{[copy, v, size](Run& r) -> Status {
                 copy->run(r.in<std::byte>(0) + v.from_offset * size, r.out<std::byte>(0) + v.to_offset * size,
                           r.threads);
                 return {};
               },
               0, "copy", 0};
}

}  // namespace

// The fallback where storage cannot be shared.
Made make_reshape(const Make& m) {
  int b = bits(m.dtype(0));
  if (!b) return "strings";
  return Made(BindFn([b](const Bind& s) -> Result<Bound> {
           int64_t bytes = (product(s.in(0)) * b + 7) / 8, out = (product(s.out(0)) * b + 7) / 8;
           if (bytes != out)
             return invalid("A tensor of shape " + ai_vmm::to_string(s.in(0)) + " cannot take the shape " +
                            ai_vmm::to_string(s.out(0)) + ".");
           return Bound{[bytes](Run& r) -> Status {
                          if (bytes && r.out<void>(0) != r.in<void>(0))
                            std::memcpy(r.out<void>(0), r.in<void>(0), size_t(bytes));
                          return {};
                        },
                        0, "copy", 0};
         }))
      .overwrites(1);
}

Made make_transpose(const Make& m) {
  int64_t size = element_size(m, 0);
  if (!size) return kPacked;
  auto perm = m.node.ints("perm");
  return BindFn([=](const Bind& s) -> Result<Bound> {
    auto p = perm;
    if (p.empty())
      for (size_t d = s.in(0).size(); d-- > 0;) p.push_back(int64_t(d));
    Shape in = strides_of(s.in(0)), from;
    for (int64_t d : p) from.push_back(in[size_t(d)]);
    return one_copy({s.out(0), from, strides_of(s.out(0))}, size);
  });
}

Made make_concat(const Make& m) {
  int64_t size = element_size(m, 0);
  if (!size) return kPacked;
  int64_t axis = m.node.i("axis");
  size_t inputs = m.inputs();
  Layout layout = m.out_layout(0);
  return BindFn([=](const Bind& s) -> Result<Bound> {
    Shape out = physical_shape(s.out(0), layout);
    size_t a = size_t(normalise_axis(axis, int64_t(s.out(0).size())));
    int64_t outer = product(out, 0, a), row = product(out, a, out.size()) * size, at = 0;
    struct Part {
      size_t input;
      int64_t offset, bytes;
    };
    std::vector<Part> parts;
    for (size_t k = 0; k < inputs; ++k) {
      Shape in = physical_shape(s.in(k), layout);
      int64_t bytes = product(in, a, in.size()) * size;
      if (bytes && outer) parts.push_back({k, at, bytes});
      at += bytes;
    }
    return Bound{[=](Run& r) -> Status {
                   std::byte* to = r.out<std::byte>(0);
                   parallel(outer == 1 ? 1 : r.threads, outer, std::max<int64_t>(1, 65536 / std::max<int64_t>(row, 1)),
                            [&](int64_t first, int64_t last) {
                              for (int64_t o = first; o < last; ++o)
                                for (const Part& p : parts)
                                  std::memcpy(to + o * row + p.offset, r.in<std::byte>(p.input) + o * p.bytes,
                                              size_t(p.bytes));
                            });
                   return {};
                 },
                 0, "copy", 0};
  });
}

Made make_split(const Make& m) {
  int64_t size = element_size(m, 0);
  if (!size) return kPacked;
  int64_t axis = m.node.i("axis", 0);
  size_t outputs = m.outputs();
  Layout layout = m.layout(0);
  return BindFn([=](const Bind& s) -> Result<Bound> {
    Shape in = physical_shape(s.in(0), layout);
    size_t a = size_t(normalise_axis(axis, int64_t(s.in(0).size())));
    int64_t outer = product(in, 0, a), row = product(in, a, in.size()) * size, at = 0;
    std::vector<std::pair<int64_t, int64_t>> parts;
    for (size_t k = 0; k < outputs; ++k) {
      int64_t bytes = s.out_shapes[k] ? product(physical_shape(s.out(k), layout), a, in.size()) * size : 0;
      parts.emplace_back(at, bytes);
      at += bytes;
    }
    if (at != row) return invalid("The parts of Split do not add up to the axis of " + ai_vmm::to_string(in) + ".");
    return Bound{[=](Run& r) -> Status {
                   const std::byte* from = r.in<std::byte>(0);
                   parallel(r.threads, outer, std::max<int64_t>(1, 65536 / std::max<int64_t>(row, 1)),
                            [&](int64_t first, int64_t last) {
                              for (int64_t o = first; o < last; ++o)
                                for (size_t k = 0; k < parts.size(); ++k)
                                  if (auto* to = r.out<std::byte>(k))
                                    std::memcpy(to + o * parts[k].second, from + o * row + parts[k].first,
                                                size_t(parts[k].second));
                            });
                   return {};
                 },
                 0, "copy", 0};
  });
}

Made make_slice(const Make& m) {
  int64_t size = element_size(m, 0);
  if (!size) return kPacked;
  bool has_axes = m.has(3), has_steps = m.has(4);
  return Made(BindFn([=](const Bind& s) -> Result<Bound> {
           const Shape& in = s.in(0);
           Shape own = strides_of(in);
           View v{s.out(0), own, strides_of(s.out(0))};
           const auto& starts = s.ints(1);
           for (size_t i = 0; i < starts.size(); ++i) {
             int64_t a = normalise_axis(has_axes ? s.ints(3)[i] : int64_t(i), int64_t(in.size()));
             if (a < 0 || a >= int64_t(in.size()))
               return invalid("An axis of Slice is outside " + ai_vmm::to_string(in) + ".");
             int64_t step = has_steps ? s.ints(4)[i] : 1, n = in[size_t(a)];
             int64_t start = starts[i] < 0 ? starts[i] + n : starts[i];
             start = step > 0 ? std::clamp<int64_t>(start, 0, n)
                              : std::clamp<int64_t>(start, 0, std::max<int64_t>(n - 1, 0));
             v.from[size_t(a)] = own[size_t(a)] * step;
             if (s.out(0)[size_t(a)] > 0) v.from_offset += start * own[size_t(a)];
           }
           return one_copy(v, size);
         }))
      .needs(0x1e);
}

Made make_expand(const Make& m) {
  int64_t size = element_size(m, 0);
  if (!size) return kPacked;
  return Made(BindFn([=](const Bind& s) -> Result<Bound> {
    const Shape &in = s.in(0), &out = s.out(0);
    Shape own = strides_of(in), from(out.size(), 0);
    for (size_t d = 0; d < in.size(); ++d)
      if (in[d] != 1) from[out.size() - in.size() + d] = own[d];
    return one_copy({out, from, strides_of(out)}, size);
  }));
}

Made make_tile(const Make& m) {
  int64_t size = element_size(m, 0);
  if (!size) return kPacked;
  return BindFn([=](const Bind& s) -> Result<Bound> {
    Shape dims, from, to, in = strides_of(s.in(0)), out = strides_of(s.out(0));
    for (size_t d = 0; d < s.in(0).size(); ++d) {
      int64_t n = s.in(0)[d];
      dims.insert(dims.end(), {n ? s.out(0)[d] / n : 0, n});
      from.insert(from.end(), {0, in[d]});
      to.insert(to.end(), {out[d] * n, out[d]});
    }
    return one_copy({dims, from, to}, size);
  });
}

// Depth and space change places: a transpose of six axes.
static Made depth_space(const Make& m, bool to_space) {
  int64_t size = element_size(m, 0);
  if (!size) return kPacked;
  int64_t block = m.node.i("blocksize");
  bool crd = m.node.s("mode", "DCR") == "CRD";
  return BindFn([=](const Bind& s) -> Result<Bound> {
    const Shape& x = to_space ? s.out(0) : s.in(0);  // the side with the larger picture: [n, c, h·b, w·b]
    const Shape& y = to_space ? s.in(0) : s.out(0);  // [n, c·b·b, h, w]
    int64_t n = x[0], c = x[1], h = y[2], w = y[3], hw = h * w;
    Shape dims{n, c, h, block, w, block};
    Shape big{c * h * block * w * block, h * block * w * block, block * w * block, w * block, block, 1};
    Shape deep{y[1] * hw, crd ? block * block * hw : hw, w, (crd ? block : block * c) * hw, 1, (crd ? 1 : c) * hw};
    return to_space ? one_copy({dims, deep, big}, size) : one_copy({dims, big, deep}, size);
  });
}
Made make_depth_to_space(const Make& m) { return depth_space(m, true); }
Made make_space_to_depth(const Make& m) { return depth_space(m, false); }

Made make_pad(const Make& m) {
  int64_t size = element_size(m, 0);
  if (!size) return kPacked;
  std::string mode = m.node.s("mode", "constant");
  bool has_axes = m.has(3), has_value = m.has(2);
  if (mode != "constant" && mode != "reflect" && mode != "edge" && mode != "wrap") return "an unknown padding mode";
  return Made(BindFn([=](const Bind& s) -> Result<Bound> {
           const Shape &in = s.in(0), &out = s.out(0);
           size_t rank = in.size();
           std::vector<int64_t> before(rank, 0);
           const auto& pads = s.ints(1);
           size_t n = pads.size() / 2;
           for (size_t i = 0; i < n; ++i) {
             int64_t a = normalise_axis(has_axes ? s.ints(3)[i] : int64_t(i), int64_t(rank));
             if (a < 0 || a >= int64_t(rank))
               return invalid("An axis of Pad is outside " + ai_vmm::to_string(in) + ".");
             before[size_t(a)] = pads[i];
           }
           if (mode == "constant") {
             // The part of the input that survives negative pads, placed in a filled output.
             Shape dims(rank), from = strides_of(in), to = strides_of(out);
             int64_t from_offset = 0, to_offset = 0;
             for (size_t d = 0; d < rank; ++d) {
               int64_t first = std::max<int64_t>(0, -before[d]), last = std::min(in[d], out[d] - before[d]);
               dims[d] = std::max<int64_t>(0, last - first);
               from_offset += first * from[d];
               to_offset += (first + before[d]) * to[d];
             }
             auto copy = std::make_shared<StridedCopy>(dims, from, to, size);
             int64_t count = product(out);
             bool whole = product(dims) == count;
             return Bound{[=](Run& r) -> Status {
                            std::byte value[8] = {};
                            if (has_value) std::memcpy(value, r.in<void>(2), size_t(size));
                            if (!whole)
                              parallel(r.threads, count, 1 << 15, [&](int64_t first, int64_t last) {
                                switch (size) {
                                  case 1:
                                    std::memset(r.out<uint8_t>(0) + first, int(value[0]), size_t(last - first));
                                    break;
                                  case 2: {
                                    uint16_t v;
                                    std::memcpy(&v, value, 2);
                                    std::fill(r.out<uint16_t>(0) + first, r.out<uint16_t>(0) + last, v);
                                    break;
                                  }
                                  case 4: {
                                    uint32_t v;
                                    std::memcpy(&v, value, 4);
                                    std::fill(r.out<uint32_t>(0) + first, r.out<uint32_t>(0) + last, v);
                                    break;
                                  }
                                  default: {
                                    uint64_t v;
                                    std::memcpy(&v, value, 8);
                                    std::fill(r.out<uint64_t>(0) + first, r.out<uint64_t>(0) + last, v);
                                  }
                                }
                              });
                            copy->run(r.in<std::byte>(0) + from_offset * size, r.out<std::byte>(0) + to_offset * size,
                                      r.threads);
                            return {};
                          },
                          0, "constant", 0};
           }
           // Index tables per axis: where each output position reads.
           std::vector<std::vector<int64_t>> table(rank);
           Shape own = strides_of(in);
           for (size_t d = 0; d < rank; ++d) {
             int64_t len = in[d];
             if (len == 0 && out[d] > 0) return invalid("An empty axis cannot be padded with mode \"" + mode + "\".");
             for (int64_t o = 0; o < out[d]; ++o) {
               int64_t i = o - before[d];
               if (mode == "edge")
                 i = std::clamp<int64_t>(i, 0, len - 1);
               else if (mode == "wrap")
                 i = ((i % len) + len) % len;
               else if (len == 1)
                 i = 0;
               else {
                 int64_t period = 2 * (len - 1);
                 i = ((i % period) + period) % period;
                 if (i >= len) i = period - i;
               }
               table[d].push_back(i * own[d]);
             }
           }
           Shape shape = out;
           return Bound{[=](Run& r) -> Status {
                          int64_t rows = shape.empty() ? 1 : product(shape, 0, rank - 1),
                                  inner = shape.empty() ? 1 : shape[rank - 1];
                          parallel(r.threads, rows, std::max<int64_t>(1, 8192 / std::max<int64_t>(inner, 1)),
                                   [&](int64_t first, int64_t last) {
                                     for (int64_t row = first; row < last; ++row) {
                                       int64_t offset = 0, rest = row;
                                       for (size_t d = rank - 1; d-- > 0;) {
                                         offset += table[d][size_t(rest % shape[d])];
                                         rest /= shape[d];
                                       }
                                       const std::byte* from = r.in<std::byte>(0) + offset * size;
                                       std::byte* to = r.out<std::byte>(0) + row * inner * size;
                                       for (int64_t i = 0; i < inner; ++i)
                                         std::memcpy(to + i * size, from + table[rank - 1][size_t(i)] * size,
                                                     size_t(size));
                                     }
                                   });
                          return {};
                        },
                        0, mode, 0};
         }))
      .needs(0xa);
}

Made make_shape(const Make& m) {
  int64_t start = m.node.i("start", 0), end = m.node.i("end", INT64_MAX);
  return BindFn([=](const Bind& s) -> Result<Bound> {
    int64_t rank = int64_t(s.in(0).size());
    int64_t a = std::clamp<int64_t>(start < 0 ? start + rank : start, 0, rank),
            b = std::clamp<int64_t>(end < 0 ? end + rank : end, a, rank);
    Shape dims(s.in(0).begin() + a, s.in(0).begin() + b);
    return Bound{[dims](Run& r) -> Status {
      std::copy(dims.begin(), dims.end(), r.out<int64_t>(0));
      return {};
    }};
  });
}
Made make_size(const Make&) {
  return BindFn([](const Bind& s) -> Result<Bound> {
    int64_t n = product(s.in(0));
    return Bound{[n](Run& r) -> Status {
      *r.out<int64_t>(0) = n;
      return {};
    }};
  });
}

Made make_constant_of_shape(const Make& m) {
  DType t = m.out_dtype(0);
  int64_t size = bits(t) / 8;
  if (bits(t) % 8 || size > 8) return kPacked;
  uint64_t value = 0;
  if (const Tensor* v = m.node.tensor("value"))
    if (v->count() == 1) std::memcpy(&value, v->data(), size_t(size));
  return Made(BindFn([=](const Bind& s) -> Result<Bound> {
           int64_t n = product(s.out(0));
           return Bound{[=](Run& r) -> Status {
             switch (size) {
               case 1: std::fill_n(r.out<uint8_t>(0), n, uint8_t(value)); break;
               case 2: std::fill_n(r.out<uint16_t>(0), n, uint16_t(value)); break;
               case 4: std::fill_n(r.out<uint32_t>(0), n, uint32_t(value)); break;
               default: std::fill_n(r.out<uint64_t>(0), n, value);
             }
             return {};
           }};
         }))
      .needs(1);
}

template <class T>
static Bound bind_range(int64_t n) {
  return Bound{[n](Run& r) -> Status {
    T start = *r.in<T>(0), step = *r.in<T>(2);
    for (int64_t i = 0; i < n; ++i) r.out<T>(0)[i] = T(start + T(i) * step);
    return {};
  }};
}
Made make_range(const Make& m) {
  DType t = m.dtype(0);
  if (t != DType::f32 && t != DType::i64 && t != DType::i32) return "this element type";
  return Made(BindFn([=](const Bind& s) -> Result<Bound> {
    int64_t n = product(s.out(0));
    return t == DType::f32 ? bind_range<float>(n) : t == DType::i64 ? bind_range<int64_t>(n) : bind_range<int32_t>(n);
  }));
}

}  // namespace ai_vmm::cpu
