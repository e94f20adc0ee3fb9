// GatherElements, GatherND, ScatterElements, ScatterND, OneHot, CumSum.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "backends/cpu/kernel.hpp"

namespace ai_vmm::cpu {

namespace {

Made probed() {
  return BindFn([](const Bind&) -> Result<Bound> { return Bound{}; });
}

int64_t element_size(DType t) { return bits(t) % 8 == 0 ? bits(t) / 8 : 0; }

// Reads index i of an i32 or i64 list, wraps it into [0, n), or returns -1.
struct Indices {
  const void* data;
  bool wide;
  int64_t at(int64_t i, int64_t n) const {
    int64_t v = wide ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
    if (v < 0) v += n;
    return v >= 0 && v < n ? v : -1;
  }
  Status outside(int64_t i, int64_t n) const {
    int64_t v = wide ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
    return invalid("The index " + std::to_string(v) + " is outside an axis of " + std::to_string(n) + " elements.");
  }
};

bool index_type(DType t) { return t == DType::i64 || t == DType::i32; }

enum class Reduction { none, add, mul, max, min };
std::optional<Reduction> reduction_of(const Node& n) {
  std::string s = n.s("reduction", "none");
  if (s == "none") return Reduction::none;
  if (s == "add") return Reduction::add;
  if (s == "mul") return Reduction::mul;
  if (s == "max") return Reduction::max;
  if (s == "min") return Reduction::min;
  return std::nullopt;
}

template <class T>
void combine(Reduction how, T& to, T from) {
  switch (how) {
    case Reduction::none: to = from; break;
    case Reduction::add: to = T(to + from); break;
    case Reduction::mul: to = T(to * from); break;
    // NaN wins, as in NumPy.
    case Reduction::max: to = from > to || from != from ? from : to; break;
    case Reduction::min: to = from < to || from != from ? from : to; break;
  }
}

// to[i] (op)= from[i] for n elements.
using CombineFn = void (*)(Reduction, void* to, const void* from, int64_t n);
template <class T>
void combine_all(Reduction how, void* to, const void* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) combine(how, static_cast<T*>(to)[i], static_cast<const T*>(from)[i]);
}
CombineFn combiner(DType t, Reduction how) {
  if (how == Reduction::none) {
    switch (element_size(t)) {
      case 1: return combine_all<uint8_t>;
      case 2: return combine_all<uint16_t>;
      case 4: return combine_all<uint32_t>;
      case 8: return combine_all<uint64_t>;
      default: return nullptr;
    }
  }
  switch (t) {
    case DType::f32: return combine_all<float>;
    case DType::f64: return combine_all<double>;
    case DType::i32: return combine_all<int32_t>;
    case DType::i64: return combine_all<int64_t>;
    default: return nullptr;
  }
}

}  // namespace

Made make_gather_elements(const Make& m) {
  int64_t size = element_size(m.dtype(0)), axis = m.node.i("axis", 0);
  if (!size) return "packed element types";
  if (!index_type(m.dtype(1))) return "the type of the indices";
  if (m.probe) return probed();
  bool wide = m.dtype(1) == DType::i64;
  return BindFn([=](const Bind& b) -> Result<Bound> {
    Shape in = b.in(0), out = b.in(1);
    if (in.size() != out.size() || in.empty())
      return invalid("Data " + ai_vmm::to_string(in) + " and indices " + ai_vmm::to_string(out) +
                     " must have one rank.");
    auto a = size_t(normalise_axis(axis, int64_t(in.size())));
    if (a >= in.size()) return invalid("The axis " + std::to_string(axis) + " is outside the data.");
    Shape strides = strides_of(in);
    int64_t n = in[a];
    for (size_t i = 0; i < in.size(); ++i)
      if (i != a && out[i] > in[i])
        return invalid("Indices " + ai_vmm::to_string(out) + " reach past data " + ai_vmm::to_string(in) + ".");
    return Bound{[=](Run& r) -> Status {
                   Indices index{r.in<void>(1), wide};
                   const char* from = r.in<char>(0);
                   char* to = r.out<char>(0);
                   const int64_t columns = out.back(), rows = product(out, 0, out.size() - 1);
                   std::atomic<int64_t> bad{-1};
                   parallel(r.threads, rows, std::max<int64_t>(1, 4096 / std::max<int64_t>(1, columns)),
                            [&](int64_t begin, int64_t end) {
                              for (int64_t row = begin; row < end; ++row) {
                                int64_t rest = row, base = 0;
                                for (size_t i = out.size() - 1; i-- > 0;) {
                                  if (i != a) base += rest % out[i] * strides[i];
                                  rest /= out[i];
                                }
                                for (int64_t j = 0; j < columns; ++j) {
                                  int64_t at = index.at(row * columns + j, n);
                                  if (at < 0) {
                                    bad = row * columns + j;
                                    return;
                                  }
                                  int64_t source = a + 1 == out.size() ? base + at : base + at * strides[a] + j;
                                  std::memcpy(to + (row * columns + j) * size, from + source * size, size_t(size));
                                }
                              }
                            });
                   return bad >= 0 ? index.outside(bad, n) : Status();
                 },
                 0, "", 0};
  });
}

