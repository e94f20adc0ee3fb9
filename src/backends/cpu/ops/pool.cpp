// MaxPool, AveragePool and the global pools.
#include <algorithm>

#include "backends/cpu/kernel.hpp"
#include "backends/cpu/kernels/kernels.hpp"

namespace ai_vmm::cpu {

namespace {

Made pool(const Make& m, bool max) {
  if (m.dtype(0) != DType::f32) return "only float32";
  if (m.rank(0) < 3 || m.rank(0) > 5) return "one to three spatial axes only";
  if (m.has_out(1)) return "the places of the maxima";
  auto kernel = m.node.ints("kernel_shape"), strides = m.node.ints("strides"), dilations = m.node.ints("dilations"),
       pads = m.node.ints("pads");
  std::string auto_pad = m.node.s("auto_pad", "NOTSET");
  bool count_padding = m.node.i("count_include_pad", 0);
  Layout layout = m.layout(0);
  return BindFn([=](const Bind& s) -> Result<Bound> {
    const Shape &x = s.in(0), &y = s.out(0);
    size_t spatial = x.size() - 2;
    PoolShape p{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}, count_padding};
    for (size_t d = 0; d < spatial; ++d) {
      size_t to = 3 - spatial + d;
      p.in[to] = x[d + 2], p.out[to] = y[d + 2], p.kernel[to] = kernel[d];
      p.stride[to] = strides.empty() ? 1 : strides[d];
      p.dilation[to] = dilations.empty() ? 1 : dilations[d];
      if (auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER") {
        int64_t total =
            std::max<int64_t>(0, (p.out[to] - 1) * p.stride[to] + (p.kernel[to] - 1) * p.dilation[to] + 1 - p.in[to]);
        p.before[to] = auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
        p.after[to] = total - p.before[to];
      } else if (!pads.empty() && auto_pad != "VALID") {
        p.before[to] = pads[d];
        p.after[to] = pads[d + spatial];
      }
    }
    int block = std::max(layout.block, 1);
    int64_t planes = physical_count(x, layout) / std::max<int64_t>(1, product(x, 2, x.size()) * block);
    int64_t in = product(x, 2, x.size()) * block, out = product(y, 2, y.size()) * block, window = product(kernel);
    return Bound{[=](Run& r) -> Status {
                   parallel(r.threads, planes, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, out * window)),
                            [&](int64_t first, int64_t last) {
                              for (int64_t i = first; i < last; ++i)
                                kernels().pool_plane(&p, r.in<float>(0) + i * in, r.out<float>(0) + i * out, block,
                                                     max);
                            });
                   return {};
                 },
                 0, layout.block ? "blocked" : "plain", double(planes * out * window)};
  });
}

Made global(const Make& m, bool max) {
  if (m.dtype(0) != DType::f32) return "only float32";
  Layout in = m.layout(0), out = m.out_layout(0);
  return BindFn([=](const Bind& s) -> Result<Bound> {
    const Shape& x = s.in(0);
    int64_t n = x[0], c = x[1], inner = product(x, 2, x.size());
    if (!in.block)
      return Bound{[=](Run& r) -> Status {
        parallel(r.threads, n * c, std::max<int64_t>(1, 16384 / std::max<int64_t>(inner, 1)),
                 [&](int64_t first, int64_t last) {
                   for (int64_t i = first; i < last; ++i) {
                     float v = kernels().reduce_row(r.in<float>(0) + i * inner, inner, max ? 1 : 0);
                     r.out<float>(0)[i] = max ? v : v / float(inner);
                   }
                 });
        return {};
      }};
    int64_t block = in.block, blocks = (c + block - 1) / block;
    return Bound{[=](Run& r) -> Status {
                   parallel(r.threads, n * blocks, std::max<int64_t>(1, 16384 / std::max<int64_t>(inner * block, 1)),
                            [&](int64_t first, int64_t last) {
                              for (int64_t i = first; i < last; ++i) {
                                float v[16];
                                kernels().pool_all(r.in<float>(0) + i * block * inner, inner, v, int(block), max);
                                int64_t at = i / blocks, cb = i % blocks;
                                if (out.block)
                                  std::copy(v, v + block, r.out<float>(0) + i * block);
                                else
                                  std::copy(v, v + std::min(block, c - cb * block),
                                            r.out<float>(0) + at * c + cb * block);
                              }
                            });
                   return {};
                 },
                 0, "blocked", double(n * c * inner)};
  });
}

}  // namespace

Made make_max_pool(const Make& m) { return pool(m, true); }
Made make_average_pool(const Make& m) { return pool(m, false); }
Made make_global_max_pool(const Make& m) { return global(m, true); }
Made make_global_average_pool(const Make& m) { return global(m, false); }

}  // namespace ai_vmm::cpu
