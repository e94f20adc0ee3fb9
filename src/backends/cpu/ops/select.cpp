// TopK, ArgMax, ArgMin, NonZero, NonMaxSuppression.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "backends/cpu/kernel.hpp"

namespace ai_vmm::cpu {

namespace {

Made probed() {
  return BindFn([](const Bind&) -> Result<Bound> { return Bound{}; });
}

// Calls f(T{}) with the C++ type of a plain number type; false when there is none here.
template <class F>
bool with_type(DType t, F&& f) {
  switch (t) {
    case DType::f32: f(float()); return true;
    case DType::f64: f(double()); return true;
    case DType::i64: f(int64_t()); return true;
    case DType::i32: f(int32_t()); return true;
    case DType::u8: f(uint8_t()); return true;
    case DType::i8: f(int8_t()); return true;
    default: return false;
  }
}

template <class T>
void top_k(const T* x, T* values, int64_t* indices, int64_t outer, int64_t n, int64_t inner, int64_t k, bool largest,
           int threads) {
  parallel(threads, outer * inner, std::max<int64_t>(1, 4096 / std::max<int64_t>(1, n)),
           [&](int64_t begin, int64_t end) {
             std::vector<int64_t> order(static_cast<size_t>(n));
             for (int64_t lane = begin; lane < end; ++lane) {
               const T* from = x + lane / inner * n * inner + lane % inner;
               std::iota(order.begin(), order.end(), int64_t(0));
               // Equal elements: the lower index first.
               auto before = [&](int64_t a, int64_t b) {
                 T p = from[a * inner], q = from[b * inner];
                 if (p != q) return largest ? p > q : p < q;
                 return a < b;
               };
               if (k < n) std::nth_element(order.begin(), order.begin() + k, order.end(), before);
               std::sort(order.begin(), order.begin() + k, before);
               int64_t to = lane / inner * k * inner + lane % inner;
               for (int64_t i = 0; i < k; ++i) {
                 if (values) values[to + i * inner] = from[order[size_t(i)] * inner];
                 if (indices) indices[to + i * inner] = order[size_t(i)];
               }
             }
           });
}

template <class T>
void arg_best(const T* x, int64_t* y, int64_t outer, int64_t n, int64_t inner, bool largest, bool last, int threads) {
  parallel(threads, outer * inner, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, n)),
           [&](int64_t begin, int64_t end) {
             for (int64_t lane = begin; lane < end; ++lane) {
               const T* from = x + lane / inner * n * inner + lane % inner;
               int64_t best = 0;
               T at = from[0];
               for (int64_t i = 1; i < n; ++i) {
                 T v = from[i * inner];
                 bool better = largest ? v > at : v < at;
                 if (better || (last && v == at)) {
                   best = i;
                   at = v;
                 }
               }
               y[lane] = best;
             }
           });
}

Made arg(const Make& m, bool largest) {
  DType t = m.dtype(0);
  if (!with_type(t, [](auto) {})) return "the element type";
  if (m.probe) return probed();
  int64_t axis = m.node.i("axis", 0);
  bool last = m.node.i("select_last_index", 0) != 0;
  return BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape& in = b.in(0);
    auto a = size_t(normalise_axis(axis, int64_t(in.size())));
    if (a >= in.size())
      return invalid("The axis " + std::to_string(axis) + " is outside a tensor of rank " + std::to_string(in.size()) +
                     ".");
    int64_t n = in[a], outer = product(in, 0, a), inner = product(in, a + 1, in.size());
    if (n == 0) return invalid("An axis without elements has no largest or smallest one.");
    return Bound{[=](Run& r) -> Status {
                   with_type(t, [&]<class T>(T) {
                     arg_best(r.in<T>(0), r.out<int64_t>(0), outer, n, inner, largest, last, r.threads);
                   });
                   return {};
                 },
                 0, "", double(outer * n * inner)};
  });
}

}  // namespace

Made make_arg_max(const Make& m) { return arg(m, true); }
Made make_arg_min(const Make& m) { return arg(m, false); }

Made make_top_k(const Make& m) {
  DType t = m.dtype(0);
  if (!with_type(t, [](auto) {})) return "the element type";
  int64_t axis = m.node.i("axis", -1);
  bool largest = m.node.i("largest", 1) != 0;
  return Made(BindFn([=](const Bind& b) -> Result<Bound> {
           const Shape& in = b.in(0);
           auto a = size_t(normalise_axis(axis, int64_t(in.size())));
           if (a >= in.size())
             return invalid("The axis " + std::to_string(axis) + " is outside a tensor of rank " +
                            std::to_string(in.size()) + ".");
           int64_t k = b.ints(1).at(0), n = in[a], outer = product(in, 0, a), inner = product(in, a + 1, in.size());
           if (k < 0 || k > n)
             return invalid("TopK is asked for " + std::to_string(k) + " of " + std::to_string(n) + " elements.");
           return Bound{[=](Run& r) -> Status {
                          auto* indices = r.out_ids.size() > 1 ? r.out<int64_t>(1) : nullptr;
                          with_type(t, [&]<class T>(T) {
                            top_k(r.in<T>(0), r.out<T>(0), indices, outer, n, inner, k, largest, r.threads);
                          });
                          return {};
                        },
                        0, "", 0};
         }))
      .needs(1u << 1);
}