Made make_scatter_elements(const Make& m) {
  auto how = reduction_of(m.node);
  if (!how) return "the reduction";
  CombineFn fn = combiner(m.dtype(0), *how);
  if (!fn) return "the element type";
  if (!index_type(m.dtype(1))) return "the type of the indices";
  if (m.probe) return probed();
  int64_t size = element_size(m.dtype(0)), axis = m.node.i("axis", 0);
  bool wide = m.dtype(1) == DType::i64;
  return Made(BindFn([=](const Bind& b) -> Result<Bound> {
           Shape in = b.in(0), at = b.in(1);
           if (in.size() != at.size() || in.empty() || b.in(2) != at)
             return invalid("Data " + ai_vmm::to_string(in) + ", indices " + ai_vmm::to_string(at) + " and updates " +
                            ai_vmm::to_string(b.in(2)) + " do not fit together.");
           auto a = size_t(normalise_axis(axis, int64_t(in.size())));
           if (a >= in.size()) return invalid("The axis " + std::to_string(axis) + " is outside the data.");
           Shape strides = strides_of(in);
           int64_t n = in[a], bytes = product(in) * size;
           for (size_t i = 0; i < in.size(); ++i)
             if (i != a && at[i] > in[i])
               return invalid("Indices " + ai_vmm::to_string(at) + " reach past data " + ai_vmm::to_string(in) + ".");
           return Bound{[=](Run& r) -> Status {
                          char* to = r.out<char>(0);
                          if (to != r.in<char>(0)) std::memcpy(to, r.in<char>(0), size_t(bytes));
                          Indices index{r.in<void>(1), wide};
                          const char* from = r.in<char>(2);
                          const int64_t columns = at.back(), rows = product(at, 0, at.size() - 1);
                          for (int64_t row = 0; row < rows; ++row) {
                            int64_t rest = row, base = 0;
                            for (size_t i = at.size() - 1; i-- > 0;) {
                              if (i != a) base += rest % at[i] * strides[i];
                              rest /= at[i];
                            }
                            for (int64_t j = 0; j < columns; ++j) {
                              int64_t v = index.at(row * columns + j, n);
                              if (v < 0) return index.outside(row * columns + j, n);
                              int64_t target = a + 1 == at.size() ? base + v : base + v * strides[a] + j;
                              fn(*how, to + target * size, from + (row * columns + j) * size, 1);
                            }
                          }
                          return {};
                        },
                        0, "", 0};
         }))
      .overwrites(1);
}

namespace {

// The parts that GatherND and ScatterND share: tuples of indices that name slices of the data.
struct Tuples {
  int64_t batches, tuples, depth;  // tuples a batch
  Shape sizes;                     // of the indexed axes
  Shape steps;                     // elements that one index of each moves by
  int64_t slice, batch;            // elements of a slice, of a batch of the data

