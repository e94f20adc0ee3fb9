// Resize: nearest as an indexed copy of any type, linear and cubic (f32) one axis after the other.
#include <algorithm>
#include <cstring>

#include "backends/cpu/kernel.hpp"
#include "backends/cpu/ops/indexed.hpp"
#include "ops/resize.hpp"

namespace ai_vmm::cpu {

namespace {

// One axis as a sparse matrix: each output reads `width` inputs, given by index and weight.
struct Resample {
  int64_t outer, in, out, inner;
  int64_t width;
  std::vector<int32_t> index;
  std::vector<float> weight;

  void run(const float* x, float* y, int threads) const {
    if (inner >= 8) {
      parallel(threads, outer * out, std::max<int64_t>(1, 8192 / (inner * width)), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          int64_t o = i % out;
          const float* from = x + i / out * in * inner;
          float* to = y + i * inner;
          const float w0 = weight[size_t(o * width)];
          const float* a = from + index[size_t(o * width)] * inner;
          for (int64_t j = 0; j < inner; ++j) to[j] = w0 * a[j];
          for (int64_t k = 1; k < width; ++k) {
            const float w = weight[size_t(o * width + k)];
            const float* b = from + index[size_t(o * width + k)] * inner;
            for (int64_t j = 0; j < inner; ++j) to[j] += w * b[j];
          }
        }
      });
    } else {
      parallel(threads, outer, std::max<int64_t>(1, 4096 / std::max<int64_t>(1, out * inner * width)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i)
                   for (int64_t o = 0; o < out; ++o)
                     for (int64_t j = 0; j < inner; ++j) {
                       float sum = 0;
                       for (int64_t k = 0; k < width; ++k)
                         sum += weight[size_t(o * width + k)] * x[(i * in + index[size_t(o * width + k)]) * inner + j];
                       y[(i * out + o) * inner + j] = sum;
                     }
               });
    }
  }
};

Resample resample(const std::vector<ResizeTaps>& taps, int64_t outer, int64_t in, int64_t out, int64_t inner) {
  Resample r{outer, in, out, inner, 0, {}, {}};
  for (const auto& t : taps) r.width = std::max(r.width, int64_t(t.weights.size()));
  for (const auto& t : taps)
    for (int64_t k = 0; k < r.width; ++k) {
      bool real = k < int64_t(t.weights.size());
      r.index.push_back(int32_t(std::clamp<int64_t>(t.start + (real ? k : 0), 0, in - 1)));
      r.weight.push_back(real ? float(t.weights[size_t(k)]) : 0.0f);
    }
  return r;
}

}  // namespace

Made make_resize(const Make& m) {
  const Node& n = m.node;
  std::string mode = n.s("mode", "nearest");
  if (n.s("coordinate_transformation_mode") == "tf_crop_and_resize") return "regions of interest";
  if (n.s("keep_aspect_ratio_policy", "stretch") != "stretch") return "aspect ratio policies";
  const Tensor* scales = m.constant(2);
  bool by_scale = m.has(2) && (!scales || scales->count() > 0);
  if (by_scale && !scales) return "scales are not constant";
  if (mode != "nearest" && m.dtype(0) != DType::f32) return "interpolation of types other than f32";
  int64_t size = bits(m.dtype(0)) % 8 == 0 ? bits(m.dtype(0)) / 8 : 0;
  if (!size) return "packed element types";
  if (by_scale && scales->dtype() != DType::f32) return "scales must be f32";
  std::vector<float> factors;
  if (by_scale) factors.assign(scales->as<float>().begin(), scales->as<float>().end());
  auto node = std::make_shared<Node>(n);
  Made made(BindFn([=](const Bind& b) -> Result<Bound> {
    const Shape &in = b.in(0), &out = b.out(0);
    auto axes = node->ints("axes");
    std::vector<double> scale(in.size(), 1);
    for (size_t a = 0; a < in.size(); ++a) scale[a] = in[a] ? double(out[a]) / double(in[a]) : 1;
    for (size_t i = 0; by_scale && i < factors.size(); ++i) {
      size_t a = axes.empty() ? i : size_t(normalise_axis(axes.at(i), int64_t(in.size())));
      if (a >= in.size()) return invalid("Resize has more scales than axes.");
      scale[a] = double(factors[i]);
    }
    std::vector<std::vector<ResizeTaps>> taps;
    for (size_t a = 0; a < in.size(); ++a) {
      if (in[a] == 0 && out[a] != 0) return invalid("Resize cannot enlarge an empty input.");
      taps.push_back(AI_VMM_TAKE(resize_taps(*node, ResizeAxis{in[a], out[a], scale[a], 0, 1})));
    }
    if (mode == "nearest") {
      std::vector<std::vector<int64_t>> maps(in.size());
      for (size_t a = 0; a < in.size(); ++a)
        for (const auto& t : taps[a]) maps[a].push_back(std::clamp<int64_t>(t.start, 0, in[a] - 1));
      auto copy = std::make_shared<IndexedCopy>(in, std::move(maps), size);
      return Bound{[copy](Run& r) -> Status {
                     copy->run(r.in<void>(0), r.out<void>(0), nullptr, r.threads);
                     return {};
                   },
                   0, "nearest", 0};
    }
    // The axis that shrinks most goes first, so that what lies between stays small.
    std::vector<size_t> order;
    for (size_t a = 0; a < in.size(); ++a)
      if (scale[a] != 1 || in[a] != out[a]) order.push_back(a);
    std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) { return scale[x] < scale[y]; });
    auto passes = std::make_shared<std::vector<Resample>>();
    Shape now = in;
    int64_t between = 0;
    Bound bound;
    for (size_t i = 0; i < order.size(); ++i) {
      size_t a = order[i];
      passes->push_back(resample(taps[a], product(now, 0, a), now[a], out[a], product(now, a + 1, now.size())));
      now[a] = out[a];
      if (i + 1 < order.size()) between = std::max(between, product(now));
      bound.flops += 2.0 * double(product(now)) * double(passes->back().width);
    }
    bound.scratch = 2 * between * int64_t(sizeof(float));
    bound.note = mode;
    int64_t bytes = product(in) * int64_t(sizeof(float));
    bound.run = [=](Run& r) -> Status {
      auto* scratch = reinterpret_cast<float*>(r.scratch);
      const float* from = r.in<float>(0);
      if (passes->empty()) std::memcpy(r.out<float>(0), from, size_t(bytes));
      for (size_t i = 0; i < passes->size(); ++i) {
        float* to = i + 1 == passes->size() ? r.out<float>(0) : scratch + int64_t(i % 2) * between;
        (*passes)[i].run(from, to, r.threads);
        from = to;
      }
      return {};
    };
    return bound;
  }));
  return made;
}

}  // namespace ai_vmm::cpu