Made make_non_zero(const Make& m) {
  DType t = m.dtype(0);
  if (t != DType::boolean && !with_type(t, [](auto) {})) return "the element type";
  if (m.probe) return probed().makes_outputs();
  return Made(BindFn([=](const Bind& b) -> Result<Bound> {
           Shape in = b.in(0);
           return Bound{[=](Run& r) -> Status {
                          const int64_t n = product(in), rank = int64_t(in.size());
                          std::vector<int64_t> found;
                          with_type(t == DType::boolean ? DType::u8 : t, [&]<class T>(T) {
                            const T* x = r.in<T>(0);
                            for (int64_t i = 0; i < n; ++i)
                              if (x[i] != T(0)) found.push_back(i);
                          });
                          auto count = int64_t(found.size());
                          auto* to = static_cast<int64_t*>(AI_VMM_TAKE(r.make(0, DType::i64, {rank, count})));
                          Shape strides = strides_of(in);
                          for (int64_t a = 0; a < rank; ++a)
                            for (int64_t i = 0; i < count; ++i)
                              to[a * count + i] = found[size_t(i)] / strides[size_t(a)] % in[size_t(a)];
                          return {};
                        },
                        0, "", 0};
         }))
      .makes_outputs();
}

namespace {

struct Box {
  float y1, x1, y2, x2, area;
};

Box box_of(const float* p, bool centre) {
  Box b;
  if (centre)
    b = {p[1] - p[3] / 2, p[0] - p[2] / 2, p[1] + p[3] / 2, p[0] + p[2] / 2, 0};
  else
    b = {std::min(p[0], p[2]), std::min(p[1], p[3]), std::max(p[0], p[2]), std::max(p[1], p[3]), 0};
  b.area = (b.y2 - b.y1) * (b.x2 - b.x1);
  return b;
}

float overlap(const Box& a, const Box& b) {  // intersection over union
  float h = std::min(a.y2, b.y2) - std::max(a.y1, b.y1), w = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  if (h <= 0 || w <= 0 || a.area <= 0 || b.area <= 0) return 0;
  return h * w / (a.area + b.area - h * w);
}

}  // namespace

Made make_non_max_suppression(const Make& m) {
  if (m.probe) return probed().makes_outputs();
  bool centre = m.node.i("center_point_box", 0) != 0;
  return Made(BindFn([=](const Bind& b) -> Result<Bound> {
           Shape boxes = b.in(0), scores = b.in(1);
           if (boxes.size() != 3 || scores.size() != 3 || boxes[2] != 4 || boxes[0] != scores[0] ||
               boxes[1] != scores[2])
             return invalid("Boxes " + ai_vmm::to_string(boxes) + " and scores " + ai_vmm::to_string(scores) +
                            " do not fit together.");
           return Bound{
               [=](Run& r) -> Status {
                 auto scalar = [&](size_t k, auto fallback) {
                   using T = decltype(fallback);
                   return k < r.in_ids.size() && r.in_ids[k] >= 0 ? r.in<T>(k)[0] : fallback;
                 };
                 const int64_t most = scalar(2, int64_t(0));
                 const float limit = scalar(3, 0.0f);
                 const bool thresholded = r.in_ids.size() > 4 && r.in_ids[4] >= 0;
                 const float lowest = scalar(4, 0.0f);
                 std::vector<int64_t> chosen, order;
                 std::vector<Box> kept;
                 for (int64_t n = 0; n < boxes[0]; ++n)
                   for (int64_t c = 0; c < scores[1]; ++c) {
                     const float* s = r.in<float>(1) + (n * scores[1] + c) * scores[2];
                     order.clear();
                     for (int64_t i = 0; i < scores[2]; ++i)
                       if (!thresholded || s[i] > lowest) order.push_back(i);
                     std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return s[i] > s[j]; });
                     kept.clear();
                     for (int64_t i : order) {
                       if (int64_t(kept.size()) >= most) break;
                       Box box = box_of(r.in<float>(0) + (n * boxes[1] + i) * 4, centre);
                       if (std::any_of(kept.begin(), kept.end(), [&](const Box& k) { return overlap(k, box) > limit; }))
                         continue;
                       kept.push_back(box);
                       chosen.insert(chosen.end(), {n, c, i});
                     }
                   }
                 void* to = AI_VMM_TAKE(r.make(0, DType::i64, {int64_t(chosen.size() / 3), 3}));
                 if (!chosen.empty()) std::copy(chosen.begin(), chosen.end(), static_cast<int64_t*>(to));
                 return {};
               },
               0, "", 0};
         }))
      .makes_outputs();
}

}  // namespace ai_vmm::cpu