  static Result<Tuples> of(const Shape& data, const Shape& indices, int64_t batch_dims) {
    auto rank = int64_t(data.size());
    if (indices.empty() || data.empty()) return invalid("Data and indices must have a rank of at least 1.");
    Tuples t;
    t.depth = indices.back();
    if (batch_dims < 0 || batch_dims >= int64_t(indices.size()) || batch_dims + t.depth > rank)
      return invalid("Indices " + ai_vmm::to_string(indices) + " name more axes than data " + ai_vmm::to_string(data) +
                     " has.");
    t.batches = product(data, 0, size_t(batch_dims));
    if (product(indices, 0, size_t(batch_dims)) != t.batches)
      return invalid("Indices " + ai_vmm::to_string(indices) + " and data " + ai_vmm::to_string(data) +
                     " differ in their batches.");
    t.tuples = product(indices, size_t(batch_dims), indices.size() - 1);
    t.slice = product(data, size_t(batch_dims + t.depth), data.size());
    t.batch = product(data, size_t(batch_dims), data.size());
    Shape strides = strides_of(data);
    for (int64_t i = 0; i < t.depth; ++i) {
      t.sizes.push_back(data[size_t(batch_dims + i)]);
      t.steps.push_back(strides[size_t(batch_dims + i)]);
    }
    return t;
  }
  // Offset in elements of the slice that tuple i of a batch names; -1 when an index is outside.
  int64_t offset(const int64_t* index, int64_t batch_at, int64_t i) const {
    const int64_t* tuple = index + (batch_at * tuples + i) * depth;
    int64_t at = batch_at * batch;
    for (int64_t k = 0; k < depth; ++k) {
      int64_t v = tuple[k] < 0 ? tuple[k] + sizes[size_t(k)] : tuple[k];
      if (v < 0 || v >= sizes[size_t(k)]) return -1;
      at += v * steps[size_t(k)];
    }
    return at;
  }
  static Status outside() { return invalid("An index is outside the data."); }
};

}  // namespace

Made make_gather_nd(const Make& m) {
  int64_t size = element_size(m.dtype(0)), batch_dims = m.node.i("batch_dims", 0);
  if (!size) return "packed element types";
  if (m.dtype(1) != DType::i64) return "the type of the indices";
  if (m.probe) return probed();
  return BindFn([=](const Bind& b) -> Result<Bound> {
    Tuples t = AI_VMM_TAKE(Tuples::of(b.in(0), b.in(1), batch_dims));
    return Bound{[=](Run& r) -> Status {
                   char* to = r.out<char>(0);
                   const int64_t bytes = t.slice * size;
                   for (int64_t k = 0; k < t.batches; ++k)
                     for (int64_t i = 0; i < t.tuples; ++i, to += bytes) {
                       int64_t at = t.offset(r.in<int64_t>(1), k, i);
                       if (at < 0) return Tuples::outside();
                       std::memcpy(to, r.in<char>(0) + at * size, size_t(bytes));
                     }
                   return {};
                 },
                 0, "", 0};
  });
}

Made make_scatter_nd(const Make& m) {
  auto how = reduction_of(m.node);
  if (!how) return "the reduction";
  CombineFn fn = combiner(m.dtype(0), *how);
  if (!fn) return "the element type";
  if (m.dtype(1) != DType::i64) return "the type of the indices";
  if (m.probe) return probed();
  int64_t size = element_size(m.dtype(0));
  return Made(BindFn([=](const Bind& b) -> Result<Bound> {
           Tuples t = AI_VMM_TAKE(Tuples::of(b.in(0), b.in(1), 0));
           if (product(b.in(2)) != t.tuples * t.slice)
             return invalid("Updates " + ai_vmm::to_string(b.in(2)) + " do not fit the indices.");
           int64_t bytes = product(b.in(0)) * size;
           return Bound{[=](Run& r) -> Status {
                          char* to = r.out<char>(0);
                          if (to != r.in<char>(0)) std::memcpy(to, r.in<char>(0), size_t(bytes));
                          for (int64_t i = 0; i < t.tuples; ++i) {
                            int64_t at = t.offset(r.in<int64_t>(1), 0, i);
                            if (at < 0) return Tuples::outside();
                            fn(*how, to + at * size, r.in<char>(2) + i * t.slice * size, t.slice);
                          }
                          return {};
                        },
                        0, "", 0};
         }))
      .overwrites(1);
}

Made make_one_hot(const Make& m) {
  int64_t size = element_size(m.out_dtype(0)), axis = m.node.i("axis", -1);
  if (!size) return "the type of the values";
  if (!index_type(m.dtype(0))) return "the type of the indices";
  if (m.probe) return probed();
  bool wide = m.dtype(0) == DType::i64;
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& out = b.out(0);
    auto a = size_t(normalise_axis(axis, int64_t(out.size())));
    if (a >= out.size()) return invalid("The axis " + std::to_string(axis) + " is outside the output.");
    int64_t depth = out[a], outer = product(out, 0, a), inner = product(out, a + 1, out.size());
    return Bound{[=](Run& r) -> Status {
                   Indices index{r.in<void>(0), wide};
                   const char* values = r.in<char>(2);
                   char* to = r.out<char>(0);
                   for (int64_t i = 0, n = outer * depth * inner; i < n; ++i)
                     std::memcpy(to + i * size, values, size_t(size));
                   for (int64_t o = 0; o < outer; ++o)
                     for (int64_t k = 0; k < inner; ++k) {
                       int64_t at = index.at(o * inner + k, depth);
                       if (at >= 0)
                         std::memcpy(to + ((o * depth + at) * inner + k) * size, values + size, size_t(size));
                     }
                   return {};
                 },
                 0, "", 0};
  });
}

namespace {
template <class T>
void cumulate(const T* x, T* y, int64_t outer, int64_t n, int64_t inner, bool exclusive, bool reverse) {
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t k = 0; k < inner; ++k) {
      double sum_f = 0;
      T sum_i = 0;
      for (int64_t i = 0; i < n; ++i) {
        int64_t at = (o * n + (reverse ? n - 1 - i : i)) * inner + k;
        T now = x[at];
        T before = std::is_floating_point_v<T> ? T(sum_f) : sum_i;
        sum_f += double(now);
        if constexpr (!std::is_floating_point_v<T>)
          sum_i = T(std::make_unsigned_t<T>(sum_i) + std::make_unsigned_t<T>(now));
        y[at] = exclusive ? before : std::is_floating_point_v<T> ? T(sum_f) : sum_i;
      }
    }
}
}  // namespace

Made make_cum_sum(const Make& m) {
  DType t = m.dtype(0);
  if (t != DType::f32 && t != DType::f64 && t != DType::i32 && t != DType::i64) return "the element type";
  bool exclusive = m.node.i("exclusive", 0) != 0, reverse = m.node.i("reverse", 0) != 0;
  return Made(BindFn([=](const Bind& b) -> Result<Bound> {
           const Shape& in = b.in(0);
           auto a = size_t(normalise_axis(b.ints(1).at(0), int64_t(in.size())));
           if (a >= in.size())
             return invalid("The axis " + std::to_string(b.ints(1)[0]) + " is outside a tensor of rank " +
                            std::to_string(in.size()) + ".");
           int64_t n = in[a], outer = product(in, 0, a), inner = product(in, a + 1, in.size());
           return Bound{[=](Run& r) -> Status {
                          switch (t) {
                            case DType::f32:
                              cumulate(r.in<float>(0), r.out<float>(0), outer, n, inner, exclusive, reverse);
                              break;
                            case DType::f64:
                              cumulate(r.in<double>(0), r.out<double>(0), outer, n, inner, exclusive, reverse);
                              break;
                            case DType::i32:
                              cumulate(r.in<int32_t>(0), r.out<int32_t>(0), outer, n, inner, exclusive, reverse);
                              break;
                            default: cumulate(r.in<int64_t>(0), r.out<int64_t>(0), outer, n, inner, exclusive, reverse);
                          }
                          return {};
                        },
                        0, "", 0};
         }))
      .needs(1u << 1);
}

}  // namespace ai_vmm::cpu
